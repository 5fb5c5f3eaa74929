"""Run the unfinished units of steps as one Beam job.

The driver plans all tasks of a job before the job starts, including tasks that wait for other tasks. It keeps only the
names and fingerprints of the tasks in memory and writes the tasks to the task list. `pipeline.beam.waves` is the code
that workers run. A continued run does not repeat finished mappers, because it reads their block files, and it does not
reduce finished ranges again.
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
from pipeline.beam.waves import Grouped, Sent, SharedPart, count_waves, first_elements, process_element
from pipeline.beam.work import Part, PartReceipts, Turns

LOG = "workers.log"  # the standard error of worker processes


class PlannedStep:
    """The tasks of a step, finished and unfinished.

    Attributes:
        fingerprints: from the name of each task to its fingerprint.
        found: the receipts of the finished tasks.
        waiting: the fingerprints of the unfinished tasks.
        stale: files in the step's folders that no finished task has written.
        build_task: returns the task of a unit with a fingerprint.
    """

    def __init__(self, corpus: Path, step: Step, upstream: Fingerprints = NOTHING, known: Known = NOTHING) -> None:
        """Compute the fingerprints and find the finished tasks.

        Args:
            corpus: the corpus's folder.
            step: the step.
            upstream: fingerprints of the mappers, if the step reduces their blocks.
            known: fingerprints of the tasks that units await.
        """
        self.corpus, self.step = corpus, step
        self.fingerprints = step.fingerprints(upstream, known)
        self.found, listing = find_finished(corpus, step, self.fingerprints)
        self.waiting: Fingerprints = self.fingerprints
        if self.found:
            self.waiting = {name: key for name, key in self.fingerprints.items() if name not in self.found}
        self.stale = set[str]() if step.shared else set(listing.unclaimed)
        self.build_task = step.task_builder(known) if mirror_of(corpus) is not None else step.task

    def task_of(self, unit: Unit) -> Task:
        """Return the task of a unit. If the corpus is in an object store, the task lists the files that it fetches."""
        return self.build_task(unit, self.fingerprints[unit.name])

    def finish(self, status: RunStatus) -> Receipts:
        """Return the receipts of all tasks, and remove stale files and receipts.

        Args:
            status: the status of the run, to which the counts of the step are added.
        """
        if self.waiting:
            self.found = PackedReceipts(self.fingerprints, chain(self.found.items(), self._read()))
        if not self.step.shared:
            remove_stale(self.corpus, self.step, self.fingerprints, self.stale)
        first = next(iter(self.fingerprints), "")
        status.end_step(self.step.name, first, len(self.found), total(self.found.tallies.values()))
        return self.found

    def _read(self) -> Iterator[tuple[str, Receipt]]:
        """Yield the receipts of the tasks that have run, and remove their outputs from the set of stale files."""
        for name, receipt in read_receipts(self.corpus, self.step.name, self.waiting):
            if self.stale:
                self.stale.difference_update(receipt.paths)
            yield name, receipt


@dataclass(frozen=True)
class PlannedPart:
    """A part of a job, with its tasks in the job's task list.

    Attributes:
        steps: the step, or the mapping and the reducing step.
        merging: the step that merges the mappers' blocks, if there is one.
        listed_tasks: number of tasks of the first step in the task list.
        size: sum of the sizes of these tasks, in bytes.
        groups: tuples of the negative size and the name of a group's first task, and the location of the group.
        shared: values that workers need for the part's tasks.
    """

    steps: list[PlannedStep]
    merging: list[PlannedStep]
    listed_tasks: int
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
        """Return the receipts of each step, and remove stale files and the outputs of merges.

        Args:
            status: the status of the run, to which the counts of the steps are added.
        """
        made = tuple(one.finish(status) for one in self.steps)
        for one in self.merging:
            sweep(one.corpus, one.step, {})  # the reducers, which read the merged blocks, have finished
        return made


@dataclass(frozen=True)
class Planner:
    """The planner of a job: it finds the tasks to run and writes them to the job's task list.

    Attributes:
        corpus: the corpus's folder.
        engine: the engine that runs the job.
        task_writer: the writer of the task list.
        known: from step name to the fingerprints of the step's tasks, for tasks of later turns that await them.
    """

    corpus: Path
    engine: Engine
    task_writer: TaskWriter
    known: dict[str, Fingerprints] = field(default_factory=dict)

    def plan(self, turns: Turns) -> list[list[PlannedPart]]:
        """Plan all parts of a job. Return a list of planned parts for each turn."""
        planned, first_wave = list[list[PlannedPart]](), 0
        for turn in turns:
            groups = max(1, GROUPS // max(1, len(turn)))
            planned.append([self.plan_part(part, first_wave, groups) for part in turn])
            first_wave = max([first_wave, *(part.shared.last_wave + 1 for part in planned[-1] if part.waiting)])
            for one in (one for part in planned[-1] for one in part.steps):
                # Searches for near-duplicates with different settings have steps with the same name.
                before = self.known.get(one.step.name)
                self.known[one.step.name] = {**before, **one.fingerprints} if before else one.fingerprints
        return planned

    def plan_part(self, part: Part, first_wave: int, groups: int) -> PlannedPart:
        """Plan a part and write its tasks to the task list.

        Args:
            part: the step, or the mapping and the reducing step.
            first_wave: the wave of the part's first tasks.
            groups: the largest number of groups of tasks.
        """
        mapping, merging = PlannedStep(self.corpus, part[0], {}, self.known), list[PlannedStep]()
        steps, shared = [mapping], SharedPart(first_wave, job_of(self.corpus, part[0], self.engine))
        for step in part[1:]:
            steps.append(PlannedStep(self.corpus, step, mapping.fingerprints, self.known))
            shared, merging = self._share_reducers(shared, mapping, steps[1])
        units = [unit for unit in part[0].units if shared.reducer_tasks or unit.name in mapping.waiting]
        units.sort(key=_largest_first)

        def item(unit: Unit) -> tuple[Task, bool]:
            """Return the task of a unit, and True if it must run. A finished mapper only sends its blocks."""
            if unit.name in mapping.waiting:
                return mapping.task_of(unit), True
            return mapping.step.task(unit, mapping.fingerprints[unit.name]), False

        written = self.task_writer.add(units, item, groups)
        first = [(*_largest_first(unit), group) for unit, group in zip(units, written, strict=False)]
        return PlannedPart(steps, merging, len(units), sum(unit.size for unit in units), first, shared)

    def _share_reducers(
        self, shared: SharedPart, mapping: PlannedStep, reducing: PlannedStep
    ) -> tuple[SharedPart, list[PlannedStep]]:
        """Write the tasks of the reducers to the task list, and plan merges if they are necessary.

        Blocks are merged if a runner that groups in memory would hold the locations of too many blocks.

        Args:
            shared: the shared values of the part, without reducers.
            mapping: the step of the mappers.
            reducing: the step of the reducers.

        Returns:
            The shared values with reducers and merges, and the merging step, if there is one.
        """
        units = reducing.step.units
        shared = replace(
            shared,
            mapping=_with_block_file(shared.mapping, mapping.step),
            reducing=job_of(self.corpus, reducing.step, self.engine),
            reducer_tasks={
                number: self.task_writer.write(reducing.task_of(unit))
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
        merging = _with_block_file(job_of(self.corpus, step, self.engine), step)
        return replace(shared, merging=merging, merge_tasks=merges), [planned]


def _largest_first(unit: Unit) -> tuple[int, str]:
    """Return a sort key that puts large units first, so that workers finish at about the same time."""
    return -unit.size, unit.name


def _with_block_file(job: Job, step: Step) -> Job:
    """Return the job of a mapping step with a function that writes the mapper's blocks to a file."""
    return replace(job, function=partial(write_blocks, step.function, step.name))


