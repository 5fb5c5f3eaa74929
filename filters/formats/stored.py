"""The stored bytes of a dump, memory-mapped."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Stored = bytes | mmap.mmap  # the stored bytes of a dump


@contextmanager
def open_stored(path: Path) -> Iterator[Stored]:
    """A file's stored bytes, memory-mapped, so that a dump of any size costs no memory. Raises OSError."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            yield b""
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                yield mapped
