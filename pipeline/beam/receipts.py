"""Receipts on disk and in object stores: which tasks are finished, and the sweeping of what no receipt names.

Workers fold the receipts of large jobs into tables, some 2,000 tasks a file. The driver reads these, and the single
receipts of tasks that no table has. A table is a cache: each row repeats a receipt that a finished task has left. Its
name is its own hash, so a damaged one is not read. A table with a row that is not true any more is removed before the
step runs.
"""

import contextlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain, pairwise
from pathlib import Path

from manifests.files import canonical_json, is_temporary, relative_files, sha256_bytes, sha256_file, write_atomic
from manifests.ledger import tally_from
from manifests.mirror import list_folder, mirror_of
from manifests.storage import StorageError, retry_storage
from pipeline.beam.step import Fingerprints, Output, PackedReceipts, Receipt, Receipts, Step, Task

RECEIPTS = "receipts"
TABLES = "runs/tables"
ROWS = 2_000  # of a table, about: some 1.5 MB
FOLD_FROM = 500  # receipts of a step from which on they are folded


def receipt_name(step: str, name: str) -> str:
    """Return the path of a task's receipt below the corpus."""
    return f"{RECEIPTS}/{step}/{name}.json"


def read_receipt(corpus: Path, step: str, name: str) -> Receipt | None:
    """Return a task's receipt; None if it is missing or not one. Raises OSError if it cannot be read."""
    try:
        with open(f"{corpus}/{receipt_name(step, name)}", "rb") as file:  # noqa: PTH123  # a third of the time
            plain = json.loads(file.read())
        tallies = {source: tally_from(tally) for source, tally in plain["tallies"].items()}
        return Receipt(plain["fingerprint"], [Output(**o) for o in plain["outputs"]], tallies, plain["facts"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def read_finished(corpus: Path, task: Task) -> Receipt:
    """Return the receipt of a task that has ended, which another machine may have written to the object store."""
    receipt = _read_matching(corpus, task)
    assert receipt is not None, "it was performed or found finished"
    return receipt


def _read_matching(corpus: Path, task: Task) -> Receipt | None:
    """Return the receipt of a task, of this machine or of any; None if it has another fingerprint."""
    receipt = _read_local(corpus, task)
    if receipt is None and (mirror := mirror_of(corpus)) is not None:
        mirror.download(receipt_name(task.step, task.name))
        receipt = _read_local(corpus, task)
    return receipt


def _read_local(corpus: Path, task: Task) -> Receipt | None:
    """Return the receipt of a task that lies here; None without one, or if it has another fingerprint."""
    receipt = read_receipt(corpus, task.step, task.name)
    return receipt if receipt is not None and receipt.fingerprint == task.fingerprint else None


def is_finished(corpus: Path, task: Task) -> bool:
    """Return True if this machine has a task's outputs in full, made under its fingerprint."""
    receipt = _read_local(corpus, task)
    if receipt is None:
        return False
    written = _receipt_time(corpus, receipt_name(task.step, task.name))
    return all(_has_output(corpus, output, written) for output in receipt.outputs)


def is_step_finished(corpus: Path, step: Step) -> bool:
    """Return True if all tasks of a step are finished."""
    return len(find_finished(corpus, step, step.fingerprints())[0]) == len(step.units)


def _receipt_time(corpus: Path, path: str) -> int | None:
    """Return when receipts were written, in ns. None of those in a store, whose outputs are hashed when fetched."""
    if mirror_of(corpus) is None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.stat(f"{corpus}/{path}").st_mtime_ns  # noqa: PTH116  # a third of the time
    return None


def _has_output(corpus: Path, output: Output, written: int | None) -> bool:
    """Return True if this machine has an output with the size that its receipt says, and no other bytes.

    A file that is newer than its receipt was copied or changed: it is hashed, and if it is the same, not again.
    """
    path = f"{corpus}/{output.path}"
    try:
        found = os.stat(path)  # noqa: PTH116  # a third of the time
    except (FileNotFoundError, NotADirectoryError):
        return False
    if found.st_size != output.bytes or written is None or found.st_mtime_ns <= written:
        return found.st_size == output.bytes
    if sha256_file(Path(path)) != output.sha256:
        return False
    with contextlib.suppress(OSError):  # the corpus is not to be written to
        os.utime(path, ns=(found.st_atime_ns, written))
    return True


class Listing:
    """The files of a step's folders, listed once, when the first is asked for.

    Of a corpus in an object store these are its objects, and what this machine's mirror holds beside them.
    """

    def __init__(self, corpus: Path, folders: Iterable[str]) -> None:
        """Take the folders."""
        self.corpus, self.folders, self.mirror = corpus, folders, mirror_of(corpus)

    @cached_property
    def unclaimed(self) -> dict[str, int]:
        """The sizes of objects by path, -1 for a file of this machine; without those of receipts that are `take`n."""
        found: dict[str, int] = {}
        for folder in self.folders:
            found.update((f"{folder}/{file}", -1) for file in relative_files(self.corpus / folder))
            if self.mirror is not None:
                found.update(self.mirror.storage.list_sizes(folder))
        return found

    def claim(self, receipt: Receipt, fingerprint: str | None, written: int | None) -> bool:
        """Return True if a receipt, written at that time, is of a fingerprint and has its outputs as it says."""
        cells = receipt.cells
        if cells[0] != fingerprint:
            return False
        left, paths = self.unclaimed, cells[4::3]
        if self.mirror is None:
            if not all(_has_output(self.corpus, output, written) for output in receipt.outputs):
                return False
        else:
            for path, size in zip(paths, cells[5::3], strict=True):
                stored = left.get(path, -1)
                if stored < 0 and (entry := self.mirror.storage.find(path)) is not None:
                    stored = entry.bytes  # in a folder of no step
                if stored != int(size):
                    return False
        for path in paths:
            left.pop(path, None)
        return True


def find_finished(corpus: Path, step: Step, fingerprints: Fingerprints) -> tuple[PackedReceipts, Listing]:
    """Return the receipts of the tasks that are finished, of those with these fingerprints, and what else was listed.

    Receipts of older fingerprints are removed, so that no reader takes them for new, and tables that hold any of them.
    Receipts that no table has any more are folded anew where they are many.
    """
    listing, left = Listing(corpus, step.folders), set(fingerprints)
    unfolded, older = dict[str, Receipt](), list[str]()

    def find() -> Iterator[tuple[str, Receipt]]:
        for path, rows in read_tables(corpus, step.name):
            written = _receipt_time(corpus, path)
            true = {name: row for name, row in rows.items() if listing.claim(row, fingerprints.get(name), written)}
            lost = rows.keys() - true.keys()
            if not rows or (lost & fingerprints.keys() if step.shared else lost):
                older.append(path)
                unfolded.update(true)
            left.difference_update(true)
            yield from true.items()
        for name, receipt in _single_receipts(corpus, step.name, [name for name in fingerprints if name in left]):
            path = receipt_name(step.name, name)
            if listing.claim(receipt, fingerprints[name], _receipt_time(corpus, path)):
                unfolded[name] = receipt
                yield name, receipt
            else:
                older.append(path)

    found = PackedReceipts(fingerprints, find())
    remove_files(corpus, older)
    if len(unfolded) >= FOLD_FROM:
        names = list(unfolded)
        for start in range(0, len(names), ROWS):
            write_table(corpus, step.name, {name: unfolded[name] for name in names[start : start + ROWS]})
    return found, listing


def receipts(corpus: Path, step: str, fingerprints: Fingerprints) -> Receipts:
    """Return the receipts of finished tasks of one step by name. Raises what `read_receipts` raises."""
    return PackedReceipts(fingerprints, read_receipts(corpus, step, fingerprints))


def read_receipts(corpus: Path, step: str, fingerprints: Fingerprints) -> Iterator[tuple[str, Receipt]]:
    """Yield the names and receipts of finished tasks of one step, in any order.

    Raises:
        StorageError: one is missing after its job ended well.
    """
    left = dict(fingerprints)
    folded = (rows.items() for _, rows in (read_tables(corpus, step) if len(left) >= FOLD_FROM else ()))
    for name, receipt in chain.from_iterable(folded):
        if receipt.fingerprint == left.get(name):
            del left[name]
            yield name, receipt
    for name, receipt in _single_receipts(corpus, step, list(left)):
        if receipt.fingerprint == left[name]:
            del left[name]
            yield name, receipt
    for name in left:
        raise StorageError(
            f"stage {step}: {name} left no receipt in {corpus}: check that the engine's workers run "
            "and write to this folder, then run the same command again"
        )


def _single_receipts(corpus: Path, step: str, names: Sequence[str]) -> Iterator[tuple[str, Receipt]]:
    """Yield the names of tasks and their receipts, as far as there are any."""
    if not names:
        return
    files, mirror = set(list_folder(corpus, f"{RECEIPTS}/{step}")), mirror_of(corpus)
    present = [name for name in names if f"{name}.json" in files]
    if mirror is not None:
        mirror.fetch_all(receipt_name(step, name) for name in present)
    for name in present:
        receipt = read_receipt(corpus, step, name)
        if receipt is not None:
            yield name, receipt


def fold_receipts(corpus: Path, tasks: Sequence[Task]) -> None:
    """Write a table for each step of the receipts of tasks, but for those that a run with other settings has left."""
    mirror, found = mirror_of(corpus), dict[str, dict[str, Receipt]]()
    if mirror is not None:
        mirror.fetch_all(receipt_name(task.step, task.name) for task in tasks)
    for task in tasks:
        if (receipt := _read_matching(corpus, task)) is not None:
            found.setdefault(task.step, {})[task.name] = receipt
    for step, some in found.items():
        write_table(corpus, step, some)


def sweep(corpus: Path, step: Step, kept: Receipts) -> None:
    """Remove what a step's folders hold beyond the receipts and outputs of its finished units, by name.

    These are outputs of inputs that are gone, of an older recipe, or half-written by a killed run.
    """
    listing = Listing(corpus, step.folders)
    for path in chain.from_iterable(receipt.paths for receipt in kept.values()) if listing.unclaimed else ():
        listing.unclaimed.pop(path, None)
    remove_stale(corpus, step, kept, listing.unclaimed)


def remove_stale(corpus: Path, step: Step, kept: Collection[str], outputs: Collection[str]) -> None:
    """Remove stale outputs of a step, and before them the receipts of units that are not kept.

    In an object store a large step's receipts are listed only if there are such outputs: else a finished corpus would
    be listed once more at each run. Without any units all tables of the step are removed, too.
    """
    if not kept:
        remove_files(corpus, table_paths(corpus, step.name))
    if mirror_of(corpus) is None or outputs or len(kept) < FOLD_FROM or not step.folders:
        folder = f"{RECEIPTS}/{step.name}"
        gone = [file for file in list_folder(corpus, folder) if file.removesuffix(".json") not in kept]
        remove_files(corpus, [f"{folder}/{file}" for file in gone])
    remove_files(corpus, outputs)


def remove_files(corpus: Path, paths: Collection[str]) -> None:
    """Remove files of a corpus, and folders that are empty then."""
    mirror = mirror_of(corpus)
    if mirror is not None:
        mirror.storage.remove_all(paths)
    for path in paths:
        (corpus / path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a folder is not there, or holds files that stay
            for parent in Path(path).parents[:-1]:
                (corpus / parent).rmdir()


def remove_temporaries(corpus: Path) -> None:
    """Remove what a killed run left half-written. Only to be called under the corpus's lock."""
    for parent, _, names in os.walk(corpus):
        for name in names:
            if is_temporary(Path(name)):
                (Path(parent) / name).unlink()


def count_tables(tasks: int) -> int:
    """Return the number of tables for the receipts of a job's tasks: none for a small job."""
    return -(-tasks // ROWS) if tasks >= FOLD_FROM else 0


def read_tables(corpus: Path, step: str) -> Iterator[tuple[str, dict[str, Receipt]]]:
    """Yield the tables of a step: path, and receipts by task; none of a damaged one. Raises StorageError."""
    mirror, folder = mirror_of(corpus), _tables(step)
    for file in list_folder(corpus, folder):
        if "/" in file:  # of a step whose name begins with this one's
            continue
        path = f"{folder}/{file}"
        with contextlib.suppress(FileNotFoundError):
            data = mirror.storage.read(path) if mirror else retry_storage((corpus / path).read_bytes, path)
            yield path, unpack_table(data) if sha256_bytes(data) == file else {}


def pack_table(found: Receipts) -> bytes:
    """Return a table: a line of JSON with the names and the lengths of all rows, and behind it the rows."""
    rows = [receipt.row for receipt in found.values()]
    return canonical_json([list(found), [len(row) for row in rows]]) + b"".join(rows)


def unpack_table(data: bytes) -> dict[str, Receipt]:
    """Return the receipts of a table."""
    start = data.index(b"\n") + 1
    names, lengths = json.loads(data[:start])
    edges = pairwise(accumulate(lengths, initial=start))
    return {name: Receipt.of_row(data[begin:end]) for name, (begin, end) in zip(names, edges, strict=True)}


def write_table(corpus: Path, step: str, found: Receipts) -> None:
    """Write receipts of tasks, one or more, as a table."""
    data = pack_table(found)
    path = f"{_tables(step)}/{sha256_bytes(data)}"
    mirror = mirror_of(corpus)
    if mirror is not None:
        mirror.storage.write(path, data)
    else:
        write_atomic(corpus / path, data)


def table_paths(corpus: Path, step: str) -> list[str]:
    """Return the paths of all tables of a step, and of those whose names begin with its name and a slash."""
    return [f"{_tables(step)}/{file}" for file in list_folder(corpus, _tables(step))]


def _tables(step: str) -> str:
    return f"{TABLES}/{step}"
