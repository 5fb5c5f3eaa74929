"""Process the elements of a Beam job in workers, wave by wave.

A wave begins when all tasks of the previous wave have ended. A job is one chain of transforms, because some engines
run a pipeline with two leaves twice. There is one transform per wave, and one `GroupByKey` between two waves. The key
of an element contains the wave in which it is processed. Earlier waves emit the element again, unchanged. The values of
an element are one of the following:

- groups of tasks to run;
- the blocks of a range, for its reducer, or the locations of these blocks on a runner that groups in memory;
- the locations of the indexes of block files, for a task that merges the blocks of several mappers;
- references to tasks whose receipts are folded into tables (`pipeline.beam.receipts`).
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

EMPTY_BLOCKS, TASKS, FOLD_GROUPS, FOLD_RANGES = -1, -2, -3, -4  # kinds of elements that are not for one part

Perform = Callable[..., None]
# Wave; number of a part, or the kind of the element; number of a range, merge, part, group or table.
Key = tuple[int, int, int]
Sent = tuple[Key, Any]  # an element before it is grouped, with one value
Grouped = tuple[Key, list[Any]]  # an element with all values of its key


@dataclass(frozen=True)
class SharedPart:
    """The values that all tasks of a part of a job share.

    Attributes:
        first_wave: the wave of the part's first tasks. Merges follow in the next wave, if there are any. Reducers
            follow in the wave after the mappers or merges.
        mapping: the job of the step, or of the mappers of an exchange.
        reducing: the job of the reducers; None if there are none.
        reducer_tasks: from range number to the location of the reducer's task in the task list, for the reducers that
            have not finished.
        in_memory: True if the runner groups the locations of blocks, False if it groups the blocks.
        merging: the job of the merges; None if there are none.
        merge_tasks: tasks that merge the mappers' blocks, in the order of the mappers' names.
    """

    first_wave: int
    mapping: Job
    reducing: Job | None = None
    reducer_tasks: dict[int, Group] = field(default_factory=dict)
    in_memory: bool = False
    merging: Job | None = None
    merge_tasks: Sequence[Task] = ()

    @property
    def last_wave(self) -> int:
        """The wave of the part's last tasks."""
        return self.first_wave + bool(self.merge_tasks) + bool(self.reducer_tasks)

    @cached_property
    def first_mappers(self) -> list[str]:
        """The name of each merge's first mapper."""
        return [task.arguments["first"] for task in self.merge_tasks]


def first_elements(parts: Sequence[SharedPart], groups: Iterable[tuple[int, Group]]) -> Iterator[Grouped]:
    """Yield the elements that are the input of a job.

    Args:
        parts: the parts of the job.
        groups: pairs of the number of a part and a group of its tasks.
    """
    yield from (
        ((part.first_wave, EMPTY_BLOCKS, number), [None]) for number, part in enumerate(parts) if part.reducer_tasks
    )
    yield from (
        ((parts[number].first_wave, TASKS, place), [(number, group)]) for place, (number, group) in enumerate(groups)
    )


def count_waves(listed: TaskList, parts: Iterable[SharedPart]) -> int:
    """Return the number of waves. If receipts are folded, the last wave folds the receipts of the last tasks."""
    return max(part.last_wave for part in parts) + 1 + bool(listed.tables or _tables_of_ranges(parts))


def process_element(listed: TaskList, perform: Perform, wave: int, element: Grouped) -> Iterator[Sent]:
    """Process an element in its wave, and yield elements for later waves. In earlier waves, yield it unchanged.

    Args:
        listed: the task list of the job.
        perform: `pipeline.beam.task.perform`, which runs a task.
        wave: number of the current wave.
        element: key and values.
    """
    (due, number, place), values = element
    if due > wave:
        yield from (((due, number, place), value) for value in values)
        return
    parts: list[SharedPart] = listed.read_shared()
    if number == EMPTY_BLOCKS:
        yield from _send_nothing(parts[place], place)
    elif number == TASKS:
        for part_number, group in values:
            yield from _run_group(listed, perform, parts[part_number], part_number, group)
    elif number == FOLD_GROUPS:
        groups = [item for _, group in sorted(values) for item in listed.read(group)]
        _fold(listed, [task for task, is_waiting in groups if is_waiting])
    elif number == FOLD_RANGES:
        locations = [parts[part_number].reducer_tasks[bucket] for part_number, bucket in sorted(values)]
        _fold(listed, [listed.read(location) for location in locations])
    elif wave < parts[number].last_wave:
        yield from _merge(perform, parts[number], number, place, values)
    else:
        _reduce(perform, parts[number], listed.read(parts[number].reducer_tasks[place]), values)
        if tables := _tables_of_ranges(parts):
            yield (wave + 1, FOLD_RANGES, place % tables), (number, place)


