"""Summaries of bounded size that can be merged: histograms with fixed bins, and the most frequent names of a stream.

A summary of a whole is made from the summaries of its parts and never from the whole, so that a corpus of any size is
summed up split by split.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

RENARD = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
"""ten steps a decade, nearly equal in ratio and round (the series R10 of ISO 3)"""
DECADES = 12
LOG_EDGES: tuple[float, ...] = (
    0.0,
    *(step * 10**decade for decade in range(DECADES) for step in RENARD),
    10.0**DECADES,
)
"""bins of perplexities: bin i holds what is at least edge i and below edge i + 1; what is larger is in the last"""
COUNT_EDGES: tuple[float, ...] = tuple(sorted({float(math.ceil(edge)) for edge in LOG_EDGES}))
"""the same bins for whole numbers, such as lengths: with whole edges, and none that could hold nothing"""
SHARE_BINS = 20
SHARE_EDGES: tuple[float, ...] = tuple(step / SHARE_BINS for step in range(SHARE_BINS + 1))
"""bins of probabilities; 1 is in the last"""
NAME_CHARACTERS = 120
"""of a name that is counted; a longer one is cut here"""

Histogram = Counter[int]
"""how many values each bin holds"""


def histogram(values: npt.ArrayLike, edges: tuple[float, ...]) -> Histogram:
    """How many values each bin between the edges holds. Values outside are counted in the outermost bins, NaN not."""
    numbers = np.asarray(values, np.float64).ravel()
    numbers = numbers[~np.isnan(numbers)]
    places = np.searchsorted(np.asarray(edges), numbers, side="right") - 1
    bins, counts = np.unique(np.clip(places, 0, len(edges) - 2), return_counts=True)
    return Counter(dict(zip(bins.tolist(), counts.tolist(), strict=True)))


def drawn(
    found: Mapping[int, int], edges: tuple[float, ...], beside: Mapping[int, int] | None = None
) -> dict[str, list[Any]]:
    """A histogram that explains itself: `counts` of the bins from the first that holds something to the last, and their
    `edges`, one more than counts. Both empty for a histogram of nothing. `beside`: a histogram that says where to begin
    and end instead, so that several have the same edges."""
    held = [place for place, count in (found if beside is None else beside).items() if count]
    if not held:
        return {"edges": [], "counts": []}
    first, last = min(held), max(held) + 1
    return {
        "edges": list(edges[first : last + 1]),
        "counts": [found.get(place, 0) for place in range(first, last)],
    }


def packed(found: Mapping[int, int]) -> dict[str, int]:
    """A histogram as plain JSON values."""
    return {str(place): count for place, count in sorted(found.items())}


def unpacked(plain: Mapping[str, int]) -> dict[int, int]:
    """What `packed` made of a histogram."""
    return {int(place): count for place, count in plain.items()}


@dataclass
class Frequent:
    """The most frequent names of a stream, in bounded memory (Misra and Gries 1982, merged as in Agarwal et al. 2012,
    "Mergeable summaries", section 2).

    Exact until there are more than twice `capacity` names; then the count of the (capacity + 1)-th is taken off all,
    and what is left with nothing is forgotten. A name was seen at least `counts[name]` times and at most `error` more;
    `error` is at most `total` / (capacity + 1). The same parts added in the same order give the same summary.
    """

    capacity: int
    counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    error: int = 0

    def add(self, names: Mapping[str, int]) -> None:
        """Count names, each so many times."""
        for name, count in names.items():
            self.counts[name[:NAME_CHARACTERS]] += count
            self.total += count
            if len(self.counts) > 2 * self.capacity:
                self._shrink()

    def merge(self, other: "Frequent") -> None:
        """Add another summary's stream to this one's."""
        self.error += other.error
        self.total += other.total - other.counts.total()
        self.add(other.counts)

    def top(self, most: int) -> list[tuple[str, int]]:
        """The most frequent names with their counts, equal ones by name."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:most]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        self._shrink()
        return {"counts": dict(self.top(self.capacity)), "total": self.total, "error": self.error}

    def _shrink(self) -> None:
        if len(self.counts) <= self.capacity:
            return
        taken = sorted(self.counts.values(), reverse=True)[self.capacity]
        self.counts = Counter({name: count - taken for name, count in self.counts.items() if count > taken})
        self.error += taken


def frequent(plain: Mapping[str, Any], capacity: int) -> Frequent:
    """The summary written by `Frequent.as_dict`."""
    return Frequent(capacity, Counter(plain["counts"]), plain["total"], plain["error"])
