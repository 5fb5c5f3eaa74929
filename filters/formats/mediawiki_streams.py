"""Decoded bytes of a dump, plain or compressed, with how far the stored ones reach: bzip2 streams, gzip members.

Behind a damaged bzip2 stream the next one is read; other damage ends the bytes.
"""

import bz2
import re
import zlib
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from filters.formats.compression import BZIP2, GZIP, OPENING, encoding_of
from filters.formats.damage import Damage
from filters.reasons import Reason

Stored = bytes | mmap

PIECE = 1 << 20
"""decoded bytes taken at a time, at most"""
SLICE = 1 << 16
"""stored bytes fed to a decompressor at a time"""
TRIES = 16
"""beginnings of streams looked at for a place to cut; streams of dumps that can be cut all begin with a page"""

_STREAM = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")
"""a bzip2 stream with at least one block"""
_CUT = b"</page>"


class Chunk(NamedTuple):
    """Decoded bytes, or the damage in their place. All stored bytes before `stop` are accounted for; `fresh`: these are
    the first of a bzip2 stream."""

    data: bytes
    stop: int
    fresh: bool = False
    damage: Damage | None = None


def is_compressed(stored: Stored) -> bool:
    """By the first bytes of a file."""
    return bytes(stored[:3]).startswith((GZIP, BZIP2))


def is_utf8(stored: Stored) -> bool:
    """Whether a dump is in UTF-8, by its first decoded bytes, so that it can be read from within."""
    first = next((chunk.data for chunk in decoded(stored, 0, len(stored)) if chunk.data or chunk.damage), b"")
    return encoding_of(first[:OPENING]) in ("utf-8", "ascii")


def decoded(stored: Stored, start: int, end: int) -> Iterator[Chunk]:
    """The bytes of stored[start:end], which begins where a stream, member or plain text does. Never raises."""
    magic = bytes(stored[start : start + 3])
    if magic == BZIP2:
        yield from _bunzipped(stored, start, end)
    elif magic.startswith(GZIP):
        yield from _gunzipped(stored, start, end)
    else:
        for position in range(start, end, PIECE):
            stop = min(position + PIECE, end)
            yield Chunk(bytes(stored[position:stop]), stop)


def cuts(stored: Stored, split_bytes: int) -> list[int]:
    """Where a dump of UTF-8 can be cut into pieces of about `split_bytes` stored bytes: behind pages of a plain one,
    before bzip2 streams that begin with one. Its start and its end are not among them."""
    found: list[int] = []
    if not is_utf8(stored):
        return found
    bzip2, gzip = stored[:3] == BZIP2, stored[:2] == GZIP
    for wanted in range(split_bytes, 0 if gzip else len(stored), split_bytes):
        if found and found[-1] >= wanted:
            continue
        place = _next_pages(stored, wanted) if bzip2 else stored.find(_CUT, wanted) + len(_CUT)
        if wanted <= place < len(stored):
            found.append(place)
    return found


def begins_with_page(data: bytes) -> bool:
    """Whether decoded bytes begin where a page does, or the end of a dump."""
    return data[:64].lstrip().startswith((b"<page", b"</mediawiki"))


def _next_pages(stored: Stored, position: int) -> int:
    """Where the next bzip2 stream that begins with a page begins; -1 if it is not found soon."""
    for _ in range(TRIES):
        found = _STREAM.search(stored, position)
        if found is None:
            break
        position = found.end()
        first = next(_bunzipped(stored, found.start(), len(stored)))
        if begins_with_page(first.data):
            return found.start()
    return -1


def _bunzipped(stored: Stored, start: int, end: int) -> Iterator[Chunk]:
    position = start
    while position < end:
        inflater, begun, fresh = bz2.BZ2Decompressor(), position, True
        try:
            while not inflater.eof:
                fed = b""
                if inflater.needs_input:
                    fed = bytes(stored[position : min(position + SLICE, end)])
                    if not fed:
                        yield Chunk(b"", end, damage=Damage(Reason.TRUNCATED_RECORD, "the bzip2 stream ends early"))
                        return
                    position += len(fed)
                data = inflater.decompress(fed, PIECE)
                if data or inflater.eof:
                    yield Chunk(data, position - len(inflater.unused_data), fresh)
                    fresh = False
        except OSError:
            found = _STREAM.search(stored, max(begun + 1, position - 2 * SLICE), end)
            position = found.start() if found else end
            damage = Damage(Reason.CORRUPT_RECORD, "a bzip2 stream that does not inflate")
            yield Chunk(b"", position, fresh, damage)
            continue
        position -= len(inflater.unused_data)
        if _is_padding(stored, position, end):
            yield Chunk(b"", end)
            return


def _gunzipped(stored: Stored, start: int, end: int) -> Iterator[Chunk]:
    position = start
    while position < end:
        inflater, fed, hungry = zlib.decompressobj(wbits=31), b"", True
        try:
            while not inflater.eof:
                if hungry:
                    fed = bytes(stored[position : min(position + SLICE, end)])
                    if not fed:
                        yield Chunk(b"", end, damage=Damage(Reason.TRUNCATED_RECORD, "the gzip member ends early"))
                        return
                    position += len(fed)
                data = inflater.decompress(fed, PIECE)
                fed = inflater.unconsumed_tail
                hungry = not fed and len(data) < PIECE
                if data or inflater.eof:
                    yield Chunk(data, position - len(fed) - len(inflater.unused_data))
        except zlib.error as error:
            yield Chunk(b"", end, damage=Damage(Reason.CORRUPT_GZIP, f"the gzip member does not inflate: {error}"))
            return
        position -= len(inflater.unused_data)
        if _is_padding(stored, position, end):
            yield Chunk(b"", end)
            return


def _is_padding(stored: Stored, position: int, end: int) -> bool:
    return position < end and not bytes(stored[position : min(position + OPENING, end)]).strip(b"\0")
