"""Tests of filters.html.runs: the example of the paper, its definition, and linear time."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear import assert_linear

from filters.html.runs import find_maximal_runs


@pytest.mark.parametrize(
    "worths, runs",
    [
        ([], []),
        ([-1, 0], []),
        ([4, -5, 3, -3, 1, 2, -2, 2, -2, 1, 5], [(0, 1, 4), (2, 3, 3), (4, 11, 7)]),  # The example of the paper.
        ([1, 1], [(0, 2, 2)]),
        ([5, -1, 5], [(0, 3, 9)]),
    ],
)
def test_maximal_runs(worths: list[float], runs: list[tuple[int, int, float]]) -> None:
    assert find_maximal_runs(worths) == runs


@given(st.lists(st.integers(-9, 9), max_size=40))
def test_maximal_runs_as_the_paper_defines_them(worths: list[int]) -> None:
    """Compare with the definition: take the run with the best score, then repeat to the left and right of it.

    Among runs with equal scores, the shortest one is taken, then the first one.
    """

    def defined(start: int, end: int) -> list[tuple[int, int, float]]:
        all_runs = [(sum(worths[a:b]), a - b, -a, b) for a in range(start, end) for b in range(a + 1, end + 1)]
        if not all_runs or max(all_runs)[0] <= 0:
            return []
        score, _, a, b = max(all_runs)
        return [*defined(start, -a), (-a, b, float(score)), *defined(b, end)]

    assert [score for *_, score in find_maximal_runs(worths)] == [score for *_, score in defined(0, len(worths))]
    for start, end, score in find_maximal_runs(worths):
        assert score == sum(worths[start:end]) > 0


def test_maximal_runs_take_linear_time() -> None:
    chance = random.Random(1)
    cases: list[Callable[[int], list[float]]] = [
        lambda size: [1.0, -0.5] * size,
        lambda size: [1.0, -2.0] * size,
        lambda size: [2.0, -1.0] * size,
        lambda size: [float(n % 7 - 3) for n in range(size)],
        lambda size: [chance.uniform(-1, 1) for _ in range(size)],
    ]
    for make in cases:
        assert_linear(find_maximal_runs, make, 10**5)
