"""MediaWiki's XML dumps (export schema 0.3 to 0.11), read page by page, damaged ones as far as they go.

A scanner finds `<page>` and `</page>`: wikitext is escaped, so neither can stand inside it. Each page is then parsed by
an expat parser of its own. A document type can only stand before a document's first element, so no page can declare
entities, let alone nest them; and a page that is broken costs itself alone.
"""

import mmap
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from filters.formats.compression import OPENING, as_utf8
from filters.formats.damage import Damage as Damage
from filters.formats.mediawiki_streams import decoded
from filters.reasons import Reason

MAX_BYTES = 1 << 25
"""of a page: MediaWiki's default limit for a text is 2 MiB ($wgMaxArticleSize); histories may hold more"""
HOPELESS = 1 << 30
"""bytes without a page after which no more are looked for: a bomb"""

_PAGE = re.compile(rb"<(/?)page\s{0,16}>")
_MARK = 24
"""bytes of the longest mark of a page, which may come in two pieces"""
_DEFINES = re.compile(rb"<!(?:DOCTYPE|ENTITY)")
_UNDEFINED = 11
"""expat's number of the error that an entity is not defined"""


@dataclass(frozen=True, slots=True)
class Page:
    """A page: `identifier` and `namespace` are MediaWiki's numbers (0 = articles), `redirect` is whether it only leads
    to another page, `wikitext` that of its last revision in the dump, with that one's number and time (ISO 8601, as the
    dump has it)."""

    identifier: int
    namespace: int
    title: str
    redirect: bool
    wikitext: str
    revision: int = 0
    timestamp: str = ""


class Raw(NamedTuple):
    """A page, or what is none, at [start, stop) of decoded bytes: `data` is the element, which begins at `place`, and
    `problem` why there is none (ARCHIVE_METADATA: what stands before the first page and behind the last)."""

    start: int
    stop: int
    place: int
    data: bytes = b""
    problem: Reason | None = None
    detail: str = ""


def open_dump(path: Path | str) -> Iterator[bytes | Damage]:
    """The bytes of a dump that is plain or compressed by bzip2 (several streams, too) or gzip, told by its first bytes.
    Behind a damaged bzip2 stream the next one is read; other damage ends the dump. Never raises."""
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, 2)
            if size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stored:
                    for chunk in decoded(stored, 0, size):
                        yield chunk.damage or chunk.data
    except OSError as error:
        yield Damage(Reason.UNREADABLE_FILE, error.strerror or "cannot be read")


def pages(chunks: Iterable[bytes | Damage], max_bytes: int = MAX_BYTES) -> Iterator[Page | Damage]:
    """The pages of a dump in order, with the damage between them. No bytes make it raise; takes linear time, and memory
    of the order of `max_bytes`. A part of a dump, cut at pages, is a dump too."""
    for raw in raw_pages(as_utf8(_gathered(chunks)), max_bytes):
        if raw.problem is None:
            yield page_of(raw.data)
        elif raw.problem is not Reason.ARCHIVE_METADATA:
            yield Damage(raw.problem, raw.detail)


def raw_pages(
    chunks: Iterable[bytes | Damage], limit: int, position: int = 0, ends: bool | None = None
) -> Iterator[Raw]:
    """The pages of decoded bytes (UTF-8) that begin at `position`, and what is none, without a gap but for blanks at
    the very end; pages over `limit` bytes are too large. `ends`: whether `</mediawiki>` must be the last that comes;
    None: if `<mediawiki` is there. Never raises; takes linear time, and memory of the order of `limit`."""
    buffer, base = bytearray(), position  # buffer[0] lies at `base`
    start, begin, seen = position, -1, position  # of the open stretch, of the open page, of what is yet to be searched
    opening, tail, first = b"", b"", True
    for chunk in chunks:
        if isinstance(chunk, Damage):
            end = base + len(buffer)
            yield Raw(start, end, start, problem=chunk.problem, detail=chunk.detail)
            buffer.clear()
            base = start = seen = end
            begin, opening, first, ends = -1, b"", False, False
            continue
        buffer += chunk
        opening += chunk[: OPENING - len(opening)] if first else b""
        tail = (tail + chunk[-64:])[-64:]
        while mark := _PAGE.search(buffer, seen - base):
            at, seen = base + mark.start(), base + mark.end()
            if begin < 0 and not mark[1]:
                if first and opening[: at - start].strip():
                    yield _around(start, at, opening[: at - start])
                    start = at
                begin, first = at, False
            elif begin >= 0 and seen - begin > limit:
                stop = seen if mark[1] else at
                yield Raw(start, stop, begin, problem=Reason.TOO_LARGE, detail=f"a page of {stop - begin} bytes")
                start, begin = stop, -1 if mark[1] else at
            elif begin >= 0 and mark[1]:
                yield Raw(start, seen, begin, bytes(buffer[begin - base : seen - base]))
                start, begin = seen, -1
            elif begin >= 0:
                yield Raw(start, at, begin, problem=Reason.CORRUPT_RECORD, detail="a page that does not end")
                start = begin = at
        length = base + len(buffer)
        if length - max(start, begin) > HOPELESS:
            yield Raw(start, length, start, problem=Reason.TOO_LARGE, detail=f"over {HOPELESS} bytes without a page")
            return
        seen = max(seen, length - _MARK)
        kept = begin if begin >= 0 and length - begin <= limit + _MARK else seen
        if kept - base >= _MARK:
            del buffer[: kept - base]
            base = kept
    yield from _end(start, base + len(buffer), begin, opening, first, tail)
    if begin < 0 and (b"<mediawiki" in opening if ends is None else ends) and b"</mediawiki" not in tail:
        end = base + len(buffer)
        yield Raw(end, end, end, problem=Reason.TRUNCATED_RECORD, detail="the dump ends early")


