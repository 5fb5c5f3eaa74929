"""The step `extract`: read a split of a dump, write its documents and dead letters, and count its records and bytes."""

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
# Dropped records per reason and split whose locators are written to `skipped`, as examples for users. Dropped records
# with a URL are all written.
MAX_EXAMPLES = 3


def extract_step(
    recipe: Recipe,
    inputs: list[Input],
    offsets: Receipts,
    models: dict[str, str],
    quarantine: Iterable[Place] = (),
) -> Step:
    """Return the step with one unit per split.

    A split is a file or a piece of a large file. The name of a piece ends with the offset of its first byte.

    Args:
        recipe: The recipe of the run.
        inputs: The inputs of all sources. Inputs that `join` reads get no unit.
        offsets: The receipts of `split_offsets`, with the pieces of each input.
        models: The hashes of the models and lists that the recipe gives by path.
        quarantine: Records that readers drop without reading them.

    Raises:
        UserError: The name of a file is equal to the name of a piece of another file.
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
                raise UserError(f"{split} is the name of a file and of a piece of another file: rename the file")
            calls = (code_of(reader_for(item.source, source), "read"), *rule_classes(source.rules_at("extract")))
            units[split] = piece_unit(split, item, piece, source, calls, quarantine)
    by_source = {name: source_arguments(name, source, models) for name, source in recipe.sources.items()}
    is_joined = any(joined_for(source) is not None for source in recipe.sources.values())
    return Step(STEP, extract, list(units.values()), {}, by_source, OWNED, shared=is_joined)


def source_arguments(name: str, source: Source, models: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments for one source of the functions that read its dumps.

    The cache key of the argument `source` contains only the parts of the recipe on which the source's documents depend.

    Args:
        name: The name of the source.
        source: The part of the recipe for the source.
        models: The hashes of the files that the recipe gives by path. A key begins with `SOURCE.RULE.`.
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
    """Read one split of an input, and write its documents and dead letters.

    Args:
        corpus: The folder of the corpus.
        split: The name of the split.
        name: The name of the source.
        source: The part of the recipe for the source.
        file: The name of the input.
        path: The path of the input, or a remote dump.
        start: The first stored byte of the split.
        end: The stored byte after the last one of the split.
        state: The state of the reader at `start` (see `pipeline.sources.base.Piece`).

    Raises:
        OSError: The bytes cannot be read.
        RuntimeError: The reader attributed more or fewer stored bytes to records than there are.
    """
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
    """Write the documents, the dead letters, and the locators of skipped records of a split.

    Args:
        corpus: The folder of the corpus.
        split: The name of the split.
        name: The name of the source.
        source: The part of the recipe for the source.
        outcomes: The outcomes of the records.
        facts: Further entries for the receipt.

    Returns:
        The paths of the files, the counts, and `facts`.
    """
    documents, tally = f"documents/{split}.parquet", Tally()
    letters: list[dict[str, Any]] = []
    skipped: dict[str, list[dict[str, Any]]] = {}
    with table_writer(corpus / documents, DOCUMENT_SCHEMA) as writer:
        for outcome in outcomes:
            forget_record()
            if outcome.document is not None:
                url = outcome.document.url  # Some readers do not apply the rules for URLs.
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
            elif len(some := skipped.setdefault(place["reason"], [])) < MAX_EXAMPLES or outcome.url:
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
    """Add a record without a document to a tally. A row that was joined into a document counts as removed."""
    assert outcome.reason is not None, "an outcome is a document or a reason"
    tally.enter(records=1, bytes=outcome.stored)
    count = tally.remove if outcome.reason is Reason.JOINED else tally.drop
    count(outcome.reason, records=1, bytes=outcome.stored)
