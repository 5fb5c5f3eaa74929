"""The one shuffle: mappers cut packed blocks by key range, reducers get all blocks of a range.

A GroupByKey costs Python tens of microseconds an element, so its elements are whole blocks (Arrow or numpy bytes),
never pairs. On engines with a real shuffle the blocks themselves are grouped; on in-memory engines, which never spill,
each mapper's blocks stay in one file and only their places are grouped. Mapper and reducer are the same functions
either way, and a reducer gets its blocks in the order of the mappers' names, whatever order they arrived in.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.files import atomic_path
from manifests.ledger import Tally
from manifests.mirror import mirror_of
from manifests.storage import retry_storage
from pipeline.beam.receipts import read_receipt, receipt_path
from pipeline.beam.step import BLOCKS, Result, Task


@dataclass(frozen=True)
class Mapped:
    """A mapper's result: blocks by range number, counts by source, and facts for later steps."""

    blocks: Iterable[tuple[int, bytes]]
    tallies: dict[str, Tally] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


Place = tuple[str, str, str, int, int]  # mapper's name, file below the corpus, its hash's beginning, offset, length
Piece = tuple[str, bytes]  # mapper's name, block
ROW_BYTES = 24  # of a block file's index: range, offset and length of a block


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


def find_blocks(root: Path, task: Task) -> list[tuple[int, Place]]:
    """Return the blocks of a finished mapper, from the index at the end of its file."""
    receipt, mirror = read_receipt(root, task.step, task.name), mirror_of(root)
    if mirror is not None and (receipt is None or receipt.fingerprint != task.fingerprint):  # made by another machine
        mirror.fetch_anew(receipt_path(root, task.step, task.name).relative_to(root).as_posix())
        receipt = read_receipt(root, task.step, task.name)
    assert receipt is not None and receipt.fingerprint == task.fingerprint, "it was performed or found finished"
    (output,) = receipt.outputs
    mark = output.sha256[:16]
    rows = receipt.facts["blocks"]
    index = read_block(root, (task.name, output.path, mark, output.bytes - rows * ROW_BYTES, rows * ROW_BYTES))
    table = np.frombuffer(index, "<i8").reshape(-1, 3).tolist()
    return [(bucket, (task.name, output.path, mark, offset, length)) for bucket, offset, length in table]


def write_blocks(mapper: Callable[..., Mapped], step: str, corpus: Path, unit: str, /, **arguments: Any) -> Result:
    """Write a mapper's blocks to a file, and behind them their index: rows of range, offset and length."""
    path = f"{BLOCKS}/{step}/{unit}"
    mapped = mapper(corpus, unit, **arguments)
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
        if mirror is not None and not mirror.holds(path, mark):
            return mirror.storage.read_range(path, offset, length) if length else b""
        with (corpus / path).open("rb") as file:
            file.seek(offset)
            block = file.read(length)
        if len(block) < length:
            raise OSError(5, "the file is shorter than its receipt says", str(corpus / path))
        return block

    return retry_storage(read, f"stage {path.removeprefix(f'{BLOCKS}/').removesuffix(f'/{name}')}, {name}")
