"""What `verify` asks of one shard: its bytes, what it says of itself, its documents and their tokens."""

import hashlib
import json
import mmap
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.document import ID_BYTES, LOCATOR_FIELDS, Locator, document_id, locator_from
from manifests.index import id_keys, url_keys
from manifests.manifest import Manifest, ShardEntry
from manifests.shard import Shard, open_shard, shard_schema

BLOCK_BYTES = 8 << 20
"""of a file, hashed at a time"""
IDS_AT_ONCE = 1 << 22
"""token ids that are compared at a time, so that memory stays flat"""
ROWS_AT_ONCE = 1 << 14
SAMPLED_ROWS = 64
"""rows of a shard whose ids are derived again in a fast check, spread evenly"""
PLACE = re.compile(r"([^/]+)/(train|validation)-(?:g[1-9][0-9]*-)?([0-9]{5,})-of-([0-9]{5,})\.arrow")

Sum = tuple[int, int]
"""how many entries, and the sum of their mixed keys: equal for equal multisets, whatever their order"""


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in one file: sentences, and by (kind, shard) the sum of the index entries that it holds or asks
    for."""

    problems: list[str] = field(default_factory=list)
    sums: dict[tuple[str, str], Sum] = field(default_factory=dict)


def sha256_mapped(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, of its memory map: a tenth faster than through a buffer. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return digest.hexdigest()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            for start in range(0, len(view), BLOCK_BYTES):
                digest.update(view[start : start + BLOCK_BYTES])
    return digest.hexdigest()


def check_file(path: Path, name: str, size: int, sha256: str, fast: bool) -> list[str]:
    """Whether a file is there, of the size and (unless `fast`) of the hash that the manifest says."""
    try:
        held = path.stat().st_size if path.is_file() else None
        if held is None:
            return [f"{name}: missing"]
        if held != size:
            return [f"{name}: {held} bytes, the manifest says {size}"]
        return [] if fast or sha256_mapped(path) == sha256 else [f"{name}: its bytes have changed (sha256)"]
    except OSError as error:
        return [f"{name}: cannot be read ({error.strerror})"]


def check_shard(corpus: Path, manifest: Manifest, recipes: set[str], entry: ShardEntry, fast: bool) -> Checked:
    """Everything about one shard. `recipes`: hashes of the recipes that its corpus was built with. `fast` leaves out
    its hash, its tokens but for the first and last of each document, and all but some ids and URLs."""
    name, path = f"shards/{entry.path}", corpus / "shards" / entry.path
    problems = check_file(path, name, entry.bytes, entry.sha256, fast)
    if problems:
        return Checked(problems)
    try:
        shard = open_shard(path)
        shard.batch.validate(full=not fast)
    except (OSError, ValueError, IndexError, pa.ArrowException) as error:
        return Checked([f"{name}: not a readable shard ({' '.join(str(error).split())})"])
    found = _counts(shard, entry) or [*_labels(shard, manifest, recipes, entry), *_columns(shard, manifest)]
    if not found:
        found = _frames(shard, manifest) or _documents(shard, entry.path.partition("/")[0], fast)
    if not found and not fast:
        found = _vocabulary(shard, manifest)
    sums = {} if found or fast else {(kind, entry.path): wanted(shard, kind) for kind in ("ids", "urls")}
    return Checked([f"{name}: {what}" for what in found], sums)


def wanted(shard: Shard, kind: str) -> Sum:
    """The sum of the index entries that a shard asks for."""
    count, total = 0, 0
    for start in range(0, shard.batch.num_rows, ROWS_AT_ONCE):
        keys, rows = entries_of(shard, kind, start)
        count, total = count + len(keys), total + int(mixed(keys, rows).sum(dtype=np.uint64))
    return count, total % (1 << 64)


def entries_of(shard: Shard, kind: str, start: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """The keys that `ROWS_AT_ONCE` rows from `start` on must have in the index, and which rows those are."""
    rows = shard.batch.slice(start, ROWS_AT_ONCE)
    if kind == "urls":
        keys, places = url_keys(rows.column("url"))
        return keys, places + np.uint32(start)
    return id_keys(rows.column("document")), np.arange(start, start + rows.num_rows, dtype=np.uint32)


def mixed(keys: npt.NDArray[np.uint64], rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """One number for each (key, row), by the finaliser of SplitMix64 (Steele et al. 2014): sums of keys alone would not
    tell two rows that have changed places."""
    value: npt.NDArray[np.uint64] = keys ^ (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ value >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ value >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    return value


def derived_ids(source: str, rows: pa.RecordBatch) -> list[bytes]:
    """The ids that rows' source and locators give: `document_id` on columns, ten times as fast."""
    texts = []
    for name in ("file", "member"):
        coded = rows.column(name).dictionary_encode()
        spelled = [json.dumps(text, ensure_ascii=False) for text in coded.dictionary.to_pylist()]
        texts.append(pa.array(spelled, pa.string()).take(coded.indices))
    numbers = {
        name: rows.column(name).cast(pa.string()) for name in ("inner_length", "inner_offset", "length", "offset")
    }
    pieces = [f'[{json.dumps(source)},{{"file":', texts[0]]
    pieces += [',"inner_length":', numbers["inner_length"], ',"inner_offset":', numbers["inner_offset"]]
    pieces += [',"length":', numbers["length"], ',"member":', texts[1], ',"offset":', numbers["offset"]]
    joined = pc.binary_join_element_wise(*pieces, ',"parts":[]}]\n', "").cast(pa.binary())
    ids = [hashlib.sha256(text).digest()[:ID_BYTES] for text in joined.to_pylist()]
    lengths = pc.fill_null(pc.list_value_length(rows.column("parts")), 0)
    for row in np.flatnonzero(lengths.to_numpy()).tolist():
        ids[row] = document_id(source, _locator(rows, row))
    return ids


