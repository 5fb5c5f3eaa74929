"""Damage small web archives deterministically, and record which units stay untouched."""

import base64
import gzip
import hashlib
import io
import random
import re
import sys
from dataclasses import dataclass, field
from typing import Literal

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from filters.formats.warc import Limits, read_frames

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LENGTH = re.compile(rb"(Content-Length: |text/html )([0-9]+)")


@dataclass(frozen=True)
class Archive:
    """An archive that is divided into units.

    Attributes:
        form: "gzip" for units that are gzip members or zstd frames, else the format of the uncompressed records.
        units: The bytes of each unit.
        whole: For each unit, True if it contains complete records, so that a reader must find them.
    """

    form: Literal["gzip", "WARC", "ARC"]
    units: list[bytes]
    whole: list[bool]


@dataclass(frozen=True)
class Stretch:
    """A range of bytes of a damaged archive. `untouched` is True if the range is a whole unit without damage."""

    data: bytes
    untouched: bool = False


@dataclass
class Damaged:
    """An archive after damage.

    Attributes:
        stretches: The ranges of bytes, in order.
        done: The names of the functions that damaged it.
    """

    stretches: list[Stretch]
    done: list[str] = field(default_factory=list)

    def stored(self) -> bytes:
        """Return the bytes of the archive."""
        return b"".join(stretch.data for stretch in self.stretches)

    def cut_at(self, position: int) -> int:
        """Return the index of the stretch that begins at a position.

        A stretch that contains the position is first cut into two stretches, which are no longer untouched.
        """
        for index, stretch in enumerate(self.stretches):
            if position <= 0:
                return index
            if position < len(stretch.data):
                self.stretches[index : index + 1] = [Stretch(stretch.data[:position]), Stretch(stretch.data[position:])]
                return index + 1
            position -= len(stretch.data)
        return len(self.stretches)

    def untouched(self) -> dict[int, bytes]:
        """Return the untouched units by offset in the damaged archive."""
        found, position = {}, 0
        for stretch in self.stretches:
            if stretch.untouched:
                found[position] = stretch.data
            position += len(stretch.data)
        return found


def split_archive(stored: bytes) -> Archive:
    """Divide the bytes of a real archive into units at its frames.

    A unit is whole if all its records are good and its end does not depend on the bytes after it. The end can depend on
    them, because some writers leave out the newlines at the end of a block.
    """
    good: dict[tuple[int, int], bool] = {}
    limits = Limits(64 << 20)
    for frame in read_frames(stored, limits):
        place = (frame.offset, frame.length)
        good[place] = good.get(place, True) and frame.problem is None and not frame.headers.has_rewritten_lines()
    units = [stored[offset : offset + length] for offset, length in good]
    closed = [
        [frame.block for frame in read_frames(unit, limits)]
        == [frame.block for frame in read_frames(unit + b"\0", limits)][:-1]
        for unit in units
    ]
    whole = [one and other for one, other in zip(good.values(), closed, strict=True)]
    return Archive("gzip" if stored.startswith(b"\x1f\x8b") else "WARC", units, whole)


def make_archives() -> list[Archive]:
    """Return archives of the same pages in eight formats.

    WARC and ARC, each uncompressed, with one gzip member per record, with one gzip member in all, and with zstd frames.
    """
    pages = [_page(random.Random(number), number) for number in range(7)]
    archives = []
    warc, arc = [_warc(*page) for page in pages], [_ARC_START, *(_arc(*page) for page in pages)]
    for records in (warc, arc):
        archives.append(Archive("WARC" if records is warc else "ARC", records, [True] * len(records)))
        members = [gzip.compress(record, mtime=0) for record in records]
        for units in (members, [gzip.compress(b"".join(records), mtime=0)], [pack_zstd(record) for record in records]):
            archives.append(Archive("gzip", units, [True] * len(units)))
    return archives


def pack_zstd(record: bytes) -> bytes:
    """Compress a record as a zstd frame with a checksum, as WARC-ZSTD requires."""
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
    return packer.compress(record) + packer.flush()


def damage_archive(archive: Archive, others: list[Archive], chance: random.Random) -> Damaged:
    """Return an archive after one to five random kinds of damage.

    Args:
        archive: The archive, which is not changed.
        others: Archives of the same form, from which units and bytes are copied.
        chance: The random number generator.
    """
    hurt = Damaged([Stretch(unit, whole) for unit, whole in zip(archive.units, archive.whole, strict=True)])
    for _ in range(chance.randrange(1, 6)):
        harm = chance.choice((_flip, _cut, _insert, _splice, _splice_bytes, _truncate, _change_length, _move))
        if hurt.stored():
            harm(hurt, chance.choice(others), chance)
            hurt.done.append(harm.__name__)
    return hurt


def _flip(hurt: Damaged, other: Archive, chance: random.Random) -> None:
    """Flip one to three bits of a stretch."""
    index = chance.randrange(len(hurt.stretches))
    data = bytearray(hurt.stretches[index].data)
    for _ in range(chance.randrange(1, 4)):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    hurt.stretches[index] = Stretch(bytes(data), hurt.stretches[index].untouched and data == hurt.stretches[index].data)


