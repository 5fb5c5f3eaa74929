"""Output for people: text made safe for a terminal, numbers in readable units, tables and the console.

rich is imported inside the functions that need it, so that commands that print plain lines start without it.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

WIDTH = 118  # columns of output that does not go to a terminal
MOST_SHOWN = 10  # most documents that `find` and `duplicates` show; a page of boilerplate may have millions of copies
# Control characters but tab and newline (ECMA-48), overrides of the text's direction (UAX #9), further line breaks, and
# lone surrogates, which no encoding takes.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


def escape_unencodable_output() -> None:
    r"""Let the standard output write a character that its encoding lacks as `\u2026`, instead of failing.

    Standard streams that are closed lead nowhere from here on: else the next files that are opened would take their
    places, and get what libraries print.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


CLOSED_PIPE = 141  # 128 + SIGPIPE, which ends other programs: what was not printed may have been a failure


def end_quietly(command: Callable[[], int]) -> int:
    """Run a command and return its exit code; without a traceback if a reader such as `head` closes the pipe."""
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    return code


def safe(text: str) -> str:
    r"""Return the text with every character that could drive a terminal spelled out, as in `\x1b` or `\u202e`."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def safe_line(text: str) -> str:
    """Return the text as `safe` does, on one line."""
    return safe(text).replace("\n", "\\n").replace("\t", "\\t")


def shorten(text: str, characters: int) -> str:
    """Return the first characters of a text and the number of those left out."""
    left = len(text) - characters
    return text if left <= 0 else f"{text[:characters]}… ({left:,} more characters)"


def format_count(value: float) -> str:
    """Return a whole number in full: 1,234,567."""
    return f"{value:,.0f}"


def format_quantity(value: int, unit: str) -> str:
    """Return a number with its unit, given in the plural: 1 record, 2 records."""
    return f"{value:,} {unit.removesuffix('s') if value == 1 else unit}"


def format_short(value: float) -> str:
    """Return three digits and a unit: 1,234,567 is 1.23M, then B (10⁹) and T (10¹²); below 10,000 the whole number."""
    units = (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)) if abs(value) >= 10_000 else ()
    return _scale(value, units)


def format_tokens(value: float) -> str:
    """Return a count in millions (M), billions (B) or trillions (T) to three digits; below a million in full."""
    return _scale(value, ((" T", 1e12), (" B", 1e9), (" M", 1e6)))


def format_bytes(value: float) -> str:
    """Return bytes in decimal units: 1.23 MB."""
    return _scale(value, ((" PB", 1e15), (" TB", 1e12), (" GB", 1e9), (" MB", 1e6), (" kB", 1e3))) + (
        " B" if abs(value) < 999.5 else ""
    )


def format_hours(seconds: float) -> str:
    """Return seconds as hours, or as minutes or seconds below one hour."""
    return _scale(seconds, ((" h", 3600), (" min", 60)), exact=True) if seconds >= 60 else f"{seconds:.1f} s"


def format_duration(seconds: float) -> str:
    """Return seconds as days, hours, minutes or seconds, to three digits."""
    if seconds < 0.005:
        return "< 0.01 s"
    return _scale(seconds, ((" d", 86_400), (" h", 3_600), (" min", 60), (" s", 0)), exact=True)


def format_edge(value: float) -> str:
    """Return an edge of a histogram's bin, with no more digits than it has."""
    return format_count(value) if value >= 100 or value == int(value) else f"{value:.4g}"


def format_share(part: float, whole: float) -> str:
    """Return a share as a percentage; one above zero that rounds to zero is "< 0.1%"."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    return "< 0.1%" if 0 < percent < 0.05 else f"{percent:.1f}%"


def _scale(value: float, units: tuple[tuple[str, float], ...], exact: bool = False) -> str:
    """Return a value in the first unit it reaches; not `exact`: 999,600 is 1.00M, since its three digits round up."""
    for unit, step in units:
        if abs(value) >= step * (1 if exact else 0.9995):
            scaled = value / step if step else value
            places = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:,.{places}f}{unit}"
    return format_count(value)


def number_table(title: str, first: str, *numbers: str) -> "Table":
    """Return a table whose first column holds names and whose others hold numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(first, title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def render_text(parts: "Iterable[RenderableType]") -> str:
    """Return tables and lines as plain text of at most `WIDTH` columns; brackets in strings are no markup."""
    from rich.console import Console

    page = io.StringIO()
    console = Console(file=page, width=WIDTH, highlight=False, markup=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().splitlines())


def print_parts(parts: "Iterable[RenderableType]") -> None:
    """Print tables and lines: coloured in a terminal, else as `render_text` returns them."""
    console = standard_output()
    if not console.is_terminal:
        text = render_text(parts)
        print(text if console.encoding.startswith("utf") else text.replace("─", "-"))
        return
    for part in parts:
        console.print(part, markup=False)


def standard_output() -> "Console":
    """Return the console of the standard output: coloured in a terminal, else plain; at least `WIDTH` columns wide.

    A narrower terminal breaks the rows of a table itself; rich would cut the numbers in them.
    """
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        return Console(highlight=False, width=WIDTH, no_color=True)
    return console if console.width >= WIDTH else Console(highlight=False, width=WIDTH)
