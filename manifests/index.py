"""The index of a corpus: in which shard and row a document or URL is, found with a few probes and no scan.

`index/` holds Arrow IPC files of one record batch, `ids-…` and `urls-…`, with the columns `key`, `shard` and `row`,
sorted by them in this order. A key is 64 bits: the first half of a document's id, or of the SHA-256 of a URL. `shard`
is a place in the list of paths that the file's metadata holds. The files of one kind and generation cut the 64-bit
space into equal parts, so a key's file follows from its value. Keys may collide and hashes are no proof: what is found
here is held against the shard's own columns before anyone is told of it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.errors import UserError
from manifests.document import ID_BYTES
from manifests.files import atomic_path
from manifests.manifest import load_manifest
from manifests.shard import Shard, open_shard

FORMAT = "teratoken-index-1"
FOLDER = "index"
KINDS = ("ids", "urls")
SCHEMA = pa.schema([("key", pa.uint64()), ("shard", pa.uint32()), ("row", pa.uint32())])
PART_ROWS = 1 << 22
"""rows of a file, on average: 64 MiB. Keys are hashes, so the parts are even, but for a URL that fills one by itself"""
ENTRY = np.dtype([("key", "<u8"), ("shard", "<u4"), ("row", "<u4")])
"""a row as it travels: 16 bytes"""

Entries = npt.NDArray[np.void]
"""an array of `ENTRY`"""
_NAME = re.compile(r"(ids|urls)-(?:g([1-9][0-9]*)-)?([0-9]{5,})-of-([0-9]{5,})\.arrow")
_SPACE = 1 << 64


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a document lies: a shard's path below `shards/`, and its row there."""

    shard: str
    row: int


@dataclass(frozen=True, slots=True, order=True)
class PartName:
    """What the name of an index file says: part `number` of `parts` of a kind (one of `KINDS`) and a generation (0 for
    what the first run wrote)."""

    kind: str
    generation: int
    parts: int
    number: int

    def __str__(self) -> str:
        mark = f"g{self.generation}-" if self.generation else ""
        return f"{self.kind}-{mark}{self.number:05d}-of-{self.parts:05d}.arrow"

    def holds(self, keys: npt.NDArray[np.uint64]) -> bool:
        """Whether all keys lie in this part of the 64-bit space."""
        return not len(keys) or (part_of(int(keys[0]), self.parts) == self.number == part_of(int(keys[-1]), self.parts))


@dataclass(frozen=True, slots=True)
class Part:
    """An open index file, memory-mapped. `keys` uint64, `shards` and `rows` uint32: views of it, one value an entry;
    `shards` are places in `paths`."""

    name: PartName
    keys: npt.NDArray[np.uint64]
    shards: npt.NDArray[np.uint32]
    rows: npt.NDArray[np.uint32]
    paths: tuple[str, ...]

    def packed(self, start: int, stop: int) -> Entries:
        """Entries `start` to `stop` as they travel: a copy."""
        found = entries(self.keys[start:stop], 0, self.rows[start:stop])
        found["shard"] = self.shards[start:stop]
        return found

    def place(self, entry: int) -> Place:
        """Where an entry points."""
        return Place(self.paths[int(self.shards[entry])], int(self.rows[entry]))


def id_keys(column: pa.Array) -> npt.NDArray[np.uint64]:
    """The keys of a column of 16-byte document ids: their first 8 bytes, big-endian, so that keys sort as ids do."""
    raw = np.frombuffer(column.buffers()[1], ">u8", 2 * len(column), column.offset * ID_BYTES)
    return raw[::2].astype(np.uint64)


