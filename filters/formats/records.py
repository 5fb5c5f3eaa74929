"""Read the records of a web archive from decoded bytes: WARC/0.17 to 1.1 (ISO 28500:2017) and ARC.

The stated length of a record is checked against the bytes after the record and against the content of its block. If the
length does not lead to the end of a record, or includes the next record, the start of the next record is searched. The
bytes before it become a `Record` with a problem, and reading continues.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple, Protocol

from filters.formats import arc
from filters.formats.stored import buffer_of
from filters.formats.stream import NEWLINE_LIMIT, Window
from filters.reasons import Reason

HEADER_LIMIT = 1 << 16  # Bytes of a record's header. A longer header is damage.
PADDING = 1 << 12  # Bytes that are examined to distinguish padding with NULs from other damage.
FIRST_STEP = 1 << 14  # Bytes of the first step of a search for records. Each further step is four times as long.
MAX_NESTED = 1 << 10  # Records inside one block that are examined.
# If one record fills a member, this many bytes at the start and at the end of its block are searched for a record.
EXAMINED = 1 << 12
MAX_LOOKAHEAD = 1 << 24  # Bytes of a record after damage that are read to check what follows the record.
CROSSING = 1 << 12  # Bytes at the end of a block that are searched for a header that ends after the block.
IDENTIFYING_BYTES = 1 << 10  # Bytes at the start of a header that identify it.

DIGESTS = ("sha1", "sha256", "sha512", "md5")  # Labels of the supported algorithms, without hyphens.
WARC_LINE = re.compile(rb"WARC/([01]\.[0-9]{1,2})[ \t]{0,8}\r{0,2}\n")
WARC_NEWLINES, ARC_NEWLINES = 2, 1  # Line feeds after a block.
_WARC_START = re.compile(WARC_LINE.pattern + rb"(?=[A-Za-z][A-Za-z-]{0,60}+[ \t]{0,8}:)|(?<=\n)" + WARC_LINE.pattern)
# The literal prefix of this pattern is one character, which makes it several times as fast as `bytes.find`.
_INSIDE = re.compile(rb"W(?=ARC/[01]\.)")
_WARC_BOUNDARY = re.compile(rb"\n\r{0,2}\n(?=" + WARC_LINE.pattern + rb")")
_ARC_BOUNDARY = re.compile(rb"\n(?=[A-Za-z][A-Za-z0-9+.-]{0,30}+:[^\n]{16,} [0-9]{1,18}+[ \t]{0,8}+\r?+\n)")
_NEWLINE = re.compile(rb"\n")
_NEXT_LINE = re.compile(rb"\n(?=" + WARC_LINE.pattern + rb")")
_BLANK_LINE = re.compile(rb"\n\r{0,2}\n")
_HEADER_END = re.compile(rb"\n(?:\r{0,2}\n|WARC/)")  # An empty line, or the start of another record in the header.
# The first field of this name. The group is set if the value consists of digits only.
_CONTENT_LENGTH = re.compile(
    rb"\n(?i:content-length)[ \t]*+:(?:[ \t]*+([0-9]{1,18}+)[ \t]*+\r{0,2}+(?:\Z|\n(?![ \t])))?"
)
_CHUNKED = re.compile(rb"\n(?i:transfer-encoding)[ \t]*+:")


class Headers(NamedTuple):
    """The header of a WARC record or an HTTP message: a version or status line, and fields.

    Fields are searched when they are needed, because a record has about twelve fields and only about three are used.
    Lines end in CRLF or LF. A line that begins with white space continues the line before (RFC 9112, section 5.2).
    Blanks before a colon do not belong to the name. A line without a colon is ignored. A value that is not UTF-8 is
    decoded as Latin-1.

    Attributes:
        block: The bytes of the header.
    """

    block: bytes = b""

    def get(self, name: str) -> str | None:
        """Return the value of the first field with a name (in any case), or None if there is none."""
        found = _field(name).search(self.block)
        return _decode_value(found[1]) if found else None

    def all(self, name: str) -> list[str]:
        """Return the values of all fields with a name (in any case)."""
        return [_decode_value(value) for value in _field(name).findall(self.block)]

    def has_rewritten_lines(self) -> bool:
        """Return True if the lines of a WARC header end in LF without CR.

        The standard requires CRLF. An archive without CR was changed by a program for text files, which also changed
        the line ends in blocks. So lengths and digests may be wrong. If the length of a text record (WET) of such an
        archive is wrong, the record extends to the next version line. CCNet reads all records in this way
        (`process_wet_file.py`).
        """
        return b"\r\n" not in self.block


NO_HEADERS = Headers()


class Record(NamedTuple):
    """A record, or damage, at the decoded bytes [start, stop).

    Attributes:
        start: The offset of the first byte.
        stop: The offset after the last byte, including the newlines after the block.
        headers: The header. Empty if there is a problem.
        version: The version of the format, for example "1.0" or "ARC/1". Empty if there is a problem.
        block: The content of the record. Empty if there is a problem.
        problem: The reason for damage, else None.
        detail: A sentence about the problem.
    """

    start: int
    stop: int
    headers: Headers = NO_HEADERS
    version: str = ""
    block: bytes = b""
    problem: Reason | None = None
    detail: str = ""


class Head(NamedTuple):
    """The header of a record, and the position of its block by the stated length.

    Attributes:
        headers: The fields.
        version: The version of the format, for example "1.0" or "ARC/1".
        block: The offset of the first byte of the block.
        stop: The offset after the last byte of the block.
    """

    headers: Headers
    version: str
    block: int
    stop: int

    @property
    def is_arc(self) -> bool:
        """True if the record is in ARC format."""
        return self.version.startswith("ARC")

    @property
    def newlines(self) -> int:
        """The number of line feeds after the block."""
        return ARC_NEWLINES if self.is_arc else WARC_NEWLINES

    @property
    def extends_to_next(self) -> bool:
        """True if the record ends where the next record begins, in the case that its stated length is wrong.

        This is true for WET records with rewritten line ends, and for the first record of an ARC file (`filedesc:`),
        because writers disagree on the length of that record.
        """
        if self.is_arc:
            return self.headers.get("WARC-Type") == "warcinfo"
        return self.headers.has_rewritten_lines() and self.headers.get("WARC-Type") == "conversion"


class Members(Protocol):
    """An interface to find compressed members between uncompressed records.

    `read_records` stops where a member begins, because members are read by other code (filters.formats.warc).
    """

    def begins(self, position: int) -> bool:
        """Return True if a member begins at a position."""

    def find(self, start: int, stop: int) -> int:
        """Return the start of the next member in [start, stop) that contains a record, or `stop`."""


def read_records(
    window: Window, start: int, max_record_bytes: int, blocks: bool = True, members: Members | None = None
) -> Iterator[Record]:
    """Yield the records of decoded bytes, and the damage between them, without a gap.

    One record at a time is held in memory.

    Args:
        window: The decoded bytes.
        start: The offset of the first record.
        max_record_bytes: The size of the largest record. Larger records are skipped as TOO_LARGE.
        blocks: If False, the blocks of records are not copied; `Record.block` is empty.
        members: The compressed members between the records, None if there cannot be any.
    """
    position = start
    while window.reach(position + 1):
        head = _parse_head(window, position)
        if isinstance(head, Head):
            record = _read_record(window, position, head, max_record_bytes, blocks, members)
        else:
            stop = find_start(window, position + 1, members)
            record = Record(position, stop, problem=head[0], detail=head[1])
        yield record
        position = record.stop
        window.forget(position)
        if members and members.begins(position):
            return


def parse_single_record(data: bytes) -> tuple[Headers, str, bytes] | None:
    """Parse `data` that consists of exactly one WARC record in the form of the standard.

    `read_records` gives the same result, but takes several times as long.

    Returns:
        The headers, the version and the block, or None if `data` has another form.
    """
    line, end = WARC_LINE.match(data), _HEADER_END.search(data, 0, HEADER_LIMIT)
    if line is None or end is None or end[0][-1:] != b"\n" or not data.endswith(b"\r\n\r\n"):
        return None
    header, block, stop = data[: end.start()], end.end(), len(data) - 4
    if _content_length(header) != stop - block:
        return None
    if _INSIDE.search(data, block, block + EXAMINED) or _INSIDE.search(data, max(block, stop - EXAMINED), stop):
        return None  # The length may include another record.
    return Headers(header), line[1].decode(), data[block:stop]


def begins_record(opening: bytes) -> bool:
    """Return True if bytes begin with the first line of a record, after any newlines."""
    opening = opening.lstrip(b"\r\n")
    return opening.startswith(b"WARC/") or arc.read_line(opening) is not None


def is_incomplete(opening: bytes, size: int) -> bool:
    """Return True if a WARC record is longer than `size` bytes, judged by its header. `opening`: its first bytes."""
    first = len(opening) - len(opening.lstrip(b"\r\n"))
    end = _HEADER_END.search(opening, first, first + HEADER_LIMIT)
    if not WARC_LINE.match(opening, first) or end is None:
        return opening.startswith(b"WARC/", first) and size < HEADER_LIMIT
    return size < end.end() + (_content_length(opening[first : end.start()]) or 0)


# --- headers ---


def _parse_head(window: Window, position: int) -> Head | tuple[Reason, str]:
    """Parse the header at `position`, after any newlines. Return a reason and a detail if it is not valid."""
    first = window.skip_newlines(position)
    if line := window.match(WARC_LINE, first, 32):
        return _parse_warc_head(window, first, line)
    if found := arc.read_line(_read_line(window, first)):
        block = first + found.end
        version = f"ARC/{found.version}"
        return Head(Headers(found.header), version, block, block + (found.length or 0))
    padding = not window.part(first, first + PADDING).strip(b"\0")
    return Reason.CORRUPT_RECORD, "NUL bytes" if padding else "no record begins here"


def _parse_warc_head(window: Window, first: int, line: re.Match[bytes]) -> Head | tuple[Reason, str]:
    """Parse the WARC header at `first`, with the version line `line`. Return a reason and a detail if it is invalid."""
    begin = line.end() + window.base
    window.reach(first + HEADER_LIMIT)
    stop = min(first + HEADER_LIMIT, window.end)
    blank = window.search(_BLANK_LINE, max(begin - 1, window.no_blank_line_before), stop)
    if blank is None:
        window.no_blank_line_before = max(window.no_blank_line_before, stop - 2)
        if stop < first + HEADER_LIMIT:
            return Reason.TRUNCATED_RECORD, "the header ends early"
        return Reason.CORRUPT_RECORD, f"a header of more than {HEADER_LIMIT} bytes"
    block, version = blank.end() + window.base, line.group(1).decode()
    headers = Headers(window.part(first, blank.start() + window.base))
    if _NEXT_LINE.search(headers.block + b"\n"):
        return Reason.TRUNCATED_RECORD, "another record begins within the header"
    length = _content_length(headers.block)
    if length is None:
        return Reason.CORRUPT_RECORD, "no usable Content-Length"
    return Head(headers, version, block, block + length)


def _content_length(header: bytes) -> int | None:
    """Return the value of the first Content-Length field, None if it is missing or not a number."""
    found = _CONTENT_LENGTH.search(header)
    return int(found[1]) if found and found[1] else None


@cache
def _field(name: str) -> re.Pattern[bytes]:
    """Return a pattern that matches a field with a name. Its group is the value, including continuation lines."""
    return re.compile(rb"\n(?i:%b)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)" % re.escape(name.encode()))


def _decode_value(value: bytes) -> str:
    """Decode the value of a field. Continuation lines are joined by blanks."""
    if b"\n" in value:
        value = b" ".join(line.strip() for line in value.split(b"\n") if line.strip())
    value = value.strip()
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


# --- lengths ---


def _read_record(window: Window, start: int, head: Head, limit: int, blocks: bool, members: Members | None) -> Record:
    """Read the record with the header `head`. If its stated length is wrong, search for the next record."""
    too_large = head.stop - start > limit
    if not (window.skip(head.stop) if too_large else window.reach(head.stop)):
        detail = "the data ends before the stated length does"
        return _recover(window, start, head, limit, blocks, members, Reason.TRUNCATED_RECORD, detail)
    stop = window.skip_newlines(head.stop)
    if not _is_length_right(window, head, stop, members):
        detail = "the stated length does not lead to a record's end"
        return _recover(window, start, head, limit, blocks, members, Reason.CORRUPT_RECORD, detail)
    if too_large:
        return Record(start, stop, problem=Reason.TOO_LARGE, detail=f"{head.stop - start} bytes")
    return Record(start, stop, head.headers, head.version, window.part(head.block, head.stop) if blocks else b"")


def _is_length_right(window: Window, head: Head, stop: int, members: Members | None) -> bool:
    """Return True if the stated length of a block is right.

    The block must be followed by a record, by the end of the bytes, or by enough newlines. The block must not overlap
    the next record, unless the header of an HTTP response in it, or the digest, confirms the length.

    Args:
        window: The decoded bytes.
        head: The header of the record.
        stop: The end of the newlines after the block.
        members: The compressed members between records.
    """
    newlines = window.part(head.stop, stop)
    follows = (
        not window.reach(stop + 1)
        or _begins_record(window, stop)
        or len(newlines) == NEWLINE_LIMIT
        or (members is not None and members.begins(stop))
    )
    closed = newlines.startswith(b"\r\n\r\n") if not head.is_arc else newlines.count(b"\n") >= ARC_NEWLINES
    if not (follows or closed or newlines.count(b"\n") >= head.newlines):
        return False
    if window.base > head.block:
        return follows or closed
    http = _http_states_length(window, head)
    if not follows and http is False:
        return False
    if not _spans_record(window, head, http is True):
        return True
    return agrees_with_digest(head.headers.get("WARC-Block-Digest"), window.part(head.block, head.stop)) is True


def _begins_record(window: Window, position: int) -> bool:
    """Return True if a valid first line of a record begins at a position, with all fields at their positions."""
    if window.match(WARC_LINE, position, 32):
        return True
    return arc.find_line(_read_line(window, position), 0, 1, arc.LINE_BYTES) == 0


def _read_line(window: Window, position: int) -> bytes:
    """Return the line at a position with its newline, at most arc.LINE_BYTES bytes."""
    window.reach(position + arc.LINE_BYTES)
    end = window.search(_NEWLINE, position, position + arc.LINE_BYTES)
    return window.part(position, end.end() + window.base if end else position + arc.LINE_BYTES)


def _spans_record(window: Window, head: Head, proved: bool) -> bool:
    """Return True if a record begins within the block but does not end within it.

    A block may contain a complete archive. Then the newlines of its last record are followed by the newlines of the
    block. Otherwise the record that begins within the block is the next record of the archive, and its block ends where
    this block ends or later.

    Args:
        window: The decoded bytes.
        head: The header of the record.
        proved: True if an HTTP header states the same length. Then the result is True only if the block ends within the
            header of another record, because bytes of the block were lost.
    """
    position = max(head.stop - CROSSING, head.block) if proved else head.block
    for _ in range(MAX_NESTED):
        position = _find_boundary(window, position, head)
        if position < 0:
            return False
        inner = _parse_head(window, position)
        if not isinstance(inner, Head):
            return False
        if inner.block > head.stop:
            return True
        if proved or inner.stop > head.stop:
            return not proved
        after = window.skip_newlines(inner.stop)
        if after >= head.stop:
            return window.part(inner.stop, after).count(b"\n") < inner.newlines + head.newlines
        position = inner.stop
    return False


def _find_boundary(window: Window, position: int, head: Head) -> int:
    """Return the offset of the next record within a block, or -1. It must follow the newlines after a record."""
    if head.is_arc:
        while found := window.search(_ARC_BOUNDARY, max(position - 1, 0), head.stop + arc.LINE_BYTES):
            position = found.end() + window.base
            if position >= head.stop:
                return -1
            if _begins_record(window, position):
                return position
            position += 1
        return -1
    if window.search(_INSIDE, position, head.stop + 32) is None:
        return -1
    boundary = window.search(_WARC_BOUNDARY, position, head.stop + 32)
    return boundary.end() + window.base if boundary and boundary.end() + window.base < head.stop else -1


def _http_states_length(window: Window, head: Head) -> bool | None:
    """Compare the Content-Length of an HTTP response in a block with the length of the block.

    Returns:
        True if the lengths agree. False if the header of the response is incomplete, or if the lengths differ in ARC.
        None if there is no HTTP response or no length, or if the lengths differ in WARC, because writers of WARC may
        store decoded bodies.
    """
    if window.part(head.block, head.block + 5) != b"HTTP/":
        return None
    blank = window.search(_BLANK_LINE, head.block, min(head.block + HEADER_LIMIT, head.stop))
    if blank is None:
        return False
    header = window.part(head.block, blank.start() + window.base)
    length = None if _CHUNKED.search(header) else _content_length(header)
    if length is not None and blank.end() + window.base + length == head.stop:
        return True
    return False if head.is_arc and length is not None else None


def _recover(
    window: Window,
    start: int,
    head: Head,
    limit: int,
    blocks: bool,
    members: Members | None,
    problem: Reason,
    detail: str,
) -> Record:
    """Return the result for a record whose stated length is wrong.

    It is damage up to the next record. If `head.extends_to_next`, it is a record up to the next record.
    """
    window.rewind(head.block)
    stop = find_start(window, max(head.block, window.base), members)
    if head.extends_to_next and window.base <= start:
        if stop - start > limit:
            return Record(start, stop, problem=Reason.TOO_LARGE, detail=f"{stop - start} bytes")
        block = window.part(head.block, stop).rstrip(b"\r\n") if blocks else b""
        return Record(start, stop, head.headers, head.version, block)
    return Record(start, stop, problem=problem, detail=detail)


def find_start(window: Window, position: int, members: Members | None, damaged: bytes = b"") -> int:
    """Return the offset of the next record at or after `position`, or the end of the bytes.

    WARC records, ARC records and members are searched in ranges of growing size, because the next record of one kind
    may be far away although a record of another kind is near.

    Args:
        window: The bytes.
        position: The offset at which the search begins.
        members: The compressed members between the records.
        damaged: The bytes to which a damaged member before `position` was decoded. A header that occurs in them is not
            a record: it is part of the damaged member, which stores it without compression.
    """
    searched, step = position, FIRST_STEP
    while True:
        more = window.reach(searched + step + arc.LINE_BYTES)
        stop = min(searched + step, window.end)
        first = _find_line(window, searched, members.find(searched, stop) if members else stop, members, damaged)
        if first < stop or (stop == window.end and not more):
            return first
        searched, step = stop, min(4 * step, 1 << 24)
        window.forget(max(searched - arc.URL_BYTES, position))


def _find_line(window: Window, start: int, stop: int, members: Members | None, damaged: bytes) -> int:
    """Return the offset of the first line in [start, stop) that begins a record, or `stop`."""
    first, position = stop, start
    while found := window.search(_WARC_START, position, min(first + 96, window.end)):
        position = found.start() + window.base
        if position >= first or _is_record(window, position, members, damaged):
            first = min(position, first)
            break
        position += 1
    base, position = window.base, start
    data = buffer_of(window.data, position - base, first - base + arc.LINE_BYTES)
    while (line := arc.find_line(data, position - base, first - base, window.end - base)) >= 0:
        position = line + base
        if _is_record(window, position, members, damaged):
            return position
        position += 1
    return first


def _is_record(window: Window, position: int, members: Members | None, damaged: bytes) -> bool:
    """Return True if a first line that was found after damage begins an uncompressed record.

    A damaged member may store its record without compression. Such a record is not accepted. Its first line was also
    decoded from the member (it occurs in `damaged`), or has no newline before it. The member's checksum follows it.
    """
    if damaged:
        end = window.search(_BLANK_LINE, position, position + IDENTIFYING_BYTES)
        if window.part(position, end.end() + window.base if end else position + IDENTIFYING_BYTES) in damaged:
            return False
    if position == window.base or window.part(position - 1, position) == b"\n":
        return True
    head = _parse_head(window, position)
    if not isinstance(head, Head) or head.stop - position > MAX_LOOKAHEAD or not window.reach(head.stop):
        return False
    stop = window.skip_newlines(head.stop)
    return not window.reach(stop + 1) or _begins_record(window, stop) or (members is not None and members.begins(stop))


# --- digests ---


def agrees_with_digest(declared: str | None, block: bytes) -> bool | None:
    """Compare a block with its `WARC-Block-Digest` (`sha1:…`).

    Values are in base32 (most writers), hexadecimal (pywb, Webrecorder) or base64. `WARC-Payload-Digest` is never
    checked, because writers disagree on the bytes that it covers (ISO 28500:2017, section 5.8).

    Returns:
        True if they agree, False if they differ, None if the algorithm is unknown or the value has a wrong length.
    """
    label, _, value = (declared or "").partition(":")
    algorithm = label.strip().lower().replace("-", "")
    if algorithm not in DIGESTS:
        return None
    digest = hashlib.new(algorithm, block, usedforsecurity=False).digest()
    wanted = _decode_digest(value.strip().rstrip("="), len(digest))
    return None if wanted is None else wanted == digest


def check_block_digest(declared: str | None, block: bytes) -> str:
    """Compare a block with its `WARC-Block-Digest`. Return an error message if they differ, else ""."""
    if agrees_with_digest(declared, block) is not False:
        return ""
    return f"the block's {(declared or '').partition(':')[0].strip()[:10].lower()} differs from the declared one"


def _decode_digest(value: str, size: int) -> bytes | None:
    """Decode a digest of `size` bytes. The length of the text determines its encoding. Return None if it is invalid."""
    try:
        if len(value) == 2 * size:
            return bytes.fromhex(value)
        padding = "=" * (-len(value) % 8)
        if len(value) == -(-size * 8 // 5):
            return base64.b32decode(value + padding, casefold=True)
        if len(value) == -(-size * 4 // 3):
            return base64.b64decode(value + padding, validate=False)
    except ValueError:
        pass
    return None
