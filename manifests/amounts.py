"""Numbers as people read them."""

from rich.box import SIMPLE_HEAD
from rich.table import Table


def tokens(number: float) -> str:
    """A count: whole below a million, else in millions (M), billions (B) or trillions (T) to three digits."""
    return _scaled(number, ((1e12, "T"), (1e9, "B"), (1e6, "M")))


def size(number: float) -> str:
    """Bytes, in decimal units to three digits."""
    return _scaled(number, ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))) + (
        " B" if number < 1e3 else ""
    )


def hours(seconds: float) -> str:
    """Seconds as hours, or minutes and seconds where it is less than one."""
    if seconds >= 3600:
        return f"{_digits(seconds / 3600)} h"
    return f"{_digits(seconds / 60)} min" if seconds >= 60 else f"{seconds:.1f} s"


def ruled(title: str, first: str, *right: str) -> Table:
    """A table whose first column is names and whose others are numbers."""
    table = Table(first, title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in right:
        table.add_column(heading, justify="right")
    return table


def _scaled(number: float, units: tuple[tuple[float, str], ...]) -> str:
    for unit, name in units:
        # what three digits would round up to a thousand is one of the next unit
        if number >= unit * 0.9995:
            return f"{_digits(number / unit)} {name}"
    return f"{number:,.0f}"


def _digits(number: float) -> str:
    if number >= 99.95:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"
