"""Beam jobs: the units of steps that are not finished, in one job where the steps do not depend on each other.

A part of a job is a step, or a mapping and a reducing step with a shuffle between (`pipeline.beam.exchange`). A job has
one leaf, since some engines run a pipeline with two twice over: all units begin in one transform, and what they send to
reducers is grouped in one shuffle, by part and hash range; on a runner in memory after one more by merge, where a part
has too many blocks. The receipts of a large job go the same way to be folded into tables (`pipeline.beam.folded`).

Work in several steps is a generator that yields the parts that it wants next, and is sent their receipts. Work that
does not depend on other work is advanced side by side (`together`), so that it shares jobs: on a remote engine each job
costs minutes, however small it is.
"""

import contextlib
import json
import pickle
import re
import time
import uuid
from bisect import bisect
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from manifests.files import canonical_json, write_atomic
from manifests.mirror import mirror_of
from manifests.storage import StorageError, retry_storage
from pipeline.beam import counters
from pipeline.beam.engines import Engine, workers_apart
from pipeline.beam.exchange import (
    Piece,
    Place,
    find_blocks,
    find_index,
    merge_step,
    read_block,
    unpack_blocks,
    write_blocks,
)
from pipeline.beam.folded import tables_for
from pipeline.beam.marks import BEGUN, Marks
from pipeline.beam.progress import AND, Progress, ReceiptCounts
from pipeline.beam.receipts import Sizes, fold_receipts, in_order, is_finished, receipts, sweep, unfinished
from pipeline.beam.step import Receipt, Receipts, Step, Task
from pipeline.beam.task import NOTICES, Job, perform
from pipeline.beam.tasklist import Group, TaskList, task_list

LOG = "workers.log"  # what worker processes write to their standard error
FOLDING = -1  # in place of the number of a part: what is sent names a group of tasks whose receipts are folded

Part = tuple[Step, ...]  # a step, or a mapping and a reducing one; unit number r of a reducing step takes range r
Made = tuple[Receipts, ...]  # the receipts of a part, by step
Result = TypeVar("Result")
Work = Generator[list[Part], list[Made], Result]
Perform = Callable[..., None]
Sent = tuple[tuple[int, int], Place | Piece]  # number of the part and of the range, or of the merge; what it gets
Grouped = tuple[tuple[int, int], list[Place | Piece]]
Reduced = tuple[int, tuple[int, int]]  # number of a table; number of the part and of the range


@dataclass(frozen=True)
class SharedPart:
    """What all tasks of a part share.

    Attributes:
        mapping: of the step, or of the mappers.
        reducing: of the reducers, if there are any.
        reduces: the reducers still to run, by range, pickled: each worker process holds them all and needs few.
        in_memory: True to group places of blocks, False to group the blocks.
        merging: of the merges, if there are any.
        merges: tasks that merge the mappers' blocks, in the order of names.
    """

    mapping: Job
    reducing: Job | None = None
    reduces: dict[int, bytes] = field(default_factory=dict)
    in_memory: bool = False
    merging: Job | None = None
    merges: Sequence[Task] = ()

    @cached_property
    def firsts(self) -> list[str]:
        """The name of each merge's first mapper."""
        return [task.arguments["first"] for task in self.merges]


