"""The figures of a card: by hand, against plain definitions, and what matching by length promises."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.models.evaluation import auc, calibration, card, kept_shares, length_bins, length_matched, precision_recall

LABELS = np.array([True, True, False, True, False])
SCORES = np.array([0.9, 0.5, 0.5, 0.3, 0.1])


def test_the_area_by_hand() -> None:
    # of the 6 pairs: 0.9 beats both, 0.5 ties once and wins once, 0.3 loses once and wins once
    assert auc(LABELS, SCORES) == round((2 + 1.5 + 1) / 6, 4)
    assert auc(np.array([True, False]), np.array([1.0, 0.0])) == 1.0
    assert auc(np.array([True, False]), np.array([0.0, 1.0])) == 0.0
    assert auc(np.array([True, False, False]), np.array([0.2, 0.2, 0.2])) == 0.5


@pytest.mark.parametrize("labels", [[], [True], [False, False]])
def test_no_area_without_both_classes(labels: list[bool]) -> None:
    assert auc(np.array(labels, bool), np.zeros(len(labels))) is None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1))))
@settings(max_examples=300, deadline=None)
def test_the_area_is_the_share_of_pairs_in_order(rows: list[tuple[bool, float]]) -> None:
    positives = [score for label, score in rows if label]
    negatives = [score for label, score in rows if not label]
    found = auc(np.array([label for label, _ in rows], bool), np.array([score for _, score in rows]))
    if not positives or not negatives:
        assert found is None
        return
    won = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    assert found == pytest.approx(won / (len(positives) * len(negatives)), abs=0.0001)


def test_precision_and_recall_by_hand() -> None:
    assert precision_recall(LABELS, SCORES, [0.0, 0.5, 0.95]) == [
        {"threshold": 0.0, "precision": 0.6, "recall": 1.0},
        {"threshold": 0.5, "precision": 0.6667, "recall": 0.6667},
        {"threshold": 0.95, "precision": None, "recall": 0.0},
    ]


def test_calibration_by_hand() -> None:
    table = calibration(np.array([True, False, True, True]), np.array([0.0, 0.05, 0.95, 1.0]))
    assert len(table) == 10 and sum(row["count"] or 0 for row in table) == 4
    assert table[0] == {"from": 0.0, "count": 2, "mean_score": 0.025, "positives": 0.5}
    assert table[9] == {"from": 0.9, "count": 2, "mean_score": 0.975, "positives": 1.0}
    assert table[5] == {"from": 0.5, "count": 0, "mean_score": None, "positives": None}


def test_the_sweep_by_hand() -> None:
    assert kept_shares(np.array([0.2, 0.5, 0.9]), np.array([100, 300, 600]), [0.0, 0.5, 0.6, 1.0]) == [
        {"threshold": 0.0, "documents": 1.0, "text": 1.0},
        {"threshold": 0.5, "documents": 0.6667, "text": 0.9},
        {"threshold": 0.6, "documents": 0.3333, "text": 0.6},
        {"threshold": 1.0, "documents": 0.0, "text": 0.0},
    ]
    assert kept_shares(np.array([]), np.array([]), [0.5]) == [{"threshold": 0.5, "documents": None, "text": None}]


def test_bins_of_lengths_by_hand() -> None:
    edges = [1024, 1280, 1536, 1792, 2048]
    bins = length_bins(np.array(edges))
    assert np.diff(bins).tolist() == [1, 1, 1, 1]
    assert length_bins(np.array([1279, 1535, 1791, 2047])).tolist() == bins[:4].tolist()
    assert length_bins(np.array([0, -1, 1])).tolist() == [0, 0, 4]


def test_matching_by_hand() -> None:
    candidates = np.array([1100, 1200, 1030, 5000, 1270, 2000, 5100])
    keys = np.array([9, 3, 5, 7, 1, 2, 6], np.uint64)
    matched = length_matched(np.array([1024, 1250, 5000, 9000]), candidates, keys)
    assert matched.places.tolist() == [1, 4, 6]  # the keys 3 and 1 of four near 1100, and 6 of two near 5000
    assert (matched.wanted, matched.bins, matched.short_bins) == (4, 3, 1)


@given(
    st.lists(st.integers(0, 100_000)),
    st.lists(st.integers(0, 100_000)),
    st.randoms(use_true_random=False),
)
@settings(max_examples=300, deadline=None)
def test_matching_keeps_its_promise(lengths: list[int], candidates: list[int], random) -> None:
    keys = random.sample(range(1 << 60), len(candidates))
    own, theirs = np.array(lengths, np.int64), np.array(candidates, np.int64)
    matched = length_matched(own, theirs, np.array(keys, np.uint64))
    bins, taken = length_bins(own).tolist(), length_bins(theirs[matched.places]).tolist()
    there = length_bins(theirs).tolist()
    for place in set(bins) | set(there):
        assert taken.count(place) == min(bins.count(place), there.count(place))
    assert len(matched.places) <= matched.wanted and matched.short_bins <= matched.bins
    assert (matched.short_bins == 0) == (len(matched.places) == matched.wanted)
    order = list(range(len(candidates)))
    random.shuffle(order)
    shuffled = length_matched(own, theirs[order], np.array([keys[n] for n in order], np.uint64))
    assert sorted(np.array(order, np.int64)[shuffled.places].tolist()) == matched.places.tolist()


def test_a_card_is_json_and_repeats() -> None:
    made = [
        card(LABELS, SCORES, np.array([0.5, 0.1]), np.array([3, 5]), [0.25, 0.5], {"positives": 9}, {"seed": 1})
        for _ in range(2)
    ]
    assert json.dumps(made[0]) == json.dumps(made[1])
    assert made[0]["held_out"] == {"positives": 3, "negatives": 2} and made[0]["auc"] == 0.75
    assert made[0]["kept_of_crawl"][0] == {"threshold": 0.25, "documents": 0.5, "text": 0.375}
    assert made[0]["trained_on"] == {"positives": 9} and made[0]["settings"] == {"seed": 1}
