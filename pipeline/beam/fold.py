"""Workers fold the receipts of a large job's finished tasks into tables, as its last stage."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.mirror import mirror_of
from pipeline.beam.folded import write_table
from pipeline.beam.pool import Pool
from pipeline.beam.receipts import RECEIPTS, read_receipt
from pipeline.beam.step import Receipts, Task

if TYPE_CHECKING:
    import apache_beam as beam


def fold_receipts(corpus: Path, tasks: Sequence[Task]) -> None:
    """Write a table for each step of the receipts of tasks, but for those that a run with other settings has left."""
    mirror, found = mirror_of(corpus), dict[str, Receipts]()
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


def fold(done: "beam.PCollection", function: Callable[[Any], None], pool: Pool | None) -> None:
    """Add the folding of what was reduced to a job, as its last stage.

    Args:
        done: by table, what names the tasks that are finished.
        function: gets a table's number and all that belongs to it, and writes it. It can be pickled.
        pool: where it is called; None to leave it to the engine.
    """
    import apache_beam as beam

    from pipeline.beam.spread import spread

    folding = spread(function, pool).with_output_types(type(None))
    _ = done | "tables" >> beam.GroupByKey() | "fold" >> folding
