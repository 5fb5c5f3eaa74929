"""Write zip archives that have the same bytes on every machine: fixed date, no owners, compressed by `deflate`."""

import struct
import zlib

from deflate import deflate

UNIX, DEFLATED, UTF_8, FIRST_DAY = 0x0314, 8, 0x0800, 0x0021


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip archive of the files (APPNOTE 4.3). All dates are 1980-01-01, the first day that zip can express."""
    out, directory = bytearray(), bytearray()
    for name, data in files.items():
        block, path = deflate(data), name.encode()
        about = struct.pack("<HHHHH", 20, UTF_8, DEFLATED, 0, FIRST_DAY)
        about += struct.pack("<IIIHH", zlib.crc32(data), len(block), len(data), len(path), 0)
        directory += b"PK\x01\x02" + struct.pack("<H", UNIX) + about
        directory += struct.pack("<HHHII", 0, 0, 0, 0o644 << 16, len(out)) + path
        out += b"PK\x03\x04" + about + path + block
    end = struct.pack("<HHHHIIH", 0, 0, len(files), len(files), len(directory), len(out), 0)
    return bytes(out + directory) + b"PK\x05\x06" + end
