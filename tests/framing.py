"""Make small WARC archives, and read and check their frames."""

import gzip
import random

from filters.formats.warc import Frame, Limits, read_frame, read_frames
from filters.reasons import Reason

LIMITS = Limits(1 << 20)


def record(body: bytes, uri: str = "http://a.example/", kind: str = "response", newline: bytes = b"\r\n") -> bytes:
    """Return an uncompressed WARC record."""
    lines = [b"WARC/1.0", b"WARC-Type: " + kind.encode(), b"WARC-Target-URI: " + uri.encode()]
    lines += [b"Content-Length: %d" % len(body), b"", b""]
    return newline.join(lines) + body + newline * 2


def members(count: int, seed: int = 0) -> list[bytes]:
    """Return gzip members with one random record each."""
    rng = random.Random(seed)
    bodies = [rng.randbytes(rng.randrange(900)) for _ in range(count)]
    return [gzip.compress(record(body, f"http://a.example/{n}"), mtime=0) for n, body in enumerate(bodies)]


def good(stored: bytes, limits: Limits = LIMITS) -> list[Frame]:
    """Return the frames of an archive that have no problem."""
    return [frame for frame in read_frames(stored, limits) if frame.problem is None]


def blocks(stored: bytes, limits: Limits = LIMITS) -> list[bytes]:
    """Return the blocks of the good frames of an archive."""
    return [frame.block for frame in good(stored, limits)]


def reasons(stored: bytes, limits: Limits = LIMITS) -> list[Reason | None]:
    """Return the problem of each frame of an archive; None for good frames."""
    return [frame.problem for frame in read_frames(stored, limits)]


def check(stored: bytes, limits: Limits = LIMITS) -> None:
    """Check that frames cover all bytes of an archive, and that each good frame can be read again by its location."""
    found = list(read_frames(stored, limits))
    assert sum(frame.stored for frame in found) == len(stored)
    for frame in found:
        if frame.problem is None:
            place = (frame.offset, frame.length, frame.inner_offset, frame.inner_length)
            assert read_frame(stored, *place, limits).block == frame.block
        else:
            assert not frame.block
