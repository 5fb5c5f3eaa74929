"""Macros that authors define, written out: "inline-expanded definitions and macros written by users" (LLaMA, section
2.1).

A macro is expanded if its replacement is a template: text, commands and arguments. One that is a program (conditions,
\\csname, names with @, definitions within), that calls itself, or that gives a standard command of a document's
structure another form is left as it is called. Definitions are taken out of the text either way. Groups are ignored:
a definition holds from where it stands to the end.
"""

import re
from typing import NamedTuple

from filters.tex import CLOSE, OPEN, ends_in_word
from manifests.reasons import Reason

ARGUMENT_CHARACTERS = 20_000
"""of an optional or delimited argument"""
PROTECTED = frozenset(
    "documentclass documentstyle begin end document part chapter section subsection subsubsection paragraph "
    "subparagraph appendix maketitle title author date thanks abstract label ref eqref pageref cite citep citet "
    "bibliography bibliographystyle bibitem item caption footnote input include usepackage par".split()
)
"""commands that keep their own name even where an author defines them anew: what they are for stays"""
_DEFINERS = frozenset(
    "newcommand renewcommand providecommand DeclareRobustCommand newrobustcmd renewrobustcmd def gdef edef xdef let "
    "DeclareMathOperator newenvironment renewenvironment".split()
)
_PREFIXES = frozenset("long global outer protected".split())

_TOKEN = re.compile(r"\\([a-zA-Z@]+|.)", re.DOTALL)
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BLANK = re.compile(r"[ \t]*+(?:\n[ \t]*+)?+")
_AT_END = re.compile(r"\s*+\Z")
_NAME = re.compile(r"\s{0,9}(?:\{\s{0,9}\\([a-zA-Z@]+|[^a-zA-Z@\s])\s{0,9}\}|\\([a-zA-Z@]+|[^a-zA-Z@\s]))")
_COUNT = re.compile(r"\s{0,9}\[\s{0,9}([0-9])\s{0,9}\]")
_STAR = re.compile(r"\s{0,9}\*")
_PARAMETERS = re.compile(r"[^{}]{0,200}")
_PREFIXED = re.compile(
    r"(?:\s{0,9}\\(?:long|global|outer|protected)(?![a-zA-Z@]))*+\s{0,9}\\([egx]?def|let)(?![a-zA-Z@])"
)
_LET = re.compile(r"\s{0,9}\\([a-zA-Z@]+|[^a-zA-Z@\s])\s{0,9}=?\s{0,9}(\\(?:[a-zA-Z@]+|[^a-zA-Z@\s])|[^\\\s])")
_PROGRAM = re.compile(
    r"\\(?:[a-zA-Z]*@|(?:if(?!f(?![a-zA-Z]))[a-zA-Z]*|else|fi|or|expandafter|csname|futurelet|catcode|global|def|[egx]def|"
    r"let|newcommand|renewcommand|providecommand|afterassignment|aftergroup|advance|loop|repeat|noexpand|the|number|"
    r"begingroup|endgroup|bgroup|egroup|write|read|immediate|uppercase|lowercase)(?![a-zA-Z]))|##"
)
_HOLE = re.compile(r"\\.|#([1-9])", re.DOTALL)
_WORDS = re.compile(r"\\(?:\\|([a-zA-Z@]+|.))", re.DOTALL)
_MARK = re.compile(f"{OPEN}[0-9]{{1,9}}{CLOSE}")
_SPACED = "$([`\u2018\u201c"
"""besides letters and digits, what \\xspace keeps apart"""


class Macro(NamedTuple):
    """`parts`: its replacement, text and numbers of arguments in turns; `delimiters`: what stands before the first
    argument and behind each one ("" behind one that is not delimited); `default`: of an optional first argument;
    `uses`: the control sequences in the replacement."""

    parts: tuple[str | int, ...]
    delimiters: tuple[str, ...]
    default: str | None
    uses: frozenset[str]


