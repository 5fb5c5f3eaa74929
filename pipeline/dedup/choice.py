"""The choice in each cluster: the document that stays, why the others go, and how like it they are.

Clusters do not depend on each other, so that some are looked at together: what is held of a document for this, its
columns and its signature, is a hundred times what is held of it before and after.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.dedup.settings import Deduplication
from filters.hashing import Mask, run_starts
from filters.reasons import Reason
from pipeline.beam.tables import id_halves
from pipeline.dedup.signatures import COMPARED_COLUMNS, ROW_BITS, Lookup, Rows, Split

SLICE_DOCUMENTS = 1 << 20  # looked at together, or one cluster: 1.4 GB of their columns and signatures
REASONS = ("", Reason.EXACT_DUPLICATE.value, Reason.NEAR_DUPLICATE.value, Reason.CONTAINED.value)
STAYS, EXACT, NEAR, CONTAINED = range(4)  # codes: places in REASONS

Codes = npt.NDArray[np.uint8]
Similarities = npt.NDArray[np.float32]  # NaN where signatures cannot be compared


def cluster_slices(first: Mask, most: int = SLICE_DOCUMENTS) -> Iterator[slice]:
    """Yield slices of whole clusters, each of at most `most` documents or of one cluster.

    Args:
        first: (n,) True where a cluster begins, in the order of clusters.
        most: documents.
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
    """Return the documents of some clusters with the survivor first, their reasons and similarities to it.

    Args:
        lookup: columns of documents.
        splits: of this run and of earlier corpora.
        nodes: (n,) row references.
        labels: (n,) of their clusters, ascending.
        gone: (n,) True for documents that an earlier corpus has removed.
        rules: the recipe's.
    """
    nodes = nodes[_survivors_first(lookup, splits, nodes, labels, rules, gone)]
    first = run_starts(labels)
    kept = np.flatnonzero(first)[np.cumsum(first) - 1]
    codes = _codes(lookup, nodes, kept)
    codes[np.array([split.earlier for split in splits], bool)[nodes >> ROW_BITS]] = STAYS
    return nodes, codes, _similarity(lookup, splits, nodes, nodes[kept], codes)


def _survivors_first(
    lookup: Lookup, splits: list[Split], nodes: Rows, labels: Rows, rules: Deduplication, gone: Mask
) -> npt.NDArray[np.int64]:
    """Return an order of the nodes: cluster by cluster, and in each the survivor first.

    Documents that an earlier corpus kept come before all, and those that it removed after all; between them the
    recipe's `survivor` decides, and last the smallest id.
    """
    high, low = id_halves(lookup.column("id", nodes))
    of_split = nodes >> ROW_BITS
    earlier = np.array([split.earlier for split in splits], bool)[of_split]
    keys: list[npt.NDArray[Any]] = [np.where(gone, 2, np.where(earlier, 0, 1))]
    for rule in rules.survivor:
        if rule in COMPARED_COLUMNS:
            keys.append(_rank(rule, lookup.column(COMPARED_COLUMNS[rule], nodes).to_numpy(zero_copy_only=False)))
        elif rule == "dump":
            keys.append(np.unique([split.dump for split in splits], return_inverse=True)[1][of_split])
        else:
            ranks = {source: rank for rank, source in enumerate(rules.source_priority)}
            keys.append(np.array([ranks.get(split.source, len(ranks)) for split in splits])[of_split])
    return np.lexsort([low, high, *reversed(keys), labels])


def _rank(rule: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return numbers by which the document comes first that a rule of `survivor` prefers."""
    if rule == "longest":
        return -values
    if rule in ("newest", "oldest"):
        stamps = values.astype(str)
        rank = np.unique(stamps, return_inverse=True)[1]
        return -rank if rule == "newest" else np.where(stamps == "", len(stamps), rank)
    if rule == "score":
        return -np.nan_to_num(values.astype(np.float64), nan=-1.0)
    return values


def _codes(lookup: Lookup, nodes: Rows, kept: npt.NDArray[np.int64]) -> Codes:
    """Return each node's reason: `STAYS` for the survivor, its index in `kept`, `EXACT` for its text, else `NEAR`."""
    high, low = id_halves(lookup.column("content_hash", nodes))
    same = (high == high[kept]) & (low == low[kept])
    return np.where(kept == np.arange(len(nodes)), STAYS, np.where(same, EXACT, NEAR)).astype(np.uint8)


def _similarity(lookup: Lookup, splits: list[Split], nodes: Rows, kept: Rows, codes: Codes) -> Similarities:
    """Return each node's estimated similarity to its cluster's survivor; 1 for exact copies.

    It is NaN where the two have signatures of different schemes: a chain of duplicates joined them.
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
