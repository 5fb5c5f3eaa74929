"""Read 7z archives: list the members, and decode a member as a stream of pieces of bounded size.

Solid archives, in which several members are compressed together, are supported. py7zr reads the archive's header.
Members are decoded here with the decompressors of the standard library, because py7zr's decompressor reads stored bytes
faster than it returns decoded bytes, and buffers the difference in memory.
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
MAX_DICTIONARY = 1 << 28  # Bytes of an LZMA dictionary. The highest level of 7-Zip needs as much.

# The errors that malformed headers raise in py7zr, in addition to py7zr's own errors.
_HEADER_ERRORS = (
    AssertionError, AttributeError, EOFError, IndexError, KeyError, lzma.LZMAError, MemoryError, OSError,
    OverflowError, TypeError, UnicodeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
_ENCRYPTED = b"\x06\xf1"  # The first bytes of the identifiers of ciphers.


class SevenZipEntry(NamedTuple):
    """A file in an archive. A "folder" of the 7z format is a compressed stream that contains one or more files.

    Attributes:
        name: The path of the file.
        size: The number of decoded bytes.
        crc32: The checksum of the decoded bytes, None if the archive states none.
        start: The offset of the first stored byte of the file's folder.
        stop: The offset after the last stored byte of the folder.
        skip: The number of decoded bytes in the folder before the file.
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
    """Return the files of an archive in the order of its header, or damage if the header cannot be read."""
    import py7zr  # It is imported here, because it imports ciphers and compilers.

    try:
        with py7zr.SevenZipFile(io.BufferedReader(StoredFile(stored))) as archive:
            return _list_entries(archive)
    except py7zr.exceptions.PasswordRequired:
        return Damage(Reason.ENCRYPTED, "the archive's header is encrypted")
    except (py7zr.exceptions.ArchiveError, *_HEADER_ERRORS) as error:
        return Damage(Reason.CORRUPT_RECORD, f"no readable 7z archive: {type(error).__name__}")


def _list_entries(archive: Any) -> list[SevenZipEntry] | Damage:
    """Return the files of an archive that py7zr has opened. Files without data are left out."""
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
    """Yield the decoded bytes of a file in pieces of at most PIECE bytes. Damage is yielded as the last item."""
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
    """Return a decompressor for the folder of a file, or damage if its coder is not supported.

    Raises:
        lzma.LZMAError, MemoryError, ValueError: The coder's settings are invalid.
    """
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
    if dictionary > MAX_DICTIONARY:
        return Damage(Reason.TOO_LARGE, f"a dictionary of {dictionary} bytes")
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{**options, "dict_size": max(dictionary, 4096)}])


class _Copy:
    """The decoder of uncompressed bytes."""

    needs_input, eof, unused_data = True, False, b""

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        return data
