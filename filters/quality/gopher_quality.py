"""The quality rules of Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1), for English text.

A word is what stands between white space. The paper defines neither words nor bullets; these are our choice.
"""

from pydantic import Field

from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep
from filters.settings import Count, Positive, Share

BULLETS = ("•", "‣", "◦", "·", "*", "-")
ELLIPSES = ("...", "…")


class GopherQuality(Rule):
    """Drop documents that do not look like prose: by words, symbols, bullets, ellipses, letters and stop words."""

    REASONS = (
        Reason.GOPHER_WORD_COUNT,
        Reason.GOPHER_WORD_LENGTH,
        Reason.GOPHER_SYMBOLS,
        Reason.GOPHER_BULLETS,
        Reason.GOPHER_ELLIPSES,
        Reason.GOPHER_FEW_LETTERS,
        Reason.GOPHER_STOP_WORDS,
    )

    # the numbers of the paper
    min_words: Count = 50
    max_words: Positive = 100_000
    min_word_length: float = 3.0  # mean characters of a word
    max_word_length: float = 10.0
    symbols: Share = 0.1  # `#` a word, and ellipses a word
    bullets: Share = 0.9  # of lines that begin with a bullet
    ellipses: Share = 0.3  # of lines that end with an ellipsis
    letters: Share = 0.8  # least share of words with a letter
    stop_words: list[str] = Field(default=["the", "be", "to", "of", "and", "that", "have", "with"])  # in lower case
    min_stop_words: Count = 2  # different ones

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the document stays."""
        reason = find_reason(page.text, self)
        return keep() if reason is None else drop(reason)


def find_reason(text: str, rules: GopherQuality) -> Reason | None:
    """Return the first reason to drop a document, in the order of the paper; None to keep it."""
    words = text.split()
    if not rules.min_words <= len(words) <= rules.max_words:
        return Reason.GOPHER_WORD_COUNT
    count = max(len(words), 1)
    if words and not rules.min_word_length <= sum(map(len, words)) / count <= rules.max_word_length:
        return Reason.GOPHER_WORD_LENGTH
    if max(text.count("#"), sum(map(text.count, ELLIPSES))) / count > rules.symbols:
        return Reason.GOPHER_SYMBOLS
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    if sum(line.startswith(BULLETS) for line in lines) > rules.bullets * len(lines):
        return Reason.GOPHER_BULLETS
    if sum(line.endswith(ELLIPSES) for line in lines) > rules.ellipses * len(lines):
        return Reason.GOPHER_ELLIPSES
    if sum(word.isalpha() or any(map(str.isalpha, word)) for word in words) < rules.letters * len(words):
        return Reason.GOPHER_FEW_LETTERS
    if len({word.lower() for word in words}.intersection(rules.stop_words)) < rules.min_stop_words:
        return Reason.GOPHER_STOP_WORDS
    return None
