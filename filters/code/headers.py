"""Remove licence comments at the top of source files.

LLaMA, section 2.1: "we removed boilerplate, such as headers, with regular expressions". RedPajama's rule removes the
first /* */ that says "copyright", else every leading line that begins with `//`, `#` or `--`: includes, shebangs,
titles, documentation. Here only comments are removed, by the syntax of each language, of these only those with a
copyright notice or the words of a licence, and of these only the paragraphs that say so: a docstring, a Markdown title,
`#include` and `#!/bin/sh` stay, as does the rest of a comment.

The table comments.tsv has the fields of `Syntax` as regular expressions, blocks as pairs of marks. The table
phrases.tsv lists expressions of what is written in comments: marks of `generated` files, copyright `notice`s, phrases
of a `licence`, and `directive`s to programs.
"""

import re
from collections.abc import Iterator
from itertools import accumulate, chain, groupby
from typing import NamedTuple

from filters.data_files import read_rows

DATA_FILES = ("comments.tsv", "phrases.tsv")  # part of the code version of a step
MAX_LINE = 1000  # characters of a line that are searched
LEADING_LINES = 8  # lines of code before a licence: a package, a guard of inclusion
LEGAL_WORDS = 2  # different words of the law that make a paragraph part of a licence, in a comment that names one

_PHRASES = read_rows("filters.code", "phrases.tsv")


def _compile_phrases(kind: str) -> re.Pattern[str]:
    return re.compile("|".join(pattern for of_kind, pattern in _PHRASES if of_kind == kind), re.IGNORECASE)


GENERATED = _compile_phrases("generated")  # what programs write into the files that they make
_NOTICE = _compile_phrases("notice")  # a line that is a notice
_LICENCE = _compile_phrases("licence")  # a paragraph that is part of a licence, or names one
_DIRECTIVE = _compile_phrases("directive")  # a line for a program, not for people
_LEGAL_WORDS = re.compile(
    r"\b(?:(licen[cs]e)|(copyright)|(warrant)|(liab)|(permission)|(redistribut)|"
    r"(\"as is\")|(damages)|(conditions?\b)|(merchantab))",
    re.IGNORECASE,
)
SHEBANG = r"(?:#!(?!\[)[^\n]*+\n)?"  # the opening of a file, where the table names no other
_PRAGMA = "{-#"  # begins like a comment of Haskell, but is code
_MARKS = " \t\r\f\v*#/;!%'\"-=_+|<>{}~.:\\[])@&$^`"  # around the words of a comment
_LINE = re.compile(r"[^\n]*+\n|[^\n]++")
_BLANKS = re.compile(r"\s*+")
_INDENT = re.compile(r"[ \t]*+")
_INDENTED = re.compile(r"(?:[ \t]+[^\n]*+|[ \t]*+)(?:\n|\Z)")
_BLANK_LINES = re.compile(r"(?:[^\S\n]*+\n)*(?:\s*+\Z)?")
_BEFORE_DOCSTRING = re.compile(r"(?:#[^\n]*+|\s++)*")
_DOCSTRING = re.compile(r"[rRuU]?+(?:\"\"\"|''')")


class Syntax(NamedTuple):
    """The comments of a language.

    Attributes:
        blocks: The start and the end of comments with an end mark.
        line: The start of line comments.
        opening: What may come before all comments.
        leading: A line of code that may stand before a licence. Behind other code a comment is not the file's header.
    """

    blocks: tuple[tuple[str, str], ...]
    line: re.Pattern[str] | None
    opening: re.Pattern[str]
    leading: re.Pattern[str] | None


class Line(NamedTuple):
    """A line of a comment, text[begin:end], and its words, text[start:stop], without marks and blanks around them."""

    begin: int
    start: int
    stop: int
    end: int

    @property
    def has_words(self) -> bool:
        """Return True if the line consists of more than marks and blanks."""
        return self.start < self.stop


class Comment(NamedTuple):
    """A comment at text[start:stop]: one with an end mark (`block`), or a run of line comments, in whole lines."""

    start: int
    stop: int
    block: bool
    lines: tuple[Line, ...]


class StrippedFile(NamedTuple):
    """A text without the licence comments at its top."""

    text: str
    removed: tuple[tuple[int, int], ...]  # stretches [start, stop) of the original text
    legal: str  # all comments and the docstring that mention a licence, for `filters.code.licences`


def _load_syntax() -> dict[str, Syntax]:
    found: dict[str, Syntax] = {}
    for line, blocks, opening, leading, languages in read_rows("filters.code", "comments.tsv"):
        pairs = tuple((start, end) for start, end in map(str.split, filter(None, blocks.split(", "))))
        mark, behind = (re.compile(pattern) if pattern else None for pattern in (line, leading))
        found |= dict.fromkeys(languages.split(", "), Syntax(pairs, mark, re.compile(opening or SHEBANG), behind))
    return found


_SYNTAX = _load_syntax()


def strip_licence(text: str, language: str) -> StrippedFile:
    """Remove the licence from the comments at a file's top. Never raises; takes linear time."""
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
    """Yield the comments before the first line of code or text, in order; nothing if the language is unknown.

    A line that names the file's package or guards its inclusion is not counted as code.
    """
    syntax = _SYNTAX.get(language)
    if syntax is None:
        return
    opening = syntax.opening.match(text)
    position = opening.end() if opening else len(text)  # a file of PHP without `<?php`
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
        begin = position  # behind `<?php`
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
    """Return the end of a pattern at a position, or the position if it does not match."""
    match = pattern.match(text, position)
    return match.end() if match else position


def _make_line(text: str, begin: int, inside: int, end: int) -> Line:
    content = text[inside:end].rstrip("\n")
    words = content.lstrip(_MARKS)
    start = inside + len(content) - len(words)
    return Line(begin, start, start + len(words.rstrip(_MARKS)), end)


def _find_docstring(text: str) -> str:
    """Return the docstring of a Python module, behind comments and blank lines, or an empty string."""
    mark = _DOCSTRING.match(text, _skip(_BEFORE_DOCSTRING, text, 0))
    if mark is None:
        return ""
    end = text.find(mark[0][-3:], mark.end())
    return text[mark.end() : end] if end >= 0 else ""


def _get_words(text: str, line: Line) -> str:
    return text[line.start : min(line.stop, line.start + MAX_LINE)]


def _is_legal(words: str) -> bool:
    return bool(_NOTICE.search(words) or _LICENCE.search(words))


def _find_removable(text: str, comment: Comment) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a comment to remove: all of it, with the blank lines behind, if no words would be left."""
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
    is_at_end = max(gone, default=-1) > final_words  # so that empty lines before it go, too, and not only behind it
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
    """Yield the numbers of the lines to remove: whole paragraphs of a licence, and notices, but no directives."""
    tags = accumulate(line.start > line.begin and text[line.start - 1] in "@\\" for line in lines)  # as in `@author`
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
