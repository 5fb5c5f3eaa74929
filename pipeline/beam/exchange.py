"""The one shuffle: mappers cut packed blocks by key range, reducers get all blocks of a range.

A GroupByKey costs Python tens of microseconds an element, so its elements are whole blocks (Arrow or numpy bytes),
never pairs. On engines with a real shuffle the blocks themselves are grouped; on in-memory engines, which never spill,
each mapper's blocks stay in one file and only their places are grouped. Mapper and reducer are the same functions
either way, and a reducer gets its blocks in the order of the mappers' names, whatever order they arrived in.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.files import atomic_path
from manifests.ledger import Tally
from pipeline.beam.engines import Engine
from pipeline.beam.task import (
    BLOCKS,
    Job,
    Receipts,
    Result,
    Step,
    Task,
    is_finished,
    job_of,
    perform,
    read_receipt,
    receipts,
    retry_storage,
    sweep,
    unfinished,
    watched,
)


@dataclass(frozen=True)
class Mapped:
    """A mapper's result: blocks by range number, counts by source, and facts for later steps."""

    blocks: Iterable[tuple[int, bytes]]
    tallies: dict[str, Tally] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


Place = tuple[str, str, int, int]  # mapper's name, file below the corpus, offset, length
Piece = tuple[str, bytes]  # mapper's name, block


def by_range(
    keys: npt.NDArray[np.uint64], packed: npt.NDArray[Any], ranges: int, first: int = 0
) -> Iterator[tuple[int, bytes]]:
    """Yield packed rows cut by their keys into equal parts of the 64-bit space; parts without a row are left out.

    Args:
        keys: (rows,) keys.
        packed: (rows, …) rows of whole 64-bit words.
        ranges: number of parts.
        first: number of the first part.
    """
    buckets = range_of(keys, ranges)
    order = np.argsort(buckets.astype(np.uint16) if ranges < 1 << 16 else buckets, kind="stable")  # a tenth of the time
    edges = np.searchsorted(buckets[order], np.arange(ranges + 1))
    width = packed.nbytes // 8 // max(len(packed), 1)
    words = np.ascontiguousarray(packed).view(np.uint64).reshape(len(packed), width)
    rows = np.take(words, order, axis=0)  # an eighth of the time that numpy takes to pick structured rows
    for bucket in range(ranges):
        if edges[bucket] < edges[bucket + 1]:
            yield first + bucket, rows[edges[bucket] : edges[bucket + 1]].tobytes()


