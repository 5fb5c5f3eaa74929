"""Connected components in rounds that no single worker has to hold: the alternating algorithm of Kiveris et al. 2014
("Connected Components in MapReduce and Beyond", SOCC), on packed edges.

Two operations alternate. *Large-star* joins each node's larger neighbours to the smallest of its neighbours and itself;
*small-star* joins each node and its smaller neighbours to the smallest of these. Both keep every component together,
and when neither changes an edge, what is left of a component is a star around its smallest node.

A worker sees all edges of the nodes of one hash range, and nothing else: `by_node` and `by_larger` say what must be
sent to where a node is, `spread` to which range. So a range can be no smaller than the neighbourhood of one node: a
component of n nodes ends as n - 1 edges (16 bytes each) at its smallest node.

Edges are (n, 2) int64 between two different nodes, (smaller, larger) unless it says otherwise.
"""

import numpy as np
import numpy.typing as npt

from filters.dedup.clusters import components, distinct

Edges = npt.NDArray[np.int64]

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""odd multiplier: 2^64 divided by the golden ratio (Knuth, TAOCP 6.4)"""


def spread(nodes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """(n,) uint64 keys of nodes whose high bits spread evenly: multiplicative hashing, a bijection."""
    return nodes.astype(np.uint64) * _SPREAD


def by_node(edges: Edges) -> Edges:
    """What large-star needs: every edge from both its ends, as (node, neighbour). (2n, 2)."""
    return np.concatenate([edges, edges[:, ::-1]])


def by_larger(edges: Edges) -> Edges:
    """What small-star needs: every edge from its larger end, as (node, smaller neighbour). (n, 2)."""
    return np.stack([edges.max(axis=1), edges.min(axis=1)], axis=1) if len(edges) else edges


def large_star(edges: Edges) -> Edges:
    """Join the larger neighbours of each node to the smallest of its neighbours and itself.

    `edges`: (node, neighbour), with all neighbours of each node that occurs on the left. Gives distinct, sorted edges.
    """
    edges = distinct(edges)
    node, neighbour = edges.T
    centre = np.minimum(node, _smallest(edges))
    larger = neighbour > node
    return distinct(np.stack([centre[larger], neighbour[larger]], axis=1))


def small_star(edges: Edges) -> Edges:
    """Join each node, and its smaller neighbours, to the smallest of these.

    `edges`: (node, smaller neighbour), with all smaller neighbours of each node on the left. Gives distinct, sorted
    edges.
    """
    edges = distinct(edges)
    centre = _smallest(edges)
    others = edges[:, 1] != centre
    joined = [np.stack([centre, edges[:, 0]], axis=1), np.stack([centre[others], edges[others, 1]], axis=1)]
    return distinct(np.concatenate(joined))


def unsettled(edges: Edges) -> int:
    """How many nodes are neither the smallest of a star nor one of its rays: 0 over all nodes if, and only if, the
    graph is made of such stars, which no round changes any more. `edges`: as for `large_star`.

    A node of a star has larger neighbours only, or one neighbour alone.
    """
    edges = distinct(edges)
    node, smallest = edges[:, 0], _smallest(edges)
    first = _firsts(node)
    alone = first & np.r_[first[1:], True][: len(first)]
    return int((first & (smallest < node) & ~alone).sum())


def contracted(edges: Edges) -> Edges:
    """As few edges as join the same nodes: each node to the smallest of its component among these edges alone."""
    nodes, labels = components(edges)
    rays = nodes != labels
    return distinct(np.stack([labels[rays], nodes[rays]], axis=1))


def _smallest(edges: Edges) -> npt.NDArray[np.int64]:
    """(n,) for each of the sorted edges, the smallest neighbour of its node."""
    first = _firsts(edges[:, 0])
    return np.asarray(edges[first, 1][np.cumsum(first) - 1])


def _firsts(node: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    first = np.ones(len(node), bool)
    first[1:] = node[1:] != node[:-1]
    return first
