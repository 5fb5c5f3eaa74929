"""7z archives: what they hold, and any member as a stream of bounded pieces, from solid archives too.

py7zr reads the archive's header; its own decompressor takes in stored bytes faster than it gives out decoded ones and
holds the difference, so members are decoded here, by the standard library's decompressors.
"""

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import py7zr
from py7zr.exceptions import ArchiveError

from filters.formats.compression import SLICE
from filters.formats.mediawiki import Damage
from filters.formats.stream import PIECE, Stored
from filters.reasons import Reason

MAGIC = b"7z\xbc\xaf\x27\x1c"
DICTIONARY = 1 << 28
"""bytes that an LZMA decoder may hold: 7-Zip's highest level asks for so many"""

_HEADER_ERRORS = (
    ArchiveError,
    AssertionError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    lzma.LZMAError,
    MemoryError,
    OSError,
    OverflowError,
    TypeError,
    UnicodeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""what py7zr is seen to raise on headers that lie"""
_ENCRYPTED = b"\x06\xf1"
"""how the identifiers of ciphers begin"""


class Member(NamedTuple):
    """A file in an archive: `size` and `crc32` of its bytes, which begin at `skip` of what decodes from
    stored[`start`:`stop`] by the coder `method` with `properties`."""

    name: str
    size: int
    crc32: int | None
    start: int
    stop: int
    skip: int
    method: bytes
    properties: bytes


def members(stored: Stored) -> list[Member] | Damage:
    """The files of an archive, in its order."""
    try:
        archive = py7zr.SevenZipFile(io.BufferedReader(_Reader(stored)))
    except py7zr.exceptions.PasswordRequired:
        return Damage(Reason.ENCRYPTED, "the archive's header is encrypted")
    except _HEADER_ERRORS as error:
        return Damage(Reason.CORRUPT_RECORD, f"no readable 7z archive: {type(error).__name__}")
    with archive:
        return _members(archive)


def _members(archive: Any) -> list[Member] | Damage:
    found: list[Member] = []
    streams = getattr(archive.header, "main_streams", None)
    if streams is None:
        return found
    starts = [archive.afterheader + streams.packinfo.packpos]
    for size in streams.packinfo.packsizes:
        starts.append(starts[-1] + size)
    places, decoded, stream = {}, dict[int, int](), 0
    for folder in streams.unpackinfo.folders:
        packed = max(len(folder.packed_indices), 1)
        if stream + packed >= len(starts):
            return Damage(Reason.CORRUPT_RECORD, "a 7z archive that names more streams than it has")
        places[id(folder)] = (starts[stream], starts[stream + packed])
        stream += packed
    for file in archive.files:
        if file.emptystream or file.folder is None:
            continue
        if len(file.folder.coders) == 1:
            coder = file.folder.coders[0]
            method, properties = bytes(coder["method"]), bytes(coder.get("properties") or b"")
        else:
            method, properties = b"".join(bytes(coder["method"]) for coder in file.folder.coders), b""
            method = _ENCRYPTED if any(coder["method"][:2] == _ENCRYPTED for coder in file.folder.coders) else method
        start, stop = places[id(file.folder)]
        skip = decoded.get(id(file.folder), 0)
        found.append(Member(file.filename, file.uncompressed, file.crc32, start, stop, skip, method, properties))
        decoded[id(file.folder)] = skip + file.uncompressed
    return found


def unpacked(stored: Stored, member: Member) -> Iterator[bytes | Damage]:
    """A member's bytes, at most `PIECE` at a time; damage ends them."""
    try:
        decoder = _decoder(member)
    except (lzma.LZMAError, MemoryError, ValueError) as error:
        yield Damage(Reason.CORRUPT_RECORD, f"a coder that cannot be set up: {error}")
        return
    if isinstance(decoder, Damage):
        yield decoder
        return
    position, left, skip, checksum = member.start, member.size, member.skip, 0
    try:
        while left:
            fed = b""
            if decoder.needs_input:
                fed = bytes(stored[position : min(position + SLICE, member.stop)])
                position += len(fed)
            piece = decoder.decompress(fed, PIECE)
            if not piece and not fed and (decoder.eof or decoder.needs_input):
                yield Damage(Reason.TRUNCATED_RECORD, "the archive ends before its member does")
                return
            if skip:
                piece, skip = piece[skip:], max(skip - len(piece), 0)
            piece = piece[:left]
            left -= len(piece)
            checksum = zlib.crc32(piece, checksum)
            if piece:
                yield piece
    except (EOFError, lzma.LZMAError, OSError, ValueError, zlib.error) as error:
        yield Damage(Reason.CORRUPT_RECORD, f"stored bytes that do not decode: {error}")
        return
    if member.crc32 is not None and checksum != member.crc32:
        yield Damage(Reason.CORRUPT_RECORD, "a member whose checksum does not hold")


def _decoder(member: Member) -> Any:
    """A decompressor with the interface of bz2's, or why there is none. Raises what the standard library does."""
    method, properties = member.method, member.properties
    if method == b"\0":
        return _Copy()
    if method == b"\x04\x02\x02":
        return bz2.BZ2Decompressor()
    if method == b"\x03\x01\x01" and len(properties) == 5:
        packed, dictionary = properties[0], int.from_bytes(properties[1:], "little")
        options = {"id": lzma.FILTER_LZMA1, "lc": packed % 9, "lp": packed // 9 % 5, "pb": packed // 45}
    elif method == b"\x21" and len(properties) == 1 and properties[0] < 40:
        dictionary = (2 | (properties[0] & 1)) << (properties[0] // 2 + 11)
        options = {"id": lzma.FILTER_LZMA2}
    elif method.startswith(_ENCRYPTED):
        return Damage(Reason.ENCRYPTED, "an encrypted member")
    else:
        return Damage(Reason.UNSUPPORTED_FORMAT, f"a 7z coder other than LZMA, LZMA2, BZip2 and Copy: {method.hex()}")
    if dictionary > DICTIONARY:
        return Damage(Reason.TOO_LARGE, f"a dictionary of {dictionary} bytes")
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{**options, "dict_size": max(dictionary, 4096)}])


class _Copy:
    """The coder that does nothing."""

    needs_input, eof = True, False

    def decompress(self, data: bytes, size: int) -> bytes:
        """What comes in."""
        return data


class _Reader(io.RawIOBase):
    """Stored bytes as a file that is read and not copied."""

    def __init__(self, stored: Stored) -> None:
        super().__init__()
        self.stored, self.position = stored, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As many bytes from here as there is room for."""
        data = self.stored[self.position : self.position + len(buffer)]
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: len(self.stored)}[whence]
        self.position = max(origin + offset, 0)
        return self.position

    def tell(self) -> int:
        """The place."""
        return self.position
