"""Canaries: copies of real documents, edited to a known similarity, to measure what near-duplicate detection finds.

A copy goes through the same signatures and bands as the corpus; how many pairs share a band must then follow the
S-curve of the recipe. A copy is a text of the document's words alone, since nothing else of a text is compared.
"""

import hashlib
import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from filters.dedup.jaccard import shared
from filters.dedup.minhash import MinHash, band_hashes, shingle_hashes, signature, similarity, words
from filters.dedup.s_curve import Level, candidate

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""from where a curve begins to rise to where it is flat again, for bands and rows in use (FineWeb's 14 x 8)"""
SHORTEST = 50
"""distinct shingles: of a shorter document no copy comes within a hundredth of every level"""
LONGEST = 20_000
"""words: a longer document's copies tell no more, and take longer to make"""


def plant(text: str, level: float, key: bytes, scheme: MinHash) -> tuple[str, float] | None:
    """A copy of a text as near as possible to the wanted Jaccard similarity, in (0, 1], and its true similarity.

    Words that stand n apart or more, in an order keyed by `key`, are replaced by made-up ones, of which each takes n
    shingles away and brings n new ones, as long as the similarity stays at the level or above; made-up words at the
    end, a new shingle each, make up the rest. None for a text with fewer than 50 distinct shingles or more than 20,000
    words.
    """
    found = words(text)
    original = shingle_hashes(text, scheme)
    if len(original) < SHORTEST or len(found) > LONGEST:
        return None
    slots = _slots(len(found), scheme.ngram, key)

    def edited(replaced: int, appended: int) -> tuple[str, int, int]:
        """The copy, and how many shingles both and either have."""
        made = found.copy()
        for place in slots[:replaced]:
            made[place] = _made_up(place, key)
        made += [_made_up(len(found) + place, key) for place in range(appended)]
        copy = " ".join(made)
        hashes = shingle_hashes(copy, scheme)
        both = shared(original, hashes)
        return copy, both, len(original) + len(hashes) - both

    def below(replaced: int) -> bool:
        _, both, either = edited(replaced, 0)
        return both / either < level

    replaced = max(0, bisect_left(range(len(slots) + 1), True, key=below) - 1)
    _, both, either = edited(replaced, 0)
    fewest = max(0, math.floor(both / level) - either)
    appended = min((fewest, fewest + 1), key=lambda more: abs(both / (either + more) - level))
    copy, both, either = edited(replaced, appended)
    return copy, both / either


def recall(
    texts: Iterable[tuple[bytes, str]],
    scheme: MinHash,
    levels: Sequence[float] = LEVELS,
    seed: int = 1,
    threshold: float = 0.7,
) -> list[Level]:
    """How many of the planted copies share a band with their original, and how many the theory expects, by level.

    `texts`: (document id, text), in any order: nothing of the result depends on it. Documents should not be copies of
    each other: pairs of like documents are found or missed together, and then the counts are no binomials. Of the
    pairs that are found, those are counted apart whose estimated similarity reaches the `threshold`, and of these those
    whose true one does.
    """
    true: list[list[float]] = [[] for _ in levels]
    likely: list[list[float]] = [[] for _ in levels]
    counts = [[0, 0, 0] for _ in levels]
    for identity, text in texts:
        original = signature(shingle_hashes(text, scheme), scheme)
        for place, level in enumerate(levels):
            planted = plant(text, level, _key(seed, identity, level), scheme)
            if planted is None:
                continue
            copy, jaccard = planted
            other = signature(shingle_hashes(copy, scheme), scheme)
            meet = bool((band_hashes(original[None], scheme) == band_hashes(other[None], scheme)).any())
            alike = meet and similarity(original, other) >= threshold
            counts[place][0] += meet
            counts[place][1] += alike
            counts[place][2] += alike and jaccard >= threshold
            true[place].append(jaccard)
            likely[place].append(candidate(jaccard, scheme.bands, scheme.rows))
    return [
        Level(level, _mean(true[place]), _mean(likely[place]), counts[place][0], len(true[place]), *counts[place][1:])
        for place, level in enumerate(levels)
    ]


def _slots(count: int, ngram: int, key: bytes) -> list[int]:
    """Places n apart, none of which shares a shingle with another or is cut short by an end, in keyed order."""
    offset = int.from_bytes(_digest(key, b"offset"), "big") % ngram
    places = range(ngram - 1 + offset, count - ngram + 1, ngram)
    return sorted(places, key=lambda place: _digest(key, b"slot %d" % place))


def _made_up(place: int, key: bytes) -> str:
    """A word that stands nowhere else."""
    return "zq" + _digest(key, b"word %d" % place).hex()


def _key(seed: int, identity: bytes, level: float) -> bytes:
    return hashlib.sha256(f"{seed}\0canary\0{level!r}\0".encode() + identity).digest()


def _digest(key: bytes, what: bytes) -> bytes:
    return hashlib.blake2b(what, digest_size=8, key=key[:64]).digest()


def _mean(values: list[float]) -> float:
    """The mean, whatever the order; 0 of none."""
    return math.fsum(values) / len(values) if values else 0.0
