"""Apply rules to the documents of a split, for `filter` and for the stages before it that rules need.

A rule that needs a stage sees there exactly what the rules before it leave. So each such stage reads the documents
again and applies those rules; what it finds about each document is a verdict, in a small file a split.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.errors import UserError
from filters.reasons import Reason
from filters.rule import Filtered, Found, Rule, apply_rules, name_of, page_of, rule_labels
from manifests.document import ID_BYTES, locator_from
from manifests.mirror import fetch
from manifests.recipe import Recipe
from manifests.source import LANGUAGE_KNOWN, Source
from pipeline.beam.quarantine import forget_record, is_noting, note_record
from pipeline.beam.step import Files, Keyed, Receipt, Receipts, Unit, source_of
from pipeline.beam.tables import read_ipc, read_rows

SEEN = ("id", "text", "url", "timestamp", "metadata")  # columns of a document that rules may look at
PASSES = ("url_dedup", "line_dedup", "perplexity", "references")  # stages that rules may need, in their usual order

COMPARING = ("url_dedup", "line_dedup")  # those of them that compare documents with each other


@dataclass(frozen=True)
class Verdicts:
    """The receipts of verdicts by stage and split, of the stages that have run."""

    by_stage: Mapping[str, Receipts] = field(default_factory=dict)

    def of(self, rules: Iterable[Rule]) -> list[Receipts]:
        """Return the receipts that rules need."""
        return [self.by_stage.get(rule.needs, {}) for rule in rules if rule.needs_verdicts]


def arguments_of(
    recipe: Recipe,
    models: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, str],
    trained: Mapping[str, list[Receipt]],
    stage: str = "",
) -> dict[str, dict[str, Any]]:
    """Return, by source, the arguments of all functions that apply its rules: name, rules and models.

    Args:
        recipe: the run's.
        models: from `models_of`, by source.
        given: hashes of the models and lists that the recipe gives by path, by source and use.
        trained: receipts of what the run has trained, by source.
        stage: only the rules before the one that needs this stage; all by default.
    """
    found = {}
    for name, source in recipe.sources.items():
        rules, _ = source.rule_for(stage)
        uses = {use: sha for use, sha in given.items() if use.startswith(tuple(uses_of(name, source, rules)))}
        key = [[[type(rule).__module__, rule.step_key()] for rule in rules], uses, trained.get(name, [])]
        found[name] = {
            "name": name,
            "rules": Keyed(rules, key),
            "models": Keyed(models[name]),
            "language_known": source.kind in LANGUAGE_KNOWN,
        }
    return found


def uses_of(name: str, source: Source, rules: Sequence[Rule]) -> list[str]:
    """Return the prefixes of the names of models and lists that some of a source's rules use."""
    labels = zip(source.filters, rule_labels(source.filters), strict=True)
    return [f"{name}.{label}." for rule, label in labels if any(rule is one for one in rules)]


def calls_of(rules: Iterable[Rule]) -> tuple[Callable[..., Any], ...]:
    """Return the classes of rules, which are part of the code of the step that applies them."""
    return tuple(dict.fromkeys(type(rule) for rule in rules))


def units_for(
    recipe: Recipe, stage: str, extracted: Receipts, verdicts: Verdicts, with_rule: bool = False
) -> list[Unit]:
    """Return a unit per split that is to be read with the rules before a stage, of the sources that need it.

    Args:
        recipe: the run's.
        stage: its name.
        extracted: receipts of documents by split.
        verdicts: of the stages that rules need.
        with_rule: the rule that needs the stage is called as well.
    """
    found = {name: source.rule_for(stage) for name, source in recipe.sources.items()}
    calls = {name: calls_of([*rules, *([rule] if rule and with_rule else [])]) for name, (rules, rule) in found.items()}
    needed = {name: verdicts.of(rules) for name, (rules, _) in found.items()}
    units = []
    for split, receipt in sorted(extracted.items()):
        source = source_of(split)
        if found[source][1] is not None:
            reads = [Files(receipt, "documents"), *(some[split] for some in needed[source] if split in some)]
            units.append(Unit(split, {}, reads, receipt.bytes, source, calls[source]))
    return units