class PlannedPart:
    """A part with its tasks, and the receipts of those that are finished."""

    def __init__(self, corpus: Path, part: Part, in_memory: bool) -> None:
        """Make the tasks, and look which are finished; `in_memory`: the runner groups places of blocks."""
        self.mapping, self.reducing = part[0], part[1] if len(part) > 1 else None
        self.maps = self.mapping.tasks()
        self.sizes = [Sizes(corpus, step.folders) for step in part]
        self.waiting, self.mapped = unfinished(corpus, self.mapping, self.maps, self.sizes[0])
        self.reduces = self.reducing.tasks(self.maps) if self.reducing else []
        self.left, self.reduced = list[Task](), dict[str, Receipt]()
        if self.reducing is not None:
            self.left, self.reduced = unfinished(corpus, self.reducing, self.reduces, self.sizes[1])
        self.in_memory = in_memory
        self.merging = merge_step(self.mapping, self.maps, len(self.reduces)) if in_memory else None
        self.merges = self.merging.tasks() if self.merging and self.left else []
        self.unmerged = unfinished(corpus, self.merging, self.merges)[0] if self.merging else []

    def share(self, corpus: Path, engine: Engine) -> SharedPart:
        """Return what all tasks share."""
        job = job_of(corpus, self.mapping, engine)
        if self.reducing is None:
            return SharedPart(job)
        numbers = {task.name: number for number, task in enumerate(self.reduces)}
        complete = _completer(corpus, self.reducing)
        reduces = {numbers[task.name]: pickle.dumps(complete(task)) for task in self.left}
        shared = SharedPart(_writing(job, self.mapping), job_of(corpus, self.reducing, engine), reduces, self.in_memory)
        if self.merging is None:
            return shared
        merging = _writing(job_of(corpus, self.merging, engine), self.merging)
        return replace(shared, merging=merging, merges=self.merges)

    def to_map(self) -> list[tuple[Task, bool]]:
        """Return the tasks of the mapping step that a job needs, each with whether it is still to run.

        Where a range is still to be reduced, these are all: finished ones have blocks to send, too.
        """
        again = {task.name for task in self.waiting}
        return [(task, task.name in again) for task in (self.maps if self.left else self.waiting)]

    def finish(self, corpus: Path) -> Made:
        """Return the receipts of all tasks, by step, and remove what other tasks have left."""
        found = list[Receipts]()
        maps = (self.mapping, self.maps, self.waiting, self.mapped)
        reduces = (self.reducing, self.reduces, self.left, self.reduced)
        for (step, tasks, ran, held), sizes in zip((maps, reduces), self.sizes, strict=False):
            if step is not None:
                done = in_order(tasks, {**held, **receipts(corpus, ran)})
                if not step.shared:
                    sweep(corpus, step, done, None if ran else sizes)
                found.append(done)
        if self.merging is not None:
            sweep(corpus, self.merging, {})  # their readers have finished
        return tuple(found)


def _completer(corpus: Path, step: Step) -> Callable[[Task], Task]:
    """Return a function that adds to tasks the files that they fetch; of a corpus of this machine they fetch none."""
    return step.completer() if mirror_of(corpus) is not None else lambda task: task


def _writing(job: Job, step: Step) -> Job:
    """Return a mapping step's job with its blocks written to a file."""
    return replace(job, function=partial(write_blocks, step.function, step.name))


def run_job(corpus: Path, parts: Sequence[Part], engine: Engine) -> tuple[list[Made], int]:
    """Run the units that are not finished of steps that do not depend on each other, as one Beam job with one leaf.

    Mappers' block files are resume points like any output, and finished ranges are not reduced again.

    Returns:
        The receipts of all units by name, for each step of each part; and how many units ran.

    Raises:
        UserError, StorageError, WorkerDiedError: with a sentence for the user.
    """
    planned = [PlannedPart(corpus, part, engine.in_memory) for part in parts]
    ran = [task for part in planned for task in (*part.waiting, *part.unmerged, *part.left)]
    if ran:
        shared = [part.share(corpus, engine) for part in planned]
        tasks = [(number, *item) for number, part in enumerate(planned) for item in part.to_map()]
        tasks.sort(key=lambda one: (-one[1].size, one[1].name))  # the largest first, so that workers end together
        completers = [_completer(corpus, part.mapping) for part in planned]

        def complete(item: tuple[int, Task, bool]) -> tuple[int, Task, bool]:
            number, task, is_waiting = item
            return number, completers[number](task) if is_waiting else task, is_waiting

        total = sum(len(tasks) for part in planned for tasks in (part.maps, part.merges, part.reduces))
        title = AND.join(part.mapping.name for part in planned if part.waiting or part.left)
        reduced = AND.join(part.reducing.name for part in planned if part.reducing and part.left)
        with (
            task_list(corpus, shared, tasks, complete, sum(len(part.waiting) for part in planned)) as listed,
            watched(corpus, title, total, ran, engine),
        ):
            pool = engine.pool_for([task for _, task, _ in tasks])
            import apache_beam as beam  # here, so that reading a receipt does not load it

            from pipeline.beam.spread import spread

            def call(function: Callable[..., Any], gives: Any) -> beam.PTransform:
                return spread(partial(function, listed, perform), pool).with_output_types(gives)

            with engine.pipeline() as pipeline:
                groups = pipeline | beam.Create(listed.groups).with_output_types(Group)
                sent = groups | title >> call(_produce, Sent)
                if reduced or listed.tables:
                    sent = sent | beam.GroupByKey() | "by range" >> beam.MapTuple(_list_pieces)
                    if any(part.merges for part in planned):
                        merged = sent | f"merge {title}" >> call(_merge, Sent) | "merged" >> beam.GroupByKey()
                        sent = merged | "by merged range" >> beam.MapTuple(_list_pieces)
                    done = sent | f"reduce {reduced or 'nothing'}" >> call(_consume, Reduced)
                    if _tables_of_ranges(shared):
                        _ = done | "by table" >> beam.GroupByKey() | "fold" >> call(_fold_ranges, type(None))
    engine.check()
    return [part.finish(corpus) for part in planned], len(ran)


