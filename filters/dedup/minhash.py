"""MinHash signatures of word n-grams (Broder 1997), in datasketch's published `affine32` scheme, and their bands.

Text is casefolded. Words are runs of Unicode word characters. In scripts that are written without spaces, every
character is a word. Word hashes are combined into n-gram hashes by arithmetic on whole arrays, so no string is made for
each word. A text with fewer than n words has one shingle, which consists of all its words. A text without words has no
signature and is compared only by its content hash.

Signatures estimate the Jaccard similarity. The module also computes the exact Jaccard similarity of sets of shingle
hashes. Many sets are packed into one array (CSR): set i is `values[offsets[i]:offsets[i + 1]]`. The similarity of two
empty sets is 0, as it is for signatures.
"""

from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from filters.hashing import GOLDEN, Keys, mix, sort_distinct
from filters.settings import Positive, Share, Strict

Hashes = npt.NDArray[np.uint32]
HashSet = npt.NDArray[np.unsignedinteger]  # sorted distinct hashes of 32 or 64 bits
Places = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

UNSPACED = (  # Unicode blocks of Thai and Lao, Myanmar, Khmer, Hiragana and Katakana, Han
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF)),
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)
# Shingles that are permuted at once. The block fits in the CPU cache, and a book takes no more memory than a page.
SHINGLE_BLOCK = 1 << 10
# Code points that are hashed at once. This limits the size of the table of powers. Longer runs of letters are cut.
TEXT_BLOCK = 1 << 16

_BREAK, _LETTER, _ALONE = 0, 1, 2  # kinds of code points: between words, part of a word, a word by itself


class MinHash(Strict):
    """Settings of near-duplicate detection: word n-grams in datasketch's scheme, bands x rows permutations.

    The defaults are FineWeb's (14 x 8, 5-grams): half of the pairs at similarity 0.68 become candidates.
    """

    ngram: Positive = 5
    bands: Positive = 14
    rows: Positive = 8
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 1  # seed of datasketch's permutations, 32 bits
    threshold: Share = 0.7  # smallest similarity of a candidate pair that counts as duplicates
    # `signatures`: the similarity estimated from signatures; `exact`: that of shingles computed again from the texts
    verify: Literal["signatures", "exact"] = "signatures"
    rounds: Positive = 8  # number of rounds; the members of a bucket that one round rejects are compared in the next
    bucket: Positive = 1_000_000  # documents of one bucket in memory; larger buckets are compared in parts of this size

    @property
    def permutations(self) -> int:
        """Return the number of values in a signature."""
        return self.bands * self.rows

    @property
    def scheme(self) -> str:
        """Return the full name of the scheme. Signatures are comparable if the names of their schemes are equal."""
        return f"datasketch-affine32/polynomial-64/words-{self.ngram}/bands-{self.bands}x{self.rows}/seed-{self.seed}"


def word_hashes(text: str) -> Keys:
    """Return the hash of each word of a text, in order, (words,) uint64. The hashes are not mixed.

    The hash of a word is a polynomial of its code points modulo 2^64. All hashes are computed from one cumulative sum
    over the text (Karp & Rabin 1987). This is possible because an odd base has an inverse.
    """
    points = np.frombuffer(text.casefold().encode("utf-32-le", "surrogatepass"), "<u4")
    kinds = _kinds()[points]
    if len(points) <= TEXT_BLOCK:
        return _word_hashes(points, kinds)
    parts, start = [], 0
    while start < len(points):
        end = min(start + TEXT_BLOCK, len(points))
        if end < len(points) and kinds[end - 1] == _LETTER and kinds[end] == _LETTER:
            breaks = np.flatnonzero(kinds[start:end] != _LETTER)
            end = start + int(breaks[-1]) + 1 if len(breaks) else end
        parts.append(_word_hashes(points[start:end], kinds[start:end]))
        start = end
    return np.concatenate(parts)


def shingle_hashes(text: str, scheme: MinHash) -> Hashes:
    """Return the distinct 32-bit hashes of the word n-grams of a text, sorted; empty for a text without words."""
    return sort_distinct(ngram_hashes(word_hashes(text), scheme))


