"""Divide web archives into frames: each stored byte belongs to a record or to a range of damage.

The formats are WARC/0.17 to 1.1 (ISO 28500:2017) and ARC (Internet Archive, 1996). Records may be uncompressed, in gzip
members or in zstd frames, also mixed in one file. A compressed archive is a sequence of members, usually with one
record each. If the checksum of a member is wrong, none of its records is used. Uncompressed records are read by their
stated length (`filters.formats.records`). Damage becomes a frame with a problem, and reading continues after it.
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
    is_incomplete,
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

TRIAL_BYTES = 1 << 12  # Stored bytes that are decoded to check whether a member begins with a record.
OPENING = 1 << 11  # Bytes at the start of a file that determine its kind.
# Stored bytes that are passed to a decoder at a time to find out up to which offset it reads a damaged member.
REPLAY_STEP = 1 << 6
# Decoded bytes of a damaged member that are kept. Headers in them are not taken for uncompressed records.
REPLAY_LIMIT = 1 << 22
# After a damaged member, the next member is searched among the bytes that failed to decode. When the sum of such bytes
# exceeds this many times the size of the archive, it is searched only after them. So the time is linear also for
# malicious archives.
RETRIES = 16
# The first bytes of files that are not web archives.
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
    """Limits on the size of a record. Larger records are skipped as TOO_LARGE.

    Attributes:
        max_record_bytes: The largest number of decoded bytes of header and block.
        max_stored_bytes: The largest number of stored bytes of a member with one record.
    """

    max_record_bytes: int
    max_stored_bytes: int = sys.maxsize


class Frame(NamedTuple):
    """One record, or one range of damage.

    Attributes:
        offset: The offset of the first stored byte: of a member, or of an uncompressed range.
        length: The number of stored bytes of the member or range.
        inner_offset: The offset of the record in the decoded bytes of the member or range.
        inner_length: The number of decoded bytes of the record, including the newlines around it.
        stored: The number of stored bytes that are attributed to the frame. The bytes of a member are divided among its
            records by decoded length. The bytes of empty members are attributed to the frame before them. The sum over
            all frames is the size of the archive.
        headers: The headers of the WARC record, or equivalent WARC headers for an ARC record. Empty if there is a
            problem.
        version: The version of the format, for example "1.0" or "ARC/1". Empty if there is a problem.
        block: The content of the record. Empty if there is a problem.
        problem: The reason for damage, None for a record.
        detail: A sentence about the problem. It contains no offset.
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
        """Return WARC-Target-URI, or "". Angle brackets, which some writers put around it, are removed."""
        return (self.headers.get("WARC-Target-URI") or "").strip().removeprefix("<").removesuffix(">").strip()


class Boundary(NamedTuple):
    """A piece of an archive that can be read independently: the stored bytes [start, end).

    Attributes:
        start: The offset of the first byte.
        end: The offset after the last byte.
        wasted: The number of stored bytes before the piece that failed to decode (see RETRIES).
    """

    start: int
    end: int
    wasted: int


def read_frames(
    stored: Stored, limits: Limits, start: int = 0, end: int | None = None, wasted: int = 0
) -> Iterator[Frame]:
    """Yield the frames of stored[start:end]: all records and all damage, in order, without a gap.

    Never raises because of the content. Uses memory of the order of `limits.max_record_bytes`.

    Args:
        stored: The whole archive, also if only a piece is read. So the pieces give the same frames as the whole.
        limits: The limits on the size of a record.
        start: The start of a `Boundary`.
        end: The end of a `Boundary`, None for the end of the archive.
        wasted: The wasted bytes of a `Boundary`.
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
    """Return pieces of an archive. Reading the pieces gives the same frames as reading the whole archive.

    The archive is cut at the first member or uncompressed record at or after each multiple of `split_bytes`. Members
    are never cut. The archive is read once, and no blocks are kept.
    """
    cuts, due = [(0, 0)], split_bytes
    for part in _read_parts(stored, limits, 0, len(stored), 0, keep=False):
        if part.start >= due and not part.is_empty:
            cuts.append((part.start, part.wasted))
            due = (part.start // split_bytes + 1) * split_bytes
    ends = [start for start, _ in cuts[1:]] + [len(stored)]
    return [Boundary(start, end, wasted) for (start, wasted), end in zip(cuts, ends, strict=True)]


def read_frame(stored: Stored, offset: int, length: int, inner_offset: int, inner_length: int, limits: Limits) -> Frame:
    """Read one frame of an archive again, given the fields of its locator.

    Raises:
        LookupError: There is no frame with these offsets and lengths.
    """
    if 0 <= offset < len(stored):
        for frame in read_frames(stored, limits, offset):
            if frame.offset != offset or frame.inner_offset > inner_offset:
                break
            if (frame.length, frame.inner_offset, frame.inner_length) == (length, inner_offset, inner_length):
                return frame
    raise LookupError(f"no record at offset {offset}, length {length}, inner {inner_offset} + {inner_length}")


class _Part(NamedTuple):
    """An uncompressed record, a compressed member, or damage: the stored bytes [start, stop).

    Attributes:
        start: The offset of the first byte.
        stop: The offset after the last byte.
        wasted: The number of stored bytes before the part that failed to decode.
        record: The uncompressed record or damage, None for a member.
        member: The member, read up to its end. None for an uncompressed record.
        data: The decoded bytes of the member, None if there are more than the limit.
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
    """Yield the parts that begin in [start, end). The last one may end after `end`.

    Args:
        stored: The whole archive.
        limits: The limits on the size of a record.
        start: The offset of the first part.
        end: The offset at or after which no part begins.
        wasted: The number of stored bytes before `start` that failed to decode.
        keep: If False, the contents of records and members are not kept.
    """
    window, members = Window(stored, start, len(stored)), _Members(stored)
    kept_bytes = limits.max_record_bytes if keep else -1
    while start < end:
        member = members.open(start)
        if member is None:
            for record in read_records(window, start, limits.max_record_bytes, keep, members):
                yield _Part(start, record.stop, wasted, _identify_file(stored, record))
                start = record.stop
                if start >= end:
                    return
            continue
        data = member.read(kept_bytes)
        if member.damage is None:
            stop = start + member.length
            yield _Part(start, stop, wasted, None, member, data)
        else:
            before, (read, damaged) = wasted, members.replay(member)
            wasted += read
            stop = find_start(window, start + (1 if wasted <= RETRIES * len(stored) else read), members, damaged)
            yield _Part(start, stop, before, None, member)
        start = stop


