"""Exact Jaccard similarity and containment of sets of shingle hashes.

A set is a sorted array of distinct unsigned integers (uint32 or uint64), as `minhash.shingle_hashes` gives it; many
sets are packed one after the other (CSR): set i is `values[offsets[i]:offsets[i + 1]]`. The similarity of two empty
sets and the containment of an empty one are 0, as for signatures: a text without a word is like no other.
"""

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.unsignedinteger]
Places = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


def jaccard(a: Hashes, b: Hashes) -> float:
    """|A ∩ B| / |A ∪ B|."""
    both = shared(a, b)
    return both / (len(a) + len(b) - both) if both else 0.0


def containment(a: Hashes, b: Hashes) -> float:
    """|A ∩ B| / |A|: how much of A is in B."""
    return shared(a, b) / len(a) if len(a) else 0.0


def shared(a: Hashes, b: Hashes) -> int:
    """|A ∩ B|, looking the smaller set up in the larger one."""
    few, many = (a, b) if len(a) <= len(b) else (b, a)
    if not len(few):
        return 0
    places = np.searchsorted(many, few)
    return int((many[np.minimum(places, len(many) - 1)] == few).sum())


def pack(sets: list[Hashes]) -> tuple[Hashes, Places]:
    """(values, offsets) of sets of one dtype."""
    offsets = np.zeros(len(sets) + 1, np.int64)
    np.cumsum([len(one) for one in sets], out=offsets[1:])
    return np.concatenate(sets) if sets else np.empty(0, np.uint32), offsets


def pairs_jaccard(values: Hashes, offsets: Places, a: Places, b: Places) -> Shares:
    """The Jaccard similarity of set a[i] and set b[i], (n,) float64, of packed sets."""
    both = pairs_shared(values, offsets, a, b)
    sizes = np.diff(offsets)
    either = sizes[a] + sizes[b] - both
    return np.asarray(both / np.maximum(either, 1), np.float64)


def pairs_containment(values: Hashes, offsets: Places, a: Places, b: Places) -> Shares:
    """How much of set a[i] is in set b[i], (n,) float64, of packed sets."""
    return np.asarray(pairs_shared(values, offsets, a, b) / np.maximum(np.diff(offsets)[a], 1), np.float64)


def pairs_shared(values: Hashes, offsets: Places, a: Places, b: Places) -> Places:
    """How many values set a[i] and set b[i] have in common, (n,) int64.

    Pair by pair, each one search of a whole array: above some 50 values a set this is faster than to take the steps of
    all pairs' searches together, and needs no memory.
    """
    starts, ends = offsets[:-1], offsets[1:]
    bounds = zip(*(part.tolist() for part in (starts[a], ends[a], starts[b], ends[b])), strict=True)
    return np.array([shared(values[i:j], values[k:m]) for i, j, k, m in bounds], np.int64)
