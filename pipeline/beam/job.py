"""Beam jobs: the units of steps that are not finished, as one job.

The driver plans all tasks of a job before it begins, also those that wait for others; what workers do is in
`pipeline.beam.waves`. Of planned tasks it holds little more than their names: the rest is in the task list. Mappers'
block files are resume points like any output, and finished ranges are not reduced again.
"""

import contextlib
import json
import pickle
import re
import time
import uuid
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from manifests.files import canonical_json, write_atomic
from manifests.mirror import mirror_of
from manifests.storage import StorageError
from pipeline.beam import counters
from pipeline.beam.engines import Engine, workers_apart
from pipeline.beam.exchange import merge_step, write_blocks
from pipeline.beam.marks import BEGUN, Marks
from pipeline.beam.progress import AND, Progress, ReceiptCounts
from pipeline.beam.receipts import Sizes, in_order, receipts, sweep, unfinished
from pipeline.beam.step import Known, PackedReceipts, PackedTasks, Receipts, Step, Task
from pipeline.beam.task import NOTICES, Job, perform
from pipeline.beam.tasklist import GROUPS, Group, TaskList, TaskWriter, task_list
from pipeline.beam.waves import Grouped, Sent, SharedPart, advance, first_elements, waves_of
from pipeline.beam.work import Made, Part, Turns

LOG = "workers.log"  # what worker processes write to their standard error


class PlannedStep:
    """The tasks of a step, and the receipts of those that are finished."""

    def __init__(self, corpus: Path, step: Step, mappers: Sequence[Task] = (), known: Known | None = None) -> None:
        """Make the tasks, and look which are finished. The arguments are those of `Step.tasks`."""
        self.corpus, self.step, self.known = corpus, step, known or {}
        self.sizes = Sizes(corpus, step.folders)
        self.tasks: Sequence[Task] = step.tasks(mappers, self.known)
        left, found = unfinished(corpus, step, self.tasks, self.sizes)
        self.waiting: Sequence[Task] = left
        self.found = PackedReceipts.of((task.name, found[task.name]) for task in self.tasks if task.name in found)

    def completer(self) -> Callable[[Task], Task]:
        """Return a function that adds to tasks the files that they fetch: none of a corpus of this machine."""
        return self.step.completer(self.known) if mirror_of(self.corpus) is not None else lambda task: task

    def pack(self) -> None:
        """Forget all of the tasks but names and fingerprints."""
        is_new = len(self.tasks) == len(self.waiting)
        self.tasks = PackedTasks(self.step.name, self.tasks)
        self.waiting = self.tasks if is_new else PackedTasks(self.step.name, self.waiting)

    def finish(self) -> Receipts:
        """Return the receipts of all tasks, and remove what other tasks have left."""
        done: Receipts = self.found
        if self.waiting:
            done = in_order(self.tasks, self.found, receipts(self.corpus, self.waiting))
        if not self.step.shared:
            sweep(self.corpus, self.step, done, None if self.waiting else self.sizes)
        return done


