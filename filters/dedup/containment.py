"""Which books lie almost whole in another: LLaMA drops "books with more than 90 % content overlap" (section 2.1).

A book's sketch is all of its shingle hashes below a common bound, one in `scale` (FracMinHash; Irber et al. 2022).
Of the k smallest hashes a long book's reach less far than a short one's, so that few or none can be compared; two
sketches below one bound are the same sample of both books, and the share of one found in the other estimates the
containment without bias, however unequal the books are. Sketches give candidates, never all pairs; the verdict is
exact, on whole sets of hashes. Short shingles suit: a changed word takes n of them away.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from filters.dedup.jaccard import Hashes, Places, Shares, pack, pairs_shared, shared
from filters.dedup.s_curve import binomial

SCALE = 256
"""one hash in so many: some 400 of a book of 100,000 words, 40 of a tale of 10,000. `contained` takes some 65 bytes of
memory for each: 5 GB for 200,000 books of that length."""
MISS = 1e-3
"""how likely a pair just at the threshold is no candidate"""
HOT = 64
"""holders of a hash that are looked at"""
BLOCK = 1 << 20
"""pairs formed at once, before equal ones are joined"""


@dataclass(frozen=True, slots=True)
class Contained:
    """Directed pairs, sorted: `containment` of each `inner` is in its `outer` (|A ∩ B| / |A|), at their `jaccard`
    similarity. Two books that contain each other are there both ways."""

    inner: Places
    outer: Places
    containment: Shares
    jaccard: Shares


def sketch(hashes: Hashes, scale: int = SCALE) -> Hashes:
    """The hashes of a sorted set, uniform over its dtype, that are below 1/scale of the range."""
    greatest = (int(np.iinfo(hashes.dtype).max) + 1) // scale - 1
    return hashes[: int(np.searchsorted(hashes, hashes.dtype.type(greatest), side="right"))]


def needed(size: int, threshold: float, miss: float = MISS) -> int:
    """How many hashes of a sketch of that size must be in another for a candidate.

    The most that a book contained at just the threshold stays below with a probability of `miss` at most (of those in
    the sketch, the shared ones are hypergeometric, with no heavier tail than the binomial used here); one at least.
    """
    return max(1, int(np.searchsorted(np.cumsum(binomial(size, threshold)), miss, side="right")))


def contained(
    sketches: Sequence[Hashes], threshold: float = 0.9, miss: float = MISS, hot: int = HOT
) -> tuple[Places, Places, Shares]:
    """Candidates (inner, outer, estimated containment of the inner), sorted and distinct, by index of the sketches.

    Of a sketch of n hashes with c needed, any n - c + 1 hashes meet every sketch that shares c (Chaudhuri et al. 2006):
    the rarest of all books are looked up, so a licence that every book carries forms no pairs. A hash that more than
    `hot` books hold leads to the `hot` largest of them only, ties by index: of many copies of one book each still
    meets the largest. Missed are, besides: books without a hash in their sketch ((1 - 1/scale)^shingles of them), and
    (1 - threshold)^n of the pairs whose inner has n < log(miss) / log(1 - threshold) hashes (three, by default).
    """
    values, offsets = pack(list(sketches))
    sizes = np.diff(offsets)
    distinct, which = np.unique(sizes, return_inverse=True)
    enough = np.array([needed(int(size), threshold, miss) for size in distinct], np.int64)[which]
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for inner, outer in _meetings(values, offsets, sizes - enough + 1, hot):
        possible = (inner != outer) & (sizes[outer] >= enough[inner])
        inner, outer = inner[possible], outer[possible]
        both = pairs_shared(values, offsets, inner, outer)
        kept = both >= enough[inner]
        parts.append((inner[kept], outer[kept], both[kept] / sizes[inner[kept]]))
    inner, outer, estimates = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return inner, outer, estimates


def verified(inner: Places, outer: Places, shingles: Callable[[int], Hashes], threshold: float = 0.9) -> Contained:
    """The candidates, in either direction, whose exact containment reaches the threshold.

    `shingles(index)` gives a book's whole sorted set; two are held at a time. Who goes of two books that contain each
    other is for the caller's survivor policy.
    """
    pairs = np.unique(np.sort(np.stack([inner, outer], axis=1), axis=1), axis=0)
    rows: list[tuple[int, int, float, float]] = []
    held, first = -1, np.empty(0, np.uint64)
    for a, b in pairs.tolist():
        if a != held:
            held, first = a, shingles(a)
        second = shingles(b)
        both = shared(first, second)
        alike = both / max(1, len(first) + len(second) - both)
        rows += [
            (one, other, both / size, alike)
            for one, other, size in ((a, b, len(first)), (b, a, len(second)))
            if size and both / size >= threshold
        ]
    rows.sort()
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    return Contained(
        np.array(columns[0], np.int64), np.array(columns[1], np.int64), np.array(columns[2]), np.array(columns[3])
    )


def _meetings(values: Hashes, offsets: Places, probes: Places, hot: int) -> Iterator[tuple[Places, Places]]:
    """(inner, outer) of books that hold one of the inner's `probes[inner]` rarest hashes, in blocks, each pair once,
    sorted by inner over all blocks."""
    sizes = np.diff(offsets)
    owner = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    order = np.lexsort([owner, -sizes.astype(np.int32)[owner], values])  # holders of a hash: the largest first
    first, counts, group = _groups(values, order)
    rarest = np.lexsort([values, counts[group], owner])
    place = np.arange(len(values)) - np.repeat(offsets[:-1], sizes)
    chosen = rarest[place < probes[owner]]  # sorted by owner, as the hashes themselves are
    looked = np.minimum(counts[group[chosen]], hot)
    ends = np.cumsum(looked, dtype=np.int64)
    last = np.searchsorted(owner[chosen], np.arange(len(sizes)), side="right")
    start = book = 0
    while start < len(chosen):
        before = int(ends[start - 1]) if start else 0
        within = int(np.searchsorted(ends, before + BLOCK, side="right"))
        book = max(book + 1, int(np.searchsorted(last, within, side="right")))  # whole books, so that no pair recurs
        end = int(last[book - 1])
        some, of_each = chosen[start:end], looked[start:end]
        inner = np.repeat(owner[some].astype(np.int64), of_each)
        step = np.arange(len(inner)) - np.repeat(np.cumsum(of_each) - of_each, of_each)
        outer = owner[order[np.repeat(first[group[some]], of_each) + step]]
        yield np.divmod(np.unique(inner * len(sizes) + outer), len(sizes))
        start = end


def _groups(values: Hashes, order: Places) -> tuple[Places, npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Equal values, as they lie in `order`: where each group starts, how many it has, and the group of every value."""
    held = values[order]
    first = np.flatnonzero(np.r_[True, held[1:] != held[:-1]]) if len(held) else np.empty(0, np.int64)
    counts = np.diff(np.r_[first, len(held)]).astype(np.int32)
    group = np.empty(len(values), np.int32)
    group[order] = np.repeat(np.arange(len(first), dtype=np.int32), counts)
    return first, counts, group
