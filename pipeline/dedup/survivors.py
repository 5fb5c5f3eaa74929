"""Stage clusters, second part: choose the document of each cluster that stays (the survivor), and write verdicts.

One worker chooses all survivors. It holds about 180 bytes for each document in a cluster (docs/scale.md). For the
choice it also needs columns and signatures, which are about a hundred times larger. These are loaded only for a slice
of the clusters at a time. The worker writes one file of verdicts per split. From these files, `clusters/` is written,
with the same rows as `clean/`, so that no text is written again.
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
from filters.hashing import Mask, run_starts
from filters.quality.c4 import time_key
from filters.reasons import Reason
from manifests.document import CLUSTER_SCHEMA, ID_BYTES
from manifests.files import atomic_path
from manifests.ledger import Tally
from manifests.recipe import Recipe
from pipeline.beam.step import BLOCKS, Awaited, Files, Keyed, Output, Receipt, Receipts, Result, Step, Unit, source_of
from pipeline.beam.tables import id_halves, read_ipc, write_ipc
from pipeline.dedup.clusters import STAGE, read_labels
from pipeline.dedup.containment import read_contained
from pipeline.dedup.signatures import (
    COMPARED_COLUMNS,
    ROW_BITS,
    ROW_MASK,
    SIGNATURES,
    Lookup,
    Rows,
    Split,
    places_by_split,
    signature_path,
    verdict_path,
)

SURVIVORS, TABLES = f"{STAGE}/survivors", f"{STAGE}/tables"
FOLDER, DUPLICATES = "clusters", "duplicates"
GROUP_ROWS = 1 << 20  # rows in a row group of the file of duplicates
# Documents in a slice of clusters; more if one cluster is larger. Their columns and signatures take 1.4 GB.
SLICE_DOCUMENTS = 1 << 20
REASONS = ("", Reason.EXACT_DUPLICATE.value, Reason.NEAR_DUPLICATE.value, Reason.CONTAINED.value)
STAYS, EXACT, NEAR, CONTAINED = range(4)  # codes of reasons: indices into REASONS

Codes = npt.NDArray[np.uint8]
Similarities = npt.NDArray[np.float32]  # NaN if signatures cannot be compared

DUPLICATE_SCHEMA = pa.schema(
    [
        ("removed", pa.binary(ID_BYTES)),
        ("kept", pa.binary(ID_BYTES)),
        ("cluster", pa.binary(ID_BYTES)),
        ("similarity", pa.float32()),
        ("reason", pa.string()),
    ]
)
# One row for each document of a split that is in a cluster. The reason is empty for the survivor.
VERDICT_SCHEMA = pa.schema(
    [("row", pa.int64()), ("cluster", pa.binary(ID_BYTES)), ("reason", pa.string()), ("cluster_size", pa.uint32())]
)


class Verdict(NamedTuple):
    """The decision about a document in a cluster.

    Attributes:
        cluster: id of the survivor.
        reason: reason why the document is removed; empty for the survivor.
        size: number of documents of this run in the cluster.
    """

    cluster: bytes
    reason: str
    size: int


def survivor_step(recipe: Recipe, splits: list[Split], filtered: Receipts, labels: Step, contained: Step) -> Step:
    """Return the step that chooses survivors. It has one unit.

    Args:
        recipe: the recipe of the run.
        splits: the splits of this run and of earlier corpora.
        filtered: the receipts of `filter`, by split.
        labels: the step that writes the clusters.
        contained: the step that finds contained documents.
    """
    rules = recipe.deduplication
    units: dict[str, dict[str, int]] = {}
    for name, receipt in filtered.items():
        tally = units.setdefault(source_of(name), {"records": 0, "characters": 0})
        out = receipt.output_counts(source_of(name))
        for unit in tally:
            tally[unit] += out[unit]
    settings = {
        "rules": Keyed(rules, rules.model_dump(include={"survivor", "source_priority"})),
        "splits": Keyed(splits, [[split.name, split.signatures, split.verdicts] for split in splits]),
        "units": units,
        "labels": [f"{BLOCKS}/{labels.name}/{unit.name}.arrow" for unit in labels.units],
        "contained": [f"{BLOCKS}/{contained.name}/{unit.name}.arrow" for unit in contained.units],
    }
    awaits = tuple(Awaited(step.name, unit.name) for step in (labels, contained) for unit in step.units)
    owned = (DUPLICATES, f"verdicts/{STAGE}")
    return Step(SURVIVORS, choose_survivors, [Unit("all", awaits=awaits)], settings, owns=owned)


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
    """Choose the survivor of each cluster. Write the removed documents and one file of verdicts per split.

    A survivor that is almost completely contained in a document of another cluster is also removed, and its cluster
    becomes part of the other cluster. If both documents are in the same cluster, the criteria of `survivor` have
    already chosen between them.

    Args:
        corpus: folder of the corpus.
        unit: name of the unit.
        rules: the settings of de-duplication.
        splits: the splits of this run and of earlier corpora.
        units: numbers of clean records and characters, by source.
        labels: paths of the clusters.
        contained: paths of the contained pairs.
    """
    lookup, pairs_inside = Lookup([split.path for split in splits]), read_contained(corpus, contained)
    nodes, smallest = _read_clusters([corpus / path for path in labels], pairs_inside)
    first, gone = run_starts(smallest), _find_removed_before(splits, nodes)
    codes, similarity = np.zeros(len(nodes), np.uint8), np.ones(len(nodes), np.float32)
    for part in cluster_slices(first):
        chosen = choose_in_clusters(lookup, splits, nodes[part], smallest[part], gone[part], rules)
        nodes[part], codes[part], similarity[part] = chosen
    heads, number = nodes[first], np.cumsum(first) - 1  # the survivors, and the number of the cluster of each node
    earlier = np.array([split.earlier for split in splits], bool)
    of_this_run = ~earlier[nodes >> ROW_BITS]
    merged_into, found = join_contained(nodes, number, first & of_this_run, pairs_inside)
    for place, share in found:
        codes[place], similarity[place] = CONTAINED, share
    number = merged_into[number]
    sizes = np.bincount(number[of_this_run], minlength=len(heads)).astype(np.uint32)
    clusters = lookup.column("id", heads) if len(heads) else pa.array([], pa.binary(ID_BYTES))

    tallies = {source: Tally() for source in units}
    for source, counts in units.items():
        tallies[source].enter(**counts)
        tallies[source].keep(**counts)
    text_bytes, paths = _count_text_bytes(lookup, splits), [f"{DUPLICATES}/clusters-00000-of-00001.parquet"]
    _write_duplicates(corpus / paths[0], lookup, nodes, number, codes, similarity, clusters)
    for split, places in places_by_split(nodes):
        if not earlier[split]:
            paths.append(verdict_path(splits[split].name))
            rows, own = nodes[places] & ROW_MASK, number[places]
            _write_verdicts(corpus / paths[-1], rows, clusters.take(pa.array(own)), codes[places], sizes[own])
            text_bytes[splits[split].source] -= _count_removed(
                lookup.batch(split), rows, codes[places], tallies[splits[split].source]
            )
    facts = {
        "clusters": int((sizes > 1).sum()),
        "largest": int(sizes.max(initial=1)),
        "of_earlier": int((of_this_run & earlier[heads >> ROW_BITS][number]).sum()),
        "text_bytes": text_bytes,
    }
    return Result(paths, tallies, facts)


def cluster_slices(first: Mask, most: int = SLICE_DOCUMENTS) -> Iterator[slice]:
    """Yield slices that consist of whole clusters.

    Args:
        first: (n,) True for the first document of each cluster. Documents are sorted by cluster.
        most: largest number of documents in a slice. A larger cluster is a slice by itself.
    """
    edges = np.append(np.flatnonzero(first), len(first))
    at = 0
    while edges[at] < len(first):
        after = max(at + 1, int(np.searchsorted(edges, edges[at] + most, side="right")) - 1)
        yield slice(int(edges[at]), int(edges[after]))
        at = after


def choose_in_clusters(
    lookup: Lookup, splits: list[Split], nodes: Rows, labels: Rows, gone: Mask, rules: Deduplication
) -> tuple[Rows, Codes, Similarities]:
    """Choose the survivors of some clusters.

    Args:
        lookup: returns columns of documents.
        splits: the splits of this run and of earlier corpora.
        nodes: (n,) row references of the documents.
        labels: (n,) the label of the cluster of each document, ascending.
        gone: (n,) True for documents that an earlier corpus has removed.
        rules: the settings of de-duplication.

    Returns:
        The documents, with the survivor of each cluster first; the code of each document's reason; the similarity of
        each document to the survivor of its cluster.
    """
    nodes = nodes[_order_survivors_first(lookup, splits, nodes, labels, rules, gone)]
    first = run_starts(labels)
    kept = np.flatnonzero(first)[np.cumsum(first) - 1]
    codes = _find_reasons(lookup, nodes, kept)
    codes[np.array([split.earlier for split in splits], bool)[nodes >> ROW_BITS]] = STAYS
    return nodes, codes, _estimate_similarity(lookup, splits, nodes, nodes[kept], codes)


def _order_survivors_first(
    lookup: Lookup, splits: list[Split], nodes: Rows, labels: Rows, rules: Deduplication, gone: Mask
) -> npt.NDArray[np.int64]:
    """Return the order of nodes by cluster, with the survivor of each cluster first. See `choose_in_clusters`.

    In each cluster, documents that an earlier corpus kept come first, then the documents of this run, and then
    documents that an earlier corpus removed. Within these groups, the criteria of `survivor` decide, and finally the
    smallest id.
    """
    high, low = id_halves(lookup.column("id", nodes))
    of_split = nodes >> ROW_BITS
    earlier = np.array([split.earlier for split in splits], bool)[of_split]
    keys: list[npt.NDArray[Any]] = [np.where(gone, 2, np.where(earlier, 0, 1))]
    for rule in rules.survivor:
        if rule in COMPARED_COLUMNS:
            keys.append(_sort_keys(rule, lookup.column(COMPARED_COLUMNS[rule], nodes).to_numpy(zero_copy_only=False)))
        elif rule == "dump":
            keys.append(np.unique([split.dump for split in splits], return_inverse=True)[1][of_split])
        else:
            ranks = {source: rank for rank, source in enumerate(rules.source_priority)}
            keys.append(np.array([ranks.get(split.source, len(ranks)) for split in splits])[of_split])
    return np.lexsort([low, high, *reversed(keys), labels])


def _sort_keys(rule: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return sort keys for a criterion of `survivor`. The preferred document has the smallest key.

    Args:
        rule: the criterion.
        values: values of the column that the criterion compares.
    """
    if rule == "longest":
        return -values
    if rule in ("newest", "oldest"):
        stamps, places = np.unique(values.astype(str), return_inverse=True)
        times = np.array(list(map(time_key, stamps.tolist())), np.int64)[places]
        return -times if rule == "newest" else np.where(times == 0, np.iinfo(np.int64).max, times)
    if rule == "score":
        return -np.nan_to_num(values.astype(np.float64), nan=-1.0)
    return values


