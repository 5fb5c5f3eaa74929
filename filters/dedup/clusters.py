"""Find clusters of documents: edges between documents that share a key, their verification, connected components.

A document is represented by an int64 number, called a row or a node. The functions do not depend on the meaning of the
number. Edges are (n, 2) int64 arrays of rows. All functions are vectorised and deterministic.

`connected_components` runs on one worker. Graphs that are too large for one worker are processed in rounds of two
alternating operations (Kiveris et al. 2014, "Connected Components in MapReduce and Beyond", SOCC):
- *large-star* joins the larger neighbours of each node to the smallest node among the node and its neighbours;
- *small-star* joins each node and its smaller neighbours to the smallest of them.

Both operations keep each component connected. When neither operation changes an edge, each component is a star around
its smallest node. Each worker receives the edges of the nodes in one hash range: `edges_by_node` and `edges_by_larger`
return the edges to send to each node, and `spread_keys` returns the keys that select the range. So a worker must hold
at least all edges of one node. At the end, the smallest node of a component of n nodes has n - 1 edges of 16 bytes
each.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.hashing import GOLDEN, Keys, Mask, drop_repeats, run_starts

Rows = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]
Similar = Callable[[Rows, Rows], Shares]  # function from (centres, members) of pairs to the similarity of each pair

BLOCK = 1 << 20  # Edges per block. It limits the memory that is needed in addition to the nodes and their roots.
SLOT_BLOCK = 1 << 18  # Keys per block when slots are counted. The slots of a block fit in the CPU cache.
# Multipliers of two unrelated hash functions. The second is that of SplitMix64.
_SLOT_MULTIPLIERS = (GOLDEN, np.uint64(0xBF58476D1CE4E5B9))


def components(edges: Rows) -> tuple[Rows, Rows]:
    """Return the connected components of one array of edges. See `connected_components`."""
    return connected_components(lambda: [edges])


def connected_components(parts: Callable[[], Iterable[Rows]]) -> tuple[Rows, Rows]:
    """Return the connected components of a graph whose edges do not fit in memory. The nodes must fit in memory.

    The algorithm is union-find. Nodes are numbered by rank, and each node points to a smaller or equal node of its
    component. The roots of a whole block of edges are joined at once, and the paths between them are halved. So the
    number of iterations grows with the logarithm of the longest chain. The memory per node is 8 bytes, and 4 bytes for
    its root (8 bytes from 2^31 nodes on). It is larger while the nodes are collected (docs/scale.md has the measured
    peak).

    Args:
        parts: returns an iterable of arrays of edges. It is called twice and must return the same edges.

    Returns:
        The nodes, sorted, and for each node the smallest node of its component.
    """
    nodes = _gather_nodes(parts)
    root = np.arange(len(nodes), dtype=np.int32 if len(nodes) <= np.iinfo(np.int32).max else np.int64)
    for block in _split_blocks(parts()):
        a, b = _find_ranks(nodes, block)
        while True:
            a, b = _find_roots(root, a), _find_roots(root, b)
            apart = a != b
            if not apart.any():
                break
            a, b = a[apart], b[apart]
            high = np.maximum(a, b)
            np.minimum.at(root, high, np.minimum(a, b))
            while (further := root[root[high]]).tobytes() != root[high].tobytes():
                root[high] = further
    while not np.array_equal(further := root[root], root):
        root = further
    return nodes, nodes[root]


def distinct_edges(edges: Rows) -> Rows:
    """Return the distinct edges, sorted by their first node and then by their second."""
    a, b = edges.T
    if ((a[1:] > a[:-1]) | ((a[1:] == a[:-1]) & (b[1:] > b[:-1]))).all():
        return edges
    ordered = edges[np.lexsort([b, a])]
    return np.asarray(ordered[run_starts(*ordered.T)])


def star_edges(keys: Keys, rows: Rows) -> Rows:
    """Return the edges from the smallest row of each group of rows with equal keys to the other rows of the group.

    A group of k rows has k - 1 of these edges. All pairs of the group would be about k² / 2.

    Args:
        keys: (n,) uint64.
        rows: (n,) the row that has each key.

    Returns:
        (m, 2) distinct edges (smallest row, other row), sorted.
    """
    keys, rows = _select_shared_keys(keys, rows)
    return distinct_edges(_make_stars(run_starts(keys), rows))


def verify_stars(
    keys: Keys, rows: Rows, similar: Similar, threshold: float, max_rounds: int
) -> tuple[Rows, Shares, int, int]:
    """Return the edges of `star_edges` whose similarity reaches a threshold.

    In the first round, each row of a group is compared with the smallest row of the group. The rows that are rejected
    form a new group, which is compared in the next round. So two similar rows are found even if their group also
    contains other rows, which share the key by chance.

    Args:
        keys: (n,) uint64.
        rows: (n,) the row that has each key.
        similar: computes the similarity of pairs.
        threshold: smallest similarity of an accepted pair.
        max_rounds: largest number of rounds.

    Returns:
        The accepted edges, (m, 2); their similarities, (m,); the number of rejected pairs, added up over all rounds;
        the number of rows that would take part in another round.
    """
    accepted, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    rejected = 0
    keys, rows = _select_shared_keys(keys, rows)
    for _ in range(max_rounds):
        if not len(rows):
            break
        first = run_starts(keys)
        edges, which = _number_edges(_make_stars(first, rows))
        found = similar(edges[:, 0], edges[:, 1])
        alike = found >= threshold
        accepted.append(edges[alike])
        values.append(found[alike])
        rejected += int((~alike).sum())
        left = ~alike[which]
        keys, rows = _select_shared_keys(keys[~first][left], rows[~first][left])
    once, which = _number_edges(np.concatenate(accepted))
    value = np.empty(len(once))
    value[which] = np.concatenate(values)  # The similarity of an edge is the same in all rounds.
    return once, value, rejected, len(drop_repeats(np.sort(rows, kind="stable")))


def spread_keys(nodes: Rows) -> Keys:
    """Return a uint64 key for each node, with evenly distributed high bits. Different nodes have different keys."""
    return nodes.astype(np.uint64) * GOLDEN


def edges_by_node(edges: Rows) -> Rows:
    """Return the edges that large-star needs: each edge in both directions, as (node, neighbour), (2n, 2)."""
    return np.concatenate([edges, edges[:, ::-1]])


def edges_by_larger(edges: Rows) -> Rows:
    """Return the edges that small-star needs: each edge as (larger node, smaller node), (n, 2)."""
    return np.stack([edges.max(axis=1), edges.min(axis=1)], axis=1) if len(edges) else edges


def large_star(edges: Rows) -> Rows:
    """Join the larger neighbours of each node to the smallest node among the node and its neighbours.

    Args:
        edges: (n, 2) of (node, neighbour). They contain all neighbours of each node in the first column.

    Returns:
        Distinct, sorted edges.
    """
    edges = distinct_edges(edges)
    node, neighbour = edges.T
    centre = np.minimum(node, _find_smallest(edges))
    larger = neighbour > node
    return distinct_edges(np.stack([centre[larger], neighbour[larger]], axis=1))


def small_star(edges: Rows) -> Rows:
    """Join each node and its smaller neighbours to the smallest of them.

    Args:
        edges: (n, 2) of (node, smaller neighbour). They contain all smaller neighbours of each node in the first
            column.

    Returns:
        Distinct, sorted edges.
    """
    edges = distinct_edges(edges)
    centre = _find_smallest(edges)
    others = edges[:, 1] != centre
    joined = [np.stack([centre, edges[:, 0]], axis=1), np.stack([centre[others], edges[others, 1]], axis=1)]
    return distinct_edges(np.concatenate(joined))


def count_unsettled(edges: Rows) -> int:
    """Return the number of nodes that have several neighbours, at least one of them smaller than the node.

    The total over all nodes is 0 if and only if each component is a star around its smallest node. Then further rounds
    change nothing. In a star around its smallest node, the centre has only larger neighbours, and every other node has
    only one neighbour.

    Args:
        edges: as for `large_star`.
    """
    edges = distinct_edges(edges)
    node, smallest = edges[:, 0], _find_smallest(edges)
    first = run_starts(node)
    return int((first & (smallest < node) & ~_find_single_runs(first)).sum())


def contract(edges: Rows) -> Rows:
    """Return the smallest set of edges with the same components: from the smallest node of each to the other nodes."""
    nodes, labels = components(edges)
    rays = nodes != labels
    return distinct_edges(np.stack([labels[rays], nodes[rays]], axis=1))


def _find_single_runs(first: Mask) -> Mask:
    """Return a mask of the elements that form a run of length 1. `first` marks the first element of each run."""
    return np.asarray(first & np.r_[first[1:], True][: len(first)])


def _make_stars(first: Mask, rows: Rows) -> Rows:
    """Return the edges from the first row of each run of equal keys to the others."""
    return np.stack([rows[first][np.cumsum(first) - 1][~first], rows[~first]], axis=1)


def _find_smallest(edges: Rows) -> Rows:
    """Return, for each edge of sorted edges, the smallest neighbour of its first node."""
    first = run_starts(edges[:, 0])
    return np.asarray(edges[first, 1][np.cumsum(first) - 1])


def _select_shared_keys(keys: Keys, rows: Rows) -> tuple[Keys, Rows]:
    """Return the distinct pairs (key, row) whose key occurs with more than one row, sorted.

    Most keys occur with only one row. Two hash tables that count entries per slot remove most of these keys before the
    other keys are sorted.
    """
    for multiplier in _SLOT_MULTIPLIERS:
        together = _find_shared_slots(keys, multiplier)
        keys, rows = keys[together], rows[together]
    order = np.lexsort([rows, keys])
    keys, rows = keys[order], rows[order]
    fresh = run_starts(keys, rows)
    keys, rows = keys[fresh], rows[fresh]
    several = ~_find_single_runs(run_starts(keys))
    return keys[several], rows[several]


def _find_shared_slots(keys: Keys, multiplier: np.uint64) -> Mask:
    """Return a mask of the keys that share their slot of a hash table with another entry, of an equal or another key.

    The table has two to four slots per key.
    """
    bits = np.uint64((2 * len(keys)).bit_length())
    counts = np.zeros(1 << int(bits), np.uint32)
    crowded = np.empty(len(keys), np.bool_)

    def slots() -> Iterator[tuple[slice, Rows]]:
        for start in range(0, len(keys), SLOT_BLOCK):
            part = slice(start, start + SLOT_BLOCK)
            yield part, (keys[part] * multiplier >> np.uint64(64) - bits).astype(np.int64)

    for _, found in slots():
        np.add.at(counts, found, np.uint32(1))
    for part, found in slots():
        crowded[part] = counts[found] > 1
    return crowded


def _number_edges(edges: Rows) -> tuple[Rows, Rows]:
    """Return the distinct edges, sorted, and for each given edge its index among the distinct edges."""
    order = np.lexsort([edges[:, 1], edges[:, 0]])
    ordered = edges[order]
    fresh = run_starts(*ordered.T)
    which = np.empty(len(edges), np.int64)
    which[order] = np.cumsum(fresh) - 1
    return ordered[fresh], which


def _split_blocks(parts: Iterable[Rows]) -> Iterator[Rows]:
    for edges in parts:
        for start in range(0, len(edges), BLOCK):
            yield edges[start : start + BLOCK]


def _gather_nodes(parts: Callable[[], Iterable[Rows]]) -> Rows:
    """Return the distinct nodes of all edges, sorted.

    New nodes are merged into the known ones only when there are as many new nodes as known nodes. So each node is
    sorted a logarithmic number of times, and the memory is little more than two copies of all nodes.
    """
    held: list[Rows] = [np.empty(0, np.int64)]
    fresh = 0
    for block in _split_blocks(parts()):
        held.append(drop_repeats(np.sort(block.ravel(), kind="stable")))
        fresh += len(held[-1])
        if fresh >= len(held[0]):
            _merge(held)
            fresh = 0
    _merge(held)
    return held[0]


def _merge(held: list[Rows]) -> None:
    """Replace a list of sorted arrays by a list of one sorted array of their distinct values.

    The arrays are freed before the concatenated array is sorted, to save memory.
    """
    together = np.concatenate(held)
    held.clear()
    together.sort(kind="stable")  # The stable sort merges runs that are already sorted.
    held.append(drop_repeats(together))


def _find_ranks(nodes: Rows, block: Rows) -> tuple[Rows, Rows]:
    """Return the indices of both columns of a block of edges among the sorted nodes.

    The nodes are looked up in ascending order, which makes better use of the CPU cache.
    """
    ends = block.T.ravel()
    order = np.argsort(ends)
    ranks = np.empty(len(ends), np.int64)
    ranks[order] = np.searchsorted(nodes, ends[order])
    return ranks[: len(block)], ranks[len(block) :]


def _find_roots(root: npt.NDArray[Any], nodes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the roots of nodes in a union-find forest, and shorten the paths to them by path halving.

    Args:
        root: (all nodes,) the parent of each node; changed in place.
        nodes: indices of the nodes.
    """
    while True:
        further = root[nodes]
        if np.array_equal(further, nodes):
            return nodes
        root[nodes] = root[further]
        nodes = further