def run_step(corpus: Path, step: Step, engine: Engine) -> tuple[Receipts, int]:
    """Run one step; see `run_job`."""
    [(found,)], ran = run_job(corpus, [(step,)], engine)
    return found, ran


def run_exchange(corpus: Path, mapping: Step, reducing: Step, engine: Engine) -> tuple[Receipts, Receipts, int]:
    """Run one exchange; see `run_job`."""
    [(mapped, reduced)], ran = run_job(corpus, [(mapping, reducing)], engine)
    return mapped, reduced, ran


def run_units(step: Step) -> Work[Receipts]:
    """Run a step whose units do not talk to each other, and return its receipts by unit."""
    [(found,)] = yield [(step,)]
    return found


def exchange(mapping: Step, reducing: Step) -> Work[tuple[Receipts, Receipts]]:
    """Run a step whose mappers send blocks to reducers, and return the receipts of both by unit."""
    [(mapped, reduced)] = yield [(mapping, reducing)]
    return mapped, reduced


def together(*works: Work[Any]) -> Work[list[Any]]:
    """Advance works that do not depend on each other, the next steps of all in one job, and return their results."""
    results: list[Any] = [None] * len(works)
    asked: dict[int, list[Part]] = {}

    def advance(number: int, made: list[Made] | None) -> None:
        try:
            asked[number] = next(works[number]) if made is None else works[number].send(made)
        except StopIteration as end:
            results[number] = end.value
            asked.pop(number, None)

    for number in range(len(works)):
        advance(number, None)
    while asked:
        found = iter((yield [part for parts in asked.values() for part in parts]))
        for number, parts in list(asked.items()):
            advance(number, list(islice(found, len(parts))))
    return results


def finish(work: Work[Result], run: Callable[[Sequence[Part]], list[Made]]) -> Result:
    """Run the parts that work asks for until it ends, and return its result."""
    try:
        parts = next(work)
        while True:
            parts = work.send(run(parts))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def _produce(listed: TaskList, perform: Perform, group: Group) -> Iterator[Sent]:
    """Run a group of tasks, and send what mappers have for reducers to these, or its place to the mapper's merge."""
    parts: list[SharedPart] = listed.read_shared()
    if group == (listed.first, group[1]):
        for number, part in enumerate(parts):
            yield from () if part.merges else _send_nothing(number, part)
    for number, task, is_waiting in listed.read_group(group):
        part = parts[number]
        if is_waiting:
            _perform_once(perform, part.mapping, task)
        if part.merges:
            yield (number, bisect(part.firsts, task.name) - 1), find_index(Path(part.mapping.corpus), task)
        elif part.reduces:
            yield from _send_blocks(number, part, task)
    if listed.tables:
        yield (FOLDING, listed.table_of(group)), ("", pickle.dumps(group))


def _merge(listed: TaskList, perform: Perform, group: Grouped) -> Iterator[Sent]:
    """Run a merge and send its blocks' places to reducers; pass on what is for reducers already."""
    (number, key), places = group
    part: SharedPart = listed.read_shared()[number]
    if number == FOLDING or part.merging is None:
        yield from (((number, key), place) for place in places)
        return
    if key == 0:
        yield from _send_nothing(number, part)
    _perform_once(perform, part.merging, part.merges[key], places)
    yield from _send_blocks(number, part, part.merges[key])