def _find_reasons(lookup: Lookup, nodes: Rows, kept: npt.NDArray[np.int64]) -> Codes:
    """Return the code of the reason of each node.

    It is `STAYS` for a survivor, `EXACT` for a node with the same text as its survivor, and otherwise `NEAR`.

    Args:
        lookup: returns columns of documents.
        nodes: (n,) row references.
        kept: (n,) index, in `nodes`, of the survivor of each node's cluster.
    """
    high, low = id_halves(lookup.column("content_hash", nodes))
    same = (high == high[kept]) & (low == low[kept])
    return np.where(kept == np.arange(len(nodes)), STAYS, np.where(same, EXACT, NEAR)).astype(np.uint8)


def _estimate_similarity(lookup: Lookup, splits: list[Split], nodes: Rows, kept: Rows, codes: Codes) -> Similarities:
    """Return the estimated similarity of each node to the survivor of its cluster; 1 for exact copies.

    It is NaN if the two documents have no signatures of the same scheme. In this case only other documents join them.
    """
    similarity = np.ones(len(nodes), np.float32)
    similarity[codes == NEAR] = np.nan
    schemes = np.array([split.compared.scheme for split in splits])
    for scheme in {split.compared.scheme for split in splits} - {""}:
        alike = (schemes[nodes >> ROW_BITS] == scheme) & (schemes[kept >> ROW_BITS] == scheme)
        near = np.flatnonzero(alike & (codes == NEAR))
        if len(near):
            similarity[near] = (lookup.signatures(nodes[near]) == lookup.signatures(kept[near])).mean(axis=1)
    return similarity


