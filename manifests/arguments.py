"""Parts of the command lines: the argument parser, number types with a range, and the summary of a command."""

import argparse
import contextlib
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

Number = TypeVar("Number", int, float)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line. The usage text is printed only by `--help`."""

    accepts_unknown = False  # If True, the command passes unknown arguments on to another program.

    def error(self, message: str) -> NoReturn:
        """Print an error in the arguments, and exit with code 2."""
        self.exit(2, f"error: {message}: see `{self.prog} --help`\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse arguments, and report unknown arguments with the name of the command.

        argparse would report them from the main parser, whose `--help` does not list the options of a command.
        """
        known, unknown = super().parse_known_args(args, namespace)
        if unknown and self._subparsers is None and not self.accepts_unknown:
            self.error(f"unknown arguments: {' '.join(unknown)}")
        return known, unknown


def _number(kind: Callable[[str], Number], allowed: Callable[[Number], bool], expected: str) -> Callable[[str], Number]:
    """Return a `type` function for argparse that parses a number and checks its range.

    Args:
        kind: `int` or `float`.
        allowed: returns True if the value is in the range.
        expected: describes the range in the error message.
    """

    def convert(text: str) -> Number:
        with contextlib.suppress(ValueError):
            number = kind(text)
            if allowed(number):
                return number
        raise argparse.ArgumentTypeError(f"must be {expected}, not {text!r}")

    return convert


LARGEST = 1 << 53  # The limit of integer options. Sums and products stay below the 64-bit limits of libraries.
COUNT = _number(int, lambda number: 0 <= number <= LARGEST, "a whole number from 0 to 2^53")
POSITIVE = _number(int, lambda number: 1 <= number <= LARGEST, "a whole number from 1 to 2^53")
AT_LEAST_ZERO = _number(float, lambda number: 0 <= number < math.inf, "a finite number of at least 0")
ABOVE_ZERO = _number(float, lambda number: 0 < number < math.inf, "a finite number above 0")
SHARE = _number(float, lambda number: 0 < number <= 1, "above 0 and at most 1")
SECONDS = _number(float, lambda number: 0 < number <= 3600, "seconds, above 0 and at most 3600")


def describe(summary: str) -> dict[str, Any]:
    """Return arguments for `add_parser` that show a summary in the list of commands and in the help of the command."""
    return {"help": summary, "description": f"{summary[0].upper()}{summary[1:]}."}
