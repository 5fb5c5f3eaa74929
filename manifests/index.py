"""The index of a corpus: finds the shard and row of a document or URL by binary search.

`index/` contains Arrow IPC files `ids-…` and `urls-…` with one record batch each. The columns are `key`, `shard` and
`row`; the rows are sorted by `key`, then `shard`, then `row`. A key has 64 bits: the first half of a document's id, or
the first 64 bits of the SHA-256 of a URL. `shard` is an index into the list of shard paths in the file's metadata. The
files of one kind and generation divide the 64-bit key space into equal ranges, so the file of a key follows from its
value. Keys may collide, so every entry found is compared with the columns of the shard before it is returned.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.errors import UserError
from filters.hashing import Keys, mix
from manifests.document import ID_BYTES
from manifests.files import atomic_path, unreadable
from manifests.mirror import fetch, place_of
from manifests.shard import Shard, open_shard_of, view_column

FORMAT = "teratoken-index-1"
FOLDER = "index"
KINDS = ("ids", "urls")
SCHEMA = pa.schema([("key", pa.uint64()), ("shard", pa.uint32()), ("row", pa.uint32())])
# Maximum average rows per file, at 16 bytes each 64 MiB. Files are of nearly equal size, unless one URL occurs so often
# that its entries alone fill a file.
PART_ROWS = 1 << 22
ENTRY = np.dtype([("key", "<u8"), ("shard", "<u4"), ("row", "<u4")])  # A row of the index in a shuffle: 16 bytes.

Entries = npt.NDArray[np.void]  # An array of dtype `ENTRY`.
Numbers = npt.NDArray[np.uint32]
_NAME = re.compile(r"(ids|urls)-(?:g([1-9][0-9]*)-)?([0-9]{5,})-of-([0-9]{5,})\.arrow")
_SPACE = 1 << 64


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """The location of a document: the path of a shard below `shards/`, and a row of this shard."""

    shard: str
    row: int


@dataclass(frozen=True, slots=True, order=True)
class PartName:
    """The name of an index file: file `number` of `parts` files of one kind and generation (0: the first run)."""

    kind: str
    generation: int
    parts: int
    number: int

    def __str__(self) -> str:
        mark = f"g{self.generation}-" if self.generation else ""
        return f"{self.kind}-{mark}{self.number:05d}-of-{self.parts:05d}.arrow"

    def covers(self, keys: Keys) -> bool:
        """Return True if all keys lie in the key range of this file. `keys` must be sorted."""
        return all(part_of(int(key), self.parts) == self.number for key in keys[[0, -1]]) if len(keys) else True


@dataclass(frozen=True, slots=True)
class Part:
    """An open index file.

    Attributes:
        keys: (n,) uint64, the keys in ascending order. Like `shards` and `rows` a view of a memory map.
        shards: (n,) uint32, indexes into `paths`.
        rows: (n,) uint32, rows of these shards.
        paths: the paths of shards below `shards/`.
    """

    name: PartName
    keys: Keys
    shards: Numbers
    rows: Numbers
    paths: tuple[str, ...]

    def find_range(self, low: int, high: int) -> slice:
        """Return the slice of the entries with keys from `low` to `high` inclusive."""
        start = int(np.searchsorted(self.keys, np.uint64(low)))
        return slice(start, int(np.searchsorted(self.keys, np.uint64(high), side="right")))

    def place(self, entry: int) -> Place:
        """Return the location that an entry refers to."""
        return Place(self.paths[int(self.shards[entry])], int(self.rows[entry]))


def id_keys(column: pa.Array) -> Keys:
    """Return the keys of a column of document ids: the first 8 bytes, big-endian, so that keys sort like ids."""
    raw = np.frombuffer(column.buffers()[1], ">u8", 2 * len(column), column.offset * ID_BYTES)
    return raw[::2].astype(np.uint64)


def url_key(url: str) -> int:
    """Return the key of a URL: the first 8 bytes, big-endian, of the SHA-256 of its UTF-8."""
    return int.from_bytes(hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def url_keys(column: pa.Array) -> tuple[Keys, Numbers]:
    """Return the keys of a column of URLs, and the row of each key. Rows without a URL have no key."""
    found = [(url_key(url), row) for row, url in enumerate(column.to_pylist()) if url]
    keys, rows = zip(*found, strict=True) if found else ((), ())
    return np.array(keys, np.uint64), np.array(rows, np.uint32)


def pack_entries(keys: Keys, shards: Numbers | int, rows: Numbers) -> Entries:
    """Return entries as one array of `ENTRY`."""
    packed: Entries = np.empty(len(keys), ENTRY)
    packed["key"], packed["shard"], packed["row"] = keys, shards, rows
    return packed


def checksum_entries(keys: Keys, shards: Numbers, rows: Numbers, count: int) -> npt.NDArray[np.uint64]:
    """Return the number of entries of each shard, and the sum of their hashes, as a (count, 2) uint64 array.

    The sum does not depend on the order of the entries, so an index can be compared with its shards in constant memory.
    The sum detects accidental damage. It is not secure against deliberate changes; the SHA-256 of the file is.

    Args:
        keys: (n,) uint64.
        shards: (n,) uint32, numbers below `count`.
        rows: (n,) uint32.
        count: the number of shards.
    """
    sums = np.zeros((count, 2), np.uint64)
    sums[:, 0] = np.bincount(shards, minlength=count)
    np.add.at(sums[:, 1], shards, mix(keys ^ mix(rows.astype(np.uint64) + np.uint64(1))))
    return sums


def count_parts(rows: int) -> int:
    """Return the number of files for a number of entries of one kind."""
    return max(1, -(-rows // PART_ROWS))


def part_of(key: int, parts: int) -> int:
    """Return the number of the file, of `parts` files, that contains a key.

    The ranges are those of `pipeline.beam.exchange.range_of`.
    """
    return (key >> 32) * parts >> 32


def parse_name(name: str) -> PartName | None:
    """Parse the name of an index file; return None for any other name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    kind, generation, number, parts = found.groups()
    parsed = PartName(kind, int(generation or 0), int(parts), int(number))
    return parsed if str(parsed) == name and parsed.number < parsed.parts else None


