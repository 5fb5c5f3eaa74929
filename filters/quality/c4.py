"""The page rules of C4 (Raffel et al. 2020, section 2.2), in the order of the builder of TensorFlow Datasets.

The builder counts sentences with NLTK's punkt model. Here a sentence ends at . ? or !, with closing quotes or brackets,
before white space and a capital, a digit or an opening mark, or at the end of a line, unless an initial or one of a few
abbreviations ends there: in linear time, and without a model.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from filters.dedup.minhash import folded_words
from filters.errors import UserError
from filters.reasons import Reason
from filters.settings import Count, Positive, Strict

TERMINAL_MARKS = (".", "?", "!", '"')
ELLIPSIS = "..."
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
LOREM_IPSUM, JAVASCRIPT = "lorem ipsum", "javascript"
CITATION = re.compile(r"\[\d{0,9}\]|\[edit\]|\[citation needed\]")
ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof rev st jr sr vs etc e.g i.e cf al fig no vol pp ed approx dept est inc ltd co corp".split()
)
_END = re.compile(r"[.?!][\"'”’)\]]{0,3}(?=\s+[\"'“‘(\[]?[A-Z0-9À-ÞА-Я]|\s*$)")
_WORD = re.compile(r"\w+")
_SCHEME = re.compile(r"https?://(?:www\.)?")
_TRACKING = re.compile(r"\?(?:utm_|ref|feed).*")


class C4(Strict):
    """Settings of the page rules, with the reference implementation's numbers."""

    min_words_per_line: Count = 5
    min_sentences: Count = 3
    max_page_characters: Positive = 190_000
    max_word_characters: Positive = 1_000
    bad_words: str | None = None  # path of a list, one word a line


@dataclass(frozen=True, slots=True)
class Removed:
    """The number of lines changed or dropped, and of the characters removed (a dropped line has one line feed)."""

    lines: int
    characters: int


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A page after the rules: its text, or the reason to drop it; and what was removed from a kept page."""

    text: str
    reason: Reason | None
    removed: dict[Reason, Removed]


def clean(text: str, rules: C4, bad_words: frozenset[str] = frozenset()) -> Cleaned:
    """Apply the rules to a page. For kept pages: characters in = characters out + characters removed.

    Args:
        text: the page as extracted, lines separated by LF.
        rules: the thresholds.
        bad_words: casefolded, as `read_bad_words` returns them; empty for no such rule.
    """
    if len(text) > rules.max_page_characters:
        return Cleaned("", Reason.C4_PAGE_TOO_LONG, {})
    folded = text.lower()
    marked = "{" in folded or any(phrase in folded for phrase in (LOREM_IPSUM, JAVASCRIPT, *POLICY))
    kept: list[str] = []
    removed: dict[Reason, list[int]] = {}
    for line in text.split("\n"):
        verdict = _apply_to_line(line, rules, marked)
        if not isinstance(verdict, Reason):  # asked first: a reason is a string, too
            kept.append(verdict)
            reason, characters = Reason.C4_EDITED, len(line) - len(verdict)
        elif verdict in (Reason.C4_LOREM_IPSUM, Reason.C4_CURLY_BRACKET):
            return Cleaned("", verdict, {})
        else:
            reason, characters = verdict, len(line) + 1
        if characters:
            counts = removed.setdefault(reason, [0, 0])
            counts[0] += 1
            counts[1] += characters
    if not has_enough_sentences(kept, rules):
        return Cleaned("", Reason.C4_TOO_FEW_SENTENCES, {})
    page = "\n".join(kept)
    if has_bad_word(page, bad_words):
        return Cleaned("", Reason.C4_BAD_WORD, {})
    return Cleaned(page, None, {reason: Removed(*counts) for reason, counts in removed.items()})


def has_enough_sentences(lines: list[str], rules: C4) -> bool:
    """Return True if the lines that stay of a page hold the minimum of sentences."""
    least = max(rules.min_sentences, 1)
    return len(lines) >= least or sum(map(count_sentences, lines)) >= least  # a line that stays holds at least one


@lru_cache(maxsize=8)
def read_bad_words(path: str | None) -> frozenset[str]:
    """Return the casefolded words of a list, one word a line; none without a path.

    Raises:
        UserError: the list cannot be read.
    """
    if path is None:
        return frozenset()
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"c4.bad_words: {path} cannot be read ({error}): give one word a line") from error
    return frozenset(line.strip().casefold() for line in lines if line.strip())


def has_bad_word(page: str, bad_words: frozenset[str]) -> bool:
    """Return True if a page holds one of the casefolded words."""
    return bool(bad_words) and not _encoded(bad_words).isdisjoint(folded_words(page, _WORD))


def normalise_url(url: str) -> str:
    """Return the form of a URL by which pages are grouped (the builder's `normalize_url`).

    It has no scheme and no `www.`, wherever they occur, no tracking parameters if they come first, and no final slash.
    """
    return _TRACKING.sub("", _SCHEME.sub("", url)).rstrip("/")


def line_keys(lines: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return (lines,) uint64: the first 64 bits of the MD5 of each line, stripped and in lower case, as in the builder.

    0, which stands for no line, becomes 1.
    """
    digests = (hashlib.md5(line.strip().lower().encode(), usedforsecurity=False).digest() for line in lines)
    return np.fromiter((int.from_bytes(digest[:8], "big") or 1 for digest in digests), np.uint64)


def count_sentences(line: str) -> int:
    """Return the number of ends of sentences in a line that are no abbreviation's; at least 1 for a line with text."""
    line = line.rstrip()
    ends = 0
    for end in _END.finditer(line):
        before = line[max(0, end.start() - 12) : end.start()].rpartition(" ")[2].lstrip("(\"'").casefold()
        short = before in ABBREVIATIONS or (len(before) == 1 and before.isalpha())
        if end.end() == len(line) or end.group() != "." or not short:
            ends += 1
    return max(ends, 1) if line else 0


def _apply_to_line(line: str, rules: C4, marked: bool) -> str | Reason:
    """Return a line as it stays, or the reason to drop it, or its page.

    Args:
        line: of the page.
        rules: the thresholds.
        marked: True if the page holds a phrase or bracket for which lines are dropped; the removal of citation marks
            may make up such a phrase, too.
    """
    stripped = line.strip()
    if not stripped:
        return Reason.C4_TOO_FEW_WORDS
    if len(stripped) > rules.max_word_characters < max(map(len, stripped.split())):
        return Reason.C4_LONG_WORD
    if "[" in stripped:
        stripped, marked = CITATION.sub("", stripped).strip(), True
    if not stripped.endswith(TERMINAL_MARKS) or stripped.endswith(ELLIPSIS):
        return Reason.C4_NO_TERMINAL_MARK
    if len(stripped.split(None, max(rules.min_words_per_line - 1, 0))) < rules.min_words_per_line:
        return Reason.C4_TOO_FEW_WORDS
    return _find_phrase(stripped) or stripped if marked else stripped


def _find_phrase(line: str) -> Reason | None:
    folded = line.lower()
    if LOREM_IPSUM in folded:
        return Reason.C4_LOREM_IPSUM
    if JAVASCRIPT in folded:
        return Reason.C4_JAVASCRIPT
    if "{" in line:
        return Reason.C4_CURLY_BRACKET
    return Reason.C4_POLICY if any(phrase in folded for phrase in POLICY) else None


@lru_cache(maxsize=8)
def _encoded(words: frozenset[str]) -> frozenset[bytes]:
    return frozenset(word.encode("utf-8", "surrogatepass") for word in words)
