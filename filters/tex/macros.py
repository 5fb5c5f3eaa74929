r"""Expand the macros that authors define in a TeX document.

LLaMA: "inline-expanded definitions and macros written by users" (section 2.1).

A macro is expanded if its replacement is a template, which consists of text, commands and arguments. Its calls remain
unchanged if the replacement is a program (conditions, \csname, names with @, inner definitions), if the macro calls
itself, or if it redefines a standard command of a document's structure. The definition is removed from the text in all
cases. Groups are ignored: a definition is valid from its position to the end of the text.

These commands are definitions: \newcommand and \NewDocumentCommand with their variants, \def with parameters, \let,
\DeclareMathOperator, and \DeclarePairedDelimiter. Sources: LaTeX's source2e, section ltdefns; usrguide, section 2; The
TeXbook, chapter 20; amsopn; mathtools, section 3.6.

Arguments are read as in TeX (The TeXbook, chapter 20): one token or group, or the text before a delimiter.
"""

import io
import re
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple

from filters.data_files import merge_items
from filters.reasons import Reason
from filters.tex.source import CLOSE, OPEN, TABLES, ends_in_word

# Commands that are not expanded even if an author redefines them, because their purpose stays the same.
PROTECTED = merge_items(TABLES["protected command"])
CALL_CHARACTERS = 16  # cost of a call in characters, in addition to the length of its replacement
# Characters before which \xspace adds a space, besides letters and digits (package xspace, list of exceptions).
SPACED = "$([`\u2018\u201c"

_SEQUENCE = re.compile(r"\\([a-zA-Z@]+|.)", re.DOTALL)
_AT_END = re.compile(r"\s*+\Z")
ARGUMENT_CHARACTERS = 20_000  # the longest optional or delimited argument

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BLANK = re.compile(r"[ \t]*+(?:\n(?![ \t]*+\n)[ \t]*+)?")
_TOKEN = re.compile(rf"\\(?:[a-zA-Z@]+|.)|{OPEN}[0-9]{{1,9}}{CLOSE}|[^{{}}\n]", re.DOTALL)
# Control words that begin a definition.
DEFINERS = merge_items(TABLES["definer"])
_PREFIXES = {"long", "global", "outer", "protected"}
# Commands that an author may give another name, as in \newcommand{\nc}{\newcommand}.
_ALIASED = {f"\\{name}": name for name in DEFINERS - _PREFIXES}

_PREFIXED = re.compile(r"\\(?:(?:long|global|outer|protected)(?![a-zA-Z@])\s{0,9}\\){1,9}([egx]?def|let)(?![a-zA-Z@])")
_NAME = re.compile(r"\s{0,9}(?:\{\s{0,9}\\([a-zA-Z@]+|[^a-zA-Z@\s])\s{0,9}\}|\\([a-zA-Z@]+|[^a-zA-Z@\s]))")
_COUNT = re.compile(r"\s{0,9}\[\s{0,9}([0-9])\s{0,9}\]")
_STAR = re.compile(r"\s{0,9}\*")
_PARAMETERS = re.compile(r"([^{}]{0,200})\{")
_LET = re.compile(r"\s{0,9}\\([a-zA-Z@]+|[^a-zA-Z@\s])\s{0,9}=?\s{0,9}(\\(?:[a-zA-Z@]+|[^a-zA-Z@\s])|[^\\\s])")
_PROGRAM = re.compile(
    r"""\\(?:[a-zA-Z]+@|@[a-zA-Z]  # not \@ alone, which only changes the space behind a full stop
    |(?:if(?!f(?![a-zA-Z]))[a-zA-Z]*|else|fi|or|expandafter|csname|futurelet|catcode|global|def
    |[egx]def|let|newcommand|renewcommand|providecommand|afterassignment|aftergroup|advance|loop|repeat|noexpand|the
    |number|begingroup|endgroup|bgroup|egroup|write|read|immediate|uppercase|lowercase)(?![a-zA-Z]))|\#\#""",
    re.VERBOSE,
)
# Argument specifications of \NewDocumentCommand that are supported: an optional argument with a default value, and
# mandatory arguments behind it.
_DOCUMENT_ARGUMENTS = re.compile(r"\s*(?:O\s*\{([^{}]*)\}\s*)?((?:\+?m\s*)*)\Z")
_HOLE = re.compile(r"\\.|#([1-9])", re.DOTALL)


