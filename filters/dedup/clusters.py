"""From shared keys to clusters: star edges, their verification, connected components; vectorised and deterministic.

Rows are int64 references of documents; nothing here knows what they stand for.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Similar = Callable[[Rows, Rows], npt.NDArray[np.float64]]
"""similarity of pairs: (centres, members) -> one value a pair"""


BLOCK = 1 << 20
"""edges numbered and joined at once, which bounds what is held beside the nodes and their roots"""
SLOTTED = 1 << 18
"""keys put into slots at once: what is made of them stays in the cache"""
_SLOTS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))
"""odd multipliers of two unrelated hash tables: 2^64 by the golden ratio (Knuth, TAOCP 6.4), and one of SplitMix64's"""


def components(edges: Rows) -> tuple[Rows, Rows]:
    """Connected components of (n, 2) edges: the nodes, sorted, and for each the smallest node of its component."""
    return joined(lambda: [edges])


def joined(parts: Callable[[], Iterable[Rows]]) -> tuple[Rows, Rows]:
    """As `components`, over (n, 2) edges that come in parts, for edges that do not fit in memory: `parts` is called
    twice and must give the same both times.

    Union-find over the nodes' ranks. Every node points at a smaller one of its component; the roots of a whole block of
    edges are joined at once, and paths among them halved, so that rounds grow with the logarithm of the longest chain.
    Held throughout: 8 bytes a node, and 4 more for its root (8 from 2^31 nodes on); more while the nodes are gathered
    (docs/scale.md has the peak, measured).
    """
    nodes = _nodes(parts)
    root = np.arange(len(nodes), dtype=np.int32 if len(nodes) <= np.iinfo(np.int32).max else np.int64)
    for block in _blocks(parts()):
        a, b = _ranks(nodes, block)
        while True:
            a, b = _roots(root, a), _roots(root, b)
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


