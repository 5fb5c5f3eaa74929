"""Receipts on disk and in object stores: which tasks are finished, and the sweeping of what no receipt names.

Workers fold the receipts of large jobs into tables, some 2,000 tasks a file. The driver reads these, and the single
receipts of tasks that no table has. A table is a cache: each row repeats a receipt that a finished task has left. Its
name is its own hash, so a damaged one is not read. A table with a row that is not true any more is removed before the
step runs.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

from manifests.files import canonical_json, is_temporary, sha256_bytes, sha256_file, write_atomic
from manifests.ledger import tally_from
from manifests.mirror import list_folder, mirror_of
from manifests.storage import StorageError, retry_storage
from pipeline.beam.step import Output, PackedReceipts, Receipt, Receipts, Step, Task

RECEIPTS = "receipts"
TABLES = "runs/tables"
ROWS = 2_000  # of a table, about: some 1.5 MB
FOLD_FROM = 500  # receipts of a step from which on they are folded


def receipt_path(corpus: Path, step: str, name: str) -> Path:
    """Return the path of a task's receipt."""
    return corpus / RECEIPTS / step / f"{name}.json"


def read_receipt(corpus: Path, step: str, name: str) -> Receipt | None:
    """Return a task's receipt; None if it is missing or not one. Raises OSError if it cannot be read."""
    try:
        with open(f"{corpus}/{RECEIPTS}/{step}/{name}.json", "rb") as file:  # noqa: PTH123  # a third of the time
            plain = json.loads(file.read())
        tallies = {source: tally_from(tally) for source, tally in plain["tallies"].items()}
        return Receipt(plain["fingerprint"], [Output(**o) for o in plain["outputs"]], tallies, plain["facts"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def read_finished(corpus: Path, task: Task) -> Receipt:
    """Return the receipt of a task that has ended, which another machine may have written to the object store."""
    mirror, receipt = mirror_of(corpus), read_receipt(corpus, task.step, task.name)
    if mirror is not None and (receipt is None or receipt.fingerprint != task.fingerprint):
        mirror.fetch_anew(_path_below(task))
        receipt = read_receipt(corpus, task.step, task.name)
    assert receipt is not None and receipt.fingerprint == task.fingerprint, "it was performed or found finished"
    return receipt


def is_finished(corpus: Path, task: Task) -> bool:
    """Return True if this machine has a task's outputs in full, made under its fingerprint."""
    receipt = read_receipt(corpus, task.step, task.name)
    holds = partial(_holds, corpus, written=_written(corpus, _path_below(task)))
    return receipt is not None and is_whole(receipt, task, holds)


def is_whole(receipt: Receipt, task: Task, holds: Callable[[Output], bool]) -> bool:
    """Return True if a receipt is of a task's fingerprint, and its outputs are there as it says."""
    return receipt.fingerprint == task.fingerprint and all(map(holds, receipt.outputs))


def is_step_finished(corpus: Path, step: Step) -> bool:
    """Return True if all tasks of a step are finished."""
    return not unfinished(corpus, step, step.tasks())[0]


def _written(corpus: Path, path: str) -> int | None:
    """Return when receipts were written, in ns. None of those in a store, whose outputs are hashed when fetched."""
    if mirror_of(corpus) is None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.stat(f"{corpus}/{path}").st_mtime_ns  # noqa: PTH116  # a third of the time
    return None


def _holds(corpus: Path, output: Output, written: int | None) -> bool:
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


class Sizes:
    """The outputs of a step on this machine, or their sizes in an object store.

    Of a store, the folders given are listed once, when the first output is asked for.
    """

    def __init__(self, corpus: Path, folders: Iterable[str]) -> None:
        self.corpus, self.folders, self.mirror = corpus, folders, mirror_of(corpus)
        self.is_listed = False

    @cached_property
    def listed(self) -> dict[str, int]:
        """The files of the folders in the object store."""
        self.is_listed = True
        files = [self.mirror.storage.list_files(folder) for folder in self.folders] if self.mirror is not None else []
        return {file.path: file.bytes for some in files for file in some}

    def holds(self, output: Output, written: int | None) -> bool:
        """Return True if an output is there as its receipt says, which was written at that time; see `_holds`."""
        if self.mirror is None:
            return _holds(self.corpus, output, written)
        if output.path in self.listed:
            return self.listed[output.path] == output.bytes
        entry = self.mirror.storage.find(output.path)
        return entry is not None and entry.bytes == output.bytes


def unfinished(
    corpus: Path, step: Step, tasks: Sequence[Task], sizes: Sizes | None = None
) -> tuple[list[Task], dict[str, Receipt]]:
    """Return the tasks of a step still to run, largest first so that workers end together, and the others' receipts.

    Receipts of older fingerprints are removed, so that no reader takes them for new, and tables that hold any of them.
    Receipts that no table has any more are folded anew where they are many.
    """
    known, by_name = sizes or Sizes(corpus, step.folders), {task.name: task for task in tasks}
    found, unfolded, older = dict[str, Receipt](), dict[str, Receipt](), list[str]()
    for path, rows in read_tables(corpus, step.name).items():
        holds = partial(known.holds, written=_written(corpus, path))
        true = {
            name: receipt
            for name, receipt in rows.items()
            if name in by_name and is_whole(receipt, by_name[name], holds)
        }
        lost = len(rows) - len(true) if not step.shared else sum(name in by_name for name in rows.keys() - true.keys())
        found |= true
        if lost or not rows:
            remove_tables(corpus, [path])
            unfolded |= true
    for task, receipt in _single_receipts(corpus, step.name, [task for task in tasks if task.name not in found]):
        if is_whole(receipt, task, partial(known.holds, written=_written(corpus, _path_below(task)))):
            found[task.name] = unfolded[task.name] = receipt
        else:
            receipt_path(corpus, task.step, task.name).unlink()
            older.append(_path_below(task))
    if (mirror := mirror_of(corpus)) is not None:
        mirror.storage.remove_all(older)
    if len(unfolded) >= FOLD_FROM:
        write_tables(corpus, step.name, unfolded)
    return sorted((task for task in tasks if task.name not in found), key=lambda task: (-task.size, task.name)), found


def in_order(tasks: Iterable[Task], found: Receipts, others: Receipts) -> Receipts:
    """Return receipts in the order of their tasks, each from the one or from the others."""
    return {task.name: (found if task.name in found else others)[task.name] for task in tasks}


def receipts(corpus: Path, tasks: Iterable[Task]) -> Receipts:
    """Return the receipts of finished tasks of one step by name.

    Raises:
        StorageError: one is missing after its job ended well.
    """
    tasks = list(tasks)
    found = _find(corpus, tasks[0].step, tasks) if tasks else {}
    for task in tasks:
        if task.name not in found:
            raise StorageError(
                f"stage {task.step}: {task.name} left no receipt in {corpus}: check that the engine's workers run "
                "and write to this folder, then run the same command again"
            )
    return found


def _find(corpus: Path, step: str, tasks: Sequence[Task]) -> Receipts:
    """Return the receipts of tasks' own fingerprints, as far as they are there."""
    fingerprints, found = {task.name: task.fingerprint for task in tasks}, dict[str, Receipt]()
    for rows in read_tables(corpus, step).values() if len(tasks) >= FOLD_FROM else ():
        found |= {name: receipt for name, receipt in rows.items() if receipt.fingerprint == fingerprints.get(name)}
    left = [task for task in tasks if task.name not in found]
    for task, receipt in _single_receipts(corpus, step, left):
        if receipt.fingerprint == task.fingerprint:
            found[task.name] = receipt
    return found


def _single_receipts(corpus: Path, step: str, tasks: Sequence[Task]) -> Iterator[tuple[Task, Receipt]]:
    """Yield tasks and their receipts, as far as there are any."""
    if not tasks:
        return
    names, mirror = set(list_folder(corpus, f"{RECEIPTS}/{step}")), mirror_of(corpus)
    present = [task for task in tasks if f"{task.name}.json" in names]
    if mirror is not None:
        mirror.fetch_all(f"{RECEIPTS}/{step}/{task.name}.json" for task in present)
    for task in present:
        receipt = read_receipt(corpus, step, task.name)
        if receipt is not None:
            yield task, receipt


def fold_receipts(corpus: Path, tasks: Sequence[Task]) -> None:
    """Write a table for each step of the receipts of tasks, but for those that a run with other settings has left."""
    mirror, found = mirror_of(corpus), dict[str, dict[str, Receipt]]()
    if mirror is not None:
        mirror.fetch_all(_path_below(task) for task in tasks)
    for task in tasks:
        receipt = read_receipt(corpus, task.step, task.name)
        if mirror is not None and (receipt is None or receipt.fingerprint != task.fingerprint):
            mirror.fetch_anew(_path_below(task))  # made by another machine
            receipt = read_receipt(corpus, task.step, task.name)
        if receipt is not None and receipt.fingerprint == task.fingerprint:
            found.setdefault(task.step, {})[task.name] = receipt
    for step, some in found.items():
        write_table(corpus, step, some)


def _path_below(task: Task) -> str:
    return f"{RECEIPTS}/{task.step}/{task.name}.json"


def sweep(corpus: Path, step: Step, kept: Receipts, sizes: Sizes | None = None) -> None:
    """Remove what a step's folders hold beyond the receipts and outputs of its finished units, by name.

    These are outputs of inputs that are gone, of an older recipe, or half-written by a killed run. In an object store a
    large step's receipts are listed only if there are such outputs, which are removed after their receipts: else a
    finished corpus would be listed once more at each run.

    Args:
        corpus: its folder.
        step: the step.
        kept: receipts of its finished units.
        sizes: of its folders, if no task has written to them since these were listed.
    """
    storage = mirror.storage if (mirror := mirror_of(corpus)) is not None else None
    if not kept:
        remove_tables(corpus, table_paths(corpus, step.name))
    folder = f"{RECEIPTS}/{step.name}"
    _sweep_folder(corpus, folder, {f"{folder}/{name}.json" for name in kept})
    claimed = {path for receipt in kept.values() for path in receipt.paths}
    for one in step.folders:
        _sweep_folder(corpus, one, claimed)
    if storage is not None:
        known = sizes if sizes is not None and sizes.is_listed else Sizes(corpus, step.folders)
        left = known.listed.keys() - claimed
        if left or len(kept) < FOLD_FROM or not step.folders:
            names = (one.path[len(folder) + 1 : -5] for one in storage.list_files(folder))
            storage.remove_all(f"{folder}/{name}.json" for name in names if name not in kept)
        storage.remove_all(left)


def _sweep_folder(corpus: Path, folder: str, claimed: set[str]) -> None:
    """Remove the files of a folder of this machine but the claimed ones, and folders that are empty then."""
    start = len(f"{corpus}/")
    for parent, _, names in os.walk(corpus / folder, topdown=False):
        gone = [name for name in names if f"{parent}/{name}"[start:] not in claimed]
        for name in gone:
            (Path(parent) / name).unlink()
        if len(gone) == len(names):
            with contextlib.suppress(OSError):  # it holds folders that stay
                Path(parent).rmdir()


def remove_temporaries(corpus: Path) -> None:
    """Remove what a killed run left half-written. Only to be called under the corpus's lock."""
    for parent, _, names in os.walk(corpus):
        for name in names:
            if is_temporary(Path(name)):
                (Path(parent) / name).unlink()


def tables_for(tasks: int) -> int:
    """Return the number of tables for the receipts of a job's tasks: none for a small job."""
    return -(-tasks // ROWS) if tasks >= FOLD_FROM else 0


def read_tables(corpus: Path, step: str) -> dict[str, Receipts]:
    """Return the receipts of a step's tables: by table, then by task. Raises StorageError."""
    mirror, folder = mirror_of(corpus), _tables(step)
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
    path = f"{_tables(step)}/{sha256_bytes(data)}"
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
    return [f"{_tables(step)}/{file}" for file in list_folder(corpus, _tables(step))]


def _tables(step: str) -> str:
    return f"{TABLES}/{step}"
