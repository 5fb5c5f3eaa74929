"""Clusters from shared keys: star edges, their verification, and connected components, on one worker or in rounds.

Rows are int64 references of documents; nothing here depends on their meaning. Edges are (n, 2) arrays of rows. All
functions are vectorised and deterministic.

Components that do not fit on one worker take rounds of two alternating operations (Kiveris et al. 2014, "Connected
Components in MapReduce and Beyond", SOCC). *Large-star* joins each node's larger neighbours to the smallest of its
neighbours and itself. *Small-star* joins each node and its smaller neighbours to the smallest of these. Both keep every
component connected, and once neither changes an edge, a component is a star around its smallest node. A worker sees all
edges of the nodes of one hash range, and no others: `edges_by_node` and `edges_by_larger` return the edges to send to a
node, `spread_keys` the keys that choose its range. So a range holds at least the neighbourhood of one node: a component
of n nodes ends as n - 1 edges (16 bytes each) at its smallest node.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.hashing import GOLDEN, Keys, Mask, drop_repeats, run_starts

Rows = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]
Similar = Callable[[Rows, Rows], Shares]  # (centres, members) of pairs -> the similarity of each pair

BLOCK = 1 << 20  # edges numbered and joined at once, which bounds the memory beside the nodes and their roots
SLOTTED = 1 << 18  # keys put into slots at once: their slots stay in the cache
_SLOTS = (GOLDEN, np.uint64(0xBF58476D1CE4E5B9))  # multipliers of two unrelated hash tables; the second is SplitMix64's


def components(edges: Rows) -> tuple[Rows, Rows]:
    """Return the connected components of (n, 2) edges, as `connected_components` does."""
    return connected_components(lambda: [edges])


def connected_components(parts: Callable[[], Iterable[Rows]]) -> tuple[Rows, Rows]:
    """Return the connected components of edges that do not fit in memory.

    Union-find over the nodes' ranks. Every node points at a smaller one of its component; the roots of a whole block of
    edges are joined at once, and paths between them halved, so that rounds grow with the logarithm of the longest
    chain. The memory is 8 bytes a node and 4 more for its root (8 from 2^31 nodes on), and more while the nodes are
    gathered (docs/scale.md has the measured peak).

    Args:
        parts: returns arrays of (n, 2) edges; called twice, with equal results.

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
    """Return the distinct rows of (n, 2) edges, sorted by their first node and then by their second."""
    a, b = edges.T
    if ((a[1:] > a[:-1]) | ((a[1:] == a[:-1]) & (b[1:] > b[:-1]))).all():
        return edges
    ordered = edges[np.lexsort([b, a])]
    return np.asarray(ordered[run_starts(*ordered.T)])


def star_edges(keys: Keys, rows: Rows) -> Rows:
    """Return the distinct edges (smallest row, other row) of every group of rows with equal keys, sorted, (m, 2).

    A group of k rows has k - 1 such edges, and k² pairs.
    """
    keys, rows = _select_shared(keys, rows)
    return distinct_edges(_make_stars(run_starts(keys), rows))


def verify_stars(
    keys: Keys, rows: Rows, similar: Similar, threshold: float, max_rounds: int
) -> tuple[Rows, Shares, int, int]:
    """Return the star edges whose similarity reaches the threshold.

    The members that a round rejects form stars among themselves, around their smallest row, in at most `max_rounds`
    rounds: a group of unlike documents that share a key by accident does not hide the similar ones among them.

    Returns:
        The edges, (m, 2); their similarities, (m,); the number of pairs rejected; the number of rows of which
        some pairs were still to be compared after the last round.
    """
    accepted, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    rejected = 0
    keys, rows = _select_shared(keys, rows)
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
        keys, rows = _select_shared(keys[~first][left], rows[~first][left])
    once, which = _number_edges(np.concatenate(accepted))
    value = np.empty(len(once))
    value[which] = np.concatenate(values)  # an edge of several rounds has the same similarity in each
    return once, value, rejected, len(drop_repeats(np.sort(rows, kind="stable")))


def spread_keys(nodes: Rows) -> Keys:
    """Return a key of each node whose high bits are spread evenly: multiplicative hashing, a bijection."""
    return nodes.astype(np.uint64) * GOLDEN


def edges_by_node(edges: Rows) -> Rows:
    """Return the edges that large-star needs: each from both its ends, as (node, neighbour), (2n, 2)."""
    return np.concatenate([edges, edges[:, ::-1]])


def edges_by_larger(edges: Rows) -> Rows:
    """Return the edges that small-star needs: each from its larger end, as (node, smaller neighbour), (n, 2)."""
    return np.stack([edges.max(axis=1), edges.min(axis=1)], axis=1) if len(edges) else edges


def large_star(edges: Rows) -> Rows:
    """Join the larger neighbours of each node to the smallest of its neighbours and itself.

    Args:
        edges: (node, neighbour), with all neighbours of each node that occurs on the left.

    Returns:
        Distinct, sorted edges.
    """
    edges = distinct_edges(edges)
    node, neighbour = edges.T
    centre = np.minimum(node, _find_smallest(edges))
    larger = neighbour > node
    return distinct_edges(np.stack([centre[larger], neighbour[larger]], axis=1))


