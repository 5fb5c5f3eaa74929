"""Summaries of bounded size that can be merged: histograms with fixed bins, and the most frequent names of a stream.

The summary of a corpus is the sum of the summaries of its splits. So each split can be summarised by a separate task.
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
# Bins of perplexities. Bin i holds the values from edge i up to edge i + 1, exclusive. The last bin also holds larger
# values.
LOG_EDGES: tuple[float, ...] = (
    0.0,
    *(step * 10**decade for decade in range(DECADES) for step in RENARD),
    10.0**DECADES,
)
# Bins of whole numbers, such as lengths: LOG_EDGES rounded up, without the bins that would hold no whole number.
COUNT_EDGES: tuple[float, ...] = tuple(sorted({float(math.ceil(edge)) for edge in LOG_EDGES}))
SHARE_BINS = 20
SHARE_EDGES: tuple[float, ...] = tuple(step / SHARE_BINS for step in range(SHARE_BINS + 1))  # the last bin includes 1
NAME_CHARACTERS = 120  # Longer names are truncated to this length before they are counted.

Histogram = Counter[int]  # number of the bin -> number of values


def count_bins(values: npt.ArrayLike, edges: tuple[float, ...]) -> Histogram:
    """Count the values in each bin.

    Values below the first edge are counted in the first bin, and values above the last edge in the last bin. NaN is not
    counted.
    """
    numbers = np.asarray(values, np.float64).ravel()
    numbers = numbers[~np.isnan(numbers)]
    places = np.searchsorted(np.asarray(edges), numbers, side="right") - 1
    bins, counts = np.unique(np.clip(places, 0, len(edges) - 2), return_counts=True)
    return Counter(dict(zip(bins.tolist(), counts.tolist(), strict=True)))


def describe_bins(
    found: Mapping[int, int], edges: tuple[float, ...], beside: Mapping[int, int] | None = None
) -> dict[str, list[Any]]:
    """Return a histogram as plain values, from the first bin that is not empty to the last.

    Args:
        found: The histogram.
        edges: The edges of all bins.
        beside: Another histogram, whose first and last bins are used instead. With the same `beside`, several
            histograms get the same edges.

    Returns:
        `counts`, the number of values in each bin, and `edges`, which has one element more. Both are empty if the
        histogram (or `beside`) is empty.
    """
    held = [place for place, count in (found if beside is None else beside).items() if count]
    if not held:
        return {"edges": [], "counts": []}
    first, last = min(held), max(held) + 1
    return {"edges": list(edges[first : last + 1]), "counts": [found.get(place, 0) for place in range(first, last)]}


@dataclass
class FrequentNames:
    """The most frequent names of a stream, in bounded memory.

    The algorithm is that of Misra and Gries 1982. Summaries are merged as in Agarwal et al. 2012, "Mergeable
    summaries", section 2. The counts are exact for up to `capacity` distinct names. If there are more, the count of the
    (capacity + 1)-th most frequent name is subtracted from all counts, and names whose count is then not positive are
    dropped. This happens at the latest when the summary is encoded. The same parts added in the same order give the
    same summary.

    Attributes:
        capacity: Largest number of names in an encoded summary.
        counts: Lower bound of the number of occurrences of each name. The true number is at most `error` larger.
        total: Number of occurrences of all names.
        error: Sum of the subtracted counts, at most `total` / (capacity + 1).
    """

    capacity: int
    counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    error: int = 0

    def add(self, names: Mapping[str, int]) -> None:
        """Add the number of occurrences of each name."""
        for name, count in names.items():
            self.counts[name[:NAME_CHARACTERS]] += count
            self.total += count
            if len(self.counts) > 2 * self.capacity:
                self._shrink()

    def merge(self, other: "FrequentNames") -> None:
        """Add another summary to this summary."""
        self.error += other.error
        self.total += other.total - other.counts.total()
        self.add(other.counts)

    def top(self, most: int) -> list[tuple[str, int]]:
        """Return up to `most` names with their counts, by falling count and then by name."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:most]

    def as_dict(self) -> dict[str, Any]:
        """Encode the summary as plain JSON values."""
        self._shrink()
        return {"counts": dict(self.top(self.capacity)), "total": self.total, "error": self.error}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], capacity: int) -> "FrequentNames":
        """Decode a summary that `as_dict` encoded."""
        return cls(capacity, Counter(plain["counts"]), plain["total"], plain["error"])

    def _shrink(self) -> None:
        if len(self.counts) <= self.capacity:
            return
        taken = sorted(self.counts.values(), reverse=True)[self.capacity]
        self.counts = Counter({name: count - taken for name, count in self.counts.items() if count > taken})
        self.error += taken
