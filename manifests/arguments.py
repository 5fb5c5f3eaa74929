"""Parts of command lines: the parser, types of numbers that refuse a value out of range, the summary of a command."""

import argparse
import contextlib
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

Number = TypeVar("Number", int, float)


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one sentence; the usage, which has many lines, stays in `--help`."""

    takes_others = False  # whether a command passes arguments on that it does not know

    def error(self, message: str) -> NoReturn:
        """Print a mistake in the arguments, and exit with code 2."""
        self.exit(2, f"error: {message}: see `{self.prog} --help`\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse unknown arguments where the name of the command is known, and not in the parser of all commands."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown and self._subparsers is None and not self.takes_others:
            self.error(f"unknown arguments: {' '.join(unknown)}")
        return known, unknown


def _number(kind: Callable[[str], Number], allowed: Callable[[Number], bool], expected: str) -> Callable[[str], Number]:
    def convert(text: str) -> Number:
        with contextlib.suppress(ValueError):
            number = kind(text)
            if allowed(number):
                return number
        raise argparse.ArgumentTypeError(f"must be {expected}, not {text!r}")

    return convert


LARGEST = 1 << 53  # far beyond any use, and with room below the largest integers of libraries
COUNT = _number(int, lambda number: 0 <= number <= LARGEST, "a whole number from 0 to 2^53")
POSITIVE = _number(int, lambda number: 1 <= number <= LARGEST, "a whole number from 1 to 2^53")
AT_LEAST_ZERO = _number(float, lambda number: 0 <= number < math.inf, "a finite number of at least 0")
ABOVE_ZERO = _number(float, lambda number: 0 < number < math.inf, "a finite number above 0")
SHARE = _number(float, lambda number: 0 < number <= 1, "above 0 and at most 1")
SECONDS = _number(float, lambda number: 0 < number <= 3600, "seconds, above 0 and at most 3600")


def describe(summary: str) -> dict[str, Any]:
    """Return the settings of `add_parser` that show a summary in the list of commands and in the command's own help."""
    return {"help": summary, "description": f"{summary[0].upper()}{summary[1:]}."}