def small_star(edges: Rows) -> Rows:
    """Join each node, and its smaller neighbours, to the smallest of these.

    Args:
        edges: (node, smaller neighbour), with all smaller neighbours of each node on the left.

    Returns:
        Distinct, sorted edges.
    """
    edges = distinct_edges(edges)
    centre = _find_smallest(edges)
    others = edges[:, 1] != centre
    joined = [np.stack([centre, edges[:, 0]], axis=1), np.stack([centre[others], edges[others, 1]], axis=1)]
    return distinct_edges(np.concatenate(joined))


def count_unsettled(edges: Rows) -> int:
    """Return the number of nodes that are neither the smallest of a star nor one of its rays.

    It is 0 over all nodes if, and only if, the graph is made of such stars, which no round changes any more: a node of
    a star has only larger neighbours, or only one neighbour.

    Args:
        edges: as for `large_star`.
    """
    edges = distinct_edges(edges)
    node, smallest = edges[:, 0], _find_smallest(edges)
    first = run_starts(node)
    return int((first & (smallest < node) & ~_find_alone(first)).sum())


def contract(edges: Rows) -> Rows:
    """Return the fewest edges that join the same nodes: each node to the smallest of its component in these edges."""
    nodes, labels = components(edges)
    rays = nodes != labels
    return distinct_edges(np.stack([labels[rays], nodes[rays]], axis=1))


def _find_alone(first: Mask) -> Mask:
    """Return a mask of the runs of one element, from the mask of each run's first element."""
    return np.asarray(first & np.r_[first[1:], True][: len(first)])


def _make_stars(first: Mask, rows: Rows) -> Rows:
    """Return the edges from the first row of each run of equal keys to the others."""
    return np.stack([rows[first][np.cumsum(first) - 1][~first], rows[~first]], axis=1)


def _find_smallest(edges: Rows) -> Rows:
    """Return, for each of the sorted edges, the smallest neighbour of its node."""
    first = run_starts(edges[:, 0])
    return np.asarray(edges[first, 1][np.cumsum(first) - 1])


def _select_shared(keys: Keys, rows: Rows) -> tuple[Keys, Rows]:
    """Return the distinct (key, row) of the keys that more than one row has, sorted.

    Most keys have one row. They are set aside by two hash tables of their slots before the others are sorted.
    """
    for multiplier in _SLOTS:
        together = _find_crowded(keys, multiplier)
        keys, rows = keys[together], rows[together]
    order = np.lexsort([rows, keys])
    keys, rows = keys[order], rows[order]
    fresh = run_starts(keys, rows)
    keys, rows = keys[fresh], rows[fresh]
    several = ~_find_alone(run_starts(keys))
    return keys[several], rows[several]


def _find_crowded(keys: Keys, multiplier: np.uint64) -> Mask:
    """Return a mask of the keys whose slot another entry shares, be its key equal or not; two to four slots a key."""
    bits = np.uint64((2 * len(keys)).bit_length())
    counts = np.zeros(1 << int(bits), np.uint32)
    crowded = np.empty(len(keys), np.bool_)

    def slots() -> Iterator[tuple[slice, Rows]]:
        for start in range(0, len(keys), SLOTTED):
            part = slice(start, start + SLOTTED)
            yield part, (keys[part] * multiplier >> np.uint64(64) - bits).astype(np.int64)

    for _, found in slots():
        np.add.at(counts, found, np.uint32(1))
    for part, found in slots():
        crowded[part] = counts[found] > 1
    return crowded


def _number_edges(edges: Rows) -> tuple[Rows, Rows]:
    """Return the distinct edges, sorted, and for each given edge its place among them."""
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
    """Return every node once, sorted.

    New nodes are merged in once there are as many as known ones: each node is sorted a logarithmic number of times, and
    the memory is little more than two copies of all nodes.
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
    """Merge sorted arrays into one, in place: the arrays are freed before their sum is sorted."""
    together = np.concatenate(held)
    held.clear()
    together.sort(kind="stable")  # merges runs that are sorted already
    held.append(drop_repeats(together))


def _find_ranks(nodes: Rows, block: Rows) -> tuple[Rows, Rows]:
    """Return the places of a block's two sides among the sorted nodes, looked up in ascending order, for the cache."""
    ends = block.T.ravel()
    order = np.argsort(ends)
    ranks = np.empty(len(ends), np.int64)
    ranks[order] = np.searchsorted(nodes, ends[order])
    return ranks[: len(block)], ranks[len(block) :]


def _find_roots(root: npt.NDArray[Any], nodes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the ends of the paths from the nodes, and halve these paths in `root`, so that none stays long."""
    while True:
        further = root[nodes]
        if np.array_equal(further, nodes):
            return nodes
        root[nodes] = root[further]
        nodes = further
