"""Stage neardup: find exact duplicates by content hash, and near-duplicates by MinHash bands with verification.

One exchange finds exact duplicates. Three exchanges find near-duplicates. They run once for each distinct set of
MinHash settings, among the documents with these settings. No text is exchanged.
- `bands` sends the band hashes of each document by hash range. Documents that share a band hash become candidates.
- `fetch` sends the candidates back to their splits, to determine which signatures are needed.
- `evidence` sends the needed signatures by hash range. The reducers verify the candidates.

With `verify: exact`, shingle hashes of the texts, which are read again, are sent instead of signatures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.dedup.clusters import Similar, verify_stars
from filters.dedup.minhash import MinHash, band_hashes, pairs_jaccard, shingle_hashes
from filters.hashing import duplicate_mask, group_keys, mix, run_starts
from manifests.files import sha256_json, write_atomic
from pipeline.beam.exchange import Mapped, by_range, by_split, join_blocks, range_of, ranges_for, runs
from pipeline.beam.receipts import sweep
from pipeline.beam.step import BLOCKS, Awaited, Receipts, Result, Step, Unit
from pipeline.beam.tables import id_halves, read_ipc, read_rows, write_ipc
from pipeline.beam.work import PartReceipts, Work
from pipeline.dedup.signatures import ROW_BITS, ROW_MASK, Rows, Split, signatures_of, tasks_to_await

STAGE = "neardup"
TEXTS, EXACT = f"{STAGE}/texts", f"{STAGE}/exact"
SEARCH = BANDS, CANDIDATES, WANTED, FETCH, EVIDENCE, EDGES = tuple(
    f"{STAGE}/{step}" for step in ("bands", "candidates", "wanted", "fetch", "evidence", "edges")
)
RANGE_BYTES = 256 << 20  # bytes of packed keys, or of evidence, that one reducer holds in memory
# Hash of a band; the first half of the document's id, which determines the order of documents; row reference.
KEY = np.dtype([("key", "<u8"), ("identity", "<u8"), ("row", "<i8")])
# Like KEY, for the two halves of a content hash.
TEXT_KEY = np.dtype([("key", "<u8"), ("low", "<u8"), ("identity", "<u8"), ("row", "<i8")])
WANT = np.dtype([("row", "<i8"), ("range", "<u4")])
EDGE_SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("similarity", pa.float32())])
SHINGLE_SCHEMA = pa.schema([("row", pa.int64()), ("hashes", pa.large_list(pa.uint32()))])
PAIRS, SIGNATURES, SHINGLES = b"p", b"s", b"h"  # the first byte of a block of evidence


def find_exact(splits: list[Split]) -> tuple[Step, Step]:
    """Return the steps that find documents with the same text: a mapper per split, a reducer per content hash range."""
    units = [
        _keys_unit(unit_name(split, number), split, number)
        for number, split in enumerate(splits)
        if split.compared.exact
    ]
    documents = sum(split.documents for split in splits if split.compared.exact)
    ranges = ranges_for(documents * TEXT_KEY.itemsize, RANGE_BYTES) if units else 0
    reducing = Step(EXACT, reduce_texts, [Unit(f"{r:05d}") for r in range(ranges)])
    return Step(TEXTS, map_texts, units, {"ranges": ranges}), reducing


@dataclass(frozen=True)
class NearSearch:
    """The search for near-duplicates among the splits with the same MinHash settings.

    Attributes:
        minhash: the settings.
        splits: the splits, by their number among all splits of the run.
        shared: True if there are searches with other settings. Their steps have the same names.
    """

    minhash: MinHash
    splits: dict[int, Split]
    shared: bool

    @cached_property
    def folder(self) -> str:
        """The prefix of the names of all units. It is different for different MinHash settings."""
        return sha256_json(self.minhash.model_dump())[:8]

    def unit(self, name: str) -> str:
        """Return the full name of a unit, with the prefix of this search."""
        return f"{self.folder}/{name}"

    def units_per_range(self, ranges: int) -> list[Unit]:
        """Return one unit per hash range."""
        return [Unit(self.unit(f"{number:05d}")) for number in range(ranges)]

    def verify(self, found: PartReceipts) -> Work[dict[str, Receipts]]:
        """Verify the candidates that `find_candidates` has found. Return a dict from step name to receipts."""
        [[fetched], [verified]] = yield [[self.fetch_evidence(found[1])], [self.verify_candidates(found[1])]]
        return dict(zip(SEARCH, (*found, *fetched, *verified), strict=True))

    def find_candidates(self) -> tuple[Step, Step]:
        """Return the steps that find documents with a common band: a mapper per split, a reducer per hash range."""
        documents = sum(split.documents for split in self.splits.values())
        ranges = ranges_for(documents * self.minhash.bands * KEY.itemsize, RANGE_BYTES)
        units = [
            _keys_unit(self.unit(unit_name(split, number)), split, number) for number, split in self.splits.items()
        ]
        mapping = Step(BANDS, map_bands, units, {"minhash": self.minhash, "ranges": ranges}, shared=self.shared)
        bucket = {"bucket": self.minhash.bucket}
        return mapping, Step(CANDIDATES, reduce_candidates, self.units_per_range(ranges), bucket, shared=self.shared)

    def fetch_evidence(self, candidates: Receipts) -> tuple[Step, Step]:
        """Return the steps that find the evidence needed from each split: a mapper per range, a reducer per split."""
        maps = [Unit(name, {"pairs": receipt.outputs[0].path}, [receipt]) for name, receipt in candidates.items()]
        reduces = [Unit(self.unit(unit_name(split, number))) for number, split in self.splits.items()]
        settings = {"ranges": self.evidence_ranges(candidates), "splits": list(self.splits)}
        mapping = Step(WANTED, map_wanted, maps, settings, shared=self.shared)
        return mapping, Step(FETCH, reduce_wanted, reduces, shared=self.shared)

    def verify_candidates(self, candidates: Receipts) -> tuple[Step, Step]:
        """Return the steps that verify candidates: a mapper per split and per range of bands, a reducer per range.

        Args:
            candidates: the receipts of the step `candidates`.
        """
        units = []
        for number, split in self.splits.items():
            wanted = self.unit(unit_name(split, number))
            clean, signed = split.file_argument(split.clean), split.file_argument(split.signatures)
            paths = {"fetch": f"{BLOCKS}/{FETCH}/{wanted}", "clean": clean, "path": signed}
            name = self.unit(f"split/{unit_name(split, number)}")
            units.append(Unit(name, paths, (), split.signatures.bytes, awaits=(Awaited(FETCH, wanted),)))
        for number, receipt in enumerate(candidates.values()):
            units.append(Unit(self.unit(f"range/{number:05d}"), {"pairs": receipt.outputs[0].path}, [receipt]))
        ranges = self.evidence_ranges(candidates)
        mapping = Step(EVIDENCE, map_evidence, units, {"minhash": self.minhash, "ranges": ranges}, shared=self.shared)
        rules = {"threshold": self.minhash.threshold, "rounds": self.minhash.rounds}
        return mapping, Step(EDGES, reduce_edges, self.units_per_range(ranges), rules, shared=self.shared)

    def evidence_ranges(self, candidates: Receipts) -> int:
        """Return the number of hash ranges for the evidence."""
        width = KEY.itemsize + 4 * self.minhash.permutations
        return ranges_for(sum(receipt.facts["pairs"] for receipt in candidates.values()) * width, RANGE_BYTES)


def near_searches(splits: list[Split]) -> list[NearSearch]:
    """Return one search for near-duplicates per distinct set of MinHash settings, ordered by their first splits."""
    found: dict[MinHash, dict[int, Split]] = {}
    for number, split in enumerate(splits):
        if split.compared.minhash is not None:
            found.setdefault(split.compared.minhash, {})[number] = split
    return [NearSearch(minhash, members, len(found) > 1) for minhash, members in found.items()]


def sweep_searches(corpus: Path, done: Mapping[str, Receipts]) -> None:
    """Remove the files that earlier runs have left of searches.

    Args:
        corpus: folder of the corpus.
        done: the receipts of this run, whose files are kept: by step name, and then by unit name.
    """
    for name in SEARCH:
        sweep(corpus, Step(name, map_bands, []), done.get(name, {}))


@lru_cache
def _hash_scope(scope: str) -> int:
    """Return a 64-bit hash of the name of a scope."""
    return int(sha256_json(scope)[:16], 16)


def _keys_unit(name: str, split: Split, number: int) -> Unit:
    """Return the unit of the mapper of a split. Documents are compared only if they have the same `group`."""
    arguments = {"number": number, "group": _hash_scope(split.scope), "path": split.file_argument(split.signatures)}
    return Unit(name, arguments, (), split.signatures.bytes, awaits=tasks_to_await(split, split.signatures))


def findings(candidates: Receipts, verified: Receipts) -> dict[str, int]:
    """Return the counts for the manifest.

    Returns:
        `edges`, the number of accepted pairs; `rejected`, the number of rejected pairs; `capped`, the number of
        documents for which more rounds would be needed; `divided_buckets`, the number of buckets that were compared in
        parts.
    """
    names = ("edges", "rejected", "capped")
    found = {name: sum(receipt.facts[name] for receipt in verified.values()) for name in names}
    return found | {"divided_buckets": sum(receipt.facts["divided_buckets"] for receipt in candidates.values())}


def map_texts(corpus: Path, unit: str, *, number: int, group: int, path: str, ranges: int) -> Mapped:
    """Send the content hashes of one split as `TEXT_KEY`, by hash range."""
    batch = read_ipc(Path(path))
    identities, (high, low) = id_halves(batch.column("id"))[0], id_halves(batch.column("content_hash"))
    keys = group_keys(high, np.array([group], np.uint64))
    packed = _pack(TEXT_KEY, key=keys, low=low, identity=identities, row=_number_rows(number, batch.num_rows))
    return Mapped(by_range(keys, packed, ranges) if batch.num_rows else ())


def reduce_texts(corpus: Path, part: str, blocks: list[bytes]) -> Result:
    """Write the edges between documents with the same text, for one range. They need no verification."""
    path, pairs = f"{BLOCKS}/{EXACT}/{part}", join_blocks(blocks, TEXT_KEY)
    pairs = pairs[duplicate_mask(pairs["key"] ^ mix(pairs["low"]))]
    pairs = pairs[np.lexsort([pairs["row"], pairs["identity"], pairs["low"], pairs["key"]])]
    first = run_starts(pairs["key"], pairs["low"])
    centres = pairs["row"][first][np.cumsum(first) - 1]
    members = np.ascontiguousarray(pairs["row"][~first])
    _write_edges(corpus / path, centres[~first], members, np.ones(len(members)))
    return Result([path], {}, {"edges": int((~first).sum())})


def map_bands(corpus: Path, unit: str, *, number: int, group: int, path: str, minhash: MinHash, ranges: int) -> Mapped:
    """Send the band hashes of one split as `KEY`, by hash range."""
    batch = read_ipc(Path(path))
    present = batch.column("has_signature").to_numpy(zero_copy_only=False)
    if not present.any():
        return Mapped(())
    bands = band_hashes(signatures_of(batch)[present], minhash)
    keys = group_keys(bands.ravel(), np.array([group], np.uint64))
    columns = (_number_rows(number, batch.num_rows), id_halves(batch.column("id"))[0])
    rows, owners = (np.repeat(column[present], bands.shape[1]) for column in columns)
    return Mapped(by_range(keys, _pack(KEY, key=keys, identity=owners, row=rows), ranges))


def reduce_candidates(corpus: Path, part: str, blocks: list[bytes], *, bucket: int) -> Result:
    """Write the documents that share a band hash, for one range: rows of `KEY`, sorted by key and id."""
    path, pairs = f"{BLOCKS}/{CANDIDATES}/{part}", join_blocks(blocks, KEY)
    pairs = pairs[duplicate_mask(pairs["key"])]
    pairs = pairs[np.lexsort([pairs["row"], pairs["identity"], pairs["key"]])]
    pairs, divided = divide_buckets(pairs, bucket)
    write_atomic(corpus / path, pairs.tobytes())
    return Result([path], {}, {"pairs": len(pairs), "divided_buckets": divided})


def map_wanted(corpus: Path, part: str, *, pairs: str, ranges: int, splits: list[int]) -> Mapped:
    """Send the candidates of one range to their splits, each with the range that needs its evidence.

    Args:
        corpus: folder of the corpus.
        part: name of the unit.
        pairs: path of the candidates.
        ranges: number of ranges of the evidence.
        splits: numbers of the splits of the search, in the order of the reducers.
    """
    found = np.fromfile(corpus / pairs, KEY)
    wants = np.empty(len(found), WANT)
    wants["row"], wants["range"] = found["row"], range_of(found["key"], ranges)
    wants = np.unique(wants)
    reducers = {number: reducer for reducer, number in enumerate(splits)}
    return Mapped((reducers[number], block) for number, block in by_split(wants["row"], ROW_BITS, wants))


def reduce_wanted(corpus: Path, unit: str, blocks: list[bytes]) -> Result:
    """Write the documents of one split whose evidence is needed: distinct rows of `WANT`, sorted by range."""
    wants, path = np.unique(join_blocks(blocks, WANT)), f"{BLOCKS}/{FETCH}/{unit}"
    write_atomic(corpus / path, wants[np.lexsort([wants["row"], wants["range"]])].tobytes())
    return Result([path], {}, {"wanted": len(wants)})


def map_evidence(
    corpus: Path,
    unit: str,
    *,
    minhash: MinHash,
    ranges: int,
    pairs: str = "",
    fetch: str = "",
    clean: str = "",
    path: str = "",
) -> Mapped:
    """Send evidence of a split, or candidates, by hash range.

    Args:
        corpus: folder of the corpus.
        unit: name of the unit.
        minhash: the settings of the search.
        ranges: number of ranges.
        pairs: path of candidates to send. If it is given, no evidence is sent.
        fetch: path of the list of documents whose evidence is needed.
        clean: path of the clean documents, for `verify: exact`.
        path: path of the signature file.
    """
    if pairs:
        rows = np.fromfile(corpus / pairs, KEY)
        return Mapped((number, PAIRS + block) for number, block in by_range(rows["key"], rows, ranges))
    wants = np.fromfile(corpus / fetch, WANT)
    if not len(wants):
        return Mapped(())
    inner = wants["row"] & ROW_MASK
    if minhash.verify == "exact":
        return Mapped(_shingle_blocks(Path(clean), wants, inner, minhash))
    return Mapped(_signature_blocks(signatures_of(read_ipc(Path(path))), wants, inner))


def reduce_edges(corpus: Path, part: str, blocks: list[bytes], *, threshold: float, rounds: int) -> Result:
    """Verify the candidates of one range, and write the accepted edges with their similarities."""
    parts = [np.frombuffer(block, KEY, offset=1) for block in blocks if block[:1] == PAIRS]
    pairs = np.concatenate([np.empty(0, KEY), *parts])
    evidence = [block for block in blocks if block[:1] != PAIRS]
    order = np.lexsort([pairs["row"], pairs["identity"]])
    ordered = pairs["row"][order]
    first = run_starts(ordered)
    ranked, ranks = ordered[first], np.empty(len(pairs), np.int64)
    ranks[order] = np.cumsum(first) - 1
    similar = _compare_evidence(evidence, ranked)
    edges, values, rejected, capped = verify_stars(pairs["key"], ranks, similar, threshold, rounds)
    path = f"{BLOCKS}/{EDGES}/{part}"
    _write_edges(corpus / path, ranked[edges[:, 0]], ranked[edges[:, 1]], values)
    return Result([path], {}, {"edges": len(edges), "rejected": rejected, "capped": capped})


def _compare_evidence(evidence: list[bytes], ranked: Rows) -> Similar:
    """Return the function that computes the similarities of pairs from the evidence.

    The evidence is signatures, or shingles for exact similarities.

    Args:
        evidence: the blocks of evidence of one range.
        ranked: the row references of the documents, in the order of their ids. The function takes pairs of indices into
            this array.
    """
    if evidence and evidence[0][:1] == SHINGLES:
        batches = [pa.ipc.read_record_batch(pa.py_buffer(block[1:]), SHINGLE_SCHEMA) for block in evidence]
        table = pa.Table.from_batches(batches).combine_chunks()
        column = table.column("hashes").chunk(0)
        values, offsets = column.values.to_numpy(), column.offsets.to_numpy().astype(np.int64)
        places = _find_places(table.column("row").to_numpy(), ranked)
        return lambda a, b: np.asarray(pairs_jaccard(values, offsets, places[a], places[b]))
    parts = [_read_signatures(block) for block in evidence]
    places = _find_places(np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in parts)]), ranked)
    signatures = np.concatenate([part for _, part in parts]) if parts else np.empty((0, 0), np.uint32)
    return lambda a, b: np.asarray((signatures[places[a]] == signatures[places[b]]).mean(axis=1))


def _find_places(rows: Rows, ranked: Rows) -> Rows:
    """Return, for each element of `ranked`, its index in `rows`."""
    order = np.argsort(rows)
    return order[np.searchsorted(rows[order], ranked)] if len(rows) else order


def divide_buckets(pairs: npt.NDArray[Any], limit: int) -> tuple[npt.NDArray[Any], int]:
    """Divide buckets with more than `limit` members into parts of that size.

    A bucket consists of the documents with the same key. Each part gets its own key. The first member of the bucket is
    added to each part as the first member of the part.

    Args:
        pairs: rows of `KEY`, sorted by key.
        limit: largest number of members of a bucket.

    Returns:
        The rows with new keys, and the number of buckets that were divided.
    """
    starts = np.flatnonzero(run_starts(pairs["key"]))
    sizes = np.diff(np.r_[starts, len(pairs)])
    if (sizes <= limit).all():
        return pairs, 0
    place = np.arange(len(pairs)) - np.repeat(starts, sizes)
    part = (place // limit).astype(np.uint64)
    divided = pairs.copy()
    divided["key"] = group_keys(pairs["key"], part) ^ group_keys(np.zeros(1, np.uint64), np.zeros(1, np.uint64))
    heads = pairs[np.repeat(starts, sizes)]
    heads["key"] = divided["key"]
    extra = heads[(place % limit == 0) & (part > 0)]
    joined = np.concatenate([divided, extra])
    order = np.lexsort([joined["row"], joined["identity"], joined["key"]])
    return joined[order], int((sizes > limit).sum())


def unit_name(split: Split, number: int) -> str:
    """Return the name of the unit of a split. It is unique even if a split of an earlier corpus has the same name."""
    return f"earlier/{number:05d}/{split.name}" if split.earlier else f"here/{split.name}"


def _write_edges(path: Path, a: Rows, b: Rows, similarity: npt.NDArray[np.float64]) -> None:
    """Write edges between the documents a[i] and b[i] as an Arrow file."""
    columns = [pa.array(a, pa.int64()), pa.array(b, pa.int64()), pa.array(similarity, pa.float32())]
    write_ipc(path, EDGE_SCHEMA, columns)


def _signature_blocks(
    signatures: npt.NDArray[np.uint32], wants: npt.NDArray[Any], inner: Rows
) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of the signatures of the needed documents, by range.

    A block consists of its kind (1 byte), the number of permutations (4 bytes), and rows of row reference and
    signature.
    """
    width = signatures.shape[1]
    for number, start, end in runs(wants["range"]):
        block = np.empty(end - start, [("row", "<i8"), ("signature", "<u4", (width,))])
        block["row"], block["signature"] = wants["row"][start:end], signatures[inner[start:end]]
        yield number, SIGNATURES + width.to_bytes(4, "little") + block.tobytes()


