"""The rules of Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1): quality, for English text, and repetition.

The paper does not define the following terms, so these definitions are ours:
- a word is a run of characters without white space; bullets are the characters in `BULLETS`;
- a duplicate is a copy of an earlier part of the same document, so the first occurrence is no duplicate;
- shares of characters are relative to the number of characters in words.

Shares are computed by division and then compared with a threshold. Multiplying the threshold instead would give wrong
results at the boundary: 0.7 * 90 is less than 63 in floating point, but 63 / 90 is 0.7.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep
from filters.settings import Count, Positive, Share

Integers: TypeAlias = npt.NDArray[np.int64]
# The first entry of `top` is for n-grams of 2 words, and the first entry of `duplicates` for n-grams of 5 words.
FIRST_TOP, FIRST_DUPLICATE = 2, 5
BULLETS = ("•", "‣", "◦", "·", "*", "-")
ELLIPSES = ("...", "…")


class GopherQuality(Rule):
    """Drop documents that do not look like prose: by words, symbols, bullets, ellipses, letters and stop words.

    These are Gopher's quality rules (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1), for English text.
    """

    REASONS = (
        Reason.GOPHER_WORD_COUNT,
        Reason.GOPHER_WORD_LENGTH,
        Reason.GOPHER_SYMBOLS,
        Reason.GOPHER_BULLETS,
        Reason.GOPHER_ELLIPSES,
        Reason.GOPHER_FEW_LETTERS,
        Reason.GOPHER_STOP_WORDS,
    )

    # Defaults: the paper.

    min_words: Count = 50  # smallest number of words
    max_words: Positive = 100_000  # largest number of words
    min_word_length: float = 3.0  # smallest mean number of characters per word
    max_word_length: float = 10.0  # largest mean number of characters per word
    symbols: Share = 0.1  # largest number of `#` per word, and of ellipses per word
    bullets: Share = 0.9  # largest share of lines that begin with a bullet
    ellipses: Share = 0.3  # largest share of lines that end with an ellipsis
    letters: Share = 0.8  # smallest share of words with a letter
    stop_words: list[str] = Field(default=["the", "be", "to", "of", "and", "that", "have", "with"])  # in lower case
    min_stop_words: Count = 2  # smallest number of different stop words

    @model_validator(mode="after")
    def _check_satisfiable(self) -> Self:
        if self.min_words > self.max_words or self.min_word_length > self.max_word_length:
            raise ValueError("no document passes: a smallest value is above the largest one")
        if self.min_stop_words > len(set(self.stop_words)):
            raise ValueError("no document passes: min_stop_words is above the number of stop_words")
        return self

    def apply(self, page: Page, found: Found) -> Verdict:
        """Drop the document for the first reason that applies, in the order of the paper, or keep it."""
        words = page.text.split()
        if not words or not self.min_words <= len(words) <= self.max_words:
            return drop(Reason.GOPHER_WORD_COUNT)
        if not self.min_word_length <= sum(map(len, words)) / len(words) <= self.max_word_length:
            return drop(Reason.GOPHER_WORD_LENGTH)
        if max(page.text.count("#"), sum(map(page.text.count, ELLIPSES))) / len(words) > self.symbols:
            return drop(Reason.GOPHER_SYMBOLS)
        lines = [stripped for line in page.text.split("\n") if (stripped := line.strip())]
        if sum(line.startswith(BULLETS) for line in lines) / len(lines) > self.bullets:
            return drop(Reason.GOPHER_BULLETS)
        if sum(line.endswith(ELLIPSES) for line in lines) / len(lines) > self.ellipses:
            return drop(Reason.GOPHER_ELLIPSES)
        if sum(word.isalpha() or any(map(str.isalpha, word)) for word in words) / len(words) < self.letters:
            return drop(Reason.GOPHER_FEW_LETTERS)
        if len({word.lower() for word in words}.intersection(self.stop_words)) < self.min_stop_words:
            return drop(Reason.GOPHER_STOP_WORDS)
        return keep()


class GopherRepetition(Rule):
    """Drop documents that repeat themselves: lines, paragraphs, and n-grams of 2 to 10 words.

    These are Gopher's repetition rules (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1, table A1).

    Attributes:
        top: largest share of characters in the most frequent n-gram, if it occurs twice or more, for n = 2, 3, 4.
        duplicates: largest share of characters in repeated n-grams, each character counted once, for n = 5 to 10.
    """

    REASONS = (
        Reason.GOPHER_DUPLICATE_LINES,
        Reason.GOPHER_DUPLICATE_PARAGRAPHS,
        Reason.GOPHER_TOP_NGRAM,
        Reason.GOPHER_DUPLICATE_NGRAMS,
    )

    # Defaults: table A1.

    lines: Share = 0.3  # largest share of lines that repeat an earlier line
    paragraphs: Share = 0.3  # largest share of paragraphs that repeat an earlier one; empty lines separate paragraphs
    line_characters: Share = 0.2  # largest share of characters in repeated lines
    paragraph_characters: Share = 0.2  # largest share of characters in repeated paragraphs
    top: list[Share] = Field(default=[0.2, 0.18, 0.16], max_length=3)
    duplicates: list[Share] = Field(default=[0.15, 0.14, 0.13, 0.12, 0.11, 0.1], max_length=6)

    def apply(self, page: Page, found: Found) -> Verdict:
        """Drop the document for the first reason that applies, or keep it."""
        words = page.text.split()
        if not words:
            return keep()
        for separator, most, most_characters, reason in (
            ("\n", self.lines, self.line_characters, Reason.GOPHER_DUPLICATE_LINES),
            ("\n\n", self.paragraphs, self.paragraph_characters, Reason.GOPHER_DUPLICATE_PARAGRAPHS),
        ):
            parts = [stripped for part in page.text.split(separator) if (stripped := part.strip())]
            number, characters = count_duplicates(parts)
            if number / len(parts) > most or characters / sum(map(len, parts)) > most_characters:
                return drop(reason)
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        top, duplicates = dict(enumerate(self.top, FIRST_TOP)), dict(enumerate(self.duplicates, FIRST_DUPLICATE))
        for size, places, numbers in repeated_ngrams(words, max([1, *top, *duplicates])):
            if size in top and top_share(places, numbers, size, lengths) > top[size]:
                return drop(Reason.GOPHER_TOP_NGRAM)
            if size in duplicates and duplicate_share(places, numbers, size, lengths) > duplicates[size]:
                return drop(Reason.GOPHER_DUPLICATE_NGRAMS)
        return keep()


def count_duplicates(parts: Collection[str]) -> tuple[int, int]:
    """Return the number of parts that are copies of an earlier part, and the number of their characters."""
    first = set(parts)
    return len(parts) - len(first), sum(map(len, parts)) - sum(map(len, first))


def repeated_ngrams(words: Sequence[str], longest: int) -> Iterator[tuple[int, Integers, Integers]]:
    """Yield, for n = 2 to `longest`, the n-grams that occur more than once. Stop at the first n without any.

    An n-gram can occur more than once only if its first n - 1 words do. So only those places are compared.

    Yields:
        n; (k,) the index of the first word of each occurrence, ascending; (k,) the number of the n-gram of each
        occurrence. Numbers begin at 0, and equal n-grams have the same number.
    """
    known: dict[str, int] = {}
    ids = np.fromiter((known.setdefault(word, len(known)) for word in words), np.int64, len(words))
    places, numbers = np.arange(len(words)), ids
    for size in range(2, longest + 1):
        within = places <= len(words) - size
        places, numbers = places[within], numbers[within]
        numbers = np.unique(numbers * len(known) + ids[places + size - 1], return_inverse=True)[1]
        again = np.bincount(numbers)[numbers] > 1
        if not again.any():
            return
        places, numbers = places[again], numbers[again]
        yield size, places, numbers


def top_share(places: Integers, numbers: Integers, size: int, lengths: Integers) -> float:
    """Return the share of characters in the most frequent n-gram.

    If several n-grams are the most frequent, the longest in characters is used.

    Args:
        places: (k,) index of the first word of each occurrence.
        numbers: (k,) number of the n-gram of each occurrence.
        size: number of words in an n-gram.
        lengths: (words,) number of characters in each word.
    """
    counts = np.bincount(numbers)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    characters = np.where(counts[numbers] == counts.max(), ends[places + size] - ends[places], 0)
    return covered_share(places[numbers == numbers[characters.argmax()]], size, lengths)


def duplicate_share(places: Integers, numbers: Integers, size: int, lengths: Integers) -> float:
    """Return the share of characters in repeated n-grams, without first occurrences. See `top_share` for arguments."""
    return covered_share(np.delete(places, np.unique(numbers, return_index=True)[1]), size, lengths)


def covered_share(places: Integers, size: int, lengths: Integers) -> float:
    """Return the share of characters in the n-grams that begin at `places`. Words in several n-grams count once."""
    changes = np.bincount(places, minlength=len(lengths) + 1) - np.bincount(places + size, minlength=len(lengths) + 1)
    return float(lengths[np.cumsum(changes[:-1]) > 0].sum() / lengths.sum())
