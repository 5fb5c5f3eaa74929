"""What workers do in a job, wave by wave: a wave begins when all tasks of the one before have ended.

A job has one chain of transforms, since some engines run a pipeline with two leaves twice over. Between two waves all
elements are grouped in one shuffle by where they go. An element says in which wave it is due, and is passed on until
then: a group of tasks; the blocks of a range for its reducer, or on a runner in memory their places; places of block
files for the merge of several mappers; tasks whose receipts are to be folded into tables (`pipeline.beam.receipts`).
"""

from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from manifests.storage import retry_storage
from pipeline.beam.exchange import BlockPlace, Piece, find_blocks, find_index, read_block, unpack_blocks
from pipeline.beam.receipts import count_tables, fold_receipts, is_finished
from pipeline.beam.step import Task
from pipeline.beam.task import Job
from pipeline.beam.tasklist import Group, TaskList

EMPTY_BLOCKS, TASKS, FOLD_GROUPS, FOLD_RANGES = -1, -2, -3, -4  # what an element is, where it is not for a part

Perform = Callable[..., None]
Key = tuple[int, int, int]  # wave; number of a part, or what else it is; number of a range, merge, group or table
Sent = tuple[Key, Any]
Grouped = tuple[Key, list[Any]]


@dataclass(frozen=True)
class SharedPart:
    """What all tasks of a part share.

    Attributes:
        begins: the wave of its tasks. Merges, if there are any, are in the next one, and reducers behind these.
        mapping: of the step, or of the mappers.
        reducing: of the reducers, if there are any.
        reduces: places in the task list of the reducers still to run, by range.
        in_memory: True to group places of blocks, False to group the blocks.
        merging: of the merges, if there are any.
        merges: tasks that merge the mappers' blocks, in the order of names.
    """

    begins: int
    mapping: Job
    reducing: Job | None = None
    reduces: dict[int, Group] = field(default_factory=dict)
    in_memory: bool = False
    merging: Job | None = None
    merges: Sequence[Task] = ()

    @property
    def ends(self) -> int:
        """The last wave that the part is at work in."""
        return self.begins + bool(self.merges) + bool(self.reduces)

    @cached_property
    def first_mappers(self) -> list[str]:
        """The name of each merge's first mapper."""
        return [task.arguments["first"] for task in self.merges]


def first_elements(parts: Sequence[SharedPart], groups: Iterable[tuple[int, Group]]) -> Iterator[Grouped]:
    """Yield the elements that a job begins with. `groups`: of tasks, each after the number of its part."""
    yield from (((part.begins, EMPTY_BLOCKS, number), [None]) for number, part in enumerate(parts) if part.reduces)
    yield from (
        ((parts[number].begins, TASKS, place), [(number, group)]) for place, (number, group) in enumerate(groups)
    )


def count_waves(listed: TaskList, parts: Iterable[SharedPart]) -> int:
    """Return the number of waves: with one more for the last receipts, if these are folded."""
    return max(part.ends for part in parts) + 1 + bool(listed.tables or _tables_of_ranges(parts))


def advance(listed: TaskList, perform: Perform, wave: int, element: Grouped) -> Iterator[Sent]:
    """Do what an element asks for, or pass it on, and yield what later waves get of it."""
    (due, number, place), values = element
    if due > wave:
        yield from (((due, number, place), value) for value in values)
        return
    parts: list[SharedPart] = listed.read_shared()
    if number == EMPTY_BLOCKS:
        yield from _send_nothing(parts[place], place)
    elif number == TASKS:
        for of, group in values:
            yield from _run_group(listed, perform, parts[of], of, group)
    elif number == FOLD_GROUPS:
        groups = [item for _, group in sorted(values) for item in listed.read(group)]
        _fold(listed, [task for task, is_waiting in groups if is_waiting])
    elif number == FOLD_RANGES:
        _fold(listed, [listed.read(parts[of].reduces[bucket]) for of, bucket in sorted(values)])
    elif wave < parts[number].ends:
        yield from _merge(perform, parts[number], number, place, values)
    else:
        _reduce(perform, parts[number], listed.read(parts[number].reduces[place]), values)
        if tables := _tables_of_ranges(parts):
            yield (wave + 1, FOLD_RANGES, place % tables), (number, place)


def _run_group(listed: TaskList, perform: Perform, part: SharedPart, number: int, group: Group) -> Iterator[Sent]:
    """Run a group of tasks, and send what mappers have for reducers to these, or its place to the mapper's merge."""
    for task, is_waiting in listed.read(group):
        if is_waiting:
            _perform_once(perform, part.mapping, task)
        if part.merges:
            merge = bisect(part.first_mappers, task.name) - 1
            yield (part.begins + 1, number, merge), find_index(Path(part.mapping.corpus), task)
        elif part.reduces:
            yield from _send_blocks(part, number, task)
    if listed.tables:
        yield (part.begins + 1, FOLD_GROUPS, listed.table_of(group)), (number, group)


def _merge(perform: Perform, part: SharedPart, number: int, merge: int, places: Sequence[BlockPlace]) -> Iterator[Sent]:
    """Run a merge, and send the places of its blocks to reducers."""
    assert part.merging is not None, "only merges get places of indexes"
    _perform_once(perform, part.merging, part.merges[merge], places)
    yield from _send_blocks(part, number, part.merges[merge])


def _reduce(perform: Perform, part: SharedPart, task: Task, pieces: Iterable[BlockPlace | Piece]) -> None:
    """Reduce a range."""
    assert part.reducing is not None, "only reducers get blocks"
    root, ordered = Path(part.reducing.corpus), sorted(pieces, key=lambda piece: piece[0])
    blocks = [piece[1] if len(piece) == 2 else read_block(root, piece) for piece in ordered]
    if part.merges:
        blocks = [block for merged in blocks for block in unpack_blocks(merged)]
    perform(task, [block for block in blocks if block], job=part.reducing)


def _tables_of_ranges(parts: Iterable[SharedPart]) -> int:
    return count_tables(sum(len(part.reduces) for part in parts))


def _fold(listed: TaskList, tasks: Sequence[Task]) -> None:
    """Fold the receipts of tasks into tables. Raises StorageError."""
    names = " and ".join(sorted({task.step for task in tasks}))
    retry_storage(partial(fold_receipts, Path(listed.corpus), tasks), f"stage {names}, receipts")


def _perform_once(perform: Perform, job: Job, task: Task, *received: Any) -> None:
    """Run a task unless it is finished: an engine may call again, as when a worker died."""
    if not retry_storage(partial(is_finished, Path(job.corpus), task), f"stage {task.step}, {task.name}"):
        perform(task, *received, job=job)


def _send_nothing(part: SharedPart, number: int) -> Iterator[Sent]:
    """Yield an empty block for each range: one that no mapper has a block for is reduced, to an empty result."""
    yield from (((part.ends, number, bucket), ("", b"")) for bucket in sorted(part.reduces))


def _send_blocks(part: SharedPart, number: int, task: Task) -> Iterator[Sent]:
    for bucket, sent in find_blocks(Path(part.mapping.corpus), task, part.reduces.keys(), part.in_memory):
        yield (part.ends, number, bucket), sent