class _Frame:
    """A text that is being read: the document, or the replacement of a call.

    Attributes:
        text: The text.
        depth: The number of nested expansions that produced it.
        done: The text before this position is written.
        seen: The text before this position is examined.
        blocked: No delimiter is searched before this position, because an earlier search failed.
        openers: The positions of all opening braces; None before the first use.
        closers: For each opening brace, the position of its closing brace or -1.
    """

    __slots__ = ("blocked", "closers", "depth", "done", "openers", "seen", "text")

    def __init__(self, text: str, depth: int) -> None:
        self.text, self.depth = text, depth
        self.done = self.seen = self.blocked = 0
        self.openers: array[int] | None = None
        self.closers = array("q")

    def find_closing_brace(self, position: int) -> int:
        """Return the position of the brace that closes the opening brace at `position`, or -1 if there is none.

        The first call pairs all braces, so that the time stays linear even if many braces are never closed.
        """
        if self.openers is None:
            self.openers, stack = array("q"), array("q")
            for brace in _BRACE.finditer(self.text):
                if brace[0] == "{":
                    stack.append(len(self.openers))
                    self.openers.append(brace.start())
                    self.closers.append(-1)
                elif brace[0] == "}" and stack:
                    self.closers[stack.pop()] = brace.start()
        place = bisect_left(self.openers, position)
        found = place < len(self.openers) and self.openers[place] == position
        return self.closers[place] if found else -1


class _Output:
    """A text writer that puts a blank between a control word and a letter that is written after it."""

    def __init__(self) -> None:
        self.text, self.in_word = io.StringIO(), False

    def write(self, text: str) -> None:
        """Append text."""
        if text:
            if self.in_word and text[0].isascii() and text[0].isalpha():
                self.text.write(" ")
            self.text.write(text)
            self.in_word = ends_in_word(text)


Argument = tuple[str, int] | None  # (an argument, its end position), or None if there is none


class Macro(NamedTuple):
    """A macro whose replacement is a template.

    Attributes:
        parts: The replacement: text and argument numbers alternate.
        delimiters: The text before the first argument, and the text after each argument ("" if undelimited).
        default: The default value of an optional first argument; None if the first argument is mandatory.
        uses: The control sequences in the replacement.
        starred: The macro that is called if a star follows the name.
    """

    parts: tuple[str | int, ...]
    delimiters: tuple[str, ...]
    default: str | None
    uses: frozenset[str]
    starred: "Macro | None" = None

    def fill(self, arguments: list[str]) -> str:
        """Return the replacement with the arguments inserted."""
        out = _Output()
        for part in self.parts:
            out.write(part if isinstance(part, str) else arguments[part - 1])
        return out.text.getvalue()


class Definition(NamedTuple):
    """A parsed definition.

    Attributes:
        name: The defined name; "" for an environment.
        macro: The macro; None if its replacement is not a template.
        stop: The position behind the definition.
    """

    name: str
    macro: Macro | None
    stop: int


class Expanded(NamedTuple):
    """The result of an expansion.

    Attributes:
        text: The text with macros expanded.
        expansions: The number of expanded calls.
        problem: Why there is no text: the expansions exceed the limit.
        detail: A sentence about the problem.
    """

    text: str
    expansions: int = 0
    problem: Reason | None = None
    detail: str = ""


def expand_macros(text: str, depth: int, characters: int) -> Expanded:
    """Expand the macros that a text defines. Never raises; takes time linear in the text and `characters`.

    Args:
        text: TeX without comments.
        depth: The maximum number of nested expansions. Calls at a greater depth are not expanded.
        characters: The maximum total length of all expansions, each counted with `CALL_CHARACTERS` in addition. If it
            is exceeded, the result has the problem TOO_LARGE.
    """
    reader = _Expander(text, depth, characters)
    while reader.frames:
        reader.step()
        if reader.spent > characters:
            return Expanded("", reader.expansions, Reason.TOO_LARGE, f"macros come to over {characters} characters")
    return Expanded(reader.out.text.getvalue(), reader.expansions)