def write_part(folder: Path, name: PartName, packed: Entries, paths: Iterable[str]) -> Path:
    """Sort entries and write them as one index file.

    Args:
        folder: the folder `index/`.
        name: the name of the file.
        packed: the entries, in any order.
        paths: the paths of the shards to which the entries refer.

    Returns:
        The path of the file.
    """
    packed = packed[np.lexsort([packed["row"], packed["shard"], packed["key"]])]
    metadata = {"format": FORMAT, "shards": json.dumps(list(paths), ensure_ascii=False, separators=(",", ":"))}
    schema = SCHEMA.with_metadata(metadata)
    columns = [pa.array(np.ascontiguousarray(packed[column])) for column in SCHEMA.names]
    with atomic_path(folder / str(name)) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    return folder / str(name)


def open_part(path: Path) -> Part:
    """Memory-map an index file.

    Raises:
        OSError: the file is missing.
        pyarrow.ArrowInvalid: the file is not an index file.
    """
    name = parse_name(path.name)
    with pa.memory_map(str(path)) as mapped:
        reader = pa.ipc.open_file(mapped)
        metadata = reader.schema.metadata or {}
        if name is None or metadata.get(b"format") != FORMAT.encode() or not reader.schema.equals(SCHEMA):
            raise pa.ArrowInvalid(f"{path.name} is not an index file of format {FORMAT}")
        if reader.num_record_batches != 1:
            raise pa.ArrowInvalid(f"{path.name} has {reader.num_record_batches} record batches, not one")
        batch = reader.get_batch(0)
    keys, shards, rows = (view_column(batch.column(column)) for column in SCHEMA.names)
    try:
        paths = tuple(map(str, json.loads(metadata[b"shards"])))
    except (KeyError, ValueError, TypeError) as error:
        raise pa.ArrowInvalid(f"{path.name} has no list of shards") from error
    return Part(name, keys, shards, rows, paths)


class Index:
    """The index of a corpus. Each file is opened when it is first needed."""

    def __init__(self, corpus: Path, names: Iterable[str]) -> None:
        self.corpus = corpus
        self.groups: dict[tuple[str, int], int] = {}
        for name in map(parse_name, names):
            if name is not None:
                self.groups[name.kind, name.generation] = name.parts
        self._part = lru_cache(maxsize=64)(open_part)
        self._shard = lru_cache(maxsize=8)(open_shard_of)

    def find_id(self, document: bytes) -> Iterator[Place]:
        """Yield the locations of the document with an id. An undamaged corpus has at most one."""
        key = int.from_bytes(document[:8], "big")
        yield from self._confirm("ids", key, key, lambda row: bool(row["document"] == document))

    def find_prefix(self, digits: str) -> Iterator[Place]:
        """Yield the locations of all documents whose ids begin with a prefix.

        The locations are sorted by id within each generation. They are looked up lazily, so that a short prefix costs
        only as much as the locations that the caller consumes.

        Args:
            digits: 1 to 32 lower-case hexadecimal digits.
        """
        low, high = (int(digits[:16].ljust(16, fill), 16) for fill in "0f")
        yield from self._confirm("ids", low, high, lambda row: row["document"].hex().startswith(digits))

    def find_url(self, url: str) -> Iterator[Place]:
        """Yield the locations of all documents with exactly this URL, sorted by shard and row."""
        key = url_key(url)
        yield from self._confirm("urls", key, key, lambda row: bool(row["url"] == url))

    def candidates(self, kind: str, low: int, high: int) -> Iterator[Place]:
        """Yield the locations of entries with keys from `low` to `high` inclusive, without reading the shards."""
        for part in self.parts(kind, low, high):
            found = part.find_range(low, high)
            for entry in range(found.start, found.stop):
                if part.shards[entry] >= len(part.paths):
                    raise self._damaged(part.name, "it points to no shard")
                yield part.place(entry)

    def parts(self, kind: str, low: int = 0, high: int = _SPACE - 1) -> Iterator[Part]:
        """Yield the files of a kind that may contain keys from `low` to `high`, sorted by generation and key."""
        for (of_kind, generation), parts in sorted(self.groups.items()):
            if of_kind == kind:
                for number in range(part_of(low, parts), part_of(high, parts) + 1):
                    yield self.part(PartName(kind, generation, parts, number))

    def part(self, name: PartName) -> Part:
        """Open an index file, or return it from the cache. Raises UserError if it cannot be read."""
        try:
            return self._part(fetch(self.corpus, f"{FOLDER}/{name}"))
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(name, error) from error

    def shard(self, path: str) -> Shard:
        """Open a shard, given its path below `shards/`, or return it from the cache.

        Raises:
            UserError: the shard cannot be read.
        """
        return self._shard(self.corpus, path)

    def _damaged(self, name: PartName, why: object) -> UserError:
        return unreadable(f"{FOLDER}/{name}", why, f"run `python -m manifests verify {place_of(self.corpus)}`")

    def _confirm(self, kind: str, low: int, high: int, is_match: Callable[[dict[str, Any]], bool]) -> Iterator[Place]:
        """Yield the candidates whose row in the shard is a match."""
        for place in self.candidates(kind, low, high):
            shard = self.shard(place.shard)
            if place.row < shard.batch.num_rows and is_match(shard.row(place.row)):
                yield place
