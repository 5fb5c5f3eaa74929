"""Read MediaWiki's XML dumps (export schema 0.3 to 0.11) page by page, also if they are damaged.

A scanner finds the tags `<page>` and `</page>`. Wikitext is escaped, so these tags cannot occur inside it. Each page is
then parsed by a separate expat parser. So a broken page does not affect other pages. A page also cannot declare
entities, which could be nested to fill the memory, because a document type is allowed only before the first element.

A compressed dump is divided into units, which can be decoded independently. A unit of a bzip2 dump begins with a bzip2
stream whose first bytes are a page, and ends before the next such stream. In multistream dumps each stream is a unit;
other bzip2 dumps are a single unit. A gzipped dump is a single unit. After a damaged bzip2 stream, reading continues at
the next stream. After other damage, reading stops.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from filters.formats.charset import is_utf8_xml, transcode_xml, unescape
from filters.formats.stored import Stored, buffer_of, open_stored
from filters.formats.stream import (
    BZIP2,
    BZIP2_STREAM,
    GZIP,
    OPENING,
    Chunk,
    Damage,
    add_remaining_bytes,
    decode_chunks,
    is_compressed,
    read_ranges,
)
from filters.reasons import Reason

# Bytes of a page. MediaWiki's limit for a text is 2 MiB ($wgMaxArticleSize). Dumps with histories have several texts
# per page.
MAX_BYTES = 1 << 25
MAX_GAP = 1 << 30  # Bytes without a page after which reading stops, because the file is probably a decompression bomb.
# Decoded bytes of the pages of a unit that are held in memory until the end of the unit is known. The frames of a
# longer unit get a range of stored bytes up to the end of the file.
MAX_UNIT_BYTES = 1 << 25
# Starts of bzip2 streams that are examined to find a position for a cut. In dumps that can be cut, all streams begin
# with a page.
TRIES = 16

_PAGE = re.compile(rb"<(/?)page\s{0,16}>")
_TAG_BYTES = 24  # Bytes of the longest page tag. A tag may be divided between two chunks.
_DEFINES = re.compile(rb"<!(?:DOCTYPE|ENTITY)")
_NAMESPACE = re.compile(rb"<namespace key=\"(-?\d{1,9})\"[^<>/]*>([^<>]{1,200})</namespace>")
_UNDEFINED_ENTITY = 11  # The error code of expat.


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        identifier: MediaWiki's id of the page.
        namespace: The number of the namespace, 0 for articles.
        title: The title as in the dump.
        redirect: True if the page only redirects to another page.
        wikitext: The text of the last revision in the dump.
        revision: The id of this revision.
        timestamp: The time of this revision (ISO 8601, as in the dump).
    """

    identifier: int
    namespace: int
    title: str
    redirect: bool
    wikitext: str
    revision: int = 0
    timestamp: str = ""


class RawPage(NamedTuple):
    """A page, or other text, at the decoded bytes [start, stop).

    Attributes:
        start: The offset of the first byte, including blanks before the page.
        stop: The offset after the last byte.
        place: The offset of the page element.
        data: The page element. Empty if there is a problem.
        problem: The reason why there is no page, else None. ARCHIVE_METADATA is text before the first page or after the
            last one.
        detail: A sentence about the problem.
    """

    start: int
    stop: int
    place: int
    data: bytes = b""
    problem: Reason | None = None
    detail: str = ""


class Frame(NamedTuple):
    """A page element, or a problem, with its location in the stored bytes.

    Attributes:
        offset: The offset of the first stored byte: of the unit, or of the element in a plain dump.
        length: The number of stored bytes of the unit or element.
        inner_offset: The offset of the element in the decoded bytes, in UTF-8.
        inner_length: The number of decoded bytes of the element.
        stored: The number of stored bytes that are attributed to the frame.
        data: The page element. Empty if there is a problem.
        problem: The reason why there is no page, else None.
        detail: A sentence about the problem.
    """

    offset: int
    length: int
    inner_offset: int
    inner_length: int
    stored: int
    data: bytes = b""
    problem: Reason | None = None
    detail: str = ""


