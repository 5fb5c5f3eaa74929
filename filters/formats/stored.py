"""Access to the stored bytes of a dump: a local file, or a remote file that is downloaded while it is read."""

import io
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

PIECE = 1 << 20  # Bytes. The largest piece that is decoded or copied at a time.
FETCH_BLOCK = 1 << 18  # Bytes. A remote file is downloaded in multiples of this size.
FETCH_LIMIT = 1 << 24  # Bytes. The largest range that a search in a remote file downloads at a time.


class FetchedFile:
    """The stored bytes of a remote file. Bytes are downloaded into a local file when they are read.

    An instance can be sliced and searched like bytes. It does not support the buffer protocol, so that no code reads
    bytes before they are downloaded. `buffer_of` downloads a range and returns a buffer.
    """

    def __init__(self, descriptor: int, size: int, fetch: Callable[[int, int], None]) -> None:
        """Map the local file.

        Args:
            descriptor: The descriptor of the local file. The file has the size of the remote file, but no content yet.
            size: The size in bytes, at least one.
            fetch: Copies the bytes from a start to an end into the local file, at the same offsets, or raises an error.
        """
        self.size, self.fetch = size, fetch
        self.downloaded = bytearray(-(-size // FETCH_BLOCK))  # For each block: 1 if it is downloaded, else 0.
        self.mapped = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)

    def download(self, start: int, stop: int) -> mmap.mmap:
        """Download the missing bytes of [start, stop), and return the memory map of the local file."""
        first, last = max(start, 0) // FETCH_BLOCK, -(-min(stop, self.size) // FETCH_BLOCK)
        while (missing := self.downloaded.find(0, first, last)) >= 0:
            present = self.downloaded.find(1, missing, last)
            end = last if present < 0 else present
            self.fetch(missing * FETCH_BLOCK, min(end * FETCH_BLOCK, self.size))
            self.downloaded[missing:end] = b"\1" * (end - missing)
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
            return self.download(start, stop)[start:stop]
        return self.download(place, place + 1)[place]

    def __bytes__(self) -> bytes:
        return self[:]

    def find(self, part: bytes, start: int = 0) -> int:
        """Return the offset of the first `part` at or after `start`, or -1. Downloads in growing steps."""
        step = FETCH_BLOCK
        while start < self.size:
            stop = min(start + step, self.size)
            found = self.download(start, stop).find(part, start, stop)
            if found >= 0 or stop == self.size:
                return found
            start, step = max(stop - len(part) + 1, start), min(4 * step, FETCH_LIMIT)
        return -1


Stored = bytes | mmap.mmap | FetchedFile  # The stored bytes of a whole dump.
StoredView = Stored | memoryview  # The stored bytes of a dump, or of a range of it.
Buffer = TypeVar("Buffer", bound=bytes | bytearray | memoryview | mmap.mmap)


@contextmanager
def open_stored(path: Path) -> Iterator[Stored]:
    """Open a file as a memory map, so that memory use does not depend on the size of the dump.

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
    """Return a buffer of the whole file. Only its bytes [start, stop) may be read; they are downloaded if necessary."""
    return stored.download(start, stop) if isinstance(stored, FetchedFile) else stored


def slice_stored(stored: StoredView, start: int, end: int) -> Iterator[bytes]:
    """Yield the stored bytes [start, end) in slices of at most PIECE bytes."""
    for position in range(start, end, PIECE):
        yield bytes(stored[position : min(position + PIECE, end)])


class StoredFile(io.RawIOBase):
    """A seekable file object on stored bytes, for libraries that read files. It copies only the bytes that are read."""

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
