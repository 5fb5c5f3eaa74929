"""Write extracted text in one form of Unicode, so that equal words are equal characters, whatever their source."""

import re
import unicodedata

from filters.formats.charset import replace_c1

# Controls, the soft hyphen, and marks of width zero. U+200C and U+200D join letters, U+200E and U+200F order them.
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\xad\u200b\u2060-\u2064\ufeff]")
_CONTROLS = re.compile(f"{INVISIBLE.pattern[:-1]}\x80-\x9f]")  # and those that `replace_c1` knows, in one search
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e]")  # the controls among those at which `str.splitlines` divides text
_STACKED = re.compile(r"[^\w\s\x00-\x7f]{64}")  # sorting combining marks takes quadratic time in such a run


def normalise_text(text: str) -> str:
    r"""Return a text without invisible characters, with "\n" between lines, plain blanks, and composed letters.

    C1 controls become what windows-1252 has in their places. No-break blanks become blanks, since a
    text without a layout has no lines to break.
    """
    if _CONTROLS.search(text):
        text = INVISIBLE.sub("", replace_c1(_LINE_END.sub("\n", text)))
    return compose(text.replace("\xa0", " ").replace("\u202f", " "))


def compose(text: str) -> str:
    """Return a text in normalisation form C, or unchanged if it stacks marks beyond those of any language."""
    return text if text.isascii() or _STACKED.search(text) else unicodedata.normalize("NFC", text)
