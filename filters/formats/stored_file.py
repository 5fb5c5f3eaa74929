"""Stored bytes as a file, for libraries that want one: nothing is copied but what they read."""

import io
from typing import Any

from filters.formats.stream import Stored


class StoredFile(io.RawIOBase):
    """Stored bytes as a file."""

    def __init__(self, stored: Stored) -> None:
        self.stored, self.place = stored, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = max(offset + (0, self.place, len(self.stored))[whence], 0)
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        taken = bytes(self.stored[self.place : self.place + len(buffer)])
        buffer[: len(taken)] = taken
        self.place += len(taken)
        return len(taken)
