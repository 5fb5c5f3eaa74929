"""MediaWiki's XML dumps (export schema 0.3 to 0.11), read page by page, damaged ones as far as they go.

A scanner finds `<page>` and `</page>`: wikitext is escaped, so neither can occur inside it. Each page is then parsed by
an expat parser of its own. A document type can only precede a document's first element, so no page can declare
entities, let alone nest them; and a broken page costs itself alone.

The unit of a compressed dump is the run of bzip2 streams from one that begins with a page to the next such stream (of a
multistream dump, one stream; of any other, the whole file); that of a gzipped dump is the file. After a damaged bzip2
stream the next one is read; other damage ends the bytes.
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

MAX_BYTES = 1 << 25  # of a page: MediaWiki's limit for a text is 2 MiB ($wgMaxArticleSize); histories may hold more
HOPELESS = 1 << 30  # bytes without a page after which no more are searched: a bomb
HELD = 1 << 25  # decoded bytes of a unit held until its end is known; frames of a longer unit reach to the file's end
TRIES = 16  # starts of streams examined for a place to cut; streams of dumps that can be cut all begin with a page

_PAGE = re.compile(rb"<(/?)page\s{0,16}>")
_TAG_BYTES = 24  # of the longest page tag, which may arrive in two pieces
_DEFINES = re.compile(rb"<!(?:DOCTYPE|ENTITY)")
_NAMESPACE = re.compile(rb"<namespace key=\"(-?\d{1,9})\"[^<>/]*>([^<>]{1,200})</namespace>")
_UNDEFINED_ENTITY = 11  # expat's error code


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        identifier: MediaWiki's number.
        namespace: MediaWiki's number; 0 for articles.
        title: The title as the dump has it.
        redirect: True if the page only leads to another page.
        wikitext: The text of its last revision in the dump.
        revision: That revision's number.
        timestamp: That revision's time (ISO 8601, as in the dump).
    """

    identifier: int
    namespace: int
    title: str
    redirect: bool
    wikitext: str
    revision: int = 0
    timestamp: str = ""


class RawPage(NamedTuple):
    """A page or other text at [start, stop) of decoded bytes.

    Attributes:
        start: Where the stretch begins.
        stop: Where it ends.
        place: Where the element begins.
        data: The element; empty with a problem.
        problem: Why there is no page. ARCHIVE_METADATA: text before the first page or after the last.
        detail: A sentence about the problem.
    """

    start: int
    stop: int
    place: int
    data: bytes = b""
    problem: Reason | None = None
    detail: str = ""


class Frame(NamedTuple):
    """A page's element or the problem in its place, and where it lies among the stored bytes.

    Attributes:
        offset: Where the stored bytes begin.
        length: The number of stored bytes.
        inner_offset: Where the element begins in what they decode to, as UTF-8.
        inner_length: The length of the element.
        stored: Stored bytes that the frame accounts for.
        data: The element.
        problem: Why there is no page.
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
    """Yield the pages of decoded bytes and the text around them, without a gap except for blanks at the very end.

    Never raises. Takes linear time, and memory of the order of `limit`.

    Args:
        chunks: UTF-8.
        limit: Bytes of a page; a larger one is damage.
        position: Where the bytes begin.
        ends: True if `</mediawiki>` must end them.
    """
    buffer, base = bytearray(), position  # buffer[0] lies at `base`
    start, begin, searched = position, -1, position  # of the open stretch, of the open page, of the next search
    outside, tail, first = b"", b"", True  # outside: the first bytes of the open stretch before `searched`, if no page
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
            found: RawPage | None = None  # blanks before a page belong to it
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
        if length - max(start, begin) > HOPELESS:
            detail = f"over {HOPELESS} bytes without a page"
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
    """Return the first bytes, without blanks before them, of a stretch that goes on."""
    return outside if len(outside) >= OPENING else (outside + data if outside else bytes(data.lstrip()))[:OPENING]


def _frame_outside(start: int, stop: int, outside: bytes) -> RawPage:
    """Return the text before a dump's first page, between two pages, or after the last one."""
    if _DEFINES.search(outside):
        return RawPage(start, stop, start, problem=Reason.ENTITY_EXPANSION, detail="a document type of its own")
    if b"mediawiki" in outside:  # the header or the end; within a file, of dumps that were joined
        return RawPage(start, stop, start, problem=Reason.ARCHIVE_METADATA)
    return RawPage(start, stop, start, problem=Reason.CORRUPT_RECORD, detail="bytes that belong to no page")


def parse_page(element: bytes, namespaces: Mapping[str, int]) -> Page | Damage:
    """Parse a page's element. Bytes that are not UTF-8 become U+FFFD.

    Args:
        element: The element.
        namespaces: As `read_namespaces` returns them, for pages that state no namespace.
    """
    try:
        page = ElementTree.fromstring(element.decode("utf-8", "replace"))
    except ElementTree.ParseError as error:
        problem = Reason.ENTITY_EXPANSION if error.code == _UNDEFINED_ENTITY else Reason.CORRUPT_RECORD
        return Damage(problem, f"a page that is not XML: {expat.ErrorString(error.code)}")

    def read(path: str, default: str = "") -> str:  # of several revisions the last
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
    digits = digits.strip()
    number = digits.removeprefix("-")
    return int(digits) if number.isascii() and number.isdigit() and len(number) < 19 else None