class PlannedPart:
    """A part with its tasks, which are written to the job's task list.

    Attributes:
        steps: of the part.
        merging: merges of the mappers' blocks, if there are any.
        sizes: of the tasks in the list.
        groups: of these tasks, each after the size and the name of its first one.
        shared: what workers must know of the part.
    """

    def __init__(
        self, corpus: Path, part: Part, engine: Engine, known: Known, begins: int, listed: TaskWriter, groups: int
    ) -> None:
        """Plan a part.

        Args:
            corpus: its folder.
            part: the steps.
            engine: that runs them.
            known: fingerprints of the tasks of earlier turns.
            begins: the wave of the first tasks.
            listed: where the tasks are written.
            groups: of them, at most.
        """
        mapping = PlannedStep(corpus, part[0], (), known)
        self.steps, self.shared = [mapping], SharedPart(begins, job_of(corpus, part[0], engine))
        self.merging: PlannedStep | None = None
        for step in part[1:]:
            self.steps.append(PlannedStep(corpus, step, mapping.tasks, known))
            self._share(corpus, engine, mapping, self.steps[1])
        needed = sorted(mapping.tasks if self.shared.reduces else mapping.waiting, key=_largest_first)
        self.sizes = array("Q", (task.size for task in needed))
        self.groups = _write(mapping, needed, listed, groups)
        for one in self.steps:
            one.pack()

    def _share(self, corpus: Path, engine: Engine, mapping: PlannedStep, reducing: PlannedStep) -> None:
        """Let workers know of reducers and, where a runner in memory would hold too many places of blocks, merges."""
        numbers, complete = {task.name: number for number, task in enumerate(reducing.tasks)}, reducing.completer()
        self.shared = replace(
            self.shared,
            mapping=_writing(self.shared.mapping, mapping.step),
            reducing=job_of(corpus, reducing.step, engine),
            reduces={numbers[task.name]: pickle.dumps(complete(task)) for task in reducing.waiting},
            in_memory=engine.in_memory,
        )
        step = merge_step(mapping.step, mapping.tasks, len(numbers)) if engine.in_memory else None
        if step is not None:
            self.merging = PlannedStep(corpus, step if reducing.waiting else replace(step, units=[]))
            merging = _writing(job_of(corpus, step, engine), step)
            self.shared = replace(self.shared, merging=merging, merges=list(self.merging.tasks))

    @property
    def waiting(self) -> int:
        """The number of tasks to run, merges included."""
        return sum(len(one.waiting) for one in self._all)

    @property
    def total(self) -> int:
        """The number of tasks, merges included."""
        return sum(len(one.tasks) for one in self._all)

    @property
    def _all(self) -> list[PlannedStep]:
        return [*self.steps, *([self.merging] if self.merging is not None else [])]

    def finish(self) -> Made:
        """Return the receipts of all tasks, by step, and remove what other tasks have left."""
        made = tuple(one.finish() for one in self.steps)
        if self.merging is not None:
            sweep(self.merging.corpus, self.merging.step, {})  # their readers have finished
        return made


def _write(mapping: PlannedStep, tasks: Sequence[Task], listed: TaskWriter, most: int) -> list[tuple[int, str, Group]]:
    """Write tasks of a step to the list, in at most `most` groups: finished ones have blocks to send."""
    waiting, complete = {task.name for task in mapping.waiting}, mapping.completer()

    def item(task: Task) -> tuple[Task, bool]:
        return (complete(task), True) if task.name in waiting else (task, False)

    return [(*_largest_first(task), group) for task, group in zip(tasks, listed.add(tasks, item, most), strict=False)]


def _largest_first(task: Task) -> tuple[int, str]:
    """Return the key that sorts tasks so that workers end together."""
    return -task.size, task.name


def _writing(job: Job, step: Step) -> Job:
    """Return a mapping step's job with its blocks written to a file."""
    return replace(job, function=partial(write_blocks, step.function, step.name))


