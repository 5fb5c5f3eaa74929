"""The records of decoded WARC bytes (ISO 28500:2017), and the damage between them, without a gap.

A record's Content-Length is trusted first; where it does not lead to a record's end, the next record is looked for at
the next version line. Bytes may come piece by piece: no more is held than one record.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap

from filters.headers import NO_HEADERS, Headers, parse_headers
from manifests.reasons import Reason

Stored = bytes | mmap | memoryview

HEADER_LIMIT = 1 << 16
"""bytes of a record's header; a longer one is damage"""
NEWLINE_LIMIT = 1 << 12
"""newline bytes tolerated around a record, where the standard has two CRLF after it"""
PIECE = 1 << 20
"""decoded bytes taken at a time"""
PADDING = 1 << 12
"""bytes looked at to tell padding from other damage"""

VERSION = re.compile(rb"WARC/([01]\.[0-9]{1,2})[ \t]{0,8}\r?\n")
VERSION_LINE = re.compile(rb"\n(?=WARC/[01]\.[0-9]{1,2}[ \t]{0,8}\r?\n)")
VERSION_LINE_BYTES = 32
BLANK_LINE = re.compile(rb"\n\r?\n")
NEWLINES = re.compile(rb"[\r\n]*+")


@dataclass(frozen=True, slots=True)
class Record:
    """A record or damage at [start, stop) of decoded bytes."""

    start: int
    stop: int
    headers: Headers = NO_HEADERS
    version: str = ""
    block: bytes = b""
    problem: Reason | None = None
    detail: str = ""


class Window:
    """Decoded bytes [base, end) held in `data`, with `pieces` of a member still to come."""

    def __init__(self, data: Stored | bytearray, start: int, end: int, pieces: Iterator[bytes] | None = None) -> None:
        self.data, self.base, self.end, self.pieces = data, 0, end, pieces
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
        found = NEWLINES.match(self.data, position - self.base, stop - self.base)
        return found.end() + self.base if found else position

    def version(self, position: int) -> re.Match[bytes] | None:
        """The version line at `position`."""
        self.reach(position + VERSION_LINE_BYTES)
        return VERSION.match(self.data, position - self.base, self.end - self.base)

    def next_version(self, position: int) -> int:
        """Where the next version line begins at or after `position`; the end of all bytes if none does."""
        seen = position
        while True:
            found = self.search(VERSION_LINE, seen - 1, self.end)
            if found:
                return found.end() + self.base
            seen = max(position, self.end - VERSION_LINE_BYTES)
            self.forget(seen - 1)
            if not self.reach(self.end + 1):
                return self.end


def records(window: Window, start: int, max_record_bytes: int) -> Iterator[Record]:
    """The records of decoded bytes from `start` on, with the damage between them, without a gap."""
    position = lost = start
    reason, detail = Reason.CORRUPT_RECORD, ""
    while window.reach(position + 1):
        head = _head(window, position)
        if isinstance(head, tuple):
            reason, detail = (reason, detail) if detail else head
            position = window.next_version(position + 1)
            continue
        if lost < position:
            yield Record(lost, position, problem=reason, detail=detail)
        record = _record(window, position, head, max_record_bytes)
        yield record
        position = lost = record.stop
        reason, detail = Reason.CORRUPT_RECORD, ""
        window.forget(position)
    if lost < position:
        yield Record(lost, position, problem=reason, detail=detail)


@dataclass(frozen=True, slots=True)
class _Head:
    """A record's header: its block lies at [block, stop)."""

    headers: Headers
    version: str
    block: int
    stop: int


def _head(window: Window, position: int) -> _Head | tuple[Reason, str]:
    """The header at `position`, newlines before it passed over, or what is wrong with it."""
    first = window.newlines(position)
    line = window.version(first)
    if line is None:
        padding = not window.part(first, first + PADDING).strip(b"\0")
        return Reason.CORRUPT_RECORD, "NUL bytes" if padding else "no version line"
    window.reach(first + HEADER_LIMIT)
    begin, stop = line.end() + window.base, min(first + HEADER_LIMIT, window.end)
    blank = window.search(BLANK_LINE, max(begin - 1, window.blankless), stop)
    if blank is None:
        window.blankless = max(window.blankless, stop - 2)
        if stop < first + HEADER_LIMIT:
            return Reason.TRUNCATED_RECORD, "the header ends early"
        return Reason.CORRUPT_RECORD, f"a header of more than {HEADER_LIMIT} bytes"
    headers = parse_headers(window.part(first, blank.start() + window.base))
    length = headers.get("Content-Length") or ""
    if not (length.isascii() and length.isdigit() and len(length) < 19):
        return Reason.CORRUPT_RECORD, "no usable Content-Length"
    block = blank.end() + window.base
    return _Head(headers, line.group(1).decode(), block, block + int(length))


def _record(window: Window, start: int, head: _Head, limit: int) -> Record:
    """The record whose header was read. Its Content-Length holds if two CRLF follow, or newlines and then a version
    line or the end; if it does not, the next record is looked for from the block on."""
    too_large = head.stop - start > limit
    if not (window.skip(head.stop) if too_large else window.reach(head.stop)):
        detail = "the data ends before the Content-Length does"
        return _damage(window, start, head, Reason.TRUNCATED_RECORD, detail)
    stop = window.newlines(head.stop)
    follows = window.part(head.stop, head.stop + 4)
    full = stop - head.stop == NEWLINE_LIMIT
    if not (follows == b"\r\n\r\n" or full or not window.reach(stop + 1) or window.version(stop)):
        return _damage(window, start, head, Reason.CORRUPT_RECORD, "the Content-Length does not lead to a record's end")
    if too_large:
        return Record(start, stop, problem=Reason.TOO_LARGE, detail=f"{head.stop - start} bytes")
    return Record(start, stop, head.headers, head.version, window.part(head.block, head.stop))


def _damage(window: Window, start: int, head: _Head, problem: Reason, detail: str) -> Record:
    stop = window.next_version(max(head.block, window.base))
    return Record(start, stop, problem=problem, detail=detail)
