"""Exact Jaccard similarity of sets of shingle hashes.

A set is a sorted array of distinct unsigned integers (uint32 or uint64), as `minhash.shingle_hashes` returns it. Many
sets are packed into one array (CSR): set i is `values[offsets[i]:offsets[i + 1]]`. The similarity of two empty sets
is 0, as for signatures: a text without a word is like no other.
"""

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.unsignedinteger]
Places = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


def jaccard(a: Hashes, b: Hashes) -> float:
    """Return |A ∩ B| / |A ∪ B|."""
    both = intersection_size(a, b)
    return both / (len(a) + len(b) - both) if both else 0.0


def intersection_size(a: Hashes, b: Hashes) -> int:
    """Return |A ∩ B|, from a search for the smaller set's values in the larger one."""
    few, many = (a, b) if len(a) <= len(b) else (b, a)
    if not len(few):
        return 0
    places = np.searchsorted(many, few)
    return int((many[np.minimum(places, len(many) - 1)] == few).sum())


def pack(sets: list[Hashes]) -> tuple[Hashes, Places]:
    """Return (values, offsets) of sets of one dtype."""
    offsets = np.zeros(len(sets) + 1, np.int64)
    np.cumsum([len(one) for one in sets], out=offsets[1:])
    return np.concatenate(sets) if sets else np.empty(0, np.uint32), offsets


def pairs_jaccard(values: Hashes, offsets: Places, a: Places, b: Places) -> Shares:
    """Return the Jaccard similarity of the packed sets a[i] and b[i], (n,) float64."""
    both = pairs_intersection(values, offsets, a, b)
    sizes = np.diff(offsets)
    either = sizes[a] + sizes[b] - both
    return np.asarray(both / np.maximum(either, 1), np.float64)


def pairs_intersection(values: Hashes, offsets: Places, a: Places, b: Places) -> Places:
    """Return the number of values that the packed sets a[i] and b[i] have in common, (n,) int64.

    One search of a whole array per pair: above some 50 values a set this is faster than to advance the searches of all
    pairs together, and it needs no memory.
    """
    starts, ends = offsets[:-1], offsets[1:]
    bounds = zip(*(part.tolist() for part in (starts[a], ends[a], starts[b], ends[b])), strict=True)
    return np.array([intersection_size(values[i:j], values[k:m]) for i, j, k, m in bounds], np.int64)