class Expanded(NamedTuple):
    """Text with its macros written out, `expansions` of them; a `problem` where they come to too much."""

    text: str
    expansions: int = 0
    problem: Reason | None = None
    detail: str = ""


class _Frame:
    """Text being read, `depth` expansions deep."""

    __slots__ = ("blocked", "braces", "depth", "done", "seen", "text")

    def __init__(self, text: str, depth: int) -> None:
        self.text, self.depth = text, depth
        self.done = self.seen = self.blocked = 0
        self.braces: dict[int, int] | None = None

    def closing(self, position: int) -> int:
        """Where the brace opened at `position` closes; -1 if it does not. All braces are paired at once, so that a
        text of nothing but open ones costs no more than any other."""
        if self.braces is None:
            self.braces = {}
            stack: list[int] = []
            for brace in _BRACE.finditer(self.text):
                if brace[0] == "{":
                    stack.append(brace.start())
                elif brace[0] == "}" and stack:
                    self.braces[stack.pop()] = brace.start()
        return self.braces.get(position, -1)

    def group(self, position: int) -> tuple[str, int] | None:
        """What stands in the group that begins at `position`, after blanks, and where it ends."""
        begin = _skip(self.text, position)
        close = self.closing(begin) if self.text[begin : begin + 1] == "{" else -1
        return None if close < 0 else (self.text[begin + 1 : close], close + 1)


def expand(text: str, depth: int, characters: int) -> Expanded:
    """Text with the macros that it defines written out, up to `depth` expansions deep (deeper ones are left as they are
    called). `characters`: what all expansions may come to, else the text is no text (`too-large`). `text` has no
    comments. Never raises; takes time linear in the text and `characters`."""
    reader = _Expander(text, depth, characters)
    while reader.frames:
        reader.step()
        if reader.spent > characters:
            return Expanded("", reader.expansions, Reason.TOO_LARGE, f"macros come to over {characters} characters")
    return Expanded("".join(reader.out), reader.expansions)


class _Expander:
    def __init__(self, text: str, depth: int, characters: int) -> None:
        self.depth, self.characters = depth, characters
        self.frames = [_Frame(text, 0)]
        self.macros: dict[str, Macro | None] = {}
        self.circular: dict[str, bool] = {}
        self.out: list[str] = []
        self.in_word = False
        self.spent = self.expansions = 0

    def step(self) -> None:
        """Read on to the next control sequence that means something here."""
        frame = self.frames[-1]
        while mark := _TOKEN.search(frame.text, frame.seen):
            name = mark[1]
            frame.seen = mark.end()
            if name in self.macros:
                if self._call(name, self.macros[name], frame, mark.start()):
                    return
            elif name in _DEFINERS or name in _PREFIXES:
                self._define(name, frame, mark.start())
            elif name == "xspace" and frame.depth:
                self._emit(frame.text[frame.done : mark.start()])
                frame.done = mark.end()
                following = self._following()
                self._emit(" " if following.isalnum() or following in _SPACED and following else "")
        self._emit(frame.text[frame.done :])
        self.frames.pop()

    def _emit(self, text: str) -> None:
        if text:
            if self.in_word and text[0].isascii() and text[0].isalpha():
                self.out.append(" ")
            self.out.append(text)
            self.in_word = ends_in_word(text)

    def _following(self) -> str:
        for frame in reversed(self.frames):
            if frame.seen < len(frame.text):
                return frame.text[frame.seen]
        return ""

    def _call(self, name: str, macro: Macro | None, frame: _Frame, begin: int) -> bool:
        """Put a macro's replacement in the place of its call; False leaves the call as it is."""
        if macro is None or frame.depth >= self.depth or self._is_circular(name):
            return False
        behind = frame
        if macro.delimiters != ("",) and len(self.frames) > 1 and _AT_END.match(frame.text, frame.seen):
            self._emit(frame.text[frame.done : begin])  # its arguments follow outside
            self.frames.pop()
            behind = self.frames[-1]
        found = _arguments(behind, macro, behind.seen)
        if found is None:
            if behind is not frame:
                self._emit(frame.text[begin:])
            return behind is not frame
        arguments, stop = found
        if behind is frame:
            self._emit(frame.text[frame.done : begin])
        behind.done = behind.seen = stop
        replacement = _filled(macro, arguments)
        self.expansions += 1
        self.spent += len(replacement) + 1
        if self.spent <= self.characters:
            self.frames.append(_Frame(replacement, max(frame.depth, behind.depth) + 1))
        return True

    def _is_circular(self, name: str) -> bool:
        """Whether a macro's replacement leads to the macro again."""
        if name not in self.circular:
            found: set[str] = set()
            waiting = [name]
            while waiting:
                macro = self.macros.get(waiting.pop())
                new = {used for used in macro.uses if used in self.macros} - found if macro else set()
                self.spent += len(macro.uses) if macro else 0
                found |= new
                waiting += new
            self.circular[name] = name in found
        return self.circular[name]

    def _define(self, name: str, frame: _Frame, begin: int) -> None:
        """Take a definition out of the text and remember it; one that is not understood stays."""
        position = frame.seen
        if name in _PREFIXES:
            prefixed = _PREFIXED.match(frame.text, position)
            if prefixed is None:
                return
            name, position = prefixed[1], prefixed.end()
        found = _definition(name, frame, position, self.macros)
        if found is None:
            return
        named, macro, stop = found
        if named and named not in PROTECTED:
            self.macros[named] = macro
            self.circular.clear()
        self._emit(frame.text[frame.done : begin])
        if begin == 0 or frame.text[begin - 1] == "\n":
            blank = _BLANK.match(frame.text, stop)
            stop = blank.end() if blank and frame.text[blank.end() - 1 : blank.end()] == "\n" else stop
        frame.done = frame.seen = stop