def distinct(edges: Rows) -> Rows:
    """The distinct rows of (n, 2) edges, sorted by their first node and then by their second."""
    a, b = edges.T
    if ((a[1:] > a[:-1]) | ((a[1:] == a[:-1]) & (b[1:] > b[:-1]))).all():
        return edges
    ordered = edges[np.lexsort([edges[:, 1], edges[:, 0]])]
    fresh = np.ones(len(ordered), bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return ordered[fresh]


def star_edges(keys: Keys, rows: Rows) -> Rows:
    """The edges (smallest row, other row) of every group of rows with equal keys: distinct, sorted, (m, 2).

    A group of k rows gives k - 1 edges, never its k² pairs.
    """
    keys, rows = _grouped(keys, rows)
    first = _firsts(keys)
    centres = rows[first][np.cumsum(first) - 1]
    return distinct(np.stack([centres[~first], rows[~first]], axis=1))


def verified_stars(
    keys: Keys, rows: Rows, similar: Similar, threshold: float, max_rounds: int
) -> tuple[Rows, npt.NDArray[np.float64], int, int]:
    """Star edges whose similarity reaches the threshold.

    Members that a round rejects star again among themselves, to their next smallest, at most `max_rounds` times: a
    group of unlike documents that share a key by accident does not hide the alike ones among them. Gives the edges
    (m, 2), their similarities, how many pairs were rejected, and how many rows were unjoined when the rounds ended.
    """
    accepted, values = [np.empty((0, 2), np.int64)], [np.empty(0)]
    rejected = 0
    for _ in range(max_rounds):
        keys, rows = _grouped(keys, rows)
        first = _firsts(keys)
        if first.all():
            return (*_once(accepted, values), rejected, 0)
        centres = rows[first][np.cumsum(first) - 1]
        pairs = np.stack([centres[~first], rows[~first]], axis=1)
        edges, which = _numbered(pairs)
        found = similar(edges[:, 0], edges[:, 1])
        alike = found >= threshold
        accepted.append(edges[alike])
        values.append(found[alike])
        rejected += int((~alike).sum())
        left = ~alike[which]
        keys, rows = keys[~first][left], rows[~first][left]
    return (*_once(accepted, values), rejected, len(_sorted_distinct(rows)))


def _once(edges: list[Rows], values: list[npt.NDArray[np.float64]]) -> tuple[Rows, npt.NDArray[np.float64]]:
    """The rounds' edges as one sorted list, each once."""
    together, found = np.concatenate(edges), np.concatenate(values)
    once, which = _numbered(together)
    value = np.empty(len(once))
    value[which] = found  # an edge met twice was found equally alike both times
    return once, value


def _grouped(keys: Keys, rows: Rows) -> tuple[Keys, Rows]:
    """The distinct (key, row) of keys that more than one row has, sorted. Most keys are alone, and are set aside by two
    hash tables of their slots before what is left is sorted."""
    for multiplier in _SLOTS:
        together = _crowded(keys, multiplier)
        keys, rows = keys[together], rows[together]
    order = np.lexsort([rows, keys])
    keys, rows = keys[order], rows[order]
    fresh = np.ones(len(keys), bool)
    fresh[1:] = (keys[1:] != keys[:-1]) | (rows[1:] != rows[:-1])
    keys, rows = keys[fresh], rows[fresh]
    first = _firsts(keys)
    alone = first & np.r_[first[1:], True][: len(first)]
    return keys[~alone], rows[~alone]


def _crowded(keys: Keys, multiplier: np.uint64) -> npt.NDArray[np.bool_]:
    """(n,) bool: keys whose slot another entry falls into as well, be its key the same or not. Two to four slots a
    key."""
    bits = np.uint64((2 * len(keys)).bit_length())
    counts = np.zeros(1 << int(bits), np.uint32)
    crowded = np.empty(len(keys), bool)

    def slots() -> Iterator[tuple[slice, npt.NDArray[np.int64]]]:
        for start in range(0, len(keys), SLOTTED):
            part = slice(start, start + SLOTTED)
            yield part, (keys[part] * multiplier >> np.uint64(64) - bits).astype(np.int64)

    for _, found in slots():
        np.add.at(counts, found, np.uint32(1))
    for part, found in slots():
        crowded[part] = counts[found] > 1
    return crowded


def _firsts(keys: Keys) -> npt.NDArray[np.bool_]:
    """(n,) bool: the first of each run of equal keys."""
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    return first


def _numbered(edges: Rows) -> tuple[Rows, npt.NDArray[np.int64]]:
    """The distinct edges, sorted, and for each given one its place among them."""
    order = np.lexsort([edges[:, 1], edges[:, 0]])
    ordered = edges[order]
    fresh = np.ones(len(ordered), bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    which = np.empty(len(edges), np.int64)
    which[order] = np.cumsum(fresh) - 1
    return ordered[fresh], which


def _blocks(parts: Iterable[Rows]) -> Iterator[Rows]:
    for edges in parts:
        for start in range(0, len(edges), BLOCK):
            yield edges[start : start + BLOCK]


def _nodes(parts: Callable[[], Iterable[Rows]]) -> Rows:
    """Every node once, sorted. What is new is taken in when there is as much of it as of what is known: each node is
    sorted a logarithmic number of times, and the most that is held is little more than two copies of all."""
    held: list[Rows] = [np.empty(0, np.int64)]
    fresh = 0
    for block in _blocks(parts()):
        held.append(_sorted_distinct(block.ravel()))
        fresh += len(held[-1])
        if fresh >= len(held[0]):
            _merge(held)
            fresh = 0
    _merge(held)
    return held[0]


def _merge(held: list[Rows]) -> None:
    """Make one of sorted arrays, in place: they are let go before the sum of them is sorted."""
    together = np.concatenate(held)
    held.clear()
    together.sort(kind="stable")  # merges runs that are sorted already
    held.append(_without_repeats(together))


def _sorted_distinct(values: Rows) -> Rows:
    """As numpy.unique, which from numpy 2.3 on hashes integers: several times slower than sorting on millions."""
    return _without_repeats(np.sort(values, kind="stable"))


def _without_repeats(ordered: Rows) -> Rows:
    fresh = np.ones(len(ordered), bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    return ordered if fresh.all() else ordered[fresh]


def _ranks(nodes: Rows, block: Rows) -> tuple[Rows, Rows]:
    """The places of a block's two sides among the sorted nodes: looked up in ascending order, so that memory is walked
    through and not jumped about in."""
    ends = block.T.ravel()
    order = np.argsort(ends)
    ranks = np.empty(len(ends), np.int64)
    ranks[order] = np.searchsorted(nodes, ends[order])
    return ranks[: len(block)], ranks[len(block) :]


def _roots(root: npt.NDArray[Any], nodes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The ends of the paths from the nodes. What is walked is halved in `root`, so that no path stays long."""
    while True:
        further = root[nodes]
        if np.array_equal(further, nodes):
            return nodes
        root[nodes] = root[further]
        nodes = further
