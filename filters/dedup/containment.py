"""Books that lie almost whole in another: LLaMA drops "books with more than 90 % content overlap" (section 2.1).

The sketch of a book is all of its shingle hashes below a common bound, one in `scale` (FracMinHash; Irber et al. 2022).
The k smallest hashes of a long book span a smaller range than those of a short one, so that few of them can be
compared. Two sketches below one bound are the same sample of both books, and the share of one found in the other is an
unbiased estimate of the containment, however unequal the books are. Sketches give candidates, never all pairs; the
verdict is exact, on whole sets of hashes. Short shingles suit: a changed word takes n of them away.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from filters.dedup.minhash import HashSet, Places, Shares, intersection_size, pack, pairs_intersection
from filters.dedup.recall import binomial
from filters.hashing import run_starts
from filters.settings import Positive, Strict

MISS = 1e-3  # probability that a pair just at the threshold is no candidate
HOT = 64  # holders of a hash that are compared
BLOCK = 1 << 20  # pairs formed at once, before equal ones are joined


class Containment(Strict):
    """Settings: documents that are almost whole in another are dropped (LLaMA section 2.1, books).

    MinHash cannot tell such documents where their lengths differ. `find_candidates` takes some 65 bytes of memory for
    each hash of a sketch: 5 GB for 200,000 books of 100,000 words at a scale of 256.
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    ngram: Positive = 5  # words of a shingle, all of which a changed word changes
    scale: Annotated[int, Field(ge=1, le=1 << 32)] = (
        64  # one shingle hash in this number is in the sketch: 1,500 of a book of 100,000 words
    )


@dataclass(frozen=True, slots=True)
class ContainedPairs:
    """Directed pairs, sorted. Two books that contain each other are there both ways.

    Attributes:
        inner: index of the book that is contained.
        outer: index of the book that contains it.
        containment: |A ∩ B| / |A|, with the inner book as A.
        jaccard: similarity of the two.
    """

    inner: Places
    outer: Places
    containment: Shares
    jaccard: Shares


def sketch(hashes: HashSet, scale: int) -> HashSet:
    """Return the hashes of a sorted set, uniform over its dtype, that are below 1/scale of the range."""
    greatest = (int(np.iinfo(hashes.dtype).max) + 1) // scale - 1
    return hashes[: int(np.searchsorted(hashes, hashes.dtype.type(greatest), side="right"))]


def hashes_needed(size: int, threshold: float, miss: float = MISS) -> int:
    """Return the number of hashes, at least 1, of a sketch of some size that a candidate's sketch must hold.

    It is the largest number that a book contained at just the threshold stays below with a probability of `miss` at
    most: the shared hashes of a sketch are hypergeometric, with no heavier tail than the binomial used here.
    """
    return max(1, int(np.searchsorted(np.cumsum(binomial(size, threshold)), miss, side="right")))


def find_candidates(
    sketches: Sequence[HashSet], threshold: float, miss: float = MISS, hot: int = HOT
) -> tuple[Places, Places, Shares]:
    """Return candidates (inner, outer, estimated containment of the inner), sorted and distinct, by index of sketch.

    Of a sketch of n hashes with c needed, any n - c + 1 hashes include one of every sketch that shares c (Chaudhuri et
    al. 2006): the hashes that are rarest among all books are looked up, so a licence that every book has forms no
    pairs. A hash that more than `hot` books hold leads to the `hot` largest of them only, ties by index: of many copies
    of one book each still meets the largest. Two kinds of pairs are missed besides: with a book without a hash in its
    sketch ((1 - 1/scale)^shingles of the books), and (1 - threshold)^n of the pairs whose inner sketch has n <
    log(miss) / log(1 - threshold) hashes (three, by default).
    """
    values, offsets = pack(list(sketches))
    sizes = np.diff(offsets)
    distinct, which = np.unique(sizes, return_inverse=True)
    enough = np.array([hashes_needed(int(size), threshold, miss) for size in distinct], np.int64)[which]
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for inner, outer in _find_meetings(values, offsets, sizes - enough + 1, hot):
        possible = (inner != outer) & (sizes[outer] >= enough[inner])
        inner, outer = inner[possible], outer[possible]
        both = pairs_intersection(values, offsets, inner, outer)
        kept = both >= enough[inner]
        parts.append((inner[kept], outer[kept], both[kept] / sizes[inner[kept]]))
    inner, outer, estimates = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return inner, outer, estimates


def verify_candidates(
    inner: Places, outer: Places, shingles: Callable[[int], HashSet], threshold: float
) -> ContainedPairs:
    """Return the candidates, in either direction, whose exact containment reaches the threshold.

    Of two books that contain each other the caller chooses the one to drop.

    Args:
        inner: the inner books that `find_candidates` returned.
        outer: the outer books that it returned.
        shingles: returns the whole sorted set of a book by its index; two sets are held at a time.
        threshold: smallest containment, in (0, 1].
    """
    pairs = np.unique(np.sort(np.stack([inner, outer], axis=1), axis=1), axis=0)
    rows: list[tuple[int, int, float, float]] = []
    held, first = -1, np.empty(0, np.uint64)
    for a, b in pairs.tolist():
        if a != held:
            held, first = a, shingles(a)
        second = shingles(b)
        both = intersection_size(first, second)
        alike = both / max(1, len(first) + len(second) - both)
        rows += [
            (one, other, both / size, alike)
            for one, other, size in ((a, b, len(first)), (b, a, len(second)))
            if size and both / size >= threshold
        ]
    found = np.array(sorted(rows), [("inner", np.int64), ("outer", np.int64), ("share", float), ("jaccard", float)])
    return ContainedPairs(*(np.ascontiguousarray(found[name]) for name in ("inner", "outer", "share", "jaccard")))


def _find_meetings(values: HashSet, offsets: Places, probes: Places, hot: int) -> Iterator[tuple[Places, Places]]:
    """Yield (inner, outer) of the books that hold one of the inner's `probes[inner]` rarest hashes, in blocks.

    Each pair occurs once, sorted by inner over all blocks.
    """
    sizes = np.diff(offsets)
    owner = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    order = np.lexsort([owner, -sizes.astype(np.int32)[owner], values])  # holders of a hash: the largest first
    first = np.flatnonzero(run_starts(values[order]))
    counts = np.diff(np.r_[first, len(values)]).astype(np.int32)
    group = np.empty(len(values), np.int32)  # the number of each hash among the distinct ones
    group[order] = np.repeat(np.arange(len(first), dtype=np.int32), counts)
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