def plan_job(corpus: Path, turns: Turns, engine: Engine, listed: TaskWriter) -> list[list[PlannedPart]]:
    """Return the parts of a job by turn, their tasks written to a list."""
    steps = (step for parts in turns[1:] for part in parts for step in part)
    awaited = {one.step for step in steps for unit in step.units for one in unit.awaits}
    known, begins = defaultdict[str, dict[str, str]](dict), 0
    planned = list[list[PlannedPart]]()
    for turn in turns:
        groups = max(1, GROUPS // max(1, len(turn)))
        planned.append([PlannedPart(corpus, part, engine, known, begins, listed, groups) for part in turn])
        begins = max([begins, *(part.shared.ends + 1 for part in planned[-1] if part.waiting)])
        for one in (step for part in planned[-1] for step in part.steps if step.step.name in awaited):
            known[one.step.name].update((task.name, task.fingerprint) for task in one.tasks)
    return planned


def run_job(corpus: Path, turns: Turns, engine: Engine) -> tuple[list[list[Made]], int]:
    """Run the units that are not finished, as one Beam job; the parts of a turn begin when those before have ended.

    Returns:
        By turn and part, the receipts of all units by name, for each step; and how many units ran.

    Raises:
        UserError, StorageError, WorkerDiedError: with a sentence for the user.
    """
    with task_list(corpus) as listed:
        planned = plan_job(corpus, turns, engine, listed)
        waiting = [part for parts in planned for part in parts if part.waiting]
        if waiting:
            shared = [part.shared for part in waiting]
            groups = sorted((*item, number) for number, part in enumerate(waiting) for item in part.groups)
            folded = sum(len(part.steps[0].waiting) for part in waiting)
            elements = list(first_elements(shared, [(number, group) for _, _, group, number in groups]))
            total = sum(part.total for parts in planned for part in parts)
            written = listed.close(shared, folded)
            with watched(corpus, waiting, total, engine):
                run_waves(written, elements, waiting, engine)
    engine.check()
    return [[part.finish() for part in parts] for parts in planned], sum(part.waiting for part in waiting)


def run_waves(listed: TaskList, elements: list[Grouped], parts: Sequence[PlannedPart], engine: Engine) -> None:
    """Build the graph of a job and run it, from its first elements."""
    pool = engine.pool_for([size for part in parts for size in part.sizes])
    import apache_beam as beam  # here, so that reading a receipt does not load it

    from pipeline.beam.spread import spread

    shared = [part.shared for part in parts]
    with engine.pipeline() as pipeline:
        packed = [pickle.dumps(element) for element in elements]  # Beam looks into each tuple, at length
        found = pipeline | beam.Create(packed) | "elements" >> beam.Map(pickle.loads).with_output_types(Grouped)
        for wave in range(waves_of(listed, shared)):
            if wave:
                found = found | f"to {wave}" >> beam.GroupByKey() | f"in {wave}" >> beam.MapTuple(_list_values)
            call = spread(partial(advance, listed, perform, wave), pool)
            title = f"{wave}: {_title(parts, wave)}" if wave else _title(parts, wave)
            found = found | title >> call.with_output_types(Sent)


def _list_values(key: Any, values: Iterable[Any]) -> Grouped:
    return key, list(values)


def _title(parts: Sequence[PlannedPart], wave: int) -> str:
    """Return the names of the steps whose tasks begin in a wave."""
    begun = {one.steps[0].step.name for one in parts if one.shared.begins == wave and one.steps[0].waiting}
    ended = {one.steps[1].step.name for one in parts if one.shared.ends == wave and one.shared.reduces}
    return AND.join(sorted(begun | ended)) or "merges, receipts"


def run_step(corpus: Path, step: Step, engine: Engine) -> tuple[Receipts, int]:
    """Run one step; see `run_job`."""
    [[(found,)]], ran = run_job(corpus, [[(step,)]], engine)
    return found, ran


def run_exchange(corpus: Path, mapping: Step, reducing: Step, engine: Engine) -> tuple[Receipts, Receipts, int]:
    """Run one exchange; see `run_job`."""
    [[(mapped, reduced)]], ran = run_job(corpus, [[(mapping, reducing)]], engine)
    return mapped, reduced, ran


def job_of(corpus: Path, step: Step, engine: Engine) -> Job:
    """Return what all tasks of a step share."""
    mirror = mirror_of(corpus)
    url = mirror.storage.url if mirror is not None else ""
    settings, by_source = dict(step.settings), dict(step.by_source)
    return Job(str(corpus), url, engine.given, str(engine.timings), step.function, settings, by_source)


@contextlib.contextmanager
def watched(corpus: Path, parts: Sequence[PlannedPart], total: int, engine: Engine) -> Iterator[None]:
    """Show progress over the waiting tasks while the block runs, and turn what ends it into a sentence for the user.

    Args:
        corpus: its folder.
        parts: those with tasks to run.
        total: tasks of the job, with those that are finished.
        engine: that runs them.

    Raises:
        UserError, StorageError: a worker said so, whatever the engine wrapped it in.
        WorkerDiedError: a worker process died; it names the tasks in flight.
    """
    for notice in NOTICES.values():
        (engine.timings / notice).unlink(missing_ok=True)
    steps = [step for part in parts for step in part.steps if step.waiting]
    waiting, title = sum(part.waiting for part in parts), AND.join(step.step.name for step in steps)
    begun, done = time.perf_counter(), total - waiting
    counters.LIVE.clear()
    poll = counters.LIVE.read if engine.is_local else ReceiptCounts(corpus, {step.step.name for step in steps}, waiting)
    marks = Marks(engine.timings / BEGUN, None if engine.is_local else mirror_of(corpus))
    try:
        with (
            workers_apart(engine.timings / LOG) as terminal,
            Progress(title, done, waiting, poll, marks, engine.status, terminal, engine.quiet),
        ):
            yield
        job = {"job": title, "tasks": waiting, "seconds": time.perf_counter() - begun}
        write_atomic(engine.timings / f"{uuid.uuid4().hex}.json", canonical_json(job))
    except BaseException as error:
        died = engine.pool.died() if "BrokenProcessPool" in repr(error) else None
        engine.pool.stop()
        if died is not None:
            left = [json.loads(path.read_bytes()) for path in (engine.timings / BEGUN).glob("*.json")]
            names = sorted(f"{mark['step']} {mark['task']}" for mark in left)
            raise type(died)(
                f"{died} while working on {' and '.join(names) or title}: give the same command "
                "again, with fewer --workers if memory was exhausted; finished work is kept"
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
