"""Summaries of bounded size that can be merged: histograms with fixed bins, and the most frequent names of a stream.

The summary of a whole is the sum of the summaries of its parts, so that a corpus of any size is summarised split by
split.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

RENARD = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)  # ten steps per decade (series R10 of ISO 3)
DECADES = 12
# Bins of perplexities: bin i holds values from edge i up to edge i + 1, exclusive; the last one also holds larger ones.
LOG_EDGES: tuple[float, ...] = (
    0.0,
    *(step * 10**decade for decade in range(DECADES) for step in RENARD),
    10.0**DECADES,
)
# The same bins for whole numbers, such as lengths: with whole edges, and without bins that hold no whole number.
COUNT_EDGES: tuple[float, ...] = tuple(sorted({float(math.ceil(edge)) for edge in LOG_EDGES}))
SHARE_BINS = 20
SHARE_EDGES: tuple[float, ...] = tuple(step / SHARE_BINS for step in range(SHARE_BINS + 1))  # the last bin holds 1
NAME_CHARACTERS = 120  # of a name that is counted; a longer one is cut here

Histogram = Counter[int]  # the number of values by bin


def count_bins(values: npt.ArrayLike, edges: tuple[float, ...]) -> Histogram:
    """Count the values in each bin between the edges. The outermost bins hold values outside; NaN is not counted."""
    numbers = np.asarray(values, np.float64).ravel()
    numbers = numbers[~np.isnan(numbers)]
    places = np.searchsorted(np.asarray(edges), numbers, side="right") - 1
    bins, counts = np.unique(np.clip(places, 0, len(edges) - 2), return_counts=True)
    return Counter(dict(zip(bins.tolist(), counts.tolist(), strict=True)))


def describe_bins(
    found: Mapping[int, int], edges: tuple[float, ...], beside: Mapping[int, int] | None = None
) -> dict[str, list[Any]]:
    """Return a histogram with its edges, from the first bin that holds a value to the last.

    Args:
        found: The histogram.
        edges: Those of its bins.
        beside: A histogram that gives the first and last bin instead, so that several have the same edges.

    Returns:
        `counts` by bin, and `edges`, one more than counts; both empty for an empty histogram.
    """
    held = [place for place, count in (found if beside is None else beside).items() if count]
    if not held:
        return {"edges": [], "counts": []}
    first, last = min(held), max(held) + 1
    return {"edges": list(edges[first : last + 1]), "counts": [found.get(place, 0) for place in range(first, last)]}


@dataclass
class FrequentNames:
    """The most frequent names of a stream, in bounded memory.

    Misra and Gries 1982, merged as in Agarwal et al. 2012, "Mergeable summaries", section 2. Exact up to `capacity`
    names; of more, the count of the (capacity + 1)-th is subtracted from all, at the latest when the summary is
    encoded, and names without a count left are dropped. A name occurred at least `counts[name]` times and at most
    `error` more; `error` is at most `total` / (capacity + 1). The same parts added in the same order give the same
    summary.
    """

    capacity: int
    counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    error: int = 0

    def add(self, names: Mapping[str, int]) -> None:
        """Add names with their numbers of occurrences."""
        for name, count in names.items():
            self.counts[name[:NAME_CHARACTERS]] += count
            self.total += count
            if len(self.counts) > 2 * self.capacity:
                self._shrink()

    def merge(self, other: "FrequentNames") -> None:
        """Add another summary's stream to this one's."""
        self.error += other.error
        self.total += other.total - other.counts.total()
        self.add(other.counts)

    def top(self, most: int) -> list[tuple[str, int]]:
        """Return the most frequent names with their counts, equal ones by name."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:most]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        self._shrink()
        return {"counts": dict(self.top(self.capacity)), "total": self.total, "error": self.error}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], capacity: int) -> "FrequentNames":
        """Return the summary that `as_dict` encoded."""
        return cls(capacity, Counter(plain["counts"]), plain["total"], plain["error"])

    def _shrink(self) -> None:
        if len(self.counts) <= self.capacity:
            return
        taken = sorted(self.counts.values(), reverse=True)[self.capacity]
        self.counts = Counter({name: count - taken for name, count in self.counts.items() if count > taken})
        self.error += taken