def _run_group(listed: TaskList, perform: Perform, part: SharedPart, number: int, group: Group) -> Iterator[Sent]:
    """Run the tasks of a group that have not finished.

    Yields:
        For mappers: elements with their blocks, or the locations of the blocks, for the reducers. If blocks are merged
        first: the location of each mapper's index, for its merge. If receipts are folded: an element for their table.
    """
    for task, is_waiting in listed.read(group):
        if is_waiting:
            _perform_once(perform, part.mapping, task)
        if part.merge_tasks:
            merge = bisect(part.first_mappers, task.name) - 1
            yield (part.first_wave + 1, number, merge), find_index(Path(part.mapping.corpus), task)
        elif part.reducer_tasks:
            yield from _send_blocks(part, number, task)
    if listed.tables:
        yield (part.first_wave + 1, FOLD_GROUPS, listed.table_of(group)), (number, group)


def _merge(perform: Perform, part: SharedPart, number: int, merge: int, places: Sequence[BlockPlace]) -> Iterator[Sent]:
    """Run a task that merges blocks, and yield the locations of its blocks for the reducers."""
    assert part.merging is not None, "only merges get places of indexes"
    _perform_once(perform, part.merging, part.merge_tasks[merge], places)
    yield from _send_blocks(part, number, part.merge_tasks[merge])


def _reduce(perform: Perform, part: SharedPart, task: Task, pieces: Iterable[BlockPlace | Piece]) -> None:
    """Run the reducer of a range, with its blocks in the order of the mappers' names."""
    assert part.reducing is not None, "only reducers get blocks"
    root, ordered = Path(part.reducing.corpus), sorted(pieces, key=lambda piece: piece[0])
    blocks = [piece[1] if len(piece) == 2 else read_block(root, piece) for piece in ordered]
    if part.merge_tasks:
        blocks = [block for merged in blocks for block in unpack_blocks(merged)]
    perform(task, [block for block in blocks if block], job=part.reducing)


def _tables_of_ranges(parts: Iterable[SharedPart]) -> int:
    """Return the number of tables for the receipts of all reducers; 0 if there are few."""
    return count_tables(sum(len(part.reducer_tasks) for part in parts))


def _fold(listed: TaskList, tasks: Sequence[Task]) -> None:
    """Write tables with the receipts of tasks. Raises StorageError."""
    names = " and ".join(sorted({task.step for task in tasks}))
    retry_storage(partial(fold_receipts, Path(listed.corpus), tasks), f"stage {names}, receipts")


def _perform_once(perform: Perform, job: Job, task: Task, *received: Any) -> None:
    """Run a task unless it is finished. An engine may process an element again, for example if a worker died."""
    if not retry_storage(partial(is_finished, Path(job.corpus), task), f"stage {task.step}, {task.name}"):
        perform(task, *received, job=job)


def _send_nothing(part: SharedPart, number: int) -> Iterator[Sent]:
    """Yield an empty block for each range, so that a range for which no mapper has a block also gets its reducer."""
    yield from (((part.last_wave, number, bucket), ("", b"")) for bucket in sorted(part.reducer_tasks))


def _send_blocks(part: SharedPart, number: int, task: Task) -> Iterator[Sent]:
    """Yield the blocks of a finished mapper or merge, or their locations, for the reducers that have not finished."""
    for bucket, sent in find_blocks(Path(part.mapping.corpus), task, part.reducer_tasks.keys(), part.in_memory):
        yield (part.last_wave, number, bucket), sent
