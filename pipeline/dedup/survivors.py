"""clusters: the survivor of each cluster, chosen by one worker, and the verdicts on all documents.

Verdicts go back by split. From these, `clusters/` is written beside `clean/`, row by row, so that no text is written
again.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from filters.dedup.settings import Deduplication
from filters.reasons import Reason
from manifests.document import CLUSTER_SCHEMA, ID_BYTES
from manifests.files import atomic_path
from manifests.ledger import Tally
from manifests.recipe import Recipe
from pipeline.beam.step import Keyed, Output, Receipt, Receipts, Result, Step, Unit, source_of
from pipeline.beam.tables import id_halves, read_ipc, write_ipc
from pipeline.dedup.clusters import STAGE, read_labels
from pipeline.dedup.containment import read_contained
from pipeline.dedup.signatures import ROW_BITS, SIGNATURES, Lookup, Rows, Split, signature_path, verdict_path

SURVIVORS, TABLES = f"{STAGE}/survivors", f"{STAGE}/tables"
FOLDER = "clusters"

DUPLICATE_SCHEMA = pa.schema(
    [
        ("removed", pa.binary(ID_BYTES)),
        ("kept", pa.binary(ID_BYTES)),
        ("cluster", pa.binary(ID_BYTES)),
        ("similarity", pa.float32()),
        ("reason", pa.string()),
    ]
)
# a row of a split for each document in a cluster; the reason is empty for the one that stays
VERDICT_SCHEMA = pa.schema(
    [("row", pa.int64()), ("cluster", pa.binary(ID_BYTES)), ("reason", pa.string()), ("cluster_size", pa.uint32())]
)


class Verdict(NamedTuple):
    """The decision about a document in a cluster.

    Attributes:
        cluster: the id of the document that stays.
        reason: why this one does not stay, empty for the one that does.
        size: documents of this run that the one that stays stands for.
    """

    cluster: bytes
    reason: str
    size: int


def survivor_step(
    recipe: Recipe, splits: list[Split], filtered: Receipts, labels: Receipts, contained: Receipts
) -> Step:
    """Return the step with the one unit that chooses.

    Args:
        recipe: the run's.
        splits: of this run and of earlier corpora.
        filtered: receipts of clean documents by split.
        labels: the clusters.
        contained: by source, the documents that are almost whole in others.
    """
    rules = recipe.deduplication
    units: dict[str, dict[str, int]] = {}
    for name, receipt in filtered.items():
        tally = units.setdefault(source_of(name), {"records": 0, "characters": 0})
        out = receipt.out_of(source_of(name))
        for unit in tally:
            tally[unit] += out[unit]
    settings = {
        "rules": Keyed(rules, rules.model_dump(include={"survivor", "source_priority"})),
        "splits": Keyed(splits, [[split.name, split.signatures] for split in splits]),
        "units": units,
        "labels": [receipt.outputs[0].path for receipt in labels.values()],
        "contained": [receipt.outputs[0].path for _, receipt in sorted(contained.items())],
    }
    reads = [list(labels.values()), [receipt for _, receipt in sorted(contained.items())]]
    return Step(
        SURVIVORS, choose_survivors, [Unit("all", {}, reads)], settings, owns=("duplicates", f"verdicts/{STAGE}")
    )


def choose_survivors(
    corpus: Path,
    unit: str,
    *,
    rules: Deduplication,
    splits: list[Split],
    units: dict[str, dict[str, int]],
    labels: list[str],
    contained: list[str],
) -> Result:
    """Write the survivor of each cluster, the others with their reasons, and verdicts per split; count what is removed.

    A survivor that is almost whole in another document is removed as well, unless that one is of its own cluster: then
    the policy has chosen between them. Its cluster becomes part of the other's.
    """
    lookup = Lookup([split.path for split in splits])
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64)), *(read_labels(corpus / path) for path in labels)]
    nodes, smallest = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    inside = read_contained(corpus, contained)
    alone = np.setdiff1d(np.concatenate(inside[:2]), nodes)
    nodes, smallest = np.concatenate([nodes, alone]), np.concatenate([smallest, alone])

    tallies = {source: Tally() for source in units}
    for source, counts in units.items():
        tallies[source].enter(**counts)
        tallies[source].keep(**counts)
    text_bytes = _text_bytes(lookup, splits)
    order = _survivors_first(lookup, splits, nodes, smallest, rules, _removed_before(splits, nodes))
    nodes, smallest = nodes[order], smallest[order]
    first = np.r_[True, smallest[1:] != smallest[:-1]][: len(nodes)]
    number = np.cumsum(first) - 1  # of each node's cluster
    earlier = np.array([split.earlier for split in splits], bool)
    here = ~earlier[nodes >> ROW_BITS]
    reasons = np.where(here, _reasons(lookup, nodes, smallest, first), "")
    similarity = _similarity(lookup, splits, nodes, nodes[first][number], reasons)
    into, found = join_contained(nodes, number, first & here, inside)
    for place, share in found:
        reasons[place], similarity[place] = Reason.CONTAINED.value, share
    number = into[number]
    kept, sizes = nodes[first][number], np.bincount(number, here).astype(np.uint32)[number]
    _count_removed(lookup, splits, nodes, reasons, tallies, text_bytes)
    clusters = lookup.column("id", kept) if len(kept) else pa.array([], pa.binary(ID_BYTES))
    table = _duplicates(lookup, nodes, clusters, similarity, reasons)
    path = "duplicates/clusters-00000-of-00001.parquet"
    with atomic_path(corpus / path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    verdicts = _write_verdicts(corpus, splits, nodes[here], clusters.filter(pa.array(here)), reasons[here], sizes[here])
    facts = {
        "clusters": len(np.unique(number[sizes > 1])),
        "largest": int(sizes.max(initial=1)),
        "of_earlier": int((here & earlier[kept >> ROW_BITS]).sum()),
        "text_bytes": text_bytes,
    }
    return Result([path, *verdicts], tallies, facts)


def join_contained(
    nodes: Rows,
    number: npt.NDArray[np.int64],
    removable: npt.NDArray[np.bool_],
    contained: tuple[Rows, Rows, npt.NDArray[np.float64]],
) -> tuple[npt.NDArray[np.int64], list[tuple[int, float]]]:
    """Find the survivors that lie within a document of another cluster, and join their clusters to the other one.

    Of two survivors within each other, the one of the larger share is removed, then the one of the larger reference.

    Args:
        nodes: (n,) row references, each cluster's survivor first.
        number: (n,) of each node's cluster, ascending from 0.
        removable: (n,) True for survivors that may be removed.
        contained: (inner, outer, share) of pairs of nodes.

    Returns:
        (clusters,) the number of the cluster that each one became part of, its own for those that stay; and the places
        of the survivors that are removed, each with its share.
    """
    into = np.arange(int(number[-1]) + 1 if len(number) else 0)
    removed: list[tuple[int, float]] = []
    if not len(contained[0]):
        return into, removed
    order = np.argsort(nodes)
    inner, outer = (order[np.searchsorted(nodes[order], column)] for column in contained[:2])
    ranked = np.lexsort([contained[0], -contained[2]])
    columns = (column[ranked].tolist() for column in (inner, outer, contained[2]))
    for place, other, share in zip(*columns, strict=True):
        own, target = int(number[place]), _follow(into, int(number[other]))
        if removable[place] and into[own] == own and own != target:
            into[own] = target
            removed.append((place, share))
    while (into[into] != into).any():
        into = into[into]
    return into, removed


def _follow(into: npt.NDArray[np.int64], cluster: int) -> int:
    while into[cluster] != cluster:
        cluster = int(into[cluster])
    return cluster


def findings(survivors: Receipt) -> dict[str, int]:
    """Return the counts for the manifest.

    They are clusters of several documents of this run, the documents of the largest, and documents of this run that
    were removed as duplicates of an earlier corpus's.
    """
    return {name: survivors.facts[name] for name in ("clusters", "largest", "of_earlier")}


def table_step(filtered: Receipts, survivors: Receipt) -> Step:
    """Return the step that writes `clusters/`, with a unit per split."""
    return Step(TABLES, write_clusters, survivor_units(filtered, survivors, SIGNATURES), owns=(FOLDER,))


def survivor_units(filtered: Receipts, survivors: Receipt, folder: str = "clean") -> list[Unit]:
    """Return a unit per split that reads its files below a folder, and the verdicts on its documents.

    Args:
        filtered: receipts of clean documents by split.
        survivors: the receipt of the survivors.
        folder: of clean documents or of signatures.
    """
    found, units = verdicts_of(survivors), []
    for split, receipt in sorted(filtered.items()):
        verdicts = found.get(split)
        reads = [receipt.below(folder), verdicts]
        path = verdicts.path if verdicts is not None else ""
        units.append(Unit(split, {"verdicts": path}, reads, receipt.below("clean")[0].bytes, source_of(split)))
    return units


def write_clusters(corpus: Path, split: str, *, verdicts: str) -> Result:
    """Write the clusters of one split's clean documents, in their order."""
    ids = read_ipc(corpus / signature_path(split)).column("id")
    clusters, sizes, reasons = ids.to_pylist(), [1] * len(ids), [""] * len(ids)
    for row, verdict in read_verdicts(corpus, verdicts).items():
        clusters[row], sizes[row], reasons[row] = verdict.cluster, verdict.size, verdict.reason
    table, path = pa.table([ids, clusters, sizes, reasons], schema=CLUSTER_SCHEMA), f"{FOLDER}/{split}.parquet"
    with atomic_path(corpus / path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return Result([path])


@lru_cache(maxsize=1)
def verdicts_of(clusters: Receipt) -> dict[str, Output]:
    """Return the file of the verdicts on each split that has any, from the receipt of the survivors.

    A file that is missing must be an error: its documents would be kept.
    """
    prefix, suffix = verdict_path("\0").split("\0")
    found = [output for output in clusters.outputs if output.path.startswith(prefix)]
    return {output.path.removeprefix(prefix).removesuffix(suffix): output for output in found}


def read_verdicts(corpus: Path, path: str) -> dict[int, Verdict]:
    """Return the verdicts on a split's documents that are in a cluster, by row.

    `path`, below the corpus, is empty for a split that has none.
    """
    rows = read_ipc(corpus / path).to_pylist() if path else []
    return {row["row"]: Verdict(row["cluster"], row["reason"], row["cluster_size"]) for row in rows}


def _survivors_first(
    lookup: Lookup, splits: list[Split], nodes: Rows, labels: Rows, rules: Deduplication, gone: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Return an order of the nodes: cluster by cluster, and in each the survivor first.

    Documents that an earlier corpus kept come before all, and those that it removed after all; between them the
    recipe's `survivor` decides, and last the smallest id.
    """
    if not len(nodes):
        return np.empty(0, np.int64)
    high, low = id_halves(lookup.column("id", nodes))
    of_split = nodes >> ROW_BITS
    earlier = np.array([split.earlier for split in splits], bool)[of_split]
    keys: list[npt.NDArray[Any]] = [np.where(gone, 2, np.where(earlier, 0, 1))]
    for rule in rules.survivor:
        if rule == "longest":
            keys.append(-lookup.column("characters", nodes).to_numpy(zero_copy_only=False))
        elif rule == "cleanest":
            keys.append(lookup.column("leftovers", nodes).to_numpy(zero_copy_only=False))
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


def _removed_before(splits: list[Split], nodes: Rows) -> npt.NDArray[np.bool_]:
    """Return True for each node that an earlier corpus has removed already."""
    gone = np.zeros(len(nodes), bool)
    for number in np.unique(nodes >> ROW_BITS).tolist():
        if splits[number].earlier:
            verdicts = read_verdicts(Path(splits[number].corpus), splits[number].verdicts)
            rows = [row for row, verdict in verdicts.items() if verdict.reason]
            gone |= np.isin(nodes, (np.int64(number) << ROW_BITS) + np.array(rows, np.int64))
    return gone


def _reasons(lookup: Lookup, nodes: Rows, labels: Rows, first: npt.NDArray[np.bool_]) -> npt.NDArray[np.str_]:
    """Return each node's reason: "" for the survivor, exact for the text of an earlier one of it, else near."""
    if not len(nodes):
        return np.empty(0, "U16")
    high, low = id_halves(lookup.column("content_hash", nodes))
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
    lookup: Lookup, splits: list[Split], nodes: Rows, kept: Rows, reasons: npt.NDArray[np.str_]
) -> npt.NDArray[np.float32]:
    """Return each node's estimated similarity to its cluster's survivor; 1 for exact copies.

    It is NaN where the two have signatures of different schemes: a chain of duplicates joined them.
    """
    similarity = np.ones(len(nodes), np.float32)
    similarity[reasons == Reason.NEAR_DUPLICATE.value] = np.nan
    schemes = np.array([split.compared.scheme for split in splits])
    for scheme in {split.compared.scheme for split in splits} - {""}:
        alike = (schemes[nodes >> ROW_BITS] == scheme) & (schemes[kept >> ROW_BITS] == scheme)
        near = np.flatnonzero(alike & (reasons == Reason.NEAR_DUPLICATE.value))
        if len(near):
            similarity[near] = (lookup.signatures(nodes[near]) == lookup.signatures(kept[near])).mean(axis=1)
    return similarity


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
    shares = pa.array(similarity[gone], from_pandas=True)  # NaN is null
    columns = [ids, kept, kept, shares, pa.array(reasons[gone].tolist(), pa.string())]
    table = pa.Table.from_arrays(columns, schema=DUPLICATE_SCHEMA)
    return table.sort_by([("cluster", "ascending"), ("removed", "ascending")])


def _write_verdicts(
    corpus: Path,
    splits: list[Split],
    nodes: Rows,
    clusters: pa.Array,
    reasons: npt.NDArray[np.str_],
    sizes: npt.NDArray[np.uint32],
) -> Iterator[str]:
    for number in np.unique(nodes >> ROW_BITS).tolist():
        chosen = np.flatnonzero(nodes >> ROW_BITS == number)
        chosen = chosen[np.argsort(nodes[chosen])]
        rows = pa.array(nodes[chosen] & ((1 << ROW_BITS) - 1))
        texts = pa.array(reasons[chosen].tolist(), pa.string())
        columns = [rows, clusters.take(pa.array(chosen)), texts, pa.array(sizes[chosen])]
        path = verdict_path(splits[number].name)
        write_ipc(corpus / path, VERDICT_SCHEMA, columns)
        yield path


def _text_bytes(lookup: Lookup, splits: list[Split]) -> dict[str, int]:
    """Return the UTF-8 bytes of this run's clean text, by source."""
    found: dict[str, int] = {}
    for number, split in enumerate(splits):
        if not split.earlier:
            size = int(lookup.batch(number).column("bytes").to_numpy().sum())
            found[split.source] = found.get(split.source, 0) + size
    return found