def _counts(shard: Shard, entry: ShardEntry) -> list[str]:
    problems = []
    if len(shard.tokens) != entry.tokens:
        problems.append(f"{len(shard.tokens)} tokens, the manifest says {entry.tokens}")
    if shard.batch.num_rows != entry.documents:
        problems.append(f"{shard.batch.num_rows} documents, the manifest says {entry.documents}")
    return problems


def _labels(shard: Shard, manifest: Manifest, recipes: set[str], entry: ShardEntry) -> list[str]:
    """What its metadata says, against the manifest and its own name."""
    place = PLACE.fullmatch(entry.path)
    if place is None:
        return ["not named as a shard is"]
    source, side, number, _ = place.groups()
    said = shard.metadata
    expected = {"tokenizer_sha256": manifest.tokenizer.sha256, "seed": str(manifest.seed)}
    named = {"source": source, "side": side, "index": str(int(number))}
    expected |= {key: value for key, value in named.items() if key in said}
    problems = [f"its {key} is not the manifest's" for key, value in expected.items() if said.get(key) != value]
    if said.get("recipe_sha256") not in recipes:
        problems.append("its recipe_sha256 is not the manifest's")
    return problems


def _columns(shard: Shard, manifest: Manifest) -> list[str]:
    if not shard.batch.schema.equals(shard_schema(manifest.tokenizer.vocabulary)):
        return ["its columns are not a shard's, or of other types"]
    named = [name for name in shard.batch.schema.names if name != "parts" and shard.batch.column(name).null_count]
    return [f"column {name} has nulls" for name in named]


def _frames(shard: Shard, manifest: Manifest) -> list[str]:
    """Every document framed by BOS and EOS."""
    tokens, offsets = shard.tokens, shard.offsets
    if shard.batch.num_rows == 0:
        return []
    if (np.diff(offsets) < 2).any() or offsets[-1] != len(tokens):
        return ["a document without tokens"]
    framed = (tokens[offsets[:-1]] == manifest.tokenizer.bos) & (tokens[offsets[1:] - 1] == manifest.tokenizer.eos)
    return [] if framed.all() else [f"document {int(np.argmin(framed))} is not framed by BOS and EOS"]


def _documents(shard: Shard, source: str, fast: bool) -> list[str]:
    """Rows of the source that the folder names, with the ids that their locators give."""
    count = shard.batch.num_rows
    step = max(1, count // SAMPLED_ROWS) if fast else ROWS_AT_ONCE
    for start in range(0, count, step):
        rows = shard.batch.slice(start, 1 if fast else ROWS_AT_ONCE)
        if pc.unique(rows.column("source")).to_pylist() != [source]:
            return ["a document of another source"]
        held = rows.column("document").to_pylist()
        for row, derived in enumerate(derived_ids(source, rows)):
            if derived != held[row]:
                return [f"document {start + row}: its id is not the one that its source and locator give"]
    return []


def _vocabulary(shard: Shard, manifest: Manifest) -> list[str]:
    for start in range(0, len(shard.tokens), IDS_AT_ONCE):
        if int(shard.tokens[start : start + IDS_AT_ONCE].max()) >= manifest.tokenizer.vocabulary:
            return ["a token id outside the vocabulary"]
    return []


def _locator(rows: pa.RecordBatch, row: int) -> Locator:
    names = [name for name, _ in LOCATOR_FIELDS]
    return locator_from(rows.select(names).slice(row, 1).to_pylist()[0])
