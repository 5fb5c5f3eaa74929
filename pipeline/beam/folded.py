"""Tables of receipts: some 2,000 tasks a file, so that the driver of a large run reads few files.

A table is a cache: each row repeats a receipt that a finished task has left. Its name is its own hash, so a damaged one
is not read. A table with a row that is true no longer is removed before the step runs.
"""

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from manifests.files import canonical_json, sha256_bytes, write_atomic
from manifests.mirror import list_folder, mirror_of
from manifests.storage import retry_storage
from pipeline.beam.step import PackedReceipts, Receipts

FOLDER = "runs/tables"
ROWS = 2_000  # of a table, about: some 1.5 MB
FOLD_FROM = 500  # receipts of a step from which on they are folded


def tables_for(tasks: int) -> int:
    """Return the number of tables for the receipts of a job's tasks: none for a small job."""
    return -(-tasks // ROWS) if tasks >= FOLD_FROM else 0


def read_tables(corpus: Path, step: str) -> dict[str, Receipts]:
    """Return the receipts of a step's tables: by table, then by task. Raises StorageError."""
    mirror, folder = mirror_of(corpus), _folder(step)
    found: dict[str, Receipts] = {}
    for file in list_folder(corpus, folder):
        if "/" in file:  # of a step whose name begins with this one's
            continue
        path = f"{folder}/{file}"
        with contextlib.suppress(FileNotFoundError):
            data = mirror.storage.read(path) if mirror else retry_storage((corpus / path).read_bytes, path)
            found[path] = unpack_table(data) if sha256_bytes(data) == file else {}
    return found


def pack_table(found: Receipts) -> bytes:
    """Return a table: a line of JSON with the names and the lengths of all rows, and behind it the rows."""
    rows = [receipt.row for receipt in found.values()]
    return canonical_json([list(found), [len(row) for row in rows]]) + b"".join(rows)


def unpack_table(data: bytes) -> Receipts:
    """Return the receipts of a table."""
    end = data.index(b"\n") + 1
    names, lengths = json.loads(data[:end])
    return PackedReceipts(names, lengths, data, end)


def write_table(corpus: Path, step: str, found: Receipts) -> None:
    """Write receipts of tasks, one or more, as a table."""
    data = pack_table(found)
    path = f"{_folder(step)}/{sha256_bytes(data)}"
    mirror = mirror_of(corpus)
    if mirror is not None:
        mirror.storage.write(path, data)
    else:
        write_atomic(corpus / path, data)


def write_tables(corpus: Path, step: str, found: Receipts) -> None:
    """Write receipts as tables."""
    names = list(found)
    for start in range(0, len(names), ROWS):
        write_table(corpus, step, {name: found[name] for name in names[start : start + ROWS]})


def remove_tables(corpus: Path, paths: Iterable[str]) -> None:
    """Remove tables by path."""
    mirror = mirror_of(corpus)
    for path in paths:
        if mirror is not None:
            mirror.storage.remove(path)
        else:
            (corpus / path).unlink(missing_ok=True)


def table_paths(corpus: Path, step: str) -> list[str]:
    """Return the paths of all tables of a step, and of those whose names begin with its name and a slash."""
    return [f"{_folder(step)}/{file}" for file in list_folder(corpus, _folder(step))]


def _folder(step: str) -> str:
    return f"{FOLDER}/{step}"
