"""Read tar archives: POSIX ustar and pax, GNU's long names and numbers, Unix V7.

Members are found by their headers. Data is read only if it is needed. Nothing is written to disk, so a path or a link
that leads outside the archive does no harm here. Such members are reported, because they may do harm elsewhere.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from filters.formats.stored import Stored, StoredView
from filters.formats.stream import ChunkReader, Damage
from filters.reasons import Reason

BLOCK = 512
MAX_EXTENSION_BYTES = 1 << 20  # Bytes of an extension header, such as a long name. It extends the next header.
MAX_EXTENSIONS = 8  # Extension headers before one member.
PATH_CHARACTERS = 4096  # Characters of a member's path (PATH_MAX of Linux).
ZEROS = 1 << 20  # Bytes that are examined at a time after the end of an archive.

Kind = Literal["file", "directory", "link", "other", "extension", "end", "damage"]
_KINDS: dict[int, Kind] = {
    **dict.fromkeys(b"\x000" + b"7", "file"),
    **dict.fromkeys(b"5", "directory"),
    **dict.fromkeys(b"12", "link"),
    **dict.fromkeys(b"LKxgX", "extension"),
}
_LINKS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_COMMIT = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class StoredReader:
    """A forward reader of stored bytes. Bytes that are skipped are not read from the storage."""

    def __init__(self, stored: StoredView, position: int = 0) -> None:
        self.stored, self.position = stored, position

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer at the end."""
        data = bytes(self.stored[self.position : self.position + count])
        self.position += len(data)
        return data

    def put_back(self, data: bytes) -> None:
        """Put back the bytes that were taken last, so that they are read again."""
        self.position -= len(data)

    def skip_to(self, position: int) -> bool:
        """Move forward to a position. Return False if the bytes end before it."""
        self.position = min(position, len(self.stored))
        return position <= len(self.stored)


Reader = StoredReader | ChunkReader


class Header(NamedTuple):
    """A header block: the member's name, its size in bytes, its kind, and the letter (typeflag) of the kind."""

    name: str
    size: int
    kind: Kind
    letter: bytes


class TarEntry(NamedTuple):
    """A member of an archive, as its headers describe it.

    Attributes:
        offset: The start of its headers.
        data: The start of its data.
        size: The number of bytes of data.
        stop: The start of the next member. For damage, the end of the bytes that were read.
        name: The path of the member.
        kind: The kind of the member. `end` is a run of zeros. `damage` has a `problem`.
        problem: The reason for damage, else None.
        detail: A sentence about the damage.
        letter: The letter (typeflag) of the kind in the header.
        commit: The commit from which `git archive` made the archive, or "".
    """

    offset: int
    data: int
    size: int
    stop: int
    name: str
    kind: Kind
    problem: Reason | None = None
    detail: str = ""
    letter: bytes = b""
    commit: str = ""


class ArchiveMember(NamedTuple):
    """A member of a tar or zip archive with its data.

    Attributes:
        name: The path of the member.
        start: The start of its data in the decoded archive.
        stop: The end of its data.
        end: The start of the next member. For a zip archive, the number of compressed bytes of this and all earlier
            members.
        data: The data. Empty if it is not needed.
        problem: The reason why the member, or everything after it, cannot be used. Else None.
        detail: A sentence about the problem.
        folder: True for a folder.
        commit: The commit from which `git archive` made the archive, or "".
    """

    name: str
    start: int
    stop: int
    end: int
    data: bytes = b""
    problem: Reason | None = None
    detail: str = ""
    folder: bool = False
    commit: str = ""


def resolve_path(name: str) -> str | None:
    """Return the normalised path of a member, "" for the top folder, or None if it is absolute or leads outside."""
    if name.startswith(("/", "\\")) or _DRIVE.match(name) or "\0" in name:
        return None
    path = posixpath.normpath(name.replace("\\", "/")) if name else ""
    if path == ".." or path.startswith("../"):
        return None
    return "" if path == "." else path


def is_safe_path(name: str) -> bool:
    """Return True for a relative path without `..` and with at most PATH_CHARACTERS characters."""
    inside = name != "" and resolve_path(name) is not None
    return inside and ".." not in re.split(r"[/\\]", name) and len(name) <= PATH_CHARACTERS