# --- pages among the stored bytes ---


def read_namespaces(stored: Stored) -> dict[str, int]:
    """Return the numbers of the namespaces that a dump's header lists, by their names in lower case.

    Pages have them as the beginning of their titles; before export schema 0.6 they state no number.
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
    """Yield the pages of a dump and the text around them, in order; their `stored` bytes sum to the part's.

    Never raises. Takes linear time, and memory of the order of `limit` and `HELD`.

    Args:
        stored: The whole dump.
        limit: Bytes of a page; a larger one is damage.
        start: Where a part between two of `find_cuts` begins.
        end: Where it ends.
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
    """Return the decoded bytes at a place; fewer, or none, if the dump ends before."""
    if not is_compressed(stored) and is_utf8_xml(_read_opening(stored)):
        return bytes(stored[offset : offset + length])[inner_offset : inner_offset + inner_length]
    chunks = decode_chunks(stored, offset, min(offset + length, len(stored)), resume=True)
    found = read_ranges(transcode_xml(chunk.data for chunk in chunks), [(inner_offset, inner_length)])
    return next(found, (0, b""))[1]


def find_cuts(stored: Stored, split_bytes: int) -> list[int]:
    """Return where a dump in UTF-8 can be cut into pieces of about `split_bytes`, without its start and end.

    A plain dump is cut after pages, a bzip2 one before streams that begin with a page, a gzipped one nowhere.
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
    chunks = decode_chunks(stored, 0, len(stored), resume=True)
    return next((chunk.data for chunk in chunks if chunk.data or chunk.damage), b"")


def _find_page_stream(stored: Stored, position: int) -> int:
    """Return the start of the next bzip2 stream that begins with a page, -1 if it is not found soon."""
    for _ in range(TRIES):
        found = BZIP2_STREAM.search(buffer_of(stored, position, len(stored)), position)
        if found is None:
            break
        position = found.end()
        if _begins_with_page(next(decode_chunks(stored, found.start(), len(stored), resume=True)).data):
            return found.start()
    return -1


def _begins_with_page(data: bytes) -> bool:
    """Return True if decoded bytes begin with a page or the end of a dump."""
    return data[:64].lstrip().startswith((b"<page", b"</mediawiki"))


def _read_plain(stored: Stored, start: int, end: int, limit: int, complete: bool) -> Iterator[Frame]:
    chunks = (chunk.data for chunk in decode_chunks(stored, start, end))
    for raw in scan_pages(chunks, limit, start, complete):
        length = len(raw.data) or raw.stop - raw.start
        place = raw.place if raw.data else raw.start
        yield Frame(place, length, 0, length, raw.stop - raw.start, raw.data, raw.problem, raw.detail)


@dataclass
class _Unit:
    """The chunks of a unit, and what they have told so far.

    Attributes:
        chunks: Those that are not taken yet.
        stop: Stored bytes before it belong to chunks that have been taken.
        ended: All chunks have been taken.
        damaged: The last chunk is damage.
        tail: The last bytes.
        span: The last chunk: start and end of its decoded bytes, then of its stored bytes.
    """

    chunks: Iterator[Chunk]
    stop: int
    ended: bool = False
    damaged: bool = False
    tail: bytes = b""
    span: tuple[int, int, int, int] = (0, 0, 0, 0)

    def read(self) -> Iterator[bytes | Damage]:
        """Yield the bytes."""
        for chunk in self.chunks:
            self.damaged = chunk.damage is not None
            self.tail = (self.tail + chunk.data[-64:])[-64:]
            self.span = (self.span[1], self.span[1] + len(chunk.data), self.stop, chunk.stop)
            self.stop = chunk.stop
            yield chunk.damage or chunk.data
        self.ended = True

    def stored_at(self, position: int) -> int:
        """Return the stored bytes that hold the decoded ones before `position`, which lies in the last chunk."""
        decoded_from, decoded_to, stored_from, stored_to = self.span
        if position >= decoded_to:
            return stored_to
        return stored_from + (stored_to - stored_from) * max(position - decoded_from, 0) // (decoded_to - decoded_from)


def _split_units(chunks: Iterator[Chunk], whole: bool) -> Iterator[Iterator[Chunk]]:
    """Yield the chunks of each unit; `whole`: all are one unit."""
    number = 0

    def count(chunk: Chunk) -> int:
        nonlocal number
        number += chunk.starts_stream and not whole and (chunk.damage is not None or _begins_with_page(chunk.data))
        return number

    return (of_unit for _, of_unit in groupby(chunks, count))


def _read_compressed(stored: Stored, start: int, end: int, limit: int, complete: bool, utf8: bool) -> Iterator[Frame]:
    """Yield each frame with its share of the stored bytes, divided by decoded ones."""
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
            over = over or size > HELD
            if over:
                yield from held
                held = []
        if not unit.ended:
            yield from held
            return  # a bomb: the last frame accounts for what is left
        yield from (frame._replace(length=unit.stop - begun) for frame in add_remaining_bytes(held, unit.stop - begun))
    if complete and not unit.damaged and b"</mediawiki" not in unit.tail:
        yield Frame(end, 0, 0, 0, 0, problem=Reason.TRUNCATED_RECORD, detail="the dump ends early")


def _transcode_chunks(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield the chunks, transcoded to UTF-8."""
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
