"""Web archives, framed so that every stored byte is accounted for (ISO 28500:2017; WARC/0.17 to 1.1).

A gzipped archive is a row of gzip members, as a rule one a record. A member is the unit of integrity: its CRC vouches
for all its records or for none. An uncompressed archive is read by its Content-Lengths. What is damaged becomes a frame
that names the problem, and reading goes on at the next place where a record begins.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from isal import isal_zlib

from filters.headers import Headers
from filters.records import NEWLINE_LIMIT, PIECE, VERSION, VERSION_LINE, Record, Stored, Window, records
from manifests.reasons import Reason

SLICE = 1 << 16
"""stored bytes fed to a decompressor at a time"""
TRIAL = 1 << 12
"""stored bytes looked at to tell whether a gzip member with a record begins somewhere"""
RETRIES = 16
"""After damage the next member is looked for within bytes that inflated in vain, until such bytes add up to this many
times the archive's size; then behind them. It keeps hostile archives linear."""

_InflateError: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # isal's stub gives an instance
_GZIP = b"\x1f\x8b\x08"
_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")  # the upper flag bits are reserved (RFC 1952, section 2.3.1)
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame or a skippable frame (RFC 8878, section 3.1)


class NoSuchRecordError(LookupError):
    """The bytes at a locator are not the record that was there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_record_bytes`: decoded bytes of one record, header and block. A larger one is skipped as TOO_LARGE."""

    max_record_bytes: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One record, or one stretch of bytes that is none.

    `offset`, `length`: the stored bytes, that is the gzip member or the range of an uncompressed archive.
    `inner_offset`, `inner_length`: the record within the decoded bytes of that range, with the newlines around it.
    `stored`: how many stored bytes the frame accounts for (a member's bytes are shared out among its records by their
    decoded lengths); over an archive they sum to its size. `version`: such as "1.0". `headers`, `version` and `block`
    are empty if there is a `problem`, which `detail` explains without naming a place.
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
        """WARC-Target-URI, without the angle brackets that some writers put around it; empty if there is none."""
        return (self.headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">").strip()


def frames(stored: Stored, limits: Limits, start: int = 0, end: int | None = None) -> Iterator[Frame]:
    """Every record and every stretch of damage of `stored`[`start`:`end`], in order, without a gap.

    No bytes make it raise. `stored` is the whole archive, so that its form is the same for every split of it; `start`
    and `end` must be where frames begin. Takes memory of the order of `limits.max_record_bytes`.
    """
    end = len(stored) if end is None else end
    form = _form(stored)
    if start >= end:
        return
    if form == "gzip":
        yield from _gzip_frames(stored, limits, start, end)
    elif form == "plain":
        for record in records(Window(stored, start, end), start, limits.max_record_bytes):
            length = record.stop - record.start
            yield _frame(record, record.start, length, 0, length)
    else:
        yield _frame(Record(0, 0, problem=Reason.UNSUPPORTED_FORMAT, detail=form), start, end - start, 0, end - start)


def read_frame(stored: Stored, offset: int, length: int, inner_offset: int, inner_length: int, limits: Limits) -> Frame:
    """The frame with this locator, read again from the whole archive. Raises NoSuchRecordError if there is none."""
    if 0 <= offset < len(stored):
        for frame in frames(stored, limits, offset):
            if frame.offset != offset or frame.inner_offset > inner_offset:
                break
            if (frame.length, frame.inner_offset, frame.inner_length) == (length, inner_offset, inner_length):
                return frame
    raise NoSuchRecordError(f"no record at offset {offset}, length {length}, inner {inner_offset} + {inner_length}")


def _frame(record: Record, offset: int, length: int, inner_offset: int, stored: int) -> Frame:
    inner_length = record.stop - record.start
    place = (offset, length, inner_offset, inner_length, stored)
    return Frame(*place, record.headers, record.version, record.block, record.problem, record.detail)


def _form(stored: Stored) -> str:
    """ "gzip", "plain", or the name of a format that is not read. A damaged beginning is judged by what follows it."""
    beginning = bytes(stored[: NEWLINE_LIMIT + 64])
    if beginning.startswith(_GZIP):
        return "ARC archive" if _opening(stored, 0, len(stored)).startswith(b"filedesc:") else "gzip"
    if beginning.startswith(b"filedesc:"):
        return "ARC archive"
    if _ZSTD.match(beginning):
        return "zstd archive"
    if VERSION.match(beginning.lstrip(b"\r\n")):
        return "plain"
    line = VERSION_LINE.search(stored)
    stop = line.start() if line else len(stored)
    return "gzip" if _next_member(stored, 0, stop, len(stored)) < stop else "plain"