def scan_pages(
    chunks: Iterable[bytes | Damage], limit: int, position: int = 0, ends: bool = False
) -> Iterator[RawPage]:
    """Yield the pages of decoded bytes, and the text between them, without a gap. Blanks at the end are left out.

    Never raises. Takes linear time, and memory of the order of `limit`.

    Args:
        chunks: The bytes of a dump in UTF-8.
        limit: The largest number of bytes of a page. A larger page is damage.
        position: The offset of the first byte.
        ends: If True, the dump is damaged if it does not end with `</mediawiki>`.
    """
    # `base` is the offset of buffer[0]. `start` is the offset after the last yielded item. `begin` is the offset of the
    # open page, -1 if no page is open. `searched` is the offset at which the search for tags continues. `outside`
    # contains the first bytes between `start` and `searched` that are not in a page.
    buffer, base = bytearray(), position
    start, begin, searched = position, -1, position
    outside, tail, first = b"", b"", True
    for chunk in chunks:
        if isinstance(chunk, Damage):
            end = base + len(buffer)
            yield RawPage(start, end, start, problem=chunk.problem, detail=chunk.detail)
            buffer.clear()
            base = start = searched = end
            begin, outside, first, ends = -1, b"", False, False
            continue
        buffer += chunk
        tail = (tail + chunk[-64:])[-64:]
        while tag := _PAGE.search(buffer, searched - base):
            at, before, searched, ending = base + tag.start(), searched, base + tag.end(), bool(tag[1])
            stop = searched if ending else at
            found: RawPage | None = None  # It stays None for blanks before a page, which belong to the page.
            if begin >= 0 and searched - begin > limit:
                found = RawPage(start, stop, begin, problem=Reason.TOO_LARGE, detail=f"a page of {stop - begin} bytes")
            elif begin >= 0 and ending:
                found = RawPage(start, stop, begin, bytes(buffer[begin - base : stop - base]))
            elif begin >= 0:
                found = RawPage(start, stop, begin, problem=Reason.CORRUPT_RECORD, detail="a page that does not end")
            elif ending:
                detail = "a page whose first tag is damaged"
                found = RawPage(start, stop, start, problem=Reason.CORRUPT_RECORD, detail=detail)
            elif outside := _extend(outside, buffer[before - base : at - base]):
                found = _frame_outside(start, stop, outside)
            if found:
                yield found
                start = stop
            begin, outside, first = -1 if ending else at, b"", False
        length = base + len(buffer)
        if length - max(start, begin) > MAX_GAP:
            detail = f"over {MAX_GAP} bytes without a page"
            yield RawPage(start, length, start, problem=Reason.TOO_LARGE, detail=detail)
            return
        before, searched = searched, max(searched, length - _TAG_BYTES)
        if begin < 0:
            outside = _extend(outside, buffer[before - base : searched - base])
        kept = begin if begin >= 0 and length - begin <= limit + _TAG_BYTES else searched
        if kept - base >= _TAG_BYTES:
            del buffer[: kept - base]
            base = kept
    end = base + len(buffer)
    if begin >= 0:
        yield RawPage(start, end, begin, problem=Reason.TRUNCATED_RECORD, detail="the dump ends within a page")
        return
    outside = _extend(outside, buffer[searched - base :])
    if first and b"<mediawiki" not in outside and not outside.startswith(b"</mediawiki"):
        yield RawPage(start, end, start, problem=Reason.UNSUPPORTED_FORMAT, detail="not a MediaWiki dump")
    elif ends and b"</mediawiki" not in tail:
        yield RawPage(start, end, start, problem=Reason.TRUNCATED_RECORD, detail="the dump ends early")
    elif outside:
        yield _frame_outside(start, end, outside)


