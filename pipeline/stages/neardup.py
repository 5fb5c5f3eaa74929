"""neardup: exact duplicates by content hash, near ones by MinHash bands, verified, joined to clusters; one copy stays.

Three steps: `bands` cuts each split's keys by hash range, `edges` finds in each range which documents share a key and
checks them, `clusters` joins the edges and chooses the survivor. Only hashes and row references cross the shuffle.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters.clusters import components, verified_stars
from filters.minhash import band_hashes
from manifests.document import ID_BYTES
from manifests.files import atomic_path, sha256_json
from manifests.ledger import Tally
from manifests.reasons import Reason
from manifests.recipe import Deduplication, Recipe
from pipeline.exchange import Mapped, by_range
from pipeline.fingerprint import code_version
from pipeline.job import Receipt, Result, Task
from pipeline.signatures import ROW_BITS, Lookup, Rows, halves, scheme_of, signatures_of

STAGE = "neardup"
BANDS, EDGES, CLUSTERS = f"{STAGE}/bands", f"{STAGE}/edges", f"{STAGE}/clusters"
OWNED = {BANDS: (f"blocks/{BANDS}",), EDGES: (f"blocks/{EDGES}",), CLUSTERS: ("duplicates", f"verdicts/{STAGE}")}

RANGE_BYTES = 256 << 20
"""packed keys that one reducer holds"""
KEY = np.dtype([("key", "<u8"), ("row", "<i8")])

EDGE_SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64())])
DUPLICATE_SCHEMA = pa.schema(
    [
        ("removed", pa.binary(ID_BYTES)),
        ("kept", pa.binary(ID_BYTES)),
        ("cluster", pa.binary(ID_BYTES)),
        ("similarity", pa.float32()),
        ("reason", pa.string()),
    ]
)
VERDICT_SCHEMA = pa.schema([("row", pa.int64()), ("cluster", pa.binary(ID_BYTES)), ("reason", pa.string())])
"""Rows of a split that are in a cluster; `reason` is empty for the one that stays."""


def map_tasks(recipe: Recipe, annotated: dict[str, Receipt]) -> list[Task]:
    """One mapper a split of `annotate`."""
    code = code_version(__name__)
    settings = _settings(recipe)
    ranges = _ranges(annotated, recipe)
    made = []
    for number, (split, receipt) in enumerate(sorted(annotated.items())):
        fingerprint = sha256_json([code, settings, ranges, number, receipt.sha()])
        size = sum(output.bytes for output in receipt.outputs if "/signatures/" in output.path)
        made.append(Task(BANDS, split, fingerprint, size, {"number": number, "ranges": ranges}))
    return made


def reduce_tasks(recipe: Recipe, annotated: dict[str, Receipt]) -> list[Task]:
    """One reducer a range: the first half compares signatures, the second content hashes."""
    fingerprint = sha256_json([code_version(__name__), _settings(recipe), _shas(annotated)])
    ranges = _ranges(annotated, recipe)
    return [
        Task(EDGES, f"{'near' if r < ranges else 'exact'}-{r % ranges:05d}", fingerprint) for r in range(2 * ranges)
    ]


def cluster_tasks(recipe: Recipe, annotated: dict[str, Receipt], edges: dict[str, Receipt]) -> list[Task]:
    """The one task that joins the edges."""
    parts = [code_version(__name__), _settings(recipe), _shas(annotated), _shas(edges)]
    return [Task(CLUSTERS, "all", sha256_json(parts), arguments={"edges": sorted(edges)})]


def settings(recipe: Recipe, annotated: dict[str, Receipt]) -> dict[str, Any]:
    """What the workers need to know."""
    splits = sorted(annotated)
    units: dict[str, dict[str, int]] = {}
    for split in splits:
        source = split.partition("/")[0]
        tally = units.setdefault(source, {"records": 0, "characters": 0})
        for unit in tally:
            tally[unit] += annotated[split].tallies[source].out[unit]
    return {"deduplication": recipe.deduplication.model_dump(), "splits": splits, "units": units}


def cut(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """The keys of one split, by range: (key, row reference) as packed bytes."""
    rules = Deduplication.model_validate(settings["deduplication"])
    number, ranges = task.arguments["number"], task.arguments["ranges"]
    batch = Lookup(corpus, settings["splits"]).batch(number)
    references = (np.int64(number) << ROW_BITS) + np.arange(batch.num_rows, dtype=np.int64)

    def blocks() -> Iterator[tuple[int, bytes]]:
        if rules.minhash is not None and batch.num_rows:
            present = batch.column("has_signature").to_numpy(zero_copy_only=False)
            bands = band_hashes(signatures_of(batch)[present], scheme_of(rules.minhash))
            rows = np.repeat(references[present], bands.shape[1])
            yield from by_range(bands.ravel(), _packed(bands.ravel(), rows), ranges)
        if rules.exact and batch.num_rows:
            keys = halves(batch.column("content_hash"))[0]
            yield from by_range(keys, _packed(keys, references), ranges, ranges)

    return Mapped(blocks(), {}, {})


def find_edges(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """The verified edges of one range, as row references (smaller, larger)."""
    rules = Deduplication.model_validate(settings["deduplication"])
    lookup = Lookup(corpus, settings["splits"])
    pairs = np.concatenate([np.empty(0, KEY), *(np.frombuffer(block, KEY) for block in blocks)])

    def equal_signatures(a: Rows, b: Rows) -> npt.NDArray[np.float64]:
        return np.asarray((lookup.signatures(a) == lookup.signatures(b)).mean(axis=1))

    def equal_texts(a: Rows, b: Rows) -> npt.NDArray[np.float64]:
        (a_high, a_low), (b_high, b_low) = (halves(lookup.column("content_hash", rows)) for rows in (a, b))
        return np.asarray((a_high == b_high) & (a_low == b_low), np.float64)

    if task.name.startswith("near") and rules.minhash is not None:
        similar, threshold, rounds = equal_signatures, rules.minhash.threshold, rules.minhash.rounds
    else:
        similar, threshold, rounds = equal_texts, 1.0, 8
    edges, _, rejected, capped = verified_stars(pairs["key"], pairs["row"], similar, threshold, rounds)
    path = f"blocks/{EDGES}/{task.name}.arrow"
    columns = [pa.array(np.ascontiguousarray(edges[:, side]), pa.int64()) for side in (0, 1)]
    _write_batch(corpus / path, pa.RecordBatch.from_arrays(columns, schema=EDGE_SCHEMA))
    return Result([path], {}, {"edges": len(edges), "rejected": rejected, "capped": capped})


def join(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Clusters from edges: who stays, who goes and why; verdicts a split; the stage's tallies."""
    rules = Deduplication.model_validate(settings["deduplication"])
    lookup = Lookup(corpus, settings["splits"])
    nodes, labels = components(_edges(corpus, task.arguments["edges"]))
    tallies = {source: Tally() for source in settings["units"]}
    for source, units in settings["units"].items():
        tallies[source].enter(**units)
        tallies[source].keep(**units)
    text_bytes = _text_bytes(lookup)
    if not len(nodes):
        path = _write_duplicates(corpus, DUPLICATE_SCHEMA.empty_table())
        return Result([path], tallies, {"clusters": 0, "text_bytes": text_bytes})
    order = _survivors_first(lookup, nodes, labels, rules)
    nodes, labels = nodes[order], labels[order]
    first = np.r_[True, labels[1:] != labels[:-1]]
    kept = nodes[first][np.cumsum(first) - 1]
    reasons = _reasons(lookup, nodes, labels, first)
    _count_removed(lookup, nodes, reasons, tallies, text_bytes)
    ids = lookup.column("id", nodes)
    clusters = lookup.column("id", kept)
    table = _duplicates(lookup, rules, nodes, kept, ids, clusters, reasons, first)
    paths = [_write_duplicates(corpus, table), *_write_verdicts(corpus, lookup, nodes, clusters, reasons)]
    return Result(paths, tallies, {"clusters": int(first.sum()), "text_bytes": text_bytes})


