"""survivors: which copy of each cluster stays; verdicts travel back by split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters.reasons import Reason
from manifests.document import ID_BYTES
from manifests.files import atomic_path, sha256_json
from manifests.ledger import Tally
from manifests.recipe import Deduplication, Recipe
from pipeline.beam.fingerprint import code_version
from pipeline.beam.task import Receipt, Result, Task, read_receipt
from pipeline.stages.clusters import read_labels
from pipeline.stages.containment import read_contained
from pipeline.stages.corpora import Split
from pipeline.stages.signatures import ROW_BITS, Lookup, Rows, halves

STAGE = "survivors"
CLUSTERS = "neardup/clusters"
OWNED = {CLUSTERS: ("duplicates", "verdicts/neardup")}

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


def tasks(recipe: Recipe, splits: list[Split], labels: list[Task], contained: dict[str, Receipt]) -> list[Task]:
    """The one task that chooses. `labels`: the tasks that hold the clusters; `contained`: what is in what."""
    rules = recipe.deduplication.model_dump(exclude={"against", "canaries", "one_worker"})
    parts = [rules, [[s.name, s.fingerprint] for s in splits], [[task.name, task.fingerprint] for task in labels]]
    parts.append([[name, receipt.sha()] for name, receipt in sorted(contained.items())])
    arguments = {
        "labels": [[task.stage, task.name] for task in labels],
        "contained": [receipt.outputs[0].path for _, receipt in sorted(contained.items())],
    }
    return [Task(CLUSTERS, "all", sha256_json([code_version(__name__), *parts]), 0, arguments)]


def settings(recipe: Recipe, splits: list[Split], annotated: dict[str, Receipt]) -> dict[str, Any]:
    """What the worker needs to know."""
    units: dict[str, dict[str, int]] = {}
    for name, receipt in annotated.items():
        source = name.partition("/")[0]
        tally = units.setdefault(source, {"records": 0, "characters": 0})
        for unit in tally:
            tally[unit] += receipt.tallies[source].out[unit]
    return {"deduplication": recipe.deduplication.model_dump(), "splits": splits, "units": units}


def join(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Who stays of each cluster, who goes and why; verdicts a split; the stage's tallies."""
    rules = Deduplication.model_validate(settings["deduplication"])
    splits: list[Split] = settings["splits"]
    lookup = Lookup([split.path for split in splits])
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for stage, name in task.arguments["labels"]:
        receipt = read_receipt(corpus, stage, name)
        assert receipt is not None, "the clusters are finished"
        parts.append(read_labels(corpus, receipt))
    nodes, labels = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    inner, outer, shares = read_contained(corpus, task.arguments["contained"])
    alone = np.setdiff1d(np.concatenate([inner, outer]), nodes)
    nodes, labels = np.concatenate([nodes, alone]), np.concatenate([labels, alone])
    return choose(corpus, rules, splits, lookup, settings["units"], nodes, labels, (inner, outer, shares))