def _extend(outside: bytes, data: bytearray) -> bytes:
    """Append data to the first bytes of a text, up to OPENING bytes. Blanks at the start of the text are removed."""
    return outside if len(outside) >= OPENING else (outside + data if outside else bytes(data.lstrip()))[:OPENING]


def _frame_outside(start: int, stop: int, outside: bytes) -> RawPage:
    """Return the item for text before the first page of a dump, between two pages, or after the last page."""
    if _DEFINES.search(outside):
        return RawPage(start, stop, start, problem=Reason.ENTITY_EXPANSION, detail="a document type of its own")
    if b"mediawiki" in outside:  # The start or the end of a dump. A file may consist of several dumps.
        return RawPage(start, stop, start, problem=Reason.ARCHIVE_METADATA)
    return RawPage(start, stop, start, problem=Reason.CORRUPT_RECORD, detail="bytes that belong to no page")


def parse_page(element: bytes, namespaces: Mapping[str, int]) -> Page | Damage:
    """Parse a page element. Return damage if it is not valid. Bytes that are not UTF-8 become U+FFFD.

    Args:
        element: The page element.
        namespaces: The result of `read_namespaces`. It is used for pages without the number of their namespace.
    """
    try:
        page = ElementTree.fromstring(element.decode("utf-8", "replace"))
    except ElementTree.ParseError as error:
        problem = Reason.ENTITY_EXPANSION if error.code == _UNDEFINED_ENTITY else Reason.CORRUPT_RECORD
        return Damage(problem, f"a page that is not XML: {expat.ErrorString(error.code)}")

    def read(path: str, default: str = "") -> str:
        """Return the text of the last element at a path. The last one belongs to the last revision."""
        found = page.findall(path)
        return "".join(found[-1].itertext()) if found else default

    identifier = _parse_number(read("id"))
    if page.find("title") is None or identifier is None:
        return Damage(Reason.CORRUPT_RECORD, "a page without title or id")
    revision = _parse_number(read("revision/id", "0")) or 0
    if page.find("ns") is not None:
        namespace = _parse_number(read("ns")) or 0
    else:
        prefix, colon, _ = read("title").partition(":")
        namespace = namespaces.get(prefix.strip().lower(), 0) if colon else 0
    wikitext, time = read("revision/text"), read("revision/timestamp").strip()
    return Page(identifier, namespace, read("title"), page.find("redirect") is not None, wikitext, revision, time)


def _parse_number(digits: str) -> int | None:
    """Return a number of at most 18 digits, None for other strings."""
    digits = digits.strip()
    number = digits.removeprefix("-")
    return int(digits) if number.isascii() and number.isdigit() and len(number) < 19 else None


# --- pages among the stored bytes ---


def read_namespaces(stored: Stored) -> dict[str, int]:
    """Return a dict from the name of a namespace, in lower case, to its number, as the header of a dump lists them.

    The title of a page begins with the name of its namespace. Before export schema 0.6 pages do not contain the number.
    """
    found = _NAMESPACE.findall(_read_opening(stored))
    return {unescape(name.decode("utf-8", "replace")).lower(): int(number) for number, name in found}


def read_dump(path: Path | str) -> Iterator[Page | Damage]:
    """Yield the pages of a dump in order, with the damage between them.

    Raises:
        OSError: The file cannot be opened.
    """
    with open_stored(Path(path)) as stored:
        namespaces = read_namespaces(stored)
        for frame in read_frames(stored, MAX_BYTES):
            if frame.problem is None:
                yield parse_page(frame.data, namespaces)
            elif frame.problem is not Reason.ARCHIVE_METADATA:
                yield Damage(frame.problem, frame.detail)


