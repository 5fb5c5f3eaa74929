"""extract: a split of a dump -> documents, dead letters, line hashes, and a tally of every record and byte."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filters.errors import UserError
from filters.formats.stream import open_stored
from filters.reasons import DEAD_LETTERS, Reason
from manifests.document import DOCUMENT_SCHEMA, Locator
from manifests.files import canonical_json, sha256_json, write_atomic
from manifests.ledger import Tally
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.fingerprint import code_version
from pipeline.beam.tables import TableWriter, table_writer
from pipeline.beam.task import Receipt, Result, Task
from pipeline.sources import Outcome, joined_for, reader_for
from pipeline.sources.inputs import Input
from pipeline.stages.line_hashes import LineHashes, line_hash_path, page_rules
from pipeline.stages.split_offsets import pieces_of
from pipeline.stages.url_keys import UrlKeys, url_key_path

STAGE = "extract"
OWNED = ("documents", "deadletters", "skipped", "blocks/line-hashes", "blocks/url-keys")
SKIPPED = 3
"""records of a reason and split whose place is kept, for the report: whole records that are no documents"""


def tasks(recipe: Recipe, inputs: list[Input], indexed: dict[str, Receipt], models: dict[str, str]) -> list[Task]:
    """One task a split: a file, or a piece of a large one, named after the place where it begins. `models`: hashes of
    what the recipe gives by path. Sources that `join` reads have none. Raises UserError where a file has the name of
    another's piece."""
    code = code_version(__name__)
    made: dict[str, Task] = {}
    for item in inputs:
        if joined_for(recipe.sources[item.source]) is not None:
            continue
        lists = {use: sha for use, sha in models.items() if use.startswith(f"{item.source}.blocklists")}
        settings = [extraction_settings(recipe.sources[item.source]), lists]
        pieces = pieces_of(indexed, item)
        for start, end, state in pieces:
            name = f"{item.source}/{item.name}" + (f"@{start:015d}" if len(pieces) > 1 else "")
            fingerprint = sha256_json([code, settings, name, item.size, item.sha256, start, end, state])
            arguments: dict[str, Any] = {"source": item.source, "file": item.name, "path": item.path}
            arguments |= {"start": start, "end": end, "state": state}
            if name in made:
                raise UserError(f"{name} is the name of a file and of another's piece: rename the file")
            made[name] = Task(STAGE, name, fingerprint, end - start, arguments)
    return list(made.values())


def extraction_settings(source: Source) -> dict[str, Any]:
    """The part of a source's recipe that its documents depend on."""
    used = {"kind", "licence", "min_characters", "http_status", "extractor", "limits", "columns", "newest_per_url"}
    used |= {"arxiv", "wikipedia"}
    plain = {**source.model_dump(include=used), "lines": source.lines is not None}
    if source.c4 is not None and (page_rules(source) is not None or source.newest_per_url):
        plain["page_rules"] = [page_rules(source) is not None, source.c4.model_dump(exclude={"bad_words"})]
    return plain


def work(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Read one split. `settings["sources"]`: the recipe's sources as plain values."""
    name, file = task.arguments["source"], task.arguments["file"]
    source = Source.model_validate(settings["sources"][name])
    result = write_outcomes(corpus, task.name, name, source, _read(task, source), {"file": file})
    counted = result.tallies[name].entered["bytes"]
    if counted != task.size:
        raise RuntimeError(f"{task.name}: {task.size} bytes, {counted} accounted for")
    return result


def write_outcomes(
    corpus: Path, split: str, name: str, source: Source, outcomes: Iterable[Outcome], facts: dict[str, Any]
) -> Result:
    """Write what became of a split's records: documents, dead letters, line hashes, and the tally."""
    documents, letters = f"documents/{split}.parquet", f"deadletters/{split}.jsonl"
    tally, dead = Tally(), list[dict[str, Any]]()
    skipped: dict[str, list[dict[str, Any]]] = {}
    hashes = LineHashes(source) if source.lines is not None else None
    keys = UrlKeys(source) if source.newest_per_url else None
    with table_writer(corpus / documents, DOCUMENT_SCHEMA) as writer:
        for outcome in outcomes:
            for place in _account(outcome, tally, writer, hashes, keys):
                if outcome.reason in DEAD_LETTERS:
                    dead.append(place)
                elif len(some := skipped.setdefault(place["reason"], [])) < SKIPPED:
                    some.append(place)
    paths: list[str] = [documents]
    if hashes is not None:
        facts = {**facts, "lines": hashes.write(corpus / line_hash_path(split))}
        paths.append(line_hash_path(split))
    if keys is not None:
        facts = {**facts, "urls": keys.write(corpus / url_key_path(split))}
        paths.append(url_key_path(split))
    if dead:
        write_atomic(corpus / letters, b"".join(canonical_json(letter) for letter in dead))
        paths.append(letters)
    if skipped:
        shown = f"skipped/{split}.jsonl"
        write_atomic(corpus / shown, b"".join(canonical_json(place) for some in skipped.values() for place in some))
        paths.append(shown)
    return Result(paths, {name: tally}, facts)


def _read(task: Task, source: Source) -> Iterator[Outcome]:
    """The outcomes of a split; a file that cannot be read is one, too."""
    name, file = task.arguments["source"], task.arguments["file"]
    start, end, state = (task.arguments[key] for key in ("start", "end", "state"))
    left = task.size
    try:
        with open_stored(Path(task.arguments["path"])) as stored:
            for outcome in reader_for(name, source).read(stored, file, name, source, start, end, state):
                left -= outcome.stored
                yield outcome
    except OSError as error:
        place = Locator(file, end - left, left)
        yield Outcome(place, left, reason=Reason.UNREADABLE_FILE, detail=str(error.strerror))


def _account(
    outcome: Outcome, tally: Tally, writer: TableWriter, hashes: LineHashes | None, keys: UrlKeys | None
) -> list[dict[str, Any]]:
    """Count one outcome and write its document; gives its place and what was wrong, if it is none."""
    tally.enter(records=1, bytes=outcome.stored)
    if outcome.document is not None:
        row = outcome.document.as_row()
        tally.keep(records=1, bytes=outcome.stored, characters=len(row["text"]))
        writer.append(row)
        if hashes is not None:
            hashes.append(row["id"], row["text"])
        if keys is not None:
            keys.append(row["id"], row["url"], row["timestamp"], len(row["text"]))
        return []
    assert outcome.reason is not None, "an outcome is a document or a reason"
    if outcome.reason is Reason.JOINED:
        tally.remove(outcome.reason, records=1, bytes=outcome.stored)
        return []
    tally.drop(outcome.reason, records=1, bytes=outcome.stored)
    locator = {key: value for key, value in outcome.locator.as_dict().items() if value not in ("", [])}
    return [{**locator, "reason": outcome.reason.value, "detail": outcome.detail}]
