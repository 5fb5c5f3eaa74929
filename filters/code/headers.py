"""Remove licence comments at the top of source files.

LLaMA, section 2.1: "we removed boilerplate, such as headers, with regular expressions". RedPajama's rule removes the
first /* */ comment that contains "copyright", or else all leading lines that begin with `//`, `#` or `--`. This also
removes includes, shebangs, titles and documentation.

This module removes less. It parses comments by the syntax of each language. In comments with a copyright notice or the
words of a licence, it removes only the paragraphs with this content. Docstrings, Markdown titles, `#include`,
`#!/bin/sh` and all other paragraphs of a comment are kept.

The table comments.tsv has the fields of `Syntax` as regular expressions, and blocks as pairs of start and end marks.
The table phrases.tsv lists regular expressions for the content of comments: marks of `generated` files, copyright
`notice`s, phrases of a `licence`, and `directive`s to programs.
"""

import re
from collections.abc import Iterator
from itertools import accumulate, chain, groupby
from typing import NamedTuple

from filters.data_files import read_rows

# The cache keys of steps that use this module contain the hashes of these files.
DATA_FILES = ("comments.tsv", "phrases.tsv")
MAX_LINE = 1000  # characters of a line that are searched
LEADING_LINES = 8  # lines of code that may precede a licence, such as a package clause or an include guard
# In a comment that mentions a licence or a copyright, a paragraph with this number of different legal words is part of
# the licence.
LEGAL_WORDS = 2

_PHRASES = read_rows("filters.code", "phrases.tsv")


def _compile_phrases(kind: str) -> re.Pattern[str]:
    return re.compile("|".join(pattern for row_kind, pattern in _PHRASES if row_kind == kind), re.IGNORECASE)


GENERATED = _compile_phrases("generated")  # phrases that programs write into the files that they generate
_NOTICE = _compile_phrases("notice")  # a line that is a copyright notice
_LICENCE = _compile_phrases("licence")  # a paragraph that is part of a licence, or names a licence
_DIRECTIVE = _compile_phrases("directive")  # a line that is an instruction to a program
_LEGAL_WORDS = re.compile(
    r"\b(?:(licen[cs]e)|(copyright)|(warrant)|(liab)|(permission)|(redistribut)|"
    r"(\"as is\")|(damages)|(conditions?\b)|(merchantab))",
    re.IGNORECASE,
)
SHEBANG = r"(?:#!(?!\[)[^\n]*+\n)?"  # the default of `Syntax.opening`
_PRAGMA = "{-#"  # begins like a comment of Haskell, but is code
_MARKS = " \t\r\f\v*#/;!%'\"-=_+|<>{}~.:\\[])@&$^`"  # characters around the words of a comment
_LINE = re.compile(r"[^\n]*+\n|[^\n]++")
_BLANKS = re.compile(r"\s*+")
_INDENT = re.compile(r"[ \t]*+")
_INDENTED = re.compile(r"(?:[ \t]+[^\n]*+|[ \t]*+)(?:\n|\Z)")
_BLANK_LINES = re.compile(r"(?:[^\S\n]*+\n)*(?:\s*+\Z)?")
_BEFORE_DOCSTRING = re.compile(r"(?:#[^\n]*+|\s++)*")
_DOCSTRING = re.compile(r"[rRuU]?+(?:\"\"\"|''')")


class Syntax(NamedTuple):
    """The comment syntax of a language.

    Attributes:
        blocks: Pairs (start mark, end mark) of block comments.
        line: A pattern for the start mark of line comments; None if there are none.
        opening: A pattern for the text that may precede all comments, such as a shebang.
        leading: A pattern for a line of code that may precede a licence. Behind other code, a comment is not the file's
            header.
    """

    blocks: tuple[tuple[str, str], ...]
    line: re.Pattern[str] | None
    opening: re.Pattern[str]
    leading: re.Pattern[str] | None


