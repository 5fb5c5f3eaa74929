"""The rules of C4 (Raffel et al. 2020, section 2.2), in the form of the builder of TensorFlow Datasets.

The builder counts sentences with NLTK's punkt model. Here a sentence ends at . ? or !, with closing quotes or brackets,
before white space and a capital, a digit or an opening mark, or at the end of a line, unless an initial or one of a few
abbreviations ends there: in linear time, and without a model. Its duplicate lines are those of
`filters.quality.duplicate_lines`.
"""

import hashlib
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from filters.errors import UserError
from filters.loaded_files import keep_loaded
from filters.reasons import AnyReason, Reason
from filters.rule import Found, Page, Removed, Rule, Verdict, drop, edit
from filters.settings import Count, Positive

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
_DIGITS = 18  # of a time


class C4(Rule):
    """Keep lines that are sentences; drop pages with signs of code or filler text, or with too few sentences.

    The page rules of C4 (Raffel et al. 2020, section 2.2), in the order of the builder of TensorFlow Datasets.
    """

    REASONS = (
        Reason.C4_PAGE_TOO_LONG,
        Reason.C4_LOREM_IPSUM,
        Reason.C4_CURLY_BRACKET,
        Reason.C4_TOO_FEW_SENTENCES,
        Reason.C4_LONG_WORD,
        Reason.C4_NO_TERMINAL_MARK,
        Reason.C4_TOO_FEW_WORDS,
        Reason.C4_JAVASCRIPT,
        Reason.C4_POLICY,
        Reason.C4_EDITED,
    )

    # Defaults: the reference implementation.

    min_words_per_line: Count = 5  # smallest number of words of a line that stays
    min_sentences: Count = 3  # smallest number of sentences of a page
    max_page_characters: Positive = 190_000  # longest page, in characters
    max_word_characters: Positive = 1_000  # a line with a longer word is removed

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return the page's sentences, or the reason to drop it."""
        return clean(page.text, self)


class MaxCharacters(Rule):
    """Drop pages that are too long.

    C4's builder does so before it looks for the newest page under a URL.
    """

    REASONS = (Reason.C4_PAGE_TOO_LONG,)
    SHORT = "most"

    most: Positive = 190_000  # longest page in characters; default: C4's builder (c4_utils.py)

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the page stays."""
        return Verdict(reason=Reason.C4_PAGE_TOO_LONG if len(page.text) > self.most else None)


class MinSentences(Rule):
    """Drop pages with few sentences. Use it after `c4`.

    The rule that counts sentences again: C4's builder does so after duplicate lines are gone.
    """

    REASONS = (Reason.C4_TOO_FEW_SENTENCES,)
    SHORT = "least"

    least: Count = 3  # smallest number of sentences; default: C4, section 2.2, and its builder

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the page stays."""
        enough = has_enough_sentences(page.text.split("\n"), self.least)
        return Verdict(reason=None if enough else Reason.C4_TOO_FEW_SENTENCES)


class BadWordList(NamedTuple):
    """A list of bad words, casefolded.

    Attributes:
        words: entries of one word.
        phrases: the others by their first two words; under () those that have fewer.
    """

    words: frozenset[str]
    phrases: Mapping[tuple[str, ...], list[str]]


class BadWords(Rule):
    """Drop pages that contain a word or phrase of a list.

    The rule of bad words, the last of C4's (Raffel et al. 2020, section 2.2).
    """

    REASONS = (Reason.C4_BAD_WORD,)
    FILES = ("words",)
    SHORT = "words"

    words: str  # path of a list, one word or phrase per line; C4 uses the English list of LDNOOBW

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the page stays."""
        return Verdict(reason=Reason.C4_BAD_WORD if has_bad_word(page.text, read_bad_words(self.words)) else None)

    def check(self) -> None:
        """Read the list. Raises UserError."""
        read_bad_words(self.words)


class NewestUrl(Rule):
    """Drop older copies of a page, among the documents that the earlier rules keep.

    The rule of C4's builder that keeps one document under a URL: the newest; of equal times, that of the smaller id.
    """

    REASONS = (Reason.OLDER_COPY,)

    @property
    def needs(self) -> str:
        """The stage that compares the URLs of all documents."""
        return "url_dedup"

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the document stays. The verdict is True for an older copy."""
        return Verdict(reason=Reason.OLDER_COPY if found.verdict else None)