def wide_shingle_hashes(text: str, ngram: int) -> Keys:
    """Return the distinct 64-bit hashes of the word n-grams of a text, sorted.

    They are used for many long texts, where 32-bit hashes would collide by chance.
    """
    return sort_distinct(_shingles(word_hashes(text), ngram))


def ngram_hashes(words: Keys, scheme: MinHash) -> Hashes:
    """Return the 32-bit hashes of word n-grams, in order. `words`: the result of `word_hashes` for the text."""
    return (_shingles(words, scheme.ngram) >> np.uint64(32)).astype(np.uint32)


def signature(hashes: Hashes, scheme: MinHash) -> Hashes:
    """Return the MinHash signature of a set of shingle hashes.

    It has the same bits as that of `datasketch.MinHash(scheme="affine32")`.

    Args:
        hashes: (n,) uint32, from `shingle_hashes`.
        scheme: gives the number of permutations and the seed.

    Returns:
        (permutations,) uint32; empty for an empty set.
    """
    if not len(hashes):
        return np.empty(0, np.uint32)
    a, b = _permutations(scheme.permutations, scheme.seed)
    premixed = _mix_32(hashes.astype(np.uint32))
    least = np.full(scheme.permutations, np.iinfo(np.uint32).max, np.uint32)
    permuted = np.empty((scheme.permutations, min(len(premixed), SHINGLE_BLOCK)), np.uint32)
    for start in range(0, len(premixed), SHINGLE_BLOCK):
        block = premixed[start : start + SHINGLE_BLOCK]
        room = permuted[:, : len(block)]
        np.multiply(a[:, None], block, out=room)
        np.add(room, b[:, None], out=room)
        np.minimum(least, room.min(axis=1), out=least)
    return least


def band_hashes(signatures: Hashes, scheme: MinHash) -> Keys:
    """Return a key for each band of each signature. Two keys of the same band are equal if all rows are equal.

    Args:
        signatures: (n, permutations) uint32.
        scheme: gives the numbers of bands and rows.

    Returns:
        (n, bands) uint64. Keys of different bands are different, except by hash collision.
    """
    rows = signatures.reshape(-1, scheme.bands, scheme.rows).astype(np.uint64)
    keys = mix(np.arange(1, scheme.bands + 1, dtype=np.uint64) * GOLDEN)[None, :].repeat(len(rows), axis=0)
    for place in range(scheme.rows):
        keys = mix(keys * GOLDEN + rows[:, :, place])
    return keys


def similarity(a: Hashes, b: Hashes) -> float:
    """Return the Jaccard similarity estimated from two signatures: the share of equal values."""
    return float((a == b).mean()) if len(a) and len(a) == len(b) else 0.0


def jaccard(a: HashSet, b: HashSet) -> float:
    """Return |A ∩ B| / |A ∪ B|."""
    both = intersection_size(a, b)
    return both / (len(a) + len(b) - both) if both else 0.0


def intersection_size(a: HashSet, b: HashSet) -> int:
    """Return |A ∩ B|, by a binary search for each value of the smaller set in the larger set."""
    few, many = (a, b) if len(a) <= len(b) else (b, a)
    if not len(few):
        return 0
    places = np.searchsorted(many, few)
    return int((many[np.minimum(places, len(many) - 1)] == few).sum())


def pack(sets: list[HashSet]) -> tuple[HashSet, Places]:
    """Pack sets of one dtype. Return (values, offsets), where set i is values[offsets[i]:offsets[i + 1]]."""
    offsets = np.zeros(len(sets) + 1, np.int64)
    np.cumsum([len(one) for one in sets], out=offsets[1:])
    return np.concatenate(sets) if sets else np.empty(0, np.uint32), offsets


def pairs_jaccard(values: HashSet, offsets: Places, a: Places, b: Places) -> Shares:
    """Return the Jaccard similarity of the packed sets a[i] and b[i] for each i, (n,) float64."""
    both = pairs_intersection(values, offsets, a, b)
    sizes = np.diff(offsets)
    either = sizes[a] + sizes[b] - both
    return np.asarray(both / np.maximum(either, 1), np.float64)


