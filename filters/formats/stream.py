"""Decompress stored bytes in pieces of bounded size.

One loop reads gzip members, bzip2 streams and any other codec whose decoder has the interface of `bz2.BZ2Decompressor`.
Errors of a decoder become `Damage`. An OSError of the storage is raised.
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

NEWLINE_LIMIT = 1 << 12  # Bytes of newlines that are allowed around a record. The WARC standard has two CRLF after it.
# How often a window decodes its source again from the start, to search for a record after a stated length proved wrong.
MAX_REWINDS = 4
GZIP, BZIP2, ZSTD = b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd"
SLICE = 1 << 16  # Stored bytes that are passed to a decoder at a time.
# Stored bytes of an archive's member that are passed to a decoder at a time. Most members are short, and bytes after
# their end would be copied without use.
MEMBER_SLICE = 1 << 14
OPENING = 1 << 12  # Bytes at the start of a file in which a declaration of its encoding is searched.

SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # A skippable zstd frame (RFC 8878, section 3.1.2).
DICTIONARY_FRAME = b"\x5d\x2a\x4d\x18"  # The first frame of a web archive with a dictionary (WARC-ZSTD 1.0).
DICTIONARY_BYTES = 1 << 24  # The largest dictionary. It is twice the size that the format requires readers to support.
RECORD_OPENING = 1 << 16  # Decoded bytes of a zstd member that are kept, to decide whether its record is complete.
BZIP2_STREAM = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")  # The start of a bzip2 stream with at least one block.
GZIP_ERROR: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # isal's stub declares an instance
DECODER_ERRORS = (GZIP_ERROR, lzma.LZMAError, zlib.error, zstd.ZstdError, EOFError, OSError, ValueError)
_NEWLINES = re.compile(rb"[\r\n]*+")
GZIP_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")  # The upper flag bits are reserved (RFC 1952, section 2.3.1).

Item = TypeVar("Item", bound=Any)  # A named tuple with a field `stored`: the stored bytes that are attributed to it.


@dataclass(frozen=True, slots=True)
class Damage:
    """A range of input that cannot be read.

    Attributes:
        problem: The reason for the ledger.
        detail: A sentence for the dead letter.
    """

    problem: Reason
    detail: str


class Decoder(Protocol):
    """A decompressor with the interface of `bz2.BZ2Decompressor`."""

    @property
    def eof(self) -> bool:
        """True after the end of the stream."""

    @property
    def needs_input(self) -> bool:
        """True if `decompress` needs more input before it can return more bytes."""

    @property
    def unused_data(self) -> bytes:
        """Input after the end of the stream."""

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Decode `data` and return at most `max_length` bytes."""


class CompressedStream:
    """A compressed stream in stored bytes. It can be read once.

    The attributes are complete after the last piece was read.

    Attributes:
        size: The number of decoded bytes.
        fed: The number of stored bytes that were passed to the decoder. It may not have used all of them.
        length: The number of stored bytes of the stream, 0 after damage.
        damage: None if the stream was decoded up to its end.
    """

    def __init__(
        self, stored: StoredView, offset: int, end: int, decoder: Decoder, kind: str, corrupt: Reason, step: int = SLICE
    ) -> None:
        """Prepare to read a stream.

        Args:
            stored: The stored bytes.
            offset: The start of the stream.
            end: The position after the last byte that may belong to the stream.
            decoder: A decoder for one stream.
            kind: The name of the stream in error messages.
            corrupt: The reason for bytes that the decoder rejects.
            step: The number of stored bytes that are passed to the decoder at a time.
        """
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
        """Return all decoded bytes, None if there are more than `limit`. The stream is always decoded up to its end."""
        kept: list[bytes] = []
        for piece in self.pieces():
            if self.size > limit:
                kept.clear()
            elif piece:
                kept.append(piece)
        return None if self.size > limit else b"".join(kept)

    def read_opening(self, size: int) -> bytes:
        """Return at most `size` bytes, decoded from the first `step` stored bytes. Return b"" if they are damaged."""
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
    """A zstd frame (RFC 8878), and the following frames if they contain the continuation of its record."""

    def __init__(
        self,
        stored: StoredView,
        offset: int,
        dictionary: zstd.ZstdDict | None,
        continues: Callable[[bytes, int, int], bool],
        step: int = MEMBER_SLICE,
    ) -> None:
        """Prepare to read a member.

        Args:
            stored: The stored bytes.
            offset: The start of the first frame.
            dictionary: The dictionary of the archive, None without a dictionary.
            continues: Returns True if the next frame belongs to the same record. Its arguments are the first bytes of
                the record, the number of its decoded bytes so far, and the offset of the next frame.
            step: The number of stored bytes that are passed to the decoder at a time.
        """
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
    """Return a decoder for one zstd frame."""
    return zstd.ZstdDecompressor(dictionary)


