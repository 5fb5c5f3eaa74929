"""Read and write receipts on disk and in object stores, find finished tasks, and remove stale files.

Workers fold the receipts of large jobs into tables of about 2,000 tasks per file. The driver reads the tables, and the
single receipts of tasks that are in no table. A table is a cache: each row is a copy of a receipt that a finished task
wrote. The name of a table is its hash, so that a damaged table is recognized and not read. A table is removed before a
step runs if one of its rows is out of date.
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
ROWS = 2_000  # approximate number of rows per table, which take about 1.5 MB
FOLD_FROM = 500  # receipts are folded into tables if there are at least this many


def receipt_name(step: str, name: str) -> str:
    """Return the path of a task's receipt below the corpus."""
    return f"{RECEIPTS}/{step}/{name}.json"


def read_receipt(corpus: Path, step: str, name: str) -> Receipt | None:
    """Return a task's receipt from this machine's disk, or None if the file is missing or is no receipt.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with open(f"{corpus}/{receipt_name(step, name)}", "rb") as file:  # noqa: PTH123  # 3x faster than Path.open
            plain = json.loads(file.read())
        tallies = {source: tally_from(tally) for source, tally in plain["tallies"].items()}
        return Receipt(plain["fingerprint"], [Output(**o) for o in plain["outputs"]], tallies, plain["facts"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def read_finished(corpus: Path, task: Task) -> Receipt:
    """Return the receipt of a finished task. If it is not on this machine, fetch it from the object store."""
    receipt = _read_matching(corpus, task)
    assert receipt is not None, "the task was run, or was found finished"
    return receipt


def _read_matching(corpus: Path, task: Task) -> Receipt | None:
    """Return the receipt of a task from this machine, or else from the object store.

    Returns None if there is no receipt with the task's fingerprint.
    """
    receipt = _read_local(corpus, task)
    if receipt is None and (mirror := mirror_of(corpus)) is not None:
        mirror.download(receipt_name(task.step, task.name))
        receipt = _read_local(corpus, task)
    return receipt


def _read_local(corpus: Path, task: Task) -> Receipt | None:
    """Return the receipt of a task from this machine's disk, or None if there is none with the task's fingerprint."""
    receipt = read_receipt(corpus, task.step, task.name)
    return receipt if receipt is not None and receipt.fingerprint == task.fingerprint else None


def is_finished(corpus: Path, task: Task) -> bool:
    """Return True if this machine has all outputs of a task, with a receipt that has the task's fingerprint."""
    receipt = _read_local(corpus, task)
    if receipt is None:
        return False
    written = _receipt_time(corpus, receipt_name(task.step, task.name))
    return all(_has_output(corpus, output, written) for output in receipt.outputs)


def is_step_finished(corpus: Path, step: Step) -> bool:
    """Return True if all tasks of a step are finished."""
    return len(find_finished(corpus, step, step.fingerprints())[0]) == len(step.units)


def _receipt_time(corpus: Path, path: str) -> int | None:
    """Return the time when a receipt, or a table of receipts, was written, in ns since the epoch.

    Returns None if the corpus is in an object store: there, outputs are hashed when they are fetched.
    """
    if mirror_of(corpus) is None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.stat(f"{corpus}/{path}").st_mtime_ns  # noqa: PTH116  # 3x faster than Path.stat
    return None


def _has_output(corpus: Path, output: Output, written: int | None) -> bool:
    """Return True if an output is on this machine's disk, with the size and content that its receipt records.

    A file that is newer than its receipt was copied or changed, so it is hashed. If the hash is right, its time of
    change is set to the receipt's time, so that the next run does not hash it again.

    Args:
        corpus: the corpus's folder.
        output: the output, as its receipt records it.
        written: time when the receipt was written, in ns; None to compare only the size.
    """
    path = f"{corpus}/{output.path}"
    try:
        found = os.stat(path)  # noqa: PTH116  # 3x faster than Path.stat
    except (FileNotFoundError, NotADirectoryError):
        return False
    if found.st_size != output.bytes or written is None or found.st_mtime_ns <= written:
        return found.st_size == output.bytes
    if sha256_file(Path(path)) != output.sha256:
        return False
    with contextlib.suppress(OSError):  # the corpus may be read-only
        os.utime(path, ns=(found.st_atime_ns, written))
    return True