def read_verdicts(corpus: Path, split: str) -> dict[int, tuple[bytes, str]]:
    """A split's rows that are in a cluster: row -> (cluster, reason or "" for the one that stays)."""
    path = corpus / _verdict_path(split)
    if not path.exists():
        return {}
    with pa.memory_map(str(path)) as mapped:
        rows = pa.ipc.open_file(mapped).get_batch(0).to_pylist()
    return {row["row"]: (row["cluster"], row["reason"]) for row in rows}


def _survivors_first(lookup: Lookup, nodes: Rows, labels: Rows, rules: Deduplication) -> npt.NDArray[np.int64]:
    """An order of the nodes: cluster by cluster, and in each the survivor first. The recipe's `survivor` is ended by
    the smallest id, so the order is total."""
    high, low = halves(lookup.column("id", nodes))
    keys: list[npt.NDArray[Any]] = []
    for rule in rules.survivor:
        if rule == "longest":
            keys.append(-lookup.column("characters", nodes).to_numpy(zero_copy_only=False))
        elif rule == "newest":
            stamps = lookup.column("timestamp", nodes).to_numpy(zero_copy_only=False).astype(str)
            keys.append(-np.unique(stamps, return_inverse=True)[1])
        else:
            ranks = {source: rank for rank, source in enumerate(rules.source_priority)}
            of_split = [ranks.get(split.partition("/")[0], len(ranks)) for split in lookup.splits]
            keys.append(np.array(of_split)[nodes >> ROW_BITS])
    return np.lexsort([low, high, *reversed(keys), labels])


def _reasons(lookup: Lookup, nodes: Rows, labels: Rows, first: npt.NDArray[np.bool_]) -> npt.NDArray[np.str_]:
    """Why each node goes: "" for the survivor, exact for a text that an earlier one of its cluster has, else near."""
    high, low = halves(lookup.column("content_hash", nodes))
    order = np.lexsort([np.arange(len(nodes)), low, high, labels])
    same = np.zeros(len(nodes), bool)
    a, b = order[:-1], order[1:]
    same[b] = (labels[a] == labels[b]) & (high[a] == high[b]) & (low[a] == low[b])
    duplicate = np.where(same, Reason.EXACT_DUPLICATE.value, Reason.NEAR_DUPLICATE.value)
    return np.where(first, "", duplicate)