def _read_clusters(labels: list[Path], pairs_inside: tuple[Rows, Rows, npt.NDArray[np.float64]]) -> tuple[Rows, Rows]:
    """Read all clusters.

    A document of a contained pair that is in no cluster becomes a cluster by itself.

    Args:
        labels: paths of the clusters.
        pairs_inside: the contained pairs, from `read_contained`.

    Returns:
        The documents of all clusters, and for each document the smallest document of its cluster. They are sorted by
        the smallest document.
    """
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64)), *map(read_labels, labels)]
    nodes, smallest = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    alone = np.setdiff1d(np.concatenate(pairs_inside[:2]), nodes)
    nodes, smallest = np.concatenate([nodes, alone]), np.concatenate([smallest, alone])
    order = np.argsort(smallest, kind="stable")
    return nodes[order], smallest[order]


def join_contained(
    nodes: Rows,
    number: npt.NDArray[np.int64],
    removable: npt.NDArray[np.bool_],
    contained: tuple[Rows, Rows, npt.NDArray[np.float64]],
) -> tuple[npt.NDArray[np.int64], list[tuple[int, float]]]:
    """Find survivors that are contained in a document of another cluster, and join their clusters to that cluster.

    If two survivors contain each other, the survivor with the larger share is removed. If the shares are equal, the
    survivor with the larger id is removed.

    Args:
        nodes: (n,) row references, with the survivor of each cluster first.
        number: (n,) number of the cluster of each node, ascending from 0.
        removable: (n,) True for survivors that may be removed.
        contained: (inner, outer, share) of pairs of nodes, sorted by the id of the inner and then of the outer node.

    Returns:
        (clusters,) for each cluster the number of the cluster that it became part of, which is its own number if it was
        not joined to another; and the indices of the removed survivors, each with its share.
    """
    merged_into = np.arange(int(number[-1]) + 1 if len(number) else 0)
    removed: list[tuple[int, float]] = []
    if not len(contained[0]):
        return merged_into, removed
    order = np.argsort(nodes)
    inner, outer = (order[np.searchsorted(nodes[order], column)] for column in contained[:2])
    ranked = np.lexsort([-np.arange(len(inner)), -contained[2]])
    columns = (column[ranked].tolist() for column in (inner, outer, contained[2]))
    for place, other, share in zip(*columns, strict=True):
        own, target = int(number[place]), int(number[other])
        while merged_into[target] != target:
            target = int(merged_into[target])
        if removable[place] and merged_into[own] == own and own != target:
            merged_into[own] = target
            removed.append((place, share))
    while (merged_into[merged_into] != merged_into).any():
        merged_into = merged_into[merged_into]
    return merged_into, removed