def parse_header(block: bytes) -> Header | None:
    """Parse a header block. Return None if its checksum or a number in it is wrong."""
    if len(block) != BLOCK:
        return None
    checksum, size = _parse_number(block[148:156]), _parse_number(block[124:136])
    rest = block[:148] + b" " * 8 + block[156:]
    if size is None or checksum is None:
        return None
    # Old programs compute the checksum with signed bytes.
    if checksum != sum(rest) and checksum != sum(rest) - 256 * sum(byte > 127 for byte in rest):
        return None
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345] != 0:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    letter = block[156:157]
    kind: Kind = _KINDS.get(letter[0], "other")
    return Header(_decode_name(name), size, kind, letter)


def stream_entries(source: Reader) -> Iterator[TarEntry]:
    """Yield the members of an archive in order, and the damage between them, up to the end of its bytes.

    After each member, the caller may take data up to its `stop` from `source`. Data that was not taken is skipped. The
    bytes may consist of several archives. After damage, reading continues at the next ustar header.
    """
    commit = ""
    while True:
        entry = _read_entry(source, commit)
        if entry is None:
            return
        if entry.kind == "damage":
            yield entry._replace(stop=_skip_to_header(source))
            continue
        commit = entry.commit
        yield entry
        if not source.skip_to(entry.stop) and source.position < entry.data + entry.size:
            yield _report_damage(source, source.position, Reason.TRUNCATED_RECORD, f"{entry.name!r} ends early")
            return


def read_entries(stored: Stored, start: int = 0, end: int | None = None) -> Iterator[TarEntry]:
    """Yield the members whose headers begin in [start, end) of an uncompressed archive, and the damage between them.

    The members and the damage cover all bytes. After damage, reading continues at the next ustar header.
    """
    size = len(stored)
    position, end = start, size if end is None else end
    while position < end:
        entry = _read_entry(StoredReader(stored, position), "")
        if entry is None:
            return
        if entry.kind != "damage" and entry.data + entry.size > size:
            detail = f"{entry.name!r} has {entry.size} bytes by its header, and {size - entry.data} follow"
            entry = entry._replace(kind="damage", problem=Reason.TRUNCATED_RECORD, detail=detail)
        if entry.kind == "damage":
            entry = entry._replace(stop=_find_header(stored, position + BLOCK))
        entry = entry._replace(stop=min(entry.stop, size))
        yield entry
        position = entry.stop


def read_members(
    chunks: Iterable[bytes | Damage], limit: int, total: int, is_wanted: Callable[[str], bool]
) -> Iterator[ArchiveMember]:
    """Yield the members of an archive with their data, in order. The last member may be damage.

    Never raises. Takes linear time, and memory of the order of `limit`.

    Args:
        chunks: The decoded archive.
        limit: The size in bytes of the largest file whose data is read.
        total: The number of decoded bytes after which the rest of the archive is not read.
        is_wanted: Returns True for the names of files whose data is wanted.
    """
    source = ChunkReader(chunks)
    for entry in stream_entries(source):
        at = source.position
        if entry.kind == "end":
            continue
        if entry.kind == "damage":
            cause = source.damage or entry
            yield ArchiveMember("", entry.offset, at, at, problem=cause.problem, detail=cause.detail)
            if source.damage is not None or at > total:
                return
            continue
        if at + entry.size > total:
            detail = f"over {total} decoded bytes: the rest of the archive is not read"
            yield ArchiveMember(entry.name, entry.offset, at, at, problem=Reason.TOO_LARGE, detail=detail)
            return
        problem, detail = _check(entry, limit)
        end = entry.data + (entry.size if entry.kind == "file" else 0)
        takes_data = problem is None and end > entry.data and is_wanted(entry.name)
        data = source.take(end - entry.data) if takes_data else b""
        source.skip_to(entry.stop)
        stop = min(end, source.position)
        if stop < end:
            data, problem, detail = b"", Reason.TRUNCATED_RECORD, "the archive ends within a member"
        place = entry.data, stop, source.position
        yield ArchiveMember(entry.name, *place, data, problem, detail, entry.kind == "directory", entry.commit)
        if stop < end:
            if takes_data:
                return  # The damage was reported with the member.
            break
    if source.damage is not None:
        at = source.position
        yield ArchiveMember("", at, at, at, problem=source.damage.problem, detail=source.damage.detail)


def _check(entry: TarEntry, limit: int) -> tuple[Reason | None, str]:
    """Return the reason and detail why a member cannot be used, or (None, "")."""
    if entry.letter in _LINKS:
        return Reason.UNSAFE_PATH, f"{_LINKS[entry.letter]}: {entry.name[:200]}"
    if entry.kind == "other":
        return Reason.UNSUPPORTED_FORMAT, f"a tar member of type {entry.letter!r}"
    if not is_safe_path(entry.name):
        return Reason.UNSAFE_PATH, entry.name[:200]
    if entry.size > limit:
        return Reason.TOO_LARGE, f"{entry.size} bytes"
    return None, ""


