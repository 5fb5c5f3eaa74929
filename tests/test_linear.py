"""The check of linear time rejects quadratic work, and accepts linear work if some measurements are slow."""

import itertools

import linear
import pytest


def test_linear_and_nearly_linear_work_is_taken_and_quadratic_work_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_seconds", lambda work, given: work(given))
    linear.assert_linear(lambda size: size, int, 80)
    linear.assert_linear(lambda size: size * size.bit_length(), int, 80)
    with pytest.raises(AssertionError, match=r"100\.000 s, and 6400\.000 s for 8 times as much"):
        linear.assert_linear(lambda size: size**2, int, 80)


def test_one_quiet_turn_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = itertools.chain([1.0, 90.0, 5.0, 90.0, 5.0, 8.0], itertools.repeat(0.0))
    monkeypatch.setattr(linear, "_seconds", lambda work, given: next(spent))
    linear.assert_linear(int, int, 8)
    assert next(spent) == 0.0, "and no more turns are taken"


def test_work_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    linear.assert_linear(seen.append, linear.repeated("ab", "x"), 32)
    assert seen[:2] == ["xabab", "x" + "ab" * 16]
