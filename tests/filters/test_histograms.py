"""Bounded summaries: merged they say of the whole what they say of its parts, and how wrong they may be."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from filters.histograms import COUNT_EDGES, LOG_EDGES, SHARE_EDGES, FrequentNames, count_bins, describe_bins

numbers = st.lists(st.floats(0, 1e15, allow_nan=False), max_size=50)
streams = st.lists(st.dictionaries(st.text("abcdefgh", max_size=2), st.integers(1, 50), max_size=30), max_size=12)


@given(numbers, numbers)
def test_histograms_of_parts_add_up_to_that_of_the_whole(some: list[float], others: list[float]) -> None:
    whole = count_bins(some + others, LOG_EDGES)
    assert count_bins(some, LOG_EDGES) + count_bins(others, LOG_EDGES) == whole
    assert whole.total() == len(some) + len(others)


@given(st.integers(0, 10**12))
def test_whole_edges_hold_the_same_whole_numbers(value: int) -> None:
    (log,), (whole,) = count_bins([value], LOG_EDGES), count_bins([value], COUNT_EDGES)
    assert COUNT_EDGES[whole] <= value and (value < COUNT_EDGES[whole + 1] or value == 10**12)
    assert np.ceil(LOG_EDGES[log]) <= COUNT_EDGES[whole] <= max(LOG_EDGES[log + 1], 1)


def test_values_at_edges_and_beyond() -> None:
    assert count_bins([0.0, 0.999], LOG_EDGES) == {0: 2} and count_bins([1.0, 1.2], LOG_EDGES) == {1: 2}
    assert count_bins([1.25], LOG_EDGES) == {2: 1} and count_bins([-5.0], LOG_EDGES) == {0: 1}
    assert count_bins([1e99], LOG_EDGES) == {len(LOG_EDGES) - 2: 1}
    assert count_bins([0.05, 1.0, float("nan")], SHARE_EDGES) == {1: 1, 19: 1}
    assert describe_bins(Counter({2: 3, 4: 1}), SHARE_EDGES) == {"edges": [0.1, 0.15, 0.2, 0.25], "counts": [3, 0, 1]}
    assert describe_bins(Counter(), SHARE_EDGES) == {"edges": [], "counts": []}


@given(streams, st.integers(1, 8), st.integers(0, 12))
def test_frequent_names_are_counted_to_within_the_stated_error(
    parts: list[dict[str, int]], capacity: int, cut: int
) -> None:
    true: Counter[str] = Counter()
    summaries = [FrequentNames(capacity), FrequentNames(capacity)]
    for place, part in enumerate(parts):
        true.update(part)
        summaries[place >= cut].add(part)
    merged = FrequentNames(capacity)
    for one in summaries:
        assert len(one.counts) <= 2 * capacity
        merged.merge(FrequentNames.from_dict(one.as_dict(), capacity))
    plain = merged.as_dict()
    assert plain["total"] == true.total() and len(plain["counts"]) <= capacity
    assert plain["error"] * (capacity + 1) <= true.total()
    for name, count in true.items():
        assert plain["counts"].get(name, 0) <= count <= plain["counts"].get(name, 0) + plain["error"]


def test_few_names_are_counted_exactly_and_long_ones_cut() -> None:
    found = FrequentNames(4)
    for _ in range(100):
        found.add({"a": 2, "b": 1, "x" * 10_000: 1})
    assert found.error == 0 and found.top(2) == [("a", 200), ("b", 100)]
    assert max(map(len, found.counts)) == 120
