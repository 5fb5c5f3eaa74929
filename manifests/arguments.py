"""Parts of command lines: types of numbers that refuse a value out of range, and the summary of a command."""

import argparse
import contextlib
import math
from collections.abc import Callable
from typing import Any, TypeVar

Number = TypeVar("Number", int, float)


def _number(kind: Callable[[str], Number], allowed: Callable[[Number], bool], expected: str) -> Callable[[str], Number]:
    def convert(text: str) -> Number:
        with contextlib.suppress(ValueError):
            number = kind(text)
            if allowed(number):
                return number
        raise argparse.ArgumentTypeError(f"must be {expected}, not {text!r}")

    return convert


COUNT = _number(int, lambda number: number >= 0, "a whole number of at least 0")
POSITIVE = _number(int, lambda number: number >= 1, "a whole number of at least 1")
ABOVE_ZERO = _number(float, lambda number: 0 < number < math.inf, "a finite number above 0")
SHARE = _number(float, lambda number: 0 < number <= 1, "above 0 and at most 1")
SECONDS = _number(float, lambda number: 0 < number <= 3600, "seconds, above 0 and at most 3600")


def describe(summary: str) -> dict[str, Any]:
    """Return the settings of `add_parser` that show a summary in the list of commands and in the command's own help."""
    return {"help": summary, "description": f"{summary[0].upper()}{summary[1:]}."}
