"""Mergeable summaries of bounded size: histograms with fixed bins, and the most frequent names of a stream.

The summary of a whole is made from the summaries of its parts, so that a corpus of any size is summarised split by
split.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

RENARD = (
    1.0,
    1.25,
    1.6,
    2.0,
    2.5,
    3.15,
    4.0,
    5.0,
    6.3,
    8.0,
)  # series R10 of ISO 3: ten round steps of nearly one ratio
DECADES = 12
LOG_EDGES: tuple[float, ...] = (  # of perplexities: bin i holds [edge i, edge i + 1); the last bin also larger values
    0.0,
    *(step * 10**decade for decade in range(DECADES) for step in RENARD),
    10.0**DECADES,
)
COUNT_EDGES = tuple(sorted({float(math.ceil(edge)) for edge in LOG_EDGES}))  # of whole numbers, such as lengths
SHARE_BINS = 20
SHARE_EDGES = tuple(step / SHARE_BINS for step in range(SHARE_BINS + 1))  # of probabilities; 1 is in the last bin
NAME_CHARACTERS = 120  # of a name that is counted; longer names are cut

Histogram = Counter[int]  # number of values by bin


def count_in_bins(values: npt.ArrayLike, edges: tuple[float, ...]) -> Histogram:
    """Return the number of values in each bin between the edges; NaN is not counted, outer values in the outer bins."""
    numbers = np.asarray(values, np.float64).ravel()
    numbers = numbers[~np.isnan(numbers)]
    places = np.searchsorted(np.asarray(edges), numbers, side="right") - 1
    bins, counts = np.unique(np.clip(places, 0, len(edges) - 2), return_counts=True)
    return Counter(dict(zip(bins.tolist(), counts.tolist(), strict=True)))


def with_edges(
    found: Mapping[int, int], edges: tuple[float, ...], range_of: Mapping[int, int] | None = None
) -> dict[str, list[Any]]:
    """Return a histogram as `counts`, from its first bin that holds a value to its last, and `edges`, one more.

    Args:
        found: a histogram; both lists are empty if it is.
        edges: of its bins.
        range_of: another histogram that gives the first and last bin, so that several have the same edges.
    """
    held = [place for place, count in (found if range_of is None else range_of).items() if count]
    if not held:
        return {"edges": [], "counts": []}
    first, last = min(held), max(held) + 1
    return {
        "edges": list(edges[first : last + 1]),
        "counts": [found.get(place, 0) for place in range(first, last)],
    }


def to_json(found: Mapping[int, int]) -> dict[str, int]:
    """Return a histogram as plain JSON values."""
    return {str(place): count for place, count in sorted(found.items())}


def from_json(plain: Mapping[str, int]) -> dict[int, int]:
    """Return the histogram that `to_json` was called with."""
    return {int(place): count for place, count in plain.items()}


@dataclass
class FrequentNames:
    """The most frequent names of a stream, in bounded memory.

    The algorithm is that of Misra and Gries 1982, merged as in Agarwal et al. 2012, "Mergeable summaries", section 2.
    It is exact up to twice `capacity` names. Beyond, the count of the (capacity + 1)-th name is subtracted from all
    counts, and names without a rest are forgotten. A name occurred at least `counts[name]` times and at most `error`
    times more; `error` is at most `total` / (capacity + 1). The same parts added in the same order give the same
    summary.
    """

    capacity: int
    counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    error: int = 0

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any], capacity: int) -> Self:
        """Return the summary that `as_dict` wrote."""
        return cls(capacity, Counter(plain["counts"]), plain["total"], plain["error"])

    def add(self, names: Mapping[str, int]) -> None:
        """Count names by their number of occurrences."""
        for name, count in names.items():
            self.counts[name[:NAME_CHARACTERS]] += count
            self.total += count
            if len(self.counts) > 2 * self.capacity:
                self._shrink()

    def merge(self, other: Self) -> None:
        """Add the stream of another summary."""
        self.error += other.error
        self.total += other.total - other.counts.total()
        self.add(other.counts)

    def top(self, most: int) -> list[tuple[str, int]]:
        """Return the most frequent names with their counts, equally frequent ones by name."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:most]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        self._shrink()
        return {"counts": dict(self.top(self.capacity)), "total": self.total, "error": self.error}

    def _shrink(self) -> None:
        if len(self.counts) > self.capacity:
            cut = sorted(self.counts.values(), reverse=True)[self.capacity]
            self.counts = Counter({name: count - cut for name, count in self.counts.items() if count > cut})
            self.error += cut
