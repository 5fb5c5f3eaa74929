"""The one shuffle: mappers cut packed blocks by key range, reducers get all blocks of a range.

A GroupByKey costs Python tens of microseconds an element, so its elements are whole blocks (Arrow or numpy bytes),
never pairs. On engines with a real shuffle the blocks themselves are grouped; on in-memory engines, which never spill,
each mapper's blocks stay in one file and only their places are grouped. Mapper and reducer are the same functions
either way, and a reducer gets its blocks in the order of the mappers' names, whatever order they arrived in.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from manifests.files import atomic_path
from manifests.ledger import Tally
from pipeline.beam.engines import Engine
from pipeline.beam.task import Result, Task, finished, perform, read_receipt, unfinished, watched

BLOCKS = "blocks"


@dataclass(frozen=True)
class Mapped:
    """What a mapper gives: blocks by range number, what it counted, and facts for later stages."""

    blocks: Iterable[tuple[int, bytes]]
    tallies: dict[str, Tally]
    facts: dict[str, Any]


Mapper = Callable[[Path, dict[str, Any], Task], Mapped]
Reducer = Callable[[Path, dict[str, Any], Task, list[bytes]], Result]

Place = tuple[str, str, int, int]
"""mapper's name, file below the corpus, offset, length"""
Piece = tuple[str, bytes]
"""mapper's name, block"""


def by_range(
    keys: npt.NDArray[np.uint64], packed: npt.NDArray[Any], ranges: int, first: int = 0
) -> Iterator[tuple[int, bytes]]:
    """Cut packed rows (of whole 64-bit words) by their keys into `ranges` equal parts of the 64-bit space, numbered
    from `first`; parts without a row are left out."""
    buckets = range_of(keys, ranges)
    order = np.argsort(buckets.astype(np.uint16) if ranges < 1 << 16 else buckets, kind="stable")  # a tenth of the time
    edges = np.searchsorted(buckets[order], np.arange(ranges + 1))
    width = packed.nbytes // 8 // max(len(packed), 1)
    words = np.ascontiguousarray(packed).view(np.uint64).reshape(len(packed), width)
    rows = np.take(words, order, axis=0)  # an eighth of the time that numpy takes to pick structured rows
    for bucket in range(ranges):
        if edges[bucket] < edges[bucket + 1]:
            yield first + bucket, rows[edges[bucket] : edges[bucket + 1]].tobytes()


def range_of(keys: npt.NDArray[np.uint64], ranges: int) -> npt.NDArray[np.int64]:
    """Which of so many equal parts of the 64-bit space each key is in."""
    return ((keys >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)).astype(np.int64)


def run_exchange(
    corpus: Path,
    settings: dict[str, Any],
    maps: list[Task],
    mapper: Mapper,
    reduces: list[Task],
    reducer: Reducer,
    engine: Engine,
) -> int:
    """Run one exchange as one Beam job with one leaf; `reduces[r]` takes range r. Gives how many tasks ran.

    Mappers' block files are resume points like any output, and finished ranges are not reduced again.
    """
    waiting = unfinished(corpus, maps)
    ranges = {r for r, task in enumerate(reduces) if not finished(corpus, task)}
    left = unfinished(corpus, [reduces[r] for r in sorted(ranges)])
    if not waiting and not ranges:
        return 0
    common: dict[str, Any] = {"corpus": str(corpus), "settings": settings, "timings": str(engine.timings)}
    first = min(task.name for task in maps)
    produce = partial(_produce, mapper=mapper, ranges=ranges, in_memory=engine.in_memory, first=first, **common)
    consume = partial(_consume, reducer=reducer, reduces=reduces, **common)
    with watched(corpus, [*maps, *reduces], [*waiting, *left], engine), engine.pipeline(maps) as pipeline:
        _ = (
            pipeline
            | beam.Create(maps).with_output_types(Task)
            | "map" >> beam.FlatMap(produce).with_output_types(tuple[int, Place | Piece])
            | beam.GroupByKey()
            | "reduce" >> beam.Map(consume).with_output_types(type(None))
        )
    return len(waiting) + len(left)


def _produce(
    task: Task,
    corpus: str,
    settings: dict[str, Any],
    timings: str,
    mapper: Mapper,
    ranges: set[int],
    in_memory: bool,
    first: str,
) -> Iterator[tuple[int, Place | Piece]]:
    root = Path(corpus)
    if task.name == first:  # a range that no mapper has a block for is reduced all the same, to an empty result
        yield from ((bucket, (task.name, b"")) for bucket in sorted(ranges))
    if not finished(root, task):
        perform(task, corpus, settings, partial(_write_blocks, mapper=mapper), timings)
    receipt = read_receipt(root, task.stage, task.name)
    assert receipt is not None, "written just above"
    (output,) = receipt.outputs
    for bucket, offset, length in receipt.facts["blocks"]:
        if bucket in ranges:
            place = (task.name, output.path, offset, length)
            yield bucket, place if in_memory else (task.name, _read(root, place))


def _write_blocks(corpus: Path, settings: dict[str, Any], task: Task, mapper: Mapper) -> Result:
    path = f"{BLOCKS}/{task.stage}/{task.name}"
    mapped = mapper(corpus, settings, task)
    table, offset = [], 0
    with atomic_path(corpus / path) as temporary, temporary.open("wb") as file:
        for bucket, block in mapped.blocks:
            table.append([bucket, offset, len(block)])
            offset += file.write(block)
    return Result([path], mapped.tallies, {**mapped.facts, "blocks": table}, shuffled=offset)


def _consume(
    group: tuple[int, Iterable[Place | Piece]],
    corpus: str,
    settings: dict[str, Any],
    timings: str,
    reducer: Reducer,
    reduces: list[Task],
) -> None:
    bucket, pieces = group
    root = Path(corpus)
    ordered = sorted(pieces, key=lambda piece: piece[0])
    blocks = [piece[1] if len(piece) == 2 else _read(root, piece) for piece in ordered]
    blocks = [block for block in blocks if block]
    perform(reduces[bucket], corpus, settings, partial(_reduce, reducer=reducer, blocks=blocks), timings)


def _reduce(corpus: Path, settings: dict[str, Any], task: Task, reducer: Reducer, blocks: list[bytes]) -> Result:
    return reducer(corpus, settings, task, blocks)


def _read(corpus: Path, place: Place) -> bytes:
    _, path, offset, length = place
    with (corpus / path).open("rb") as file:
        file.seek(offset)
        return file.read(length)
