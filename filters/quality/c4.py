"""The rules of C4 (Raffel et al. 2020, section 2.2), as implemented in the C4 builder of TensorFlow Datasets.

The builder counts sentences with NLTK's punkt model. Here a regular expression finds the ends of sentences, in linear
time and without a model. A sentence ends at . ? or !, optionally followed by closing quotes or brackets, if white space
and then a capital, a digit or an opening mark follow, or at the end of the line. A full stop after an initial or one of
a few abbreviations ends no sentence. The builder's removal of duplicate lines is in `filters.quality.duplicate_lines`.
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
_DIGITS = 18  # digits of a time that are compared


class C4(Rule):
    """Keep lines that are sentences; drop pages with signs of code or filler text, or with too few sentences.

    These are the rules of C4 for pages (Raffel et al. 2020, section 2.2), in the order of the builder of TensorFlow
    Datasets.
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

    min_words_per_line: Count = 5  # smallest number of words of a line that is kept
    min_sentences: Count = 3  # smallest number of sentences of a page
    max_page_characters: Positive = 190_000  # longest page, in characters
    max_word_characters: Positive = 1_000  # a line with a longer word is removed

    def apply(self, page: Page, found: Found) -> Verdict:
        """Keep the lines of the page that are sentences, or drop the page."""
        return clean(page.text, self)


class MaxCharacters(Rule):
    """Drop pages that are too long.

    C4's builder applies this rule before it selects the newest page of each URL.
    """

    REASONS = (Reason.C4_PAGE_TOO_LONG,)
    SHORT = "most"

    most: Positive = 190_000  # longest page in characters; default: C4's builder (c4_utils.py)

    def apply(self, page: Page, found: Found) -> Verdict:
        """Drop the page if it is too long."""
        return Verdict(reason=Reason.C4_PAGE_TOO_LONG if len(page.text) > self.most else None)


class MinSentences(Rule):
    """Drop pages with few sentences. Use it after `c4`.

    C4's builder counts sentences again after it has removed duplicate lines.
    """

    REASONS = (Reason.C4_TOO_FEW_SENTENCES,)
    SHORT = "least"

    least: Count = 3  # smallest number of sentences; default: C4, section 2.2, and its builder

    def apply(self, page: Page, found: Found) -> Verdict:
        """Drop the page if it has too few sentences."""
        enough = has_enough_sentences(page.text.split("\n"), self.least)
        return Verdict(reason=None if enough else Reason.C4_TOO_FEW_SENTENCES)


class BadWordList(NamedTuple):
    """A list of bad words and phrases, casefolded.

    Attributes:
        words: entries of one word.
        phrases: all other entries, by their first two words. Entries with fewer than two words have the key ().
    """

    words: frozenset[str]
    phrases: Mapping[tuple[str, ...], list[str]]


class BadWords(Rule):
    """Drop pages that contain a word or phrase of a list.

    This is the last rule of C4 (Raffel et al. 2020, section 2.2).
    """

    REASONS = (Reason.C4_BAD_WORD,)
    FILES = ("words",)
    SHORT = "words"

    words: str  # path of a list, one word or phrase per line; C4 uses the English list of LDNOOBW

    def apply(self, page: Page, found: Found) -> Verdict:
        """Drop the page if it contains a bad word."""
        return Verdict(reason=Reason.C4_BAD_WORD if has_bad_word(page.text, read_bad_words(self.words)) else None)

    def check(self) -> None:
        """Read the list.

        Raises:
            UserError: the list cannot be read.
        """
        read_bad_words(self.words)


class NewestUrl(Rule):
    """Drop older copies of a page, among the documents that the earlier rules keep.

    C4's builder keeps one document per URL, the newest. If two documents have the same time, the document with the
    smaller id is kept.
    """

    REASONS = (Reason.OLDER_COPY,)

    @property
    def needs(self) -> str:
        """The name of the stage that compares the URLs of all documents."""
        return "url_dedup"

    def apply(self, page: Page, found: Found) -> Verdict:
        """Drop the document if it is an older copy. `found.verdict` is True for an older copy."""
        return Verdict(reason=Reason.OLDER_COPY if found.verdict else None)


def clean(text: str, rules: C4) -> Verdict:
    """Apply the rules to a page.

    Args:
        text: lines separated by LF.
        rules: the thresholds.

    Returns:
        The verdict. For a kept page, the characters of the text are those of the new text plus the removed ones.
    """
    if len(text) > rules.max_page_characters:
        return drop(Reason.C4_PAGE_TOO_LONG)
    folded = text.lower()
    marked = "{" in folded or any(phrase in folded for phrase in (LOREM_IPSUM, JAVASCRIPT, *POLICY))
    kept: list[str] = []
    removed: dict[AnyReason, list[int]] = {}
    for line in text.split("\n"):
        verdict = _apply_to_line(line, rules, marked)
        if not isinstance(verdict, Reason):  # `isinstance(verdict, str)` would not do: a reason is also a string.
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
    """Return True if the kept lines of a page contain at least `least` sentences."""
    least = max(least, 1)
    return len(lines) >= least or sum(map(count_sentences, lines)) >= least  # Each kept line has at least one sentence.


def count_sentences(line: str) -> int:
    """Return the number of sentences in a line; at least 1 for a line with text."""
    line = line.rstrip()
    ends = 0
    for end in _END.finditer(line):
        before = line[max(0, end.start() - 12) : end.start()].rpartition(" ")[2].lstrip("(\"'").casefold()
        short = before in ABBREVIATIONS or (len(before) == 1 and before.isalpha())
        if end.end() == len(line) or end.group() != "." or not short:
            ends += 1
    return max(ends, 1) if line else 0


def _apply_to_line(line: str, rules: C4, marked: bool) -> str | Reason:
    """Apply the rules to a line.

    Args:
        line: a line of the page.
        rules: the thresholds.
        marked: True if the page contains a phrase or bracket because of which lines or pages are dropped. If False,
            phrases are searched only in lines from which citation marks were removed, because the removal can join the
            parts of a phrase.

    Returns:
        The edited line, or the reason to drop the line or the whole page.
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
    """Return the reason to drop a line, or its page, because of a phrase or a bracket; None if there is none."""
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
    """Read a list in UTF-8 with one word or phrase per line.

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
    """Return True if a page contains an entry of a list that has no word character directly before or after it."""
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
    """Return the normal form of a URL. Pages with the same normal form are copies (the builder's `normalize_url`).

    Schemes, each with a following `www.`, are removed wherever they occur. A query that begins with a tracking
    parameter is removed. Final slashes are removed.
    """
    return _TRACKING.sub("", _SCHEME.sub("", url)).rstrip("/")


def url_digest(url: str) -> bytes:
    """Return the MD5 of a URL's normal form, 16 bytes."""
    return hashlib.md5(normalise_url(url).encode(), usedforsecurity=False).digest()


def time_key(timestamp: str) -> int:
    """Convert a time in ISO 8601 and UTC to an integer, so that a later time is a larger integer; 0 for no time."""
    digits = "".join(character for character in timestamp if character.isascii() and character.isdigit())
    return int(digits[:_DIGITS].ljust(_DIGITS, "0"))
