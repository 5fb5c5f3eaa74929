"""Comments at the top of source files, by the syntax of each language. What is code, or text, is never taken for one:
`#include`, `#!/bin/sh`, a Markdown title, a docstring."""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_LINE = 1000
"""characters of a line that are looked at"""


class Syntax(NamedTuple):
    """How a language begins a comment of one line, and begins and ends others; `opening` may stand before all."""

    line: re.Pattern[str] | None
    blocks: tuple[tuple[str, str], ...] = ()
    opening: re.Pattern[str] = re.compile(r"(?:#!(?!\[)[^\n]*+\n)?+")


class Line(NamedTuple):
    """A line of a comment: its words at text[start:stop], without marks and blanks around them; `end`: where the next
    line begins."""

    begin: int
    start: int
    stop: int
    end: int


class Comment(NamedTuple):
    """A comment at text[start:stop]: a run of one-line comments (`block` false), of whole lines, or one with an end."""

    start: int
    stop: int
    block: bool
    lines: tuple[Line, ...]


_C = ("/*", "*/")
_MARKUP = re.compile(r"(?:<\?xml[^>\n]{0,200}\?>\s*+|<!doctype[^>]{0,400}>\s*+)*+", re.IGNORECASE)
_SLASHES = Syntax(re.compile(r"//"), (_C,))
_HASH = Syntax(re.compile(r"#"))
_ANGLES = Syntax(None, (("<!--", "-->"),), _MARKUP)

_SYNTAX = {
    **dict.fromkeys(
        (
            "C",
            "C#",
            "C++",
            "Dart",
            "Go",
            "Groovy",
            "Java",
            "JavaScript",
            "Kotlin",
            "Rust",
            "Scala",
            "Swift",
            "TypeScript",
        ),
        _SLASHES,
    ),
    **dict.fromkeys(
        ("Dockerfile", "Makefile", "Perl", "Python", "R", "Ruby", "Shell", "Smali", "TOML", "YAML"),
        _HASH,
    ),
    **dict.fromkeys(("HTML", "Markdown", "XML"), _ANGLES),
    "Assembly": Syntax(re.compile(r";|//|@(?= )"), (_C,)),
    "Batchfile": Syntax(re.compile(r"(?i:@?rem(?=[ \t\n]))|::"), (), re.compile(r"(?i:@echo off[ \t]*\n)?+")),
    "CMake": Syntax(re.compile(r"#(?!\[)"), (("#[[", "]]"),)),
    "CSS": Syntax(None, (_C,)),
    "Erlang": Syntax(re.compile(r"%")),
    "Fortran": Syntax(re.compile(r"!|[cC*](?=[ \t*=\n-])")),
    "Haskell": Syntax(re.compile(r"--"), (("{-", "-}"),), re.compile(r"(?:\{-#[^#]{0,400}#-\}\s*+)*+")),
    "Julia": Syntax(re.compile(r"#(?!=)"), (("#=", "=#"),)),
    "Lua": Syntax(re.compile(r"--(?!\[\[)"), (("--[[", "]]"),)),
    "OCaml": Syntax(None, (("(*", "*)"),)),
    "Objective-C or MATLAB": Syntax(re.compile(r"//|%(?!\{)"), (_C, ("%{", "%}"))),
    "PHP": Syntax(re.compile(r"//|#(?!\[)"), (_C,), re.compile(r"(?:#![^\n]*+\n)?+\s*+<\?(?:php)?", re.IGNORECASE)),
    "PowerShell": Syntax(re.compile(r"#(?!>)"), (("<#", "#>"),)),
    "SQL": Syntax(re.compile(r"--"), (_C,)),
    "TeX": Syntax(re.compile(r"%")),
    "Visual Basic": Syntax(re.compile(r"'")),
    "reStructuredText": Syntax(re.compile(r"\.\.(?=\n|[ \t]++(?![_\[|])(?![^\n]{0,200}::))")),
}
_PRAGMA = ("{-#",)
"""begins as a comment does, and is none"""
_BLANKS = re.compile(r"\s*+")
_INDENTED = re.compile(r"(?:[ \t]+[^\n]*+|[ \t]*+)(?:\n|\Z)")
_MARKS = " \t\r\f\v*#/;!%'\"-=_+|<>{}~.:\\[])@&$^`"
_BEFORE_DOCSTRING = re.compile(r"(?:#[^\n]*+|\s++)*+")
_DOCSTRING = re.compile(r"[rRuU]?+(?:\"\"\"|''')")


def top_comments(text: str, language: str) -> Iterator[Comment]:
    """The comments before the first line of a file that is none, in order. None in languages that are not known."""
    syntax = _SYNTAX.get(language)
    if syntax is None:
        return
    opening = syntax.opening.match(text)
    position = opening.end() if opening else (len(text) if language == "PHP" else 0)
    while position < len(text):
        blanks = _BLANKS.match(text, position)
        position = blanks.end() if blanks else position
        comment = _comment(text, position, syntax, language)
        if comment is None:
            return
        yield comment
        position = comment.stop


def docstring(text: str) -> str:
    """The docstring of a Python module, behind comments and blank lines; empty if it has none."""
    before = _BEFORE_DOCSTRING.match(text)
    begin = before.end() if before else 0
    mark = _DOCSTRING.match(text, begin)
    if mark is None:
        return ""
    end = text.find(mark[0][-3:], mark.end())
    return text[mark.end() : end] if end >= 0 else ""


def _comment(text: str, position: int, syntax: Syntax, language: str) -> Comment | None:
    for opener, closer in syntax.blocks:
        if text.startswith(opener, position) and not text.startswith(_PRAGMA, position):
            close = text.find(closer, position + len(opener))
            if close < 0:
                return None
            lines = tuple(_lines(text, position + len(opener), close))
            return Comment(position, close + len(closer), True, lines)
    if syntax.line is None:
        return None
    first = text.rfind("\n", 0, position) + 1
    if text[first:position].strip():
        first = position  # behind `<?php`
    stop = position
    found = list[Line]()
    while stop < len(text):
        mark = syntax.line.match(text, position)
        if mark is None:
            break
        end = text.find("\n", mark.end())
        end = end + 1 if end >= 0 else len(text)
        found.append(_line(text, stop if found else first, mark.end(), end))
        stop = end
        if language == "reStructuredText":
            while stop < len(text) and (more := _INDENTED.match(text, stop)):
                found.append(_line(text, stop, stop, more.end()))
                stop = more.end()
            break
        position = _indent(text, stop)
    return Comment(first, stop, False, tuple(found)) if found else None


def _indent(text: str, position: int) -> int:
    """Where the blanks of a line end."""
    while position < len(text) and text[position] in " \t":
        position += 1
    return position


def _lines(text: str, start: int, stop: int) -> Iterator[Line]:
    position = start
    while position < stop:
        end = text.find("\n", position, stop)
        end = end + 1 if end >= 0 else stop
        yield _line(text, position, position, end)
        position = end


def _line(text: str, begin: int, inside: int, end: int) -> Line:
    content = text[inside:end].rstrip("\n")
    words = content.lstrip(_MARKS)
    start = inside + len(content) - len(words)
    return Line(begin, start, start + len(words.rstrip(_MARKS)), end)