def _definition(
    command: str, frame: _Frame, position: int, macros: dict[str, Macro | None]
) -> tuple[str, Macro | None, int] | None:
    """The name that a definition gives, its macro (None for a program) and where it ends; None if it is none."""
    text = frame.text
    if command == "let":
        let = _LET.match(text, position)
        if let is None:
            return None
        target = let[2]
        known = macros.get(target[1:]) if target[0] == "\\" else None
        return let[1], known or _macro(target, ("",), None), let.end()
    if command.endswith("environment"):
        return _environment(frame, position)
    star = _STAR.match(text, position)
    position = star.end() if star else position
    named = _NAME.match(text, position)
    if named is None:
        return None
    name, position = named[1] or named[2], named.end()
    if command.endswith("def"):
        parameters = _PARAMETERS.match(text, position)
        assert parameters is not None, "it matches nothing, too"
        delimiters = _delimiters(parameters[0])
        body = frame.group(parameters.end()) if text[parameters.end() : parameters.end() + 1] == "{" else None
        return (name, _macro(body[0], delimiters, None), body[1]) if body else None
    if command == "DeclareMathOperator":
        body = frame.group(position)
        operator = "\\operatorname*" if star else "\\operatorname"
        return (name, _macro(f"{operator}{{{body[0]}}}", ("",), None), body[1]) if body else None
    count = _COUNT.match(text, position)
    default = None
    if count:
        found = _bracketed(frame, _skip(text, count.end()))
        default, position = found or (None, count.end())
    body = frame.group(position)
    if body is None:
        return None
    if command == "providecommand" and name in macros:
        return name, macros[name], body[1]
    return name, _macro(body[0], ("",) * (int(count[1]) + 1 if count else 1), default), body[1]


def _environment(frame: _Frame, position: int) -> tuple[str, Macro | None, int] | None:
    """A definition of an environment: taken out, its uses stay as they are."""
    star = _STAR.match(frame.text, position)
    named = frame.group(star.end() if star else position)
    if named is None:
        return None
    position = named[1]
    for _ in range(2):
        found = _bracketed(frame, _skip(frame.text, position))
        position = found[1] if found else position
    first = frame.group(position)
    last = frame.group(first[1]) if first else None
    return ("", None, last[1]) if last else None


