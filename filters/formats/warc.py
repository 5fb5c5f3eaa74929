"""Web archives, framed so that every stored byte is accounted for.

The formats are WARC/0.17 to 1.1 (ISO 28500:2017) and ARC (Internet Archive, 1996), uncompressed, in gzip members or in
zstd frames, also mixed in one file. A compressed archive is a row of members, as a rule one per record. A member is the
unit of integrity: its checksum vouches for all its records or for none. An uncompressed record is read by its stated
length (`filters.formats.records`). Damage becomes a frame that names the problem, and reading goes on after it.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from filters.formats import arc
from filters.formats.records import (
    Headers,
    Record,
    begins_record,
    find_start,
    needs_more,
    parse_single_record,
    read_records,
)
from filters.formats.stored import Stored, buffer_of
from filters.formats.stream import (
    GZIP,
    GZIP_MEMBER,
    MEMBER_SLICE,
    SKIPPABLE,
    ZSTD,
    CompressedStream,
    Damage,
    GzipMember,
    Window,
    ZstdMember,
    read_dictionary,
)
from filters.reasons import Reason

TRIAL = 1 << 12  # stored bytes decompressed to tell if a member begins with a record
OPENING = 1 << 11  # bytes of a file that tell its kind
REPLAY = 1 << 6  # stored bytes fed at a time to learn how far a damaged member was read
REPLAYED = 1 << 22  # decoded bytes of a damaged member that are kept to tell its own records from others
# After damage the next member is searched within bytes that failed to decompress, until such bytes add up to this many
# times the archive's size; then after them. It keeps hostile archives linear.
RETRIES = 16
# The first bytes of files that are no archives.
OTHER_FILES = (
    (re.compile(rb"\x89PNG\r\n"), "a PNG image"),
    (re.compile(rb"\xff\xd8\xff"), "a JPEG image"),
    (re.compile(rb"GIF8[79]a"), "a GIF image"),
    (re.compile(rb"%PDF-"), "a PDF file"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive"),
    (re.compile(rb"7z\xbc\xaf\x27\x1c"), "a 7z archive"),
    (re.compile(rb"BZh[1-9]"), "a bzip2 file"),
    (re.compile(rb"\xfd7zXZ\0"), "an xz file"),
    (re.compile(rb"\s*+(?:\xef\xbb\xbf)?<(?:!doctype|!--|html|head|\?xml)", re.IGNORECASE), "a page in HTML or XML"),
    (re.compile(rb"\s*+[\[{]"), "a file in JSON"),
)

_MEMBER = re.compile(GZIP_MEMBER.pattern + b"|" + re.escape(ZSTD))


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one record; a larger one is skipped as TOO_LARGE.

    Attributes:
        max_record_bytes: Decoded bytes of header and block.
        max_stored_bytes: Stored bytes of a member that holds one record.
    """

    max_record_bytes: int
    max_stored_bytes: int = sys.maxsize


