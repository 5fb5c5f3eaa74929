"""The one shuffle: mappers cut packed blocks by key range, reducers get all blocks of a range.

A GroupByKey costs Python tens of microseconds an element, so its elements are whole blocks (Arrow or numpy bytes),
never pairs. On engines with a real shuffle the blocks themselves are grouped; on in-memory engines, which never spill,
each mapper's blocks stay in one file and only their places are grouped. Where even the places are too many, the blocks
of mappers with consecutive names are merged first, range by range. Mapper and reducer are the same functions in all
cases, and a reducer gets its blocks in the order of the mappers' names, whatever order they arrived in.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.files import atomic_path
from manifests.ledger import Tally
from manifests.mirror import mirror_of
from manifests.storage import retry_storage
from pipeline.beam.receipts import read_finished
from pipeline.beam.step import BLOCKS, Fingerprints, Result, Step, Task, Unit

MOST_PLACES = 1 << 18  # that a runner groups in memory: measured, some 900 bytes a place in the driver's process
MERGE_BYTES = 1 << 29  # of blocks that a merge holds at once
SPAN_BYTES = 1 << 26  # of blocks side by side that are read at once: of an object store, each read is a paid request


@dataclass(frozen=True)
class Mapped:
    """A mapper's result: blocks by range number, counts by source, and facts for later steps."""

    blocks: Iterable[tuple[int, bytes]]
    tallies: dict[str, Tally] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


Place = tuple[str, str, str, int, int]  # mapper's name, file below the corpus, its hash's beginning, offset, length
Piece = tuple[str, bytes]  # mapper's name, block
Row = tuple[int, ...]  # of a block file's index: range, offset and length of a block
ROW_BYTES = 24


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


def find_index(root: Path, task: Task) -> Place:
    """Return the place of the index at the end of a finished mapper's file. Raises StorageError."""

    def find() -> Place:
        receipt = read_finished(root, task)
        (output,) = receipt.outputs
        length = receipt.facts["blocks"] * ROW_BYTES
        return task.name, output.path, output.sha256[:16], output.bytes - length, length

    return retry_storage(find, f"stage {task.step}, {task.name}")


def find_blocks(root: Path, task: Task, ranges: Set[int], as_places: bool) -> Iterator[tuple[int, Place | Piece]]:
    """Yield what a finished mapper sends to some ranges: the places of its blocks, or the blocks with its name."""
    index = find_index(root, task)
    rows = [row for row in read_index(root, index) if row[0] in ranges]
    if as_places:
        yield from ((bucket, (*index[:3], offset, length)) for bucket, offset, length in rows)
    else:
        yield from ((bucket, (task.name, block)) for bucket, block in read_blocks(root, index, rows))


def read_index(root: Path, index: Place) -> list[Row]:
    """Return the rows of the index of a file of blocks, in the order of the blocks."""
    return [tuple(row) for row in np.frombuffer(read_block(root, index), "<i8").reshape(-1, 3).tolist()]


def read_blocks(root: Path, index: Place, rows: Sequence[Row]) -> Iterator[tuple[int, bytes]]:
    """Yield (range, block) of some rows of a file's index, reading neighbors together."""
    begin = 0
    for end in range(1, len(rows) + 1):
        first = rows[begin][1]
        if end == len(rows) or rows[end][1] + rows[end][2] - first > SPAN_BYTES:
            span = read_block(root, (*index[:3], first, rows[end - 1][1] + rows[end - 1][2] - first))
            for bucket, offset, length in rows[begin:end]:
                yield bucket, span[offset - first : offset - first + length]
            begin = end


