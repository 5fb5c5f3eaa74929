"""Web archives, framed so that every stored byte is accounted for: WARC/0.17 to 1.1 (ISO 28500:2017) and ARC.

A gzipped archive is a row of gzip members, as a rule one a record. A member is the unit of integrity: its CRC vouches
for all its records or for none. An uncompressed archive is read by its stated lengths. What is damaged becomes a frame
that names the problem, and reading goes on at the next place where a record begins.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from filters.formats.arc import ARC
from filters.formats.gzip_members import Member, holds_record, next_member
from filters.formats.headers import Headers
from filters.formats.stream import NEWLINE_LIMIT, PIECE, Stored, Syntax, Window
from filters.formats.warc_records import WARC, Record, only_record, records
from filters.reasons import Reason

RETRIES = 16
"""After damage the next member is looked for within bytes that inflated in vain, until such bytes add up to this many
times the archive's size; then behind them. It keeps hostile archives linear."""

_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")  # a frame or a skippable frame (RFC 8878, section 3.1)


class NoSuchRecordError(LookupError):
    """The bytes at a locator are not the record that was there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_record_bytes`: decoded bytes of one record, header and block. `max_stored_bytes`: stored bytes of a gzip
    member that holds one record. A larger one is skipped as TOO_LARGE."""

    max_record_bytes: int
    max_stored_bytes: int = sys.maxsize


