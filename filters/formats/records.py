"""Records of a web archive, read from decoded bytes: WARC/0.17 to 1.1 (ISO 28500:2017) and ARC.

A record's length is trusted first, and checked against what follows and what the block holds. Where it does not lead to
a record's end, or spans the next record, the next line that begins a record is searched. Damage is a record that names
the problem, and reading goes on after it.
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

HEADER_LIMIT = 1 << 16  # bytes of a record's header; a longer one is damage
PADDING = 1 << 12  # bytes examined to tell padding from other damage
FIRST_STEP = 1 << 14  # bytes searched at first for records of both kinds, then four times as many
NESTED = 1 << 10  # records within one block that are followed
EXAMINED = 1 << 12  # first and last bytes of the one block of a member that are searched for another record
AHEAD = 1 << 24  # bytes of a record behind garbage that are read to see what follows it
CROSSING = 1 << 12  # last bytes of a block that are searched for a header that goes on behind the block
OWN_BYTES = 1 << 10  # first bytes of a header, which identify it

DIGESTS = ("sha1", "sha256", "sha512", "md5")  # algorithms by label, without hyphens
WARC_LINE = re.compile(rb"WARC/([01]\.[0-9]{1,2})[ \t]{0,8}\r{0,2}\n")
WARC_NEWLINES, ARC_NEWLINES = 2, 1  # that end a block
_WARC_START = re.compile(WARC_LINE.pattern + rb"(?=[A-Za-z][A-Za-z-]{0,60}+[ \t]{0,8}:)|(?<=\n)" + WARC_LINE.pattern)
_INSIDE = re.compile(rb"W(?=ARC/[01]\.)")  # the one literal makes it several times as fast as `bytes.find`
_WARC_BOUNDARY = re.compile(rb"\n\r{0,2}\n(?=" + WARC_LINE.pattern + rb")")
_ARC_BOUNDARY = re.compile(rb"\n(?=[A-Za-z][A-Za-z0-9+.-]{0,30}+:[^\n]{16,} [0-9]{1,18}+[ \t]{0,8}+\r?+\n)")
_NEWLINE = re.compile(rb"\n")
_NEXT_LINE = re.compile(rb"\n(?=" + WARC_LINE.pattern + rb")")
_BLANK_LINE = re.compile(rb"\n\r{0,2}\n")
_HEADER_END = re.compile(rb"\n(?:\r{0,2}\n|WARC/)")  # or another record within the header, which then has no end
# The first such field, with a group if it holds digits alone.
_CONTENT_LENGTH = re.compile(
    rb"\n(?i:content-length)[ \t]*+:(?:[ \t]*+([0-9]{1,18}+)[ \t]*+\r{0,2}+(?:\Z|\n(?![ \t])))?"
)
_CHUNKED = re.compile(rb"\n(?i:transfer-encoding)[ \t]*+:")


class Headers(NamedTuple):
    """A version or status line and the fields below it, in the bytes `block`: WARC records and HTTP messages.

    Fields are searched on demand: of a dozen in a record, its reader wants three. Lines end in CRLF or LF; a line that
    begins with white space continues the one before (RFC 9112, section 5.2); blanks before a colon do not belong to the
    name; a line without a colon is ignored; a value that is not UTF-8 is read as Latin-1.
    """

    block: bytes = b""

    def get(self, name: str) -> str | None:
        """Return the value of the first field of a name, whatever its case; None without one."""
        found = _field(name).search(self.block)
        return _decode_value(found[1]) if found else None

    def all(self, name: str) -> list[str]:
        """Return the values of all fields of a name."""
        return [_decode_value(value) for value in _field(name).findall(self.block)]

    def has_rewritten_lines(self) -> bool:
        """Return True if a WARC header's lines end in LF alone.

        The standard has CRLF, so the archive went through a program for text, which changed the line ends of its blocks
        too: their lengths and digests need not hold. Text records (WET) of such an archive run to the next version
        line, as CCNet reads all of them (`process_wet_file.py`).
        """
        return b"\r\n" not in self.block


NO_HEADERS = Headers()


class Record(NamedTuple):
    """A record or damage at [start, stop) of decoded bytes."""

    start: int
    stop: int
    headers: Headers = NO_HEADERS
    version: str = ""
    block: bytes = b""
    problem: Reason | None = None
    detail: str = ""


class Head(NamedTuple):
    """A record's header; its block lies at [block, stop)."""

    headers: Headers
    version: str
    block: int
    stop: int

    @property
    def is_arc(self) -> bool:
        """True for a record of an ARC archive."""
        return self.version.startswith("ARC")

    @property
    def newlines(self) -> int:
        """The number of line feeds that end a block."""
        return ARC_NEWLINES if self.is_arc else WARC_NEWLINES

    @property
    def runs_on(self) -> bool:
        """True if a record whose length fails runs to the next: text of rewritten lines, and what ARC says of itself.

        Writers disagree on the length of the latter.
        """
        if self.is_arc:
            return self.headers.get("WARC-Type") == "warcinfo"
        return self.headers.has_rewritten_lines() and self.headers.get("WARC-Type") == "conversion"


