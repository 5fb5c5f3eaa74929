"""The S-curve of MinHash banding, and whether what was found agrees with it.

A pair of Jaccard similarity s agrees in each of b x r permutations with probability s. It is a candidate if all r rows
of some band agree, 1 - (1 - s^r)^b (Leskovec et al., MMDS 3.4.2), and is accepted if the share of agreeing permutations
reaches a threshold as well. Found counts are judged by exact binomial tails. All probabilities are floats in [0, 1].
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVELS = tuple(level / 100 for level in range(50, 100, 5))
"""the similarities a curve is shown at: 0.5 to 0.95"""
CONFIDENCE = 0.99
"""of a level's interval: found outside of it is a warning"""
FAILURE = 1e-6
"""a combined p-value below this is a failure: by chance one run in a million, while bands that are off by a row are
below it with 500 pairs at 0.6 and at 0.7 (FineWeb's 14 x 8)"""
HALVINGS = 60
"""of an interval that holds a probability: to a float's last digit"""


@dataclass(frozen=True, slots=True)
class Level:
    """What was planted at one similarity, and found. `jaccard`: the mean true similarity of the pairs; `expected`: the
    mean of their probabilities to be found; `found` of `planted` pairs were; of these, `accepted` by the estimated
    similarity as well, and `right` so by the true one."""

    level: float
    jaccard: float
    expected: float
    found: int
    planted: int
    accepted: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, in one sentence."""

    severity: Literal["warning", "failure"]
    message: str


def candidate(at: float, bands: int, rows: int) -> float:
    """How likely a pair of that similarity shares a band."""
    return 1.0 if at >= 1 else 0.0 - math.expm1(bands * math.log1p(-math.pow(at, rows)))


def half_point(bands: int, rows: int) -> float:
    """The similarity at which half of the pairs share a band."""
    return math.pow(-math.expm1(math.log(0.5) / bands), 1 / rows)


def agreements_needed(bands: int, rows: int, threshold: float) -> int:
    """The fewest agreeing permutations whose share reaches the threshold, as floats compare."""
    permutations = bands * rows
    needed = math.ceil(threshold * permutations) - 1  # the product may be rounded up over a whole number
    return needed if needed >= 0 and needed / permutations >= threshold else needed + 1


@lru_cache(maxsize=4096)
def accepted(at: float, bands: int, rows: int, threshold: float) -> float:
    """How likely a pair of that similarity shares a band and is estimated at the threshold or above.

    Exact: band by band, the distribution of agreeing permutations, kept apart by whether some band agreed whole.
    """
    band = binomial(rows, at)
    part = band.copy()
    part[rows] = 0.0
    none, some = np.ones(1), np.zeros(1)
    for _ in range(bands):
        some = np.convolve(some, band)
        some[rows:] += none * band[rows]
        none = np.convolve(none, part)
    return float(min(1.0, some[agreements_needed(bands, rows, threshold) :].sum()))


def curve(bands: int, rows: int, at: Sequence[float] = LEVELS) -> list[tuple[float, float]]:
    """(similarity, probability to share a band) at each similarity."""
    return [(one, candidate(one, bands, rows)) for one in at]


def table(bands: int, rows: int, threshold: float | None = None, at: Sequence[float] = LEVELS) -> str:
    """The curve as lines of text; with a threshold also the share of pairs accepted."""
    lines = ["Jaccard  candidate" + ("" if threshold is None else f"  accepted at {threshold:g}")]
    for one, likely in curve(bands, rows, at):
        sure = "" if threshold is None else f"  {accepted(one, bands, rows, threshold):{len('accepted at ')}.1%}"
        lines.append(f"{one:7.2f}  {likely:9.1%}{sure}")
    return "\n".join([*lines, f"half of the pairs at {half_point(bands, rows):.3f}"])


def binomial(trials: int, share: float) -> Floats:
    """P(X = 0), …, P(X = trials), (trials + 1,) float64."""
    if share <= 0 or share >= 1:
        certain = np.zeros(trials + 1)
        certain[trials if share >= 1 else 0] = 1.0
        return certain
    k = np.arange(trials + 1)
    logs = _log_choose(trials) + k * math.log(share) + (trials - k) * math.log1p(-share)
    return np.asarray(np.exp(logs), np.float64)


def tails(found: int, trials: int, share: float) -> tuple[float, float]:
    """P(X <= found) and P(X >= found): the regularised incomplete beta function at whole numbers, summed."""
    likely = binomial(trials, share)
    return min(1.0, math.fsum(likely[: found + 1])), min(1.0, math.fsum(likely[found:]))


def p_value(found: int, trials: int, share: float) -> float:
    """Two-sided: twice the smaller tail, at most 1. It is at least 1 - c just where the share lies in the interval of
    confidence c."""
    return min(1.0, 2 * min(tails(found, trials, share)))


def interval(found: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The Clopper-Pearson interval of a share (Clopper and Pearson 1934), by bisection; (0, 1) without trials."""
    tail = (1 - confidence) / 2
    low = _bisect(lambda share: tails(found, trials, share)[1] < tail) if found else 0.0
    high = _bisect(lambda share: tails(found, trials, share)[0] >= tail) if found < trials else 1.0
    return low, high


def combined(p_values: Sequence[float]) -> float:
    """One p-value for all levels: the smallest times their number (Bonferroni), at most 1. It holds however the levels
    depend on each other, and they do: their pairs share originals and permutations."""
    return min(1.0, len(p_values) * min(p_values)) if p_values else 1.0


def check(levels: Sequence[Level]) -> list[Finding]:
    """What does not agree with the theory: a warning for each level whose expected share is outside the 99 % interval
    of what was found, a failure if the combined p-value is below 1e-6.

    Pairs of a level differ a little in their probability; the binomial of the mean then has the wider tails (Hoeffding
    1956), so the verdict errs towards silence.
    """
    levels = [one for one in levels if one.planted]
    values = [p_value(one.found, one.planted, one.expected) for one in levels]
    findings = []
    for one, value in zip(levels, values, strict=True):
        low, high = interval(one.found, one.planted)
        if not low <= one.expected <= high:
            findings.append(
                Finding(
                    "warning",
                    f"at Jaccard {one.level:g}, {one.found:,} of {one.planted:,} planted pairs were found "
                    f"({low:.1%} to {high:.1%} at {CONFIDENCE:.0%} confidence), where {one.expected:.1%} are expected "
                    f"(p = {value:.1g})",
                )
            )
    if (together := combined(values)) < FAILURE:
        findings.append(
            Finding(
                "failure",
                f"near-duplicates are not found as often as the recipe's bands and rows say (p = {together:.1g} over "
                f"{len(levels)} levels): signatures or bands are wrong",
            )
        )
    return findings


def _bisect(below: Callable[[float], bool]) -> float:
    """Where a monotone predicate over [0, 1] turns false."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


@lru_cache(maxsize=64)
def _log_choose(trials: int) -> Floats:
    logs = np.array([math.lgamma(k + 1) for k in range(trials + 1)])
    return np.asarray(logs[-1] - logs - logs[::-1], np.float64)
