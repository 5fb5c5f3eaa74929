"""Arguments of macros, as TeX takes them from what follows (The TeXbook, chapter 20): one token or group, or what
stands before a delimiter."""

import re
from array import array
from bisect import bisect_left

from filters.tex.source import CLOSE, OPEN

ARGUMENT_CHARACTERS = 20_000
"""of an optional or delimited argument"""

_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BLANK = re.compile(r"[ \t]*+(?:\n(?![ \t]*+\n)[ \t]*+)?+")
_TOKEN = re.compile(rf"\\(?:[a-zA-Z@]+|.)|{OPEN}[0-9]{{1,9}}{CLOSE}|[^{{}}\n]", re.DOTALL)


class Frame:
    """Text being read, `depth` expansions deep: handed on up to `done`, looked at up to `seen`. Until `blocked` no
    delimiter is looked for, since there was none, or nothing came of it."""

    __slots__ = ("blocked", "closers", "depth", "done", "openers", "seen", "text")

    def __init__(self, text: str, depth: int) -> None:
        self.text, self.depth = text, depth
        self.done = self.seen = self.blocked = 0
        self.openers: array[int] | None = None
        self.closers = array("q")

    def closing(self, position: int) -> int:
        """Where the brace opened at `position` closes; -1 if it does not. All braces are paired at once, so that a
        text of nothing but open ones costs no more than any other."""
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


Argument = tuple[str, int] | None
"""an argument and where it ends; None where there is none"""


def skip(text: str, position: int) -> int:
    """Behind blanks, and one line end among them: an empty line ends a paragraph and is no blank."""
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def group(frame: Frame, position: int) -> Argument:
    """What stands in the group that begins at `position`, after blanks."""
    begin = skip(frame.text, position)
    close = frame.closing(begin) if frame.text[begin : begin + 1] == "{" else -1
    return None if close < 0 else (frame.text[begin + 1 : close], close + 1)


def undelimited(frame: Frame, position: int) -> Argument:
    """A group without its braces, or one token."""
    begin = skip(frame.text, position)
    if frame.text[begin : begin + 1] == "{":
        return group(frame, begin)
    token = _TOKEN.match(frame.text, begin)
    return (token[0], token.end()) if token else None


def bracketed(frame: Frame, position: int) -> Argument:
    """What stands in brackets that begin at `position`, after blanks."""
    begin = skip(frame.text, position)
    return delimited(frame, begin + 1, "]") if frame.text[begin : begin + 1] == "[" else None


def delimited(frame: Frame, position: int, delimiter: str) -> Argument:
    """What stands from `position` to a delimiter outside of groups, without braces around all of it."""
    if position < frame.blocked:
        return None
    text, seen = frame.text, position
    limit = min(position + ARGUMENT_CHARACTERS, len(text))
    pattern = re.compile(rf"(?P<here>{re.escape(delimiter)})|\\.|\{{", re.DOTALL)
    while mark := pattern.search(text, seen, limit):
        if mark["here"] is not None:
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
