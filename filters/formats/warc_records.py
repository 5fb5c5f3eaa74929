"""The records of decoded archive bytes (WARC: ISO 28500:2017), and the damage between them, without a gap.

A record's stated length is trusted first; where it does not lead to a record's end, the next record is looked for at
the next line that begins one. Bytes may come piece by piece: no more is held than one record.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from filters.formats.arc import ARC
from filters.formats.headers import NO_HEADERS, Headers
from filters.formats.stream import NEWLINE_LIMIT, Head, Syntax, Window
from filters.reasons import Reason

HEADER_LIMIT = 1 << 16
"""bytes of a record's header; a longer one is damage"""
PADDING = 1 << 12
"""bytes looked at to tell padding from other damage"""

_VERSION_LINE = rb"WARC/([01]\.[0-9]{1,2})[ \t]{0,8}\r?\n"
_BLANK_LINE = re.compile(rb"\n\r?\n")
_HEADER_END = re.compile(rb"\n(?:\r?\n|WARC/)")  # or another record within it, which ends no header
_CONTENT_LENGTH = re.compile(rb"\n(?i:content-length)[ \t]*+:(?:[ \t]*+([0-9]{1,18}+)[ \t]*+\r?+(?:\Z|\n(?![ \t])))?")
"""the first such field, without a group if it holds anything but digits"""


class Record(NamedTuple):
    """A record or damage at [start, stop) of decoded bytes."""

    start: int
    stop: int
    headers: Headers = NO_HEADERS
    version: str = ""
    block: bytes = b""
    problem: Reason | None = None
    detail: str = ""


def records(
    window: Window, start: int, max_record_bytes: int, syntax: Syntax | None = None, blocks: bool = True
) -> Iterator[Record]:
    """The records of decoded bytes from `start` on, with the damage between them, without a gap. `syntax`: None means
    that the first line tells. `blocks`: whether they are wanted; without, they are empty."""
    syntax = syntax or _syntax_at(window, start)
    position = lost = start
    reason, detail = Reason.CORRUPT_RECORD, ""
    while window.reach(position + 1):
        head = _head(window, position, syntax)
        if not isinstance(head, Head):
            reason, detail = (reason, detail) if detail else head
            position = window.next_line(position + 1, syntax)
            continue
        if lost < position:
            yield Record(lost, position, problem=reason, detail=detail)
        record = _record(window, position, head, max_record_bytes, syntax, blocks)
        yield record
        position = lost = record.stop
        reason, detail = Reason.CORRUPT_RECORD, ""
        window.forget(position)
    if lost < position:
        yield Record(lost, position, problem=reason, detail=detail)


def only_record(data: bytes) -> tuple[Headers, str, bytes] | None:
    """Headers, version and block of the one WARC record that fills `data` just as the standard has it. None for
    anything else, which `records` is to judge: it gives the same here, at several times the cost."""
    line, end = WARC.line.match(data), _HEADER_END.search(data, 0, HEADER_LIMIT)
    if line is None or end is None or end[0][-1:] != b"\n" or not data.endswith(WARC.closed):
        return None
    header, block, stop = data[: end.start()], end.end(), len(data) - len(WARC.closed)
    if _length(header) != stop - block:
        return None
    return Headers(header), line[1].decode(), data[block:stop]


def _syntax_at(window: Window, start: int) -> Syntax:
    first = window.newlines(start)
    return ARC if window.line(first, WARC) is None and window.line(first, ARC) is not None else WARC


def _head(window: Window, position: int, syntax: Syntax) -> Head | tuple[Reason, str]:
    """The header at `position`, newlines before it passed over, or what is wrong with it."""
    first = window.newlines(position)
    line = window.line(first, syntax)
    if line is None:
        padding = not window.part(first, first + PADDING).strip(b"\0")
        return Reason.CORRUPT_RECORD, "NUL bytes" if padding else "no record begins here"
    return syntax.head(window, first, line)


