"""Tables of receipts: some 2,000 tasks a file, so that the driver of a large run reads few files.

A table is a cache: each row repeats a receipt that a finished task has left. Its name is its own hash, so a damaged one
is not read. A table with a row that is true no longer is removed before the step runs.
"""

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from manifests.files import canonical_json, sha256_bytes, write_atomic
from manifests.ledger import Tally, tally_from
from manifests.mirror import list_folder, mirror_of
from manifests.storage import retry_storage
from pipeline.beam.step import Output, Receipt, Receipts

FOLDER = "runs/tables"
ROWS = 2_000  # of a table, about: some 1.5 MB
FOLD_FROM = 500  # receipts of a step from which on they are folded


def tables_for(tasks: int) -> int:
    """Return the number of tables for the receipts of a job's tasks: none for a small job."""
    return -(-tasks // ROWS) if tasks >= FOLD_FROM else 0


FINGERPRINT, SHA, OUTPUTS, FACTS, TALLIES, NAME = range(6)  # cells of a row, JSON without tabs


class FoldedReceipt(Receipt):
    """A receipt as its row of a table: a part is read from JSON whenever it is asked for, and not kept."""

    def __init__(self, row: bytes) -> None:
        """Take a row of `pack_receipt`."""
        self.__dict__["row"] = row

    def _cell(self, number: int) -> Any:
        return json.loads(self.__dict__["row"].split(b"\t", number + 1)[number])

    @property
    def fingerprint(self) -> str:
        """The task's fingerprint."""
        return str(self._cell(FINGERPRINT))

    @property
    def sha(self) -> str:
        """The hash of the outputs and facts."""
        return str(self._cell(SHA))

    @property
    def outputs(self) -> list[Output]:
        """The files that the task wrote."""
        return [Output(*cells) for cells in self._cell(OUTPUTS)]

    @property
    def facts(self) -> dict[str, Any]:
        """Plain values for later steps."""
        return dict(self._cell(FACTS))

    @property
    def tallies(self) -> dict[str, Tally]:
        """Counts by source."""
        return {source: tally_from(tally) for source, tally in self._cell(TALLIES).items()}


def pack_receipt(name: str, receipt: Receipt) -> bytes:
    """Return the row of a task's receipt."""
    cells = [
        receipt.fingerprint,
        receipt.sha,
        [[output.path, output.bytes, output.sha256] for output in receipt.outputs],
        receipt.facts,
        {source: tally.as_dict() for source, tally in receipt.tallies.items()},
        name,
    ]
    return b"\t".join(canonical_json(cell).rstrip(b"\n") for cell in cells)


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
            rows = data.split(b"\n") if sha256_bytes(data) == file else []
            found[path] = {str(json.loads(row[row.rindex(b"\t") + 1 :])): FoldedReceipt(row) for row in rows}
    return found


def write_table(corpus: Path, step: str, rows: Sequence[bytes]) -> None:
    """Write a table of rows, one or more."""
    data = b"\n".join(rows)
    path = f"{_folder(step)}/{sha256_bytes(data)}"
    mirror = mirror_of(corpus)
    if mirror is not None:
        mirror.storage.write(path, data)
    else:
        write_atomic(corpus / path, data)


def write_tables(corpus: Path, step: str, found: Receipts) -> None:
    """Write receipts as tables."""
    rows = [pack_receipt(name, receipt) for name, receipt in found.items()]
    for start in range(0, len(rows), ROWS):
        write_table(corpus, step, rows[start : start + ROWS])


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
