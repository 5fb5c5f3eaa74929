"""Web archives, framed so that every stored byte is accounted for.

The formats are WARC/0.17 to 1.1 (ISO 28500:2017) and ARC (Internet Archive, 1996).

A gzipped archive is a row of gzip members, as a rule one per record. A member is the unit of integrity: its CRC vouches
for all its records or for none. An uncompressed archive is read by its stated lengths: a record's length is trusted
first; where it does not lead to a record's end, the next line that begins a record is searched. Damage becomes a frame
that names the problem, and reading goes on after it.
"""

import base64
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from isal import igzip_lib

from filters.formats.compression import GZIP_ERROR, GzipMember
from filters.formats.stream import NEWLINE_LIMIT, PIECE, Stored, Window
from filters.reasons import Reason

HEADER_LIMIT = 1 << 16  # bytes of a record's header; a longer one is damage
PADDING = 1 << 12  # bytes examined to tell padding from other damage
URL_BYTES = 1 << 13  # of an ARC record's URL; no server takes longer ones
TRIAL = 1 << 12  # stored bytes decompressed to tell if a gzip member begins with a record
# After damage the next member is searched within bytes that failed to decompress, until such bytes add up to this many
# times the archive's size; then after them. It keeps hostile archives linear.
RETRIES = 16
ALGORITHMS = {"sha1": "sha1", "sha256": "sha256", "sha512": "sha512", "md5": "md5"}  # by label, without hyphens

_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame or a skippable frame (RFC 8878, section 3.1)
_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")  # the upper flag bits are reserved (RFC 1952, section 2.3.1)
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,30}+:")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_HEADER_END = re.compile(rb"\n(?:\r?\n|WARC/)")  # or another record within the header, which then has no end
# The first such field; its group is None if it holds anything but digits.
_CONTENT_LENGTH = re.compile(rb"\n(?i:content-length)[ \t]*+:(?:[ \t]*+([0-9]{1,18}+)[ \t]*+\r?+(?:\Z|\n(?![ \t])))?")
_WARC_LINE = rb"WARC/([01]\.[0-9]{1,2})[ \t]{0,8}\r?\n"
# ARC version 1: `URL IP-address Archive-date Content-type Archive-length`; version 2 has five more fields before the
# length (https://archive.org/web/researcher/ArcFileFormat.php). Blanks inside URLs are forbidden but occur, so the
# fields after the URL decide where it ends. Lengths are bounded, so that a line takes linear time. Heritrix wrote
# `null` where it had no date.
_ARC_LINE = (
    rb"([A-Za-z][A-Za-z0-9+.-]{0,30}+:[^\r\n]{0,%d}?) ([^ \r\n]{1,64}+) ([0-9]{14}+|null) [^ \r\n]{1,256}+"
    rb"( [^ \r\n]{1,64}+ [^ \r\n]{1,128}+ [^ \r\n]{1,%d}+ [0-9]{1,18}+ [^ \r\n]{1,1024}+)? ([0-9]{1,18}+)[ ]{0,8}+\r?\n"
) % (URL_BYTES, URL_BYTES)


