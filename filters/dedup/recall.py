"""Measure the recall of near-duplicate detection with canaries, and compare it with the theory of MinHash banding.

A canary is a copy of a real document that is edited to a known similarity. It is processed with the same signatures and
bands as the documents of the corpus. A canary is a sequence of word hashes, because nothing else of a text is compared.
It consists of the word hashes of the document, some of which are replaced by random numbers, as if words were replaced
by made-up words.

The values of two documents with Jaccard similarity s are equal in each of the b x r permutations with probability s.
The pair is a candidate if all r rows of some band are equal. The probability of that is 1 - (1 - s^r)^b (Leskovec et
al., MMDS 3.4.2). The pair is accepted if the share of equal permutations also reaches a threshold. The number of
canaries found is tested with exact binomial tails. All probabilities are floats in [0, 1].
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from filters.dedup.minhash import MinHash, band_hashes, jaccard, ngram_hashes, signature, similarity, word_hashes
from filters.hashing import GOLDEN, Keys, mix, run_starts, sort_distinct

Floats = npt.NDArray[np.float64]

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # similarities of canaries; they cover the rise of the curve for 14 x 8
SHORTEST = 50  # Smallest number of distinct shingles. Shorter documents have no copies within 0.01 of every level.
LONGEST = 20_000  # Largest number of words. Copies of longer documents give no more information and take longer.
CONFIDENCE = 0.99  # Confidence of the interval of a level. An expected share outside the interval is a warning.
# Combined p-value below which a run fails. One run in a million fails by chance. With 500 pairs at 0.6, the test
# detects bands that are wrong by one row.
FAILURE = 1e-6
HALVINGS = 60  # Steps of bisection: they determine a probability to the last digit of a float.


class CanaryResult(NamedTuple):
    """The result for one canary.

    Attributes:
        jaccard: true similarity of the canary to the original.
        expected: probability that the canary and the original share a band.
        found: True if they share a band.
        accepted: True if, in addition, their estimated similarity reaches the threshold.
        right: True if, in addition, their true similarity reaches the threshold.
    """

    jaccard: float
    expected: float
    found: bool
    accepted: bool
    right: bool


@dataclass(frozen=True, slots=True)
class Level:
    """The results for all canaries of one similarity.

    Attributes:
        level: intended similarity.
        jaccard: mean true similarity of the pairs of canary and original.
        expected: mean probability that a pair shares a band.
        found: number of pairs that share a band.
        planted: number of all pairs.
        accepted: number of the found pairs whose estimated similarity reaches the threshold.
        right: number of the accepted pairs whose true similarity also reaches the threshold.
    """

    level: float
    jaccard: float
    expected: float
    found: int
    planted: int
    accepted: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference between measurement and theory. The message is one sentence."""

    severity: Literal["warning", "failure"]
    message: str


def compare_canaries(
    identity: bytes, text: str, scheme: MinHash, seed: int = 1, levels: Sequence[float] = LEVELS
) -> list[CanaryResult]:
    """Make a canary of a document for each similarity, and compare the canaries with the document.

    Args:
        identity: id of the document.
        text: text of the document.
        scheme: MinHash settings of the recipe.
        seed: seed of the random edits.
        levels: similarities in (0, 1].

    Returns:
        One result per level; none for a text with fewer than `SHORTEST` distinct shingles or more than `LONGEST` words.
    """
    words = word_hashes(text)
    original = sort_distinct(ngram_hashes(words, scheme))
    if len(original) < SHORTEST or len(words) > LONGEST:
        return []
    edited = [edit_words(words, level, _derive_key(seed, identity, level), scheme) for level in levels]
    copies = [sort_distinct(ngram_hashes(copy, scheme)) for copy in edited]
    signed, *others = signatures = [signature(hashes, scheme) for hashes in (original, *copies)]
    bands = band_hashes(np.stack(signatures), scheme)
    meet = (bands[1:] == bands[0]).any(axis=1).tolist()
    made = []
    for copy, other, found in zip(copies, others, meet, strict=True):
        alike = jaccard(original, copy)
        expected = candidate_probability(alike, scheme.bands, scheme.rows)
        accepted = found and similarity(signed, other) >= scheme.threshold
        made.append(CanaryResult(alike, expected, found, accepted, accepted and alike >= scheme.threshold))
    return made