def filter_pages(
    corpus: Path,
    split: str,
    rules: Sequence[Rule],
    models: Mapping[str, Any],
    language_known: bool,
    columns: Sequence[str] | None = SEEN,
) -> Iterator[tuple[dict[str, Any], Filtered]]:
    """Yield each document of a split in order, as a row, with what rules make of it.

    Args:
        corpus: the corpus.
        split: of `extract`.
        rules: in order; the verdicts that they need are there.
        models: of the source, from `models_of`.
        language_known: True if the source's reader tells each document's language.
        columns: of the rows: at least `SEEN`; None for all.
    """
    found: list[Iterator[Any]] = []
    for rule in rules:
        read = VERDICTS.get(rule.needs) if rule.needs_verdicts else None
        found.append(iter(read(corpus, split)) if read is not None else itertools.repeat(None))
    made = [models.get(rule.needs) for rule in rules]
    names = None if columns is None or is_noting() else list(columns)
    for row in read_rows(corpus / f"documents/{split}.parquet", names):
        if is_noting():
            note_record(locator_from(row))
        given = [Found(next(verdicts), model) for verdicts, model in zip(found, made, strict=True)]
        try:
            filtered = apply_rules(page_of(row, language_known), rules, given)
        except Exception as error:
            own = [name_of(rule) for rule in rules if ":" in name_of(rule)]
            if not own or isinstance(error, UserError | OSError):
                raise
            raise UserError(
                f"{' or '.join(own)} fails on document {row['id'].hex()} of {split} ({type(error).__name__}: {error}): "
                "mend the rule and run again, which continues from here"
            ) from error
        yield row, filtered
        forget_record()


def read_older(corpus: Path, split: str) -> Iterable[bool]:
    """Return for each document of a split, in order, whether `url_dedup` found a newer one under its URL."""
    older: list[bool] = np.fromfile(corpus / verdict_path("url_dedup", split), np.bool_).tolist()
    return older


def read_masks(corpus: Path, split: str) -> Iterator[Any]:
    """Yield for each document of a split, in order, a mask of its lines: True for those that are duplicates."""
    column = read_ipc(corpus / verdict_path("line_dedup", split)).column("removed")
    offsets, values = column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=False)
    for start, end in itertools.pairwise(offsets.tolist()):
        yield values[start:end]


def read_scores(corpus: Path, split: str) -> Iterable[float | None]:
    """Return the perplexity of each document of a split, in order; None where it has none."""
    scores: list[float | None] = read_ipc(corpus / verdict_path("perplexity", split)).column("perplexity").to_pylist()
    return scores


VERDICTS: dict[str, Callable[[Path, str], Iterable[Any]]] = {
    "url_dedup": read_older,
    "line_dedup": read_masks,
    "perplexity": read_scores,
}
_PLACES = {
    "url_dedup": "verdicts/url_dedup/{}.bin",
    "line_dedup": "verdicts/line_dedup/{}.arrow",
    "perplexity": "blocks/perplexity/score/{}.arrow",
}


def verdict_path(stage: str, split: str) -> str:
    """Return the path of a split's verdicts, below the corpus."""
    return _PLACES[stage].format(split)


def find_mask(corpus: Path, splits: Iterable[str], document: bytes) -> Any:
    """Return the mask of one document's lines, by its id; None if no verdict file of the splits holds it."""
    for split in splits:
        path = fetch(corpus, verdict_path("line_dedup", split))
        if path.exists():
            batch = read_ipc(path)
            row = batch.column("id").index(pa.scalar(document, pa.binary(ID_BYTES))).as_py()
            if row >= 0:
                return np.array(batch.column("removed")[row].as_py(), bool)
    return None


def custom_reasons(recipe: Recipe) -> dict[str, str]:
    """Return the descriptions of the reasons of a user's own rules, for the manifest."""
    rules = [rule for source in recipe.sources.values() for rule in source.filters]
    return {reason.value: reason.description for rule in rules for reason in rule.REASONS if reason not in set(Reason)}


def count_lists(recipe: Recipe) -> dict[str, dict[str, int]]:
    """Return the rules' counts about the lists that they are given, by `SOURCE.RULE`, for the manifest."""
    found = {}
    for name, source in recipe.sources.items():
        for rule, label in zip(source.filters, rule_labels(source.filters), strict=True):
            if facts := rule.findings():
                found[f"{name}.{label}"] = facts
    return found


def order_of_passes(recipe: Recipe) -> list[str]:
    """Return the stages that rules may need, in an order that suits every source's list.

    Raises:
        UserError: two sources need two of them in opposite orders.
    """
    chains = {
        name: [rule.needs for rule in source.rules_at("filter") if rule.needs]
        for name, source in recipe.sources.items()
    }
    order: list[str] = []
    while len(order) < len(PASSES):
        left = [stage for stage in PASSES if stage not in order]
        blocked = {stage for chain in chains.values() for stage in [one for one in chain if one in left][1:]}
        free = [stage for stage in left if stage not in blocked]
        if not free:
            names = " and ".join(sorted(name for name, chain in chains.items() if set(chain) & blocked)[:2])
            raise UserError(
                f"sources {names}: their filters look at all documents in opposite orders: give both lists one order"
            )
        order.append(free[0])
    return order
