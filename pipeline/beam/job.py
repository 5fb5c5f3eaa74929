"""Beam jobs: the units of steps that are not finished, as one job.

The driver plans all tasks of a job before it begins, also those that wait for others; what workers do is in
`pipeline.beam.waves`. Of planned tasks it holds names and fingerprints: the rest is in the task list. Mappers' block
files are resume points like any output, and finished ranges are not reduced again.
"""

import contextlib
import gc
import json
import pickle
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from filters.errors import RunError
from manifests.files import canonical_json, write_atomic
from manifests.ledger import total
from manifests.mirror import mirror_of
from pipeline.beam import counters
from pipeline.beam.engines import Engine, redirect_worker_stderr
from pipeline.beam.exchange import merge_step, write_blocks
from pipeline.beam.marks import BEGUN, Marks
from pipeline.beam.progress import AND, Progress, ReceiptCounts, RunStatus
from pipeline.beam.receipts import find_finished, read_receipts, remove_stale, sweep
from pipeline.beam.step import NOTHING, Fingerprints, Known, PackedReceipts, Receipt, Receipts, Step, Task, Unit
from pipeline.beam.task import NOTICES, Job, perform
from pipeline.beam.tasklist import GROUPS, Group, TaskList, TaskWriter, task_list
from pipeline.beam.waves import Grouped, Sent, SharedPart, advance, count_waves, first_elements
from pipeline.beam.work import Part, PartReceipts, Turns

LOG = "workers.log"  # what worker processes write to their standard error


class PlannedStep:
    """The tasks of a step.

    Attributes:
        fingerprints: of all tasks, by name.
        found: the receipts of those that are finished.
        waiting: the fingerprints of the others.
        stale: files in the step's folders that no finished task has written.
    """

    def __init__(self, corpus: Path, step: Step, upstream: Fingerprints = NOTHING, known: Known = NOTHING) -> None:
        """Make the fingerprints, and look which tasks are finished. The arguments are those of `Step.fingerprints`."""
        self.corpus, self.step = corpus, step
        self.fingerprints = step.fingerprints(upstream, known)
        self.found, listing = find_finished(corpus, step, self.fingerprints)
        self.waiting: Fingerprints = self.fingerprints
        if self.found:
            self.waiting = {name: key for name, key in self.fingerprints.items() if name not in self.found}
        self.stale = set[str]() if step.shared else set(listing.unclaimed)
        self.build_task = step.task_builder(known) if mirror_of(corpus) is not None else step.task

    def task_of(self, unit: Unit) -> Task:
        """Return the task of a unit, with the files that it fetches: none of a corpus of this machine."""
        return self.build_task(unit, self.fingerprints[unit.name])

    def finish(self, status: RunStatus) -> Receipts:
        """Return the receipts of all tasks; remove what other tasks have left. `status` gets the counts."""
        if self.waiting:
            self.found = PackedReceipts(self.fingerprints, chain(self.found.items(), self._read()))
        if not self.step.shared:
            remove_stale(self.corpus, self.step, self.fingerprints, self.stale)
        first = next(iter(self.fingerprints), "")
        status.end_step(self.step.name, first, len(self.found), total(self.found.tallies.values()))
        return self.found

    def _read(self) -> Iterator[tuple[str, Receipt]]:
        """Yield the receipts of the tasks that have run. What these have written is not stale."""
        for name, receipt in read_receipts(self.corpus, self.step.name, self.waiting):
            if self.stale:
                self.stale.difference_update(receipt.paths)
            yield name, receipt


@dataclass(frozen=True)
class PlannedPart:
    """A part of a job with its tasks, which are written to the job's task list.

    Attributes:
        steps: of the part.
        merging: merges of the mappers' blocks, if there are any.
        listed: the number of tasks in the list.
        size: of these, in bytes.
        groups: of these tasks, each after the size and the name of its first one.
        shared: what workers must know of the part.
    """

    steps: list[PlannedStep]
    merging: list[PlannedStep]
    listed: int
    size: int
    groups: list[tuple[int, str, Group]]
    shared: SharedPart

    @property
    def waiting(self) -> int:
        """The number of tasks to run, merges included."""
        return sum(len(one.waiting) for one in (*self.steps, *self.merging))

    @property
    def total(self) -> int:
        """The number of tasks, merges included."""
        return sum(len(one.fingerprints) for one in (*self.steps, *self.merging))

    def finish(self, status: RunStatus) -> PartReceipts:
        """Return the receipts of all tasks, by step; remove what other tasks have left. `status` gets the counts."""
        made = tuple(one.finish(status) for one in self.steps)
        for one in self.merging:
            sweep(one.corpus, one.step, {})  # their readers have finished
        return made