class _Members:
    """The compressed members of an archive (see records.Members), with the dictionary of its zstd frames."""

    def __init__(self, stored: Stored) -> None:
        self.stored, self.dictionary = stored, read_dictionary(stored)

    def begins(self, position: int) -> bool:
        """Return True if a member begins at a position, judged by its first bytes."""
        magic = bytes(self.stored[position : position + 4])
        return magic.startswith(GZIP) or magic == ZSTD or SKIPPABLE.match(magic) is not None

    def find(self, start: int, stop: int) -> int:
        """Return the start of the next member in [start, stop) that contains a record, or `stop`."""
        end = min(stop + 3, len(self.stored))
        while found := _MEMBER.search(buffer_of(self.stored, start, end), start, end):
            if begins_record(self._decode_opening(found.start())):
                return min(found.start(), stop)
            start = found.start() + 1
        return stop

    def open(self, offset: int, step: int = MEMBER_SLICE) -> CompressedStream | None:
        """Return the member that begins at an offset, judged by its first bytes, or None."""
        if bytes(self.stored[offset : offset + 2]) == GZIP:
            return GzipMember(self.stored, offset, step=step)
        if self.begins(offset):
            return ZstdMember(self.stored, offset, self.dictionary, self._continues, step)
        return None

    def replay(self, member: CompressedStream) -> tuple[int, bytes]:
        """Decode a damaged member again, in small steps.

        Returns:
            The number of stored bytes that were passed to the decoder until it failed, and the decoded bytes (at most
            REPLAY_LIMIT).
        """
        again, decoded = self.open(member.offset, REPLAY_STEP), bytearray()
        if again is None:
            return 1, b""
        for piece in again.pieces():
            decoded += piece[: max(REPLAY_LIMIT - len(decoded), 0)]
        return max(again.fed, 1), bytes(decoded)

    def _continues(self, opening: bytes, size: int, position: int) -> bool:
        """Return True if the zstd frame at `position` contains the continuation of a record.

        Args:
            opening: The first bytes of the record.
            size: The number of bytes of the record in the frames before `position`.
            position: The offset of the next frame.
        """
        return is_incomplete(opening, size) and not begins_record(self._decode_opening(position))

    def _decode_opening(self, offset: int) -> bytes:
        """Return the first decoded bytes of the member at an offset, b"" if they are damaged."""
        # A few bytes are enough to decide in most cases, even if damage follows them.
        for size in (64, arc.LINE_BYTES):
            member = self.open(offset, TRIAL_BYTES)
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
    """Return the frame of a record. See `Frame` for the arguments."""
    return Frame(offset, length, inner_offset, record[1] - record[0], stored, *record[2:])


def _frame_damage(
    stored: Stored, limits: Limits, part: _Part, member: CompressedStream, damage: Damage
) -> Iterator[Frame]:
    """Yield the frame of a damaged member.

    If the last member of the archive is truncated, its complete records are yielded before the frame of the damage. The
    checksum of the member is missing, but each of these records has a valid end and is followed by another record. All
    stored bytes are attributed to the damage, and none to these records.
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
    """Yield the frames of an undamaged member. Its stored bytes are divided among its records by decoded length.

    Args:
        stored: The whole archive.
        limits: The limits on the size of a record.
        part: The member.
        size: The number of its decoded bytes.
    """
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
    """Return a window that decodes a member again, because the member is truncated or too large to hold in memory."""

    def pieces() -> Iterator[bytes]:
        member = _Members(stored).open(part.start)
        return member.pieces() if member else iter(())

    return Window(bytearray(), 0, 0, pieces)


def _identify_file(stored: Stored, record: Record) -> Record:
    """Return a record unchanged, or, if it is damage that covers the whole file, with the kind of the file in `detail`.

    The problem of such damage becomes UNSUPPORTED_FORMAT.
    """
    if record.problem is not Reason.CORRUPT_RECORD or record.start > 0 or record.stop < len(stored):
        return record
    beginning = bytes(stored[:OPENING])
    if begins_record(beginning) or not beginning.strip(b"\0"):
        return record
    kind = next((kind for pattern, kind in OTHER_FILES if pattern.match(beginning)), "a file of another kind")
    return record._replace(problem=Reason.UNSUPPORTED_FORMAT, detail=f"{kind}, no web archive")