class Members(Protocol):
    """Compressed members between uncompressed records, which end where a member begins; another reader reads them."""

    def begins(self, position: int) -> bool:
        """Return True if a member begins at a position."""

    def find(self, start: int, stop: int) -> int:
        """Return the start of the next member in [start, stop) that holds a record; `stop` without one."""


def read_records(
    window: Window, start: int, max_record_bytes: int, blocks: bool = True, members: Members | None = None
) -> Iterator[Record]:
    """Yield the records of decoded bytes and the damage between them, without a gap. Holds one record at a time.

    Args:
        window: The decoded bytes.
        start: Where the first record begins.
        max_record_bytes: The largest record that is held.
        blocks: False leaves the blocks empty.
        members: What is compressed between the records.
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
    """Return headers, version and block of the one WARC record that fills `data` as the standard has it.

    Returns None for anything else. `read_records` gives the same at several times the cost.
    """
    line, end = WARC_LINE.match(data), _HEADER_END.search(data, 0, HEADER_LIMIT)
    if line is None or end is None or end[0][-1:] != b"\n" or not data.endswith(b"\r\n\r\n"):
        return None
    header, block, stop = data[: end.start()], end.end(), len(data) - 4
    if _content_length(header) != stop - block:
        return None
    if _INSIDE.search(data, block, block + EXAMINED) or _INSIDE.search(data, max(block, stop - EXAMINED), stop):
        return None  # perhaps a length that spans the next record
    return Headers(header), line[1].decode(), data[block:stop]


def begins_record(opening: bytes) -> bool:
    """Return True if bytes begin with a record, after newlines."""
    opening = opening.lstrip(b"\r\n")
    return opening.startswith(b"WARC/") or arc.read_line(opening) is not None


def needs_more(opening: bytes, size: int) -> bool:
    """Return True if a WARC record that begins with `opening` is longer than `size` bytes by what its header states."""
    first = len(opening) - len(opening.lstrip(b"\r\n"))
    end = _HEADER_END.search(opening, first, first + HEADER_LIMIT)
    if not WARC_LINE.match(opening, first) or end is None:
        return opening.startswith(b"WARC/", first) and size < HEADER_LIMIT
    return size < end.end() + (_content_length(opening[first : end.start()]) or 0)


# --- headers ---


def _parse_head(window: Window, position: int) -> Head | tuple[Reason, str]:
    """Parse the header at `position`, after newlines, or return what is wrong with it."""
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
    if _NEXT_LINE.search(headers.block + b"\n"):
        return Reason.TRUNCATED_RECORD, "another record begins within the header"
    length = _content_length(headers.block)
    if length is None:
        return Reason.CORRUPT_RECORD, "no usable Content-Length"
    return Head(headers, version, block, block + length)


def _content_length(header: bytes) -> int | None:
    found = _CONTENT_LENGTH.search(header)
    return int(found[1]) if found and found[1] else None


@cache
def _field(name: str) -> re.Pattern[bytes]:
    """Return a pattern for a field of that name: its value, with the lines that continue it."""
    return re.compile(rb"\n(?i:%b)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)" % re.escape(name.encode()))


def _decode_value(value: bytes) -> str:
    if b"\n" in value:
        value = b" ".join(line.strip() for line in value.split(b"\n") if line.strip())
    value = value.strip()
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


# --- lengths ---


def _read_record(window: Window, start: int, head: Head, limit: int, blocks: bool, members: Members | None) -> Record:
    """Read the record of a header; if its length does not hold, search the next one from the block on."""
    too_large = head.stop - start > limit
    if not (window.skip(head.stop) if too_large else window.reach(head.stop)):
        detail = "the data ends before the stated length does"
        return _recover(window, start, head, limit, blocks, members, Reason.TRUNCATED_RECORD, detail)
    stop = window.skip_newlines(head.stop)
    if not _length_holds(window, head, stop, members):
        detail = "the stated length does not lead to a record's end"
        return _recover(window, start, head, limit, blocks, members, Reason.CORRUPT_RECORD, detail)
    if too_large:
        return Record(start, stop, problem=Reason.TOO_LARGE, detail=f"{head.stop - start} bytes")
    return Record(start, stop, head.headers, head.version, window.part(head.block, head.stop) if blocks else b"")


def _length_holds(window: Window, head: Head, stop: int, members: Members | None) -> bool:
    """Return True if a stated length is right, judged by the newlines up to `stop` after the block and what follows.

    A record, the end, or enough newlines have to follow, and the block may not span a record, unless HTTP states the
    same length.
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
    """Return True if a record's first line begins at a position with every field in its place."""
    if window.match(WARC_LINE, position, 32):
        return True
    return arc.find_line(_read_line(window, position), 0, 1, arc.LINE_BYTES) == 0


def _read_line(window: Window, position: int) -> bytes:
    """Return the line at a position with its newline, at most as much as an ARC record's may have."""
    window.reach(position + arc.LINE_BYTES)
    end = window.search(_NEWLINE, position, position + arc.LINE_BYTES)
    return window.part(position, end.end() + window.base if end else position + arc.LINE_BYTES)