def _consume(listed: TaskList, perform: Perform, group: Grouped) -> Iterator[Reduced]:
    """Reduce a range, or fold the receipts of the groups of tasks that make a table."""
    (number, bucket), pieces = group
    parts: list[SharedPart] = listed.read_shared()
    if number == FOLDING:
        groups = sorted(pickle.loads(piece[1]) for piece in pieces if isinstance(piece[1], bytes))
        tasks = [item for group in groups for item in listed.read_group(group)]
        _fold(listed, [task for _, task, is_waiting in tasks if is_waiting])
        return
    part = parts[number]
    assert part.reducing is not None, "only reducers get blocks"
    root, ordered = Path(part.reducing.corpus), sorted(pieces, key=lambda piece: piece[0])
    blocks = [piece[1] if len(piece) == 2 else read_block(root, piece) for piece in ordered]
    if part.merges:
        blocks = [block for merged in blocks for block in unpack_blocks(merged)]
    perform(pickle.loads(part.reduces[bucket]), [block for block in blocks if block], job=part.reducing)
    if tables := _tables_of_ranges(parts):
        yield bucket % tables, (number, bucket)


def _tables_of_ranges(parts: Iterable[SharedPart]) -> int:
    return tables_for(sum(len(part.reduces) for part in parts))


def _fold_ranges(listed: TaskList, perform: Perform, table: tuple[int, Iterable[tuple[int, int]]]) -> None:
    """Fold the receipts of the ranges that make a table."""
    parts: list[SharedPart] = listed.read_shared()
    _fold(listed, [pickle.loads(parts[number].reduces[bucket]) for number, bucket in sorted(table[1])])


def _fold(listed: TaskList, tasks: Sequence[Task]) -> None:
    """Fold the receipts of tasks into tables. Raises StorageError."""
    names = " and ".join(sorted({task.step for task in tasks}))
    retry_storage(partial(fold_receipts, Path(listed.corpus), tasks), f"stage {names}, receipts")


def _perform_once(perform: Perform, job: Job, task: Task, *received: Any) -> None:
    """Run a task unless it is finished: an engine may call again, as when a worker died."""
    if not retry_storage(partial(is_finished, Path(job.corpus), task), f"stage {task.step}, {task.name}"):
        perform(task, *received, job=job)


def _send_nothing(number: int, part: SharedPart) -> Iterator[Sent]:
    """Yield an empty block for each range: one that no mapper has a block for is reduced, to an empty result."""
    yield from (((number, bucket), ("", b"")) for bucket in sorted(part.reduces))


def _send_blocks(number: int, part: SharedPart, task: Task) -> Iterator[Sent]:
    for bucket, sent in find_blocks(Path(part.mapping.corpus), task, part.reduces.keys(), part.in_memory):
        yield (number, bucket), sent


def _list_pieces(key: tuple[int, int], pieces: Iterable[Place | Piece]) -> Grouped:
    return key, list(pieces)


def job_of(corpus: Path, step: Step, engine: Engine) -> Job:
    """Return what all tasks of a step share."""
    mirror = mirror_of(corpus)
    url = mirror.storage.url if mirror is not None else ""
    settings, by_source = dict(step.settings), dict(step.by_source)
    return Job(str(corpus), url, engine.given, str(engine.timings), step.function, settings, by_source)


@contextlib.contextmanager
def watched(corpus: Path, title: str, total: int, waiting: Sequence[Task], engine: Engine) -> Iterator[None]:
    """Show progress over the waiting tasks while the block runs, and turn what ends it into a sentence for the user.

    Raises:
        UserError, StorageError: a worker said so, whatever the engine wrapped it in.
        WorkerDiedError: a worker process died; it names the tasks in flight.
    """
    for notice in NOTICES.values():
        (engine.timings / notice).unlink(missing_ok=True)
    begun, done = time.perf_counter(), total - len(waiting)
    counters.LIVE.clear()
    poll = counters.LIVE.read if engine.is_local else ReceiptCounts(corpus, waiting)
    marks = Marks(engine.timings / BEGUN, None if engine.is_local else mirror_of(corpus))
    try:
        with (
            workers_apart(engine.timings / LOG) as terminal,
            Progress(title, done, len(waiting), poll, marks, engine.status, terminal, engine.quiet),
        ):
            yield
        job = {"job": title, "tasks": len(waiting), "seconds": time.perf_counter() - begun}
        write_atomic(engine.timings / f"{uuid.uuid4().hex}.json", canonical_json(job))
    except BaseException as error:
        died = engine.pool.died() if "BrokenProcessPool" in repr(error) else None
        engine.pool.stop()
        if died is not None:
            left = [json.loads(path.read_bytes()) for path in (engine.timings / BEGUN).glob("*.json")]
            names = sorted(f"{mark['step']} {mark['task']}" for mark in left)
            raise type(died)(
                f"{died} while at work on {' and '.join(names) or title}: give the same command "
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
