"""Workers fold the receipts of a large job's finished tasks into tables, as its last stage."""

from collections.abc import Sequence
from pathlib import Path

from manifests.mirror import mirror_of
from pipeline.beam.folded import write_table
from pipeline.beam.receipts import RECEIPTS, read_receipt
from pipeline.beam.step import Receipt, Task


def fold_receipts(corpus: Path, tasks: Sequence[Task]) -> None:
    """Write a table for each step of the receipts of tasks, but for those that a run with other settings has left."""
    mirror, found = mirror_of(corpus), dict[str, dict[str, Receipt]]()
    if mirror is not None:
        mirror.fetch_all(_path(task) for task in tasks)
    for task in tasks:
        receipt = read_receipt(corpus, task.step, task.name)
        if mirror is not None and (receipt is None or receipt.fingerprint != task.fingerprint):
            mirror.fetch_anew(_path(task))  # made by another machine
            receipt = read_receipt(corpus, task.step, task.name)
        if receipt is not None and receipt.fingerprint == task.fingerprint:
            found.setdefault(task.step, {})[task.name] = receipt
    for step, some in found.items():
        write_table(corpus, step, some)


def _path(task: Task) -> str:
    return f"{RECEIPTS}/{task.step}/{task.name}.json"
