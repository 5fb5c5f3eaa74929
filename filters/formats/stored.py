"""The stored bytes of a dump: of a file of this machine, or of a remote one that is downloaded as it is read."""

import io
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

PIECE = 1 << 20  # bytes, decoded or copied at a time
FETCH_BLOCK = 1 << 18  # bytes of a remote file that are downloaded at once, at least
FETCH_LIMIT = 1 << 24  # bytes that a search in one downloads at once, at most


class FetchedFile:
    """The stored bytes of a remote file, which are downloaded into a local file when they are read.

    It can be sliced and searched like bytes. It is not a buffer, so that no code reads bytes that are not here yet;
    `buffer_of` returns a buffer that holds a range.
    """

    def __init__(self, descriptor: int, size: int, fetch: Callable[[int, int], None]) -> None:
        """Map the local file.

        Args:
            descriptor: Of the local file, which is empty but has the remote file's size.
            size: In bytes, at least one.
            fetch: Copies the bytes from a start to an end into the local file, at the same place, or raises.
        """
        self.size, self.fetch = size, fetch
        self.held = bytearray(-(-size // FETCH_BLOCK))  # by block: 1 if it is downloaded
        self.mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)

    def hold(self, start: int, stop: int) -> mmap.mmap:
        """Download what is missing of the bytes [start, stop), and return the map of the local file."""
        first, last = max(start, 0) // FETCH_BLOCK, -(-min(stop, self.size) // FETCH_BLOCK)
        while (missing := self.held.find(0, first, last)) >= 0:
            held = self.held.find(1, missing, last)
            end = last if held < 0 else held
            self.fetch(missing * FETCH_BLOCK, min(end * FETCH_BLOCK, self.size))
            self.held[missing:end] = b"\1" * (end - missing)
        return self.mapped

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, place: int) -> int: ...

    @overload
    def __getitem__(self, place: slice) -> bytes: ...

    def __getitem__(self, place: int | slice) -> int | bytes:
        if isinstance(place, slice):
            start, stop, _ = place.indices(self.size)
            return self.hold(start, stop)[start:stop]
        return self.hold(place, place + 1)[place]

    def __bytes__(self) -> bytes:
        return self[:]

    def find(self, part: bytes, start: int = 0) -> int:
        """Return the place of the first `part` at or after `start`, or -1. Downloads in growing steps."""
        step = FETCH_BLOCK
        while start < self.size:
            stop = min(start + step, self.size)
            found = self.hold(start, stop).find(part, start, stop)
            if found >= 0 or stop == self.size:
                return found
            start, step = max(stop - len(part) + 1, start), min(4 * step, FETCH_LIMIT)
        return -1


Stored = bytes | mmap.mmap | FetchedFile  # the stored bytes of a dump
StoredView = Stored | memoryview  # the same, or a range of them
Buffer = TypeVar("Buffer", bound=bytes | bytearray | memoryview | mmap.mmap)


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


@overload
def buffer_of(stored: FetchedFile, start: int, stop: int) -> mmap.mmap: ...


@overload
def buffer_of(stored: Buffer, start: int, stop: int) -> Buffer: ...


def buffer_of(stored: Any, start: int, stop: int) -> Any:
    """Return stored bytes as a buffer of the whole file, in which only [start, stop) may be read."""
    return stored.hold(start, stop) if isinstance(stored, FetchedFile) else stored


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