def pairs_intersection(values: HashSet, offsets: Places, a: Places, b: Places) -> Places:
    """Return the number of values that the packed sets a[i] and b[i] have in common, for each i, (n,) int64.

    The pairs are processed one after the other. Above about 50 values per set this is faster than advancing the
    searches of all pairs together, and it needs no additional memory.
    """
    starts, ends = offsets[:-1], offsets[1:]
    bounds = zip(*(part.tolist() for part in (starts[a], ends[a], starts[b], ends[b])), strict=True)
    return np.array([intersection_size(values[i:j], values[k:m]) for i, j, k, m in bounds], np.int64)


def _shingles(words: Keys, ngram: int) -> Keys:
    """Return the 64-bit hashes of word n-grams, in order, in a new array. `words`: the result of `word_hashes`."""
    hashes = mix(words)
    if not len(hashes):
        return hashes
    width = min(ngram, len(hashes))
    rolled = hashes[: len(hashes) - width + 1].copy()
    for place in range(1, width):
        rolled *= GOLDEN
        rolled += hashes[place : place + len(rolled)]
    return mix(rolled)


def _word_hashes(points: npt.NDArray[np.uint32], kinds: npt.NDArray[np.uint8]) -> Keys:
    """Return the hash of each word of a block: the sum of point * GOLDEN^i, where i is 0 at the start of the word.

    Args:
        points: (n,) code points.
        kinds: (n,) kind of each code point.
    """
    letters = kinds == _LETTER
    edge = np.empty(len(kinds) + 1, np.bool_)
    edge[0], edge[-1] = (letters[0], letters[-1]) if len(kinds) else (False, False)
    np.not_equal(letters[1:], letters[:-1], out=edge[1:-1])
    places = np.flatnonzero(edge)
    starts, ends = places[::2], places[1::2]
    alone = np.flatnonzero(kinds == _ALONE)
    if len(alone):
        order = np.argsort(np.concatenate([starts, alone]), kind="stable")
        starts, ends = (np.concatenate(pair)[order] for pair in ((starts, alone), (ends, alone + 1)))
    powers, inverses = _powers()
    sums = np.zeros(len(points) + 1, np.uint64)
    np.cumsum(points * powers[: len(points)], out=sums[1:])
    return np.asarray((sums[ends] - sums[starts]) * inverses[starts])


@lru_cache(maxsize=1)
def _powers() -> tuple[Keys, Keys]:
    """Return GOLDEN^i and GOLDEN^-i modulo 2^64 for all positions i in a block."""
    base = int(GOLDEN)
    return tuple(  # type: ignore[return-value]
        np.cumprod(np.r_[np.uint64(1), np.full(TEXT_BLOCK, one, np.uint64)]) for one in (base, pow(base, -1, 1 << 64))
    )


@lru_cache(maxsize=1)
def _kinds() -> npt.NDArray[np.uint8]:
    r"""Return the kind of each code point; as in `re`, \w is alphanumeric or an underscore."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(0x110000)), np.uint8, 0x110000)
    kinds[ord("_")] = _LETTER
    for first, last in UNSPACED:
        kinds[first : last + 1] = _ALONE
    return kinds


@lru_cache(maxsize=16)
def _permutations(count: int, seed: int) -> tuple[Hashes, Hashes]:
    """Return the multipliers and offsets that datasketch uses for a number of permutations and a seed."""
    import datasketch  # Imported here because it imports scipy, which takes half a second.

    published = datasketch.MinHash(num_perm=count, seed=seed, scheme="affine32").permutations
    return published[0].astype(np.uint32), published[1].astype(np.uint32)


def _mix_32(values: Hashes) -> Hashes:
    """Hash 32-bit values with the finalizer of MurmurHash3. The scheme does this once, before the permutations."""
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values = values ^ (values >> np.uint32(13))
    values = values * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))