class Listing:
    """The files in a step's folders. They are listed once, at the first access.

    If the corpus is in an object store, these are the objects of the store and the files of this machine's mirror.
    """

    def __init__(self, corpus: Path, folders: Iterable[str]) -> None:
        """Store the paths of the folders, below the corpus, without listing them."""
        self.corpus, self.folders, self.mirror = corpus, folders, mirror_of(corpus)

    @cached_property
    def unclaimed(self) -> dict[str, int]:
        """A dict from path to size for the files that no receipt has claimed so far (`claim`).

        The size of an object is in bytes. The size of a file on this machine's disk is given as -1.
        """
        found: dict[str, int] = {}
        for folder in self.folders:
            found.update((f"{folder}/{file}", -1) for file in relative_files(self.corpus / folder))
            if self.mirror is not None:
                found.update(self.mirror.storage.list_sizes(folder))
        return found

    def claim(self, receipt: Receipt, fingerprint: str | None, written: int | None) -> bool:
        """Check a receipt and its outputs. If they are valid, claim the outputs: remove them from `unclaimed`.

        Args:
            receipt: the receipt of a task.
            fingerprint: the current fingerprint of the task; None if the step has no such task any more.
            written: time when the receipt was written, in ns; None to compare only the sizes of the outputs.

        Returns:
            True if the receipt has this fingerprint and all its outputs exist as it records them.
        """
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
                    stored = entry.bytes  # the output is outside the step's folders
                if stored != int(size):
                    return False
        for path in paths:
            left.pop(path, None)
        return True


def find_finished(corpus: Path, step: Step, fingerprints: Fingerprints) -> tuple[PackedReceipts, Listing]:
    """Find the finished tasks of a step.

    Receipts with other fingerprints are removed, so that no code can use them by mistake. Tables with such receipts are
    also removed. If there are many valid receipts that are then in no table, new tables are written for them.

    Args:
        corpus: the corpus's folder.
        step: the step.
        fingerprints: from the name of each task to its current fingerprint.

    Returns:
        The receipts of the finished tasks, and the listing, in which only files of no finished task are unclaimed.
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
    """Return a mapping from the names of a step's finished tasks to their receipts. Raises StorageError."""
    return PackedReceipts(fingerprints, read_receipts(corpus, step, fingerprints))