def clean(text: str, rules: C4) -> Verdict:
    """Apply the rules to a page. For kept pages: characters in = characters out + characters removed.

    Args:
        text: lines separated by LF.
        rules: the thresholds.
    """
    if len(text) > rules.max_page_characters:
        return drop(Reason.C4_PAGE_TOO_LONG)
    folded = text.lower()
    marked = "{" in folded or any(phrase in folded for phrase in (LOREM_IPSUM, JAVASCRIPT, *POLICY))
    kept: list[str] = []
    removed: dict[AnyReason, list[int]] = {}
    for line in text.split("\n"):
        verdict = _apply_to_line(line, rules, marked)
        if not isinstance(verdict, Reason):  # asked first: a reason is a string, too
            kept.append(verdict)
            reason, characters = Reason.C4_EDITED, len(line) - len(verdict)
        elif verdict in (Reason.C4_LOREM_IPSUM, Reason.C4_CURLY_BRACKET):
            return drop(verdict)
        else:
            reason, characters = verdict, len(line) + 1
        if characters:
            counts = removed.setdefault(reason, [0, 0])
            counts[0] += 1
            counts[1] += characters
    if not has_enough_sentences(kept, rules.min_sentences):
        return drop(Reason.C4_TOO_FEW_SENTENCES)
    return edit("\n".join(kept), {reason: Removed(*counts) for reason, counts in removed.items()})


def has_enough_sentences(lines: list[str], least: int) -> bool:
    """Return True if the lines that stay of a page hold at least `least` sentences."""
    least = max(least, 1)
    return len(lines) >= least or sum(map(count_sentences, lines)) >= least  # a line that stays holds at least one


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
        line: a line of the page.
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


@keep_loaded(8, lambda path: [path])
def read_bad_words(path: str) -> BadWordList:
    """Read a list in UTF-8, with one word or phrase a line.

    Raises:
        UserError: the list cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"bad_words: {path} cannot be read ({error}): give a file with one word or phrase per line"
        ) from error
    entries = {entry for line in lines if (entry := line.strip().casefold())}
    words = frozenset(filter(_WORD.fullmatch, entries))
    phrases: dict[tuple[str, ...], list[str]] = {}
    for entry in sorted(entries - words):
        first = tuple(_WORD.findall(entry)[:2])
        phrases.setdefault(first if len(first) == 2 else (), []).append(entry)
    return BadWordList(words, phrases)


def has_bad_word(page: str, bad: BadWordList) -> bool:
    """Return True if a page holds an entry of a list, without a character of a word before or after it."""
    folded = page.casefold()
    words = _WORD.findall(folded)
    if not bad.words.isdisjoint(words):
        return True
    met = [(), *(bad.phrases.keys() & pairwise(words))]
    return any(
        entry in folded and re.search(rf"(?<!\w){re.escape(entry)}(?!\w)", folded)
        for key in met
        for entry in bad.phrases.get(key, ())
    )


def normalise_url(url: str) -> str:
    """Return the form of a URL by which pages are grouped (the builder's `normalize_url`).

    It has no scheme and no `www.`, wherever they occur, no tracking parameters if they come first, and no final slash.
    """
    return _TRACKING.sub("", _SCHEME.sub("", url)).rstrip("/")


def url_digest(url: str) -> bytes:
    """Return the MD5 of a URL's normal form, 16 bytes."""
    return hashlib.md5(normalise_url(url).encode(), usedforsecurity=False).digest()


def time_key(timestamp: str) -> int:
    """Return a number that orders times in ISO 8601 and UTC as they follow each other, or 0 for none."""
    digits = "".join(character for character in timestamp if character.isascii() and character.isdigit())
    return int(digits[:_DIGITS].ljust(_DIGITS, "0"))