def _warc_head(window: Window, first: int, line: re.Match[bytes]) -> Head | tuple[Reason, str]:
    begin = line.end() + window.base
    window.reach(first + HEADER_LIMIT)
    stop = min(first + HEADER_LIMIT, window.end)
    blank = window.search(_BLANK_LINE, max(begin - 1, window.blankless), stop)
    if blank is None:
        window.blankless = max(window.blankless, stop - 2)
        if stop < first + HEADER_LIMIT:
            return Reason.TRUNCATED_RECORD, "the header ends early"
        return Reason.CORRUPT_RECORD, f"a header of more than {HEADER_LIMIT} bytes"
    block, version = blank.end() + window.base, line.group(1).decode()
    headers = Headers(window.part(first, blank.start() + window.base))
    if WARC.next_line.search(headers.block + b"\n"):
        return Reason.TRUNCATED_RECORD, "another record begins within the header"
    length = _length(headers.block)
    if length is None:
        return Reason.CORRUPT_RECORD, "no usable Content-Length"
    return Head(headers, version, block, block + length)


WARC = Syntax(
    line=re.compile(_VERSION_LINE),
    next_line=re.compile(rb"\n(?=" + _VERSION_LINE + rb")"),
    line_bytes=32,
    head=_warc_head,
    closed=b"\r\n\r\n",
    newlines=2,
)


def _length(header: bytes) -> int | None:
    found = _CONTENT_LENGTH.search(header)
    return int(found[1]) if found and found[1] else None


def _record(window: Window, start: int, head: Head, limit: int, syntax: Syntax, blocks: bool) -> Record:
    """The record whose header was read; if its length does not hold, the next one is looked for from the block on."""
    too_large = head.stop - start > limit
    if not (window.skip(head.stop) if too_large else window.reach(head.stop)):
        return _misled(window, start, head, limit, syntax, blocks, truncated=True)
    stop = window.newlines(head.stop)
    if not _holds(window, head, stop, syntax):
        return _misled(window, start, head, limit, syntax, blocks, truncated=False)
    if too_large:
        return Record(start, stop, problem=Reason.TOO_LARGE, detail=f"{head.stop - start} bytes")
    return Record(start, stop, head.headers, head.version, window.part(head.block, head.stop) if blocks else b"")


def _holds(window: Window, head: Head, stop: int, syntax: Syntax) -> bool:
    """Whether a stated length is right, by the newlines up to `stop` behind the block and by what follows them: what
    closes a block in this syntax, a record's first line, the end; or else newlines enough, if no record begins within
    the block."""
    newlines = window.part(head.stop, stop)
    if (syntax.closed and newlines.startswith(syntax.closed)) or len(newlines) == NEWLINE_LIMIT:
        return True
    if not window.reach(stop + 1) or window.line(stop, syntax):
        return True
    if newlines.count(b"\n") < syntax.newlines or window.base > head.block:
        return False
    return window.search(syntax.next_line, head.block - 1, head.stop) is None


def _misled(
    window: Window, start: int, head: Head, limit: int, syntax: Syntax, blocks: bool, truncated: bool
) -> Record:
    """A record whose length does not hold: damage up to the next one, but for text of which it cannot hold."""
    window.rewind(head.block)
    stop = window.next_line(max(head.block, window.base), syntax)
    if rewritten(head.headers) and head.headers.get("WARC-Type") == "conversion" and window.base <= start:
        if stop - start > limit:
            return Record(start, stop, problem=Reason.TOO_LARGE, detail=f"{stop - start} bytes")
        block = window.part(head.block, stop).rstrip(b"\r\n") if blocks else b""
        return Record(start, stop, head.headers, head.version, block)
    if truncated:
        detail = "the data ends before the stated length does"
        return Record(start, stop, problem=Reason.TRUNCATED_RECORD, detail=detail)
    detail = "the stated length does not lead to a record's end"
    return Record(start, stop, problem=Reason.CORRUPT_RECORD, detail=detail)


def rewritten(headers: Headers) -> bool:
    """Whether a WARC header's lines end in LF alone. The standard has CRLF, so the archive went through a program for
    text, which changed the line ends of its blocks as well: their lengths and digests need not hold. Text records
    (WET) of such an archive run to the next version line, as CCNet reads all of them (`process_wet_file.py`)."""
    return b"\r\n" not in headers.block
