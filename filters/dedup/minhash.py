"""MinHash signatures of word n-grams (Broder 1997), in datasketch's published `affine32` scheme, and their bands.

Text is casefolded; words are runs of Unicode word characters; in scripts written without spaces every character is a
word. Word hashes are rolled into n-gram hashes by arithmetic on whole arrays, never as strings. A text with fewer than
n words has one shingle, all of them; a text without a word has no signature, and is compared by its content hash alone.
"""

import re
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from filters.dedup.word_hashes import word_hashes
from filters.dedup.words import folded_words
from filters.hashing import Keys, mix
from filters.settings import Count, Positive, Share, Strict

Hashes = npt.NDArray[np.uint32]

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai, Lao, Myanmar, Khmer, Hiragana, Katakana, Han (Unicode blocks)"""
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")

_ROLL = np.uint64(0x9E3779B97F4A7C15)
"""odd multiplier of the rolling hash: 2^64 divided by the golden ratio (Knuth, TAOCP 6.4)"""
BLOCK = 1 << 10
"""shingles permuted at once, so that a whole block stays in the cache and a book costs no more memory than a page"""


class MinHash(Strict):
    """Settings of near-duplicate detection: word n-grams in datasketch's scheme, bands x rows permutations.

    The defaults are FineWeb's (14 x 8, 5-grams): half of the pairs at similarity 0.68 become candidates.
    """

    ngram: Positive = 5
    bands: Positive = 14
    rows: Positive = 8
    seed: Count = 1
    threshold: Share = 0.7  # a candidate counts as a duplicate from this similarity on
    verify: Literal["signatures", "exact"] = "signatures"  # similarity estimated, or of shingles made again from texts
    rounds: Positive = 8  # times that the rejected members of a bucket are compared among themselves
    bucket: Positive = 1_000_000  # documents of one bucket in memory; larger buckets are compared in parts of this size

    @property
    def permutations(self) -> int:
        """Return the number of values in a signature."""
        return self.bands * self.rows

    @property
    def scheme(self) -> str:
        """Return the full name of the scheme: signatures and bands of equal names are comparable."""
        return f"datasketch-affine32/polynomial-64/words-{self.ngram}/bands-{self.bands}x{self.rows}/seed-{self.seed}"


def words(text: str) -> list[str]:
    """The words of a text, in order, casefolded."""
    return [word.decode("utf-8", "surrogatepass") for word in folded_words(text, _WORD)]


def shingle_hashes(text: str, scheme: MinHash) -> Hashes:
    """The distinct 32-bit hashes of a text's word n-grams, sorted; empty for a text without a word."""
    return _sorted_distinct((_shingles(text, scheme.ngram) >> np.uint64(32)).astype(np.uint32))


def wide_shingle_hashes(text: str, ngram: int) -> Keys:
    """As `shingle_hashes`, in 64 bits: for long texts among many, where 32 bits would meet by chance."""
    return _sorted_distinct(_shingles(text, ngram))


def _shingles(text: str, ngram: int) -> Keys:
    """The 64-bit hashes of a text's word n-grams, in order."""
    hashes = mix(word_hashes(text))
    if not len(hashes):
        return hashes
    width = min(ngram, len(hashes))
    rolled = hashes[: len(hashes) - width + 1].copy()
    for place in range(1, width):
        rolled *= _ROLL
        rolled += hashes[place : place + len(rolled)]
    return mix(rolled)


def _sorted_distinct(shingles: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not len(shingles):
        return shingles
    shingles.sort()
    first = np.empty(len(shingles), np.bool_)
    first[0] = True
    np.not_equal(shingles[1:], shingles[:-1], out=first[1:])
    return shingles[first]


def signature(hashes: Hashes, scheme: MinHash) -> Hashes:
    """The signature of a set of 32-bit shingle hashes, (permutations,) uint32, equal bit for bit to
    `datasketch.MinHash(scheme="affine32")` over the same hashes; empty for an empty set."""
    if not len(hashes):
        return np.empty(0, np.uint32)
    a, b = _permutations(scheme.permutations, scheme.seed)
    premixed = _fmix32(hashes.astype(np.uint32))
    least = np.full(scheme.permutations, np.iinfo(np.uint32).max, np.uint32)
    permuted = np.empty((scheme.permutations, min(len(premixed), BLOCK)), np.uint32)
    for start in range(0, len(premixed), BLOCK):
        block = premixed[start : start + BLOCK]
        room = permuted[:, : len(block)]
        np.multiply(a[:, None], block, out=room)
        np.add(room, b[:, None], out=room)
        np.minimum(least, room.min(axis=1), out=least)
    return least


def band_hashes(signatures: Hashes, scheme: MinHash) -> Keys:
    """(n, bands) uint64 keys of (n, permutations) signatures: equal for equal rows of the same band, well mixed."""
    rows = signatures.reshape(-1, scheme.bands, scheme.rows).astype(np.uint64)
    keys = mix(np.arange(1, scheme.bands + 1, dtype=np.uint64) * _ROLL)[None, :].repeat(len(rows), axis=0)
    for place in range(scheme.rows):
        keys = mix(keys * _ROLL + rows[:, :, place])
    return keys


def similarity(a: Hashes, b: Hashes) -> float:
    """The estimated Jaccard similarity: the share of equal values."""
    return float((a == b).mean()) if len(a) and len(a) == len(b) else 0.0


@lru_cache(maxsize=16)
def _permutations(count: int, seed: int) -> tuple[Hashes, Hashes]:
    """Return the multipliers and offsets that datasketch publishes for this number of permutations and seed."""
    import datasketch

    published = datasketch.MinHash(num_perm=count, seed=seed, scheme="affine32").permutations
    return published[0].astype(np.uint32), published[1].astype(np.uint32)


def _fmix32(values: Hashes) -> Hashes:
    """The 32-bit finalizer of MurmurHash3, which the scheme applies once before it permutes."""
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values = values ^ (values >> np.uint32(13))
    values = values * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))
