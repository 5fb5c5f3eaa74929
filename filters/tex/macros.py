"""Macros that authors define, written out: "inline-expanded definitions and macros written by users" (LLaMA, section
2.1).

A macro is expanded if its replacement is a template: text, commands and arguments. One that is a program (conditions,
\\csname, names with @, definitions within), that calls itself, or that gives a standard command of a document's
structure another form is left as it is called. Definitions are taken out of the text either way. Groups are ignored:
a definition holds from where it stands to the end.
"""

import io
import re
from typing import NamedTuple

from filters.reasons import Reason
from filters.tex.arguments import Argument, Frame, bracketed, delimited, skip, undelimited
from filters.tex.definitions import DEFINERS, Macro, definition
from filters.tex.tokens import ends_in_word, names

PROTECTED = names(
    """documentclass documentstyle begin end document part chapter section subsection subsubsection paragraph
    subparagraph appendix maketitle title author date thanks abstract label ref eqref pageref cite citep citet
    bibliography bibliographystyle bibitem item caption footnote input include usepackage par"""
)
"""commands that keep their own name even where an author defines them anew: what they are for stays"""
CALL_CHARACTERS = 16
"""what a call counts for, besides its replacement"""
SPACED = "$([`\u2018\u201c"
"""besides letters and digits, what \\xspace sets apart from its word (package xspace, its list of exceptions)"""

_SEQUENCE = re.compile(r"\\([a-zA-Z@]+|.)", re.DOTALL)
_AT_END = re.compile(r"\s*+\Z")


class Expanded(NamedTuple):
    """Text with its macros written out, `expansions` of them; a `problem` where they come to too much."""

    text: str
    expansions: int = 0
    problem: Reason | None = None
    detail: str = ""


def expand(text: str, depth: int, characters: int) -> Expanded:
    """Text with the macros that it defines written out, up to `depth` expansions deep (deeper ones are left as they are
    called). `characters`: what all expansions may come to, each counted as `CALL_CHARACTERS` more than it has, else
    the text is no text (`too-large`). `text` has no comments. Never raises; takes time linear in the text and
    `characters`."""
    reader = _Expander(text, depth, characters)
    while reader.frames:
        reader.step()
        if reader.spent > characters:
            return Expanded("", reader.expansions, Reason.TOO_LARGE, f"macros come to over {characters} characters")
    return Expanded(reader.out.getvalue(), reader.expansions)


class _Expander:
    """What is known while a text is read. `frames`: the text, and above it what calls were replaced by; `spent`: what
    these come to; `circular`: which macros lead to themselves, as far as it was asked."""

    def __init__(self, text: str, depth: int, characters: int) -> None:
        self.depth, self.characters = depth, characters
        self.frames = [Frame(text, 0)]
        self.macros: dict[str, Macro | None] = {}
        self.circular: dict[str, bool] = {}
        self.out = io.StringIO()
        self.in_word = False
        self.spent = self.expansions = 0

    def step(self) -> None:
        """Read on to where another text comes in, or to the end of this one."""
        frame = self.frames[-1]
        while mark := _SEQUENCE.search(frame.text, frame.seen):
            name = mark[1]
            frame.seen = mark.end()
            if name in self.macros:
                if self._call(name, frame, mark.start()):
                    return
            elif name in DEFINERS:
                self._define(name, frame, mark.start())
            elif name == "xspace" and frame.depth:
                self._emit(frame.text[frame.done : mark.start()])
                frame.done = mark.end()
                self._emit(" " if self._wants_space() else "")
        self._emit(frame.text[frame.done :])
        self.frames.pop()

    def _emit(self, text: str) -> None:
        if text:
            if self.in_word and text[0].isascii() and text[0].isalpha():
                self.out.write(" ")
            self.out.write(text)
            self.in_word = ends_in_word(text)

    def _wants_space(self) -> bool:
        """Whether what follows is set apart by \\xspace."""
        rest = (frame.text[frame.seen] for frame in reversed(self.frames) if frame.seen < len(frame.text))
        following = next(rest, "}")
        return following.isalnum() or following in SPACED

    def _call(self, name: str, frame: Frame, begin: int) -> bool:
        """Put a macro's replacement in the place of its call; False leaves the call as it is."""
        macro = self.macros[name]
        if macro is None or frame.depth >= self.depth or self._is_circular(name):
            return False
        depth = frame.depth + 1
        self._emit(frame.text[frame.done : begin])
        frame.done = begin
        around = frame
        if len(macro.delimiters) > 1 and len(self.frames) > 1 and _AT_END.match(frame.text, frame.seen):
            around = self.frames[-2]  # the arguments follow outside
        found = _arguments(around, macro)
        if found is None:
            return False
        if around is not frame:
            self.frames.pop()
        arguments, around.seen = found
        around.done = around.seen
        if around.seen == len(around.text) and len(self.frames) > 1:
            self.frames.pop()  # so that what is in its place finds its arguments outside, too
        replacement = macro.filled(arguments)
        self.expansions += 1
        self.spent += len(replacement) + CALL_CHARACTERS
        if self.spent <= self.characters:
            self.frames.append(Frame(replacement, depth))
        return True

    def _is_circular(self, name: str) -> bool:
        """Whether a macro's replacement leads to the macro again."""
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

    def _define(self, command: str, frame: Frame, begin: int) -> None:
        """Take a definition out of the text and remember it; one that is not understood stays."""
        found = definition(command, frame, begin, self.macros)
        if found is None:
            return
        if found.name and found.name not in PROTECTED:
            self.macros[found.name] = found.macro
            self.circular.clear()
        self._emit(frame.text[frame.done : begin])
        line_end = skip(frame.text, found.stop)
        alone = begin == 0 or frame.text[begin - 1] == "\n"
        frame.done = frame.seen = line_end if alone and frame.text[line_end - 1] == "\n" else found.stop


def _arguments(frame: Frame, macro: Macro) -> tuple[list[str], int] | None:
    """The arguments of a call, from where the frame was seen, and where they end."""
    before, *behind = macro.delimiters
    position = skip(frame.text, frame.seen) if behind else frame.seen
    if not frame.text.startswith(before, position):
        return None
    position += len(before)
    arguments: list[str] = []
    for number, delimiter in enumerate(behind):
        found: Argument
        if number == 0 and macro.default is not None:
            found = bracketed(frame, position) or (macro.default, position)
        else:
            found = delimited(frame, position, delimiter) if delimiter else undelimited(frame, position)
        if found is None:
            frame.blocked = max(frame.blocked, position)  # or every call on the way would look there again
            return None
        arguments.append(found[0])
        position = found[1]
    if not behind and frame.text.startswith("{}", position):
        position += 2  # there only to end the name
    return arguments, position