class Frame(NamedTuple):
    """One record, or one stretch of damage.

    Attributes:
        offset: Where the stored bytes begin: a member, or a range of uncompressed bytes.
        length: The number of stored bytes.
        inner_offset: Where the record begins in what these bytes decode to.
        inner_length: Decoded bytes of the record, with the newlines around it.
        stored: Stored bytes that the frame accounts for. A member's are divided among its records by decoded length,
            empty members count for the frame before them; over an archive they sum to its size.
        headers: The headers of the WARC record, or those that WARC would give an ARC record; empty with a problem.
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


class Boundary(NamedTuple):
    """A piece of an archive that is framed by itself: the stored bytes [start, end).

    `wasted`: stored bytes before it that failed to decompress (see `RETRIES`).
    """

    start: int
    end: int
    wasted: int


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
    held: Frame | None = None
    for part in _read_parts(stored, limits, start, len(stored) if end is None else end, wasted):
        for frame in _frame_part(stored, limits, part):
            if held and frame.problem is Reason.ARCHIVE_METADATA:
                held = held._replace(stored=held.stored + frame.stored)
                continue
            if held:
                yield held
            held = frame
    if held:
        yield held


def find_boundaries(stored: Stored, limits: Limits, split_bytes: int) -> list[Boundary]:
    """Return the pieces of an archive whose frames, piece by piece, are those of the whole.

    It is cut at the first member, or uncompressed record, at or after each multiple of `split_bytes`; a member is never
    cut. Reads the archive once and keeps no block.
    """
    cuts, due = [(0, 0)], split_bytes
    for part in _read_parts(stored, limits, 0, len(stored), 0, keep=False):
        if part.start >= due and not part.is_empty:
            cuts.append((part.start, part.wasted))
            due = (part.start // split_bytes + 1) * split_bytes
    ends = [start for start, _ in cuts[1:]] + [len(stored)]
    return [Boundary(start, end, wasted) for (start, wasted), end in zip(cuts, ends, strict=True)]


def read_frame(stored: Stored, offset: int, length: int, inner_offset: int, inner_length: int, limits: Limits) -> Frame:
    """Read one frame of an archive again, by its locator.

    Raises:
        LookupError: No frame lies there.
    """
    if 0 <= offset < len(stored):
        for frame in read_frames(stored, limits, offset):
            if frame.offset != offset or frame.inner_offset > inner_offset:
                break
            if (frame.length, frame.inner_offset, frame.inner_length) == (length, inner_offset, inner_length):
                return frame
    raise LookupError(f"no record at offset {offset}, length {length}, inner {inner_offset} + {inner_length}")


class _Part(NamedTuple):
    """An uncompressed record, a decompressed member, or damage: the stored bytes [start, stop).

    Attributes:
        start: Where it begins.
        stop: Where it ends.
        wasted: Stored bytes before it that failed to decompress.
        record: The uncompressed record or damage, None for a member.
        member: The member, read to its end.
        data: The member's decoded bytes, None if too many.
    """

    start: int
    stop: int
    wasted: int
    record: Record | None
    member: CompressedStream | None = None
    data: bytes | None = None

    @property
    def is_empty(self) -> bool:
        """True for a member without content."""
        return self.member is not None and self.member.damage is None and self.member.size == 0


def _read_parts(
    stored: Stored, limits: Limits, start: int, end: int, wasted: int, keep: bool = True
) -> Iterator[_Part]:
    """Yield the parts that begin in [start, end), each read to its own end; `keep`: with the content of records."""
    window, members = Window(stored, start, len(stored)), _Members(stored)
    kept_bytes = limits.max_record_bytes if keep else -1
    while start < end:
        member = members.open(start)
        if member is None:
            for record in read_records(window, start, limits.max_record_bytes, keep, members):
                yield _Part(start, record.stop, wasted, _name_file(stored, record))
                start = record.stop
                if start >= end:
                    return
            continue
        data = member.read(kept_bytes)
        if member.damage is None:
            stop = start + member.length
            yield _Part(start, stop, wasted, None, member, data)
        else:
            before, (read, own) = wasted, members.replay(member)
            wasted += read
            stop = find_start(window, start + (1 if wasted <= RETRIES * len(stored) else read), members, own)
            yield _Part(start, stop, before, None, member)
        start = stop


class _Members:
    """The compressed members of an archive, told by their first bytes, and the dictionary of its zstd frames."""

    def __init__(self, stored: Stored) -> None:
        self.stored, self.dictionary = stored, read_dictionary(stored)

    def begins(self, position: int) -> bool:
        """Return True if the first bytes at a position are a member's."""
        magic = bytes(self.stored[position : position + 4])
        return magic.startswith(GZIP) or magic == ZSTD or SKIPPABLE.match(magic) is not None

    def find(self, start: int, stop: int) -> int:
        """Return the start of the next member in [start, stop) that holds a record; `stop` without one."""
        end = min(stop + 3, len(self.stored))
        while found := _MEMBER.search(buffer_of(self.stored, start, end), start, end):
            if begins_record(self._decode_opening(found.start())):
                return min(found.start(), stop)
            start = found.start() + 1
        return stop

    def open(self, offset: int, step: int = MEMBER_SLICE) -> CompressedStream | None:
        """Return the member that begins at an offset by its first bytes, None without one."""
        if bytes(self.stored[offset : offset + 2]) == GZIP:
            return GzipMember(self.stored, offset, step=step)
        if self.begins(offset):
            return ZstdMember(self.stored, offset, self.dictionary, self._continues, step)
        return None

    def replay(self, member: CompressedStream) -> tuple[int, bytes]:
        """Return how many stored bytes of a damaged member its decoder read until it failed, and what they gave."""
        again, decoded = self.open(member.offset, REPLAY), bytearray()
        if again is None:
            return 1, b""
        for piece in again.pieces():
            decoded += piece[: max(REPLAYED - len(decoded), 0)]
        return max(again.fed, 1), bytes(decoded)

    def _continues(self, opening: bytes, size: int, position: int) -> bool:
        """Return True if a record that begins with `opening` and has `size` bytes so far goes on in the next member."""
        return needs_more(opening, size) and not begins_record(self._decode_opening(position))

    def _decode_opening(self, offset: int) -> bytes:
        """Return the first decoded bytes of the member at an offset, none if it does not decompress."""
        for size in (64, arc.LINE_BYTES):  # few bytes decide about most, also if damage follows them
            member = self.open(offset, TRIAL)
            opening = member.read_opening(size) if member else b""
            if size > len(opening) or opening.lstrip(b"\r\n").startswith(b"WARC/"):
                return opening
        return opening


