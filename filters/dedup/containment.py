"""Find books that are almost completely contained in another: LLaMA drops "books with more than 90 % content overlap".

See LLaMA, section 2.1. The sketch of a book consists of all its shingle hashes below a bound, on average one in `scale`
(FracMinHash; Irber et al. 2022). The bound is the same for all books, so the sketches of two books are the same sample
of both. The share of one sketch that is found in the other is an unbiased estimate of the containment, even if the
lengths of the books are very different. (With the k smallest hashes of each book this would not work: the hashes of a
long book span a smaller range than those of a short book, so only few of them could be compared.)

Sketches are only used to find candidates. The result is exact, computed from all hashes of both books. Short shingles
are suitable, because a changed word changes n shingles of n words.
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

MISS = 1e-3  # probability that a pair exactly at the threshold is not found as a candidate
MAX_BOOKS = 64  # largest number of books with the same hash that are compared
BLOCK = 1 << 20  # Pairs that are formed at once, before duplicate pairs are removed.


class Containment(Strict):
    """Settings: drop documents that are almost completely contained in another (LLaMA section 2.1, books).

    MinHash does not find these documents if the lengths are different. `find_candidates` takes about 65 bytes of memory
    for each hash of a sketch: 5 GB for 200,000 books of 100,000 words at a scale of 256.
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9
    ngram: Positive = 5  # words of a shingle; a changed word changes this number of shingles
    scale: Annotated[int, Field(ge=1, le=1 << 32)] = (
        64  # one in `scale` shingle hashes is in the sketch: about 1,500 hashes for a book of 100,000 words
    )


@dataclass(frozen=True, slots=True)
class ContainedPairs:
    """Pairs of an inner and an outer book, sorted. Two books that contain each other form two pairs.

    Attributes:
        inner: (n,) index of the book that is contained.
        outer: (n,) index of the book that contains the inner book.
        containment: (n,) |A ∩ B| / |A|, where A is the inner and B the outer book.
        jaccard: (n,) Jaccard similarity of the two books.
    """

    inner: Places
    outer: Places
    containment: Shares
    jaccard: Shares


def sketch(hashes: HashSet, scale: int) -> HashSet:
    """Return the sketch of a book: its hashes in the lowest 1/scale of the range of the dtype.

    Args:
        hashes: sorted shingle hashes, uniformly distributed over the range of the dtype.
        scale: reciprocal of the share of hashes in the sketch.
    """
    greatest = (int(np.iinfo(hashes.dtype).max) + 1) // scale - 1
    return hashes[: int(np.searchsorted(hashes, hashes.dtype.type(greatest), side="right"))]


def hashes_needed(size: int, threshold: float, miss: float = MISS) -> int:
    """Return the number of hashes of a sketch that another sketch must also contain to make the pair a candidate.

    It is the largest number such that a pair exactly at the threshold shares fewer hashes with a probability of at most
    `miss`. The number of shared hashes is hypergeometric. Its tail is not heavier than that of the binomial
    distribution that is used here.

    Args:
        size: number of hashes in the sketch of the inner book.
        threshold: smallest containment.
        miss: probability of missing a pair exactly at the threshold.

    Returns:
        At least 1.
    """
    return max(1, int(np.searchsorted(np.cumsum(binomial(size, threshold)), miss, side="right")))


def find_candidates(
    sketches: Sequence[HashSet], threshold: float, miss: float = MISS, max_books: int = MAX_BOOKS
) -> tuple[Places, Places, Shares]:
    """Find pairs of books whose containment may reach the threshold.

    If a sketch has n hashes and another sketch must share c of them, then any n - c + 1 hashes of the first include a
    hash that both share (Chaudhuri et al. 2006). Only the n - c + 1 hashes that are rarest among all books are looked
    up. So text that is in every book, such as a licence, forms no pairs.

    If more than `max_books` books have a hash, only the `max_books` largest of them (ties by index) are candidates for
    the outer book. So each of many copies of a book is still compared with the largest copy. In addition, two kinds of
    pairs are missed: pairs with a book whose sketch is empty (a share of (1 - 1/scale)^shingles of the books), and a
    share of (1 - threshold)^n of the pairs whose inner sketch has n < log(miss) / log(1 - threshold) hashes (three, by
    default).

    Args:
        sketches: the sketch of each book.
        threshold: smallest containment.
        miss: probability of missing a pair exactly at the threshold.
        max_books: largest number of books with the same hash that are compared.

    Returns:
        Index of the inner book, index of the outer book, and estimated containment of the inner book, (n,) each. The
        pairs are distinct and sorted.
    """
    values, offsets = pack(list(sketches))
    sizes = np.diff(offsets)
    distinct, which = np.unique(sizes, return_inverse=True)
    enough = np.array([hashes_needed(int(size), threshold, miss) for size in distinct], np.int64)[which]
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for inner, outer in _find_pairs_by_rare_hashes(values, offsets, sizes - enough + 1, max_books):
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
    """Return the candidates whose exact containment reaches the threshold. Both directions of a pair are tested.

    If two books contain each other, the caller must choose the book to drop.

    Args:
        inner: the inner books, from `find_candidates`.
        outer: the outer books, from `find_candidates`.
        shingles: takes the index of a book and returns all its shingle hashes, sorted. Only two sets are held at a
            time.
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


def _find_pairs_by_rare_hashes(
    values: HashSet, offsets: Places, probes: Places, max_books: int
) -> Iterator[tuple[Places, Places]]:
    """Yield pairs of books where the outer book has one of the `probes[inner]` rarest hashes of the inner book.

    Args:
        values: the hashes of all sketches, concatenated.
        offsets: (books + 1,) the beginning of each sketch in `values`.
        probes: (books,) number of hashes of each book to look up.
        max_books: largest number of books with the same hash that are used as the outer book.

    Yields:
        Blocks of (inner, outer), (n,) each. Each pair occurs once. The blocks are sorted by the inner book.
    """
    sizes = np.diff(offsets)
    owner = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    order = np.lexsort([owner, -sizes.astype(np.int32)[owner], values])  # by hash, and then the largest book first
    first = np.flatnonzero(run_starts(values[order]))
    counts = np.diff(np.r_[first, len(values)]).astype(np.int32)
    group = np.empty(len(values), np.int32)  # index of each hash among the distinct hashes
    group[order] = np.repeat(np.arange(len(first), dtype=np.int32), counts)
    rarest = np.lexsort([values, counts[group], owner])
    place = np.arange(len(values)) - np.repeat(offsets[:-1], sizes)
    chosen = rarest[place < probes[owner]]  # sorted by owner, like `values`
    looked = np.minimum(counts[group[chosen]], max_books)
    ends = np.cumsum(looked, dtype=np.int64)
    last = np.searchsorted(owner[chosen], np.arange(len(sizes)), side="right")
    start = book = 0
    while start < len(chosen):
        before = int(ends[start - 1]) if start else 0
        within = int(np.searchsorted(ends, before + BLOCK, side="right"))
        # A block consists of whole books, so that no pair occurs in two blocks.
        book = max(book + 1, int(np.searchsorted(last, within, side="right")))
        end = int(last[book - 1])
        some, of_each = chosen[start:end], looked[start:end]
        inner = np.repeat(owner[some].astype(np.int64), of_each)
        step = np.arange(len(inner)) - np.repeat(np.cumsum(of_each) - of_each, of_each)
        outer = owner[order[np.repeat(first[group[some]], of_each) + step]]
        yield np.divmod(np.unique(inner * len(sizes) + outer), len(sizes))
        start = end