def _read_signatures(block: bytes) -> tuple[Rows, npt.NDArray[np.uint32]]:
    """Return the row references and the signatures in a block of `_signature_blocks`."""
    width = int.from_bytes(block[1:5], "little")
    rows = np.frombuffer(block, [("row", "<i8"), ("signature", "<u4", (width,))], offset=5)
    return rows["row"], rows["signature"]


def _shingle_blocks(clean: Path, wants: npt.NDArray[Any], inner: Rows, minhash: MinHash) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of the shingle hashes of the needed documents, by range. The texts are read only once."""
    needed = set(inner.tolist())
    texts = (row["text"] for row in read_rows(clean, ["text"]))
    hashes = {row: shingle_hashes(text, minhash) for row, text in enumerate(texts) if row in needed}
    for number, start, end in runs(wants["range"]):
        found = [hashes[row] for row in inner[start:end].tolist()]
        columns = [pa.array(wants["row"][start:end]), pa.array(found, SHINGLE_SCHEMA.field("hashes").type)]
        batch = pa.RecordBatch.from_arrays(columns, schema=SHINGLE_SCHEMA)
        yield number, SHINGLES + batch.serialize().to_pybytes()


def _number_rows(number: int, rows: int) -> Rows:
    """Return the row references of all documents of a split."""
    return (np.int64(number) << ROW_BITS) + np.arange(rows, dtype=np.int64)


def _pack(kind: np.dtype[Any], **columns: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a structured array of the given dtype. `columns`: its fields by name."""
    packed = np.empty(len(columns["key"]), kind)
    for name, values in columns.items():
        packed[name] = values
    return packed
