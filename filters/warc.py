"""Framing of WARC archives (ISO 28500), so that no byte is lost in silence.

Every stored byte belongs to exactly one frame: a record, or a stretch with a named problem. After damage, reading goes
on at the next record boundary: in gzip files at the next member that inflates to `WARC/`, in plain files at the next
version line. A record's own length is trusted first, so that a page that holds a WARC confuses nothing.

A gzip member is taken only when its checksum agrees. In a member of many records (a whole file in one member, say), the
records that inflated whole before the stream broke are kept.
"""

import re
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap

from isal import isal_zlib

from filters.headers import NO_HEADERS, Headers, parse_headers
from manifests.reasons import Reason

Stored = bytes | mmap

InflateError: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub calls a class an instance

GZIP_MAGIC = b"\x1f\x8b\x08"
"""RFC 1952, section 2.3.1: ID1, ID2, and the only compression method"""
CHUNK_BYTES = 64 << 10
HEADER_BYTES = 64 << 10
"""longer record headers are damage"""
PROBE_BYTES = 512
"""what a candidate for the next member must inflate to begin with `WARC/`"""
SPILL_RECORDS = 512
"""a member of many records may inflate to so many times the limit of one record, on disk"""
RECORD_END = b"\r\n\r\n"
"""ISO 28500, section 4: what follows every block"""
ARC = b"filedesc://"
VERSION = re.compile(rb"WARC/[01]\.\d{1,2}\r?\n")
VERSION_LINE = re.compile(rb"(?<=\n)WARC/[01]\.\d{1,2}\r?\n")


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_record_bytes`: decoded bytes of one record, headers and block; a larger one is skipped and counted."""

    max_record_bytes: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One record of an archive, or one stretch of it that is none.

    `offset`, `length`: its stored bytes (the gzip member, or the range of a plain file). `inner_offset`,
    `inner_length`: the record inside the decoded bytes of that range. `stored`: the stored bytes it accounts for; over
    a file these sum to its size. `problem`: why it is no record; then `headers` and `block` are empty.
    """

    offset: int
    length: int
    inner_offset: int
    inner_length: int
    stored: int
    headers: Headers = NO_HEADERS
    block: bytes = b""
    problem: Reason | None = None
    detail: str = ""

    @property
    def target_uri(self) -> str:
        """The record's WARC-Target-URI, without the angle brackets that some writers put around it."""
        return (self.headers.get("WARC-Target-URI") or "").strip().strip("<>")


@dataclass(frozen=True, slots=True)
class _Record:
    """A record, or damage, inside decoded bytes."""

    start: int
    end: int
    headers: Headers = NO_HEADERS
    block: bytes = b""
    problem: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Member:
    """A gzip member inflated up to a limit: what came out, where it ends in the file, and how."""

    data: bytes
    end: int
    whole: bool
    problem: Reason | None = None
    detail: str = ""


def frames(stored: Stored, limits: Limits, start: int = 0, end: int | None = None) -> Iterator[Frame]:
    """Every frame of an archive (or of its range from a record boundary `start` to `end`), in order. Never raises on
    any bytes."""
    stop = len(stored) if end is None else end
    if start >= stop:
        return
    if stored[start : start + len(ARC)] == ARC:
        yield _lost(start, stop, Reason.UNSUPPORTED_FORMAT, "ARC")
    elif stored[start : start + len(GZIP_MAGIC)] == GZIP_MAGIC:
        yield from _gzip_frames(stored, limits, start, stop)
    else:
        for record in _records(stored, start, stop, limits):
            yield _plain_frame(record)


def read_frame(stored: Stored, offset: int, length: int, inner_offset: int, inner_length: int, limits: Limits) -> Frame:
    """The record at a locator. Raises LookupError when those bytes hold no such record."""
    if stored[offset : offset + len(GZIP_MAGIC)] == GZIP_MAGIC:
        found = _inflate_range(stored, offset, offset + length, inner_offset, inner_length)
    else:
        found = stored[offset + inner_offset : offset + inner_offset + inner_length]
    record = next(_records(found, 0, len(found), limits), None)
    if record is None or record.problem is not None or record.end != inner_length:
        raise LookupError(f"no record at offset {offset}, length {length}")
    return Frame(offset, length, inner_offset, inner_length, length, record.headers, record.block)


def _plain_frame(record: _Record) -> Frame:
    length = record.end - record.start
    return Frame(record.start, length, 0, length, length, record.headers, record.block, record.problem, record.detail)


def _lost(start: int, end: int, problem: Reason, detail: str) -> Frame:
    return Frame(start, end - start, 0, 0, end - start, problem=problem, detail=detail)


def _gzip_frames(stored: Stored, limits: Limits, start: int, stop: int) -> Iterator[Frame]:
    position = start
    while position < stop:
        if stored[position : position + len(GZIP_MAGIC)] != GZIP_MAGIC:
            after = _next_member(stored, position, stop)
            yield _lost(position, after, Reason.CORRUPT_RECORD, "bytes between gzip members")
            position = after
            continue
        member = _inflate(stored, position, stop, limits.max_record_bytes)
        if member.data.startswith(ARC) and position == start:
            yield _lost(start, stop, Reason.UNSUPPORTED_FORMAT, "ARC")
            return
        if member.problem is None and member.whole:
            yield from _member_frames(member.data, position, member.end, limits)
            position = member.end
        elif member.problem is None:
            position = yield from _large_member(stored, position, stop, limits, member)
        else:
            after = _next_member(stored, position + 1, stop)
            yield from _damaged_member(member, position, after, limits)
            position = after


def _member_frames(data: Stored, offset: int, after: int, limits: Limits) -> Iterator[Frame]:
    """The records of a whole member; its stored bytes are accounted for by the first frame."""
    share = after - offset
    for record in _records(data, 0, len(data), limits):
        yield _inner_frame(record, offset, after - offset, share)
        share = 0
    if share:
        yield _lost(offset, after, Reason.CORRUPT_RECORD, "an empty gzip member")


def _inner_frame(record: _Record, offset: int, length: int, stored: int) -> Frame:
    inner = record.end - record.start
    return Frame(
        offset, length, record.start, inner, stored, record.headers, record.block, record.problem, record.detail
    )


def _damaged_member(member: _Member, offset: int, after: int, limits: Limits) -> Iterator[Frame]:
    """A member that did not inflate to its end: the whole records before the damage, where it held several, then one
    frame for the rest."""
    whole = [record for record in _records(member.data, 0, len(member.data), limits) if record.problem is None]
    if len(whole) > 1:
        length = after - offset
        for record in whole[:-1]:  # the last one may be cut where the stream broke
            yield _inner_frame(record, offset, length, 0)
    yield _lost(offset, after, member.problem or Reason.CORRUPT_GZIP, member.detail)


def _large_member(
    stored: Stored, position: int, stop: int, limits: Limits, begun: _Member
) -> Generator[Frame, None, int]:
    """A member over the limit of one record: either one record too large, or a member of many records, which is
    spilled to disk and read from there. Gives the position after it."""
    first = next(_records(begun.data, 0, len(begun.data), limits), None)
    many = first is not None and first.problem is None
    with tempfile.TemporaryFile() as spill:
        room = limits.max_record_bytes * SPILL_RECORDS if many else 0
        size, end, problem, detail = 0, position, None, ""
        for piece in _pieces(stored, position, stop):
            if isinstance(piece, bytes):
                size += len(piece)
                if size <= room:
                    spill.write(piece)
            else:
                end, problem, detail = piece.end, piece.problem, piece.detail
        after = end if problem is None else _next_member(stored, position + 1, stop)
        spill.flush()
        if not many or size > room:
            what = problem or Reason.TOO_LARGE
            yield _lost(position, after, what, detail or f"over {limits.max_record_bytes} decoded bytes")
            return after
        with mmap(spill.fileno(), 0, access=ACCESS_READ) as data:
            if problem is None:
                yield from _member_frames(data, position, after, limits)
            else:
                for record in _records(data, 0, size, limits):
                    if record.problem is None and record.end < size:
                        yield _inner_frame(record, position, after - position, 0)
                yield _lost(position, after, problem, detail)
    return after


def _inflate(stored: Stored, position: int, stop: int, limit: int) -> _Member:
    """Inflate one member, up to a little over `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    for piece in _pieces(stored, position, stop):
        if not isinstance(piece, bytes):
            return _Member(b"".join(parts), piece.end, piece.whole, piece.problem, piece.detail)
        parts.append(piece)
        size += len(piece)
        if size > limit:
            break
    return _Member(b"".join(parts), stop, False)


