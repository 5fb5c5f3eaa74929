"""Stored bytes of a dump: a memory map, a file, a forward reader; and a window on decoded bytes."""

import io
import mmap
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filters.reasons import Reason

Stored = bytes | mmap.mmap  # the stored bytes of a dump
StoredView = Stored | memoryview  # the same, or a range of them

PIECE = 1 << 20  # bytes, decoded or copied at a time
NEWLINE_LIMIT = 1 << 12  # newline bytes tolerated around a record, where the WARC standard has two CRLF after it
REWINDS = 4  # times that a source is decoded again from its start, for what follows a length that proved wrong

_NEWLINES = re.compile(rb"[\r\n]*+")


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of input that cannot be read: the reason for the ledger, and a sentence for the dead letter."""

    problem: Reason
    detail: str


@contextmanager
def open_stored(path: Path) -> Iterator[Stored]:
    """Open a file as a memory map, so that a dump of any size costs no memory.

    Raises:
        OSError: The file cannot be opened.
    """
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            yield b""
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield mapped


def slice_stored(stored: StoredView, start: int, end: int) -> Iterator[bytes]:
    """Yield the stored bytes [start, end) in slices of at most `PIECE` bytes."""
    for position in range(start, end, PIECE):
        yield bytes(stored[position : min(position + PIECE, end)])


class StoredFile(io.RawIOBase):
    """Stored bytes as a seekable file, for libraries that read files: only what they read is copied."""

    def __init__(self, stored: Stored) -> None:
        super().__init__()
        self.stored, self.position = stored, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        self.position = max(offset + (0, self.position, len(self.stored))[whence], 0)
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Copy the bytes at the position into a buffer and return their number."""
        data = self.stored[self.position : self.position + len(buffer)]
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


class StoredReader:
    """Stored bytes, read forwards; what is skipped is never touched."""

    def __init__(self, stored: StoredView, position: int = 0) -> None:
        self.stored, self.position = stored, position

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer at the end."""
        data = bytes(self.stored[self.position : self.position + count])
        self.position += len(data)
        return data

    def skip_to(self, position: int) -> bool:
        """Continue from a later position; return False if the bytes end before it."""
        self.position = min(position, len(self.stored))
        return position <= len(self.stored)


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
        return pattern.search(self.data, max(start - self.base, 0), max(min(stop, self.end) - self.base, 0))

    def match(self, pattern: re.Pattern[bytes], position: int, size: int) -> re.Match[bytes] | None:
        """Match a pattern that looks at up to `size` bytes at `position`."""
        self.reach(position + size)
        return pattern.match(self.data, position - self.base, self.end - self.base)

    def skip_newlines(self, position: int) -> int:
        """Return the end of the run of newlines at `position`, at most `NEWLINE_LIMIT` further on."""
        self.reach(position + NEWLINE_LIMIT)
        stop = min(position + NEWLINE_LIMIT, self.end)
        found = _NEWLINES.match(self.data, position - self.base, stop - self.base)
        return found.end() + self.base if found else position

    def find_line(self, pattern: re.Pattern[bytes], position: int, size: int) -> int:
        """Return the start of the next line at or after `position` that matches; the end of all bytes without one.

        Args:
            pattern: Matches the newline before such a line, if the line follows.
            position: Where the search begins.
            size: The most bytes that the pattern looks at.
        """
        searched = position
        while True:
            found = self.search(pattern, searched - 1, self.end)
            if found:
                return found.end() + self.base
            searched = max(position, self.end - size)
            self.forget(searched - 1)
            if not self.reach(self.end + 1):
                return self.end
