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

WIDTH = 118  # Columns of output that does not go to a terminal.
# The number of documents that `find` and `duplicates` show by default. A page of boilerplate may have millions of
# copies.
MOST_SHOWN = 10
# Control characters except tab and newline (ECMA-48), characters that override the text direction (UAX #9), line breaks
# other than newline, and lone surrogates, which UTF-8 cannot encode.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)


def escape_unencodable_output() -> None:
    r"""Configure standard output to escape characters that its encoding lacks, such as `\u2026`, instead of failing.

    Closed standard streams are opened on `/dev/null`. Otherwise the next files that the process opens would get their
    file descriptors, and libraries would print into these files.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), "r" if name == "stdin" else "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


# The exit code if the reader of the output closes the pipe: 128 + SIGPIPE, as for programs that this signal ends. It is
# not 0, because the lost output may have reported a failure.
CLOSED_PIPE = 141


def end_quietly(command: Callable[[], int]) -> int:
    """Run a command and return its exit code.

    If a reader such as `head` closes the pipe, no traceback is printed and the exit code is `CLOSED_PIPE`.
    """
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    return code


def safe(text: str) -> str:
    r"""Return the text with terminal control and text direction characters escaped, for example as `\x1b`."""
    return _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def safe_line(text: str) -> str:
    """Return the text as `safe` does, with newlines and tabs also escaped, so that it fits on one line."""
    return safe(text).replace("\n", "\\n").replace("\t", "\\t")


def shorten(text: str, characters: int) -> str:
    """Return the text, cut to a number of characters. A cut text ends with the number of characters left out."""
    left = len(text) - characters
    return text if left <= 0 else f"{text[:characters]}… ({left:,} more characters)"


def format_count(value: float) -> str:
    """Return a whole number in full: 1,234,567."""
    return f"{value:,.0f}"


def format_quantity(value: int, unit: str) -> str:
    """Return a number with its unit: 1 record, 2 records. `unit` is a plural."""
    return f"{value:,} {unit.removesuffix('s') if value == 1 else unit}"


def format_short(value: float) -> str:
    """Return a number with three digits and k, M, B (10⁹) or T (10¹²), such as 1.23M; below 10,000 in full."""
    units = (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)) if abs(value) >= 10_000 else ()
    return _scale(value, units)


def format_tokens(value: float) -> str:
    """Return a count with three digits in millions (M), billions (B) or trillions (T); below a million in full."""
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
    """Return the edge of a histogram bin, without superfluous digits."""
    return format_count(value) if value >= 100 or value == int(value) else f"{value:.4g}"


def format_share(part: float, whole: float) -> str:
    """Return a share as a percentage. A share above zero that would be rounded to zero is "< 0.1%"."""
    if not whole:
        return "–"
    percent = 100 * part / whole
    return "< 0.1%" if 0 < percent < 0.05 else f"{percent:.1f}%"


def _scale(value: float, units: tuple[tuple[str, float], ...], exact: bool = False) -> str:
    """Return a value in the first unit that it reaches.

    Args:
        value: the number.
        units: (suffix, size) of each unit, the largest first.
        exact: if False, a value that rounds up to a unit uses this unit: 999,600 becomes 1.00M instead of 1,000k.
    """
    for unit, step in units:
        if abs(value) >= step * (1 if exact else 0.9995):
            scaled = value / step if step else value
            places = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:,.{places}f}{unit}"
    return format_count(value)


def number_table(title: str, first: str, *numbers: str) -> "Table":
    """Return a table with a first column of names and further columns of right-aligned numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(first, title=title, title_justify="left", box=SIMPLE_HEAD)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def render_text(parts: "Iterable[RenderableType]") -> str:
    """Return tables and lines as plain text of at most `WIDTH` columns. Brackets in strings are not markup."""
    from rich.console import Console

    page = io.StringIO()
    console = Console(file=page, width=WIDTH, highlight=False, markup=False)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip().splitlines())


def print_parts(parts: "Iterable[RenderableType]") -> None:
    """Print tables and lines, coloured in a terminal, or else as plain text by `render_text`."""
    console = standard_output()
    if not console.is_terminal:
        text = render_text(parts)
        print(text if console.encoding.startswith("utf") else text.replace("─", "-"))
        return
    for part in parts:
        console.print(part, markup=False)


def standard_output() -> "Console":
    """Return a rich console for standard output, at least `WIDTH` columns wide: coloured in a terminal, or else plain.

    A narrower terminal wraps the rows of a table. If rich used the width of the terminal, it would cut the numbers.
    """
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        return Console(highlight=False, width=WIDTH, no_color=True)
    return console if console.width >= WIDTH else Console(highlight=False, width=WIDTH)
