"""Parts of command lines: types of numbers that refuse a value out of range, and the summary of a command."""

import argparse
import math
from collections.abc import Callable
from typing import Any


def _whole(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return number

    return convert


def _number(allowed: Callable[[float], bool], expected: str) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not allowed(number):
            raise argparse.ArgumentTypeError(f"must be {expected}, not {text!r}")
        return number

    return convert


COUNT, POSITIVE = _whole(0), _whole(1)
ABOVE_ZERO = _number(lambda number: 0 < number < math.inf, "a finite number above 0")
SHARE = _number(lambda number: 0 < number <= 1, "above 0 and at most 1")
SECONDS = _number(lambda number: 0 < number <= 3600, "seconds, above 0 and at most 3600")


def describe(summary: str) -> dict[str, Any]:
    """Return the settings of `add_parser` that show a summary in the list of commands and in the command's own help."""
    return {"help": summary, "description": f"{summary[0].upper()}{summary[1:]}."}