class Line(NamedTuple):
    """A line of a comment, text[begin:end]. Its words, without marks and blanks around them, are text[start:stop]."""

    begin: int
    start: int
    stop: int
    end: int

    @property
    def has_words(self) -> bool:
        """True if the line consists of more than marks and blanks."""
        return self.start < self.stop


class Comment(NamedTuple):
    """A comment at text[start:stop].

    Attributes:
        start: The start of the comment.
        stop: The end of the comment.
        block: True for a comment with an end mark, False for consecutive line comments, which are whole lines.
        lines: The lines of the comment.
    """

    start: int
    stop: int
    block: bool
    lines: tuple[Line, ...]


class StrippedFile(NamedTuple):
    """A file without the licence comments at its top.

    Attributes:
        text: The remaining text.
        removed: The removed stretches [start, stop) of the original text.
        legal: All comments, and the docstring, that mention a licence, for `filters.code.licences`.
    """

    text: str
    removed: tuple[tuple[int, int], ...]
    legal: str


def _load_syntax() -> dict[str, Syntax]:
    found: dict[str, Syntax] = {}
    for line, blocks, opening, leading, languages in read_rows("filters.code", "comments.tsv"):
        pairs = tuple((start, end) for start, end in map(str.split, filter(None, blocks.split(", "))))
        mark, behind = (re.compile(pattern) if pattern else None for pattern in (line, leading))
        found |= dict.fromkeys(languages.split(", "), Syntax(pairs, mark, re.compile(opening or SHEBANG), behind))
    return found


_SYNTAX = _load_syntax()


def strip_licence(text: str, language: str) -> StrippedFile:
    """Remove the licence from the comments at the top of a file. Never raises; takes linear time."""
    removed, legal = list[tuple[int, int]](), list[str]()
    for comment in find_top_comments(text, language):
        if any(_is_legal(_get_words(text, line)) for line in comment.lines):
            legal.append(text[comment.start : comment.stop])
            removed += _find_removable(text, comment)
    if language == "Python":
        docstring = _find_docstring(text)
        if any(_is_legal(line[:MAX_LINE]) for line in docstring.split("\n")):
            legal.append(docstring)
    bounds = [0, *chain.from_iterable(removed), len(text)]
    kept = (text[start:stop] for start, stop in zip(bounds[::2], bounds[1::2], strict=True))
    return StrippedFile("".join(kept), tuple(removed), "\n".join(legal))


def find_top_comments(text: str, language: str) -> Iterator[Comment]:
    """Yield the comments before the first line of code or text, in order.

    Lines that match `Syntax.leading`, such as package clauses and include guards, do not count as code. Yields nothing
    if the language is unknown.
    """
    syntax = _SYNTAX.get(language)
    if syntax is None:
        return
    opening = syntax.opening.match(text)
    position = opening.end() if opening else len(text)  # no match: a PHP file without `<?php`
    lines = 0
    while position < len(text):
        begin = _skip(_BLANKS, text, position)
        comment = _find_comment(text, begin, syntax, language)
        if comment is not None:
            yield comment
            position = comment.stop
            continue
        line = syntax.leading.match(text, begin) if syntax.leading and lines < LEADING_LINES else None
        if line is None:
            return
        position, lines = line.end(), lines + 1