class _Expander:
    """The state of an expansion.

    Attributes:
        frames: A stack: the text, and the replacements of the calls that are being expanded.
        spent: The cost of all expansions in characters.
        circular: A cache from macro name to True if the macro calls itself, directly or through other macros.
    """

    def __init__(self, text: str, depth: int, characters: int) -> None:
        self.depth, self.characters = depth, characters
        self.frames = [_Frame(text, 0)]
        self.macros: dict[str, Macro | None] = {}
        self.circular: dict[str, bool] = {}
        self.out = _Output()
        self.spent = self.expansions = 0

    def step(self) -> None:
        """Read the top frame until a call is replaced, or until the frame ends."""
        frame = self.frames[-1]
        while mark := _SEQUENCE.search(frame.text, frame.seen):
            name = mark[1]
            frame.seen = mark.end()
            macro = self.macros.get(name)
            command = _ALIASED.get(str(macro.parts[0])) if macro else None if name in self.macros else name
            if command in DEFINERS:
                self._define(command, frame, mark.start())
            elif name in self.macros:
                if self._call(name, frame, mark.start()):
                    return
            elif name == "xspace" and frame.depth:
                self.out.write(frame.text[frame.done : mark.start()])
                frame.done = mark.end()
                self.out.write(" " if self._needs_space() else "")
        self.out.write(frame.text[frame.done :])
        self.frames.pop()

    def _needs_space(self) -> bool:
        r"""Return True if \xspace adds a space before the next character."""
        rest = (frame.text[frame.seen] for frame in reversed(self.frames) if frame.seen < len(frame.text))
        following = next(rest, "}")
        return following.isalnum() or following in SPACED

    def _call(self, name: str, frame: _Frame, begin: int) -> bool:
        """Replace a macro's call, or return False and leave the call unchanged."""
        macro = self.macros[name]
        if macro is None or frame.depth >= self.depth or self._is_circular(name):
            return False
        if macro.starred is not None and frame.text.startswith("*", frame.seen):
            macro, frame.seen = macro.starred, frame.seen + 1
        depth = frame.depth + 1
        self.out.write(frame.text[frame.done : begin])
        frame.done = begin
        around = frame
        if len(macro.delimiters) > 1 and len(self.frames) > 1 and _AT_END.match(frame.text, frame.seen):
            around = self.frames[-2]  # the call ends a replacement, and its arguments follow in the outer text
        found = _read_arguments(around, macro)
        if found is None:
            return False
        if around is not frame:
            self.frames.pop()
        arguments, around.seen = found
        around.done = around.seen
        if around.seen == len(around.text) and len(self.frames) > 1:
            self.frames.pop()  # so that a call at the end of the new replacement also finds its arguments outside
        replacement = macro.fill(arguments)
        self.expansions += 1
        self.spent += len(replacement) + CALL_CHARACTERS
        if self.spent <= self.characters:
            self.frames.append(_Frame(replacement, depth))
        return True

    def _is_circular(self, name: str) -> bool:
        """Return True if a macro calls itself, directly or through other macros."""
        if name not in self.circular:
            found: set[str] = set()
            waiting = [name]
            while waiting:
                macro = self.macros[waiting.pop()]
                uses = macro.uses if macro else frozenset()
                new = {used for used in uses if used in self.macros} - found
                self.spent += len(uses)
                found |= new
                waiting += new
            self.circular[name] = name in found
        return self.circular[name]

    def _define(self, command: str, frame: _Frame, begin: int) -> None:
        """Remove a definition from the text and store its macro. A definition that cannot be parsed remains."""
        found = _parse_definition(command, frame, begin, self.macros)
        if found is None:
            return
        if found.name and found.name not in PROTECTED:
            self.macros[found.name] = found.macro
            self.circular.clear()
        self.out.write(frame.text[frame.done : begin])
        line_end = _skip_blanks(frame.text, found.stop)
        alone = begin == 0 or frame.text[begin - 1] == "\n"
        frame.done = frame.seen = line_end if alone and frame.text[line_end - 1] == "\n" else found.stop


