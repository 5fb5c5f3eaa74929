"""One Beam job over the units of a step that are not finished, watched by the driver."""

import contextlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from manifests.files import canonical_json, write_atomic
from manifests.mirror import mirror_of
from manifests.storage import StorageError
from pipeline.beam import counters
from pipeline.beam.engines import Engine, workers_apart
from pipeline.beam.fold import fold, fold_receipts
from pipeline.beam.progress import Progress, ReceiptCounts
from pipeline.beam.receipts import in_order, receipt_path, receipts, sweep, unfinished
from pipeline.beam.step import Receipts, Step, Task
from pipeline.beam.task import BEGUN, NOTICES, Job, perform
from pipeline.beam.tasklist import Group, TaskList, task_list

LOG = "workers.log"  # what worker processes write to their standard error


def run_step(corpus: Path, step: Step, engine: Engine) -> tuple[Receipts, int]:
    """Run the units of a step that are not finished, as one Beam job with one leaf.

    Returns:
        The receipts of all units by name, and how many units ran.

    Raises:
        UserError, StorageError, WorkerDiedError: with a sentence for the user.
    """
    tasks = step.tasks()
    waiting, found = unfinished(corpus, step, tasks)
    if waiting:
        import apache_beam as beam  # here, so that reading a receipt does not load it

        from pipeline.beam.spread import spread

        with (
            task_list(corpus, job_of(corpus, step, engine), waiting) as listed,
            watched(corpus, tasks, waiting, engine),
            engine.pipeline() as pipeline,
        ):
            pool = engine.pool_for(waiting)
            work = spread(partial(_perform_group, listed, perform), pool)
            done = (
                pipeline
                | beam.Create(listed.groups).with_output_types(Group)
                | step.name >> work.with_output_types(tuple[int, Group])
            )
            if listed.tables:
                fold(done, step.name, partial(_fold_groups, listed), pool)
    found |= receipts(corpus, waiting)
    engine.check()
    if not step.shared:
        sweep(corpus, step, found)
    return in_order(tasks, found), len(waiting)


def _perform_group(listed: TaskList, perform: Callable[..., None], group: Group) -> list[tuple[int, Group]]:
    for task in listed.read_group(group):
        perform(task, job=listed.read_shared())
    return [(listed.table_of(group), group)] if listed.tables else []


def _fold_groups(listed: TaskList, table: tuple[int, Iterable[Group]]) -> None:
    """Fold the receipts of groups that make a table."""
    fold_receipts(Path(listed.corpus), [task for group in sorted(table[1]) for task in listed.read_group(group)])


def job_of(corpus: Path, step: Step, engine: Engine) -> Job:
    """Return what all tasks of a step share."""
    mirror = mirror_of(corpus)
    url = mirror.storage.url if mirror is not None else ""
    settings, by_source = dict(step.settings), dict(step.by_source)
    return Job(str(corpus), url, engine.given, str(engine.timings), step.function, settings, by_source)


@contextlib.contextmanager
def watched(corpus: Path, tasks: Sequence[Task], waiting: Sequence[Task], engine: Engine) -> Iterator[None]:
    """Show progress over the waiting tasks while the block runs, and turn what ends it into a sentence for the user.

    Raises:
        UserError, StorageError: a worker said so, whatever the engine wrapped it in.
        WorkerDiedError: a worker process died; it names the tasks in flight.
    """
    for notice in NOTICES.values():
        (engine.timings / notice).unlink(missing_ok=True)
    begun, done = time.perf_counter(), len(tasks) - len(waiting)
    counters.LIVE.clear()
    paths = (receipt_path(corpus, task.step, task.name) for task in waiting)
    poll = counters.LIVE.read if engine.is_local else ReceiptCounts(paths)
    marks, step = engine.timings / BEGUN, waiting[0].step
    try:
        with (
            workers_apart(engine.timings / LOG) as terminal,
            Progress(step, done, len(waiting), poll, marks, engine.status, terminal, engine.quiet),
        ):
            yield
        job = {"job": waiting[0].step, "tasks": len(waiting), "seconds": time.perf_counter() - begun}
        write_atomic(engine.timings / f"{uuid.uuid4().hex}.json", canonical_json(job))
    except BaseException as error:
        died = engine.pool.died() if "BrokenProcessPool" in repr(error) else None
        engine.pool.stop()
        if died is not None:
            left = [json.loads(path.read_bytes()) for path in (engine.timings / BEGUN).glob("*.json")]
            names = sorted(f"{mark['step']} {mark['task']}" for mark in left)
            raise type(died)(
                f"{died} while at work on {' and '.join(names) or waiting[0].step}: give the same command "
                "again, with fewer --workers if memory was short; what is finished is kept"
            ) from None
        if "KeyboardInterrupt" in str(error):  # Beam wraps even that
            raise KeyboardInterrupt from None
        if isinstance(error, Exception):
            _raise_from_worker(error, engine.timings)
        raise


def _raise_from_worker(error: Exception, timings: Path) -> None:
    """Raise what a worker left as a sentence for the user, if it did."""
    for kind, notice in NOTICES.items():
        if (timings / notice).exists():
            raise kind((timings / notice).read_text(encoding="utf-8")) from None
    said = re.search(r"(?:StorageError: |^)(stage [^\n]+? which continues from here)", str(error), re.MULTILINE)
    if said:  # on a full disk a worker cannot leave a file
        raise StorageError(said[1]) from None