def _end(start: int, end: int, begin: int, opening: bytes, first: bool, tail: bytes) -> Iterator[Raw]:
    """What stands behind the last page."""
    if begin >= 0:
        yield Raw(start, end, begin, problem=Reason.TRUNCATED_RECORD, detail="the dump ends within a page")
    elif first and b"<mediawiki" not in opening and not opening.lstrip().startswith(b"</mediawiki"):
        yield Raw(start, end, start, problem=Reason.UNSUPPORTED_FORMAT, detail="no MediaWiki dump")
    elif first:
        yield _around(start, end, opening)
    elif tail[-(end - start) :].strip() if end > start else b"":
        yield Raw(start, end, start, problem=Reason.ARCHIVE_METADATA)


def _around(start: int, stop: int, opening: bytes) -> Raw:
    """What stands before a dump's first page."""
    if _DEFINES.search(opening):
        return Raw(start, stop, start, problem=Reason.ENTITY_EXPANSION, detail="a document type of its own")
    return Raw(start, stop, start, problem=Reason.ARCHIVE_METADATA)


def page_of(element: bytes) -> Page | Damage:
    """A page from its element. Bytes that are no UTF-8 become U+FFFD."""
    fields, parser = _Fields(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = fields.start
    parser.EndElementHandler = fields.end
    parser.CharacterDataHandler = fields.characters
    try:
        parser.Parse(element.decode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        problem = Reason.ENTITY_EXPANSION if error.code == _UNDEFINED else Reason.CORRUPT_RECORD
        return Damage(problem, f"a page that is no XML: {expat.ErrorString(error.code)}")
    title, identifier = fields.texts.get("title"), _number(fields.texts.get("id", ""))
    if title is None or identifier is None:
        return Damage(Reason.CORRUPT_RECORD, "a page without title or id")
    namespace = _number(fields.texts.get("ns", "0")) or 0
    revision = _number(fields.texts.get("revision/id", "0")) or 0
    wikitext, time = fields.texts.get("revision/text", ""), fields.texts.get("revision/timestamp", "").strip()
    return Page(identifier, namespace, title, fields.redirect, wikitext, revision, time)


class _Fields:
    """The texts of a page's own elements, and of its last revision's, as a parser comes upon them."""

    WANTED = frozenset(["title", "ns", "id", "revision/id", "revision/timestamp", "revision/text"])

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.redirect = False
        self.depth = 0
        self.parent = ""  # the page's own element that is open
        self.name = ""  # of the element whose text is being taken
        self.parts: list[str] = []

    def start(self, name: str, _: dict[str, str]) -> None:
        self.depth += 1
        if self.depth == 2:
            self.parent = name
            self.redirect = self.redirect or name == "redirect"
        elif self.depth == 3:
            name = f"{self.parent}/{name}"
        if self.depth in (2, 3) and name in self.WANTED:
            self.name, self.parts = name, []

    def end(self, _: str) -> None:
        self.depth -= 1
        if self.name and self.depth == 1 + self.name.count("/"):
            self.texts[self.name] = "".join(self.parts)
            self.name = ""

    def characters(self, data: str) -> None:
        if self.name:
            self.parts.append(data)


def _number(digits: str) -> int | None:
    digits = digits.strip()
    whole = digits.removeprefix("-")
    return int(digits) if whole.isascii() and whole.isdigit() and len(whole) < 19 else None


def _gathered(chunks: Iterable[bytes | Damage]) -> Iterator[bytes | Damage]:
    """The same, the first chunk long enough to tell the encoding."""
    held = b""
    told = False
    for chunk in chunks:
        if told:
            yield chunk
            continue
        if isinstance(chunk, bytes):
            held += chunk
            if len(held) < OPENING:
                continue
        told = bool(held)
        if held:
            yield held
        held = b""
        if isinstance(chunk, Damage):
            yield chunk
    if held:
        yield held
