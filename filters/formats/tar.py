"""Tar archives (POSIX.1-1988, section 10.1.1: ustar; pax and GNU extensions; Unix V7): members found by their headers.

Data is left alone: whoever walks an archive reads of it what is wanted. Sparse files, devices and the like are `other`.
"""

from collections.abc import Iterator
from mmap import mmap
from typing import Literal, NamedTuple, Protocol

from filters.reasons import Reason

BLOCK = 512
EXTENSION_BYTES = 1 << 16
"""of a header that only says more about the next one, such as a long name"""
EXTENSIONS = 8
"""of these, one after the other"""
ZEROS = 1 << 20
"""bytes looked at at a time behind the end of an archive"""

Kind = Literal["file", "directory", "link", "other", "extension", "end", "damage"]
_KINDS: dict[int, Kind] = {
    **dict.fromkeys(b"\x000" + b"7", "file"),
    **dict.fromkeys(b"5", "directory"),
    **dict.fromkeys(b"12", "link"),
    **dict.fromkeys(b"LKxgX", "extension"),
}


class Header(NamedTuple):
    """What one block says: a member's name, its size in bytes, its kind and the letter for it."""

    name: str
    size: int
    kind: Kind
    letter: bytes


class Entry(NamedTuple):
    """A member: its headers begin at `offset`, its data at `data`, what follows at `stop`. `end` is a run of zeros;
    `damage` has a `problem`, and ends where what was read ends."""

    offset: int
    data: int
    size: int
    stop: int
    name: str
    kind: Kind
    problem: Reason | None = None
    detail: str = ""


class Bytes(Protocol):
    """Bytes that are read forwards."""

    position: int

    def take(self, count: int) -> bytes:
        """The next so many bytes, fewer at the end."""

    def skip_to(self, position: int) -> bool:
        """Go on from a later position; False if the bytes end before it."""


class Stored:
    """Stored bytes, read forwards."""

    def __init__(self, stored: bytes | mmap | memoryview, position: int = 0) -> None:
        self.stored, self.position = stored, position

    def take(self, count: int) -> bytes:
        """The next so many bytes, fewer at the end."""
        taken = bytes(self.stored[self.position : self.position + count])
        self.position += len(taken)
        return taken

    def skip_to(self, position: int) -> bool:
        """Go on from a later position; False if the bytes end before it."""
        self.position = min(position, len(self.stored))
        return position <= len(self.stored)


def header(block: bytes) -> Header | None:
    """What a block says, None if it is no header: its checksum does not hold, or a number in it is none."""
    if len(block) != BLOCK:
        return None
    checksum, size = _number(block[148:156]), _number(block[124:136])
    if checksum != sum(block) - sum(block[148:156]) + 8 * 32 or size is None:
        return None
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345] != 0:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    letter = block[156:157]
    kind: Kind = _KINDS.get(letter[0], "other")
    if kind == "file" and name.endswith(b"/"):
        kind = "directory"  # as before there was a letter for it
    holds = kind in ("file", "extension", "other")
    return Header(_text(name), size if holds else 0, kind, letter)


def entries(source: Bytes) -> Iterator[Entry]:
    """The members of an archive in order, to where its bytes end or are damaged. After each, data up to its `stop` may
    be taken from `source`; what is left of it is skipped."""
    while True:
        entry = _entry(source)
        if entry is None:
            return
        yield entry
        if entry.kind == "damage":
            return
        if not source.skip_to(entry.stop) and source.position < entry.data + entry.size:
            yield _damage(source, source.position, Reason.TRUNCATED_RECORD, f"{entry.name!r} ends early")
            return


def members(stored: bytes | mmap, start: int = 0, end: int | None = None) -> Iterator[Entry]:
    """The members whose headers begin in [start, end) of a stored archive, damage among them: each stored byte belongs
    to one. Behind damage the archive is read on from the next ustar header."""
    size = len(stored)
    position, end = start, size if end is None else end
    while position < end:
        entry = _entry(Stored(stored, position))
        if entry is None:
            return
        if entry.kind != "damage" and entry.data + entry.size > size:
            detail = f"{entry.name!r} has {entry.size} bytes by its header, and {size - entry.data} follow"
            entry = entry._replace(kind="damage", problem=Reason.TRUNCATED_RECORD, detail=detail)
        if entry.kind == "damage":
            entry = entry._replace(stop=_next_header(stored, position + BLOCK))
        entry = entry._replace(stop=min(entry.stop, size))
        yield entry
        position = entry.stop


def _entry(source: Bytes) -> Entry | None:
    """The member at the position of `source`, which is left where its data begins; None at the end."""
    offset, name = source.position, ""
    for _ in range(EXTENSIONS):
        block = source.take(BLOCK)
        if not block:
            return None if source.position == offset else _damage(source, offset, Reason.TRUNCATED_RECORD, "no member")
        if not block.strip(b"\0"):
            return Entry(offset, offset, 0, _zeros(source), "", "end")
        found = header(block)
        if found is None:
            if len(block) < BLOCK:
                return _damage(source, offset, Reason.TRUNCATED_RECORD, "the archive ends within a header")
            return _damage(source, offset, Reason.CORRUPT_RECORD, "no tar header")
        data = source.position
        padded = -(-found.size // BLOCK) * BLOCK
        if found.kind != "extension":
            return Entry(offset, data, found.size, data + padded, name or found.name, found.kind)
        if found.size > EXTENSION_BYTES:
            return _damage(source, offset, Reason.CORRUPT_RECORD, "a header of another header that is too large")
        extension = source.take(padded)[: found.size]
        if found.letter == b"L":
            name = _text(extension.split(b"\0", 1)[0])
        elif found.letter == b"x":
            name = _pax_path(extension) or name
    return _damage(source, offset, Reason.CORRUPT_RECORD, "headers of headers without end")


def _damage(source: Bytes, offset: int, reason: Reason, detail: str) -> Entry:
    return Entry(offset, offset, 0, source.position, "", "damage", reason, detail)


def _zeros(source: Bytes) -> int:
    """Where the run of zero blocks ends that `source` stands in: at a block that has something in it."""
    while chunk := source.take(ZEROS):
        rest = chunk.lstrip(b"\0")
        if rest:
            return (source.position - len(rest)) // BLOCK * BLOCK
    return source.position


def _next_header(stored: bytes | mmap, position: int) -> int:
    """Where the next block begins that is a ustar header; the end if none is."""
    found = stored.find(b"ustar", position)
    while found >= 0:
        start = found - 257
        if start >= position and start % BLOCK == 0 and header(bytes(stored[start : start + BLOCK])) is not None:
            return start
        found = stored.find(b"ustar", found + 1)
    return len(stored)


def _number(field: bytes) -> int | None:
    """A number in octal digits, or in base 256 as GNU tar writes large ones."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else None


def _pax_path(records: bytes) -> str:
    """The path that records of a pax header name (POSIX.1-2001, pax, "Extended Header": `LENGTH KEY=VALUE` lines)."""
    path = b""
    while records:
        length, _, _ = records[:20].partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(records):
            break
        _, _, record = records[: int(length)].partition(b" ")
        key, _, value = record.partition(b"=")
        path = value.rstrip(b"\n") if key == b"path" else path
        records = records[int(length) :]
    return _text(path)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
