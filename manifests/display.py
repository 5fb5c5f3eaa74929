"""Text that came from anywhere, fit for a terminal."""

import io
import re
import sys

_DRIVING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)
"""what may not reach a terminal: control characters but tab and newline (ECMA-48), overrides of the text's direction
(UAX #9), further line breaks, and lone surrogates, which no encoding takes"""


def spell_out_what_the_terminal_lacks() -> None:
    """Let the standard output write a character that its encoding lacks as `\\u2026`, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def safe(text: str) -> str:
    """The text with every character that could drive a terminal spelled out, as in `\\x1b` or `\\u202e`."""
    return _DRIVING.sub(lambda found: ascii(found[0])[1:-1], text)


def safe_line(text: str) -> str:
    """As `safe`, on one line."""
    return safe(text).replace("\n", "\\n").replace("\t", "\\t")


def shortened(text: str, characters: int) -> str:
    """The text's first characters, and how many are left out."""
    left = len(text) - characters
    return text if left <= 0 else f"{text[:characters]}… ({left:,} more characters)"