def merge_step(mapping: Step, mappers: Fingerprints, ranges: int) -> Step | None:
    """Return the step that merges blocks of mappers with consecutive names; None if the places are few enough.

    A merge's blocks have the order of names, too, so that the merges of an exchange stand in for its mappers.
    """
    if len(mappers) * ranges <= MOST_PLACES:
        return None
    ordered, merges = sorted(mappers), max(1, MOST_PLACES // ranges)
    edges = [len(ordered) * number // merges for number in range(merges + 1)]
    units = [
        Unit(f"{number:06d}", {"first": ordered[start]}, [[name, mappers[name]] for name in ordered[start:end]])
        for number, (start, end) in enumerate(itertools.pairwise(edges))
        if start < end
    ]
    return Step(f"{mapping.name}-merge", merge_blocks, units)


def merge_blocks(root: Path, name: str, indexes: Iterable[Place], *, first: str) -> Mapped:
    """Merge the blocks of each range, in the order of the mappers' names.

    Args:
        root: the corpus.
        name: of the merge.
        indexes: places of the mappers' indexes.
        first: name of the first mapper, by which the job finds the merge of each mapper.
    """
    return Mapped(_merged(root, sorted(indexes)))


def _merged(root: Path, indexes: list[Place]) -> Iterator[tuple[int, bytes]]:
    tables = [read_index(root, index) for index in indexes]
    sizes: dict[int, int] = defaultdict(int)
    for bucket, _, length in itertools.chain(*tables):
        sizes[bucket] += length
    for group in cut_groups(sorted(sizes.items()), MERGE_BYTES):
        merged: dict[int, list[bytes]] = {bucket: [] for bucket in group}
        for index, table in zip(indexes, tables, strict=True):
            for bucket, block in read_blocks(root, index, [row for row in table if row[0] in merged]):
                merged[bucket].append(block)
        yield from ((bucket, pack_blocks(blocks)) for bucket, blocks in merged.items())


def cut_groups(sizes: Iterable[tuple[int, int]], limit: int) -> Iterator[list[int]]:
    """Yield the keys of consecutive (key, size) pairs, together within a limit where one alone is."""
    group, total = list[int](), 0
    for key, size in sizes:
        if group and total + size > limit:
            yield group
            group, total = [], 0
        group.append(key)
        total += size
    if group:
        yield group


def pack_blocks(blocks: Sequence[bytes]) -> bytes:
    """Return blocks as one: one behind the other, their lengths, and the number of them."""
    return b"".join([*blocks, np.array([*map(len, blocks), len(blocks)], "<i8").tobytes()])


def unpack_blocks(packed: bytes) -> list[bytes]:
    """Return the blocks that `pack_blocks` packed."""
    count = int(np.frombuffer(packed[-8:], "<i8")[0]) if packed else 0
    lengths = np.frombuffer(packed[len(packed) - 8 - 8 * count : len(packed) - 8], "<i8") if packed else ()
    return [packed[end - length : end] for end, length in zip(np.cumsum(lengths), lengths, strict=True)]


def write_blocks(
    mapper: Callable[..., Mapped], step: str, corpus: Path, unit: str, /, *received: Any, **arguments: Any
) -> Result:
    """Write a mapper's blocks to a file, and behind them their index: rows of range, offset and length."""
    path = f"{BLOCKS}/{step}/{unit}"
    mapped = mapper(corpus, unit, *received, **arguments)
    table, offset = [], 0
    with atomic_path(corpus / path) as temporary, temporary.open("wb") as file:
        for bucket, block in mapped.blocks:
            table.append([bucket, offset, len(block)])
            offset += file.write(block)
        file.write(np.array(table, "<i8").tobytes())
    return Result([path], mapped.tallies, {**mapped.facts, "blocks": len(table)}, shuffled=offset)


def read_block(corpus: Path, place: Place) -> bytes:
    """Return a block, from this machine or the store. Raises StorageError."""
    name, path, mark, offset, length = place
    mirror = mirror_of(corpus)

    def read() -> bytes:
        if mirror is not None and not mirror.has_copy(path, mark):
            return mirror.storage.read_range(path, offset, length) if length else b""
        with (corpus / path).open("rb") as file:
            file.seek(offset)
            block = file.read(length)
        if len(block) < length:
            raise OSError(5, "the file is shorter than its receipt says", str(corpus / path))
        return block

    return retry_storage(read, f"stage {path.removeprefix(f'{BLOCKS}/').removesuffix(f'/{name}')}, {name}")