def count_levels(planted: Iterable[Sequence[CanaryResult]], levels: Sequence[float] = LEVELS) -> list[Level]:
    """Return, for each level, the number of canaries that were found and the number that the theory expects.

    Args:
        planted: the canaries of each document. The order of the documents does not change the result. The documents
            should not be copies of each other: similar pairs are found or missed together, and then the counts are not
            binomial.
        levels: the similarities of each document's canaries.
    """
    documents = [one for one in planted if one]
    columns = zip(*documents, strict=True) if documents else ((),) * len(levels)
    return [
        Level(
            level,
            _mean([one.jaccard for one in pairs]),
            _mean([one.expected for one in pairs]),
            sum(one.found for one in pairs),
            len(pairs),
            sum(one.accepted for one in pairs),
            sum(one.right for one in pairs),
        )
        for level, pairs in zip(levels, columns, strict=True)
    ]


def edit_words(words: Keys, level: float, key: bytes, scheme: MinHash) -> Keys:
    """Return a copy of a text whose Jaccard similarity to the text is as close as possible to a level.

    Words at distances of n are replaced by made-up words, in a random order given by `key`, as long as the similarity
    does not fall below the level. Each replacement removes the shingles that occur only around the word and adds n new
    shingles. Then made-up words are appended, each of which adds one shingle, to come closer to the level. The number
    of replacements is computed without a search: the order gives, for each shingle, the replacement after which it no
    longer occurs.

    Args:
        words: (w,) word hashes, of more than 2n words.
        level: intended similarity, in (0, 1].
        key: 24 random bytes.
        scheme: gives n, the number of words in a shingle.

    Returns:
        (w + appended,) word hashes.
    """
    ngram = scheme.ngram
    slots = _choose_slots(len(words), ngram, key)
    shingles = ngram_hashes(words, scheme)
    replaced_at = np.full(len(shingles), len(slots))  # for each place, the number of the replacement that changes it
    replaced_at[slots[:, None] - np.arange(ngram)] = np.arange(len(slots))[:, None]
    order = np.argsort(shingles)
    last = np.maximum.reduceat(replaced_at[order], np.flatnonzero(run_starts(shingles[order])))
    # removed[k]: number of distinct shingles that no longer occur after the k-th replacement, but did before it
    removed = np.bincount(last + 1, minlength=len(slots) + 1)[: len(slots) + 1]
    both, either = len(last) - np.cumsum(removed), len(last) + ngram * np.arange(len(slots) + 1)
    replaced = int(np.count_nonzero(both / either >= level)) - 1
    shared, whole = int(both[replaced]), int(either[replaced])
    fewest = max(0, math.floor(shared / level) - whole)
    appended = min((fewest, fewest + 1), key=lambda more: abs(shared / (whole + more) - level))
    made_up = _draw_random(key[16:24], len(words) + appended)
    copy = np.concatenate([words, made_up[len(words) :]])
    copy[slots[:replaced]] = made_up[slots[:replaced]]
    return copy


def candidate_probability(at: float, bands: int, rows: int) -> float:
    """Return the probability that a pair of similarity `at` shares a band."""
    return 1.0 if at >= 1 else 0.0 - math.expm1(bands * math.log1p(-math.pow(at, rows)))


def half_point(bands: int, rows: int) -> float:
    """Return the similarity at which half of the pairs share a band."""
    return math.pow(-math.expm1(math.log(0.5) / bands), 1 / rows)