def _read_arguments(frame: _Frame, macro: Macro) -> tuple[list[str], int] | None:
    """Read the arguments of a call from `frame.seen` on. Return (arguments, their end), or None if one is missing."""
    before, *behind = macro.delimiters
    position = _skip_blanks(frame.text, frame.seen) if behind else frame.seen
    if not frame.text.startswith(before, position):
        return None
    position += len(before)
    arguments: list[str] = []
    for number, delimiter in enumerate(behind):
        found: Argument
        if number == 0 and macro.default is not None:
            found = _read_bracketed(frame, position) or (macro.default, position)
        else:
            found = _read_delimited(frame, position, delimiter) if delimiter else _read_undelimited(frame, position)
        if found is None:
            frame.blocked = max(frame.blocked, position)  # otherwise, all calls before it would search again
            return None
        arguments.append(found[0])
        position = found[1]
    if not behind and frame.text.startswith("{}", position):
        position += 2  # an empty group behind a macro without arguments only ends its name
    return arguments, position


def _skip_blanks(text: str, position: int) -> int:
    """Skip blanks, including one line end. An empty line is not skipped, because it ends a paragraph."""
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def _read_group(frame: _Frame, position: int) -> Argument:
    """Read the group that begins at `position`, after blanks."""
    begin = _skip_blanks(frame.text, position)
    close = frame.find_closing_brace(begin) if frame.text[begin : begin + 1] == "{" else -1
    return None if close < 0 else (frame.text[begin + 1 : close], close + 1)


def _read_undelimited(frame: _Frame, position: int) -> Argument:
    """Read a group without its braces, or one token."""
    begin = _skip_blanks(frame.text, position)
    if frame.text[begin : begin + 1] == "{":
        return _read_group(frame, begin)
    token = _TOKEN.match(frame.text, begin)
    return (token[0], token.end()) if token else None


def _read_bracketed(frame: _Frame, position: int) -> Argument:
    """Read the text in square brackets that begin at `position`, after blanks."""
    begin = _skip_blanks(frame.text, position)
    return _read_delimited(frame, begin + 1, "]") if frame.text[begin : begin + 1] == "[" else None


def _read_delimited(frame: _Frame, position: int, delimiter: str) -> Argument:
    """Read the text from `position` to a delimiter outside of groups. Braces around the whole text are removed."""
    if position < frame.blocked:
        return None
    text, seen = frame.text, position
    limit = min(position + ARGUMENT_CHARACTERS, len(text))
    pattern = re.compile(rf"(?P<here>{re.escape(delimiter)})|\\.|\{{", re.DOTALL)
    while mark := pattern.search(text, seen, limit):
        if mark["here"] is not None:
            inner = text[position : mark.start()]
            whole = inner[:1] == "{" and frame.find_closing_brace(position) == mark.start() - 1
            return (inner[1:-1] if whole else inner), mark.end()
        seen = mark.end()
        if mark[0] == "{":
            close = frame.find_closing_brace(mark.start())
            if close < 0:
                break
            seen = close + 1
    frame.blocked = limit
    return None


def _parse_definition(command: str, frame: _Frame, begin: int, macros: Mapping[str, Macro | None]) -> Definition | None:
    """Parse a definition, or return None if it cannot be parsed.

    Args:
        command: The defining command, one of `DEFINERS`; the text may use an alias of it.
        frame: The text; `frame.seen` is the end of the command.
        begin: The position where the command begins.
        macros: The macros that are already defined.
    """
    position = frame.seen
    prefixed = _PREFIXED.match(frame.text, begin)
    if prefixed:
        command, position = prefixed[1], prefixed.end()
    if command == "let":
        return _parse_let(frame.text, position, macros)
    star = _STAR.match(frame.text, position)
    if command.endswith("environment"):
        return _parse_environment(frame, star.end() if star else position)
    named = _NAME.match(frame.text, star.end() if star else position)
    if named is None:
        return None
    name, position = named[1] or named[2], named.end()
    if command == "DeclareMathOperator":
        body = _read_group(frame, position)
        operator = "\\operatorname*" if star else "\\operatorname"
        return Definition(name, _create_macro(f"{operator}{{{body[0]}}}", ("",), None), body[1]) if body else None
    if command == "DeclarePairedDelimiter":
        left = _read_undelimited(frame, position)
        right = _read_undelimited(frame, left[1]) if left else None
        return Definition(name, _create_paired_delimiter(left[0], right[0]), right[1]) if left and right else None
    if command.endswith("DocumentCommand"):
        stated = _read_group(frame, position)
        body = _read_group(frame, stated[1]) if stated else None
        if stated is None or body is None:
            return None
        return Definition(name, _create_document_command(stated[0], body[0]), body[1])
    if command.endswith("def"):
        parameters = _PARAMETERS.match(frame.text, position)
        body = _read_group(frame, parameters.end() - 1) if parameters else None
        if parameters is None or body is None:
            return None
        return Definition(name, _create_macro(body[0], _split_parameters(parameters[1]), None), body[1])
    return _parse_newcommand(command, name, frame, position, macros)


