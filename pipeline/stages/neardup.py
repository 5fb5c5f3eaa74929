"""neardup: which documents are duplicates: exact ones by content hash, near ones by MinHash bands, verified.

Three exchanges, and never a text in them. `bands` sends each document's keys by hash range, where documents that share
one become candidates; `fetch` tells each split which of its documents' signatures are wanted; `evidence` sends these by
hash range again, where stars are verified. With `verify: exact` the evidence is shingle hashes of texts read again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.dedup.clusters import verify_stars
from filters.dedup.jaccard import pairs_jaccard
from filters.dedup.minhash import MinHash, band_hashes, shingle_hashes
from filters.hashing import duplicate_mask, group_keys, mix
from manifests.files import atomic_path, sha256_json
from manifests.recipe import Deduplication, Recipe
from pipeline.beam.exchange import Mapped, by_range, range_of
from pipeline.beam.fingerprint import code_version
from pipeline.beam.tables import read_rows
from pipeline.beam.task import Receipt, Result, Task
from pipeline.stages.corpora import Split
from pipeline.stages.signatures import ROW_BITS, Lookup, Rows, halves, signatures_of

STAGE = "neardup"
BANDS, CANDIDATES, WANTED, FETCH, EVIDENCE, EDGES = (
    f"{STAGE}/{step}" for step in ("bands", "candidates", "wanted", "fetch", "evidence", "edges")
)
OWNED = {step: (f"blocks/{step}",) for step in (BANDS, CANDIDATES, WANTED, FETCH, EVIDENCE, EDGES)}

RANGE_BYTES = 256 << 20
"""packed keys, or evidence, that one reducer holds"""
KEY = np.dtype([("key", "<u8"), ("identity", "<u8"), ("row", "<i8")])
"""`key`: a band's hash; `identity`: the first half of the document's id, by which stars have their centres"""
TEXT_KEY = np.dtype([("key", "<u8"), ("low", "<u8"), ("identity", "<u8"), ("row", "<i8")])
"""the two halves of a content hash"""
WANT = np.dtype([("row", "<i8"), ("range", "<u4")])
EDGE_SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("similarity", pa.float32())])
PAIRS, SIGNATURES, SHINGLES = b"p", b"s", b"h"
"""what a block of evidence begins with"""


def band_tasks(recipe: Recipe, splits: list[Split]) -> list[Task]:
    """One mapper a split. The number of hash ranges follows from the documents of all."""
    documents = sum(split.documents for split in splits)
    minhash, scope = recipe.deduplication.minhash, recipe.deduplication.scope
    ranges = max(1, -(-documents * (minhash.bands if minhash else 1) * KEY.itemsize // RANGE_BYTES))
    names = [{"dump": f"{s.source} {s.dump}", "source": s.source, "all": ""}[scope] for s in splits]
    groups = {name: number for number, name in enumerate(sorted(set(names)))}
    made = []
    for number, (split, name) in enumerate(zip(splits, names, strict=True)):
        arguments = {"number": number, "ranges": ranges, "group": groups[name]}
        fingerprint = sha256_json([code_version(__name__), _settings(recipe), arguments, split.fingerprint])
        made.append(Task(BANDS, task_name(split, number), fingerprint, split.path.stat().st_size, arguments))
    return made


def candidate_tasks(maps: list[Task]) -> list[Task]:
    """One reducer a hash range: the first half for bands, the second for content hashes."""
    fingerprint, ranges = _joint(maps), maps[0].arguments["ranges"]
    return [
        Task(CANDIDATES, f"{'near' if r < ranges else 'exact'}-{r % ranges:05d}", fingerprint)
        for r in range(2 * ranges)
    ]


def wanted_tasks(recipe: Recipe, found: dict[str, Receipt]) -> list[Task]:
    """One mapper a range of bands: says by split which documents' evidence it needs."""
    near = {name: receipt for name, receipt in sorted(found.items()) if name.startswith("near")}
    minhash = recipe.deduplication.minhash
    width = 4 * minhash.bands * minhash.rows if minhash else 0
    pairs = sum(receipt.facts["pairs"] for receipt in near.values())
    ranges = max(1, -(-pairs * (KEY.itemsize + width) // RANGE_BYTES))
    return [
        Task(WANTED, name, sha256_json([code_version(__name__), ranges, receipt.sha()]), 0, {"ranges": ranges})
        for name, receipt in near.items()
    ]


def fetch_tasks(maps: list[Task], wanted: list[Task]) -> list[Task]:
    """One reducer a split."""
    fingerprint = _joint(wanted)
    return [Task(FETCH, task.name, sha256_json([task.fingerprint, fingerprint]), 0, task.arguments) for task in maps]


def evidence_tasks(fetches: dict[str, Receipt], maps: list[Task], wanted: list[Task]) -> list[Task]:
    """One mapper a split, which sends evidence, and one a range of bands, which sends the pairs to judge by it."""
    made = [
        Task(EVIDENCE, f"split/{task.name}", sha256_json([task.fingerprint, fetches[task.name].sha()]), task.size,
             {"number": task.arguments["number"], "fetch": task.name})
        for task in maps
    ]  # fmt: skip
    return made + [Task(EVIDENCE, f"range/{task.name}", task.fingerprint, 0, task.arguments) for task in wanted]


def edge_tasks(evidence: list[Task], wanted: list[Task]) -> list[Task]:
    """One reducer a range of evidence."""
    fingerprint = _joint(evidence)
    return [Task(EDGES, f"{r:05d}", fingerprint) for r in range(wanted[0].arguments["ranges"])]


def settings(recipe: Recipe, splits: list[Split]) -> dict[str, Any]:
    """What the workers need to know."""
    return {"deduplication": recipe.deduplication.model_dump(), "splits": splits}


def findings(candidates: dict[str, Receipt], verified: dict[str, Receipt]) -> dict[str, int]:
    """What the comparison found, for the manifest: pairs joined and rejected, documents unjoined when the rounds ended,
    and buckets that were compared in parts."""
    names = ("edges", "rejected", "capped")
    found = {name: sum(receipt.facts[name] for receipt in verified.values()) for name in names}
    return found | {"divided_buckets": sum(r.facts.get("divided_buckets", 0) for r in candidates.values())}


def cut(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """The keys of one split, by range, packed."""
    rules = Deduplication.model_validate(settings["deduplication"])
    number, ranges = task.arguments["number"], task.arguments["ranges"]
    batch = _lookup(settings).batch(number)
    group = np.array([task.arguments["group"]], np.uint64)
    references = (np.int64(number) << ROW_BITS) + np.arange(batch.num_rows, dtype=np.int64)

    def blocks() -> Iterator[tuple[int, bytes]]:
        if not batch.num_rows:
            return
        identities = halves(batch.column("id"))[0]
        if rules.minhash is not None:
            present = batch.column("has_signature").to_numpy(zero_copy_only=False)
            bands = band_hashes(signatures_of(batch)[present], rules.minhash)
            keys = group_keys(bands.ravel(), group)
            rows, owners = (np.repeat(column[present], bands.shape[1]) for column in (references, identities))
            yield from by_range(keys, _packed(KEY, key=keys, identity=owners, row=rows), ranges)
        if rules.exact:
            high, low = halves(batch.column("content_hash"))
            keys = group_keys(high, group)
            packed = _packed(TEXT_KEY, key=keys, low=low, identity=identities, row=references)
            yield from by_range(keys, packed, ranges, ranges)

    return Mapped(blocks(), {}, {})


def find_candidates(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """What shares a key within one range: pairs of key and document, in the order of keys and ids, for bands; edges for
    content hashes, which need no evidence."""
    path, exact = f"blocks/{CANDIDATES}/{task.name}", task.name.startswith("exact")
    kind = TEXT_KEY if exact else KEY
    pairs = np.concatenate([np.empty(0, kind), *(np.frombuffer(block, kind) for block in blocks)])
    pairs = pairs[duplicate_mask(pairs["key"] ^ mix(pairs["low"]) if exact else pairs["key"])]
    if exact:
        pairs = pairs[np.lexsort([pairs["row"], pairs["identity"], pairs["low"], pairs["key"]])]
        same = (pairs["key"][1:] == pairs["key"][:-1]) & (pairs["low"][1:] == pairs["low"][:-1])
        first = np.r_[True, ~same][: len(pairs)]
        centres = pairs["row"][first][np.cumsum(first) - 1]
        members = np.ascontiguousarray(pairs["row"][~first])
        write_edges(corpus / path, centres[~first], members, np.ones(len(members)))
        return Result([path], {}, {"edges": int((~first).sum())})
    pairs = pairs[np.lexsort([pairs["row"], pairs["identity"], pairs["key"]])]
    rules = Deduplication.model_validate(settings["deduplication"]).minhash
    pairs, divided = in_parts(pairs, rules.bucket if rules else 1)
    _write(corpus / path, pairs)
    return Result([path], {}, {"pairs": len(pairs), "divided_buckets": divided})


def ask(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """The documents of one range whose evidence is needed, by split, each with the range that needs it."""
    pairs = np.fromfile(corpus / f"blocks/{CANDIDATES}/{task.name}", KEY)
    wants = np.empty(len(pairs), WANT)
    wants["row"], wants["range"] = pairs["row"], range_of(pairs["key"], task.arguments["ranges"])
    wants = np.unique(wants)
    numbers = wants["row"] >> ROW_BITS
    edges = np.searchsorted(numbers, np.arange(len(settings["splits"]) + 1))
    blocks = ((number, wants[edges[number] : edges[number + 1]].tobytes()) for number in np.unique(numbers).tolist())
    return Mapped(blocks, {}, {})


def collect(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """What is wanted of one split, each once, in the order of ranges."""
    wants = np.unique(np.concatenate([np.empty(0, WANT), *(np.frombuffer(block, WANT) for block in blocks)]))
    path = f"blocks/{FETCH}/{task.name}"
    _write(corpus / path, wants[np.lexsort([wants["row"], wants["range"]])])
    return Result([path], {}, {"wanted": len(wants)})


def send(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """Evidence of a split's documents, or pairs to judge by it, by range."""
    if "fetch" not in task.arguments:
        pairs = np.fromfile(corpus / f"blocks/{CANDIDATES}/{task.name.removeprefix('range/')}", KEY)
        cuts = by_range(pairs["key"], pairs, task.arguments["ranges"])
        return Mapped(((number, PAIRS + block) for number, block in cuts), {}, {})
    rules = Deduplication.model_validate(settings["deduplication"]).minhash
    wants = np.fromfile(corpus / f"blocks/{FETCH}/{task.arguments['fetch']}", WANT)
    if rules is None or not len(wants):
        return Mapped((), {}, {})
    inner = wants["row"] & ((1 << ROW_BITS) - 1)
    split: Split = settings["splits"][task.arguments["number"]]
    if rules.verify == "exact":
        return Mapped(_shingle_blocks(split, wants, inner, rules), {}, {})
    signatures = signatures_of(_lookup(settings).batch(task.arguments["number"]))
    return Mapped(_signature_blocks(signatures, wants, inner), {}, {})


def verify(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """The verified edges of one range, with their similarities."""
    rules = Deduplication.model_validate(settings["deduplication"]).minhash
    assert rules is not None, "there are pairs only where there are bands"
    parts = [np.frombuffer(block, KEY, offset=1) for block in blocks if block[:1] == PAIRS]
    pairs = np.concatenate([np.empty(0, KEY), *parts])
    evidence = [block for block in blocks if block[:1] != PAIRS]
    order = np.lexsort([pairs["row"], pairs["identity"]])
    fresh = np.r_[True, pairs["row"][order][1:] != pairs["row"][order][:-1]][: len(order)]
    ranked = pairs["row"][order][fresh]
    ranks = np.empty(len(pairs), np.int64)
    ranks[order] = np.cumsum(fresh) - 1
    similar = _Similarity(evidence, ranked)
    edges, values, rejected, capped = verify_stars(pairs["key"], ranks, similar, rules.threshold, rules.rounds)
    path = f"blocks/{EDGES}/{task.name}"
    write_edges(corpus / path, ranked[edges[:, 0]], ranked[edges[:, 1]], values)
    return Result([path], {}, {"edges": len(edges), "rejected": rejected, "capped": capped})


class _Similarity:
    """Similarity of pairs of documents by the evidence that came: estimated, or exact where shingles came. `ranked`:
    the documents' row references, in the order of their ids; pairs are places in it."""

    def __init__(self, evidence: list[bytes], ranked: Rows) -> None:
        self.exact = bool(evidence) and evidence[0][:1] == SHINGLES
        if self.exact:
            tables = [pa.ipc.open_stream(pa.py_buffer(block[1:])).read_all() for block in evidence]
            table = pa.concat_tables(tables).combine_chunks()
            rows, column = table.column("row").to_numpy(), table.column("hashes").chunk(0)
            self.values, self.offsets = column.values.to_numpy(), column.offsets.to_numpy().astype(np.int64)
        else:
            parts = [_read_signatures(block) for block in evidence]
            rows = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
            self.signatures = np.concatenate([part[1] for part in parts]) if parts else np.empty((0, 0), np.uint32)
        order = np.argsort(rows)
        self.places = order[np.searchsorted(rows[order], ranked)] if len(rows) else order

    def __call__(self, a: Rows, b: Rows) -> npt.NDArray[np.float64]:
        a, b = self.places[a], self.places[b]
        if self.exact:
            return np.asarray(pairs_jaccard(self.values, self.offsets, a, b))
        return np.asarray((self.signatures[a] == self.signatures[b]).mean(axis=1))


def in_parts(pairs: npt.NDArray[Any], limit: int) -> tuple[npt.NDArray[Any], int]:
    """Pairs sorted by key, with the members of buckets over `limit` dealt out to parts of so many, each a bucket of its
    own with the large one's first member at its head; and how many buckets these were."""
    if not len(pairs):
        return pairs, 0
    starts = np.flatnonzero(np.r_[True, pairs["key"][1:] != pairs["key"][:-1]])
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


def write_edges(path: Path, a: Rows, b: Rows, similarity: npt.NDArray[np.float64]) -> None:
    """Edges of row references as an Arrow IPC file of `EDGE_SCHEMA`."""
    columns = [pa.array(a, pa.int64()), pa.array(b, pa.int64()), pa.array(similarity, pa.float32())]
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), EDGE_SCHEMA) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=EDGE_SCHEMA))


def task_name(split: Split, number: int) -> str:
    """The name of a split's task: an earlier corpus's splits may have names of this run's."""
    return f"earlier/{number:05d}/{split.name}" if split.earlier else f"here/{split.name}"


def _signature_blocks(
    signatures: npt.NDArray[np.uint32], wants: npt.NDArray[Any], inner: Rows
) -> Iterator[tuple[int, bytes]]:
    width = signatures.shape[1]
    for number, start, end in _runs(wants["range"]):
        block = np.empty(end - start, [("row", "<i8"), ("signature", "<u4", (width,))])
        block["row"], block["signature"] = wants["row"][start:end], signatures[inner[start:end]]
        yield number, SIGNATURES + width.to_bytes(4, "little") + block.tobytes()


def _read_signatures(block: bytes) -> tuple[Rows, npt.NDArray[np.uint32]]:
    width = int.from_bytes(block[1:5], "little")
    rows = np.frombuffer(block, [("row", "<i8"), ("signature", "<u4", (width,))], offset=5)
    return rows["row"], rows["signature"]


def _shingle_blocks(split: Split, wants: npt.NDArray[Any], inner: Rows, rules: MinHash) -> Iterator[tuple[int, bytes]]:
    """Shingle hashes of the wanted documents, their texts read once."""
    needed = set(inner.tolist())
    texts = read_rows(Path(split.corpus) / f"clean/{split.name}.parquet", ["text"])
    hashes = {row: shingle_hashes(text["text"], rules) for row, text in enumerate(texts) if row in needed}
    kind = pa.large_list(pa.uint32())
    for number, start, end in _runs(wants["range"]):
        columns = [
            pa.array(wants["row"][start:end]),
            pa.array([hashes[row] for row in inner[start:end].tolist()], kind),
        ]
        batch = pa.RecordBatch.from_arrays(columns, names=["row", "hashes"])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield number, SHINGLES + sink.getvalue().to_pybytes()


def _runs(values: npt.NDArray[Any]) -> Iterator[tuple[int, int, int]]:
    """(value, start, end) of each run of equal values of a sorted array."""
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.empty(0, np.int64)
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(values)], strict=True):
        yield int(values[start]), start, end


def _packed(kind: np.dtype[Any], **columns: npt.NDArray[Any]) -> npt.NDArray[Any]:
    packed = np.empty(len(columns["key"]), kind)
    for name, values in columns.items():
        packed[name] = values
    return packed


def _write(path: Path, values: npt.NDArray[Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(values.tobytes())


def _lookup(settings: dict[str, Any]) -> Lookup:
    return Lookup([split.path for split in settings["splits"]])


def _joint(tasks: list[Task]) -> str:
    return sha256_json([code_version(__name__), [(task.name, task.fingerprint) for task in tasks]])


def _settings(recipe: Recipe) -> dict[str, Any]:
    return recipe.deduplication.model_dump(include={"exact", "minhash", "scope"})