class NoSuchRecordError(LookupError):
    """No record lies at a locator."""


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


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one record; a larger one is skipped as TOO_LARGE.

    Attributes:
        max_record_bytes: Decoded bytes of header and block.
        max_stored_bytes: Stored bytes of a gzip member that holds one record.
    """

    max_record_bytes: int
    max_stored_bytes: int = sys.maxsize


class Frame(NamedTuple):
    """One record, or one stretch of damage.

    Attributes:
        offset: Where the stored bytes begin: a gzip member, or a range of an uncompressed archive.
        length: Of the stored bytes.
        inner_offset: Where the record begins in what these bytes decode to.
        inner_length: Decoded bytes of the record, with the newlines around it.
        stored: Stored bytes that the frame accounts for. A member's are divided among its records by decoded length;
            over an archive they sum to its size.
        headers: Those of the WARC record, or those that WARC would give an ARC record; empty with a problem.
        version: Such as "1.0" or "ARC/1"; empty with a problem.
        block: The record's content; empty with a problem.
        problem: None for a record.
        detail: A sentence about the problem that names no position.
    """

    offset: int
    length: int
    inner_offset: int
    inner_length: int
    stored: int
    headers: Headers
    version: str
    block: bytes
    problem: Reason | None = None
    detail: str = ""

    @property
    def target_uri(self) -> str:
        """Return WARC-Target-URI without the angle brackets that some writers put around it, or ""."""
        return (self.headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">").strip()


@dataclass(frozen=True, slots=True)
class Boundary:
    """A piece of an archive that is framed by itself: the stored bytes [start, end).

    `wasted`: stored bytes before it that failed to decompress (see `RETRIES`).
    """

    start: int
    end: int
    wasted: int


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


class Syntax(NamedTuple):
    """The marks of records of one kind of archive.

    Attributes:
        line: Matches a record's first line.
        next_line: Matches the newline before one.
        line_bytes: The longest first line.
        parse: Parses the header whose first line matched at a position, or says what is wrong with it.
        closing: Bytes after a block that prove its stated length, empty if none do.
        newlines: The number of LF after a block that prove it if no record begins within the block.
    """

    line: re.Pattern[bytes]
    next_line: re.Pattern[bytes]
    line_bytes: int
    parse: "Callable[[Window, int, re.Match[bytes]], Head | tuple[Reason, str]]"
    closing: bytes
    newlines: int


def read_frames(
    stored: Stored, limits: Limits, start: int = 0, end: int | None = None, wasted: int = 0
) -> Iterator[Frame]:
    """Yield every record and every stretch of damage of stored[start:end], in order, without a gap.

    No bytes make it raise. Takes memory of the order of `limits.max_record_bytes`.

    Args:
        stored: The whole archive, so that its pieces give the frames of the whole.
        limits: Bounds of one record.
        start: A `Boundary`'s start.
        end: A `Boundary`'s end.
        wasted: A `Boundary`'s wasted bytes.
    """
    end = len(stored) if end is None else end
    if start >= end:
        return
    form = _detect_form(stored)
    if form == "gzip":
        yield from _read_gzip(stored, limits, start, end, wasted)
    elif isinstance(form, Syntax):
        for record in read_records(Window(stored, start, len(stored)), start, limits.max_record_bytes, form):
            length = record.stop - record.start
            yield _frame(record, record.start, length, 0, length)
            if record.stop >= end:
                return
    else:
        yield _frame(Record(0, 0, problem=Reason.UNSUPPORTED_FORMAT, detail=form), start, end - start, 0, end - start)


def find_boundaries(stored: Stored, limits: Limits, split_bytes: int) -> list[Boundary]:
    """Return the pieces of an archive whose frames, piece by piece, are those of the whole.

    It is cut at the first gzip member, or record of an uncompressed archive, at or after each multiple of
    `split_bytes`; a member is never cut. Reads the archive once and keeps no block.
    """
    form = _detect_form(stored)
    places: Iterator[tuple[int, int]] = iter(())
    if form == "gzip":
        places = ((step.start, step.wasted) for step in _read_steps(stored, 0, len(stored), 0, keep=-1))
    elif isinstance(form, Syntax):
        window = Window(stored, 0, len(stored))
        records = read_records(window, 0, limits.max_record_bytes, form, blocks=False)
        places = ((record.start, 0) for record in records)
    cuts, due = [(0, 0)], split_bytes
    for start, wasted in places:
        if start >= due:
            cuts.append((start, wasted))
            due = (start // split_bytes + 1) * split_bytes
    ends = [start for start, _ in cuts[1:]] + [len(stored)]
    return [Boundary(start, end, wasted) for (start, wasted), end in zip(cuts, ends, strict=True)]


def read_frame(stored: Stored, offset: int, length: int, inner_offset: int, inner_length: int, limits: Limits) -> Frame:
    """Read one frame of an archive again, by its locator.

    Raises:
        NoSuchRecordError: No frame lies there.
    """
    if 0 <= offset < len(stored):
        for frame in read_frames(stored, limits, offset):
            if frame.offset != offset or frame.inner_offset > inner_offset:
                break
            if (frame.length, frame.inner_offset, frame.inner_length) == (length, inner_offset, inner_length):
                return frame
    raise NoSuchRecordError(f"no record at offset {offset}, length {length}, inner {inner_offset} + {inner_length}")


def check_block_digest(declared: str | None, block: bytes) -> str:
    """Check a block against its `WARC-Block-Digest` (`sha1:…`) and return the error, or "".

    Values are in base32 (most writers), hexadecimal (pywb, Webrecorder) or base64. Unknown algorithms, and values that
    cannot be a digest of the algorithm named, are ignored. `WARC-Payload-Digest` is never checked: writers disagree on
    the bytes that it covers (ISO 28500:2017, section 5.8).
    """
    label, _, value = (declared or "").partition(":")
    algorithm = ALGORITHMS.get(label.strip().lower().replace("-", ""))
    if algorithm is None:
        return ""
    digest = hashlib.new(algorithm, block, usedforsecurity=False).digest()
    wanted = _decode_digest(value.strip().rstrip("="), len(digest))
    if wanted is None or wanted == digest:
        return ""
    return f"the block's {label.strip()[:10].lower()} differs from the declared one"


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


# --- records of decoded bytes ---


def read_records(
    window: Window, start: int, max_record_bytes: int, syntax: Syntax | None = None, blocks: bool = True
) -> Iterator[Record]:
    """Yield the records of decoded bytes and the damage between them, without a gap. Holds one record at a time.

    Args:
        window: The decoded bytes.
        start: Where the first record begins.
        max_record_bytes: The largest record that is held.
        syntax: None to tell it by the first line.
        blocks: False leaves the blocks empty.
    """
    syntax = syntax or _detect_syntax(window, start)
    position = lost = start
    reason, detail = Reason.CORRUPT_RECORD, ""
    while window.reach(position + 1):
        head = _parse_head(window, position, syntax)
        if not isinstance(head, Head):
            reason, detail = (reason, detail) if detail else head
            position = window.find_line(syntax.next_line, position + 1, syntax.line_bytes)
            continue
        if lost < position:
            yield Record(lost, position, problem=reason, detail=detail)
        record = _read_record(window, position, head, max_record_bytes, syntax, blocks)
        yield record
        position = lost = record.stop
        reason, detail = Reason.CORRUPT_RECORD, ""
        window.forget(position)
    if lost < position:
        yield Record(lost, position, problem=reason, detail=detail)


def parse_single_record(data: bytes) -> tuple[Headers, str, bytes] | None:
    """Return headers, version and block of the one WARC record that fills `data` as the standard has it.

    Returns None for anything else. `read_records` gives the same at several times the cost.
    """
    line, end = WARC.line.match(data), _HEADER_END.search(data, 0, HEADER_LIMIT)
    if line is None or end is None or end[0][-1:] != b"\n" or not data.endswith(WARC.closing):
        return None
    header, block, stop = data[: end.start()], end.end(), len(data) - len(WARC.closing)
    if _content_length(header) != stop - block:
        return None
    return Headers(header), line[1].decode(), data[block:stop]


def _match_line(window: Window, position: int, syntax: Syntax) -> re.Match[bytes] | None:
    return window.match(syntax.line, position, syntax.line_bytes)


def _detect_syntax(window: Window, start: int) -> Syntax:
    first = window.skip_newlines(start)
    return ARC if _match_line(window, first, WARC) is None and _match_line(window, first, ARC) is not None else WARC


def _parse_head(window: Window, position: int, syntax: Syntax) -> Head | tuple[Reason, str]:
    """Parse the header at `position`, after newlines, or return what is wrong with it."""
    first = window.skip_newlines(position)
    line = _match_line(window, first, syntax)
    if line is None:
        padding = not window.part(first, first + PADDING).strip(b"\0")
        return Reason.CORRUPT_RECORD, "NUL bytes" if padding else "no record begins here"
    return syntax.parse(window, first, line)


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
    if WARC.next_line.search(headers.block + b"\n"):
        return Reason.TRUNCATED_RECORD, "another record begins within the header"
    length = _content_length(headers.block)
    if length is None:
        return Reason.CORRUPT_RECORD, "no usable Content-Length"
    return Head(headers, version, block, block + length)


def _parse_arc_head(window: Window, first: int, line: re.Match[bytes]) -> Head | tuple[Reason, str]:
    """Translate an ARC line to the header that WARC would have; `filedesc://` is the record about the archive."""
    uri, address, date, more, length = line.groups()
    kind = b"warcinfo" if uri[:9].lower() == b"filedesc:" else b"response"
    header = b"ARC\r\nWARC-Type: %b\r\nWARC-Target-URI: %b\r\nWARC-IP-Address: %b\r\nContent-Length: %b"
    header %= (kind, uri, address, length)
    if date != b"null":
        parts = (date[:4], date[4:6], date[6:8], date[8:10], date[10:12], date[12:])
        header += b"\r\nWARC-Date: %b-%b-%bT%b:%b:%bZ" % parts
    block = line.end() + window.base
    return Head(Headers(header), "ARC/2" if more else "ARC/1", block, block + int(length))


WARC = Syntax(re.compile(_WARC_LINE), re.compile(rb"\n(?=" + _WARC_LINE + rb")"), 32, _parse_warc_head, b"\r\n\r\n", 2)
ARC = Syntax(
    re.compile(_ARC_LINE), re.compile(rb"\n(?=" + _ARC_LINE + rb")"), 2 * URL_BYTES + 2048, _parse_arc_head, b"", 1
)


def _content_length(header: bytes) -> int | None:
    found = _CONTENT_LENGTH.search(header)
    return int(found[1]) if found and found[1] else None


def _read_record(window: Window, start: int, head: Head, limit: int, syntax: Syntax, blocks: bool) -> Record:
    """Read the record of a header; if its length does not hold, search the next one from the block on."""
    too_large = head.stop - start > limit
    if not (window.skip(head.stop) if too_large else window.reach(head.stop)):
        return _recover(window, start, head, limit, syntax, blocks, truncated=True)
    stop = window.skip_newlines(head.stop)
    if not _length_holds(window, head, stop, syntax):
        return _recover(window, start, head, limit, syntax, blocks, truncated=False)
    if too_large:
        return Record(start, stop, problem=Reason.TOO_LARGE, detail=f"{head.stop - start} bytes")
    return Record(start, stop, head.headers, head.version, window.part(head.block, head.stop) if blocks else b"")


def _length_holds(window: Window, head: Head, stop: int, syntax: Syntax) -> bool:
    """Return True if a stated length is right, judged by the newlines up to `stop` after the block and what follows.

    The bytes that close a block in this syntax prove it, or a record's first line, or the end; otherwise enough
    newlines do, if no record begins within the block.
    """
    newlines = window.part(head.stop, stop)
    if (syntax.closing and newlines.startswith(syntax.closing)) or len(newlines) == NEWLINE_LIMIT:
        return True
    if not window.reach(stop + 1) or _match_line(window, stop, syntax):
        return True
    if newlines.count(b"\n") < syntax.newlines or window.base > head.block:
        return False
    return window.search(syntax.next_line, head.block - 1, head.stop) is None


def _recover(
    window: Window, start: int, head: Head, limit: int, syntax: Syntax, blocks: bool, truncated: bool
) -> Record:
    """Return a record whose length does not hold as damage up to the next one, or as text of rewritten lines."""
    window.rewind(head.block)
    stop = window.find_line(syntax.next_line, max(head.block, window.base), syntax.line_bytes)
    is_text = head.headers.has_rewritten_lines() and head.headers.get("WARC-Type") == "conversion"
    if is_text and window.base <= start:
        if stop - start > limit:
            return Record(start, stop, problem=Reason.TOO_LARGE, detail=f"{stop - start} bytes")
        block = window.part(head.block, stop).rstrip(b"\r\n") if blocks else b""
        return Record(start, stop, head.headers, head.version, block)
    if truncated:
        detail = "the data ends before the stated length does"
        return Record(start, stop, problem=Reason.TRUNCATED_RECORD, detail=detail)
    detail = "the stated length does not lead to a record's end"
    return Record(start, stop, problem=Reason.CORRUPT_RECORD, detail=detail)


# --- frames of stored bytes ---


def _frame(record: Record, offset: int, length: int, inner_offset: int, stored: int) -> Frame:
    return Frame(offset, length, inner_offset, record[1] - record[0], stored, *record[2:])


def _detect_form(stored: Stored) -> Syntax | str:
    """Return "gzip", the syntax of an uncompressed archive, or the name of a format that is not read.

    If no record begins the file, that is damage, and the first record after it tells.
    """
    beginning = bytes(stored[: NEWLINE_LIMIT + ARC.line_bytes])
    if _ZSTD.match(beginning):
        return "zstd archive"
    if _holds_record(stored, 0):
        return "gzip"
    beginning = beginning.lstrip(b"\r\n")
    for syntax in (WARC, ARC):
        if syntax.line.match(beginning):
            return syntax
    within = PIECE
    while True:  # in steps, since a record of one form may be far where one of the other is near
        stop = min(within, len(stored))
        first: tuple[int, Syntax | str] = (stop, "gzip")
        for syntax in (WARC, ARC):
            line = syntax.next_line.search(stored, 0, first[0])
            first = (line.start(), syntax) if line else first
        if _find_member(stored, 0, first[0]) < first[0]:
            return "gzip"
        if first[0] < stop or stop == len(stored):
            return first[1]
        within *= 8


def _find_member(stored: Stored, position: int, stop: int) -> int:
    """Return the start of the next gzip member in [position, stop) that holds a record; `stop` without one."""
    while found := _MEMBER.search(stored, position, stop):
        if _holds_record(stored, found.start()):
            return found.start()
        position = found.start() + 1
    return stop


def _holds_record(stored: Stored, offset: int) -> bool:
    """Return True if the bytes at `offset` may be a gzip member that begins with a record, after newlines."""
    opening = _decode_opening(stored, offset, 64)
    if opening.startswith(b"WARC/"):
        return True
    return bool(_SCHEME.match(opening) and ARC.line.match(_decode_opening(stored, offset, ARC.line_bytes)))


def _decode_opening(stored: Stored, offset: int, size: int) -> bytes:
    decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    try:
        return bytes(decoder.decompress(bytes(stored[offset : offset + TRIAL]), size)).lstrip(b"\r\n")
    except GZIP_ERROR:
        return b""


class _Step(NamedTuple):
    """A decompressed gzip member at [start, stop), or damage up to the next one.

    `wasted`: stored bytes before it that failed to decompress; `data`: the member's decoded bytes, None if too many.
    """

    start: int
    stop: int
    wasted: int
    member: GzipMember
    data: bytes | None


def _read_steps(stored: Stored, start: int, end: int, wasted: int, keep: int) -> Iterator[_Step]:
    """Yield the members and the damage that begin in [start, end), each read to its own end.

    `keep`: the most decoded bytes kept of a member.
    """
    while start < end:
        member = GzipMember(stored, start)
        data = member.read(keep)
        if member.damage is None:
            stop = start + member.length
            yield _Step(start, stop, wasted, member, data)
        else:
            before, wasted = wasted, wasted + member.fed
            resume = start + (1 if wasted <= RETRIES * len(stored) else max(member.fed, 1))
            stop = _find_member(stored, resume, len(stored))
            yield _Step(start, stop, before, member, None)
        start = stop


def _read_gzip(stored: Stored, limits: Limits, start: int, end: int, wasted: int) -> Iterator[Frame]:
    for step in _read_steps(stored, start, end, wasted, limits.max_record_bytes):
        single = parse_single_record(step.data) if step.data else None
        length = step.member.length
        if single and length <= limits.max_stored_bytes:
            yield Frame(step.start, length, 0, step.member.size, length, *single)
        elif step.member.damage is not None:
            yield from _read_damage(stored, limits, step)
        elif step.member.size == 0:
            empty = Record(0, 0, problem=Reason.CORRUPT_RECORD, detail="an empty gzip member")
            yield _frame(empty, step.start, length, 0, length)
        else:
            yield from _read_member(stored, limits, step)


def _read_damage(stored: Stored, limits: Limits, step: _Step) -> Iterator[Frame]:
    """Yield the frame of a damaged member; before it, the whole records of a last member that is cut off.

    No checksum vouches for these records, but each ended as a record does and another began. They account for no stored
    bytes: the damage accounts for all.
    """
    assert step.member.damage is not None
    length, problem = step.stop - step.start, Reason.CORRUPT_GZIP
    if step.member.damage.problem is Reason.TRUNCATED_RECORD and step.stop == len(stored):
        problem = Reason.TRUNCATED_RECORD
        before: Record | None = None
        for record in read_records(_open_member(stored, step), 0, limits.max_record_bytes):
            if before is not None and before.problem is None:
                yield _frame(before, step.start, length, before.start, 0)
            before = record
    damage = Record(0, 0, problem=problem, detail=step.member.damage.detail)
    yield _frame(damage, step.start, length, 0, length)


def _read_member(stored: Stored, limits: Limits, step: _Step) -> Iterator[Frame]:
    window = _open_member(stored, step) if step.data is None else Window(step.data, 0, len(step.data))
    length, size = step.member.length, step.member.size
    for record in read_records(window, 0, limits.max_record_bytes):
        if length > limits.max_stored_bytes and record.start == 0 and record.stop == size and record.problem is None:
            detail = f"{length} stored bytes"
            record = Record(record.start, record.stop, problem=Reason.TOO_LARGE, detail=detail)
        share = length * record.stop // size - length * record.start // size
        yield _frame(record, step.start, length, record.start, share)


def _open_member(stored: Stored, step: _Step) -> Window:
    """Return a window on a member that is decompressed a second time, since it is too large to hold or cut off."""
    return Window(bytearray(), 0, 0, lambda: GzipMember(stored, step.start).pieces())
