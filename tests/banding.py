"""The probability that banding finds a pair and estimates it at a threshold, to hold counts of canaries against."""

import math
from functools import lru_cache

import numpy as np

from filters.dedup.recall import binomial


def agreements_needed(bands: int, rows: int, threshold: float) -> int:
    """Return the fewest agreeing permutations whose share reaches the threshold, as floats compare."""
    permutations = bands * rows
    needed = math.ceil(threshold * permutations) - 1  # the product may be rounded up over a whole number
    return needed if needed >= 0 and needed / permutations >= threshold else needed + 1


@lru_cache(maxsize=4096)
def acceptance_probability(at: float, bands: int, rows: int, threshold: float) -> float:
    """Return the probability that a pair of similarity `at` shares a band and is estimated at the threshold or above.

    Exact: band by band, the distribution of agreeing permutations, kept apart by whether some whole band agreed.
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
