"""From shared keys to clusters: star edges, their verification, connected components; vectorised and deterministic.

Rows are int64 references of documents; nothing here knows what they stand for.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Similar = Callable[[Rows, Rows], npt.NDArray[np.float64]]
"""similarity of pairs: (centres, members) -> one value a pair"""


def components(edges: Rows) -> tuple[Rows, Rows]:
    """Connected components of (n, 2) edges: the nodes, sorted, and for each the smallest node of its component.

    Every node points at a smaller one of its component; each round joins the roots of all edges at once and then halves
    the paths, so that rounds grow with the logarithm of the longest chain.
    """
    if not len(edges):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    nodes, numbered = np.unique(edges.ravel(), return_inverse=True)
    a, b = numbered.reshape(-1, 2).T
    root = np.arange(len(nodes))
    while True:
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        if not apart.any():
            return nodes, nodes[root]
        a, b = a[apart], b[apart]
        np.minimum.at(root, high[apart], low[apart])
        while (further := root[root]).tobytes() != root.tobytes():
            root = further


def star_edges(keys: Keys, rows: Rows) -> Rows:
    """The edges (smallest row, other row) of every group of rows with equal keys: distinct, sorted, (m, 2).

    A group of k rows gives k - 1 edges, never its k² pairs.
    """
    if not len(keys):
        return np.empty((0, 2), np.int64)
    order = np.lexsort([rows, keys])
    keys, rows = keys[order], rows[order]
    first = np.r_[True, keys[1:] != keys[:-1]]
    centres = rows[first][np.cumsum(first) - 1]
    others = centres != rows
    return _distinct(np.stack([centres[others], rows[others]], axis=1))


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
        order = np.lexsort([rows, keys])
        keys, rows = keys[order], rows[order]
        fresh = np.r_[True, (keys[1:] != keys[:-1]) | (rows[1:] != rows[:-1])] if len(keys) else np.empty(0, bool)
        keys, rows = keys[fresh], rows[fresh]
        first = np.r_[True, keys[1:] != keys[:-1]] if len(keys) else np.empty(0, bool)
        if first.all():
            return (*_joined(accepted, values), rejected, 0)
        centres = rows[first][np.cumsum(first) - 1]
        pairs = np.stack([centres[~first], rows[~first]], axis=1)
        edges, which = np.unique(pairs, axis=0, return_inverse=True)
        found = similar(edges[:, 0], edges[:, 1])
        alike = found >= threshold
        accepted.append(edges[alike])
        values.append(found[alike])
        rejected += int((~alike).sum())
        left = ~alike[which.ravel()]
        keys, rows = keys[~first][left], rows[~first][left]
    return (*_joined(accepted, values), rejected, len(np.unique(rows)))


def _joined(edges: list[Rows], values: list[npt.NDArray[np.float64]]) -> tuple[Rows, npt.NDArray[np.float64]]:
    """The rounds' edges as one sorted list, each once."""
    distinct, first = np.unique(np.concatenate(edges), axis=0, return_index=True)
    return distinct, np.concatenate(values)[first]


def _distinct(edges: Rows) -> Rows:
    return np.unique(edges, axis=0) if len(edges) else edges