def _gzip_frames(stored: Stored, limits: Limits, start: int, end: int) -> Iterator[Frame]:
    wasted, position = 0, start
    while position < end:
        member = _Member(stored, position, end)
        whole = _joined(member, limits.max_record_bytes)
        if member.problem is not None:
            wasted += member.fed
            behind = position + (1 if wasted <= RETRIES * len(stored) else max(member.fed, 1))
            stop = _next_member(stored, behind, end, end)
            truncated = member.problem is Reason.TRUNCATED_RECORD and stop == end == len(stored)
            problem = Reason.TRUNCATED_RECORD if truncated else Reason.CORRUPT_GZIP
            if truncated:
                yield from _before_the_cut(stored, limits, position, stop)
            damage = Record(0, 0, problem=problem, detail=member.detail)
            yield _frame(damage, position, stop - position, 0, stop - position)
            position = stop
            continue
        if whole is None:  # too large to hold, so it is inflated a second time, record by record
            window = Window(bytearray(), 0, 0, _Member(stored, position, end).pieces())
        else:
            window = Window(whole, 0, len(whole))
        length, size = member.length, member.size
        if size == 0:
            empty = Record(0, 0, problem=Reason.CORRUPT_RECORD, detail="an empty gzip member")
            yield _frame(empty, position, length, 0, length)
        for record in records(window, 0, limits.max_record_bytes):
            share = length * record.stop // size - length * record.start // size
            yield _frame(record, position, length, record.start, share)
        position += length


def _before_the_cut(stored: Stored, limits: Limits, position: int, stop: int) -> Iterator[Frame]:
    """The whole records of a last member that is cut off, where it holds many: no checksum vouches for them, but each
    ended as a record does and another began. They account for no stored bytes; the damage behind them does for all."""
    window = Window(bytearray(), 0, 0, _Member(stored, position, stop).pieces())
    before: Record | None = None
    for record in records(window, 0, limits.max_record_bytes):
        if before is not None and before.problem is None:
            yield _frame(before, position, stop - position, before.start, 0)
        before = record


class _Member:
    """A gzip member (RFC 1952) to be inflated once. After its last piece: `length` in stored bytes and `size` in
    decoded ones, or a `problem`. `fed`: stored bytes handed to the decompressor, at least as many as it looked at."""

    def __init__(self, stored: Stored, offset: int, end: int) -> None:
        self.stored, self.offset, self.end = stored, offset, end
        self.length = self.size = self.fed = 0
        self.problem: Reason | None = None
        self.detail = ""

    def pieces(self) -> Iterator[bytes]:
        """Its decoded bytes, up to `PIECE` at a time."""
        magic = bytes(self.stored[self.offset : min(self.offset + 4, self.end)])
        if not _MEMBER.match(magic) and not (len(magic) < 4 and (_GZIP + b"\0").startswith(magic)):
            self.problem, self.detail = Reason.CORRUPT_GZIP, "no gzip member begins here"
            return
        inflater = isal_zlib.decompressobj(wbits=31)
        fed: bytes | memoryview = b""
        try:
            while not inflater.eof:
                if not fed:
                    begin = self.offset + self.fed
                    fed = self.stored[begin : min(begin + SLICE, self.end)]
                    self.fed += len(fed)
                    ended = not fed
                piece = inflater.decompress(fed, PIECE)
                fed = inflater.unconsumed_tail
                if piece:
                    self.size += len(piece)
                    yield piece
                elif ended and not inflater.eof:
                    self.problem, self.detail = Reason.TRUNCATED_RECORD, "the gzip member ends early"
                    return
        except _InflateError as error:
            self.problem, self.detail = Reason.CORRUPT_GZIP, f"the gzip member does not inflate: {error}"
            return
        self.length = self.fed - len(inflater.unused_data) - len(fed)


def _joined(member: _Member, limit: int) -> bytes | None:
    """All of a member's decoded bytes, None if there are more than `limit`. Inflates to the end either way."""
    kept: list[bytes] = []
    for piece in member.pieces():
        if member.size <= limit:
            kept.append(piece)
        else:
            kept.clear()
    if member.size > limit:
        return None
    return kept[0] if len(kept) == 1 else b"".join(kept)


def _opening(stored: Stored, offset: int, end: int) -> bytes:
    """The first decoded bytes of what may be a gzip member, without leading newlines; empty if it is none."""
    try:
        opening: bytes = isal_zlib.decompressobj(wbits=31).decompress(stored[offset : min(offset + TRIAL, end)], 64)
    except _InflateError:
        return b""
    return opening.lstrip(b"\r\n")


def _next_member(stored: Stored, position: int, stop: int, end: int) -> int:
    """Where in [position, stop) the next gzip member begins that holds a record; `stop` if none does."""
    while found := _MEMBER.search(stored, position, stop):
        if _opening(stored, found.start(), end).startswith(b"WARC/"):
            return found.start()
        position = found.start() + 1
    return stop