# --- frames ---


def _frame_part(stored: Stored, limits: Limits, part: _Part) -> Iterator[Frame]:
    """Yield the frames of a part."""
    length = part.stop - part.start
    if part.record is not None:
        yield _make_frame(part.record, part.start, length, 0, length)
    elif part.member is not None and part.member.damage is not None:
        yield from _frame_damage(stored, limits, part, part.member, part.member.damage)
    elif part.member is not None and part.member.size:
        yield from _frame_member(stored, limits, part, part.member.size)
    else:
        empty = Record(0, 0, problem=Reason.ARCHIVE_METADATA, detail="a compressed member without content")
        yield _make_frame(empty, part.start, length, 0, length)


def _make_frame(record: Record, offset: int, length: int, inner_offset: int, stored: int) -> Frame:
    return Frame(offset, length, inner_offset, record[1] - record[0], stored, *record[2:])


def _frame_damage(
    stored: Stored, limits: Limits, part: _Part, member: CompressedStream, damage: Damage
) -> Iterator[Frame]:
    """Yield the frame of a damaged member; before it, the whole records of a last member that is cut off.

    No checksum vouches for these records, but each ended as a record does and another began. They account for no stored
    bytes: the damage accounts for all.
    """
    length, problem = part.stop - part.start, member.corrupt
    if damage.problem is Reason.TRUNCATED_RECORD and part.stop == len(stored):
        problem = Reason.TRUNCATED_RECORD
        before: Record | None = None
        for record in read_records(_open_window(stored, part), 0, limits.max_record_bytes):
            if before is not None and before.problem is None:
                yield _make_frame(before, part.start, length, before.start, 0)
            before = record
    yield _make_frame(Record(0, 0, problem=problem, detail=damage.detail), part.start, length, 0, length)


def _frame_member(stored: Stored, limits: Limits, part: _Part, size: int) -> Iterator[Frame]:
    """Yield the frames of a whole member of `size` decoded bytes: each record gets its share of the stored ones."""
    length = part.stop - part.start
    if part.data and length <= limits.max_stored_bytes and (single := parse_single_record(part.data)):
        yield Frame(part.start, length, 0, size, length, *single)
        return
    window = _open_window(stored, part) if part.data is None else Window(part.data, 0, len(part.data))
    for record in read_records(window, 0, limits.max_record_bytes):
        if length > limits.max_stored_bytes and record.start == 0 and record.stop == size and record.problem is None:
            detail = f"{length} stored bytes"
            record = Record(record.start, record.stop, problem=Reason.TOO_LARGE, detail=detail)
        share = length * record.stop // size - length * record.start // size
        yield _make_frame(record, part.start, length, record.start, share)


def _open_window(stored: Stored, part: _Part) -> Window:
    """Return a window on a member that is decompressed a second time, since it is too large to hold or cut off."""

    def pieces() -> Iterator[bytes]:
        member = _Members(stored).open(part.start)
        return member.pieces() if member else iter(())

    return Window(bytearray(), 0, 0, pieces)


def _name_file(stored: Stored, record: Record) -> Record:
    """Return damage that is a whole file as what the file is, other records as they are."""
    if record.problem is not Reason.CORRUPT_RECORD or record.start > 0 or record.stop < len(stored):
        return record
    beginning = bytes(stored[:OPENING])
    if begins_record(beginning) or not beginning.strip(b"\0"):
        return record
    kind = next((kind for pattern, kind in OTHER_FILES if pattern.match(beginning)), "a file of another kind")
    return record._replace(problem=Reason.UNSUPPORTED_FORMAT, detail=f"{kind}, no web archive")
