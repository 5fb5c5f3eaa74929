"""Hashes of the words of a text, in order, without a word ever being made: a few passes over an array of code points.

Words are as in filters/dedup/minhash.py: runs of Unicode word characters of the casefolded text, and single characters of
scripts that are written without spaces. A word's hash is a polynomial of its code points modulo 2^64, mixed; it comes
out of one running sum over the text (Karp & Rabin 1987), since an odd base has an inverse.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
            (0xF900, 0xFAFF), (0x20000, 0x3FFFF))  # fmt: skip
"""Thai and Lao, Myanmar, Khmer, Hiragana and Katakana, Han (Unicode blocks)"""
BASE = 0x9E3779B97F4A7C15
"""odd: 2^64 divided by the golden ratio (Knuth, TAOCP 6.4)"""
BLOCK = 1 << 16
"""code points at a time, which bounds the powers that are held; a longer run of letters is cut into words of so many"""
_NONE, _LETTER, _ALONE = 0, 1, 2


def word_hashes(text: str) -> Keys:
    """(words,) uint64: a hash of each word of a text, before mixing."""
    points = np.frombuffer(text.casefold().encode("utf-32-le", "surrogatepass"), "<u4")
    kinds = _kinds()[points]
    if len(points) <= BLOCK:
        return _hashes(points, kinds)
    parts, start = [], 0
    while start < len(points):
        end = min(start + BLOCK, len(points))
        if end < len(points) and kinds[end - 1] == _LETTER and kinds[end] == _LETTER:
            breaks = np.flatnonzero(kinds[start:end] != _LETTER)
            end = start + int(breaks[-1]) + 1 if len(breaks) else end
        parts.append(_hashes(points[start:end], kinds[start:end]))
        start = end
    return np.concatenate(parts)


def _hashes(points: npt.NDArray[np.uint32], kinds: npt.NDArray[np.uint8]) -> Keys:
    """The words of one block: the sum of point * BASE^i over the word, i from 0 at its start."""
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
    """BASE^i and BASE^-i modulo 2^64, for a block."""
    return tuple(  # type: ignore[return-value]
        np.cumprod(np.r_[np.uint64(1), np.full(BLOCK, base, np.uint64)]) for base in (BASE, pow(BASE, -1, 1 << 64))
    )


@lru_cache(maxsize=1)
def _kinds() -> npt.NDArray[np.uint8]:
    r"""What each code point is to a word, as `re` has it: \w is alphanumeric or an underscore."""
    kinds = np.fromiter((chr(code).isalnum() for code in range(0x110000)), np.uint8, 0x110000)
    kinds[ord("_")] = _LETTER
    for first, last in UNSPACED:
        kinds[first : last + 1] = _ALONE
    return kinds
