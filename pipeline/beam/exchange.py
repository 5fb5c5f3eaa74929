"""Shuffle data between mappers and reducers: a mapper returns one block per key range, a reducer gets all its blocks.

`GroupByKey` takes tens of microseconds per element in Python. So its elements are whole blocks (Arrow or numpy bytes)
instead of key-value pairs. How blocks reach the reducers depends on the engine:

- Engines with a shuffle that spills to disk group the blocks.
- In-memory engines never spill. Each mapper's blocks stay in one file, and only their locations are grouped.
- If an in-memory engine would group too many locations, the blocks of mappers with consecutive names are first merged,
  range by range.

Mappers and reducers are the same functions in all cases. A reducer gets its blocks in the order of the mappers' names,
independent of the order of their arrival.
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

# Most block locations that a runner groups in memory. Each takes about 900 bytes in the driver's process (measured).
MOST_PLACES = 1 << 18
MERGE_BYTES = 1 << 29  # Bytes of blocks that a merge holds in memory.
# Most bytes of adjacent blocks that are read together. In an object store, each read is a request that costs money.
SPAN_BYTES = 1 << 26


@dataclass(frozen=True)
class Mapped:
    """The return value of a mapper.

    Attributes:
        blocks: pairs of a range number and a block for the reducer of this range.
        tallies: a dict from source name to tally.
        facts: JSON values for later steps.
    """

    blocks: Iterable[tuple[int, bytes]]
    tallies: dict[str, Tally] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


# The location of a block: mapper's name, file below the corpus, first 16 digits of the file's hash, offset, length.
BlockPlace = tuple[str, str, str, int, int]
Piece = tuple[str, bytes]  # the name of the mapper, and a block
Row = tuple[int, ...]  # a row in the index of a block file: range, offset and length of a block
ROW_BYTES = 24  # three int64


def by_range(
    keys: npt.NDArray[np.uint64], packed: npt.NDArray[Any], ranges: int, first: int = 0
) -> Iterator[tuple[int, bytes]]:
    """Partition rows by key range, and yield (range number, block) for each range that has rows.

    The ranges divide the 64-bit space into equal parts.

    Args:
        keys: (rows,) keys.
        packed: (rows, …) rows. The size of a row is a multiple of 8 bytes.
        ranges: number of ranges.
        first: number of the first range.
    """
    buckets = range_of(keys, ranges)
    order = np.argsort(buckets.astype(np.uint16) if ranges < 1 << 16 else buckets, kind="stable")  # uint16: 10x faster
    edges = np.searchsorted(buckets[order], np.arange(ranges + 1))
    width = packed.nbytes // 8 // max(len(packed), 1)
    words = np.ascontiguousarray(packed).view(np.uint64).reshape(len(packed), width)
    rows = np.take(words, order, axis=0)  # 8x faster than indexing an array of structured rows
    for bucket in range(ranges):
        if edges[bucket] < edges[bucket + 1]:
            yield first + bucket, rows[edges[bucket] : edges[bucket + 1]].tobytes()


def by_split(
    places: npt.NDArray[np.int64], bits: int, packed: npt.NDArray[Any] | None = None
) -> Iterator[tuple[int, bytes]]:
    """Partition rows by split, and yield (split number, block) for each split that has rows.

    Args:
        places: (rows,) sorted values: split number << bits | row number in the split.
        bits: number of low bits that hold the row number.
        packed: (rows, …) the rows to send. The default is the row numbers, int64.
    """
    rows = places & ((1 << bits) - 1) if packed is None else packed
    for number, start, end in runs(places >> bits):
        yield number, rows[start:end].tobytes()


def runs(values: npt.NDArray[Any]) -> Iterator[tuple[int, int, int]]:
    """Yield (value, start, end) for each run of equal values in a sorted array."""
    if not len(values):
        return
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]).tolist()
    for start, end in itertools.pairwise([*starts, len(values)]):
        yield int(values[start]), start, end


def join_blocks(blocks: Iterable[bytes], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the rows of all blocks as one array."""
    return np.concatenate([np.empty(0, dtype), *(np.frombuffer(block, dtype) for block in blocks)])


