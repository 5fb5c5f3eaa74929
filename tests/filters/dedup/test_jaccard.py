"""Exact similarities of sets, against Python's sets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.dedup.minhash import (
    intersection_size,
    jaccard,
    pack,
    pairs_intersection,
    pairs_jaccard,
)

SETS = st.lists(st.sets(st.integers(0, 40) | st.integers(2**32 - 3, 2**32 - 1), max_size=30), min_size=1, max_size=8)


def array(values: set[int], dtype: type = np.uint32) -> np.ndarray:
    return np.array(sorted(values), dtype)


@given(SETS, st.sampled_from([np.uint32, np.uint64]))
@settings(max_examples=100, deadline=None)
def test_all_ways_agree_with_pythons_sets(sets: list[set[int]], dtype: type) -> None:
    arrays = [array(one, dtype) for one in sets]
    pairs = [(i, j) for i in range(len(sets)) for j in range(len(sets))]
    expected = [len(sets[i] & sets[j]) for i, j in pairs]
    alike = [len(sets[i] & sets[j]) / max(1, len(sets[i] | sets[j])) for i, j in pairs]
    assert [intersection_size(arrays[i], arrays[j]) for i, j in pairs] == expected
    assert [jaccard(arrays[i], arrays[j]) for i, j in pairs] == alike
    a, b = np.array(pairs).T
    assert pairs_intersection(*pack(arrays), a, b).tolist() == expected
    assert pairs_jaccard(*pack(arrays), a, b).tolist() == alike


def test_no_sets_and_no_pairs() -> None:
    none = np.empty(0, np.int64)
    values, offsets = pack([])
    assert offsets.tolist() == [0] and pairs_jaccard(values, offsets, none, none).shape == (0,)
    values, offsets = pack([array(set()), array(set())])
    assert pairs_jaccard(values, offsets, np.array([0]), np.array([1])).tolist() == [0.0]


def test_by_hand() -> None:
    a, b = array({1, 2, 3, 4}), array({3, 4, 5})
    assert jaccard(a, b) == 2 / 5