def _pieces(stored: Stored, position: int, stop: int) -> Iterator[bytes | _Member]:
    """Inflate one member piece by piece; the last thing given says how it ended."""
    inflate = isal_zlib.decompressobj(wbits=31)
    cursor = position
    while cursor < stop:
        chunk = stored[cursor : min(cursor + CHUNK_BYTES, stop)]
        cursor += len(chunk)
        while True:
            try:
                piece = inflate.decompress(chunk, 16 * CHUNK_BYTES)
            except InflateError as error:
                yield _Member(b"", cursor, False, Reason.CORRUPT_GZIP, str(error))
                return
            if piece:
                yield piece
            if inflate.eof:
                yield _Member(b"", cursor - len(inflate.unused_data), True)
                return
            chunk = inflate.unconsumed_tail
            if not chunk and not piece:
                break
    yield _Member(b"", stop, False, Reason.TRUNCATED_RECORD, "the gzip member ends early")


def _inflate_range(stored: Stored, offset: int, stop: int, inner_offset: int, inner_length: int) -> bytes:
    """A range of a member's decoded bytes, holding no more than that."""
    parts: list[bytes] = []
    begin = 0
    for piece in _pieces(stored, offset, stop):
        if not isinstance(piece, bytes) or begin >= inner_offset + inner_length:
            break
        parts.append(piece[max(0, inner_offset - begin) : max(0, inner_offset + inner_length - begin)])
        begin += len(piece)
    return b"".join(parts)


