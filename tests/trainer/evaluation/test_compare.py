"""The statistics of `compare` on synthetic runs with known differences and with none."""

import math

import numpy as np
import pytest

from trainer.evaluation.compare import MEAN, Arm, compare_arms, decide

SOURCES = ["books"] * 20 + ["web"] * 40


def arms(
    chance: np.random.Generator, effect: float, seed_noise: float, document_noise: float, runs: int = 3
) -> tuple[Arm, Arm, np.ndarray]:
    """Return two arms and the sizes of the documents. The true difference is `effect` bits per byte in every source.

    Each arm has a random deviation for each document (`document_noise`). Each run has a random deviation for all its
    documents (`seed_noise`), and another one for each document.
    """
    sizes = chance.lognormal(8, 1, len(SOURCES))
    level = chance.normal(2.0, 0.3, len(SOURCES))
    made = []
    for number, shift in enumerate((0.0, effect)):
        own = level + shift + chance.normal(0, document_noise, len(SOURCES))
        runs_of = chance.normal(0, seed_noise, (runs, 1)) + chance.normal(0, 0.01, (runs, len(SOURCES)))
        made.append(Arm(f"arm-{number}", [*range(runs)], (own + runs_of) * sizes))
    return made[0], made[1], sizes


@pytest.mark.parametrize(("seed_noise", "document_noise"), [(0.02, 0.0), (0.0, 0.05), (0.01, 0.05)])
def test_no_difference_is_seen_in_19_of_20_comparisons_of_equal_arms(seed_noise: float, document_noise: float) -> None:
    chance, number, found, in_a_source = np.random.default_rng(1), 150, 0, 0
    for trial in range(number):
        rows = compare_arms(*pair(arms(chance, 0.0, seed_noise, document_noise)), seed=trial)
        found += rows[-1].is_significant
        in_a_source += any(row.is_significant for row in rows[:-1])
    # The nominal rate is 0.05, and its standard deviation is 0.018 here.
    assert max(found, in_a_source) <= 0.1 * number


@pytest.mark.parametrize("effect", [0.1, -0.1])
def test_a_difference_well_above_the_noise_is_seen_and_lies_in_its_interval(effect: float) -> None:
    chance, number = np.random.default_rng(2), 60
    rows = [compare_arms(*pair(arms(chance, effect, 0.01, 0.03)), seed=trial)[-1] for trial in range(number)]
    assert sum(row.is_significant and row.difference * effect > 0 for row in rows) >= 0.9 * number
    assert sum(row.low <= effect <= row.high for row in rows) >= 0.9 * number


def test_a_difference_within_the_noise_of_seeds_is_not_seen_however_many_documents_there_are() -> None:
    sizes = np.full(len(SOURCES), 1000.0)
    first = Arm("a", [0, 1], np.outer([2.00, 2.10], sizes))
    second = Arm("b", [0, 1], np.outer([2.06, 2.16], sizes))
    rows = compare_arms(first, second, SOURCES, sizes)
    assert [row.group for row in rows] == ["books", "web", MEAN]
    assert rows[-1].difference == pytest.approx(0.06)
    assert rows[-1].seed_noise == pytest.approx(0.05 * math.sqrt(2))
    assert not rows[-1].is_significant
    # 4.303 is the 97.5 % point of Student's t with two degrees of freedom
    half = 4.303 * 0.05 * math.sqrt(2)
    assert (rows[-1].low, rows[-1].high) == pytest.approx((0.06 - half, 0.06 + half), rel=0.1)
    assert decide(first, second, rows[-1]).startswith("no difference seen between b and a: up to 0.")


def test_one_run_an_arm_decides_nothing() -> None:
    sizes = np.full(len(SOURCES), 1000.0)
    first, second = (Arm(name, [0], np.full((1, len(SOURCES)), bits)) for name, bits in (("a", 2e3), ("b", 3e3)))
    rows = compare_arms(first, second, SOURCES, sizes)
    assert (rows[-1].difference, rows[-1].as_dict()["low"], rows[-1].is_significant) == (1.0, None, False)
    assert "train two seeds or more" in decide(first, second, rows[-1])


def test_the_same_runs_in_another_order_of_documents_give_the_same_difference() -> None:
    first, second, sizes = arms(np.random.default_rng(3), 0.05, 0.01, 0.02)
    order = np.random.default_rng(4).permutation(len(SOURCES))
    turned = [Arm(one.name, one.seeds, one.bits[:, order]) for one in (first, second)]
    before = compare_arms(first, second, SOURCES, sizes)
    after = compare_arms(*turned, [SOURCES[place] for place in order], sizes[order])
    for one, other in zip(before, after, strict=True):
        assert (one.group, one.units) == (other.group, other.units)
        assert one.difference == pytest.approx(other.difference)
        assert one.seed_noise == pytest.approx(other.seed_noise)


def pair(made: tuple[Arm, Arm, np.ndarray]) -> tuple[Arm, Arm, list[str], np.ndarray]:
    first, second, sizes = made
    return first, second, SOURCES, sizes
