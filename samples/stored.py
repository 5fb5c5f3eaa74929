"""Write streams of uncompressed blocks in formats that the standard library cannot write: brotli and zstandard."""

from deflate import as_bytes, bits

PIECE = 1 << 16  # bytes per meta-block


def brotli(data: bytes) -> bytes:
    """Return the data as a brotli stream of uncompressed meta-blocks (RFC 7932, sections 9.1 and 9.2)."""
    out, window = bytearray(), "0"  # a window of 16 bits
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE]
        # Header bits: 0, not the last meta-block; 00, a length of four nibbles; the length; 1, uncompressed.
        out += as_bytes(window + "0" + "00" + bits(len(piece) - 1, 16) + "1") + piece
        window = ""
    return bytes(out) + as_bytes(window + "11")  # 11: the last meta-block, which is empty


def zstandard(data: bytes) -> bytes:
    """Return the data as a zstandard frame with one raw block (RFC 8878, sections 3.1.1.1 and 3.1.1.2)."""
    size = len(data)
    return b"\x28\xb5\x2f\xfd\xa0" + size.to_bytes(4, "little") + (size << 3 | 1).to_bytes(3, "little") + data
