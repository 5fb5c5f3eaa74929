"""Definitions of macros: \\newcommand and its like, \\def with its parameters, \\let, \\DeclareMathOperator (LaTeX's
source2e, section ltdefns; The TeXbook, chapter 20; amsopn)."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from filters.tex.arguments import Argument, Frame, bracketed, group
from filters.tex.tokens import ends_in_word, names

DEFINERS = names(
    """newcommand renewcommand providecommand DeclareRobustCommand newrobustcmd renewrobustcmd def gdef edef xdef let
    DeclareMathOperator newenvironment renewenvironment long global outer protected"""
)
"""control words that a definition begins with"""

_PREFIXED = re.compile(r"\\(?:(?:long|global|outer|protected)(?![a-zA-Z@])\s{0,9}\\){1,9}([egx]?def|let)(?![a-zA-Z@])")
_NAME = re.compile(r"\s{0,9}(?:\{\s{0,9}\\([a-zA-Z@]+|[^a-zA-Z@\s])\s{0,9}\}|\\([a-zA-Z@]+|[^a-zA-Z@\s]))")
_COUNT = re.compile(r"\s{0,9}\[\s{0,9}([0-9])\s{0,9}\]")
_STAR = re.compile(r"\s{0,9}\*")
_PARAMETERS = re.compile(r"([^{}]{0,200})\{")
_LET = re.compile(r"\s{0,9}\\([a-zA-Z@]+|[^a-zA-Z@\s])\s{0,9}=?\s{0,9}(\\(?:[a-zA-Z@]+|[^a-zA-Z@\s])|[^\\\s])")
_PROGRAM = re.compile(
    r"""\\(?:[a-zA-Z]*@|(?:if(?!f(?![a-zA-Z]))[a-zA-Z]*|else|fi|or|expandafter|csname|futurelet|catcode|global|def
    |[egx]def|let|newcommand|renewcommand|providecommand|afterassignment|aftergroup|advance|loop|repeat|noexpand|the
    |number|begingroup|endgroup|bgroup|egroup|write|read|immediate|uppercase|lowercase)(?![a-zA-Z]))|\#\#""",
    re.VERBOSE,
)
_HOLE = re.compile(r"\\.|#([1-9])", re.DOTALL)
_SEQUENCE = re.compile(r"\\([a-zA-Z@]+|.)", re.DOTALL)


class Macro(NamedTuple):
    """`parts`: its replacement, text and numbers of arguments in turns; `delimiters`: what stands before the first
    argument and behind each one ("" behind one that is not delimited); `default`: of an optional first argument;
    `uses`: the control sequences in the replacement."""

    parts: tuple[str | int, ...]
    delimiters: tuple[str, ...]
    default: str | None
    uses: frozenset[str]

    def filled(self, arguments: list[str]) -> str:
        """The replacement with its arguments. A control word is kept apart from letters that follow."""
        out: list[str] = []
        in_word = False
        for part in self.parts:
            text = part if isinstance(part, str) else arguments[part - 1]
            if text:
                if in_word and text[0].isascii() and text[0].isalpha():
                    out.append(" ")
                out.append(text)
                in_word = ends_in_word(text)
        return "".join(out)


class Definition(NamedTuple):
    """A name and its macro (None for what is no template), and where the definition ends. No name: an environment."""

    name: str
    macro: Macro | None
    stop: int


def definition(command: str, frame: Frame, begin: int, macros: Mapping[str, Macro | None]) -> Definition | None:
    """What a command among `DEFINERS`, which begins at `begin`, defines; None if it is not understood."""
    position = begin + 1 + len(command)
    prefixed = _PREFIXED.match(frame.text, begin)
    if prefixed:
        command, position = prefixed[1], prefixed.end()
    if command == "let":
        return _let(frame.text, position, macros)
    star = _STAR.match(frame.text, position)
    if command.endswith("environment"):
        return _environment(frame, star.end() if star else position)
    named = _NAME.match(frame.text, star.end() if star else position)
    if named is None:
        return None
    name, position = named[1] or named[2], named.end()
    if command == "DeclareMathOperator":
        body = group(frame, position)
        operator = "\\operatorname*" if star else "\\operatorname"
        return Definition(name, _macro(f"{operator}{{{body[0]}}}", ("",), None), body[1]) if body else None
    if command.endswith("def"):
        return _def(name, frame, position)
    return _newcommand(command, name, frame, position, macros)


def _let(text: str, position: int, macros: Mapping[str, Macro | None]) -> Definition | None:
    """Another name for what a name means now."""
    let = _LET.match(text, position)
    if let is None:
        return None
    target = let[2]
    known = target[0] == "\\" and target[1:] in macros
    return Definition(let[1], macros[target[1:]] if known else _macro(target, ("",), None), let.end())


def _environment(frame: Frame, position: int) -> Definition | None:
    """An environment: its definition is none of the text, its uses stay as they are."""
    found: Argument = group(frame, position)
    for _ in range(2):
        found = found and (bracketed(frame, found[1]) or found)
    for _ in range(2):
        found = found and group(frame, found[1])
    return Definition("", None, found[1]) if found else None


def _def(name: str, frame: Frame, position: int) -> Definition | None:
    parameters = _PARAMETERS.match(frame.text, position)
    body = group(frame, parameters.end() - 1) if parameters else None
    if parameters is None or body is None:
        return None
    return Definition(name, _macro(body[0], _delimiters(parameters[1]), None), body[1])


def _newcommand(
    command: str, name: str, frame: Frame, position: int, macros: Mapping[str, Macro | None]
) -> Definition | None:
    count = _COUNT.match(frame.text, position)
    default = bracketed(frame, count.end()) if count else None
    body = group(frame, default[1] if default else count.end() if count else position)
    if body is None:
        return None
    if command == "providecommand" and name in macros:
        return Definition(name, macros[name], body[1])
    delimiters = ("",) * (int(count[1]) + 1 if count else 1)
    return Definition(name, _macro(body[0], delimiters, default[0] if default else None), body[1])


def _delimiters(parameters: str) -> tuple[str, ...] | None:
    """What stands before, between and behind the parameters of \\def; None if they are not #1, #2, … in this order."""
    first, *rest = parameters.replace("\n", " ").split("#")
    if any(piece[:1] != str(number) for number, piece in enumerate(rest, 1)):
        return None
    return (first.lstrip(), *(piece[1:] for piece in rest))


def _macro(body: str, delimiters: tuple[str, ...] | None, default: str | None) -> Macro | None:
    """A macro of a replacement; None for a program."""
    if delimiters is None or _PROGRAM.search(body):
        return None
    parts: list[str | int] = []
    start = 0
    for hole in _HOLE.finditer(body):
        if hole[1]:
            if int(hole[1]) >= len(delimiters):
                return None
            parts += (body[start : hole.start()], int(hole[1]))
            start = hole.end()
    parts.append(body[start:])
    return Macro(tuple(parts), delimiters, default, frozenset(_SEQUENCE.findall(body)))
