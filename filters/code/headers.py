"""Licence comments at the top of source files (LLaMA, section 2.1: "we removed boilerplate, such as headers, with
regular expressions").

RedPajama's rule takes away the first /* */ that says "copyright", else every leading line that begins with `//`, `#` or
`--`: includes, shebangs, titles, documentation. Here only comments go, of these only those with a copyright notice or
the words of a licence, and of these only the paragraphs that say so: what else a comment says of its file stays.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from filters.code.comments import MAX_LINE, Comment, Line, docstring, top_comments

_NOTICE = re.compile(
    r"^copyright\b|\bcopyright(?:ed)?[ \t,]{0,4}(?:\(c\)|©|&copy;|by\b|:|-|(?:19|20)\d\d)|"
    r"\(c\)[ \t]{0,4}(?:copyright|(?:19|20)\d\d)|"
    r"(?:©|&copy;)[ \t]{0,4}(?:19|20)?\d\d|\ball rights reserved\b|\bspdx-(?:license-identifier|filecopyrighttext)\b|"
    r"^licen[cs]e[ \t]{0,4}:|^licen[cs]e (?:mit|apache|bsd|gpl|http)",
    re.IGNORECASE,
)
"""a line that is a notice"""
_LICENCE = re.compile(
    r"\blicen[cs]ed (?:under|to\b)|\bpermission is (?:hereby )?granted|\bpermission to use\b|"
    r"\bredistribution and use\b|\bredistributions? (?:of source|in binary)|\bgoverned by (?:a|the|an)\b|"
    r"\bin compliance with the licen[cs]e|\bunder the terms of\b|\bsubject to the terms\b|\bfree software\b|"
    r"\bwithout (?:any )?(?:express or implied )?warrant|\bapache\.org/licenses|\bunless required by applicable law|"
    r"\byou should have received a copy|\bendorse or promote\b|\bopensource\.org/licenses|\bgnu\.org/licenses|"
    r"\b(?:mit|apache|bsd|gnu|mozilla|boost)[ -](?:software |style |general public |public )?licen[cs]e\b|"
    r"\bunder the licen[cs]e\b|\bsee (?:the )?(?:accompanying )?(?:file )?(?:licen[cs]e|copying)\b|"
    r"\blicen[cs]e(?:\.txt|\.md)? file\b|"
    r"\blicen[cs]e agreement\b|\breleased (?:in)?to the public domain\b|\breleased under\b|\bunauthori[sz]ed copying\b",
    re.IGNORECASE,
)
"""a paragraph that is part of a licence, or names one"""
_WORDS = re.compile(
    r"\b(?:(licen[cs]e)|(copyright)|(warrant)|(liab)|(permission)|(redistribut)|"
    r"(\"as is\")|(damages)|(conditions?\b)|(merchantab))",
    re.IGNORECASE,
)
ENOUGH = 2
"""different words of the law that make a paragraph part of a licence, in a comment that has a notice or names one"""
_DIRECTIVE = re.compile(
    r"coding[:=]|vim?:|-\*-|\+build|go:build|eslint|jshint|jslint|@flow|shellcheck|pylint:|flake8|mypy:|type:|"
    r"frozen_string_literal|warn_indent|syntax=|escape=|#?requires\b|<reference|!tex|istanbul",
    re.IGNORECASE,
)
"""what a line says to a program, not to people"""


class Headed(NamedTuple):
    """A text without the licence comments at its top, the stretches [start, stop) of the original that went, and all
    comments (and the docstring) that spoke of a licence, for `filters.code.licences`."""

    text: str
    removed: tuple[tuple[int, int], ...]
    legal: str


def without_licence(text: str, language: str) -> Headed:
    """Take the licence out of the comments at a file's top. Never raises; takes linear time."""
    removed, legal = list[tuple[int, int]](), list[str]()
    for comment in top_comments(text, language):
        if _speaks_of_licence(text, comment):
            legal.append(text[comment.start : comment.stop])
            removed += _removed(text, comment)
    if language == "Python":
        documentation = docstring(text)
        if any(_is_legal(line) for line in documentation.split("\n")):
            legal.append(documentation)
    kept, place = list[str](), 0
    for start, stop in removed:
        kept.append(text[place:start])
        place = stop
    return Headed("".join([*kept, text[place:]]) if removed else text, tuple(removed), "\n".join(legal))


def _is_legal(line: str) -> bool:
    return bool(_NOTICE.search(line[:MAX_LINE]) or _LICENCE.search(line[:MAX_LINE]))


def _speaks_of_licence(text: str, comment: Comment) -> bool:
    return any(_is_legal(text[line.start : line.stop]) for line in comment.lines)


def _removed(text: str, comment: Comment) -> Iterator[tuple[int, int]]:
    """The stretches of a comment that go: all of it, with the blank lines behind it, if no words would be left."""
    gone = set(_gone(text, comment.lines))
    left = {number for number, line in enumerate(comment.lines) if _has_words(line)} - gone
    if not left:
        yield comment.start, _end_of_blank_lines(text, comment.stop)
        return
    if all(_DIRECTIVE.match(text[comment.lines[number].start :][:MAX_LINE]) for number in left):
        gone = set(range(len(comment.lines))) - left
    for begin, end in _runs(sorted(_with_rules(comment, gone))):
        first, last = comment.lines[begin], comment.lines[end]
        closes = comment.block and end == len(comment.lines) - 1
        stop = last.stop if closes else last.end - (comment.block and begin == 0)
        if first.begin < stop:
            yield first.begin, stop


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """The first and the last of each run of numbers that follow one another."""
    runs = list[tuple[int, int]]()
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _gone(text: str, lines: tuple[Line, ...]) -> Iterator[int]:
    """The lines of a comment that go: whole paragraphs of a licence, and notices. Directives stay."""
    for (worded, _), numbers in groupby(range(len(lines)), key=_paragraphs(text, lines).__getitem__):
        run = list(numbers)
        if not worded:
            continue
        paragraph = " ".join(text[lines[n].start : min(lines[n].stop, lines[n].start + MAX_LINE)] for n in run)
        whole = _LICENCE.search(paragraph) or len({found.lastindex for found in _WORDS.finditer(paragraph)}) >= ENOUGH
        for number in run:
            words = text[lines[number].start : min(lines[number].stop, lines[number].start + MAX_LINE)]
            if (whole or _NOTICE.search(words)) and not _DIRECTIVE.match(words):
                yield number


def _paragraphs(text: str, lines: tuple[Line, ...]) -> list[tuple[bool, int]]:
    """For each line whether it has words, and a number that changes where a paragraph begins, as at `@author`."""
    found, tags = list[tuple[bool, int]](), 0
    for line in lines:
        tags += line.start > line.begin and text[line.start - 1] in "@\\"
        found.append((_has_words(line), tags))
    return found


def _with_rules(comment: Comment, gone: set[int]) -> set[int]:
    """The same, with the empty lines behind each stretch."""
    more, last = set(gone), len(comment.lines) - 1
    for number, line in enumerate(comment.lines):
        if number - 1 in more and not _has_words(line) and not (comment.block and number == last):
            more.add(number)
    return more


def _has_words(line: Line) -> bool:
    return line.start < line.stop


def _end_of_blank_lines(text: str, position: int) -> int:
    """Where the line behind `position` begins, and blank ones after it; `position` if something follows on its line."""
    end = position
    while True:
        newline = text.find("\n", position)
        if newline < 0:
            return len(text) if not text[position:].strip() else end
        if text[position:newline].strip():
            return end
        position = end = newline + 1
