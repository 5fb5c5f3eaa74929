"""Sharing of a budget among sources: by weight, up to each one's cap; what a cap leaves over goes to the others.

The planner counts in tokens, the trainer in whole windows; both follow this one rule.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def shares(weights: Floats, caps: npt.NDArray[Any], total: float) -> Floats:
    """Return each source's part of `total`, in its unit: in proportion to `weights` (above zero), at most `caps`.

    Where a cap binds, the rest goes to the sources below theirs, again by weight. The sum is `total`, or that of all
    caps if it is less.
    """
    capped = np.zeros(len(caps), bool)
    while True:
        free = total - caps[capped].sum()
        ideal = np.where(capped, caps, 0).astype(np.float64)
        if not capped.all():
            ideal[~capped] = free * weights[~capped] / weights[~capped].sum()
        over = ~capped & (ideal > caps)
        if not over.any():
            return ideal
        capped |= over


def quotas(weights: Floats, caps: Integers, total: int) -> Integers:
    """Return `shares` as whole numbers by largest remainder. They sum to `total`, which the caps must allow."""
    ideal = shares(weights, caps, total)
    whole = np.floor(ideal).astype(np.int64)
    missing = int(total - whole.sum())
    room = whole < caps
    order = np.lexsort([np.arange(len(caps)), -(ideal - whole), ~room])
    whole[order[:missing]] += 1
    return whole