def _find_comment(text: str, position: int, syntax: Syntax, language: str) -> Comment | None:
    """Return the comment that begins at `position`, or None. Consecutive line comments are one comment."""
    for opener, closer in syntax.blocks:
        if text.startswith(opener, position) and not text.startswith(_PRAGMA, position):
            start = position + len(opener)
            close = text.find(closer, start)
            if close < 0:
                return None
            matches = _LINE.finditer(text, start, close)
            lines = [_make_line(text, match.start(), match.start(), match.end()) for match in matches]
            return Comment(position, close + len(closer), True, tuple(lines))
    if syntax.line is None:
        return None
    begin = text.rfind("\n", 0, position) + 1
    if text[begin:position].strip():
        begin = position  # the comment is on the line of `<?php`
    lines, stop = [], begin
    while position < len(text) and (mark := syntax.line.match(text, position)):
        stop = text.find("\n", mark.end()) + 1 or len(text)
        lines.append(_make_line(text, lines[-1].end if lines else begin, mark.end(), stop))
        if language == "reStructuredText":
            while stop < len(text) and (more := _INDENTED.match(text, stop)):
                lines.append(_make_line(text, stop, stop, more.end()))
                stop = more.end()
            break
        position = _skip(_INDENT, text, stop)
    return Comment(begin, stop, False, tuple(lines)) if lines else None


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Return the end of a pattern that matches at `position`, or `position` if it does not match."""
    match = pattern.match(text, position)
    return match.end() if match else position


def _make_line(text: str, begin: int, inside: int, end: int) -> Line:
    """Return the line text[begin:end] of a comment. `inside` is the position behind the comment mark."""
    content = text[inside:end].rstrip("\n")
    words = content.lstrip(_MARKS)
    start = inside + len(content) - len(words)
    return Line(begin, start, start + len(words.rstrip(_MARKS)), end)


def _find_docstring(text: str) -> str:
    """Return the docstring of a Python module, or "". Comments and blank lines may precede the docstring."""
    mark = _DOCSTRING.match(text, _skip(_BEFORE_DOCSTRING, text, 0))
    if mark is None:
        return ""
    end = text.find(mark[0][-3:], mark.end())
    return text[mark.end() : end] if end >= 0 else ""


def _get_words(text: str, line: Line) -> str:
    return text[line.start : min(line.stop, line.start + MAX_LINE)]


def _is_legal(words: str) -> bool:
    """Return True if a line contains a copyright notice or a phrase of a licence."""
    return bool(_NOTICE.search(words) or _LICENCE.search(words))


def _find_removable(text: str, comment: Comment) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a comment to remove.

    If no words would be left, this is the whole comment and the blank lines behind it.
    """
    gone = set(_find_legal_lines(text, comment.lines))
    left = {number for number, line in enumerate(comment.lines) if line.has_words} - gone
    if not left:
        yield comment.start, _skip(_BLANK_LINES, text, comment.stop)
        return
    last = len(comment.lines) - 1
    starts = (comment.lines[number].start for number in left)
    if all(_DIRECTIVE.match(text[start : start + MAX_LINE]) for start in starts):
        gone = set(range(last + 1)) - left
    final_words = max(left)
    # If the end of the comment is removed, the empty lines before the removed part are also removed.
    is_at_end = max(gone, default=-1) > final_words
    for number, line in enumerate(comment.lines):
        goes = number - 1 in gone or (is_at_end and number > final_words)
        if goes and not line.has_words and not (comment.block and number == last):
            gone.add(number)
    for _, run in groupby(enumerate(sorted(gone)), key=lambda item: item[1] - item[0]):
        numbers = [number for _, number in run]
        first, final = comment.lines[numbers[0]], comment.lines[numbers[-1]]
        closes = comment.block and numbers[-1] == last
        stop = final.stop if closes else final.end - (comment.block and numbers[0] == 0)
        if first.begin < stop:
            yield first.begin, stop


def _find_legal_lines(text: str, lines: tuple[Line, ...]) -> Iterator[int]:
    """Yield the indices of the lines to remove: all lines of licence paragraphs, and notices, but no directives."""
    # A documentation tag such as `@author` begins a new paragraph.
    tags = accumulate(line.start > line.begin and text[line.start - 1] in "@\\" for line in lines)
    paragraphs = [(line.has_words, tag) for line, tag in zip(lines, tags, strict=True)]
    for (has_words, _), numbers in groupby(range(len(lines)), key=paragraphs.__getitem__):
        if not has_words:
            continue
        words = {number: _get_words(text, lines[number]) for number in numbers}
        paragraph = " ".join(words.values())
        legal_words = {word.lastindex for word in _LEGAL_WORDS.finditer(paragraph)}
        whole = _LICENCE.search(paragraph) or len(legal_words) >= LEGAL_WORDS
        for number, line in words.items():
            if (whole or _NOTICE.search(line)) and not _DIRECTIVE.match(line):
                yield number
