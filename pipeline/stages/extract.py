"""extract: a split of a dump -> documents, dead letters, and a tally of every record and byte."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manifests.document import DOCUMENT_SCHEMA
from manifests.files import canonical_json, sha256_json, write_atomic
from manifests.ledger import Tally
from manifests.reasons import DEAD_LETTERS, Reason
from manifests.recipe import Recipe, Source
from pipeline.fingerprint import code_version
from pipeline.inputs import Input
from pipeline.job import Result, Task
from pipeline.sources import Outcome, reader_for
from pipeline.sources.reader import Stored
from pipeline.tables import TableWriter, table_writer

STAGE = "extract"
OWNED = ("documents", "deadletters")


def tasks(recipe: Recipe, inputs: list[Input]) -> list[Task]:
    """One task an input file."""
    code = code_version(__name__)
    made = []
    for item in inputs:
        settings = extraction_settings(recipe.sources[item.source])
        fingerprint = sha256_json([code, settings, item.source, item.name, item.size, item.sha256])
        arguments = {"source": item.source, "file": item.name, "path": item.path, "size": item.size}
        made.append(Task(STAGE, f"{item.source}/{item.name}", fingerprint, item.size, arguments))
    return made


def extraction_settings(source: Source) -> dict[str, Any]:
    """The part of a source's recipe that its documents depend on."""
    return source.model_dump(include={"kind", "licence", "min_characters", "http_status", "limits"})


def work(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Read one file. `settings["sources"]`: the recipe's sources as plain values."""
    name, file = task.arguments["source"], task.arguments["file"]
    source = Source.model_validate(settings["sources"][name])
    documents, letters = f"documents/{name}/{file}.parquet", f"deadletters/{name}/{file}.jsonl"
    tally, dead = Tally(), []
    with table_writer(corpus / documents, DOCUMENT_SCHEMA) as writer:
        try:
            with open_stored(Path(task.arguments["path"])) as stored:
                for outcome in reader_for(name, source).read(stored, file, name, source):
                    dead += _account(outcome, tally, writer)
        except OSError as error:
            size = task.arguments["size"] - tally.entered["bytes"]
            tally.enter(records=1, bytes=size)
            tally.drop(Reason.UNREADABLE_FILE, records=1, bytes=size)
            place = {"file": file, "offset": task.arguments["size"] - size, "length": size}
            dead.append({**place, "reason": Reason.UNREADABLE_FILE.value, "detail": str(error.strerror)})
    if tally.entered["bytes"] != task.arguments["size"]:
        raise RuntimeError(f"{file}: {task.arguments['size']} bytes, {tally.entered['bytes']} accounted for")
    paths = [documents]
    if dead:
        write_atomic(corpus / letters, b"".join(canonical_json(letter) for letter in dead))
        paths.append(letters)
    return Result(paths, {name: tally})


def _account(outcome: Outcome, tally: Tally, writer: TableWriter) -> list[dict[str, Any]]:
    """Count one outcome and write its document; gives its dead letter, if it has one."""
    tally.enter(records=1, bytes=outcome.stored)
    if outcome.document is not None:
        tally.keep(records=1, bytes=outcome.stored, characters=len(outcome.document.text))
        writer.append(outcome.document.as_row())
        return []
    assert outcome.reason is not None, "an outcome is a document or a reason"
    tally.drop(outcome.reason, records=1, bytes=outcome.stored)
    if outcome.reason not in DEAD_LETTERS:
        return []
    locator = {key: value for key, value in outcome.locator.as_dict().items() if value not in ("", [])}
    return [{**locator, "reason": outcome.reason.value, "detail": outcome.detail}]


@contextmanager
def open_stored(path: Path) -> Iterator[Stored]:
    """A file's stored bytes, memory-mapped, so that a dump of any size costs no memory. Raises OSError."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            yield b""
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield mapped
