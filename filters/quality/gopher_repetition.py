"""The repetition rules of Gopher (Rae et al. 2021, arXiv 2112.11446, appendix A.1.1, table A1).

A duplicate is a copy of something earlier in the same document, so the first occurrence is no duplicate. Words are
separated by white space, and shares of characters are shares of the characters of words. The paper leaves these open.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep
from filters.settings import Share

Integers: TypeAlias = npt.NDArray[np.int64]
FIRST_TOP, FIRST_DUPLICATE = 2, 5  # words of the n-grams that the first entry of `top` and of `duplicates` is for


class GopherRepetition(Rule):
    """Drop documents that repeat themselves: lines, paragraphs, and n-grams of 2 to 10 words.

    Attributes:
        top: most of the characters that the most frequent n-gram may take, for n = 2, 3, 4, if it occurs twice or more.
        duplicates: most of the characters in duplicate n-grams, each counted once, for n = 5 to 10.
    """

    REASONS = (
        Reason.GOPHER_DUPLICATE_LINES,
        Reason.GOPHER_DUPLICATE_PARAGRAPHS,
        Reason.GOPHER_TOP_NGRAM,
        Reason.GOPHER_DUPLICATE_NGRAMS,
    )

    # the numbers of table A1
    lines: Share = 0.3  # duplicate ones, of all lines
    paragraphs: Share = 0.3  # the same; a paragraph ends at an empty line
    line_characters: Share = 0.2  # in duplicate lines, of all characters
    paragraph_characters: Share = 0.2
    top: list[Share] = Field(default=[0.2, 0.18, 0.16], max_length=3)
    duplicates: list[Share] = Field(default=[0.15, 0.14, 0.13, 0.12, 0.11, 0.1], max_length=6)

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the document stays."""
        reason = find_reason(page.text, self)
        return keep() if reason is None else drop(reason)


def find_reason(text: str, rules: GopherRepetition) -> Reason | None:
    """Return the first reason to drop a document; None to keep it."""
    for separator, most, most_characters, reason in (
        ("\n", rules.lines, rules.line_characters, Reason.GOPHER_DUPLICATE_LINES),
        ("\n\n", rules.paragraphs, rules.paragraph_characters, Reason.GOPHER_DUPLICATE_PARAGRAPHS),
    ):
        parts = [stripped for part in text.split(separator) if (stripped := part.strip())]
        number, characters = count_duplicates(parts)
        if number > most * len(parts) or characters > most_characters * sum(map(len, parts)):
            return reason
    words = text.split()
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    top, duplicates = dict(enumerate(rules.top, FIRST_TOP)), dict(enumerate(rules.duplicates, FIRST_DUPLICATE))
    for size, places, numbers in repeated_ngrams(words, max([1, *top, *duplicates])):
        if size in top and top_share(places, numbers, size, lengths) > top[size]:
            return Reason.GOPHER_TOP_NGRAM
        if size in duplicates and duplicate_share(places, numbers, size, lengths) > duplicates[size]:
            return Reason.GOPHER_DUPLICATE_NGRAMS
    return None


def count_duplicates(parts: Collection[str]) -> tuple[int, int]:
    """Return how many parts are copies of an earlier one, and their characters."""
    first = set(parts)
    return len(parts) - len(first), sum(map(len, parts)) - sum(map(len, first))


def repeated_ngrams(words: Sequence[str], longest: int) -> Iterator[tuple[int, Integers, Integers]]:
    """Yield, for n = 2 to `longest`, the n-grams that occur more than once.

    Only an n-gram whose first n - 1 words occur more than once can do so, so that few places are left to compare.

    Yields:
        n, (k,) places of first words in rising order, and (k,) numbers of the n-grams from 0 on, equal for equal ones.
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
    """Return the share of characters in the most frequent n-gram; of several, in the one that has the most.

    Args:
        places: (k,) of the n-grams' first words.
        numbers: (k,) of the n-grams.
        size: words of an n-gram.
        lengths: (words,) characters of the words.
    """
    counts = np.bincount(numbers)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    characters = np.where(counts[numbers] == counts.max(), ends[places + size] - ends[places], 0)
    return covered_share(places[numbers == numbers[characters.argmax()]], size, lengths)


def duplicate_share(places: Integers, numbers: Integers, size: int, lengths: Integers) -> float:
    """Return the share of characters in n-grams that have occurred before. Arguments are those of `top_share`."""
    return covered_share(np.delete(places, np.unique(numbers, return_index=True)[1]), size, lengths)


def covered_share(places: Integers, size: int, lengths: Integers) -> float:
    """Return the share of characters in the n-grams at some places, each word counted once."""
    changes = np.bincount(places, minlength=len(lengths) + 1) - np.bincount(places + size, minlength=len(lengths) + 1)
    return float(lengths[np.cumsum(changes[:-1]) > 0].sum() / lengths.sum())