def _spans_record(window: Window, head: Head, proved: bool) -> bool:
    """Return True if a record that begins within the block is not whole within it.

    A block may hold an archive: then its last record and the newlines that end it are followed by those of the block.
    Otherwise the next record's block ends where this one's does, or beyond. If HTTP `proved` the length, only a block
    that ends within the next header is too long: bytes were lost from it.
    """
    position = max(head.stop - CROSSING, head.block) if proved else head.block
    for _ in range(NESTED):
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
    """Return where the next record begins within a block, after the newlines that end one before it; -1 without one."""
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
    """Return True if the HTTP response in a block states the length that remains, False if the block cannot be whole.

    Another length says nothing in WARC, whose writers may store bodies decoded.
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
    """Return a record whose length does not hold as damage up to the next one, or as a record that runs to the next."""
    window.rewind(head.block)
    stop = find_start(window, max(head.block, window.base), members)
    if head.runs_on and window.base <= start:
        if stop - start > limit:
            return Record(start, stop, problem=Reason.TOO_LARGE, detail=f"{stop - start} bytes")
        block = window.part(head.block, stop).rstrip(b"\r\n") if blocks else b""
        return Record(start, stop, head.headers, head.version, block)
    return Record(start, stop, problem=problem, detail=detail)


def find_start(window: Window, position: int, members: Members | None, own: bytes = b"") -> int:
    """Return where the next record begins at or after `position`; the end of all bytes without one.

    Records of all kinds are searched in growing steps, since one of a kind may be far where another is near.

    Args:
        window: The bytes.
        position: Where the search begins.
        members: Compressed members between the records.
        own: What a damaged member before `position` decoded to. A line that stands in it is the member's own, stored
            without compression, and no record, since nothing vouches for it.
    """
    searched, step = position, FIRST_STEP
    while True:
        more = window.reach(searched + step + arc.LINE_BYTES)
        stop = min(searched + step, window.end)
        first = _find_line(window, searched, members.find(searched, stop) if members else stop, members, own)
        if first < stop or (stop == window.end and not more):
            return first
        searched, step = stop, min(4 * step, 1 << 24)
        window.forget(max(searched - arc.URL_BYTES, position))


def _find_line(window: Window, start: int, stop: int, members: Members | None, own: bytes) -> int:
    """Return the start of the first line in [start, stop) that begins a record; `stop` without one."""
    first, position = stop, start
    while found := window.search(_WARC_START, position, min(first + 96, window.end)):
        position = found.start() + window.base
        if position >= first or _is_record(window, position, members, own):
            first = min(position, first)
            break
        position += 1
    base, position = window.base, start
    data = buffer_of(window.data, position - base, first - base + arc.LINE_BYTES)
    while (line := arc.find_line(data, position - base, first - base, window.end - base)) >= 0:
        position = line + base
        if _is_record(window, position, members, own):
            return position
        position += 1
    return first


def _is_record(window: Window, position: int, members: Members | None, own: bytes) -> bool:
    """Return True if a first line that was found after damage begins a record of its own.

    A damaged member may hold its record without compression. Such a line was decoded from it too, or no newline stands
    before it, and the member's checksum behind the record.
    """
    if own:
        end = window.search(_BLANK_LINE, position, position + OWN_BYTES)
        if window.part(position, end.end() + window.base if end else position + OWN_BYTES) in own:
            return False
    if position == window.base or window.part(position - 1, position) == b"\n":
        return True
    head = _parse_head(window, position)
    if not isinstance(head, Head) or head.stop - position > AHEAD or not window.reach(head.stop):
        return False
    stop = window.skip_newlines(head.stop)
    return not window.reach(stop + 1) or _begins_record(window, stop) or (members is not None and members.begins(stop))


# --- digests ---


def agrees_with_digest(declared: str | None, block: bytes) -> bool | None:
    """Return True if a block has its `WARC-Block-Digest` (`sha1:…`), False if not, None if that cannot be checked.

    Values are in base32 (most writers), hexadecimal (pywb, Webrecorder) or base64. Unknown algorithms, and values that
    cannot be a digest of the algorithm named, are ignored. `WARC-Payload-Digest` is never checked: writers disagree on
    the bytes that it covers (ISO 28500:2017, section 5.8).
    """
    label, _, value = (declared or "").partition(":")
    algorithm = label.strip().lower().replace("-", "")
    if algorithm not in DIGESTS:
        return None
    digest = hashlib.new(algorithm, block, usedforsecurity=False).digest()
    wanted = _decode_digest(value.strip().rstrip("="), len(digest))
    return None if wanted is None else wanted == digest


def check_block_digest(declared: str | None, block: bytes) -> str:
    """Check a block against its `WARC-Block-Digest` and return the error, or ""."""
    if agrees_with_digest(declared, block) is not False:
        return ""
    return f"the block's {(declared or '').partition(':')[0].strip()[:10].lower()} differs from the declared one"


def _decode_digest(value: str, size: int) -> bytes | None:
    """Return a digest of `size` bytes; the length of its text tells the encoding."""
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
