"""Beam jobs: the units of steps that are not finished, in one job where the steps do not depend on each other.

A part of a job is a step, or a mapping and a reducing step with a shuffle between (`pipeline.beam.exchange`). A job has
one leaf, since some engines run a pipeline with two twice over: all units begin in one transform, and what they send to
reducers is grouped in one shuffle, by part and hash range.

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
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from manifests.files import canonical_json, write_atomic
from manifests.mirror import mirror_of
from manifests.storage import StorageError, retry_storage
from pipeline.beam import counters
from pipeline.beam.engines import Engine, workers_apart
from pipeline.beam.exchange import Piece, Place, find_blocks, read_block, write_blocks
from pipeline.beam.fold import fold, fold_receipts
from pipeline.beam.folded import tables_for
from pipeline.beam.progress import AND, Progress, ReceiptCounts
from pipeline.beam.receipts import in_order, is_finished, receipts, sweep, unfinished
from pipeline.beam.step import Receipts, Step, Task
from pipeline.beam.task import BEGUN, NOTICES, Job, perform
from pipeline.beam.tasklist import Group, TaskList, task_list

LOG = "workers.log"  # what worker processes write to their standard error
FOLDING = -1  # stands for the number of a part where groups of finished tasks are sent by table

Part = tuple[Step, ...]  # a step, or a mapping and a reducing one; unit number r of a reducing step takes range r
Made = tuple[Receipts, ...]  # the receipts of a part, by step
Result = TypeVar("Result")
Range = tuple[int, int]  # number of the part and of the range
Work = Generator[list[Part], list[Made], Result]
Perform = Callable[..., None]


@dataclass(frozen=True)
class SharedPart:
    """What all tasks of a part share.

    Attributes:
        mapping: of the step, or of the mappers.
        reducing: of the reducers, if there are any.
        reduces: the reducers still to run, by range.
        in_memory: True to group places of blocks, False to group the blocks.
    """

    mapping: Job
    reducing: Job | None
    reduces: dict[int, Task]
    in_memory: bool


class PlannedPart:
    """A part with its tasks, and the receipts of those that are finished."""

    def __init__(self, corpus: Path, part: Part) -> None:
        """Make the tasks, and look which are finished."""
        self.mapping, self.reducing = part[0], part[1] if len(part) > 1 else None
        self.maps = self.mapping.tasks()
        self.waiting, self.mapped = unfinished(corpus, self.mapping, self.maps)
        self.reduces = self.reducing.tasks(self.maps) if self.reducing else []
        self.left, self.reduced = unfinished(corpus, self.reducing, self.reduces) if self.reducing else ([], {})

    def share(self, corpus: Path, engine: Engine) -> SharedPart:
        """Return what all tasks share."""
        job = job_of(corpus, self.mapping, engine)
        if self.reducing is None:
            return SharedPart(job, None, {}, engine.in_memory)
        job = replace(job, function=partial(write_blocks, self.mapping.function, self.mapping.name))
        numbers = {task.name: number for number, task in enumerate(self.reduces)}
        reduces = {numbers[task.name]: task for task in self.left}
        return SharedPart(job, job_of(corpus, self.reducing, engine), reduces, engine.in_memory)

    def to_map(self) -> list[tuple[Task, bool]]:
        """Return the tasks of the mapping step that a job needs, each with whether it is still to run.

        Where a range is still to be reduced, these are all: finished ones have blocks to send, too.
        """
        again = {task.name: task for task in self.waiting}
        needed = self.maps if self.left else self.waiting
        return [(again.get(task.name, task), task.name in again) for task in needed]

    def finish(self, corpus: Path) -> Made:
        """Return the receipts of all tasks, by step, and remove what other tasks have left."""
        self.mapped |= receipts(corpus, self.waiting)
        self.reduced |= receipts(corpus, self.left)
        found: Made = (in_order(self.maps, self.mapped),)
        steps: tuple[Step, ...] = (self.mapping,)
        if self.reducing is not None:
            found, steps = (*found, in_order(self.reduces, self.reduced)), (*steps, self.reducing)
        for step, done in zip(steps, found, strict=True):
            if not step.shared:
                sweep(corpus, step, done)
        return found


def run_job(corpus: Path, parts: Sequence[Part], engine: Engine) -> tuple[list[Made], int]:
    """Run the units that are not finished of steps that do not depend on each other, as one Beam job with one leaf.

    Mappers' block files are resume points like any output, and finished ranges are not reduced again.

    Returns:
        The receipts of all units by name, for each step of each part; and how many units ran.

    Raises:
        UserError, StorageError, WorkerDiedError: with a sentence for the user.
    """
    planned = [PlannedPart(corpus, part) for part in parts]
    ran = [task for part in planned for task in (*part.waiting, *part.left)]
    if ran:
        import apache_beam as beam  # here, so that reading a receipt does not load it

        from pipeline.beam.spread import spread

        shared = [part.share(corpus, engine) for part in planned]
        tasks = [(number, *item) for number, part in enumerate(planned) for item in part.to_map()]
        tasks.sort(key=lambda one: (-one[1].size, one[1].name))  # the largest first, so that workers end together
        everything = [task for part in planned for task in (*part.maps, *part.reduces)]
        title = AND.join(part.mapping.name for part in planned if part.waiting or part.left)
        reduced = AND.join(part.reducing.name for part in planned if part.reducing and part.left)
        with (
            task_list(corpus, shared, tasks) as listed,
            watched(corpus, title, len(everything), ran, engine),
            engine.pipeline() as pipeline,
        ):
            pool = engine.pool_for([task for _, task, _ in tasks])
            produce, consume = partial(_produce, listed, perform), partial(_consume, listed, perform)
            groups = pipeline | beam.Create(listed.groups).with_output_types(Group)
            sent = groups | title >> spread(produce, pool).with_output_types(tuple[tuple[int, int], Place | Piece])
            if reduced or listed.tables:
                done = (
                    sent
                    | beam.GroupByKey()
                    | beam.MapTuple(lambda place, pieces: (place, list(pieces)))
                    | f"reduce {reduced}" >> spread(consume, pool).with_output_types(tuple[int, Range])
                )
                if _tables_of_ranges(shared):
                    fold(done, partial(_fold_ranges, listed), pool)
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


def _tables_of_ranges(parts: Iterable[SharedPart]) -> int:
    return tables_for(sum(len(part.reduces) for part in parts))


def _produce(listed: TaskList, perform: Perform, group: Group) -> Iterator[tuple[Range, Place | Piece]]:
    parts: list[SharedPart] = listed.read_shared()
    if group == (listed.first, group[1]):  # ranges that no mapper has a block for are reduced, to an empty result
        for number, part in enumerate(parts):
            yield from (((number, bucket), ("", b"")) for bucket in sorted(part.reduces))
    for number, task, is_waiting in listed.read_group(group):
        part, place_name = parts[number], f"stage {task.step}, {task.name}"
        root = Path(part.mapping.corpus)
        # An engine may call this again, as when a worker died; what is finished by then is not done again.
        if is_waiting and not retry_storage(partial(is_finished, root, task), place_name):
            perform(task, job=part.mapping)
        for bucket, place in retry_storage(partial(find_blocks, root, task), place_name) if part.reduces else ():
            if bucket in part.reduces:
                yield (number, bucket), place if part.in_memory else (task.name, read_block(root, place))
    if listed.tables:
        yield (FOLDING, listed.table_of(group)), ("", pickle.dumps(group))


def _consume(
    listed: TaskList, perform: Perform, sent: tuple[Range, Iterable[Place | Piece]]
) -> Iterator[tuple[int, Range]]:
    """Reduce a range, or fold the receipts of the groups that make a table."""
    (number, bucket), pieces = sent
    parts: list[SharedPart] = listed.read_shared()
    if number == FOLDING:
        groups = sorted(pickle.loads(piece[1]) for piece in pieces if len(piece) == 2)
        fold_receipts(Path(listed.corpus), [task for group in groups for _, task, _ in listed.read_group(group)])
        return
    part = parts[number]
    assert part.reducing is not None, "only reducers get blocks"
    root, ordered = Path(part.reducing.corpus), sorted(pieces, key=lambda piece: piece[0])
    blocks = [piece[1] if len(piece) == 2 else read_block(root, piece) for piece in ordered]
    perform(part.reduces[bucket], [block for block in blocks if block], job=part.reducing)
    tables = _tables_of_ranges(parts)
    if tables:
        yield bucket % tables, (number, bucket)


def _fold_ranges(listed: TaskList, table: tuple[int, Iterable[Range]]) -> None:
    """Fold the receipts of the ranges that make a table."""
    parts: list[SharedPart] = listed.read_shared()
    fold_receipts(Path(listed.corpus), [parts[number].reduces[bucket] for number, bucket in sorted(table[1])])


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
    names = ((task.step, task.name) for task in waiting)
    poll = counters.LIVE.read if engine.is_local else ReceiptCounts(corpus, names)
    marks = engine.timings / BEGUN
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