def read_receipts(corpus: Path, step: str, fingerprints: Fingerprints) -> Iterator[tuple[str, Receipt]]:
    """Yield the names and receipts of a step's finished tasks, in any order.

    Raises:
        StorageError: a receipt is missing, although the job of the task ended without an error.
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
    """Yield (name, receipt) for each of the named tasks that has a receipt file."""
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
    """Write one table per step with the receipts of tasks. Receipts with other fingerprints are left out."""
    mirror, found = mirror_of(corpus), dict[str, dict[str, Receipt]]()
    if mirror is not None:
        mirror.fetch_all(receipt_name(task.step, task.name) for task in tasks)
    for task in tasks:
        if (receipt := _read_matching(corpus, task)) is not None:
            found.setdefault(task.step, {})[task.name] = receipt
    for step, some in found.items():
        write_table(corpus, step, some)


def sweep(corpus: Path, step: Step, kept: Receipts) -> None:
    """Remove all receipts and files of a step, except the receipts and outputs of its finished tasks.

    Stale files come from inputs that no longer exist, from an older recipe, or from a killed run.

    Args:
        corpus: the corpus's folder.
        step: the step.
        kept: from the name of each finished task to its receipt.
    """
    listing = Listing(corpus, step.folders)
    for path in chain.from_iterable(receipt.paths for receipt in kept.values()) if listing.unclaimed else ():
        listing.unclaimed.pop(path, None)
    remove_stale(corpus, step, kept, listing.unclaimed)


def remove_stale(corpus: Path, step: Step, kept: Collection[str], outputs: Collection[str]) -> None:
    """Remove stale receipts of a step, and then its stale outputs.

    In an object store, the receipts of a large step are listed only if it has stale outputs. Otherwise each run over a
    finished corpus would list them once more. If no task is kept, all tables of the step are also removed.

    Args:
        corpus: the corpus's folder.
        step: the step.
        kept: names of the tasks whose receipts are kept.
        outputs: paths of the stale outputs, below the corpus.
    """
    if not kept:
        remove_files(corpus, table_paths(corpus, step.name))
    if mirror_of(corpus) is None or outputs or len(kept) < FOLD_FROM or not step.folders:
        folder = f"{RECEIPTS}/{step.name}"
        gone = [file for file in list_folder(corpus, folder) if file.removesuffix(".json") not in kept]
        remove_files(corpus, [f"{folder}/{file}" for file in gone])
    remove_files(corpus, outputs)


def remove_files(corpus: Path, paths: Collection[str]) -> None:
    """Remove files of a corpus, and the folders that are empty afterwards."""
    mirror = mirror_of(corpus)
    if mirror is not None:
        mirror.storage.remove_all(paths)
    for path in paths:
        (corpus / path).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the folder does not exist or is not empty
            for parent in Path(path).parents[:-1]:
                (corpus / parent).rmdir()


def remove_temporaries(corpus: Path) -> None:
    """Remove the temporary files of a killed run. The caller must hold the corpus's lock."""
    for parent, _, names in os.walk(corpus):
        for name in names:
            if is_temporary(Path(name)):
                (Path(parent) / name).unlink()


def count_tables(tasks: int) -> int:
    """Return the number of tables for the receipts of a job's tasks; 0 for a small job."""
    return -(-tasks // ROWS) if tasks >= FOLD_FROM else 0


def read_tables(corpus: Path, step: str) -> Iterator[tuple[str, dict[str, Receipt]]]:
    """Yield the path of each table of a step, with a dict from task name to receipt. Raises StorageError.

    The dict is empty if the table is damaged.
    """
    mirror, folder = mirror_of(corpus), _tables(step)
    for file in list_folder(corpus, folder):
        if "/" in file:  # a table of another step, whose name begins with this step's name and a slash
            continue
        path = f"{folder}/{file}"
        with contextlib.suppress(FileNotFoundError):
            data = mirror.storage.read(path) if mirror else retry_storage((corpus / path).read_bytes, path)
            yield path, unpack_table(data) if sha256_bytes(data) == file else {}


def pack_table(found: Receipts) -> bytes:
    """Return receipts as the bytes of a table: a JSON line with all task names and row lengths, then the rows."""
    rows = [receipt.row for receipt in found.values()]
    return canonical_json([list(found), [len(row) for row in rows]]) + b"".join(rows)


def unpack_table(data: bytes) -> dict[str, Receipt]:
    """Return a dict from task name to receipt from the bytes of a table."""
    start = data.index(b"\n") + 1
    names, lengths = json.loads(data[:start])
    edges = pairwise(accumulate(lengths, initial=start))
    return {name: Receipt.of_row(data[begin:end]) for name, (begin, end) in zip(names, edges, strict=True)}


def write_table(corpus: Path, step: str, found: Receipts) -> None:
    """Write the receipts of one or more tasks of a step as a table."""
    data = pack_table(found)
    path = f"{_tables(step)}/{sha256_bytes(data)}"
    mirror = mirror_of(corpus)
    if mirror is not None:
        mirror.storage.write(path, data)
    else:
        write_atomic(corpus / path, data)


def table_paths(corpus: Path, step: str) -> list[str]:
    """Return the paths of the tables of a step, and of all steps whose names begin with its name and a slash."""
    return [f"{_tables(step)}/{file}" for file in list_folder(corpus, _tables(step))]


def _tables(step: str) -> str:
    """Return the folder of a step's tables, below the corpus."""
    return f"{TABLES}/{step}"
