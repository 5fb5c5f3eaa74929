"""Decompression: what stored bytes decode to, in pieces of bounded size.

Gzip members, bzip2 streams and any other codec with the interface of `bz2.BZ2Decompressor` are read by one loop. Only
calls of a decoder are guarded: an OSError of the storage passes through, an error of a codec becomes `Damage`.
"""

import bz2
import lzma
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeVar

from isal import igzip_lib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from filters.formats.stored import PIECE, Stored, StoredView, buffer_of, slice_stored
from filters.reasons import Reason

NEWLINE_LIMIT = 1 << 12  # newline bytes tolerated around a record, where the WARC standard has two CRLF after it
REWINDS = 4  # times that a source is decoded again from its start, for what follows a length that proved wrong
GZIP, BZIP2, ZSTD = b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd"
SLICE = 1 << 16  # stored bytes fed to a decoder at a time
MEMBER_SLICE = 1 << 14  # the same of an archive's member: most are short, and the rest is copied in vain
OPENING = 1 << 12  # bytes in which a file declares its encoding

SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a zstd frame without content (RFC 8878, section 3.1.2)
DICTIONARY_FRAME = b"\x5d\x2a\x4d\x18"  # the first of a web archive that has a dictionary (WARC-ZSTD 1.0)
DICTIONARY_BYTES = 1 << 24  # of a dictionary, twice what the format asks readers to support
RECORD_OPENING = 1 << 16  # decoded bytes of a zstd member that are kept to tell if its record is whole
BZIP2_STREAM = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")  # the start of a bzip2 stream with at least one block
GZIP_ERROR: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # isal's stub gives an instance
DECODER_ERRORS = (GZIP_ERROR, lzma.LZMAError, zlib.error, zstd.ZstdError, EOFError, OSError, ValueError)
_NEWLINES = re.compile(rb"[\r\n]*+")
GZIP_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")  # the upper flag bits are reserved (RFC 1952, section 2.3.1)