def read_dictionary(stored: StoredView) -> zstd.ZstdDict | None:
    """Return the dictionary of a WARC-ZSTD file, None if it has no usable dictionary.

    The dictionary is the content, plain or compressed, of a skippable frame at the start of the file
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
    """Decoded bytes, or the damage that replaces them.

    Attributes:
        data: Decoded bytes. Empty if there is damage.
        stop: The offset in the stored bytes up to which they belong to this chunk and the chunks before it.
        fed: The offset in the stored bytes up to which they were passed to the decoder.
        starts_stream: True if the data is the first of a gzip member or bzip2 stream.
        damage: The damage, or None.
    """

    data: bytes
    stop: int
    fed: int
    starts_stream: bool = False
    damage: Damage | None = None


def is_compressed(stored: StoredView) -> bool:
    """Return True if a file is compressed as a whole by gzip or bzip2, judged by its first bytes."""
    return bytes(stored[:3]).startswith((GZIP, BZIP2))


def decode_chunks(stored: StoredView, start: int, end: int, resume: bool = False) -> Iterator[Chunk]:
    """Yield the decoded bytes of stored[start:end]: a sequence of gzip members or bzip2 streams, or plain bytes.

    Args:
        stored: The whole file. Its first bytes determine the codec.
        start: The start of a gzip member, of a bzip2 stream, or of plain bytes.
        end: The end of the range. Zero bytes from the end of a member to `end` are padding. Other bytes between members
            are damage.
        resume: If True, continue at the next bzip2 stream after a corrupt one. After other damage reading always stops.
    """
    magic, position = bytes(stored[:3]), start
    if not magic.startswith((GZIP, BZIP2)):
        for data in slice_stored(stored, start, end):
            position += len(data)
            yield Chunk(data, position, position)
        return
    while position < end:
        begin, starts_stream = position, True
        if magic == BZIP2:
            decoder = bz2.BZ2Decompressor()
            stream = CompressedStream(stored, begin, end, decoder, "bzip2 stream", Reason.CORRUPT_RECORD)
        else:
            stream = GzipMember(stored, begin, end, SLICE)
        for piece in stream.pieces():
            fed = begin + stream.fed
            yield Chunk(piece, fed - len(stream.decoder.unused_data), fed, starts_stream)
            starts_stream = False
        position = begin + stream.length
        if stream.damage is not None:
            position = end
            if resume and stream.damage.problem is Reason.CORRUPT_RECORD:
                after = max(begin + 1, begin + stream.fed - 2 * SLICE)
                found = BZIP2_STREAM.search(buffer_of(stored, after, end), after, end)
                position = found.start() if found else end
            else:
                starts_stream = False  # A truncated stream is reported together with the data before it.
            yield Chunk(b"", position, begin + stream.fed, starts_stream, stream.damage)
        elif position < end and _is_padding(stored, position, end):
            yield Chunk(b"", end, end)
            return


def _is_padding(stored: StoredView, start: int, end: int) -> bool:
    """Return True if all bytes of stored[start:end] are zero."""
    # A short range is examined first, because it is enough in most cases.
    middle = min(start + OPENING, end)
    return not any(
        data.strip(b"\0") for data in chain([bytes(stored[start:middle])], slice_stored(stored, middle, end))
    )


def decode_stored(stored: StoredView) -> Iterator[bytes | Damage]:
    """Yield the decoded bytes of a plain, gzip or bzip2 file in chunks. Damage is yielded as the last item."""
    for chunk in decode_chunks(stored, 0, len(stored)):
        if chunk.damage or chunk.data:
            yield chunk.damage or chunk.data


def add_remaining_bytes(items: Iterable[Item], size: int) -> Iterator[Item]:
    """Yield items, and attribute to the last one all stored bytes that remain of `size`."""
    held: Item | None = None
    for item in items:
        if held is not None:
            size -= held.stored
            yield held
        held = item
    if held is not None:
        yield held._replace(stored=size)


class ChunkReader:
    """A forward reader of decoded bytes that are given in chunks.

    Attributes:
        position: The offset of the next byte in the decoded bytes.
        damage: The damage at which the chunks ended, or TOO_LARGE if there were more than `limit` bytes. Else None.
    """

    def __init__(self, chunks: Iterable[bytes | Damage], limit: int | None = None) -> None:
        self.chunks, self.limit = iter(chunks), limit
        self.held, self.used, self.position, self.received = b"", 0, 0, 0
        self.damage: Damage | None = None

    def _receive(self) -> bool:
        """Take the next chunk. Return False, and set `damage` if there is any, if there is none."""
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
        """Return the next `count` bytes without moving. It may be called only before other methods."""
        first = self.take(count)
        self.put_back(first)
        return first

    def put_back(self, data: bytes) -> None:
        """Put back the bytes that were taken last, so that they are read again."""
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
        """Move forward to a position. Return False if the bytes end before it."""
        while self.position < position:
            if self.used == len(self.held) and not self._receive():
                return False
            step = min(len(self.held) - self.used, position - self.position)
            self.used += step
            self.position += step
        return True


def read_decoded(stored: StoredView, limit: int) -> bytes | Damage:
    """Return the decoded bytes of a whole file, or damage (TOO_LARGE if there are more than `limit` bytes)."""
    reader = ChunkReader(decode_stored(stored))
    data = reader.take(limit + 1)
    if len(data) > limit:
        return Damage(Reason.TOO_LARGE, f"over {limit} bytes")
    return reader.damage or data


def read_ranges(chunks: Iterable[bytes | Damage], ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """Yield (index, bytes) for each of the given ranges of decoded bytes, in the order of their offsets.

    Args:
        chunks: The decoded bytes.
        ranges: Pairs (offset, length). Ranges that reach beyond the decoded bytes are not yielded.
    """
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
    """A window on decoded bytes, which holds only a part of them in memory.

    Attributes:
        data: The bytes [base, end).
        base: The position of the first byte in `data`.
        end: The position after the last byte in `data`.
        source: Returns an iterator over all decoded bytes from the start. None if `data` contains all bytes.
        no_blank_line_before: There is no blank line between the last header that was searched and this position.
    """

    def __init__(
        self, data: Stored | bytearray, start: int, end: int, source: Callable[[], Iterator[bytes]] | None = None
    ) -> None:
        self.data, self.base, self.end, self.source = data, 0, end, source
        self.pieces = source() if source else None
        self.rewinds = MAX_REWINDS
        self.no_blank_line_before = start

    def reach(self, position: int) -> bool:
        """Read bytes from the source up to `position`. Return False if they end before it."""
        while self.end < position:
            piece = next(self.pieces, None) if self.pieces else None
            if piece is None:
                return False
            assert isinstance(self.data, bytearray)
            self.data += piece
            self.end += len(piece)
        return True

    def forget(self, position: int) -> None:
        """Release the bytes before `position`, if there are enough of them to be worth the copy."""
        if isinstance(self.data, bytearray) and position - self.base >= PIECE:
            del self.data[: position - self.base]
            self.base = position

    def skip(self, position: int) -> bool:
        """Read bytes up to `position` like `reach`, and release the bytes before it."""
        while self.end < position:
            self.forget(self.end)
            if not self.reach(self.end + 1):
                return False
        return True

    def rewind(self, position: int) -> None:
        """Make the released bytes from `position` available again, by decoding the source from its start.

        After MAX_REWINDS calls that decoded the source, nothing is done.
        """
        if self.base > position and self.source and self.rewinds:
            self.rewinds -= 1
            self.data, self.base, self.end, self.pieces = bytearray(), 0, 0, self.source()
            self.no_blank_line_before = position
            self.skip(position)

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop), as far as the window holds them."""
        return bytes(self.data[start - self.base : min(stop, self.end) - self.base])

    def search(self, pattern: re.Pattern[bytes], start: int, stop: int) -> re.Match[bytes] | None:
        """Search a pattern in the bytes [start, stop) of the window. Positions in the match count from `base`."""
        first, last = max(start - self.base, 0), max(min(stop, self.end) - self.base, 0)
        # One byte before the range is also needed, because some patterns have a lookbehind of one byte.
        return pattern.search(buffer_of(self.data, first - 1, last), first, last)

    def match(self, pattern: re.Pattern[bytes], position: int, size: int) -> re.Match[bytes] | None:
        """Match a pattern of at most `size` bytes at `position`. Positions in the match count from `base`."""
        self.reach(position + size)
        first = position - self.base
        return pattern.match(buffer_of(self.data, first, first + size), first, self.end - self.base)

    def skip_newlines(self, position: int) -> int:
        """Return the end of the run of newlines at `position`, at most NEWLINE_LIMIT bytes after it."""
        self.reach(position + NEWLINE_LIMIT)
        stop = min(position + NEWLINE_LIMIT, self.end)
        first, last = position - self.base, stop - self.base
        found = _NEWLINES.match(buffer_of(self.data, first, last), first, last)
        return found.end() + self.base if found else position