@dataclass(frozen=True)
class Planner:
    """Plans the parts of a job, and writes their tasks to its task list.

    Attributes:
        corpus: its folder.
        engine: that runs the job.
        listed: the task list.
        known: fingerprints of the tasks that tasks of later turns may await, by step and name.
    """

    corpus: Path
    engine: Engine
    listed: TaskWriter
    known: dict[str, Fingerprints] = field(default_factory=dict)

    def plan(self, turns: Turns) -> list[list[PlannedPart]]:
        """Return the parts of a job by turn."""
        planned, begins = list[list[PlannedPart]](), 0
        for turn in turns:
            groups = max(1, GROUPS // max(1, len(turn)))
            planned.append([self.plan_part(part, begins, groups) for part in turn])
            begins = max([begins, *(part.shared.ends + 1 for part in planned[-1] if part.waiting)])
            for one in (one for part in planned[-1] for one in part.steps):
                before = self.known.get(
                    one.step.name
                )  # of a search with other settings, whose steps have the same name
                self.known[one.step.name] = {**before, **one.fingerprints} if before else one.fingerprints
        return planned

    def plan_part(self, part: Part, begins: int, groups: int) -> PlannedPart:
        """Plan a part whose first tasks are in the wave `begins`, in at most so many groups."""
        mapping, merging = PlannedStep(self.corpus, part[0], {}, self.known), list[PlannedStep]()
        steps, shared = [mapping], SharedPart(begins, job_of(self.corpus, part[0], self.engine))
        for step in part[1:]:
            steps.append(PlannedStep(self.corpus, step, mapping.fingerprints, self.known))
            shared, merging = self._share_reducers(shared, mapping, steps[1])
        units = [unit for unit in part[0].units if shared.reduces or unit.name in mapping.waiting]
        units.sort(key=_largest_first)

        def item(unit: Unit) -> tuple[Task, bool]:  # finished tasks are needed where they have blocks to send
            if unit.name in mapping.waiting:
                return mapping.task_of(unit), True
            return mapping.step.task(unit, mapping.fingerprints[unit.name]), False

        written = self.listed.add(units, item, groups)
        first = [(*_largest_first(unit), group) for unit, group in zip(units, written, strict=False)]
        return PlannedPart(steps, merging, len(units), sum(unit.size for unit in units), first, shared)

    def _share_reducers(
        self, shared: SharedPart, mapping: PlannedStep, reducing: PlannedStep
    ) -> tuple[SharedPart, list[PlannedStep]]:
        """Let workers know of reducers and, where a runner in memory would hold too many places of blocks, merges."""
        units = reducing.step.units
        shared = replace(
            shared,
            mapping=_writing(shared.mapping, mapping.step),
            reducing=job_of(self.corpus, reducing.step, self.engine),
            reduces={
                number: self.listed.write(reducing.task_of(unit))
                for number, unit in enumerate(units)
                if unit.name in reducing.waiting
            },
            in_memory=self.engine.in_memory,
        )
        step = merge_step(mapping.step, mapping.fingerprints, len(units)) if self.engine.in_memory else None
        if step is None:
            return shared, []
        planned = PlannedStep(self.corpus, step if reducing.waiting else replace(step, units=[]))
        merges = [planned.task_of(unit) for unit in planned.step.units]
        merging = _writing(job_of(self.corpus, step, self.engine), step)
        return replace(shared, merging=merging, merges=merges), [planned]


def _largest_first(unit: Unit) -> tuple[int, str]:
    """Return the key that sorts units so that workers end together."""
    return -unit.size, unit.name


def _writing(job: Job, step: Step) -> Job:
    """Return a mapping step's job with its blocks written to a file."""
    return replace(job, function=partial(write_blocks, step.function, step.name))


def run_job(corpus: Path, turns: Turns, engine: Engine) -> tuple[list[list[PartReceipts]], int]:
    """Run the units that are not finished, as one Beam job; the parts of a turn begin when those before have ended.

    Returns:
        By turn and part, the receipts of all units by name, for each step; and how many units ran.

    Raises:
        UserError, StorageError, WorkerDiedError, RunError: with a sentence for the user.
    """
    with task_list(corpus) as listed:
        planned = Planner(corpus, engine, listed).plan(turns)
        waiting = [part for parts in planned for part in parts if part.waiting]
        if waiting:
            shared = [part.shared for part in waiting]
            groups = sorted((*item, number) for number, part in enumerate(waiting) for item in part.groups)
            folded = sum(len(part.steps[0].waiting) for part in waiting)
            elements = list(first_elements(shared, [(number, group) for _, _, group, number in groups]))
            total = sum(part.total for parts in planned for part in parts)
            written = listed.close(shared, folded)
            with watch_progress(corpus, waiting, total, engine), garbage_collection(True):
                run_waves(written, elements, waiting, engine)
    engine.check()
    engine.status.end_job()
    return [[part.finish(engine.status) for part in parts] for parts in planned], sum(part.waiting for part in waiting)


@contextlib.contextmanager
def garbage_collection(is_wanted: bool) -> Iterator[None]:
    """Let Python look for cycles of objects while the block runs, or not.

    A plan is millions of objects without a cycle: to look at them again and again took an eighth of the driver's time.
    So they are not looked at while a job runs, either.
    """
    before = gc.isenabled()
    (gc.enable if is_wanted else gc.disable)()
    if is_wanted:
        gc.freeze()
    try:
        yield
    finally:
        (gc.enable if before else gc.disable)()
        if is_wanted:
            gc.unfreeze()


def run_waves(listed: TaskList, elements: list[Grouped], parts: Sequence[PlannedPart], engine: Engine) -> None:
    """Build the graph of a job and run it, from its first elements."""
    pool = engine.pool_for(sum(part.listed for part in parts), sum(part.size for part in parts))
    import apache_beam as beam  # here, so that reading a receipt does not load it

    from pipeline.beam.spread import spread

    shared = [part.shared for part in parts]
    with engine.pipeline() as pipeline:
        packed = [pickle.dumps(element) for element in elements]  # Beam looks into each tuple, at length
        found = pipeline | beam.Create(packed) | "elements" >> beam.Map(pickle.loads).with_output_types(Grouped)
        for wave in range(count_waves(listed, shared)):
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


def job_of(corpus: Path, step: Step, engine: Engine) -> Job:
    """Return what all tasks of a step share."""
    mirror = mirror_of(corpus)
    url = mirror.storage.url if mirror is not None else ""
    settings, by_source = dict(step.settings), dict(step.by_source)
    return Job(str(corpus), url, engine.model_urls, str(engine.timings), step.function, settings, by_source)


@contextlib.contextmanager
def watch_progress(corpus: Path, parts: Sequence[PlannedPart], total: int, engine: Engine) -> Iterator[None]:
    """Show progress over the waiting tasks while the block runs, and turn what ends it into a sentence for the user.

    Args:
        corpus: its folder.
        parts: those with tasks to run.
        total: tasks of the job, with those that are finished.
        engine: that runs them.

    Raises:
        UserError, StorageError: a worker said so, whatever the engine wrapped it in.
        RunError: a job service gave the job up, as Flink does when a worker dies, or does not answer any more.
        WorkerDiedError: a worker process died; it names the tasks in flight.
    """
    for notice in NOTICES.values():
        (engine.timings / notice).unlink(missing_ok=True)
    steps = [step for part in parts for step in part.steps if step.waiting]
    waiting, title = sum(part.waiting for part in parts), AND.join(dict.fromkeys(step.step.name for step in steps))
    begun, done = time.perf_counter(), total - waiting
    counters.LIVE.clear()
    poll = counters.LIVE.read if engine.is_local else ReceiptCounts(corpus, {step.step.name for step in steps}, waiting)
    marks = Marks(engine.timings / BEGUN, None if engine.is_local else mirror_of(corpus))
    try:
        with (
            redirect_worker_stderr(engine.timings / LOG) as terminal,
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
    kinds = {kind.__name__: kind for kind in NOTICES}
    text = f"{type(error).__name__}: {error}"  # of a worker elsewhere, or on a full disk, that cannot leave a file here
    said = re.findall(rf"\b({'|'.join(kinds)}): (.+?)(?: \[while running .*)?$", text, re.MULTILINE)
    if said:
        name, sentence = said[-1]
        raise kinds[name](sentence) from None
    failed = re.match(r"Pipeline \S+ failed in state \w+: (.*)", str(error))  # as a job service of Beam says it
    if failed and "Traceback" not in str(error):  # of Python, as after an error in a task
        raise RunError(
            f"the engine has given up a job ({failed[1]}): look whether its workers run, then give the same command "
            "again; finished work is kept"
        ) from None
    if type(error).__module__.partition(".")[0] == "grpc":  # of the connection between this process and the service
        why = " ".join(error.details().split()) if hasattr(error, "details") else "no answer"
        raise RunError(
            f"the engine's job service has gone ({why}): look whether it runs, then give the same command again; "
            "finished work is kept"
        ) from None