def findings(survivors: Receipt) -> dict[str, int]:
    """Return the counts for the manifest.

    Returns:
        `clusters`, the number of clusters with several documents of this run; `largest`, the number of documents of
        this run in the largest cluster; `of_earlier`, the number of documents of this run that were removed as
        duplicates of documents of an earlier corpus.
    """
    return {name: survivors.facts[name] for name in ("clusters", "largest", "of_earlier")}


def table_step(filtered: Receipts, survivors: Receipt) -> Step:
    """Return the step that writes `clusters/`, with one unit per split."""
    return Step(TABLES, write_clusters, survivor_units(filtered, survivors, f"{SIGNATURES}/"), owns=(FOLDER,))


def survivor_units(filtered: Receipts, survivors: Receipt, folder: str = "clean/") -> list[Unit]:
    """Return one unit per split. It reads the files of the split in one folder, and the verdicts on its documents.

    Args:
        filtered: the receipts of `filter`, by split.
        survivors: the receipt of the step that chooses survivors.
        folder: the folder of clean documents or of signature files, with a slash at its end.
    """
    found, folders, units = verdicts_of(survivors), (folder,), list[Unit]()
    for split in sorted(filtered):
        verdicts, (clean,) = found.get(split), filtered[split].outputs_below("clean")
        path = verdicts.path if verdicts is not None else ""
        units.append(
            Unit(split, {"verdicts": path}, [Files(filtered, split, folders), verdicts], clean.bytes, source_of(split))
        )
    return units


def write_clusters(corpus: Path, split: str, *, verdicts: str) -> Result:
    """Write the clusters of the clean documents of one split, in the order of the documents."""
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
    """Return a dict from split to its file of verdicts, for all splits with verdicts.

    `clusters` is the receipt of the step that chooses survivors. A missing file must be an error, because otherwise its
    duplicates would be kept.
    """
    prefix, suffix = verdict_path("\0").split("\0")
    found = [output for output in clusters.outputs if output.path.startswith(prefix)]
    return {output.path.removeprefix(prefix).removesuffix(suffix): output for output in found}