def _read_entry(source: Reader, commit: str) -> TarEntry | None:
    """Read the headers of the next member. Return None at the end of the bytes.

    Afterwards `source` is at the start of the member's data.

    Args:
        source: The archive.
        commit: The commit that an earlier global header stated, or "".
    """
    offset, name, size = source.position, "", -1
    for _ in range(MAX_EXTENSIONS):
        block = source.take(BLOCK)
        if not block:
            is_end = source.position == offset
            return None if is_end else _report_damage(source, offset, Reason.TRUNCATED_RECORD, "no member")
        if not block.strip(b"\0"):
            return TarEntry(offset, offset, 0, _skip_zeros(source), "", "end", commit=commit)
        header = parse_header(block)
        if header is None:
            if len(block) < BLOCK:
                return _report_damage(source, offset, Reason.TRUNCATED_RECORD, "the archive ends within a header")
            return _report_damage(source, offset, Reason.CORRUPT_RECORD, "no tar header")
        data, kind = source.position, header.kind
        if kind != "extension":
            path = name or header.name
            if kind == "file" and path.endswith("/"):
                kind = "directory"  # Unix V7 has no letter for directories.
            size = header.size if size < 0 else size
            size = size if kind in ("file", "other") else 0
            stop = data + _round_up(size)
            return TarEntry(offset, data, size, stop, path, kind, letter=header.letter, commit=commit)
        if header.size > MAX_EXTENSION_BYTES:
            return _report_damage(source, offset, Reason.TOO_LARGE, f"an extended header of {header.size} bytes")
        extension = source.take(_round_up(header.size))[: header.size]
        if header.letter == b"L":
            name = _decode_name(extension.split(b"\0", 1)[0])
        elif header.letter != b"K":
            fields = _parse_pax(extension)
            if header.letter == b"g" and _COMMIT.fullmatch(fields.get(b"comment", b"")):
                commit = fields[b"comment"].decode()
            elif header.letter == b"x":
                name, stated = _decode_name(fields.get(b"path", b"")) or name, fields.get(b"size", b"")
                size = int(stated) if len(stated) < 19 and stated.isdigit() else -1
    return _report_damage(source, offset, Reason.CORRUPT_RECORD, "headers that extend headers without end")


def _report_damage(source: Reader, offset: int, reason: Reason, detail: str) -> TarEntry:
    """Return an entry for damage from `offset` to the position of `source`."""
    return TarEntry(offset, offset, 0, source.position, "", "damage", reason, detail)


def _skip_zeros(source: Reader) -> int:
    """Skip the rest of a run of zero blocks. Return its end: the start of the first block that is not zero."""
    while chunk := source.take(ZEROS):
        if rest := chunk.lstrip(b"\0"):
            source.put_back(chunk[(len(chunk) - len(rest)) // BLOCK * BLOCK :])
            break
    return source.position


def _skip_to_header(source: Reader) -> int:
    """Skip to the next block that is a ustar header, or to the end. Return the new position."""
    while block := source.take(BLOCK):
        if block[257:262] == b"ustar" and parse_header(block) is not None:
            source.put_back(block)
            break
    return source.position


def _find_header(stored: Stored, position: int) -> int:
    """Return the offset of the next block that is a ustar header, or the size of the archive."""
    found = stored.find(b"ustar", position)
    while found >= 0:
        start = found - 257
        if start >= position and start % BLOCK == 0 and parse_header(bytes(stored[start : start + BLOCK])) is not None:
            return start
        found = stored.find(b"ustar", found + 1)
    return len(stored)


def _parse_number(field: bytes) -> int | None:
    """Parse a number in octal digits, or in base 256 as GNU tar writes large numbers. Return None for other forms."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else None


def _parse_pax(block: bytes) -> dict[bytes, bytes]:
    r"""Parse the fields of a pax header: "LENGTH KEY=VALUE\n" (POSIX.1-2001, pax). Stop at a malformed field."""
    fields, position = dict[bytes, bytes](), 0
    while record := _RECORD.match(block, position):
        end = position + int(record[1])
        key, equals, value = block[record.end() : end - 1].partition(b"=")
        if end <= record.end() or end > len(block) or not equals:
            break
        fields[key] = value
        position = end
    return fields


def _decode_name(name: bytes) -> str:
    r"""Decode a name. Bytes that are not UTF-8 become \xNN, as in the names of inputs."""
    return name[: PATH_CHARACTERS + 1].decode("utf-8", "backslashreplace")


def _round_up(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
