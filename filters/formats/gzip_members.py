"""Gzip members (RFC 1952) of an archive: inflated once, bounded in memory, and found again after damage."""

import re
from collections.abc import Iterator

from isal import isal_zlib

from filters.formats.arc import ARC
from filters.formats.stream import PIECE, Stored
from filters.reasons import Reason

FIRST_SLICE = 1 << 14
"""stored bytes fed to a decompressor at first: most members are short, and what lies behind them is copied in vain"""
SLICE = 1 << 16
"""stored bytes fed after those"""
TRIAL = 1 << 12
"""stored bytes looked at to tell whether a gzip member with a record begins somewhere"""

_InflateError: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # isal's stub gives an instance
_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")  # the upper flag bits are reserved (RFC 1952, section 2.3.1)
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]{0,30}+:")


class Member:
    """A gzip member to be inflated once. After its last piece: `length` in stored bytes and `size` in decoded ones, or
    a `problem`. `fed`: stored bytes handed to the decompressor, at least as many as it looked at."""

    __slots__ = ("detail", "fed", "length", "offset", "problem", "size", "stored")

    def __init__(self, stored: Stored, offset: int) -> None:
        self.stored, self.offset = stored, offset
        self.length = self.size = self.fed = 0
        self.problem: Reason | None = None
        self.detail = ""

    def pieces(self) -> Iterator[bytes]:
        """Its decoded bytes, up to `PIECE` at a time."""
        fed = bytes(self.stored[self.offset : self.offset + FIRST_SLICE])
        if not _MEMBER.match(fed) and not (len(fed) < 4 and b"\x1f\x8b\x08\0".startswith(fed)):
            self.problem, self.detail = Reason.CORRUPT_GZIP, "no gzip member begins here"
            return
        inflater = isal_zlib.decompressobj(wbits=31)
        self.fed = len(fed)
        try:
            while True:
                piece = inflater.decompress(fed, PIECE)
                if piece:
                    self.size += len(piece)
                    yield piece
                if inflater.eof:
                    break
                fed = inflater.unconsumed_tail
                if not fed and len(piece) < PIECE:
                    begin = self.offset + self.fed
                    fed = bytes(self.stored[begin : begin + SLICE])
                    self.fed += len(fed)
                    if not fed and not piece:
                        self.problem, self.detail = Reason.TRUNCATED_RECORD, "the gzip member ends early"
                        return
        except _InflateError as error:
            self.problem, self.detail = Reason.CORRUPT_GZIP, f"the gzip member does not inflate: {error}"
            return
        self.length = self.fed - len(inflater.unused_data)

    def joined(self, limit: int) -> bytes | None:
        """All of its decoded bytes, None if there are more than `limit`. Inflates to the end either way."""
        kept: list[bytes] = []
        for piece in self.pieces():
            if self.size <= limit:
                kept.append(piece)
            else:
                kept.clear()
        if self.size > limit:
            return None
        return kept[0] if len(kept) == 1 else b"".join(kept)


def next_member(stored: Stored, position: int, stop: int) -> int:
    """Where in [position, stop) the next gzip member begins that holds a record; `stop` if none does."""
    while found := _MEMBER.search(stored, position, stop):
        if holds_record(stored, found.start()):
            return found.start()
        position = found.start() + 1
    return stop


def holds_record(stored: Stored, offset: int) -> bool:
    """Whether what may be a gzip member begins as a record does, after newlines."""
    opening = _opening(stored, offset, 64)
    if opening.startswith(b"WARC/"):
        return True
    return bool(_SCHEME.match(opening) and ARC.line.match(_opening(stored, offset, ARC.line_bytes)))


def _opening(stored: Stored, offset: int, size: int) -> bytes:
    try:
        inflater = isal_zlib.decompressobj(wbits=31)
        opening: bytes = inflater.decompress(bytes(stored[offset : offset + TRIAL]), size)
    except _InflateError:
        return b""
    return opening.lstrip(b"\r\n")