def run_job(corpus: Path, turns: Turns, engine: Engine) -> tuple[list[list[PartReceipts]], int]:
    """Run the unfinished units of steps as one Beam job.

    Args:
        corpus: the corpus's folder.
        turns: the parts of each turn. The parts of a turn start when all parts of the previous turn have ended.
        engine: the engine that runs the job.

    Returns:
        The receipts of all units, for each turn, part and step; and the number of tasks that ran.

    Raises:
        UserError, StorageError, WorkerDiedError, RunError: the job failed. The message is a sentence for the user.
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
    """Enable or disable Python's garbage collector while the `with` block runs.

    A plan consists of millions of objects without cycles. Scanning them repeatedly took an eighth of the driver's
    time. So the collector is disabled during planning. While a job runs it is enabled, but the objects that exist at
    its start are frozen and not scanned.
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
    """Build the Beam pipeline of a job and run it.

    Args:
        listed: the task list.
        elements: the input of the pipeline.
        parts: the parts of the job that have tasks to run.
        engine: the engine that runs the pipeline.
    """
    pool = engine.pool_for(sum(part.listed_tasks for part in parts), sum(part.size for part in parts))
    import apache_beam as beam  # imported here, so that code which only reads receipts does not load Beam

    from pipeline.beam.spread import spread

    shared = [part.shared for part in parts]
    with engine.pipeline() as pipeline:
        # `Create` infers the types of all elements. That is slow for nested tuples, and fast for bytes.
        packed = [pickle.dumps(element) for element in elements]
        found = pipeline | beam.Create(packed) | "elements" >> beam.Map(pickle.loads).with_output_types(Grouped)
        for wave in range(count_waves(listed, shared)):
            if wave:
                found = found | f"to {wave}" >> beam.GroupByKey() | f"in {wave}" >> beam.MapTuple(_list_values)
            call = spread(partial(process_element, listed, perform, wave), pool)
            title = f"{wave}: {_title(parts, wave)}" if wave else _title(parts, wave)
            found = found | title >> call.with_output_types(Sent)


