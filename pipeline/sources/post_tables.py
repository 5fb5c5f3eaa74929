"""What a file of Stack Exchange's dumps holds: a table of posts, plain or compressed, or an archive with one in it."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from filters.formats import sevenzip as seven_zip
from filters.formats.compression import BZIP2, GZIP, OPENING, as_utf8, encoding_of, unpacked
from filters.formats.mediawiki import Damage
from filters.formats.stored import Stored
from filters.formats.stream import PIECE
from manifests.document import Part

TABLE = "Posts.xml"


class Table(NamedTuple):
    """Part of a file: the archive's `member` (empty if it is none), how many decoded bytes it states, and these bytes
    (none for a member that is no table of posts)."""

    member: str
    size: int
    chunks: Iterator[bytes | Damage] | None


def is_plain(stored: Stored) -> bool:
    """Whether rows can be read where they are stored."""
    opening = bytes(stored[:OPENING])
    compressed = opening.startswith((GZIP, BZIP2, seven_zip.MAGIC))
    return not compressed and encoding_of(opening) in ("utf-8", "ascii")


def tables_in(stored: Stored, start: int, end: int) -> Iterator[Table]:
    """The tables of posts in a file, and what else it holds."""
    magic = bytes(stored[:6])
    if magic == seven_zip.MAGIC:
        members = seven_zip.members(stored)
        if isinstance(members, Damage):
            yield Table("", 0, iter([members]))
            return
        wanted = [member for member in members if PurePosixPath(member.name).name.lower() == TABLE.lower()][:1]
        for member in members:
            chunks = as_utf8(seven_zip.unpacked(stored, member)) if member in wanted else None
            yield Table(member.name, member.size, chunks)
    elif magic.startswith((GZIP, BZIP2)):
        yield Table("", 0, as_utf8(unpacked(stored)))
    else:
        yield Table("", end - start, as_utf8(pieces_of(stored, start, end)))


def pieces_of(stored: Stored, start: int, end: int) -> Iterator[bytes | Damage]:
    """Stored bytes as they are, some at a time."""
    for position in range(start, end, PIECE):
        yield bytes(stored[position : min(position + PIECE, end)])


def read_rows_at(stored: Stored, places: list[Part]) -> Iterator[tuple[Part, bytes]]:
    """The rows at places of a file, which is decoded once."""
    if is_plain(stored):
        yield from ((place, bytes(stored[place.offset : place.offset + place.length])) for place in places)
        return
    for table in tables_in(stored, 0, len(stored)):
        waiting = sorted((place for place in places if place.member == table.member), key=lambda p: p.inner_offset)
        held, base = bytearray(), 0
        for chunk in table.chunks or ():
            if not waiting:
                break
            held += chunk if isinstance(chunk, bytes) else b""
            while waiting and base + len(held) >= waiting[0].inner_offset + waiting[0].inner_length:
                place = waiting.pop(0)
                yield place, bytes(held[place.inner_offset - base :][: place.inner_length])
            keep = max(waiting[0].inner_offset - base, 0) if waiting else 0
            base += len(held[:keep])
            del held[:keep]