def by_split(
    places: npt.NDArray[np.int64], bits: int, packed: npt.NDArray[Any] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Yield rows by the split that their places name.

    Args:
        places: (rows,) sorted places: split number << bits | row of the split.
        bits: of a place that number the row.
        packed: (rows, …) the rows to send; by default the row numbers, int64.
    """
    rows = places & ((1 << bits) - 1) if packed is None else packed
    for number, start, end in runs(places >> bits):
        yield number, rows[start:end].tobytes()


def runs(values: npt.NDArray[Any]) -> Iterator[tuple[int, int, int]]:
    """Yield (value, start, end) of each run of equal values of a sorted array."""
    if not len(values):
        return
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]).tolist()
    for start, end in itertools.pairwise([*starts, len(values)]):
        yield int(values[start]), start, end


def join_blocks(blocks: Iterable[bytes], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the rows of all blocks as one array."""
    return np.concatenate([np.empty(0, dtype), *(np.frombuffer(block, dtype) for block in blocks)])


def ranges_for(size: int, limit: int) -> int:
    """Return the number of ranges that keep one range's share of `size` bytes within `limit`."""
    return max(1, -(-size // limit))


def range_of(keys: npt.NDArray[np.uint64], ranges: int) -> npt.NDArray[np.int64]:
    """Return the number of each key's range: one of `ranges` equal parts of the 64-bit space."""
    return ((keys >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)).astype(np.int64)


def run_exchange(corpus: Path, mapping: Step, reducing: Step, engine: Engine) -> tuple[Receipts, Receipts, int]:
    """Run one exchange as one Beam job with one leaf; the reducing step's unit number r takes range r.

    Mappers' block files are resume points like any output, and finished ranges are not reduced again.

    Returns:
        The receipts of mappers and of reducers by name, and how many units ran.

    Raises:
        UserError, StorageError, WorkerDiedError: with a sentence for the user.
    """
    maps = mapping.tasks()
    reduces = reducing.tasks(maps)
    waiting = unfinished(corpus, maps)
    ranges = {r for r, task in enumerate(reduces) if not is_finished(corpus, task)}
    left = unfinished(corpus, [reduces[r] for r in sorted(ranges)])
    if waiting or left:
        import apache_beam as beam  # here, so that reading a receipt does not load it

        from pipeline.beam.spread import spread

        map_job = replace(
            job_of(corpus, mapping, engine), function=partial(_write_blocks, mapping.function, mapping.name)
        )
        first = min(task.name for task in maps)
        produce = partial(_produce, job=map_job, ranges=ranges, in_memory=engine.in_memory, first=first)
        consume = partial(_consume, job=job_of(corpus, reducing, engine), reduces=reduces)
        with watched(corpus, [*maps, *reduces], [*waiting, *left], engine), engine.pipeline() as pipeline:
            pool = engine.pool_for(maps)
            _ = (
                pipeline
                | beam.Create(maps).with_output_types(Task)
                | mapping.name >> spread(produce, pool).with_output_types(tuple[int, Place | Piece])
                | beam.GroupByKey()
                | beam.MapTuple(lambda bucket, pieces: (bucket, list(pieces)))
                | reducing.name >> spread(consume, pool).with_output_types(type(None))
            )
    found = receipts(corpus, maps), receipts(corpus, reduces)
    for step, done in zip((mapping, reducing), found, strict=True):
        if not step.shared:
            sweep(corpus, step, done)
    return *found, len(waiting) + len(left)


def _produce(
    task: Task, job: Job, ranges: set[int], in_memory: bool, first: str
) -> Iterator[tuple[int, Place | Piece]]:
    root = Path(job.corpus)
    if task.name == first:  # a range that no mapper has a block for is reduced all the same, to an empty result
        yield from ((bucket, (task.name, b"")) for bucket in sorted(ranges))
    place_name = f"stage {task.step}, {task.name}"
    if not retry_storage(partial(is_finished, root, task), place_name):
        perform(task, job=job)
    receipt = retry_storage(partial(read_receipt, root, task.step, task.name), place_name)
    assert receipt is not None, "written just above"
    (output,) = receipt.outputs
    for bucket, offset, length in receipt.facts["blocks"]:
        if bucket in ranges:
            place = (task.name, output.path, offset, length)
            yield bucket, place if in_memory else (task.name, _read(root, place))


def _write_blocks(mapper: Callable[..., Mapped], step: str, corpus: Path, unit: str, /, **arguments: Any) -> Result:
    path = f"{BLOCKS}/{step}/{unit}"
    mapped = mapper(corpus, unit, **arguments)
    table, offset = [], 0
    with atomic_path(corpus / path) as temporary, temporary.open("wb") as file:
        for bucket, block in mapped.blocks:
            table.append([bucket, offset, len(block)])
            offset += file.write(block)
    return Result([path], mapped.tallies, {**mapped.facts, "blocks": table}, shuffled=offset)


def _consume(group: tuple[int, Iterable[Place | Piece]], job: Job, reduces: list[Task]) -> None:
    bucket, pieces = group
    root, ordered = Path(job.corpus), sorted(pieces, key=lambda piece: piece[0])
    blocks = [piece[1] if len(piece) == 2 else _read(root, piece) for piece in ordered]
    perform(reduces[bucket], [block for block in blocks if block], job=job)


def _read(corpus: Path, place: Place) -> bytes:
    name, path, offset, length = place

    def read() -> bytes:
        with (corpus / path).open("rb") as file:
            file.seek(offset)
            block = file.read(length)
        if len(block) < length:
            raise OSError(5, "the file is shorter than its receipt says", str(corpus / path))
        return block

    return retry_storage(read, f"stage {path.removeprefix(f'{BLOCKS}/').removesuffix(f'/{name}')}, {name}")
