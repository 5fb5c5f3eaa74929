"""The rule of bad words, the last of C4's (Raffel et al. 2020, section 2.2)."""

import re
from functools import lru_cache
from pathlib import Path

from filters.dedup.minhash import folded_words
from filters.errors import UserError
from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep

_WORD = re.compile(r"\w+")


class BadWords(Rule):
    """Drop pages that hold a word of a list."""

    REASONS = (Reason.C4_BAD_WORD,)
    FILES = ("words",)
    SHORT = "words"

    words: str  # path of a list, one word a line; C4 takes the English list of LDNOOBW

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the page stays."""
        return drop(Reason.C4_BAD_WORD) if has_bad_word(page.text, read_bad_words(self.words)) else keep()

    def check(self) -> None:
        """Read the list. Raises UserError."""
        read_bad_words(self.words)


@lru_cache(maxsize=8)
def read_bad_words(path: str) -> frozenset[bytes]:
    """Return the casefolded words of a list, one word a line, in UTF-8.

    Raises:
        UserError: the list cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"bad_words: {path} cannot be read ({error}): give one word a line") from error
    words = (line.strip().casefold() for line in lines)
    return frozenset(word.encode("utf-8", "surrogatepass") for word in words if word)


def has_bad_word(page: str, bad_words: frozenset[bytes]) -> bool:
    """Return True if a page holds one of the words that `read_bad_words` returns."""
    return bool(bad_words) and not bad_words.isdisjoint(folded_words(page, _WORD))