def _cut(hurt: Damaged, other: Archive, chance: random.Random) -> None:
    """Remove a range of bytes."""
    begin = chance.randrange(len(hurt.stored()))
    end = begin + chance.randrange(1, 2000)
    first = hurt.cut_at(begin)
    del hurt.stretches[first : hurt.cut_at(end)]


def _insert(hurt: Damaged, other: Archive, chance: random.Random) -> None:
    """Insert random bytes, zeros, newlines or the beginning of a gzip member."""
    size = chance.randrange(1, 600)
    junk = chance.choice((chance.randbytes(size), bytes(size), b"\r\n" * size, b"\x1f\x8b\x08\0" + bytes(size)))
    hurt.stretches.insert(hurt.cut_at(chance.randrange(len(hurt.stored()))), Stretch(junk))


def _splice(hurt: Damaged, other: Archive, chance: random.Random) -> None:
    """Insert whole units of another archive, between stretches or within a stretch."""
    index = chance.randrange(len(hurt.stretches) + 1)
    if chance.random() < 0.5:
        index = hurt.cut_at(chance.randrange(len(hurt.stored())))
    begin = chance.randrange(len(other.units))
    for unit, whole in list(zip(other.units, other.whole, strict=True))[begin : begin + chance.randrange(1, 4)]:
        hurt.stretches.insert(index, Stretch(unit, whole))


def _splice_bytes(hurt: Damaged, other: Archive, chance: random.Random) -> None:
    """Insert a range of bytes of another archive."""
    stored = b"".join(other.units)
    begin = chance.randrange(len(stored))
    stretch = Stretch(stored[begin : begin + chance.randrange(1, 20_000)])
    hurt.stretches.insert(hurt.cut_at(chance.randrange(len(hurt.stored()))), stretch)


def _truncate(hurt: Damaged, other: Archive, chance: random.Random) -> None:
    """Remove all bytes after a position."""
    del hurt.stretches[hurt.cut_at(chance.randrange(len(hurt.stored()))) :]


def _change_length(hurt: Damaged, other: Archive, chance: random.Random) -> None:
    """Change the stated length of a record. A gzip member that contains the record stays valid."""
    index = chance.randrange(len(hurt.stretches))
    data = hurt.stretches[index].data
    try:
        record, gzipped = gzip.decompress(data), True
    except (OSError, EOFError, ValueError, gzip.zlib.error):  # type: ignore[attr-defined]
        record, gzipped = data, False
    length = b"%d" % chance.choice((chance.randrange(5000), chance.randrange(10**12), 0, 10**17))
    changed = LENGTH.sub(lambda found: found[1] + length, record, count=1)
    if changed != record:
        hurt.stretches[index] = Stretch(gzip.compress(changed, mtime=0) if gzipped else changed)


def _move(hurt: Damaged, other: Archive, chance: random.Random) -> None:
    """Move a stretch to another place."""
    stretch = hurt.stretches.pop(chance.randrange(len(hurt.stretches)))
    hurt.stretches.insert(chance.randrange(len(hurt.stretches) + 1), stretch)


def _page(chance: random.Random, number: int) -> tuple[str, bytes]:
    """Return the URL and the HTTP response of a random page."""
    words = " ".join(chance.choice(("alpha", "beta", "gamma", "delta", "omega")) for _ in range(chance.randrange(200)))
    noise = base64.b64encode(chance.randbytes(chance.randrange(400)))  # so that members are not very small
    body = b"<html><body><p>%b.</p>\r\n\r\n<!-- %b --></body></html>" % (words.encode(), noise)
    if number == 3:  # a page about web archives
        body = b"<html><pre>\nWARC/1.0\r\nWARC-Type: response\r\nContent-Length: 5\r\n\r\nhello\r\n\r\n</pre></html>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body)
    return f"http://a.example/{number}", head + body


def _warc(uri: str, block: bytes) -> bytes:
    """Return an uncompressed WARC record of an HTTP response, written by warcio."""
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=False)
    head, _, body = block.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = [tuple(line.split(": ", 1)) for line in lines[1:]]
    headers = StatusAndHeaders(lines[0].split(" ", 1)[1], fields, protocol="HTTP/1.1")
    identity = hashlib.sha1(uri.encode()).hexdigest()
    fixed = {"WARC-Date": "2024-05-18T01:58:10Z", "WARC-Record-ID": f"<urn:uuid:{identity}>"}
    writer.write_record(
        writer.create_warc_record(uri, "response", io.BytesIO(body), http_headers=headers, warc_headers_dict=fixed)
    )
    return out.getvalue()


_ARC_START = b"filedesc://a.arc 0.0.0.0 20240518015810 text/plain 76\n1 0 Example\n" + (
    b"URL IP-address Archive-date Content-type Archive-length\n\n\n\n\n\n\n\n\n\n"
)


def _arc(uri: str, block: bytes) -> bytes:
    """Return an uncompressed ARC record of an HTTP response."""
    return b"%b 192.0.2.1 20240518015810 text/html %d\n%b\n" % (uri.encode(), len(block), block)
