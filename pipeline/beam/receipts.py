"""Receipts on disk and in object stores: which tasks are finished, and the sweeping of what no receipt names."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from manifests.files import is_temporary, relative_files
from manifests.ledger import tally_from
from manifests.mirror import mirror_of
from manifests.storage import StorageError
from pipeline.beam.step import Output, Receipt, Receipts, Step, Task

RECEIPTS = "receipts"


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


def is_finished(corpus: Path, task: Task, size_of: Callable[[str], int | None] | None = None) -> bool:
    """Return True if a task's outputs exist in full, made under its fingerprint.

    Args:
        corpus: its folder.
        task: the task.
        size_of: from `sizes_for`; None to look at files of this machine.
    """
    receipt = read_receipt(corpus, task.step, task.name)
    return receipt is not None and is_whole(receipt, task, size_of or partial(_size, corpus))


def is_whole(receipt: Receipt, task: Task, size_of: Callable[[str], int | None]) -> bool:
    """Return True if a receipt is of a task's fingerprint, and its outputs have the sizes that it says."""
    return receipt.fingerprint == task.fingerprint and all(
        size_of(output.path) == output.bytes for output in receipt.outputs
    )


def is_step_finished(corpus: Path, step: Step) -> bool:
    """Return True if all tasks of a step are finished."""
    size_of = sizes_for(corpus, step)
    return all(is_finished(corpus, task, size_of) for task in step.tasks())


def sizes_for(corpus: Path, step: Step) -> Callable[[str], int | None]:
    """Return a function that returns the size of a step's output by its path below the corpus; None if it is missing.

    Of a corpus in an object store, the step's folders are listed once.
    """
    mirror = mirror_of(corpus)
    if mirror is None:
        return partial(_size, corpus)
    listed = {entry.path: entry.bytes for folder in step.folders for entry in mirror.storage.list_files(folder)}

    def size_of(path: str) -> int | None:
        entry = None if path in listed else mirror.storage.find(path)
        return entry.bytes if entry is not None else listed.get(path)

    return size_of


def _size(corpus: Path, path: str) -> int | None:
    try:
        return os.stat(f"{corpus}/{path}").st_size  # noqa: PTH116  # a third of the time
    except (FileNotFoundError, NotADirectoryError):
        return None


def unfinished(corpus: Path, step: Step, tasks: Iterable[Task]) -> tuple[list[Task], Receipts]:
    """Return the tasks of a step still to run, largest first so that workers end together, and the others' receipts.

    Receipts of older fingerprints are removed, so that no reader takes them for new.
    """
    size_of, mirror = sizes_for(corpus, step), mirror_of(corpus)
    waiting: list[Task] = []
    found: Receipts = {}
    for task in tasks:
        receipt = read_receipt(corpus, task.step, task.name)
        if receipt is not None and is_whole(receipt, task, size_of):
            found[task.name] = receipt
            continue
        waiting.append(task)
        if receipt is not None:
            receipt_path(corpus, task.step, task.name).unlink()
    waiting.sort(key=lambda task: (-task.size, task.name))
    return step.with_files(waiting) if mirror is not None else waiting, found


def in_order(tasks: Iterable[Task], found: Receipts) -> Receipts:
    """Return receipts in the order of their tasks."""
    return {task.name: found[task.name] for task in tasks}


def receipts(corpus: Path, tasks: Iterable[Task]) -> Receipts:
    """Return the receipts of finished tasks by name. Raises StorageError if one is missing after its job ended well."""
    found, mirror, tasks = {}, mirror_of(corpus), list(tasks)
    if mirror is not None:
        mirror.fetch_all(f"{RECEIPTS}/{task.step}/{task.name}.json" for task in tasks)
    for task in tasks:
        receipt = read_receipt(corpus, task.step, task.name)
        if receipt is None or receipt.fingerprint != task.fingerprint:
            raise StorageError(
                f"stage {task.step}: {task.name} left no receipt in {corpus}: see to it that the engine's workers run "
                "and write to that very folder, then run the same command again"
            )
        found[task.name] = receipt
    return found


def sweep(corpus: Path, step: Step, kept: Receipts) -> None:
    """Remove what a step's folders hold beyond the receipts and outputs of its finished units, by name.

    These are outputs of inputs that are gone, of an older recipe, or half-written by a killed run.
    """
    claimed = {output.path for receipt in kept.values() for output in receipt.outputs}
    claimed |= {f"{RECEIPTS}/{step.name}/{name}.json" for name in kept}
    mirror = mirror_of(corpus)
    for folder in (f"{RECEIPTS}/{step.name}", *step.folders):
        if mirror is not None:
            for entry in mirror.storage.list_files(folder):
                if entry.path not in claimed:
                    mirror.storage.remove(entry.path)
        for relative in relative_files(corpus / folder):
            if f"{folder}/{relative}" not in claimed:
                (corpus / folder / relative).unlink()
        for empty, _, _ in sorted(os.walk(corpus / folder), reverse=True):
            with contextlib.suppress(OSError):
                Path(empty).rmdir()


def remove_temporaries(corpus: Path) -> None:
    """Remove what a killed run left half-written. Only to be called under the corpus's lock."""
    for relative in relative_files(corpus):
        if is_temporary(Path(relative)):
            (corpus / relative).unlink()
