"""MediaWiki's XML dumps (export schema 0.3 to 0.11), read page by page, damaged ones as far as they go.

A scanner finds `<page>` and `</page>`: wikitext is escaped, so neither can stand inside it. Each page is then parsed by
an expat parser of its own. A document type can only stand before a document's first element, so no page can declare
entities, let alone nest them; and a page that is broken costs itself alone.
"""

import bz2
import codecs
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat

from manifests.reasons import Reason

PIECE = 1 << 20
"""bytes or characters taken at a time"""
STORED = 1 << 16
"""stored bytes fed to a decompressor at a time: gzip makes at most 1,032 times as many of them"""
MAX_CHARACTERS = 1 << 25
"""of a page: MediaWiki's default limit for a text is 2 MiB ($wgMaxArticleSize); histories may hold more"""
OPENING = 1 << 12
"""characters in which a dump's first element begins"""
ENCODINGS = ("utf", "iso8859", "cp", "koi8", "gb", "big5", "shift_jis", "euc", "ascii")
"""how Python's names of the encodings begin that a declaration may name"""

_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
"""byte order marks, then how "<" is encoded without one (XML 1.0, appendix F)"""
_DECLARED = re.compile(rb"\s{0,64}<\?xml[^>]{0,200}?encoding\s{0,8}=\s{0,8}[\"']([\w.:-]{1,40})[\"']")
_PAGE = re.compile(r"<(/?)page\s{0,16}>")
MARK_CHARACTERS = 24
"""the longest mark of a page, which may come in two pieces"""
_STREAM = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")
"""a bzip2 stream with at least one block"""


@dataclass(frozen=True, slots=True)
class Page:
    """A page: `identifier` and `namespace` are MediaWiki's numbers (0 = articles), `redirect` is whether it only leads
    to another page, `wikitext` that of its last revision in the dump."""

    identifier: int
    namespace: int
    title: str
    redirect: bool
    wikitext: str


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that could not be read, in its place among the pages."""

    problem: Reason
    detail: str


def open_dump(path: Path | str) -> Iterator[bytes | Damage]:
    """The bytes of a dump that is plain or compressed by bzip2 (several streams, too) or gzip, told by its first bytes.
    Behind a damaged bzip2 stream the next one is read; other damage ends the dump. Never raises."""
    try:
        with Path(path).open("rb") as file:
            magic = file.read(3)
            file.seek(0)
            if magic == b"BZh":
                yield from _bunzipped(file)
            elif magic[:2] == b"\x1f\x8b":
                yield from _gunzipped(file)
            else:
                while piece := file.read(PIECE):
                    yield piece
    except OSError as error:
        yield Damage(Reason.UNREADABLE_FILE, error.strerror or "cannot be read")


def pages(chunks: Iterable[bytes | Damage], max_characters: int = MAX_CHARACTERS) -> Iterator[Page | Damage]:
    """The pages of a dump in order, with the damage between them. No bytes make it raise; takes linear time, and memory
    of the order of `max_characters`. A part of a dump, cut at pages, is a dump too."""
    buffer, begin, seen = "", -1, 0
    opening, tail, found = "", "", False
    too_large = Damage(Reason.TOO_LARGE, f"a page of more than {max_characters} characters")
    for piece in _decoded(chunks):
        if isinstance(piece, Damage):
            yield piece
            buffer, begin, seen = "", -1, 0
            opening, found = "", True
            continue
        opening = opening or piece[:OPENING]
        tail = (tail + piece)[-64:]
        buffer += piece
        for mark in _PAGE.finditer(buffer, seen):
            seen, found = mark.end(), True
            if begin >= 0 and mark.start() - begin > max_characters:
                yield too_large
            elif begin >= 0 and mark.group(1):
                yield _page(buffer[begin : mark.start()])
            elif begin >= 0:
                yield Damage(Reason.CORRUPT_RECORD, "a page that does not end")
            begin = -1 if mark.group(1) else mark.end()
        if begin >= 0 and len(buffer) - begin > max_characters + MARK_CHARACTERS:
            yield too_large
            begin = -1
        seen = max(seen, len(buffer) - MARK_CHARACTERS)
        kept = seen if begin < 0 else begin
        buffer, begin, seen = buffer[kept:], min(begin, 0), seen - kept
    if begin >= 0:
        yield Damage(Reason.TRUNCATED_RECORD, "the dump ends within a page")
    elif not found and "<mediawiki" not in opening:
        yield Damage(Reason.UNSUPPORTED_FORMAT, "no MediaWiki dump")
    elif "<mediawiki" in opening and "</mediawiki" not in tail:
        yield Damage(Reason.TRUNCATED_RECORD, "the dump ends early")


def _page(inner: str) -> Page | Damage:
    """A page from what stands between its marks."""
    fields, parser = _Fields(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = fields.start
    parser.EndElementHandler = fields.end
    parser.CharacterDataHandler = fields.characters
    try:
        parser.Parse("<page>", False)
        parser.Parse(inner, False)
        parser.Parse("</page>", True)
    except expat.ExpatError as error:
        return Damage(Reason.CORRUPT_RECORD, f"a page that is no XML: {expat.ErrorString(error.code)}")
    title, identifier = fields.texts.get("title"), _number(fields.texts.get("id", ""))
    if title is None or identifier is None:
        return Damage(Reason.CORRUPT_RECORD, "a page without title or id")
    namespace = _number(fields.texts.get("ns", "0")) or 0
    return Page(identifier, namespace, title, fields.redirect, fields.texts.get("text", ""))


class _Fields:
    """The texts of a page's own elements, and of its revisions' last text, as a parser comes upon them."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.redirect = False
        self.depth = 0
        self.name = ""  # of the element whose text is being taken
        self.parts: list[str] = []

    def start(self, name: str, _: dict[str, str]) -> None:
        self.depth += 1
        self.redirect = self.redirect or (self.depth == 2 and name == "redirect")
        if (self.depth == 2 and name in ("title", "ns", "id")) or (self.depth == 3 and name == "text"):
            self.name, self.parts = name, []

    def end(self, name: str) -> None:
        self.depth -= 1
        if name == self.name and self.depth < (3 if name == "text" else 2):
            self.texts[name] = "".join(self.parts)
            self.name = ""

    def characters(self, data: str) -> None:
        if self.name:
            self.parts.append(data)


