"""7z archives: their members, and any member as a stream of bounded pieces, from solid archives too.

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

from filters.formats.stored import Stored, StoredFile
from filters.formats.stream import CompressedStream, Damage, Decoder
from filters.reasons import Reason

MAGIC = b"7z\xbc\xaf\x27\x1c"
DICTIONARY = 1 << 28  # bytes that an LZMA decoder may hold, as 7-Zip's highest level needs

# What headers that lie raise, beside py7zr's own errors.
_HEADER_ERRORS = (
    AssertionError, AttributeError, EOFError, IndexError, KeyError, lzma.LZMAError, MemoryError, OSError,
    OverflowError, TypeError, UnicodeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
_ENCRYPTED = b"\x06\xf1"  # how the identifiers of ciphers begin


class SevenZipEntry(NamedTuple):
    """A file in an archive.

    Attributes:
        name: Its path.
        size: The number of its decoded bytes.
        crc32: The checksum of its decoded bytes, None if the archive states none.
        start: Where the stored bytes of its folder begin.
        stop: Where they end.
        skip: Decoded bytes of the folder before the file.
        method: The identifier of the folder's coder.
        properties: The coder's settings.
    """

    name: str
    size: int
    crc32: int | None
    start: int
    stop: int
    skip: int
    method: bytes
    properties: bytes


def list_entries(stored: Stored) -> list[SevenZipEntry] | Damage:
    """Return the files of an archive, in its order."""
    import py7zr  # here, since it imports ciphers and compilers

    try:
        with py7zr.SevenZipFile(io.BufferedReader(StoredFile(stored))) as archive:
            return _list_entries(archive)
    except py7zr.exceptions.PasswordRequired:
        return Damage(Reason.ENCRYPTED, "the archive's header is encrypted")
    except (py7zr.exceptions.ArchiveError, *_HEADER_ERRORS) as error:
        return Damage(Reason.CORRUPT_RECORD, f"no readable 7z archive: {type(error).__name__}")


def _list_entries(archive: Any) -> list[SevenZipEntry] | Damage:
    found: list[SevenZipEntry] = []
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
        coders = file.folder.coders
        method, properties = b"".join(bytes(coder["method"]) for coder in coders), b""
        if len(coders) == 1:
            properties = bytes(coders[0].get("properties") or b"")
        elif any(coder["method"][:2] == _ENCRYPTED for coder in coders):
            method = _ENCRYPTED
        start, stop = places[id(file.folder)]
        skip = decoded.get(id(file.folder), 0)
        found.append(SevenZipEntry(file.filename, file.uncompressed, file.crc32, start, stop, skip, method, properties))
        decoded[id(file.folder)] = skip + file.uncompressed
    return found


def decode_entry(stored: Stored, entry: SevenZipEntry) -> Iterator[bytes | Damage]:
    """Yield a file's bytes, at most `PIECE` at a time; damage ends them."""
    try:
        decoder = _create_decoder(entry)
    except (lzma.LZMAError, MemoryError, ValueError) as error:
        decoder = Damage(Reason.CORRUPT_RECORD, f"a coder that cannot be set up: {error}")
    if isinstance(decoder, Damage):
        yield decoder
        return
    stream = CompressedStream(stored, entry.start, entry.stop, decoder, "archive", Reason.CORRUPT_RECORD)
    left, skip, checksum = entry.size, entry.skip, 0
    pieces = stream.pieces()
    while left and (piece := next(pieces, None)) is not None:
        piece, skip = piece[skip:][:left], max(skip - len(piece), 0)
        left -= len(piece)
        checksum = zlib.crc32(piece, checksum)
        if piece:
            yield piece
    if stream.damage is not None:
        yield stream.damage
    elif left:
        yield Damage(Reason.TRUNCATED_RECORD, "the archive ends before its member does")
    elif entry.crc32 is not None and checksum != entry.crc32:
        yield Damage(Reason.CORRUPT_RECORD, "a member whose checksum does not hold")


def _create_decoder(entry: SevenZipEntry) -> Decoder | Damage:
    """Return a file's decompressor, or damage. Raises what the standard library does."""
    method, properties = entry.method, entry.properties
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
    """The coder of bytes stored uncompressed."""

    needs_input, eof, unused_data = True, False, b""

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return data