def choose(
    corpus: Path,
    rules: Deduplication,
    splits: list[Split],
    lookup: Lookup,
    units: dict[str, dict[str, int]],
    nodes: Rows,
    labels: Rows,
    contained: tuple[Rows, Rows, npt.NDArray[np.float64]],
) -> Result:
    """The survivor of each cluster; `labels`: for each of `nodes`, the smallest of its cluster; `contained`: which
    nodes are almost whole in which others, and to what share. A survivor that is in another document goes as well,
    unless that one is of its own cluster: then the policy has chosen between them."""
    tallies = {source: Tally() for source in units}
    for source, counts in units.items():
        tallies[source].enter(**counts)
        tallies[source].keep(**counts)
    text_bytes = _text_bytes(lookup, splits)
    gone_before = _gone_before(splits, nodes)
    order = _survivors_first(lookup, splits, nodes, labels, rules, gone_before)
    nodes, labels, gone_before = nodes[order], labels[order], gone_before[order]
    first = np.r_[True, labels[1:] != labels[:-1]][: len(nodes)]
    kept = nodes[first][np.cumsum(first) - 1]
    here = ~np.array([split.earlier for split in splits], bool)[nodes >> ROW_BITS]
    reasons = np.where(here, _reasons(lookup, nodes, labels, first), "")
    similarity = _similarity(lookup, rules, nodes, kept, reasons)
    for place, other, share in _inside(nodes, labels, kept, first & here, contained):
        kept[place], reasons[place], similarity[place] = other, Reason.CONTAINED.value, share
    _count_removed(lookup, splits, nodes, reasons, tallies, text_bytes)
    clusters = lookup.column("id", kept) if len(kept) else pa.array([], pa.binary(ID_BYTES))
    table = _duplicates(lookup, nodes, clusters, similarity, reasons)
    path = "duplicates/clusters-00000-of-00001.parquet"
    with atomic_path(corpus / path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    verdicts = _write_verdicts(corpus, splits, nodes[here], clusters.filter(pa.array(here)), reasons[here])
    facts = {"clusters": int(first.sum()), "text_bytes": text_bytes}
    return Result([path, *verdicts], tallies, facts)


def read_verdicts(corpus: Path, split: str) -> dict[int, tuple[bytes, str]]:
    """A split's rows that are in a cluster: row -> (cluster, reason or "" for the one that stays)."""
    path = corpus / verdict_path(split)
    if not path.exists():
        return {}
    with pa.memory_map(str(path)) as mapped:
        rows = pa.ipc.open_file(mapped).get_batch(0).to_pylist()
    return {row["row"]: (row["cluster"], row["reason"]) for row in rows}


def verdict_path(split: str) -> str:
    """Where a split's verdicts lie, below the corpus."""
    return f"verdicts/neardup/{split}.arrow"


def _survivors_first(
    lookup: Lookup, splits: list[Split], nodes: Rows, labels: Rows, rules: Deduplication, gone: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """An order of the nodes: cluster by cluster, and in each the survivor first. What an earlier corpus kept comes
    before all, and what it removed after all; between them the recipe's `survivor`, ended by the smallest id."""
    if not len(nodes):
        return np.empty(0, np.int64)
    high, low = halves(lookup.column("id", nodes))
    of_split = nodes >> ROW_BITS
    earlier = np.array([split.earlier for split in splits], bool)[of_split]
    keys: list[npt.NDArray[Any]] = [np.where(gone, 2, np.where(earlier, 0, 1))]
    for rule in rules.survivor:
        if rule == "longest":
            keys.append(-lookup.column("characters", nodes).to_numpy(zero_copy_only=False))
        elif rule in ("newest", "oldest"):
            stamps = lookup.column("timestamp", nodes).to_numpy(zero_copy_only=False).astype(str)
            rank = np.unique(stamps, return_inverse=True)[1]
            keys.append(-rank if rule == "newest" else np.where(stamps == "", len(stamps), rank))
        elif rule == "score":
            scores = lookup.column("score", nodes).to_numpy(zero_copy_only=False).astype(np.float64)
            keys.append(-np.nan_to_num(scores, nan=-1.0))
        elif rule == "dump":
            keys.append(np.unique([split.dump for split in splits], return_inverse=True)[1][of_split])
        else:
            ranks = {source: rank for rank, source in enumerate(rules.source_priority)}
            keys.append(np.array([ranks.get(split.source, len(ranks)) for split in splits])[of_split])
    return np.lexsort([low, high, *reversed(keys), labels])


def _gone_before(splits: list[Split], nodes: Rows) -> npt.NDArray[np.bool_]:
    """Which nodes an earlier corpus has removed already."""
    gone = np.zeros(len(nodes), bool)
    for number in np.unique(nodes >> ROW_BITS).tolist():
        if splits[number].earlier:
            verdicts = read_verdicts(Path(splits[number].corpus), splits[number].name)
            rows = [row for row, (_, reason) in verdicts.items() if reason]
            gone |= np.isin(nodes, (np.int64(number) << ROW_BITS) + np.array(rows, np.int64))
    return gone


def _reasons(lookup: Lookup, nodes: Rows, labels: Rows, first: npt.NDArray[np.bool_]) -> npt.NDArray[np.str_]:
    """Why each node goes: "" for the survivor, exact for a text that an earlier one of its cluster has, else near."""
    if not len(nodes):
        return np.empty(0, "U16")
    high, low = halves(lookup.column("content_hash", nodes))
    order = np.lexsort([np.arange(len(nodes)), low, high, labels])
    same = np.zeros(len(nodes), bool)
    a, b = order[:-1], order[1:]
    same[b] = (labels[a] == labels[b]) & (high[a] == high[b]) & (low[a] == low[b])
    duplicate = np.where(same, Reason.EXACT_DUPLICATE.value, Reason.NEAR_DUPLICATE.value)
    return np.where(first, "", duplicate)


def _count_removed(
    lookup: Lookup,
    splits: list[Split],
    nodes: Rows,
    reasons: npt.NDArray[np.str_],
    tallies: dict[str, Tally],
    text_bytes: dict[str, int],
) -> None:
    removed = nodes[reasons != ""]
    if not len(removed):
        return
    why = reasons[reasons != ""]
    sources = np.array([split.source for split in splits])[removed >> ROW_BITS]
    characters = lookup.column("characters", removed).to_numpy(zero_copy_only=False)
    sizes = lookup.column("bytes", removed).to_numpy(zero_copy_only=False)
    for source in np.unique(sources).tolist():
        for reason in (Reason.EXACT_DUPLICATE, Reason.NEAR_DUPLICATE, Reason.CONTAINED):
            chosen = (sources == source) & (why == reason.value)
            if chosen.any():
                units = {"records": int(chosen.sum()), "characters": int(characters[chosen].sum())}
                tallies[source].drop(reason, **units)
                tallies[source].out.subtract(units)
                text_bytes[source] -= int(sizes[chosen].sum())


def _similarity(
    lookup: Lookup, rules: Deduplication, nodes: Rows, kept: Rows, reasons: npt.NDArray[np.str_]
) -> npt.NDArray[np.float32]:
    """How like its cluster's survivor each node is, estimated; 1 for exact copies."""
    similarity = np.ones(len(nodes), np.float32)
    near = reasons == Reason.NEAR_DUPLICATE.value
    if rules.minhash is not None and near.any():
        similarity[near] = (lookup.signatures(nodes[near]) == lookup.signatures(kept[near])).mean(axis=1)
    return similarity


def _inside(
    nodes: Rows,
    labels: Rows,
    kept: Rows,
    survivors: npt.NDArray[np.bool_],
    contained: tuple[Rows, Rows, npt.NDArray[np.float64]],
) -> Iterator[tuple[int, int, float]]:
    """Survivors that are in another cluster's document: (place, the survivor of that cluster, share). Of two survivors
    that are in each other, the one of the larger share goes, then the one of the larger reference."""
    places = {node: place for place, node in enumerate(nodes.tolist())}
    going: set[int] = set()
    order = np.lexsort([contained[0], -contained[2]])
    for inner, outer, share in zip(*(column[order].tolist() for column in contained), strict=True):
        place, other = places[inner], int(kept[places[outer]])
        if not survivors[place] or labels[place] == labels[places[outer]] or inner in going or other in going:
            continue
        going.add(inner)
        yield place, other, share


def _duplicates(
    lookup: Lookup,
    nodes: Rows,
    clusters: pa.Array,
    similarity: npt.NDArray[np.float32],
    reasons: npt.NDArray[np.str_],
) -> pa.Table:
    gone = reasons != ""
    if not gone.any():
        return DUPLICATE_SCHEMA.empty_table()
    ids = lookup.column("id", nodes[gone])
    kept = clusters.filter(pa.array(gone))
    columns = [ids, kept, kept, pa.array(similarity[gone]), pa.array(reasons[gone].tolist(), pa.string())]
    table = pa.Table.from_arrays(columns, schema=DUPLICATE_SCHEMA)
    return table.sort_by([("cluster", "ascending"), ("removed", "ascending")])


def _write_verdicts(
    corpus: Path, splits: list[Split], nodes: Rows, clusters: pa.Array, reasons: npt.NDArray[np.str_]
) -> Iterator[str]:
    for number in np.unique(nodes >> ROW_BITS).tolist():
        chosen = np.flatnonzero(nodes >> ROW_BITS == number)
        chosen = chosen[np.argsort(nodes[chosen])]
        rows = pa.array(nodes[chosen] & ((1 << ROW_BITS) - 1))
        columns = [rows, clusters.take(pa.array(chosen)), pa.array(reasons[chosen].tolist(), pa.string())]
        path = verdict_path(splits[number].name)
        batch = pa.RecordBatch.from_arrays(columns, schema=VERDICT_SCHEMA)
        with atomic_path(corpus / path) as temporary, pa.ipc.new_file(str(temporary), batch.schema) as writer:
            writer.write_batch(batch)
        yield path


def _text_bytes(lookup: Lookup, splits: list[Split]) -> dict[str, int]:
    """UTF-8 bytes of this run's clean text, by source."""
    found: dict[str, int] = {}
    for number, split in enumerate(splits):
        if not split.earlier:
            size = int(lookup.batch(number).column("bytes").to_numpy().sum())
            found[split.source] = found.get(split.source, 0) + size
    return found
