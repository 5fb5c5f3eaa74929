"""MinHash signatures of word n-grams (Broder 1997), in datasketch's published `affine32` scheme, and their bands.

Text is casefolded; words are runs of Unicode word characters; in scripts written without spaces every character is a
word. Word hashes are rolled into n-gram hashes by arithmetic on whole arrays, never as strings. A text with fewer than
n words has one shingle, all of them; a text without a word has no signature, and is compared by its content hash alone.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from datasketch import MinHash

from filters.dedup.word_hashes import word_hashes
from filters.dedup.words import folded_words

Hashes = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai, Lao, Myanmar, Khmer, Hiragana, Katakana, Han (Unicode blocks)"""
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")

_ROLL = np.uint64(0x9E3779B97F4A7C15)
"""odd multiplier of the rolling hash: 2^64 divided by the golden ratio (Knuth, TAOCP 6.4)"""
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
"""the 64-bit finalizer of MurmurHash3 (Appleby, public domain)"""
BLOCK = 1 << 10
"""shingles permuted at once, so that a whole block stays in the cache and a book costs no more memory than a page"""


@dataclass(frozen=True, slots=True)
class Scheme:
    """What makes two signatures comparable. Defaults: FineWeb's 5-grams, 14 bands of 8 rows."""

    ngram: int = 5
    bands: int = 14
    rows: int = 8
    seed: int = 1

    @property
    def permutations(self) -> int:
        """How many values a signature has."""
        return self.bands * self.rows

    @property
    def name(self) -> str:
        """Names the scheme in full: equal names, comparable signatures and bands."""
        return f"datasketch-affine32/polynomial-64/words-{self.ngram}/bands-{self.bands}x{self.rows}/seed-{self.seed}"


def words(text: str) -> list[str]:
    """The words of a text, in order, casefolded."""
    return [word.decode("utf-8", "surrogatepass") for word in folded_words(text, _WORD)]


def shingle_hashes(text: str, scheme: Scheme) -> Hashes:
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


def signature(hashes: Hashes, scheme: Scheme) -> Hashes:
    """The signature of a set of 32-bit shingle hashes, (permutations,) uint32, equal bit for bit to
    `datasketch.MinHash(scheme="affine32")` over the same hashes; empty for an empty set."""
    if not len(hashes):
        return np.empty(0, np.uint32)
    a, b = _permutations(scheme)
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


def band_hashes(signatures: Hashes, scheme: Scheme) -> Keys:
    """(n, bands) uint64 keys of (n, permutations) signatures: equal for equal rows of the same band, well mixed."""
    rows = signatures.reshape(-1, scheme.bands, scheme.rows).astype(np.uint64)
    keys = mix(np.arange(1, scheme.bands + 1, dtype=np.uint64) * _ROLL)[None, :].repeat(len(rows), axis=0)
    for place in range(scheme.rows):
        keys = mix(keys * _ROLL + rows[:, :, place])
    return keys


def similarity(a: Hashes, b: Hashes) -> float:
    """The estimated Jaccard similarity: the share of equal values."""
    return float((a == b).mean()) if len(a) and len(a) == len(b) else 0.0


def mix(values: Keys) -> Keys:
    """Spread 64-bit values over the whole range: a bijection, vectorised."""
    values = values ^ (values >> np.uint64(33))
    values = values * _MIX_1
    values = values ^ (values >> np.uint64(33))
    values = values * _MIX_2
    return values ^ (values >> np.uint64(33))


@lru_cache(maxsize=16)
def _permutations(scheme: Scheme) -> tuple[Hashes, Hashes]:
    """The multipliers and offsets that datasketch publishes for this seed and number."""
    published = MinHash(num_perm=scheme.permutations, seed=scheme.seed, scheme="affine32").permutations
    return published[0].astype(np.uint32), published[1].astype(np.uint32)


def _fmix32(values: Hashes) -> Hashes:
    """The 32-bit finalizer of MurmurHash3, which the scheme applies once before it permutes."""
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values = values ^ (values >> np.uint32(13))
    values = values * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))
