"""A window on decoded bytes that come piece by piece, and what a reader of records needs to know of their syntax."""

import re
from collections.abc import Callable, Iterator
from mmap import mmap
from typing import NamedTuple

from filters.formats.headers import Headers
from filters.reasons import Reason

Stored = bytes | mmap | memoryview

NEWLINE_LIMIT = 1 << 12
"""newline bytes tolerated around a record, where the standard has two CRLF after it"""
PIECE = 1 << 20
"""decoded bytes taken at a time"""

REWINDS = 4
"""how often a member is inflated again from its start, for what lay behind a length that proved wrong"""

_NEWLINES = re.compile(rb"[\r\n]*+")


class Head(NamedTuple):
    """A record's header: its block lies at [block, stop)."""

    headers: Headers
    version: str
    block: int
    stop: int


class Syntax(NamedTuple):
    """How the records of one kind of archive begin and end.

    `line`: a record's first line; `next_line`: the newline before one; `line_bytes`: how long it may be. `head` reads
    the header whose first line was found at a position, or says what is wrong with it. `closed`: what behind a block
    shows that the stated length is right, if anything does; `newlines`: how many LF do if no record begins within it.
    """

    line: re.Pattern[bytes]
    next_line: re.Pattern[bytes]
    line_bytes: int
    head: "Callable[[Window, int, re.Match[bytes]], Head | tuple[Reason, str]]"
    closed: bytes
    newlines: int


class Window:
    """Decoded bytes [base, end) held in `data`, all of them, or those of `member` (its pieces, each time it is called)
    that have come so far."""

    def __init__(
        self, data: Stored | bytearray, start: int, end: int, member: Callable[[], Iterator[bytes]] | None = None
    ) -> None:
        self.data, self.base, self.end, self.member = data, 0, end, member
        self.pieces = member() if member else None
        self.rewinds = REWINDS
        self.blankless = start  # no blank line begins between the last header looked for and here

    def reach(self, position: int) -> bool:
        """Take in bytes until `position`; False if there are not so many."""
        while self.end < position:
            piece = next(self.pieces, None) if self.pieces else None
            if piece is None:
                return False
            assert isinstance(self.data, bytearray)
            self.data += piece
            self.end += len(piece)
        return True

    def forget(self, position: int) -> None:
        """Let go of the bytes before `position`, in steps large enough to pay."""
        if isinstance(self.data, bytearray) and position - self.base >= PIECE:
            del self.data[: position - self.base]
            self.base = position

    def skip(self, position: int) -> bool:
        """As `reach`, without holding on to the bytes on the way."""
        while self.end < position:
            self.forget(self.end)
            if not self.reach(self.end + 1):
                return False
        return True

    def rewind(self, position: int) -> None:
        """Hold the bytes from `position` on again, if that has not been asked for too often."""
        if self.base > position and self.member and self.rewinds:
            self.rewinds -= 1
            self.data, self.base, self.end, self.pieces = bytearray(), 0, 0, self.member()
            self.blankless = position
            self.skip(position)

    def part(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop) that are held."""
        return bytes(self.data[start - self.base : min(stop, self.end) - self.base])

    def search(self, pattern: re.Pattern[bytes], start: int, stop: int) -> re.Match[bytes] | None:
        """`pattern` within the held bytes [start, stop). Positions in the match count from `base`."""
        return pattern.search(self.data, max(start - self.base, 0), max(min(stop, self.end) - self.base, 0))

    def newlines(self, position: int) -> int:
        """Where the run of newlines at `position` ends, at most `NEWLINE_LIMIT` on."""
        self.reach(position + NEWLINE_LIMIT)
        stop = min(position + NEWLINE_LIMIT, self.end)
        found = _NEWLINES.match(self.data, position - self.base, stop - self.base)
        return found.end() + self.base if found else position

    def line(self, position: int, syntax: Syntax) -> re.Match[bytes] | None:
        """The first line of a record at `position`."""
        self.reach(position + syntax.line_bytes)
        return syntax.line.match(self.data, position - self.base, self.end - self.base)

    def next_line(self, position: int, syntax: Syntax) -> int:
        """Where the next record's first line begins at or after `position`; the end of all bytes if none does."""
        seen = position
        while True:
            found = self.search(syntax.next_line, seen - 1, self.end)
            if found:
                return found.end() + self.base
            seen = max(position, self.end - syntax.line_bytes)
            self.forget(seen - 1)
            if not self.reach(self.end + 1):
                return self.end
