"""Streams of uncompressed blocks in formats that the standard library cannot write: brotli and zstandard."""

from deflate import as_bytes, bits

PIECE = 1 << 16


def brotli(data: bytes) -> bytes:
    """Return the data as a brotli stream of stored meta-blocks (RFC 7932, sections 9.1 and 9.2)."""
    out, window = bytearray(), "0"  # a window of 16 bits
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE]
        out += as_bytes(window + "0" + "00" + bits(len(piece) - 1, 16) + "1") + piece  # not the last; 4 nibbles; stored
        window = ""
    return bytes(out) + as_bytes(window + "11")  # the last, and empty


def zstandard(data: bytes) -> bytes:
    """Return the data as a zstandard frame with one raw block (RFC 8878, sections 3.1.1.1 and 3.1.1.2)."""
    size = len(data)
    return b"\x28\xb5\x2f\xfd\xa0" + size.to_bytes(4, "little") + (size << 3 | 1).to_bytes(3, "little") + data
