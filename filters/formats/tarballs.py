"""Members of a tar archive (POSIX ustar and pax, GNU's long names and numbers), streamed, with what is wrong with them.

Nothing is ever written to disk, so a path or a link that leads outside does no harm here; such members are named as
what they are, so that they do none elsewhere.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from filters.formats.mediawiki import Damage
from filters.reasons import Reason

BLOCK = 512
MAX_HEADER = 1 << 20
"""bytes of an extended header or a long name"""
MAX_NAME = 4096
"""bytes of a path (PATH_MAX of Linux)"""
_FILES, _FOLDER, _LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL = (b"0", b"\0", b"7"), b"5", b"L", b"K", b"x", b"g"
_OTHERS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ")
_COMMIT = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class Member(NamedTuple):
    """A member, whose bytes lie at [start, stop) of the archive; the next one's header begins at `end`. `problem`: why
    it cannot be used, or why nothing behind it could be read. `folder`: whether it is one."""

    name: str
    start: int
    stop: int
    end: int
    data: bytes = b""
    problem: Reason | None = None
    detail: str = ""
    folder: bool = False
    commit: str = ""
    """the commit that `git archive` says the archive was made of"""


class _Header(NamedTuple):
    kind: bytes
    name: bytes
    size: int


class _Source:
    """Archive bytes that come piece by piece."""

    def __init__(self, chunks: Iterable[bytes | Damage]) -> None:
        self.chunks, self.held, self.place = iter(chunks), bytearray(), 0
        self.damage: Damage | None = None
        self.commit = ""

    def take(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        while len(self.held) < size and self._more():
            pass
        taken = bytes(self.held[:size])
        self._pass(len(taken))
        return taken

    def skip(self, size: int) -> None:
        """Pass over bytes, as many as there are."""
        while size > len(self.held):
            size -= len(self.held)
            self._pass(len(self.held))
            if not self._more():
                return
        self._pass(size)

    def _pass(self, size: int) -> None:
        del self.held[:size]
        self.place += size

    def _more(self) -> bool:
        chunk = next(self.chunks, None)
        if chunk is None or isinstance(chunk, Damage):
            self.damage = chunk
            return False
        self.held += chunk
        return True


def members(chunks: Iterable[bytes | Damage], limit: int, total: int, wants: Callable[[str], bool]) -> Iterator[Member]:
    """The members of a tar archive's bytes, in order, the last perhaps damage. No data is held of files over `limit`
    bytes, nor of those that `wants` refuses by name; after `total` bytes the archive is given up. Never raises; takes
    linear time, and memory of the order of `limit`."""
    source = _Source(chunks)
    while True:
        begin = source.place
        header = _next(source)
        place = source.place
        if header is None:
            return
        if isinstance(header, Damage):
            yield Member("", begin, place, place, b"", header.problem, header.detail)
            return
        if place + header.size > total:
            detail = f"over {total} decoded bytes: the rest of the archive is not read"
            yield Member(_spelled(header.name), begin, place, place, b"", Reason.TOO_LARGE, detail)
            return
        yield _member(source, header, limit, wants)
        if source.damage is not None:
            yield Member("", source.place, source.place, source.place, b"", source.damage.problem, source.damage.detail)
            return


def _next(source: _Source) -> _Header | Damage | None:
    """The next header, those that extend it read; None at the archive's end."""
    name, size = b"", -1
    while True:
        block = source.take(BLOCK)
        if source.damage is not None:
            return source.damage
        if not block.strip(b"\0"):
            return None
        if len(block) < BLOCK:
            return Damage(Reason.TRUNCATED_RECORD, "the archive ends within a header")
        stated = _number(block[124:136])
        if stated is None or not _sums(block):
            return Damage(Reason.CORRUPT_RECORD, "no tar header: nothing behind it can be found")
        kind = block[156:157]
        if kind not in (_LONG_NAME, _LONG_LINK, _EXTENDED, _GLOBAL):
            return _Header(kind, name or _name(block), size if size >= 0 else stated)
        if stated > MAX_HEADER:
            return Damage(Reason.TOO_LARGE, f"an extended header of {stated} bytes")
        data = source.take(_padded(stated))[:stated]
        if kind == _LONG_NAME:
            name = data.rstrip(b"\0")
        elif kind != _LONG_LINK:
            fields = _fields(data)
            if kind == _GLOBAL and _COMMIT.fullmatch(fields.get(b"comment", b"")):
                source.commit = fields[b"comment"].decode()
            elif kind == _EXTENDED:
                name, stated_size = fields.get(b"path", name), fields.get(b"size", b"")
                size = int(stated_size) if len(stated_size) < 19 and stated_size.isdigit() else -1


def _member(source: _Source, header: _Header, limit: int, wants: Callable[[str], bool]) -> Member:
    """The member behind a header."""
    name, start = _spelled(header.name), source.place
    size = header.size if header.kind in _FILES else 0
    problem, detail = _unusable(name, header, limit)
    held = problem is None and header.kind in _FILES and wants(name)
    data = source.take(size) if held else b""
    source.skip(_padded(header.size) - len(data) if header.kind not in _OTHERS else 0)
    stop = min(start + size, source.place)
    if stop < start + size:
        data, problem, detail = b"", Reason.TRUNCATED_RECORD, "the archive ends within a member"
    is_folder = header.kind == _FOLDER or (header.kind in _FILES and name.endswith("/"))
    return Member(name, start, stop, source.place, data, problem, detail, is_folder, source.commit)


def _unusable(name: str, header: _Header, limit: int) -> tuple[Reason | None, str]:
    if header.kind in _OTHERS:
        return Reason.UNSAFE_PATH, f"{_OTHERS[header.kind]}: {name[:200]}"
    if header.kind not in (*_FILES, _FOLDER):
        return Reason.UNSUPPORTED_FORMAT, f"a tar member of type {header.kind!r}"
    if not is_safe(name):
        return Reason.UNSAFE_PATH, name[:200]
    if header.kind in _FILES and header.size > limit:
        return Reason.TOO_LARGE, f"{header.size} bytes"
    return None, ""


def is_safe(name: str) -> bool:
    """Whether a path stays below the folder where it begins, and is no longer than a path can be."""
    if not name.strip("/") or name.startswith(("/", "\\")) or "\0" in name or _DRIVE.match(name):
        return False
    return ".." not in name.replace("\\", "/").split("/") and len(name) <= MAX_NAME


def _spelled(name: bytes) -> str:
    """A name as text: bytes that are no UTF-8 are spelled out, as in inputs' names."""
    return name[: MAX_NAME + 1].decode("utf-8", "backslashreplace")


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _number(field: bytes) -> int | None:
    """A number in octal, or in GNU's binary form; None for what is none, or below zero."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits.isdigit() else 0 if not digits else None
    except ValueError:
        return None


def _sums(block: bytes) -> bool:
    """Whether a header's checksum is right (of bytes with or without a sign, as old writers have it)."""
    stated = _number(block[148:156])
    rest = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(rest)
    return stated == unsigned or stated == unsigned - 256 * sum(byte > 127 for byte in rest)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _fields(block: bytes) -> dict[bytes, bytes]:
    """The fields of a pax header: "LENGTH KEY=VALUE\\n"; what does not parse ends them."""
    found, place = dict[bytes, bytes](), 0
    while record := _RECORD.match(block, place):
        end = place + int(record[1])
        key, equals, value = block[record.end() : end - 1].partition(b"=")
        if end <= record.end() or end > len(block) or not equals:
            break
        found[key] = value
        place = end
    return found
