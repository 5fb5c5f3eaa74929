"""What finds its way in TeX without running it: commands, groups, and where a control word ends."""

import re
from collections.abc import Iterator

WORD_CHARACTERS = 64
"""of a control word, at most, where its end is looked for backwards"""
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def names(words: str) -> frozenset[str]:
    """A set of names from a list with blanks between them."""
    return frozenset(re.findall(r"\S+", words))


def control(pattern: str) -> re.Pattern[str]:
    """What finds a control sequence: `pattern` is what follows its backslash. It also matches two backslashes, of which
    the second begins no command; `occurrences` leaves these out."""
    return re.compile(rf"\\(?:\\|(?:{pattern})(?P<found>))")


def occurrences(
    pattern: re.Pattern[str], text: str, start: int = 0, stop: int | None = None
) -> Iterator[re.Match[str]]:
    """Where a pattern made by `control` stands."""
    for mark in pattern.finditer(text, start, len(text) if stop is None else stop):
        if mark["found"] is not None:
            yield mark


def closing(text: str, position: int, limit: int) -> int:
    """Where the group ends whose brace opens at `position` (behind its closing one); -1 if not within `limit`
    characters."""
    depth = 0
    for brace in _BRACE.finditer(text, position, position + limit):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.end()
    return -1


def ends_in_word(text: str) -> bool:
    """Whether text ends in a control word: another letter would become part of it."""
    tail = text[-WORD_CHARACTERS:]
    if not tail or not (tail[-1].isascii() and (tail[-1].isalpha() or tail[-1] == "@")):
        return False
    backslash = tail.rfind("\\")
    letters = tail[backslash + 1 :]
    if backslash < 0 or not letters.isascii() or not letters.replace("@", "a").isalpha():
        return False
    before = tail[:backslash]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 0