class Frame(NamedTuple):
    """One record, or one stretch of bytes that is none.

    `offset`, `length`: the stored bytes, that is the gzip member or the range of an uncompressed archive.
    `inner_offset`, `inner_length`: the record within the decoded bytes of that range, with the newlines around it.
    `stored`: how many stored bytes the frame accounts for (a member's bytes are shared out among its records by their
    decoded lengths); over an archive they sum to its size. `version`: such as "1.0", or "ARC/1". `headers`: an ARC
    record has those that WARC would give it. `headers`, `version` and `block` are empty if there is a `problem`, which
    `detail` explains without naming a place.
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


@dataclass(frozen=True, slots=True)
class Boundary:
    """A piece of an archive, to be framed by itself: the stored bytes [start, end), and how many stored bytes before
    it inflated in vain (`RETRIES`)."""

    start: int
    end: int
    wasted: int


def frames(stored: Stored, limits: Limits, start: int = 0, end: int | None = None, wasted: int = 0) -> Iterator[Frame]:
    """Every record and every stretch of damage of `stored`[`start`:`end`], in order, without a gap.

    No bytes make it raise. `stored` is the whole archive, so that its pieces give what the whole does; `start`, `end`
    and `wasted` are a `Boundary`'s. Takes memory of the order of `limits.max_record_bytes`.
    """
    end = len(stored) if end is None else end
    if start >= end:
        return
    form = _form(stored)
    if form == "gzip":
        yield from _gzip_frames(stored, limits, start, end, wasted)
    elif isinstance(form, Syntax):
        for record in records(Window(stored, start, len(stored)), start, limits.max_record_bytes, form):
            length = record.stop - record.start
            yield _frame(record, record.start, length, 0, length)
            if record.stop >= end:
                return
    else:
        yield _frame(Record(0, 0, problem=Reason.UNSUPPORTED_FORMAT, detail=form), start, end - start, 0, end - start)


def boundaries(stored: Stored, limits: Limits, split_bytes: int) -> list[Boundary]:
    """Where an archive can be cut so that `frames` over the pieces gives just the frames of the whole: at the first
    gzip member, or record of an uncompressed archive, at or after each multiple of `split_bytes`. One member is never
    cut. Reads the archive once and keeps no block."""
    form = _form(stored)
    places: Iterator[tuple[int, int]] = iter(())
    if form == "gzip":
        places = ((step.start, step.wasted) for step in _steps(stored, 0, len(stored), 0, keep=-1))
    elif isinstance(form, Syntax):
        window = Window(stored, 0, len(stored))
        places = ((record.start, 0) for record in records(window, 0, limits.max_record_bytes, form, blocks=False))
    cuts, due = [(0, 0)], split_bytes
    for start, wasted in places:
        if start >= due:
            cuts.append((start, wasted))
            due = (start // split_bytes + 1) * split_bytes
    ends = [start for start, _ in cuts[1:]] + [len(stored)]
    return [Boundary(start, end, wasted) for (start, wasted), end in zip(cuts, ends, strict=True)]


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
    return Frame(offset, length, inner_offset, record[1] - record[0], stored, *record[2:])


def _form(stored: Stored) -> Syntax | str:
    """ "gzip", the syntax of an uncompressed archive, or the name of a format that is not read. A beginning that is no
    record is damage, and the first record behind it tells."""
    beginning = bytes(stored[: NEWLINE_LIMIT + ARC.line_bytes])
    if _ZSTD.match(beginning):
        return "zstd archive"
    if holds_record(stored, 0):
        return "gzip"
    beginning = beginning.lstrip(b"\r\n")
    for syntax in (WARC, ARC):
        if syntax.line.match(beginning):
            return syntax
    within = PIECE
    while True:  # in steps, as what one form looks for may be far where the other's is near
        stop = min(within, len(stored))
        first: tuple[int, Syntax | str] = (stop, "gzip")
        for syntax in (WARC, ARC):
            line = syntax.next_line.search(stored, 0, first[0])
            first = (line.start(), syntax) if line else first
        if next_member(stored, 0, first[0]) < first[0]:
            return "gzip"
        if first[0] < stop or stop == len(stored):
            return first[1]
        within *= 8


class _Step(NamedTuple):
    """A gzip member, inflated, at [start, stop), or damage up to the next one. `wasted`: before it. `whole`: its
    decoded bytes, if they are not too many."""

    start: int
    stop: int
    wasted: int
    member: Member
    whole: bytes | None


def _steps(stored: Stored, start: int, end: int, wasted: int, keep: int) -> Iterator[_Step]:
    """The members and the damage that begin in [start, end), read without regard to `end`; `keep`: decoded bytes that
    are kept of one member at most."""
    while start < end:
        member = Member(stored, start)
        whole = member.joined(keep)
        if member.problem is None:
            stop = start + member.length
            yield _Step(start, stop, wasted, member, whole)
        else:
            before, wasted = wasted, wasted + member.fed
            behind = start + (1 if wasted <= RETRIES * len(stored) else max(member.fed, 1))
            stop = next_member(stored, behind, len(stored))
            yield _Step(start, stop, before, member, None)
        start = stop


def _gzip_frames(stored: Stored, limits: Limits, start: int, end: int, wasted: int) -> Iterator[Frame]:
    for step in _steps(stored, start, end, wasted, limits.max_record_bytes):
        only = only_record(step.whole) if step.whole else None
        length = step.member.length
        if only and length <= limits.max_stored_bytes:
            yield Frame(step.start, length, 0, step.member.size, length, *only)
        elif step.member.problem is not None:
            yield from _damage_frames(stored, limits, step)
        elif step.member.size == 0:
            empty = Record(0, 0, problem=Reason.CORRUPT_RECORD, detail="an empty gzip member")
            yield _frame(empty, step.start, length, 0, length)
        else:
            yield from _member_frames(stored, limits, step)


def _damage_frames(stored: Stored, limits: Limits, step: _Step) -> Iterator[Frame]:
    problem, length = Reason.CORRUPT_GZIP, step.stop - step.start
    if step.member.problem is Reason.TRUNCATED_RECORD and step.stop == len(stored):
        problem = Reason.TRUNCATED_RECORD
        yield from _before_the_cut(stored, limits, step)
    damage = Record(0, 0, problem=problem, detail=step.member.detail)
    yield _frame(damage, step.start, length, 0, length)


def _member_frames(stored: Stored, limits: Limits, step: _Step) -> Iterator[Frame]:
    if step.whole is None:  # too large to hold, so it is inflated a second time, record by record
        window = Window(bytearray(), 0, 0, lambda: Member(stored, step.start).pieces())
    else:
        window = Window(step.whole, 0, len(step.whole))
    length, size = step.member.length, step.member.size
    for record in records(window, 0, limits.max_record_bytes):
        if length > limits.max_stored_bytes and record.start == 0 and record.stop == size and record.problem is None:
            detail = f"{length} stored bytes"
            record = Record(record.start, record.stop, problem=Reason.TOO_LARGE, detail=detail)
        share = length * record.stop // size - length * record.start // size
        yield _frame(record, step.start, length, record.start, share)


def _before_the_cut(stored: Stored, limits: Limits, step: _Step) -> Iterator[Frame]:
    """The whole records of a last member that is cut off, where it holds many: no checksum vouches for them, but each
    ended as a record does and another began. They account for no stored bytes; the damage behind them does for all."""
    window = Window(bytearray(), 0, 0, lambda: Member(stored, step.start).pieces())
    before: Record | None = None
    for record in records(window, 0, limits.max_record_bytes):
        if before is not None and before.problem is None:
            yield _frame(before, step.start, step.stop - step.start, before.start, 0)
        before = record