def _count_removed(
    lookup: Lookup, nodes: Rows, reasons: npt.NDArray[np.str_], tallies: dict[str, Tally], text_bytes: dict[str, int]
) -> None:
    sources = np.array([split.partition("/")[0] for split in lookup.splits])[nodes >> ROW_BITS]
    characters = lookup.column("characters", nodes).to_numpy(zero_copy_only=False)
    sizes = lookup.column("bytes", nodes).to_numpy(zero_copy_only=False)
    for source in np.unique(sources):
        for reason in (Reason.EXACT_DUPLICATE, Reason.NEAR_DUPLICATE):
            chosen = (sources == source) & (reasons == reason.value)
            if chosen.any():
                units = {"records": int(chosen.sum()), "characters": int(characters[chosen].sum())}
                tallies[source].drop(reason, **units)
                tallies[source].out.subtract(units)
                text_bytes[source] -= int(sizes[chosen].sum())


def _duplicates(
    lookup: Lookup,
    rules: Deduplication,
    nodes: Rows,
    kept: Rows,
    ids: pa.Array,
    clusters: pa.Array,
    reasons: npt.NDArray[np.str_],
    first: npt.NDArray[np.bool_],
) -> pa.Table:
    similarity = np.ones(len(nodes), np.float32)
    near = reasons == Reason.NEAR_DUPLICATE.value
    if rules.minhash is not None and near.any():
        similarity[near] = (lookup.signatures(nodes[near]) == lookup.signatures(kept[near])).mean(axis=1)
    columns = [ids, clusters, clusters, pa.array(similarity), pa.array(reasons.tolist(), pa.string())]
    table = pa.Table.from_arrays(columns, schema=DUPLICATE_SCHEMA).filter(pa.array(~first))
    return table.sort_by([("cluster", "ascending"), ("removed", "ascending")])


def _write_duplicates(corpus: Path, table: pa.Table) -> str:
    path = "duplicates/clusters-00000-of-00001.parquet"
    with atomic_path(corpus / path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return path


def _write_verdicts(
    corpus: Path, lookup: Lookup, nodes: Rows, clusters: pa.Array, reasons: npt.NDArray[np.str_]
) -> Iterator[str]:
    for number in np.unique(nodes >> ROW_BITS):
        chosen = np.flatnonzero(nodes >> ROW_BITS == number)
        chosen = chosen[np.argsort(nodes[chosen])]
        rows = pa.array(nodes[chosen] & ((1 << ROW_BITS) - 1))
        columns = [rows, clusters.take(pa.array(chosen)), pa.array(reasons[chosen].tolist(), pa.string())]
        path = _verdict_path(lookup.splits[number])
        _write_batch(corpus / path, pa.RecordBatch.from_arrays(columns, schema=VERDICT_SCHEMA))
        yield path


def _verdict_path(split: str) -> str:
    return f"verdicts/{STAGE}/{split}.arrow"


def _write_batch(path: Path, batch: pa.RecordBatch) -> None:
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), batch.schema) as writer:
        writer.write_batch(batch)


def _edges(corpus: Path, names: list[str]) -> Rows:
    parts = [np.empty((0, 2), np.int64)]
    for name in names:
        with pa.memory_map(str(corpus / f"blocks/{EDGES}/{name}.arrow")) as mapped:
            batch = pa.ipc.open_file(mapped).get_batch(0)
            parts.append(np.stack([batch.column(side).to_numpy() for side in (0, 1)], axis=1))
    return np.concatenate(parts)


def _text_bytes(lookup: Lookup) -> dict[str, int]:
    """UTF-8 bytes of clean text, by source."""
    found: dict[str, int] = {}
    for number, split in enumerate(lookup.splits):
        source = split.partition("/")[0]
        found[source] = found.get(source, 0) + int(lookup.batch(number).column("bytes").to_numpy().sum())
    return found


def _packed(keys: npt.NDArray[np.uint64], rows: Rows) -> npt.NDArray[Any]:
    packed = np.empty(len(keys), KEY)
    packed["key"], packed["row"] = keys, rows
    return packed


def _ranges(annotated: dict[str, Receipt], recipe: Recipe) -> int:
    """How many ranges the keys need: follows from the data alone, never from the number of workers."""
    documents = sum(tally.out["records"] for receipt in annotated.values() for tally in receipt.tallies.values())
    minhash = recipe.deduplication.minhash
    keys = documents * (minhash.bands if minhash else 1)
    return max(1, -(-keys * KEY.itemsize // RANGE_BYTES))


def _settings(recipe: Recipe) -> dict[str, Any]:
    return recipe.deduplication.model_dump()


def _shas(found: dict[str, Receipt]) -> list[tuple[str, str]]:
    return [(name, receipt.sha()) for name, receipt in sorted(found.items())]
