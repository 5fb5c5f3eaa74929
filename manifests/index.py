"""The index of a corpus: the shard and row of a document or URL, found by binary search.

`index/` holds Arrow IPC files of one record batch, `ids-…` and `urls-…`, with the columns `key`, `shard` and `row`,
sorted by them in this order. A key is 64 bits: the first half of a document's id, or of the SHA-256 of a URL. `shard`
is a place in the list of paths that the file's metadata holds. The files of one kind and generation cut the 64-bit
space into equal parts, so a key's file follows from its value. Keys may collide, so every entry found is compared with
the shard's own columns before it is returned.
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
PART_ROWS = 1 << 22  # average rows of a file: 64 MiB; parts are even, except for a URL that fills one by itself
ENTRY = np.dtype([("key", "<u8"), ("shard", "<u4"), ("row", "<u4")])  # a row in a shuffle: 16 bytes

Entries = npt.NDArray[np.void]  # an array of `ENTRY`
Numbers = npt.NDArray[np.uint32]
_NAME = re.compile(r"(ids|urls)-(?:g([1-9][0-9]*)-)?([0-9]{5,})-of-([0-9]{5,})\.arrow")
_SPACE = 1 << 64


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """The place of a document: a shard's path below `shards/`, and a row of it."""

    shard: str
    row: int


@dataclass(frozen=True, slots=True, order=True)
class PartName:
    """The name of an index file: part `number` of `parts` of a kind and a generation (0: the first run)."""

    kind: str
    generation: int
    parts: int
    number: int

    def __str__(self) -> str:
        mark = f"g{self.generation}-" if self.generation else ""
        return f"{self.kind}-{mark}{self.number:05d}-of-{self.parts:05d}.arrow"

    def holds(self, keys: Keys) -> bool:
        """Return True if all keys, which are sorted, lie in this part of the 64-bit space."""
        return all(part_of(int(key), self.parts) == self.number for key in keys[[0, -1]]) if len(keys) else True


@dataclass(frozen=True, slots=True)
class Part:
    """An open index file. Its columns are views of a memory map, one value per entry."""

    name: PartName
    keys: Keys
    shards: Numbers  # places in `paths`
    rows: Numbers
    paths: tuple[str, ...]

    def between(self, low: int, high: int) -> slice:
        """Return the range of the entries with keys from `low` to `high` inclusive."""
        start = int(np.searchsorted(self.keys, np.uint64(low)))
        return slice(start, int(np.searchsorted(self.keys, np.uint64(high), side="right")))

    def place(self, entry: int) -> Place:
        """Return the place that an entry points to."""
        return Place(self.paths[int(self.shards[entry])], int(self.rows[entry]))


def id_keys(column: pa.Array) -> Keys:
    """Return the keys of a column of document ids: their first 8 bytes, big-endian, so that they sort as ids."""
    raw = np.frombuffer(column.buffers()[1], ">u8", 2 * len(column), column.offset * ID_BYTES)
    return raw[::2].astype(np.uint64)