def _list_values(key: Any, values: Iterable[Any]) -> Grouped:
    """Return an element with its values as a list, because `GroupByKey` yields an iterable."""
    return key, list(values)


def _title(parts: Sequence[PlannedPart], wave: int) -> str:
    """Return the names of the steps that have tasks in a wave, as the title of its transform."""
    begun = {one.steps[0].step.name for one in parts if one.shared.first_wave == wave and one.steps[0].waiting}
    ended = {one.steps[1].step.name for one in parts if one.shared.last_wave == wave and one.shared.reducer_tasks}
    return AND.join(sorted(begun | ended)) or "merges, receipts"


def job_of(corpus: Path, step: Step, engine: Engine) -> Job:
    """Return the `Job` of a step: the values that all its tasks share."""
    mirror = mirror_of(corpus)
    url = mirror.storage.url if mirror is not None else ""
    settings, by_source = dict(step.settings), dict(step.by_source)
    return Job(str(corpus), url, engine.model_urls, str(engine.timings), step.function, settings, by_source)


@contextlib.contextmanager
def watch_progress(corpus: Path, parts: Sequence[PlannedPart], total: int, engine: Engine) -> Iterator[None]:
    """Show progress while the `with` block runs a job, and replace its exceptions by errors with clear messages.

    Args:
        corpus: the corpus's folder.
        parts: the parts of the job that have tasks to run.
        total: number of tasks of the job, including finished tasks.
        engine: the engine that runs the job.

    Raises:
        UserError, StorageError: a task raised this error. The engine may have wrapped it in another exception.
        RunError: a job service gave up the job, as Flink does when a worker dies, or it does not answer any more.
        WorkerDiedError: a worker process died. The message names the tasks that were running.
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
        if "KeyboardInterrupt" in str(error):  # Beam wraps KeyboardInterrupt, too
            raise KeyboardInterrupt from None
        if isinstance(error, Exception):
            _raise_from_worker(error, engine.timings)
        raise


def _raise_from_worker(error: Exception, timings: Path) -> None:
    """Raise the error of a task, or of the engine, if it can be recognized in the exception that ended the job.

    Args:
        error: the exception that ended the job.
        timings: the run's folder, in which workers leave their error messages.
    """
    for kind, notice in NOTICES.items():
        if (timings / notice).exists():
            raise kind((timings / notice).read_text(encoding="utf-8")) from None
    kinds = {kind.__name__: kind for kind in NOTICES}
    # A worker on another machine, or with a full disk, cannot leave a file here. Its message is in the exception.
    text = f"{type(error).__name__}: {error}"
    said = re.findall(rf"\b({'|'.join(kinds)}): (.+?)(?: \[while running .*)?$", text, re.MULTILINE)
    if said:
        name, sentence = said[-1]
        raise kinds[name](sentence) from None
    failed = re.match(r"Pipeline \S+ failed in state \w+: (.*)", str(error))  # the message of Beam's job services
    if failed and "Traceback" not in str(error):  # a traceback would come from an error in a task
        raise RunError(
            f"the engine has given up a job ({failed[1]}): check that its workers run, then give the same command "
            "again; finished work is kept"
        ) from None
    if type(error).__module__.partition(".")[0] == "grpc":  # the connection to the job service failed
        why = " ".join(error.details().split()) if hasattr(error, "details") else "no answer"
        raise RunError(
            f"the engine's job service has gone ({why}): check that it runs, then give the same command again; "
            "finished work is kept"
        ) from None