def url_key(url: str) -> int:
    """The key of a URL: the first 8 bytes, big-endian, of the SHA-256 of its UTF-8, exactly as the shard has it."""
    return int.from_bytes(hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def url_keys(column: pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """The keys of a column of URLs, and the rows of those that are one: a document without URL has no entry."""
    found = [(url_key(url), row) for row, url in enumerate(column.to_pylist()) if url]
    keys, rows = zip(*found, strict=True) if found else ((), ())
    return np.array(keys, np.uint64), np.array(rows, np.uint32)


def entries(keys: npt.NDArray[np.uint64], shard: int, rows: npt.NDArray[np.uint32]) -> Entries:
    """The entries of one shard, as they travel."""
    packed: Entries = np.empty(len(keys), ENTRY)
    packed["key"], packed["shard"], packed["row"] = keys, shard, rows
    return packed


def sums(packed: Entries, shards: int) -> npt.NDArray[np.uint64]:
    """By shard, how many entries it has and a sum of hashes of them, (shards, 2): equal for equal sets of entries in
    whatever order, so that an index is held against its shards in flat memory. No proof against intent: hashes are."""
    found = np.zeros((shards, 2), np.uint64)
    np.add.at(found[:, 0], packed["shard"], np.uint64(1))
    np.add.at(found[:, 1], packed["shard"], _mix(packed["key"] ^ _mix(packed["row"].astype(np.uint64) + np.uint64(1))))
    return found


def parts_for(rows: int) -> int:
    """How many files so many entries of a kind are cut into: follows from the data alone."""
    return max(1, -(-rows // PART_ROWS))


def part_of(key: int, parts: int) -> int:
    """In which of so many files a key is: as `pipeline.beam.exchange.range_of` cuts the 64-bit space."""
    return (key >> 32) * parts >> 32


def parse_name(name: str) -> PartName | None:
    """What an index file's name says; None if it is not the name of one."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    kind, generation, number, parts = found.groups()
    said = PartName(kind, int(generation or 0), int(parts), int(number))
    return said if str(said) == name and said.number < said.parts else None


def write_part(folder: Path, name: PartName, packed: Entries, paths: Iterable[str]) -> Path:
    """Write entries, in whatever order they come, as one file of `index/`, sorted; `paths`: what `shard` counts in."""
    packed = packed[np.lexsort([packed["row"], packed["shard"], packed["key"]])]
    metadata = {"format": FORMAT, "shards": json.dumps(list(paths), ensure_ascii=False, separators=(",", ":"))}
    schema = SCHEMA.with_metadata(metadata)
    columns = [pa.array(np.ascontiguousarray(packed[column])) for column in SCHEMA.names]
    with atomic_path(folder / str(name)) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    return folder / str(name)


def open_part(path: Path) -> Part:
    """Memory-map an index file. Raises OSError when it is missing and pyarrow.ArrowInvalid when it is none."""
    name = parse_name(path.name)
    with pa.memory_map(str(path)) as mapped:
        reader = pa.ipc.open_file(mapped)
        metadata = reader.schema.metadata or {}
        if name is None or metadata.get(b"format") != FORMAT.encode() or not reader.schema.equals(SCHEMA):
            raise pa.ArrowInvalid(f"{path.name} is not an index file of format {FORMAT}")
        if reader.num_record_batches != 1:
            raise pa.ArrowInvalid(f"{path.name} has {reader.num_record_batches} record batches, not one")
        batch = reader.get_batch(0)
    keys, shards, rows = (batch.column(column).to_numpy(zero_copy_only=True) for column in SCHEMA.names)
    try:
        paths = tuple(map(str, json.loads(metadata[b"shards"])))
    except (KeyError, ValueError, TypeError) as error:
        raise pa.ArrowInvalid(f"{path.name} has no list of shards") from error
    return Part(name, keys, shards, rows, paths)


class Index:
    """The index of a corpus, its files opened as they are needed. `probes` counts the keys that were looked at."""

    def __init__(self, corpus: Path, names: Iterable[str]) -> None:
        self.corpus, self.probes = corpus, 0
        self.groups: dict[tuple[str, int], int] = {}
        for name in map(parse_name, names):
            if name is not None:
                self.groups[name.kind, name.generation] = name.parts
        self._part = lru_cache(maxsize=64)(open_part)
        self._shard = lru_cache(maxsize=8)(open_shard)

    def find_id(self, document: bytes) -> Iterator[Place]:
        """The places of the document with an id (at most one in a sound corpus)."""
        key = int.from_bytes(document[:8], "big")
        yield from self._checked("ids", key, key, lambda shard, row: _document(shard, row) == document)

    def find_prefix(self, digits: str) -> Iterator[Place]:
        """The places of all documents whose ids begin with these lower-case hexadecimal digits (one to 32), in the
        order of their ids within each generation; found one by one, so that a short beginning costs no more than the
        caller takes of it."""
        low, high = (int(digits[:16].ljust(16, fill), 16) for fill in "0f")
        yield from self._checked("ids", low, high, lambda shard, row: _document(shard, row).hex().startswith(digits))

    def find_url(self, url: str) -> Iterator[Place]:
        """The places of all documents with exactly this URL, in the order of shards and rows."""
        key = url_key(url)
        yield from self._checked("urls", key, key, lambda shard, row: shard.batch.column("url")[row].as_py() == url)

    def candidates(self, kind: str, low: int, high: int) -> Iterator[Place]:
        """Where entries of a kind with keys from `low` to `high` inclusive point, not yet held against the shards."""
        for (of_kind, generation), parts in sorted(self.groups.items()):
            if of_kind == kind:
                for number in range(part_of(low, parts), part_of(high, parts) + 1):
                    part = self.part(PartName(kind, generation, parts, number))
                    for entry in range(self._first(part.keys, low), len(part.keys)):
                        self.probes += 1
                        if part.keys[entry] > high:
                            break
                        if part.shards[entry] >= len(part.paths):
                            raise self._damaged(f"{FOLDER}/{part.name}", "it points to no shard")
                        yield part.place(entry)

    def parts(self, kind: str) -> Iterator[Part]:
        """All files of a kind, generation by generation, each in the order of its keys: for whoever reads all."""
        for (of_kind, generation), parts in sorted(self.groups.items()):
            if of_kind == kind:
                yield from (self.part(PartName(kind, generation, parts, number)) for number in range(parts))

    def part(self, name: PartName) -> Part:
        """An open file. Raises UserError where it is missing or none."""
        try:
            return self._part(self.corpus / FOLDER / str(name))
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(f"{FOLDER}/{name}", str(error)) from error

    def shard(self, path: str) -> Shard:
        """An open shard, by its path below `shards/`. Raises UserError."""
        try:
            return self._shard(self.corpus / "shards" / path)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(f"shards/{path}", str(error)) from error

    def _damaged(self, name: str, why: str) -> UserError:
        told = f"{name} cannot be read ({' '.join(why.split())})"
        return UserError(f"{told}: run `python -m manifests verify {self.corpus}`")

    def _checked(self, kind: str, low: int, high: int, meant: Callable[[Shard, int], bool]) -> Iterator[Place]:
        for place in self.candidates(kind, low, high):
            shard = self.shard(place.shard)
            if place.row < shard.batch.num_rows and meant(shard, place.row):
                yield place

    def _first(self, keys: npt.NDArray[np.uint64], key: int) -> int:
        """The first entry whose key is `key` or above, by turns interpolated and bisected: keys are hashes, so a guess
        from their value lands near, and whatever they are, two turns halve what is left."""
        low, high, below, above = 0, len(keys), 0, _SPACE
        guess = True
        while low < high:
            middle = low + (key - below) * (high - low) // (above - below) if guess else (low + high) // 2
            middle = min(max(middle, low), high - 1)
            value = int(keys[middle])
            self.probes += 1
            if value < key:
                low, below = middle + 1, value
            else:
                high, above = middle, max(value, key + 1)
            guess = not guess
        return low


def open_index(corpus: Path) -> Index:
    """The index of a corpus. Raises UserError for a corpus that has none."""
    names = [entry.path for entry in load_manifest(corpus).index]
    if not names:
        raise UserError(f"{corpus} has no index: give the same `python -m pipeline run` again, which adds it")
    return Index(corpus, names)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The 64-bit finalizer of MurmurHash3 (Appleby, public domain)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def _document(shard: Shard, row: int) -> bytes:
    return bytes(shard.batch.column("document")[row].as_py())