def read_verdicts(corpus: Path, path: str) -> dict[int, Verdict]:
    """Return a dict from row to verdict, for the documents of a split that are in a cluster.

    `path` is the path of the verdicts below the corpus. It is empty for a split without verdicts.
    """
    rows = read_ipc(corpus / path).to_pylist() if path else []
    return {row["row"]: Verdict(row["cluster"], row["reason"], row["cluster_size"]) for row in rows}


def _find_removed_before(splits: list[Split], nodes: Rows) -> npt.NDArray[np.bool_]:
    """Return a mask of the nodes that an earlier corpus has already removed."""
    gone = np.zeros(len(nodes), bool)
    for split, places in places_by_split(nodes) if any(split.verdicts for split in splits) else ():
        if (removed := splits[split].verdicts) is not None:
            verdicts = read_verdicts(Path(splits[split].corpus), removed.path)
            rows = [row for row, verdict in verdicts.items() if verdict.reason]
            gone[places] = np.isin(nodes[places] & ROW_MASK, np.array(rows, np.int64))
    return gone


def _count_removed(batch: pa.RecordBatch, rows: Rows, codes: Codes, tally: Tally) -> int:
    """Count the removed documents of a split, and return the number of UTF-8 bytes of their texts.

    Args:
        batch: the signature file of the split.
        rows: (n,) rows of documents.
        codes: (n,) the code of the reason of each document.
        tally: the tally to change.
    """
    size = 0
    for code in np.unique(codes[codes != STAYS]).tolist():
        chosen = pa.array(rows[codes == code])
        characters = int(batch.column("characters").take(chosen).to_numpy().sum())
        units = {"records": len(chosen), "characters": characters}
        tally.drop(Reason(REASONS[code]), **units)
        tally.out.subtract(units)
        size += int(batch.column("bytes").take(chosen).to_numpy().sum())
    return size


def _write_duplicates(
    path: Path,
    lookup: Lookup,
    nodes: Rows,
    number: npt.NDArray[np.int64],
    codes: Codes,
    similarity: Similarities,
    clusters: pa.Array,
) -> None:
    """Write the removed documents, sorted by cluster and id, one row group at a time."""
    gone = np.flatnonzero(codes)
    removed = lookup.column("id", nodes[gone]) if len(gone) else pa.array([], pa.binary(ID_BYTES))
    kept = clusters.take(pa.array(number[gone]))
    order = np.lexsort([*reversed(id_halves(removed)), *reversed(id_halves(kept))]) if len(gone) else gone
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(temporary, DUPLICATE_SCHEMA, compression="zstd") as writer,
    ):
        for start in range(0, max(len(order), 1), GROUP_ROWS):
            part = order[start : start + GROUP_ROWS]
            of_cluster, shares = kept.take(pa.array(part)), pa.array(similarity[gone[part]], from_pandas=True)
            names = pa.array([REASONS[code] for code in codes[gone[part]].tolist()], pa.string())
            columns = [removed.take(pa.array(part)), of_cluster, of_cluster, shares, names]  # NaN shares become null.
            writer.write_table(pa.Table.from_arrays(columns, schema=DUPLICATE_SCHEMA), GROUP_ROWS)


def _write_verdicts(path: Path, rows: Rows, clusters: pa.Array, codes: Codes, sizes: npt.NDArray[np.uint32]) -> None:
    """Write the verdicts on the documents of one split. The arrays have one element per document in a cluster."""
    reasons = pa.array([REASONS[code] for code in codes.tolist()], pa.string())
    write_ipc(path, VERDICT_SCHEMA, [pa.array(rows), clusters, reasons, pa.array(sizes)])


def _count_text_bytes(lookup: Lookup, splits: list[Split]) -> dict[str, int]:
    """Return a dict from source to the number of UTF-8 bytes of its clean text in this run."""
    found: dict[str, int] = {}
    for number, split in enumerate(splits):
        if not split.earlier:
            size = int(lookup.batch(number).column("bytes").to_numpy().sum())
            found[split.source] = found.get(split.source, 0) + size
    return found