def check_levels(levels: Sequence[Level]) -> list[Finding]:
    """Compare the number of canaries found with the theory.

    The pairs of a level have slightly different probabilities. The binomial distribution with the mean probability has
    wider tails than the true distribution (Hoeffding 1956), so the test gives too few warnings rather than too many.

    Returns:
        A warning for each level whose expected share lies outside the 99 % confidence interval of the share found, and
        a failure if the combined p-value is below 1e-6.
    """
    levels = [one for one in levels if one.planted]
    values = [p_value(one.found, one.planted, one.expected) for one in levels]
    findings = []
    for one, value in zip(levels, values, strict=True):
        low, high = confidence_interval(one.found, one.planted)
        if not low <= one.expected <= high:
            message = (
                f"at Jaccard {one.level:g}, {one.found:,} of {one.planted:,} planted pairs were found "
                f"({low:.1%} to {high:.1%} at {CONFIDENCE:.0%} confidence), where {one.expected:.1%} are expected "
                f"(p = {value:.1g})"
            )
            findings.append(Finding("warning", message))
    if (together := combine_p_values(values)) < FAILURE:
        message = (
            f"near-duplicates are not found as often as the recipe's bands and rows say (p = {together:.1g} over "
            f"{len(levels)} levels): signatures or bands are wrong"
        )
        findings.append(Finding("failure", message))
    return findings


def binomial(trials: int, share: float) -> Floats:
    """Return P(X = 0), …, P(X = trials), (trials + 1,) float64."""
    if share <= 0 or share >= 1:
        certain = np.zeros(trials + 1)
        certain[trials if share >= 1 else 0] = 1.0
        return certain
    k = np.arange(trials + 1)
    logs = _log_choose(trials) + k * math.log(share) + (trials - k) * math.log1p(-share)
    return np.asarray(np.exp(logs), np.float64)


def tails(found: int, trials: int, share: float) -> tuple[float, float]:
    """Return P(X <= found) and P(X >= found) of a binomial distribution."""
    likely = binomial(trials, share)
    return min(1.0, math.fsum(likely[: found + 1])), min(1.0, math.fsum(likely[found:]))


def p_value(found: int, trials: int, share: float) -> float:
    """Return the two-sided p-value: twice the smaller tail, at most 1.

    It is at least 1 - c if and only if the share lies in the confidence interval with confidence c.
    """
    return min(1.0, 2 * min(tails(found, trials, share)))


def confidence_interval(found: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the Clopper-Pearson confidence interval of a share (Clopper and Pearson 1934), found by bisection.

    The interval is (0, 1) if there are no trials.
    """
    tail = (1 - confidence) / 2
    low = _bisect(lambda share: tails(found, trials, share)[1] < tail) if found else 0.0
    high = _bisect(lambda share: tails(found, trials, share)[0] >= tail) if found < trials else 1.0
    return low, high


def combine_p_values(p_values: Sequence[float]) -> float:
    """Return one p-value for all levels: the smallest p-value times the number of levels (Bonferroni), at most 1.

    This is valid even if the levels depend on each other. They do, because their pairs have the same originals and
    permutations.
    """
    return min(1.0, len(p_values) * min(p_values)) if p_values else 1.0


def _choose_slots(count: int, ngram: int, key: bytes) -> npt.NDArray[np.int64]:
    """Return the places of the words to replace, in a random order given by `key`.

    The places are n apart. So no shingle contains two of them, and each place is in n shingles.
    """
    first = ngram - 1 + int.from_bytes(key[:8], "big") % ngram
    places = np.arange(first, count - ngram + 1, ngram)
    return places[np.argsort(_draw_random(key[8:16], len(places)), kind="stable")]


def _derive_key(seed: int, identity: bytes, level: float) -> bytes:
    return hashlib.sha256(f"{seed}\0canary\0{level!r}\0".encode() + identity).digest()


def _draw_random(key: bytes, count: int) -> Keys:
    """Return (count,) pseudo-random uint64 numbers. `key`: the seed, 8 bytes."""
    start = np.uint64(int.from_bytes(key, "big"))
    return mix(start ^ (np.arange(1, count + 1, dtype=np.uint64) * GOLDEN))


def _mean(values: Sequence[float]) -> float:
    """Return the mean; 0 if there are no values. The result does not depend on the order of the values."""
    return math.fsum(values) / len(values) if values else 0.0


def _bisect(is_below: Callable[[float], bool]) -> float:
    """Return the number in [0, 1] at which a monotone predicate changes from True to False."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


@lru_cache(maxsize=64)
def _log_choose(trials: int) -> Floats:
    logs = np.array([math.lgamma(k + 1) for k in range(trials + 1)])
    return np.asarray(logs[-1] - logs - logs[::-1], np.float64)