def _delimiters(parameters: str) -> tuple[str, ...] | None:
    """What stands before, between and behind the parameters of \\def; None if they are not #1, #2, … in this order."""
    pieces = parameters.split("#")
    if any(piece[:1] != str(number) for number, piece in enumerate(pieces[1:], 1)) or len(pieces) > 10:
        return None
    delimiters = (pieces[0].lstrip(), *(piece[1:] for piece in pieces[1:]))
    return tuple(" ".join(item.split("\n")) for item in delimiters)


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
    uses = frozenset(word[1] for word in _WORDS.finditer(body) if word[1])
    return Macro(tuple(parts), delimiters, default, uses)


def _filled(macro: Macro, arguments: list[str]) -> str:
    """A replacement with its arguments. A control word is kept apart from letters that follow."""
    out: list[str] = []
    in_word = False
    for part in macro.parts:
        text = part if isinstance(part, str) else arguments[part - 1]
        if text:
            if in_word and text[0].isascii() and text[0].isalpha():
                out.append(" ")
            out.append(text)
            in_word = ends_in_word(text)
    return "".join(out)


def _arguments(frame: _Frame, macro: Macro, position: int) -> tuple[list[str], int] | None:
    """The arguments of a call that ends before `position`, and where they end."""
    before, *behind = macro.delimiters
    text = frame.text
    if behind:
        position = _skip(text, position)
    if before and not text.startswith(before, position):
        return None
    position += len(before)
    arguments: list[str] = []
    for number, delimiter in enumerate(behind):
        if number == 0 and macro.default is not None:
            found = _bracketed(frame, _skip(text, position)) or (macro.default, position)
        else:
            found = _delimited(frame, position, delimiter) if delimiter else _plain(frame, position)
        if found is None:
            frame.blocked = max(frame.blocked, position)  # or every call on the way would look there again
            return None
        arguments.append(found[0])
        position = found[1]
    if not behind and text.startswith("{}", position):
        position += 2  # there only to end the name
    return arguments, position


def _plain(frame: _Frame, position: int) -> tuple[str, int] | None:
    """An argument that is not delimited: a group without its braces, or one token."""
    text = frame.text
    begin = _skip(text, position)
    first = text[begin : begin + 1]
    if first == "{":
        return frame.group(begin)
    if not first or first in "}\n":
        return None
    token = _TOKEN.match(text, begin) or _MARK.match(text, begin)
    stop = token.end() if token else begin + 1
    return text[begin:stop], stop


def _bracketed(frame: _Frame, position: int) -> tuple[str, int] | None:
    """An argument in brackets that begin at `position`."""
    if frame.text[position : position + 1] != "[":
        return None
    return _delimited(frame, position + 1, "]")


def _delimited(frame: _Frame, position: int, delimiter: str) -> tuple[str, int] | None:
    """What stands from `position` to a delimiter outside of groups, without braces around all of it. Where one was not
    found, none is looked for until the text that was searched lies behind."""
    text = frame.text
    if position < frame.blocked:
        return None
    limit = min(position + ARGUMENT_CHARACTERS, len(text))
    seen = position
    pattern = re.compile(r"\\.|\{|" + re.escape(delimiter), re.DOTALL)
    if delimiter[0] in "\\{":
        pattern = re.compile(re.escape(delimiter) + r"|\\.|\{", re.DOTALL)
    while mark := pattern.search(text, seen, limit):
        if mark[0] == delimiter:
            inner = text[position : mark.start()]
            whole = inner[:1] == "{" and frame.closing(position) == mark.start() - 1
            return (inner[1:-1] if whole else inner), mark.end()
        seen = mark.end()
        if mark[0] == "{":
            close = frame.closing(mark.start())
            if close < 0:
                break
            seen = close + 1
    frame.blocked = limit
    return None


def _skip(text: str, position: int) -> int:
    """Behind blanks, and one line end among them."""
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position
