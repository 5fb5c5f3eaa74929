"""extract: a split of a dump -> documents, dead letters, and a tally of every record and byte."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filters.errors import UserError
from filters.reasons import DEAD_LETTERS, Reason
from filters.rule import Record
from filters.rule_list import first_record_reason, name_of
from manifests.document import DOCUMENT_SCHEMA
from manifests.files import canonical_json, write_atomic
from manifests.ledger import Tally
from manifests.mirror import StoredDump, open_range
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.quarantine import Place, forget_record
from pipeline.beam.step import Keyed, Receipts, Result, Step, Unit
from pipeline.beam.tables import table_writer
from pipeline.sources.base import Outcome, code_of, joined_for, reader_for
from pipeline.sources.inputs import Input
from pipeline.stages.filter import rule_classes, use_prefixes
from pipeline.stages.split_offsets import piece_unit, pieces_of

STEP = "extract"
OWNED = ("documents", "deadletters", "skipped")
SKIPPED = 3  # dropped records per reason and split whose place is kept, for people; those with a URL are all kept


def extract_step(
    recipe: Recipe,
    inputs: list[Input],
    offsets: Receipts,
    models: dict[str, str],
    quarantine: Iterable[Place] = (),
) -> Step:
    """Return the step with a unit per split: a file, or a piece of a large one, named after the place where it begins.

    Args:
        recipe: the run's.
        inputs: of all sources; those that `join` reads have no unit here.
        offsets: receipts of `split_offsets`.
        models: hashes of the models and lists that the recipe gives by path.
        quarantine: records that readers drop unread.

    Raises:
        UserError: a file has the name of another's piece.
    """
    units: dict[str, Unit] = {}
    for item in inputs:
        source = recipe.sources[item.source]
        if joined_for(source) is not None:
            continue
        pieces = list(pieces_of(offsets, item))
        for piece in pieces:
            split = f"{item.source}/{item.name}" + (f"@{piece.start:015d}" if len(pieces) > 1 else "")
            if split in units:
                raise UserError(f"{split} is the name of a file and of another's piece: rename the file")
            calls = (code_of(reader_for(item.source, source), "read"), *rule_classes(source.rules_at("extract")))
            units[split] = piece_unit(split, item, piece, source, calls, quarantine)
    by_source = {name: source_arguments(name, source, models) for name, source in recipe.sources.items()}
    is_joined = any(joined_for(source) is not None for source in recipe.sources.values())
    return Step(STEP, extract, list(units.values()), {}, by_source, OWNED, shared=is_joined)


def source_arguments(name: str, source: Source, models: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments by source of functions that read dumps. `models`: hashes of given files, by source and use.

    Only the part of the recipe counts that the source's documents depend on.
    """
    used = {"kind", "licence", "extractor", "limits", "columns", "settings"}
    used |= {"arxiv", "wikipedia", "stackexchange", "github"} & {source.kind}
    rules = source.rules_at("extract")
    uses = tuple(use_prefixes(name, source, rules))
    files = {use: sha for use, sha in models.items() if uses and use.startswith(uses)}
    key = [source.model_dump(include=used), [[name_of(rule), rule.step_key()] for rule in rules], files]
    return {"name": name, "source": Keyed(source, key)}


def extract(
    corpus: Path,
    split: str,
    *,
    name: str,
    source: Source,
    file: str,
    path: str | StoredDump,
    start: int,
    end: int,
    state: int,
) -> Result:
    """Read one split of an input: the stored bytes from `start` to `end`. Raises OSError if they cannot be read."""
    with open_range(path, corpus, start, end) as stored:
        outcomes = reader_for(name, source).read(stored, file, name, source, start, end, state)
        result = write_outcomes(corpus, split, name, source, outcomes, {"file": file})
    counted = result.tallies[name].entered["bytes"]
    if counted != end - start:
        raise RuntimeError(f"{split}: {end - start} bytes, {counted} accounted for")
    return result


def write_outcomes(
    corpus: Path, split: str, name: str, source: Source, outcomes: Iterable[Outcome], facts: dict[str, Any]
) -> Result:
    """Write the documents and dead letters of a split's records, and count them."""
    documents, tally = f"documents/{split}.parquet", Tally()
    letters: list[dict[str, Any]] = []
    skipped: dict[str, list[dict[str, Any]]] = {}
    with table_writer(corpus / documents, DOCUMENT_SCHEMA) as writer:
        for outcome in outcomes:
            forget_record()
            if outcome.document is not None:
                url = outcome.document.url  # not every reader looks at it
                if reason := first_record_reason(source.filters, Record(url, None)):
                    outcome = Outcome(outcome.locator, outcome.stored, reason=reason, url=url)
            if outcome.document is not None:
                row = outcome.document.as_row()
                tally.enter(records=1, bytes=outcome.stored)
                tally.keep(records=1, bytes=outcome.stored, characters=len(row["text"]))
                writer.append(row)
                continue
            count_dropped(outcome, tally)
            if outcome.reason is None or outcome.reason is Reason.JOINED:
                continue
            place = {key: value for key, value in outcome.locator.as_dict().items() if value not in ("", [])}
            place |= {"reason": outcome.reason.value, "detail": outcome.detail}
            place |= {"url": outcome.url} if outcome.url else {}
            if outcome.reason in DEAD_LETTERS:
                letters.append(place)
            elif len(some := skipped.setdefault(place["reason"], [])) < SKIPPED or outcome.url:
                some.append(place)
    paths = [documents]
    for folder, places in (
        ("deadletters", letters),
        ("skipped", [place for some in skipped.values() for place in some]),
    ):
        if places:
            paths.append(f"{folder}/{split}.jsonl")
            write_atomic(corpus / paths[-1], b"".join(map(canonical_json, places)))
    return Result(paths, {name: tally}, facts)


def count_dropped(outcome: Outcome, tally: Tally) -> None:
    """Count a record that is no document; a row that has become part of one is not dropped but removed."""
    assert outcome.reason is not None, "an outcome is a document or a reason"
    tally.enter(records=1, bytes=outcome.stored)
    count = tally.remove if outcome.reason is Reason.JOINED else tally.drop
    count(outcome.reason, records=1, bytes=outcome.stored)
