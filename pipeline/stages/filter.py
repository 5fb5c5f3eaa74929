"""filter: apply the rules of each source to its documents, and write the kept documents to `clean/`.

The step also writes the documents' signals, and MinHash signatures for the stage `neardup`.

Some rules need a result that another stage computes from all documents (`Rule.needs`). That stage must see each
document exactly as the rules before that rule edit it. Therefore the stage reads the documents again and applies these
earlier rules (`filter_pages`). Its result for a document is a verdict. The verdicts of a split are one small file.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.dedup.minhash import MinHash
from filters.errors import UserError
from filters.reasons import AnyReason, Reason
from filters.rule import COLUMNS, Found, Rule, page_of
from filters.rule_list import Filtered, apply_rules, name_of, raise_failure, rule_labels
from manifests.document import CLEAN_SCHEMA, DOCUMENT_SCHEMA, ID_BYTES, content_hash, locator_from
from manifests.ledger import Tally
from manifests.mirror import fetch
from manifests.recipe import Recipe
from manifests.source import LANGUAGE_KNOWN, Source
from pipeline.beam.exchange import Mapped, by_split
from pipeline.beam.quarantine import forget_record, is_noting, note_record
from pipeline.beam.step import Awaited, Files, Keyed, Receipt, Receipts, Result, Step, Unit, source_of
from pipeline.beam.tables import read_ipc, read_rows, table_writer
from pipeline.beam.work import Turns
from pipeline.dedup.signatures import SignatureRows, signature_path, signature_settings

STEP = "filter"
OWNED = ("clean", "dropped", "blocks/signatures")
DROPPED_SCHEMA = pa.schema([("reason", pa.string()), *DOCUMENT_SCHEMA])
SEEN = ("id", "text", "url", "timestamp", "metadata")  # Columns of a document that rules can read.
PASSES = ("url_dedup", "line_dedup", "perplexity", "references")  # Stages that rules may need, in their usual order.
COMPARING = ("url_dedup", "line_dedup")  # Stages in `PASSES` that compare documents with each other.

Verdicts = Mapping[str, Receipts]  # Stage -> split -> receipt, for the stages in `PASSES` that have run.


@dataclass(frozen=True)
class SourceRules:
    """The rules of a source, with everything that is needed to apply them.

    Attributes:
        source: Name of the source.
        rules: Rules in the order in which they are applied.
        models: Models that the run computes, by stage, from `trained_models`.
        language_known: True if the reader of the source sets the language of each document.
    """

    source: str
    rules: list[Rule]
    models: Mapping[str, Any]
    language_known: bool


def rule_arguments(
    recipe: Recipe,
    models: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, str],
    trained: Mapping[str, list[Receipt]],
    stage: str = "",
) -> dict[str, dict[str, Any]]:
    """Return a dict from source name to `{"applied": SourceRules}`, the argument of functions that apply rules.

    The cache key of the argument covers the settings of the rules, and the models and lists that they use.

    Args:
        recipe: Recipe of the run.
        models: Models of each source, from `trained_models`.
        given: Hashes of the models and lists that the recipe gives by path, by `SOURCE.RULE.USE`.
        trained: For each source, receipts of the models that the run has trained.
        stage: Name of a stage. Only the rules before the rule that needs it are used. If empty, all rules are used.
    """
    found = {}
    for name, source in recipe.sources.items():
        rules, _ = source.rule_for(stage)
        uses = {use: sha for use, sha in given.items() if use.startswith(tuple(use_prefixes(name, source, rules)))}
        applied = SourceRules(name, rules, models[name], source.kind in LANGUAGE_KNOWN)
        steps = [[name_of(rule), rule.step_key()] for rule in rules]
        found[name] = {"applied": Keyed(applied, [name, applied.language_known, steps, uses, trained.get(name, [])])}
    return found


def use_prefixes(name: str, source: Source, rules: Sequence[Rule]) -> list[str]:
    """Return the prefixes `SOURCE.RULE.` of the names of models and lists that `rules` use."""
    labels = zip(source.filters, rule_labels(source.filters), strict=True)
    return [f"{name}.{label}." for rule, label in labels if any(rule is one for one in rules)]


def rule_classes(rules: Iterable[Rule]) -> tuple[Callable[..., Any], ...]:
    """Return the distinct classes of rules. Their code is part of the cache key of a step that applies them."""
    return tuple(dict.fromkeys(type(rule) for rule in rules))


def units_for(recipe: Recipe, stage: str, extracted: Receipts, verdicts: Verdicts) -> list[Unit]:
    """Return the units of a stage that applies rules: one unit per split of the sources that need the stage.

    Args:
        recipe: Recipe of the run.
        stage: Name of the stage, whose units apply the rules before the rule that needs it. If empty, the units apply
            all rules, and there is a unit per split of every source.
        extracted: Receipts of `extract`, by split.
        verdicts: Receipts of the stages that rules need.
    """
    found = {name: source.rule_for(stage) for name, source in recipe.sources.items()}
    calls = {name: rule_classes([*rules, *([rule] if rule else [])]) for name, (rules, rule) in found.items()}
    needed = {
        name: [verdicts.get(one.needs, {}) for one in rules if one.needs_verdicts] for name, (rules, _) in found.items()
    }
    units = []
    for split in sorted(extracted):
        source = source_of(split)
        if found[source][1] is not None or not stage:
            reads = [Files(extracted, split, ("documents/",))]
            reads += [Files(known, split) for known in needed[source] if split in known]
            units.append(Unit(split, {}, reads, extracted[split].bytes, source, calls[source]))
    return units


def filter_step(
    recipe: Recipe,
    extracted: Receipts,
    by_source: Mapping[str, Mapping[str, Any]],
    verdicts: Verdicts,
    keep_dropped: int,
) -> Step:
    """Return the step that filters documents, with a unit per split of `extract`.

    Args:
        recipe: Recipe of the run.
        extracted: Receipts of `extract`, by split.
        by_source: Arguments of each source, from `rule_arguments`.
        verdicts: Receipts of the stages that rules need.
        keep_dropped: Number of dropped documents per reason and split whose text is stored as examples.
    """
    units = units_for(recipe, "", extracted, verdicts)
    arguments = {name: {**given, "minhash": signature_settings(recipe, name)} for name, given in by_source.items()}
    return Step(STEP, filter_documents, units, {"keep_dropped": keep_dropped}, arguments, OWNED)


def filter_documents(
    corpus: Path, split: str, *, applied: SourceRules, minhash: MinHash | None, keep_dropped: int
) -> Result:
    """Filter the documents of one split.

    It writes the kept documents, their signatures, and the dropped documents with reasons. Text is stored for the first
    `keep_dropped` dropped documents per reason. `minhash` is None if the source is not searched for near-duplicates.
    """
    kept, dropped = f"clean/{split}.parquet", f"dropped/{split}.parquet"
    tally, signatures = Tally(), SignatureRows(minhash)
    dropped_rows: list[dict[str, Any]] = []
    counts = Counter[AnyReason]()
    with table_writer(corpus / kept, CLEAN_SCHEMA) as writer:
        for row, found in filter_pages(corpus, split, applied, columns=None):
            tally.enter(records=1, characters=len(row["text"]))
            if found.reason is not None:
                tally.drop(found.reason, records=1, characters=len(row["text"]))
                counts[found.reason] += 1
                text = row["text"] if counts[found.reason] <= keep_dropped else None
                dropped_rows.append({**row, "reason": found.reason.value, "text": text})
                continue
            tally.keep(records=1, characters=len(found.text))
            for reason, removed in found.removed.items():
                tally.remove(reason, lines=removed.lines, characters=removed.characters)
            digest = content_hash(found.text)
            signals = {signal: found.signals.get(signal) for signal in COLUMNS}
            others = [
                (signal, float(value))
                for signal, value in sorted(found.signals.items())
                if signal not in COLUMNS and value is not None
            ]
            more = {"content_hash": digest, **signals, "signals": others, "flags": found.flags}
            writer.append({**row, "text": found.text, **more})
            signatures.append(row["id"], digest, found.text, row["timestamp"], found.signals.get("reference_score"))
    signatures.write(corpus / signature_path(split))
    paths = [kept, signature_path(split)]
    if dropped_rows:
        with table_writer(corpus / dropped, DROPPED_SCHEMA) as writer:
            for row in dropped_rows:
                writer.append(row)
        paths.append(dropped)
    return Result(paths, {applied.source: tally})


def filter_pages(
    corpus: Path, split: str, applied: SourceRules, columns: Sequence[str] | None = SEEN
) -> Iterator[tuple[dict[str, Any], Filtered]]:
    """Apply rules to the documents of a split in order. Yield each document as a row, with the result of the rules.

    Args:
        corpus: Folder of the corpus.
        split: Name of the split.
        applied: Rules to apply. The verdicts that they need must have been written.
        columns: Columns of the rows, which must include `SEEN`; None for all columns.
    """
    rules, found = applied.rules, list[Iterator[Any]]()
    for rule in rules:
        has_verdicts = rule.needs_verdicts and rule.needs in VERDICTS
        found.append(iter(VERDICTS[rule.needs][1](corpus, split)) if has_verdicts else itertools.repeat(None))
    made = [applied.models.get(rule.needs) for rule in rules]
    names = None if columns is None or is_noting() else list(columns)
    for row in read_rows(corpus / f"documents/{split}.parquet", names):
        if is_noting():
            note_record(locator_from(row))
        given = [Found(next(verdicts), model) for verdicts, model in zip(found, made, strict=True)]
        try:
            filtered = apply_rules(page_of(row, applied.language_known), rules, given)
        except Exception as error:
            raise_failure(rules, error, f"document {row['id'].hex()} of {split}")
        yield row, filtered
        forget_record()


def read_older(corpus: Path, split: str) -> Iterable[bool]:
    """Read the verdicts of `url_dedup`: for each document, True if there is a newer document with the same URL."""
    older: list[bool] = np.fromfile(corpus / verdict_path("url_dedup", split), np.bool_).tolist()
    return older


def read_masks(corpus: Path, split: str) -> Iterator[Any]:
    """Yield the verdicts of `line_dedup`: for each document, a boolean mask (lines,) of the duplicate lines."""
    column = read_ipc(corpus / verdict_path("line_dedup", split)).column("removed")
    offsets, values = column.offsets.to_numpy(), column.values.to_numpy(zero_copy_only=False)
    for start, end in itertools.pairwise(offsets.tolist()):
        yield values[start:end]


def read_scores(corpus: Path, split: str) -> Iterable[float | None]:
    """Read the perplexity of each document of a split. It is None if the document was not scored."""
    scores: list[float | None] = read_ipc(corpus / verdict_path("perplexity", split)).column("perplexity").to_pylist()
    return scores


# Stage -> (path of the verdict file of a split, function that reads it in the order of the documents).
VERDICTS: dict[str, tuple[str, Callable[[Path, str], Iterable[Any]]]] = {
    "url_dedup": ("verdicts/url_dedup/{}.bin", read_older),
    "line_dedup": ("verdicts/line_dedup/{}.arrow", read_masks),
    "perplexity": ("blocks/perplexity/score/{}.arrow", read_scores),
}


def verdict_path(stage: str, split: str) -> str:
    """Return the path of the verdicts of a stage about a split, relative to the corpus."""
    return VERDICTS[stage][0].format(split)


def compare_turns(
    stage: str, collect: Step, found: tuple[Step, Step], bits: int, reduce_verdicts: Callable[..., Result]
) -> Turns:
    """Return the turns of a job that compares documents: collect keys, find duplicates, send verdicts.

    If `collect` has no units, the job has only this step.

    Args:
        stage: Name of the stage.
        collect: Step that writes the keys of each split.
        found: Two steps that find duplicates. The first has a mapper per split, in the order of the split numbers. The
            second has a reducer per range, which writes the places of duplicates: (split number << bits) | row.
        bits: Number of bits for the row in a place.
        reduce_verdicts: Function that writes the verdicts of a split from the rows of its duplicates.
    """
    if not collect.units:
        return [[(collect,)]]
    return [[(collect,)], [found], [send_verdicts(stage, *found, bits, reduce_verdicts)]]


def send_verdicts(
    stage: str, keys: Step, duplicates: Step, bits: int, reduce_verdicts: Callable[..., Result]
) -> tuple[Step, Step]:
    """Return the two steps that send the places of duplicates to their splits: a mapper per range, a reducer per split.

    Each reducer also reads the keys of its split. So it awaits the same tasks as the unit of that split in `keys`.
    """
    maps = [Unit(unit.name, awaits=(Awaited(duplicates.name, unit.name),)) for unit in duplicates.units]
    reduces = [Unit(unit.name, awaits=unit.awaits) for unit in keys.units]
    mapping = Step(f"{stage}/places", map_verdicts, maps, {"folder": f"blocks/{duplicates.name}", "bits": bits})
    return mapping, Step(f"{stage}/verdicts", reduce_verdicts, reduces, owns=(f"verdicts/{stage}",))


def map_verdicts(corpus: Path, part: str, *, folder: str, bits: int) -> Mapped:
    """Send the rows of the duplicates of one hash range, by split number."""
    return Mapped(by_split(np.fromfile(corpus / folder / part, np.int64), bits))


def find_mask(corpus: Path, splits: Iterable[str], document: bytes) -> Any:
    """Return the mask of the duplicate lines of one document; None if no verdict file of the splits has its id."""
    for split in splits:
        path = fetch(corpus, verdict_path("line_dedup", split))
        if path.exists():
            batch = read_ipc(path)
            row = batch.column("id").index(pa.scalar(document, pa.binary(ID_BYTES))).as_py()
            if row >= 0:
                return np.array(batch.column("removed")[row].as_py(), bool)
    return None


def custom_reasons(recipe: Recipe) -> dict[str, str]:
    """Return a dict from reason to description for the reasons of users' own rules. The manifest records it."""
    rules = [rule for source in recipe.sources.values() for rule in source.filters]
    return {reason.value: reason.description for rule in rules for reason in rule.REASONS if reason not in set(Reason)}


def count_lists(recipe: Recipe) -> dict[str, dict[str, int]]:
    """Return the counts that rules report about their lists, by `SOURCE.RULE`. The manifest records them."""
    found = {}
    for name, source in recipe.sources.items():
        for rule, label in zip(source.filters, rule_labels(source.filters), strict=True):
            if facts := rule.findings():
                found[f"{name}.{label}"] = facts
    return found


def order_of_passes(recipe: Recipe) -> list[str]:
    """Return the stages in `PASSES`, in an order that is compatible with the filters of every source.

    Raises:
        UserError: Two sources need two stages in opposite orders.
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
                f"sources {names}: their lists have the filters that need all documents in opposite orders: "
                "give both lists the same order"
            )
        order.append(free[0])
    return order