def _number(digits: str) -> int | None:
    digits = digits.strip()
    whole = digits.removeprefix("-")
    return int(digits) if whole.isascii() and whole.isdigit() and len(whole) < 19 else None


def _decoded(chunks: Iterable[bytes | Damage]) -> Iterator[str | Damage]:
    """Text in pieces of `PIECE` characters or more, however small the chunks; damage in its place."""
    decoder: codecs.IncrementalDecoder | None = None
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        if isinstance(chunk, bytes):
            waiting.append(chunk)
            size += len(chunk)
            if size < PIECE:
                continue
        data, waiting, size = b"".join(waiting), [], 0
        if data:
            decoder = decoder or codecs.getincrementaldecoder(_encoding(data))("replace")
            yield decoder.decode(data)
        if isinstance(chunk, Damage):
            yield chunk
            if decoder:
                decoder.reset()
    data = b"".join(waiting)
    decoder = decoder or codecs.getincrementaldecoder(_encoding(data))("replace")
    yield decoder.decode(data, True)


def _encoding(beginning: bytes) -> str:
    """The encoding by byte order mark, by how "<" is encoded, or as declared; UTF-8 if none of them tells."""
    for mark, name in _MARKS:
        if beginning.startswith(mark):
            return name
    declared = _DECLARED.match(beginning)
    if declared:
        try:
            name = codecs.lookup(declared.group(1).decode("ascii", "replace")).name
        except LookupError:
            return "utf-8"
        if name.startswith(ENCODINGS) and name != "utf-7":
            return name
    return "utf-8"


def _gunzipped(file: BinaryIO) -> Iterator[bytes | Damage]:
    inflater = zlib.decompressobj(wbits=31)
    begun = False
    try:
        while stored := file.read(STORED):
            while stored:
                if inflater.eof:
                    inflater, begun = zlib.decompressobj(wbits=31), False
                yield inflater.decompress(stored)
                stored, begun = inflater.unused_data, True
    except zlib.error as error:
        yield Damage(Reason.CORRUPT_GZIP, f"the gzip member does not inflate: {error}")
        return
    if begun and not inflater.eof:
        yield Damage(Reason.TRUNCATED_RECORD, "the gzip member ends early")


def _bunzipped(file: BinaryIO) -> Iterator[bytes | Damage]:
    """Stream after stream; behind a damaged one, from the next place on where one begins."""
    stored = file.read(STORED)
    while stored:
        inflater = bz2.BZ2Decompressor()
        fed, behind = stored, 1  # the next stream is looked for in `fed`, from `behind` on
        try:
            yield inflater.decompress(stored, PIECE)
            while not inflater.eof:
                stored = b""
                if inflater.needs_input:
                    fed = stored = file.read(STORED)
                    behind = 0
                    if not stored:
                        yield Damage(Reason.TRUNCATED_RECORD, "the bzip2 stream ends early")
                        return
                yield inflater.decompress(stored, PIECE)
            stored = inflater.unused_data or file.read(STORED)
        except OSError:
            yield Damage(Reason.CORRUPT_RECORD, "a bzip2 stream that does not inflate")
            stored = _next_stream(fed, behind, file)


def _next_stream(stored: bytes, start: int, file: BinaryIO) -> bytes:
    """Stored bytes from the next beginning of a stream on, looked for from `start`; empty if there is none."""
    while not (found := _STREAM.search(stored, start)):
        more = file.read(STORED)
        if not more:
            return b""
        stored, start = stored[max(start, len(stored) - 9) :] + more, 0
    return stored[found.start() :]