def _next_member(stored: Stored, position: int, stop: int) -> int:
    """Where the next gzip member begins that inflates to a record; the end if there is none."""
    while True:
        position = stored.find(GZIP_MAGIC, position, stop)
        if position < 0:
            return stop
        inflate = isal_zlib.decompressobj(wbits=31)
        try:
            if inflate.decompress(stored[position : position + PROBE_BYTES], PROBE_BYTES).startswith(b"WARC/"):
                return position
        except InflateError:
            pass  # not a member: the search goes on behind it
        position += 1


def _records(data: Stored, start: int, stop: int, limits: Limits) -> Iterator[_Record]:
    """The records of decoded bytes, and the stretches between them that are none."""
    position = start
    while position < stop:
        record = _record(data, position, stop, limits)
        if record.problem is not None and record.problem is not Reason.TOO_LARGE:
            found = VERSION_LINE.search(data, position + 1, stop)
            after = found.start() if found else stop
            truncated = record.problem is Reason.TRUNCATED_RECORD and after == stop
            problem = Reason.TRUNCATED_RECORD if truncated else Reason.CORRUPT_RECORD
            record = _Record(position, after, problem=problem, detail=record.detail)
        yield record
        position = record.end


def _record(data: Stored, start: int, stop: int, limits: Limits) -> _Record:
    def damaged(problem: Reason, detail: str) -> _Record:
        return _Record(start, stop, problem=problem, detail=detail)

    if not VERSION.match(data, start, stop):
        return damaged(Reason.CORRUPT_RECORD, "no version line")
    body = _header_end(data, start, min(stop, start + HEADER_BYTES))
    if body < 0:
        early = stop - start < HEADER_BYTES
        return damaged(Reason.TRUNCATED_RECORD if early else Reason.CORRUPT_RECORD, "the record's header does not end")
    headers = parse_headers(bytes(data[start:body]))
    stated = (headers.get("Content-Length") or "").strip()
    if not (stated.isascii() and stated.isdigit()):
        return damaged(Reason.CORRUPT_RECORD, "no Content-Length")
    end = body + int(stated)
    if end > stop:
        return damaged(Reason.TRUNCATED_RECORD, f"{end - stop} bytes are missing")
    after = end
    while after < stop and data[after : after + 1] in (b"\r", b"\n"):
        after += 1
    ended = data[end : end + len(RECORD_END)] == RECORD_END
    if after < stop and not ended and not VERSION.match(data, after, stop):
        return damaged(Reason.CORRUPT_RECORD, "no record ends where the stated length does")
    if end - start > limits.max_record_bytes:
        detail = f"{end - start} decoded bytes"
        return _Record(start, after, problem=Reason.TOO_LARGE, detail=detail)
    return _Record(start, after, headers, bytes(data[body:end]))


def _header_end(data: Stored, start: int, stop: int) -> int:
    """Where the block begins: behind the first empty line; -1 when there is none."""
    proper = data.find(b"\r\n\r\n", start, stop)
    bare = data.find(b"\n\n", start, proper if proper >= 0 else stop)
    if bare >= 0:
        return bare + 2
    return proper + 4 if proper >= 0 else -1