def _parse_let(text: str, position: int, macros: Mapping[str, Macro | None]) -> Definition | None:
    r"""Parse the part of \let behind the command: it gives the current meaning of one name to another name."""
    let = _LET.match(text, position)
    if let is None:
        return None
    target = let[2]
    known = target[0] == "\\" and target[1:] in macros
    return Definition(let[1], macros[target[1:]] if known else _create_macro(target, ("",), None), let.end())


def _parse_environment(frame: _Frame, position: int) -> Definition | None:
    """Parse the definition of an environment. The definition is removed, and uses of the environment are unchanged."""
    found: Argument = _read_group(frame, position)
    for _ in range(2):
        found = found and (_read_bracketed(frame, found[1]) or found)
    for _ in range(2):
        found = found and _read_group(frame, found[1])
    return Definition("", None, found[1]) if found else None


def _parse_newcommand(
    command: str, name: str, frame: _Frame, position: int, macros: Mapping[str, Macro | None]
) -> Definition | None:
    count = _COUNT.match(frame.text, position)
    default = _read_bracketed(frame, count.end()) if count else None
    body = _read_group(frame, default[1] if default else count.end() if count else position)
    if body is None:
        return None
    if command == "providecommand" and name in macros:
        return Definition(name, macros[name], body[1])
    delimiters = ("",) * (int(count[1]) + 1 if count else 1)
    return Definition(name, _create_macro(body[0], delimiters, default[0] if default else None), body[1])


def _split_parameters(parameters: str) -> tuple[str, ...] | None:
    r"""Return the text before, between and after the parameters of \def.

    Return None if the parameters are not #1, #2, … in order.
    """
    first, *rest = parameters.replace("\n", " ").split("#")
    if any(piece[:1] != str(number) for number, piece in enumerate(rest, 1)):
        return None
    return (first.lstrip(), *(piece[1:] for piece in rest))


def _create_document_command(arguments: str, body: str) -> Macro | None:
    r"""Return the macro that \NewDocumentCommand defines.

    Return None if an argument is a star or another optional token, or is optional without a default value.
    """
    found = _DOCUMENT_ARGUMENTS.match(arguments)
    if found is None:
        return None
    count = found[2].count("m") + (found[1] is not None)
    return _create_macro(body, ("",) * (count + 1), found[1])


def _create_paired_delimiter(left: str, right: str) -> Macro | None:
    r"""Return the macro that \DeclarePairedDelimiter defines, for example \abs.

    \abs{x} has delimiters of normal size, \abs[\big]{x} of the given size, and \abs*{x} of the size of their content.
    """
    starred = _create_macro(f"\\left{left}#1\\right{right}", ("", ""), None)
    plain = _create_macro(f"#1{left.strip('.')}#2#1{right.strip('.')}", ("", "", ""), "")
    return plain._replace(starred=starred, uses=plain.uses | starred.uses) if plain and starred else None


def _create_macro(body: str, delimiters: tuple[str, ...] | None, default: str | None) -> Macro | None:
    """Return the macro for a replacement, or None if the replacement is a program."""
    if body.strip() in _ALIASED and delimiters == ("",):
        return Macro((body.strip(),), delimiters, None, frozenset())
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
