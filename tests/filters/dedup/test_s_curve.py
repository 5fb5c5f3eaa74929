"""The S-curve against published tables, enumeration and simulation; binomial tails against known values."""

import itertools
import math

import numpy as np
import pytest
from banding import acceptance_probability, agreements_needed
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.dedup.recall import (
    Level,
    binomial,
    candidate_probability,
    check_levels,
    combine_p_values,
    confidence_interval,
    half_point,
    p_value,
    tails,
)

PUBLISHED = {
    (14, 8): {0.5: 0.053, 0.6: 0.21, 0.7: 0.56, 0.75: 0.77, 0.8: 0.92},
    (9, 13): {0.5: 0.001, 0.6: 0.012, 0.7: 0.084, 0.75: 0.19, 0.8: 0.40, 0.85: 0.69, 0.9: 0.93},
    (25, 10): {0.5: 0.024, 0.6: 0.14, 0.7: 0.51, 0.75: 0.77, 0.8: 0.94},
}
"""of FineWeb, of datasketch's choice for 0.8 at 128 permutations, of BigCode"""


@pytest.mark.parametrize(("bands", "rows"), PUBLISHED)
def test_the_curve_is_the_published_one(bands: int, rows: int) -> None:
    for at, likely in PUBLISHED[bands, rows].items():
        assert candidate_probability(at, bands, rows) == pytest.approx(likely, abs=0.006)


@given(st.floats(0, 1), st.integers(1, 50), st.integers(1, 20))
def test_the_curve_is_the_plain_formula(at: float, bands: int, rows: int) -> None:
    assert candidate_probability(at, bands, rows) == pytest.approx(1 - (1 - at**rows) ** bands, abs=1e-12)


def test_the_curve_keeps_its_digits_where_it_is_tiny() -> None:
    assert candidate_probability(0.01, 14, 10) == pytest.approx(14e-20, rel=1e-9)
    assert candidate_probability(0.0, 14, 8) == 0.0 and candidate_probability(1.0, 14, 8) == 1.0


@given(st.integers(1, 100), st.integers(1, 30))
def test_half_of_the_pairs_at_the_half_point(bands: int, rows: int) -> None:
    assert candidate_probability(half_point(bands, rows), bands, rows) == pytest.approx(0.5)


@given(st.integers(1, 3), st.integers(1, 4), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_accepted_is_what_enumeration_gives(bands: int, rows: int, at: float, threshold: float) -> None:
    expected = 0.0
    for agree in itertools.product((False, True), repeat=bands * rows):
        shares_a_band = any(all(agree[start : start + rows]) for start in range(0, bands * rows, rows))
        if shares_a_band and np.mean(agree) >= threshold:
            expected += math.prod(at if one else 1 - at for one in agree)
    assert acceptance_probability(at, bands, rows, threshold) == pytest.approx(expected, abs=1e-12)


def test_accepted_is_what_simulation_gives() -> None:
    agree = np.random.default_rng(1).random((20_000, 14, 8)) < 0.72
    found = (agree.all(axis=2).any(axis=1) & (agree.mean(axis=(1, 2)) >= 0.7)).mean()
    assert acceptance_probability(0.72, 14, 8, 0.7) == pytest.approx(found, abs=4 * (0.25 / 20_000) ** 0.5)
    assert acceptance_probability(0.72, 14, 8, 0.0) == pytest.approx(candidate_probability(0.72, 14, 8))


@given(st.integers(1, 30), st.integers(1, 15), st.floats(0, 1))
def test_as_many_agreements_are_needed_as_floats_say(bands: int, rows: int, threshold: float) -> None:
    whole = bands * rows
    for at in (threshold, round(threshold * whole) / whole):
        assert agreements_needed(bands, rows, at) == next(k for k in range(whole + 1) if k / whole >= at)


def test_the_default_bands_at_their_threshold() -> None:
    assert candidate_probability(0.7, 14, 8) == pytest.approx(0.565, abs=5e-4)
    assert acceptance_probability(0.7, 14, 8, 0.7) == pytest.approx(0.357, abs=5e-4)
    assert half_point(14, 8) == pytest.approx(0.685, abs=5e-4)


@given(st.integers(0, 40), st.floats(0, 1))
def test_the_binomial_is_a_distribution(trials: int, share: float) -> None:
    likely = binomial(trials, share)
    assert likely.sum() == pytest.approx(1) and likely @ np.arange(trials + 1) == pytest.approx(trials * share)


def test_tails_are_known_values() -> None:
    """15 heads or more of 20 tosses: 21700 / 2^20, the textbook's one-sided sign test."""
    at_most, at_least = tails(15, 20, 0.5)
    assert at_least == pytest.approx(21_700 / 2**20) and at_most == pytest.approx(1 - (21_700 - 15_504) / 2**20)
    assert p_value(15, 20, 0.5) == pytest.approx(0.0413895)
    assert p_value(10, 20, 0.5) == 1.0 and p_value(1, 5, 0.0) == 0.0 and p_value(5, 5, 1.0) == 1.0
    # I_0.3(5, 8), the incomplete beta function
    assert tails(5, 12, 0.3)[1] == pytest.approx(0.27634453047)


def test_intervals_are_known_values() -> None:
    """Closed forms at the ends (1 - (alpha/2)^(1/n)); 7 of 10 and 3 of 1,000 from R's binom.test."""
    assert confidence_interval(0, 20, 0.95) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert confidence_interval(20, 20, 0.95) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert confidence_interval(7, 10, 0.95) == (pytest.approx(0.3475471, abs=1e-7), pytest.approx(0.9332605, abs=1e-7))
    assert confidence_interval(3, 1000, 0.95) == (pytest.approx(0.0006190999), pytest.approx(0.0087420232))
    assert confidence_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 60), st.data())
@settings(deadline=None)
def test_a_share_is_in_the_interval_just_where_its_p_value_says(trials: int, data: st.DataObject) -> None:
    found, share = data.draw(st.integers(0, trials)), data.draw(st.floats(0.001, 0.999))
    low, high = confidence_interval(found, trials)
    value = p_value(found, trials, share)
    if abs(value - 0.01) > 1e-9:
        assert (low <= share <= high) == (value >= 0.01)


def test_combined_is_bonferroni() -> None:
    assert (
        combine_p_values([0.5, 0.01, 0.9]) == pytest.approx(0.03)
        and combine_p_values([0.5, 0.9]) == 1.0
        and combine_p_values([]) == 1.0
    )


def level(found: int, expected: float = 0.5, planted: int = 200) -> Level:
    return Level(0.7, 0.7, expected, found, planted)


def test_check_is_silent_warns_and_fails() -> None:
    assert check_levels([]) == [] and check_levels([level(0, planted=0)]) == []
    assert check_levels([level(100), level(110), level(200, 0.999)]) == []
    (warning,) = check_levels([level(100), level(125)])
    assert warning.severity == "warning" and "125 of 200" in warning.message and "50.0%" in warning.message
    assert [one.severity for one in check_levels([level(100), level(50)])] == ["warning", "failure"]


def test_false_alarms_are_as_rare_as_the_interval_says() -> None:
    """Over every possible count, by its probability: at most 1 % warn, at most one in a million fails."""
    likely = binomial(200, 0.3)
    said = [check_levels([level(found, 0.3)]) for found in range(201)]
    assert 0.001 < sum(likely[k] for k in range(201) if said[k]) <= 0.01
    assert sum(likely[k] for k in range(201) if len(said[k]) == 2) <= 1e-6