def read_frames(stored: Stored, limit: int, start: int = 0, end: int | None = None) -> Iterator[Frame]:
    """Yield the pages of a part of a dump, and the text between them, in order.

    The sum of `Frame.stored` is the number of stored bytes of the part. Never raises. Takes linear time, and memory of
    the order of `limit` and MAX_UNIT_BYTES.

    Args:
        stored: The whole dump.
        limit: The largest number of bytes of a page. A larger page is damage.
        start: The start of the part: 0, or an offset that `find_cuts` returned.
        end: The end of the part: an offset that `find_cuts` returned, or None for the end of the dump.
    """
    end = len(stored) if end is None else end
    opening = _read_opening(stored)
    complete = end == len(stored) and b"<mediawiki" in opening[:OPENING].replace(b"\0", b"")
    if is_compressed(stored) or not is_utf8_xml(opening):
        frames = _read_compressed(stored, start, end, limit, complete, is_utf8_xml(opening))
    else:
        frames = _read_plain(stored, start, end, limit, complete)
    yield from add_remaining_bytes(frames, end - start)


def read_element(stored: Stored, offset: int, length: int, inner_offset: int, inner_length: int) -> bytes:
    """Return the bytes of an element, given the fields of its locator. Return fewer bytes if the dump ends early."""
    if not is_compressed(stored) and is_utf8_xml(_read_opening(stored)):
        return bytes(stored[offset : offset + length])[inner_offset : inner_offset + inner_length]
    chunks = decode_chunks(stored, offset, min(offset + length, len(stored)), resume=True)
    found = read_ranges(transcode_xml(chunk.data for chunk in chunks), [(inner_offset, inner_length)])
    return next(found, (0, b""))[1]


def find_cuts(stored: Stored, split_bytes: int) -> list[int]:
    """Return offsets that divide a dump into pieces of about `split_bytes` bytes, without 0 and the size of the dump.

    A plain dump is cut after pages. A bzip2 dump is cut before streams that begin with a page. Gzipped dumps, and dumps
    that are not in UTF-8, are not cut.
    """
    found: list[int] = []
    if not is_utf8_xml(_read_opening(stored)):
        return found
    bzip2, gzip = stored[:3] == BZIP2, stored[:2] == GZIP
    for wanted in range(split_bytes, 0 if gzip else len(stored), split_bytes):
        if found and found[-1] >= wanted:
            continue
        place = _find_page_stream(stored, wanted) if bzip2 else stored.find(b"</page>", wanted) + len(b"</page>")
        if wanted <= place < len(stored):
            found.append(place)
    return found


def _read_opening(stored: Stored) -> bytes:
    """Return the first chunk of decoded bytes."""
    chunks = decode_chunks(stored, 0, len(stored), resume=True)
    return next((chunk.data for chunk in chunks if chunk.data or chunk.damage), b"")


def _find_page_stream(stored: Stored, position: int) -> int:
    """Return the start of the next bzip2 stream that begins with a page, or -1 if the next TRIES streams do not."""
    for _ in range(TRIES):
        found = BZIP2_STREAM.search(buffer_of(stored, position, len(stored)), position)
        if found is None:
            break
        position = found.end()
        if _begins_with_page(next(decode_chunks(stored, found.start(), len(stored), resume=True)).data):
            return found.start()
    return -1


def _begins_with_page(data: bytes) -> bool:
    """Return True if decoded bytes begin with a page or with the end tag of a dump."""
    return data[:64].lstrip().startswith((b"<page", b"</mediawiki"))


def _read_plain(stored: Stored, start: int, end: int, limit: int, complete: bool) -> Iterator[Frame]:
    """Yield the frames of an uncompressed dump in UTF-8. See `_read_compressed` for the arguments."""
    chunks = (chunk.data for chunk in decode_chunks(stored, start, end))
    for raw in scan_pages(chunks, limit, start, complete):
        length = len(raw.data) or raw.stop - raw.start
        place = raw.place if raw.data else raw.start
        yield Frame(place, length, 0, length, raw.stop - raw.start, raw.data, raw.problem, raw.detail)


