"""Compress with DEFLATE (RFC 1951) to the same bytes on every machine.

zlib and its replacements (zlib-ng, zlib-rs) compress the same text to different bytes, and offsets in compressed files
are part of a document's id. Therefore this module compresses the samples. It searches matches greedily and codes them
with the fixed Huffman code.
"""

import functools
import struct
import zlib

SHORTEST, LONGEST, WINDOW = 3, 258, 32_768
COMPARED = 16  # bytes that are compared in one operation
# Positions of a match that are stored in the table of earlier positions. More positions take more time and save few
# bytes.
ENTERED = 4
LENGTHS = (*range(3, 11), 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227)
LENGTH_BITS = (0,) * 8 + (1,) * 4 + (2,) * 4 + (3,) * 4 + (4,) * 4 + (5,) * 4
DISTANCES = tuple(1 + sum(1 << max(0, n // 2 - 1) for n in range(code)) for code in range(30))
DISTANCE_BITS = tuple(max(0, code // 2 - 1) for code in range(30))


def bits(number: int, width: int) -> str:
    """Return a number as a string of `width` bits, the least significant bit first."""
    return f"{number:0{width}b}"[::-1] if width else ""


def symbol(number: int) -> str:
    """Return the fixed Huffman code of a literal or length symbol (RFC 1951, section 3.2.6)."""
    if number < 144:
        return f"{0b00110000 + number:08b}"
    if number < 256:
        return f"{0b110010000 + number - 144:09b}"
    return f"{number - 256:07b}" if number < 280 else f"{0b11000000 + number - 280:08b}"


def length_code(length: int) -> str:
    """Return the code and the extra bits of a match's length."""
    if length == LONGEST:
        return symbol(285)
    code = max(code for code, start in enumerate(LENGTHS) if start <= length)
    return symbol(257 + code) + bits(length - LENGTHS[code], LENGTH_BITS[code])


LITERAL_CODES = tuple(map(symbol, range(256)))
LENGTH_CODES = {length: length_code(length) for length in range(SHORTEST, LONGEST + 1)}


@functools.cache
def distance_code(distance: int) -> str:
    """Return the code and the extra bits of a match's distance."""
    high = (distance - 1).bit_length()
    code = distance - 1 if distance < 3 else 2 * (high - 1) + ((distance - 1) >> (high - 2) & 1)
    return f"{code:05b}" + bits(distance - DISTANCES[code], DISTANCE_BITS[code])


def match_length(data: bytes, earlier: int, place: int) -> int:
    """Return the number of equal bytes at `place` and at `earlier`, at most `LONGEST`.

    The caller must have compared the first `SHORTEST` bytes.
    """
    most, length = min(LONGEST, len(data) - place), SHORTEST
    while length + COMPARED <= most:
        one, other = earlier + length, place + length
        if data[one : one + COMPARED] != data[other : other + COMPARED]:
            break
        length += COMPARED
    while length < most and data[earlier + length] == data[place + length]:
        length += 1
    return length


def deflate(data: bytes) -> bytes:
    """Return the data as one DEFLATE block."""
    out, last, place, end = ["110"], dict[bytes, int](), 0, len(data)
    while place < end:
        key = data[place : place + SHORTEST]
        earlier = last.get(key)
        if earlier is None or place - earlier > WINDOW or len(key) < SHORTEST:
            out.append(LITERAL_CODES[data[place]])
            last[key] = place
            place += 1
            continue
        length = match_length(data, earlier, place)
        out += (LENGTH_CODES[length], distance_code(place - earlier))
        for within in range(place, place + min(length, ENTERED)):
            last[data[within : within + SHORTEST]] = within
        place += length
    return pack_codes(out)


def pack_codes(codes: list[str]) -> bytes:
    """Return the bytes of a block: its codes and the code of the end of the block."""
    return as_bytes("".join(codes) + symbol(256))


def as_bytes(stream: str) -> bytes:
    """Pack a string of bits into bytes. The first bit is the least significant bit of the first byte."""
    return int(stream[::-1], 2).to_bytes((len(stream) + 7) // 8, "little")


def deflate_repeated(byte: int, count: int) -> bytes:
    """Return a DEFLATE block of `count` equal bytes. The bytes themselves are never in memory."""
    whole, rest = divmod(count - 1, LONGEST)
    one = LENGTH_CODES[LONGEST] + distance_code(1)
    return pack_codes(["110", LITERAL_CODES[byte], one * whole, LITERAL_CODES[byte] * rest])


def gzipped(data: bytes, name: str = "") -> bytes:
    """Return the data as one gzip member without a date. If a file name is given, it is in the header."""
    return gzip_member(deflate(data), zlib.crc32(data), len(data), name)


def gzip_member(block: bytes, checksum: int, size: int, name: str = "") -> bytes:
    """Return a gzip member (RFC 1952) of compressed data.

    Args:
        block: The compressed data.
        checksum: The CRC-32 of the uncompressed data.
        size: The bytes of the uncompressed data.
        name: The file name for the header, or "".
    """
    head = b"\x1f\x8b\x08" + (b"\x08" if name else b"\0") + bytes(4) + b"\0\xff"
    named = name.encode("latin-1") + b"\0" if name else b""
    return head + named + block + struct.pack("<II", checksum, size % (1 << 32))


def zlib_stream(data: bytes) -> bytes:
    """Return the data in zlib's format (RFC 1950), which HTTP calls deflate."""
    return b"\x78\x01" + deflate(data) + struct.pack(">I", zlib.adler32(data))