def ranges_for(size: int, limit: int) -> int:
    """Return the smallest number of equal ranges so that each has at most `limit` of `size` bytes."""
    return max(1, -(-size // limit))


def range_of(keys: npt.NDArray[np.uint64], ranges: int) -> npt.NDArray[np.int64]:
    """Return the range number of each key, (keys,) int64, for `ranges` equal parts of the 64-bit space."""
    return ((keys >> np.uint64(32)) * np.uint64(ranges) >> np.uint64(32)).astype(np.int64)


def find_index(root: Path, task: Task) -> BlockPlace:
    """Return the location of the index, which is at the end of a finished mapper's file. Raises StorageError."""

    def find() -> BlockPlace:
        receipt = read_finished(root, task)
        (output,) = receipt.outputs
        length = receipt.facts["blocks"] * ROW_BYTES
        return task.name, output.path, output.sha256[:16], output.bytes - length, length

    return retry_storage(find, f"stage {task.step}, {task.name}")


def find_blocks(root: Path, task: Task, ranges: Set[int], as_places: bool) -> Iterator[tuple[int, BlockPlace | Piece]]:
    """Yield (range number, location or block) for the blocks of a finished mapper.

    Args:
        root: the corpus.
        task: the mapper's task.
        ranges: the ranges whose blocks are needed.
        as_places: yield the locations of the blocks; if False, yield pairs of the mapper's name and a block.
    """
    index = find_index(root, task)
    rows = [row for row in read_index(root, index) if row[0] in ranges]
    if as_places:
        yield from ((bucket, (*index[:3], offset, length)) for bucket, offset, length in rows)
    else:
        yield from ((bucket, (task.name, block)) for bucket, block in read_blocks(root, index, rows))


def read_index(root: Path, index: BlockPlace) -> list[Row]:
    """Read the index of a block file. Return one row per block: range, offset and length."""
    return [tuple(row) for row in np.frombuffer(read_block(root, index), "<i8").reshape(-1, 3).tolist()]


def read_blocks(root: Path, index: BlockPlace, rows: Sequence[Row]) -> Iterator[tuple[int, bytes]]:
    """Yield (range, block) for rows of a block file's index. Adjacent blocks are read together."""
    begin = 0
    for end in range(1, len(rows) + 1):
        first = rows[begin][1]
        if end == len(rows) or rows[end][1] + rows[end][2] - first > SPAN_BYTES:
            span = read_block(root, (*index[:3], first, rows[end - 1][1] + rows[end - 1][2] - first))
            for bucket, offset, length in rows[begin:end]:
                yield bucket, span[offset - first : offset - first + length]
            begin = end


def merge_step(mapping: Step, mappers: Fingerprints, ranges: int) -> Step | None:
    """Return the step that merges the blocks of mappers with consecutive names, or None if no merge is necessary.

    A merge is necessary if the locations of all blocks are too many for a runner that groups in memory. Merges keep
    the order of the mappers' names, so reducers can read the merges' blocks in place of the mappers' blocks.

    Args:
        mapping: the step of the mappers.
        mappers: fingerprints of the mappers.
        ranges: number of ranges.
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


def merge_blocks(root: Path, name: str, indexes: Iterable[BlockPlace], *, first: str) -> Mapped:
    """Merge the blocks of each range, in the order of the mappers' names.

    Args:
        root: the corpus.
        name: name of the merge; unused.
        indexes: locations of the indexes of the mappers' block files.
        first: name of the first mapper; unused here. The job reads it to find the merge of each mapper.
    """
    return Mapped(_merged(root, sorted(indexes)))


def _merged(root: Path, indexes: list[BlockPlace]) -> Iterator[tuple[int, bytes]]:
    """Yield (range number, merged block) for the block files with these indexes.

    The files are read once for each group of ranges, so that at most `MERGE_BYTES` of blocks are in memory.
    """
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
    """Cut (key, size) pairs into groups of consecutive pairs, and yield the keys of each group.

    The sizes of a group add up to at most `limit`, unless the group is a single pair that is larger.
    """
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
    """Concatenate blocks into one. Their lengths and their number follow at the end, as int64."""
    return b"".join([*blocks, np.array([*map(len, blocks), len(blocks)], "<i8").tobytes()])


def unpack_blocks(packed: bytes) -> list[bytes]:
    """Return the blocks that `pack_blocks` concatenated."""
    count = int(np.frombuffer(packed[-8:], "<i8")[0]) if packed else 0
    lengths = np.frombuffer(packed[len(packed) - 8 - 8 * count : len(packed) - 8], "<i8") if packed else ()
    return [packed[end - length : end] for end, length in zip(np.cumsum(lengths), lengths, strict=True)]


def write_blocks(
    mapper: Callable[..., Mapped], step: str, corpus: Path, unit: str, /, *received: Any, **arguments: Any
) -> Result:
    """Run a mapper and write its blocks to a file.

    At the end of the file is an index with one row of int64 per block: range, offset and length.

    Args:
        mapper: the mapping function.
        step: name of the step.
        corpus: the corpus.
        unit: name of the unit.
        received: positional arguments for the mapper, after the name of the unit.
        arguments: keyword arguments for the mapper.
    """
    path = f"{BLOCKS}/{step}/{unit}"
    mapped = mapper(corpus, unit, *received, **arguments)
    table, offset = [], 0
    with atomic_path(corpus / path) as temporary, temporary.open("wb") as file:
        for bucket, block in mapped.blocks:
            table.append([bucket, offset, len(block)])
            offset += file.write(block)
        file.write(np.array(table, "<i8").tobytes())
    return Result([path], mapped.tallies, {**mapped.facts, "blocks": len(table)}, shuffled=offset)


def read_block(corpus: Path, place: BlockPlace) -> bytes:
    """Read a block from this machine's disk or from the object store. Raises StorageError."""
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
