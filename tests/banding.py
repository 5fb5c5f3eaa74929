"""Compute the probability that banding finds a pair at a threshold, as the expected value for tests of canaries."""

import math
from functools import lru_cache

import numpy as np

from filters.dedup.recall import binomial


def agreements_needed(bands: int, rows: int, threshold: float) -> int:
    """Return the smallest number of agreeing permutations whose share is at least the threshold in float arithmetic."""
    permutations = bands * rows
    needed = math.ceil(threshold * permutations) - 1  # Rounding may raise the product above an integer.
    return needed if needed >= 0 and needed / permutations >= threshold else needed + 1


@lru_cache(maxsize=4096)
def acceptance_probability(at: float, bands: int, rows: int, threshold: float) -> float:
    """Return the exact probability that a pair shares a band and has an estimated similarity of at least `threshold`.

    The function computes the distribution of the number of agreeing permutations band by band, separately for pairs
    with and without a band that agrees completely.

    Args:
        at: The similarity of the pair.
        bands: The number of bands.
        rows: The number of rows per band.
        threshold: The threshold.
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