def url_key(url: str) -> int:
    """Return the key of a URL: the first 8 bytes, big-endian, of the SHA-256 of its UTF-8."""
    return int.from_bytes(hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def url_keys(column: pa.Array) -> tuple[Keys, Numbers]:
    """Return the keys of a column of URLs and their rows; documents without a URL have no key."""
    found = [(url_key(url), row) for row, url in enumerate(column.to_pylist()) if url]
    keys, rows = zip(*found, strict=True) if found else ((), ())
    return np.array(keys, np.uint64), np.array(rows, np.uint32)


def pack_entries(keys: Keys, shards: Numbers | int, rows: Numbers) -> Entries:
    """Return entries as one array of `ENTRY`."""
    packed: Entries = np.empty(len(keys), ENTRY)
    packed["key"], packed["shard"], packed["row"] = keys, shards, rows
    return packed


def checksum_entries(keys: Keys, shards: Numbers, rows: Numbers, count: int) -> npt.NDArray[np.uint64]:
    """Return (count, 2) uint64: for each of `count` shards, the number of its entries and the sum of their hashes.

    Equal sets of entries have equal sums in any order, so an index is compared with its shards in constant memory. The
    sums are no proof against intent; sha256 is.
    """
    sums = np.zeros((count, 2), np.uint64)
    sums[:, 0] = np.bincount(shards, minlength=count)
    np.add.at(sums[:, 1], shards, mix(keys ^ mix(rows.astype(np.uint64) + np.uint64(1))))
    return sums


def count_parts(rows: int) -> int:
    """Return the number of files for the entries of a kind; it depends on their number alone."""
    return max(1, -(-rows // PART_ROWS))


def part_of(key: int, parts: int) -> int:
    """Return the file of a key, of `parts`: as `pipeline.beam.exchange.range_of` cuts the 64-bit space."""
    return (key >> 32) * parts >> 32


def parse_name(name: str) -> PartName | None:
    """Return the parsed name of an index file; None if it is no such name."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    kind, generation, number, parts = found.groups()
    parsed = PartName(kind, int(generation or 0), int(parts), int(number))
    return parsed if str(parsed) == name and parsed.number < parsed.parts else None


def write_part(folder: Path, name: PartName, packed: Entries, paths: Iterable[str]) -> Path:
    """Sort entries, given in any order, and write them as one file of `index/`; `paths`: the shards they refer to."""
    packed = packed[np.lexsort([packed["row"], packed["shard"], packed["key"]])]
    metadata = {"format": FORMAT, "shards": json.dumps(list(paths), ensure_ascii=False, separators=(",", ":"))}
    schema = SCHEMA.with_metadata(metadata)
    columns = [pa.array(np.ascontiguousarray(packed[column])) for column in SCHEMA.names]
    with atomic_path(folder / str(name)) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    return folder / str(name)


def open_part(path: Path) -> Part:
    """Memory-map an index file. Raises OSError when it is missing, pyarrow.ArrowInvalid when it is no index file."""
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
    """The index of a corpus; its files are opened when first needed."""

    def __init__(self, corpus: Path, names: Iterable[str]) -> None:
        self.corpus = corpus
        self.groups: dict[tuple[str, int], int] = {}
        for name in map(parse_name, names):
            if name is not None:
                self.groups[name.kind, name.generation] = name.parts
        self._part = lru_cache(maxsize=64)(open_part)
        self._shard = lru_cache(maxsize=8)(open_shard_of)

    def find_id(self, document: bytes) -> Iterator[Place]:
        """Yield the places of the document with an id (at most one in a sound corpus)."""
        key = int.from_bytes(document[:8], "big")
        yield from self._confirm("ids", key, key, lambda row: bool(row["document"] == document))

    def find_prefix(self, digits: str) -> Iterator[Place]:
        """Yield the places of all documents whose ids begin with these lower-case hexadecimal digits (1 to 32).

        They come in the order of their ids within each generation, found one by one: the cost of a short beginning is
        that of the places the caller takes.
        """
        low, high = (int(digits[:16].ljust(16, fill), 16) for fill in "0f")
        yield from self._confirm("ids", low, high, lambda row: row["document"].hex().startswith(digits))

    def find_url(self, url: str) -> Iterator[Place]:
        """Yield the places of all documents with exactly this URL, in the order of shards and rows."""
        key = url_key(url)
        yield from self._confirm("urls", key, key, lambda row: bool(row["url"] == url))

    def candidates(self, kind: str, low: int, high: int) -> Iterator[Place]:
        """Yield the places of entries with keys from `low` to `high` inclusive, not yet compared with the shards."""
        for part in self.parts(kind, low, high):
            found = part.between(low, high)
            for entry in range(found.start, found.stop):
                if part.shards[entry] >= len(part.paths):
                    raise self._damaged(part.name, "it points to no shard")
                yield part.place(entry)

    def parts(self, kind: str, low: int = 0, high: int = _SPACE - 1) -> Iterator[Part]:
        """Yield the files of a kind that may hold keys from `low` to `high`, by generation, in the order of keys."""
        for (of_kind, generation), parts in sorted(self.groups.items()):
            if of_kind == kind:
                for number in range(part_of(low, parts), part_of(high, parts) + 1):
                    yield self.part(PartName(kind, generation, parts, number))

    def part(self, name: PartName) -> Part:
        """Return an open file. Raises UserError when it cannot be read."""
        try:
            return self._part(fetch(self.corpus, f"{FOLDER}/{name}"))
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(name, error) from error

    def shard(self, path: str) -> Shard:
        """Return an open shard, given its path below `shards/`. Raises UserError when it cannot be read."""
        return self._shard(self.corpus, path)

    def _damaged(self, name: PartName, why: object) -> UserError:
        return unreadable(f"{FOLDER}/{name}", why, f"run `python -m manifests verify {place_of(self.corpus)}`")

    def _confirm(self, kind: str, low: int, high: int, meant: Callable[[dict[str, Any]], bool]) -> Iterator[Place]:
        for place in self.candidates(kind, low, high):
            shard = self.shard(place.shard)
            if place.row < shard.batch.num_rows and meant(shard.row(place.row)):
                yield place