@dataclass
class _Unit:
    """A reader of the chunks of a unit.

    Attributes:
        chunks: The chunks that were not read yet.
        stop: The offset in the stored bytes up to which chunks were read.
        ended: True if all chunks were read.
        damaged: True if the last chunk was damage.
        tail: The last decoded bytes, at most 64.
        span: The start and end of the last chunk in the decoded bytes, and its start and end in the stored bytes.
    """

    chunks: Iterator[Chunk]
    stop: int
    ended: bool = False
    damaged: bool = False
    tail: bytes = b""
    span: tuple[int, int, int, int] = (0, 0, 0, 0)

    def read(self) -> Iterator[bytes | Damage]:
        """Yield the decoded bytes or the damage of each chunk, and update the attributes."""
        for chunk in self.chunks:
            self.damaged = chunk.damage is not None
            self.tail = (self.tail + chunk.data[-64:])[-64:]
            self.span = (self.span[1], self.span[1] + len(chunk.data), self.stop, chunk.stop)
            self.stop = chunk.stop
            yield chunk.damage or chunk.data
        self.ended = True

    def stored_at(self, position: int) -> int:
        """Return the approximate offset in the stored bytes for an offset in the decoded bytes of the last chunk."""
        decoded_from, decoded_to, stored_from, stored_to = self.span
        if position >= decoded_to:
            return stored_to
        return stored_from + (stored_to - stored_from) * max(position - decoded_from, 0) // (decoded_to - decoded_from)


def _split_units(chunks: Iterator[Chunk], whole: bool) -> Iterator[Iterator[Chunk]]:
    """Yield, for each unit, an iterator over its chunks. If `whole`, all chunks are one unit."""
    number = 0

    def number_unit(chunk: Chunk) -> int:
        """Return the number of the unit of a chunk."""
        nonlocal number
        number += chunk.starts_stream and not whole and (chunk.damage is not None or _begins_with_page(chunk.data))
        return number

    return (of_unit for _, of_unit in groupby(chunks, number_unit))


def _read_compressed(stored: Stored, start: int, end: int, limit: int, complete: bool, utf8: bool) -> Iterator[Frame]:
    """Yield the frames of a dump that is compressed or not in UTF-8. Stored bytes are divided by decoded length.

    Args:
        stored: The whole dump.
        start: The start of the part to read.
        end: The end of the part.
        limit: The largest number of bytes of a page.
        complete: True if the part must end with `</mediawiki>`.
        utf8: True if the dump is in UTF-8.
    """
    whole = bytes(stored[:2]) == GZIP or not utf8
    chunks = decode_chunks(stored, start, end, resume=True)
    unit = _Unit(iter(()), start)
    for of_unit in _split_units(_transcode_chunks(chunks) if whole else chunks, whole):
        begun = accounted = unit.stop
        unit = _Unit(of_unit, begun)
        held: list[Frame] = []
        size, over = 0, whole
        for raw in scan_pages(unit.read(), limit):
            place = raw.place if raw.data else raw.start
            inner = len(raw.data) or raw.stop - raw.start
            share = max(unit.stored_at(raw.stop) - accounted, 0)
            accounted += share
            held.append(Frame(begun, len(stored) - begun, place, inner, share, raw.data, raw.problem, raw.detail))
            size += len(raw.data)
            over = over or size > MAX_UNIT_BYTES
            if over:
                yield from held
                held = []
        if not unit.ended:
            yield from held
            # There are more than MAX_GAP bytes without a page. The caller attributes the remaining stored bytes to the
            # last frame.
            return
        yield from (frame._replace(length=unit.stop - begun) for frame in add_remaining_bytes(held, unit.stop - begun))
    if complete and not unit.damaged and b"</mediawiki" not in unit.tail:
        yield Frame(end, 0, 0, 0, 0, problem=Reason.TRUNCATED_RECORD, detail="the dump ends early")


def _transcode_chunks(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield the chunks converted to UTF-8."""
    last = Chunk(b"", 0, 0)

    def data() -> Iterator[bytes]:
        nonlocal last
        for chunk in chunks:
            last = chunk
            yield chunk.data

    for text in transcode_xml(data()):
        assert isinstance(text, bytes)
        yield last._replace(data=text)
        last = Chunk(b"", last.stop, last.fed)
