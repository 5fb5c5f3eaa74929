"""Normalise extracted text, so that equal words have equal code points in all sources."""

import re
import unicodedata

from filters.formats.charset import replace_c1

# Control characters, the soft hyphen, and zero-width characters. U+200C to U+200F are not included: the first two
# change how letters are joined, and the last two change the order of the text.
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\xad\u200b\u2060-\u2064\ufeff]")
_CONTROLS = re.compile(
    f"{INVISIBLE.pattern[:-1]}\x80-\x9f]"
)  # INVISIBLE and the characters that `replace_c1` replaces.
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e]")  # The control characters at which `str.splitlines` splits.
# A run that may consist of combining marks. Normalisation sorts the marks of a run in quadratic time.
_STACKED = re.compile(r"[^\w\s\x00-\x7f]{64}")


def normalise_text(text: str) -> str:
    r"""Return a text without invisible characters, with "\n" as line end, with plain blanks, and in form C.

    C1 controls become the characters that windows-1252 has at the same codes. No-break spaces become blanks, because
    extracted text has no layout.
    """
    if _CONTROLS.search(text):
        text = INVISIBLE.sub("", replace_c1(_LINE_END.sub("\n", text)))
    return compose(text.replace("\xa0", " ").replace("\u202f", " "))


def compose(text: str) -> str:
    """Return a text in normalisation form C, or unchanged if it has a longer run of marks than any language needs."""
    return text if text.isascii() or _STACKED.search(text) else unicodedata.normalize("NFC", text)