Item = TypeVar("Item", bound=Any)  # a named tuple whose `stored` is the number of stored bytes that it accounts for


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of input that cannot be read: the reason for the ledger, and a sentence for the dead letter."""

    problem: Reason
    detail: str


class Decoder(Protocol):
    """A decompressor with the interface of `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool:
        """True after the end of the stream."""

    @property
    def needs_input(self) -> bool:
        """True if `decompress` can return nothing more without further input."""

    @property
    def unused_data(self) -> bytes:
        """Input after the end of the stream."""

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Take input and return at most `max_length` decoded bytes."""


class CompressedStream:
    """A range of stored bytes that one decoder decompresses, once.

    Attributes after the last piece:
        size: Decoded bytes.
        fed: Stored bytes given to the decoder, at least as many as it read.
        length: Stored bytes of the stream, 0 after damage.
        damage: None if the stream ended as its codec has it.
    """

    def __init__(
        self, stored: StoredView, offset: int, end: int, decoder: Decoder, kind: str, corrupt: Reason, step: int = SLICE
    ) -> None:
        self.stored, self.offset, self.end, self.decoder = stored, offset, end, decoder
        self.kind, self.corrupt, self.step = kind, corrupt, step
        self.length = self.size = self.fed = 0
        self.damage: Damage | None = None

    def pieces(self) -> Iterator[bytes]:
        """Yield the decoded bytes, at most `PIECE` at a time."""
        decoder, position = self.decoder, self.offset
        while not decoder.eof:
            data = b""
            if decoder.needs_input:
                data = bytes(self.stored[position : min(position + self.step, self.end)])
                if not data:
                    self.damage = Damage(Reason.TRUNCATED_RECORD, f"the {self.kind} ends early")
                    return
                position += len(data)
                self.fed += len(data)
            try:
                piece = decoder.decompress(data, PIECE)
            except DECODER_ERRORS as error:
                self.damage = Damage(self.corrupt, f"the {self.kind} does not decompress: {error}")
                return
            self.size += len(piece)
            if piece or decoder.eof:
                yield piece
        self.length = self.fed - len(decoder.unused_data)

    def read(self, limit: int) -> bytes | None:
        """Return all decoded bytes, None if there are more than `limit`. The stream is decompressed to its end."""
        kept: list[bytes] = []
        for piece in self.pieces():
            if self.size > limit:
                kept.clear()
            elif piece:
                kept.append(piece)
        return None if self.size > limit else b"".join(kept)

    def read_opening(self, size: int) -> bytes:
        """Return the first decoded bytes of the first stored bytes fed; none if they do not decompress."""
        try:
            return self.decoder.decompress(bytes(self.stored[self.offset : self.offset + self.step]), size)
        except DECODER_ERRORS:
            return b""


class GzipMember(CompressedStream):
    """A gzip member (RFC 1952)."""

    def __init__(self, stored: StoredView, offset: int, end: int | None = None, step: int = MEMBER_SLICE) -> None:
        decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        end = len(stored) if end is None else end
        super().__init__(stored, offset, end, decoder, "gzip member", Reason.CORRUPT_GZIP, step)

    def pieces(self) -> Iterator[bytes]:
        """Yield the decoded bytes, at most `PIECE` at a time."""
        start = bytes(self.stored[self.offset : min(self.offset + 4, self.end)])
        if GZIP_MEMBER.match(start) or (len(start) < 4 and b"\x1f\x8b\x08\0".startswith(start)):
            return super().pieces()
        self.damage = Damage(Reason.CORRUPT_GZIP, "no gzip member begins here")
        return iter(())


class ZstdMember(CompressedStream):
    """A zstd frame (RFC 8878), and the frames after it that its record goes on in.

    `continues` tells from a record's first bytes, the number of its bytes so far and the position of the next frame
    whether that frame belongs to it.
    """

    def __init__(
        self,
        stored: StoredView,
        offset: int,
        dictionary: zstd.ZstdDict | None,
        continues: Callable[[bytes, int, int], bool],
        step: int = MEMBER_SLICE,
    ) -> None:
        self.dictionary, self.continues = dictionary, continues
        decoder = open_zstd(dictionary)
        super().__init__(stored, offset, len(stored), decoder, "zstd frame", Reason.CORRUPT_RECORD, step)

    def pieces(self) -> Iterator[bytes]:
        """Yield the decoded bytes, at most `PIECE` at a time."""
        opening, position = b"", self.offset
        while True:
            decoder = open_zstd(self.dictionary)
            frame = CompressedStream(self.stored, position, self.end, decoder, self.kind, self.corrupt, self.step)
            fed, size = self.fed, self.size
            for piece in frame.pieces():
                self.fed, self.size = fed + frame.fed, size + frame.size
                opening += piece[: RECORD_OPENING - len(opening)]
                yield piece
            self.fed = fed + frame.fed
            if frame.damage is not None:
                self.damage = frame.damage
                return
            position += frame.length
            magic = bytes(self.stored[position : min(position + 4, self.end)])
            if not (magic == ZSTD or SKIPPABLE.match(magic)) or not self.continues(opening, self.size, position):
                break
        self.length = position - self.offset


def open_zstd(dictionary: zstd.ZstdDict | None = None) -> Decoder:
    """Return a decompressor of one zstd frame."""
    return zstd.ZstdDecompressor(dictionary)


def read_dictionary(stored: StoredView) -> zstd.ZstdDict | None:
    """Return the dictionary of a WARC-ZSTD file, None without a usable one.

    It is the content of a skippable frame at the start, plain or compressed
    (https://iipc.github.io/warc-specifications/specifications/warc-zstd/).
    """
    if bytes(stored[:4]) != DICTIONARY_FRAME:
        return None
    size = int.from_bytes(stored[4:8], "little")
    content = bytes(stored[8 : 8 + min(size, DICTIONARY_BYTES)])
    try:
        if content.startswith(ZSTD):
            content = zstd.ZstdDecompressor().decompress(content, DICTIONARY_BYTES)
        return zstd.ZstdDict(content)
    except DECODER_ERRORS:
        return None


class Chunk(NamedTuple):
    """Decoded bytes, or the damage in their place.

    Attributes:
        data: Decoded bytes, empty with damage.
        stop: All stored bytes before it are accounted for.
        fed: Stored bytes before it have been given to the decoder.
        fresh: The data are the first of a gzip member or bzip2 stream.
        damage: None without damage.
    """

    data: bytes
    stop: int
    fed: int
    fresh: bool = False
    damage: Damage | None = None


def is_compressed(stored: StoredView) -> bool:
    """Return True if a file is compressed as a whole by gzip or bzip2, judged by its first bytes."""
    return bytes(stored[:3]).startswith((GZIP, BZIP2))


def decode_chunks(stored: StoredView, start: int, end: int, resume: bool = False) -> Iterator[Chunk]:
    """Yield the decoded bytes of stored[start:end]: a run of gzip members or bzip2 streams, or plain bytes.

    Args:
        stored: The whole file, whose first bytes tell the codec.
        start: Where a member, a stream or plain bytes begin.
        end: Where they end. Zero bytes from a member's end to here are padding; others between members are damage.
        resume: Read on at the next bzip2 stream after a damaged one; other damage always ends the bytes.
    """
    magic, position = bytes(stored[:3]), start
    if not magic.startswith((GZIP, BZIP2)):
        for data in slice_stored(stored, start, end):
            position += len(data)
            yield Chunk(data, position, position)
        return
    while position < end:
        begin, fresh = position, True
        if magic == BZIP2:
            decoder = bz2.BZ2Decompressor()
            stream = CompressedStream(stored, begin, end, decoder, "bzip2 stream", Reason.CORRUPT_RECORD)
        else:
            stream = GzipMember(stored, begin, end, SLICE)
        for piece in stream.pieces():
            fed = begin + stream.fed
            yield Chunk(piece, fed - len(stream.decoder.unused_data), fed, fresh)
            fresh = False
        position = begin + stream.length
        if stream.damage is not None:
            position = end
            if resume and stream.damage.problem is Reason.CORRUPT_RECORD:
                after = max(begin + 1, begin + stream.fed - 2 * SLICE)
                found = BZIP2_STREAM.search(buffer_of(stored, after, end), after, end)
                position = found.start() if found else end
            else:
                fresh = False  # bytes that end early belong to what is before them
            yield Chunk(b"", position, begin + stream.fed, fresh, stream.damage)
        elif position < end and _is_padding(stored, position, end):
            yield Chunk(b"", end, end)
            return


def _is_padding(stored: StoredView, start: int, end: int) -> bool:
    """Return True if all bytes of stored[start:end] are zero; the first few tell in most cases."""
    behind = min(start + OPENING, end)
    return not any(
        data.strip(b"\0") for data in chain([bytes(stored[start:behind])], slice_stored(stored, behind, end))
    )


def decode_stored(stored: StoredView) -> Iterator[bytes | Damage]:
    """Yield the decoded bytes of a file, compressed by gzip or bzip2 or plain; damage ends them."""
    for chunk in decode_chunks(stored, 0, len(stored)):
        if chunk.damage or chunk.data:
            yield chunk.damage or chunk.data


def settle(items: Iterable[Item], size: int) -> Iterator[Item]:
    """Yield items; the last one accounts for all stored bytes that are left of `size`."""
    held: Item | None = None
    for item in items:
        if held is not None:
            size -= held.stored
            yield held
        held = item
    if held is not None:
        yield held._replace(stored=size)


class ChunkReader:
    """Decoded bytes that arrive in chunks, read forwards, at most `limit` of them.

    `damage` is set where the chunks end in damage or exceed the limit.
    """

    def __init__(self, chunks: Iterable[bytes | Damage], limit: int | None = None) -> None:
        self.chunks, self.limit = iter(chunks), limit
        self.held, self.used, self.position, self.received = b"", 0, 0, 0
        self.damage: Damage | None = None

    def _receive(self) -> bool:
        chunk = next(self.chunks, None)
        if isinstance(chunk, bytes):
            self.received += len(chunk)
            if self.limit is None or self.received <= self.limit:
                self.held, self.used = chunk, 0
                return True
            chunk = Damage(Reason.TOO_LARGE, f"over {self.limit} bytes after decompression")
        self.damage, self.chunks = chunk or self.damage, iter(())
        return False

    def peek(self, count: int) -> bytes:
        """Return the first `count` bytes without moving. Call it before anything else is read."""
        first = self.take(count)
        self.put_back(first)
        return first

    def put_back(self, data: bytes) -> None:
        """Return the bytes that were taken last, so that they are read again."""
        self.held, self.used, self.position = data + self.held[self.used :], 0, self.position - len(data)

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer at the end."""
        parts: list[bytes] = []
        wanted = count
        while wanted and (self.used < len(self.held) or self._receive()):
            parts.append(self.held[self.used : self.used + wanted])
            self.used += len(parts[-1])
            wanted -= len(parts[-1])
        self.position += count - wanted
        return b"".join(parts)

    def skip_to(self, position: int) -> bool:
        """Continue from a later position; return False if the bytes end before it."""
        while self.position < position:
            if self.used == len(self.held) and not self._receive():
                return False
            step = min(len(self.held) - self.used, position - self.position)
            self.used += step
            self.position += step
        return True


def read_decoded(stored: StoredView, limit: int) -> bytes | Damage:
    """Return the decoded bytes of a whole file, or `TOO_LARGE` damage if there are more than `limit`."""
    reader = ChunkReader(decode_stored(stored))
    data = reader.take(limit + 1)
    if len(data) > limit:
        return Damage(Reason.TOO_LARGE, f"over {limit} bytes")
    return reader.damage or data


def read_ranges(chunks: Iterable[bytes | Damage], ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """Yield the decoded bytes of each (offset, length) that lies within the chunks, with its index, by offset."""
    waiting = sorted(enumerate(ranges), key=lambda item: item[1][0])
    held, base = bytearray(), 0
    for chunk in chunks:
        if not waiting:
            return
        held += chunk if isinstance(chunk, bytes) else b""
        while waiting and base + len(held) >= sum(waiting[0][1]):
            index, (offset, length) = waiting.pop(0)
            yield index, bytes(held[offset - base :][:length])
        keep = max(waiting[0][1][0] - base, 0) if waiting else 0
        base += len(held[:keep])
        del held[:keep]


# --- a window on decoded bytes ---


class Window:
    """Decoded bytes [base, end) held in `data`: all of them, or the part of `source` received so far.

    `source` returns the pieces from the start each time it is called.
    """

    def __init__(
        self, data: Stored | bytearray, start: int, end: int, source: Callable[[], Iterator[bytes]] | None = None
    ) -> None:
        self.data, self.base, self.end, self.source = data, 0, end, source
        self.pieces = source() if source else None
        self.rewinds = REWINDS
        self.blankless = start  # no blank line begins between the last header searched and here

    def reach(self, position: int) -> bool:
        """Receive bytes up to `position`; return False if they end before it."""
        while self.end < position:
            piece = next(self.pieces, None) if self.pieces else None
            if piece is None:
                return False
            assert isinstance(self.data, bytearray)
            self.data += piece
            self.end += len(piece)
        return True

    def forget(self, position: int) -> None:
        """Release the bytes before `position`, in steps large enough to pay."""
        if isinstance(self.data, bytearray) and position - self.base >= PIECE:
            del self.data[: position - self.base]
            self.base = position

    def skip(self, position: int) -> bool:
        """Receive bytes up to `position` as `reach` does, without holding those before it."""
        while self.end < position:
            self.forget(self.end)
            if not self.reach(self.end + 1):
                return False
        return True

    def rewind(self, position: int) -> None:
        """Hold the bytes from `position` on again, at most `REWINDS` times."""
        if self.base > position and self.source and self.rewinds:
            self.rewinds -= 1
            self.data, self.base, self.end, self.pieces = bytearray(), 0, 0, self.source()
            self.blankless = position
            self.skip(position)

    def part(self, start: int, stop: int) -> bytes:
        """Return the held bytes of [start, stop)."""
        return bytes(self.data[start - self.base : min(stop, self.end) - self.base])

    def search(self, pattern: re.Pattern[bytes], start: int, stop: int) -> re.Match[bytes] | None:
        """Search the held bytes of [start, stop). Positions in the match count from `base`."""
        first, last = max(start - self.base, 0), max(min(stop, self.end) - self.base, 0)
        return pattern.search(buffer_of(self.data, first - 1, last), first, last)  # patterns look back by one byte

    def match(self, pattern: re.Pattern[bytes], position: int, size: int) -> re.Match[bytes] | None:
        """Match a pattern that looks at up to `size` bytes at `position`."""
        self.reach(position + size)
        first = position - self.base
        return pattern.match(buffer_of(self.data, first, first + size), first, self.end - self.base)

    def skip_newlines(self, position: int) -> int:
        """Return the end of the run of newlines at `position`, at most `NEWLINE_LIMIT` further on."""
        self.reach(position + NEWLINE_LIMIT)
        stop = min(position + NEWLINE_LIMIT, self.end)
        first, last = position - self.base, stop - self.base
        found = _NEWLINES.match(buffer_of(self.data, first, last), first, last)
        return found.end() + self.base if found else position
