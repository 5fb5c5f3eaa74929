"""Posts.xml of Stack Exchange's data dumps, row by row: `<row Id="1" PostTypeId="1" … Body="&lt;p&gt;…" />`.

No `<` can occur in an attribute (XML 1.0, section 3.1), so `<row` begins a row wherever it occurs, and a broken row
costs itself alone. A row may use XML's own entities and character references; no others are ever expanded. A file is
such a table, plain or compressed, or an archive that holds one.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from filters.formats import sevenzip
from filters.formats.charset import is_utf8_xml, transcode_xml
from filters.formats.stored import Stored, slice_stored
from filters.formats.stream import BZIP2, GZIP, OPENING, Damage, decode_stored
from filters.reasons import Reason

TABLE = "Posts.xml"
HOPELESS = 1 << 30  # bytes without a row after which no more are searched: a bomb
QUESTION, ANSWER = 1, 2  # PostTypeId; others are wikis, nominations, and moderators' texts
DIGITS = 18  # of the longest number: it fits 64 bits

_MARK = b"<row"
_AFTER_MARK = frozenset(b" \t\r\n/>")
_NAME = rb"[A-Za-z_][A-Za-z0-9_.:-]*+"
_ROW = re.compile(
    rb"(<row((?:[ \t\r\n]++" + _NAME + rb"=(?:\"[^\"<]*+\"|'[^'<]*+'))*)[ \t\r\n]*+(?:/>|></row[ \t\r\n]*+>))"
    rb"[ \t\r\n]*+(</posts[ \t\r\n]*+>)?[ \t\r\n]*+"
)
_ATTRIBUTE = re.compile(rb"(" + _NAME + rb")=(?:\"([^\"<]*+)\"|'([^'<]*+)')")
_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*+(?:<\?xml[^<>]*+>\s*+)?(?:(<posts[^<>]*+>)\s*+(</posts\s*+>\s*+)?)?")
_DEFINES = re.compile(rb"<!(?:DOCTYPE|ENTITY)")
_REFERENCE = re.compile(r"&(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|(lt|gt|quot|apos|amp)|([^;&\s]{1,64}));")
_FORBIDDEN = bytes(set(range(32)) - set(b"\t\n\r"))  # control characters that XML excludes
_NAMED = {"lt": "<", "gt": ">", "quot": '"', "apos": "'", "amp": "&"}
_COMMON = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#xA;", "\n"), ("&#xD;", "\r"), ("&#x9;", "\t"))


class RawRow(NamedTuple):
    """A row or other text at [start, stop) of decoded bytes.

    `data` is the element; `problem` says why it is not a row (ARCHIVE_METADATA: text before the first row).
    """

    start: int
    stop: int
    data: bytes = b""
    problem: Reason | None = None
    detail: str = ""


class PostKeys(NamedTuple):
    """The type of a row, its id, and its question's id: its own id, if it is a question."""

    kind: int
    identifier: int
    question: int


class Post(NamedTuple):
    """A post: `body` is HTML; `created` as in the dump; `licence` is empty if the post names none."""

    kind: int
    identifier: int
    question: int
    score: int
    title: str
    body: str
    tags: str
    created: str
    accepted: int
    author: str
    licence: str


class Table(NamedTuple):
    """Part of a file.

    Attributes:
        member: The archive's member, empty if the file is not an archive.
        size: The decoded bytes that it states.
        chunks: These bytes in UTF-8; None for a member that is not a table of posts.
    """

    member: str
    size: int
    chunks: Iterator[bytes | Damage] | None


def is_plain(stored: Stored) -> bool:
    """Return True if a file is an uncompressed table in UTF-8, so that rows can be read by byte offset."""
    opening = bytes(stored[:OPENING])
    return not opening.startswith((GZIP, BZIP2, sevenzip.MAGIC)) and is_utf8_xml(opening)


def read_tables(stored: Stored, start: int, end: int) -> Iterator[Table]:
    """Yield the tables of posts in a file, and its other members."""
    magic = bytes(stored[:6])
    if magic == sevenzip.MAGIC:
        entries = sevenzip.list_entries(stored)
        if isinstance(entries, Damage):
            yield Table("", 0, iter([entries]))
            return
        wanted = [entry for entry in entries if PurePosixPath(entry.name).name.lower() == TABLE.lower()][:1]
        for entry in entries:
            chunks = transcode_xml(sevenzip.decode_entry(stored, entry)) if entry in wanted else None
            yield Table(entry.name, entry.size, chunks)
    elif magic.startswith((GZIP, BZIP2)):
        yield Table("", 0, transcode_xml(decode_stored(stored)))
    else:
        yield Table("", end - start, transcode_xml(slice_stored(stored, start, end)))


def scan_rows(
    chunks: Iterable[bytes | Damage], limit: int, position: int = 0, ends: bool | None = None
) -> Iterator[RawRow]:
    """Yield the rows of decoded bytes and the text around them, without a gap.

    Never raises. Takes linear time, and memory of the order of `limit`.

    Args:
        chunks: UTF-8.
        limit: Bytes of a row; a larger one is damage.
        position: Where the bytes begin.
        ends: True if `</posts>` must end them; None: if they hold `<posts`.
    """
    buffer, base = bytearray(), position  # the open segment begins at `start`, what is held of it at buffer[begin]
    start, begin, seen = position, 0, 0
    first, too_large, tail = True, False, b""
    for chunk in chunks:
        if isinstance(chunk, Damage):
            end = base + len(buffer)
            yield from _frame_segment(buffer, begin, len(buffer), start, end, first, too_large, True)
            yield RawRow(end, end, problem=chunk.problem, detail=chunk.detail)
            return
        buffer += chunk
        tail = (tail + chunk[-64:])[-64:]
        while (found := buffer.find(_MARK, seen)) >= 0 and found + 4 < len(buffer):
            seen = found + 4
            if buffer[seen] in _AFTER_MARK:
                stop = base + found
                if first and ends is None:
                    ends = b"<posts" in buffer[begin:found]
                yield from _frame_segment(buffer, begin, found, start, stop, first, too_large, False)
                begin, start, first, too_large = found, stop, False, False
        seen = max(seen, len(buffer) - 4) if found < 0 else found
        if len(buffer) - begin > limit:
            begin, too_large = seen, True
        if base + len(buffer) - start > HOPELESS:
            end = base + len(buffer)
            yield RawRow(start, end, problem=Reason.TOO_LARGE, detail=f"over {HOPELESS} bytes without a row")
            return
        del buffer[:begin]
        base, begin, seen = base + begin, 0, seen - begin
    end = base + len(buffer)
    if first and ends is None:
        ends = b"<posts" in buffer[begin:]
    yield from _frame_segment(buffer, begin, len(buffer), start, end, first, too_large, True)
    if ends and b"</posts" not in tail:
        yield RawRow(end, end, problem=Reason.TRUNCATED_RECORD, detail="the file ends without </posts>")


def _frame_segment(
    buffer: bytearray, begin: int, stop: int, start: int, end: int, first: bool, too_large: bool, last: bool
) -> Iterator[RawRow]:
    """Yield the bytes from one row's mark to the next: [start, end), of which buffer[begin:stop] is held."""
    if start == end:
        return
    if too_large:
        yield RawRow(start, end, problem=Reason.TOO_LARGE, detail=f"{end - start} bytes")
        return
    data = bytes(buffer[begin:stop])
    if first and not data.startswith(_MARK):
        yield _frame_head(data, start, end, last)
        return
    found = _ROW.match(data)
    middle = start + found.end() if found else start
    if found:
        yield RawRow(start, middle, found[1])
    if middle < end:
        reason = Reason.TRUNCATED_RECORD if last and not found else Reason.CORRUPT_RECORD
        reason = Reason.ENTITY_EXPANSION if _DEFINES.search(data) else reason
        detail = "bytes that belong to no row" if found else "no well-formed row"
        yield RawRow(middle, end, problem=reason, detail=detail)


def _frame_head(data: bytes, start: int, end: int, last: bool) -> RawRow:
    """Return the text before a file's first row."""
    if _DEFINES.search(data):
        return RawRow(start, end, problem=Reason.ENTITY_EXPANSION, detail="a document type")
    found = _HEAD.fullmatch(data)
    if found and (found[1] or not last):
        return RawRow(start, end, problem=Reason.ARCHIVE_METADATA)
    if last:
        return RawRow(start, end, problem=Reason.UNSUPPORTED_FORMAT, detail="not a list of posts")
    return RawRow(start, end, problem=Reason.CORRUPT_RECORD, detail="bytes that belong to no row")


def find_row(data: Stored, position: int) -> int:
    """Return the start of the next row at or after `position`; the length of `data` without one."""
    while (found := data.find(_MARK, position)) >= 0:
        if found + 4 < len(data) and data[found + 4] in _AFTER_MARK:
            return found
        position = found + 4
    return len(data)


class _RowError(Exception):
    """A row that cannot be parsed: reason and detail."""


def parse_keys(row: bytes) -> PostKeys | Damage:
    """Parse a row's keys alone. An answer that names no question belongs to question 0."""
    try:
        return _get_keys(_parse_attributes(row))
    except _RowError as error:
        return Damage(*error.args)


def parse_post(row: bytes) -> Post | Damage:
    """Parse a whole row. Never raises."""
    try:
        return _get_post(row)
    except _RowError as error:
        return Damage(*error.args)


def _get_keys(attributes: dict[bytes, bytes]) -> PostKeys:
    missing = "a row without PostTypeId or Id"
    kind, identifier = (_parse_number(attributes.get(name, b""), missing) for name in (b"PostTypeId", b"Id"))
    parent = attributes.get(b"ParentId", b"0")
    question = identifier if kind == QUESTION else _parse_number(parent, "a ParentId that is not a number")
    return PostKeys(kind, identifier, question)


def _get_post(row: bytes) -> Post:
    attributes = _parse_attributes(row)
    fields = _get_keys(attributes)
    if len(row.translate(None, _FORBIDDEN)) < len(row):
        raise _RowError(Reason.CORRUPT_RECORD, "a control character")
    names = (b"Title", b"Body", b"Tags", b"CreationDate", b"OwnerUserId", b"OwnerDisplayName", b"ContentLicense")
    texts = [_decode_value(attributes.get(name, b"")) for name in names]
    title, body, tags, created, user, display_name, licence = texts
    wrong = "a Score or AcceptedAnswerId that is not a number"
    score, accepted = (_parse_number(attributes.get(name, b"0"), wrong) for name in (b"Score", b"AcceptedAnswerId"))
    return Post(*fields, score, title, body, tags, created, accepted, user or display_name, licence)


def _parse_attributes(row: bytes) -> dict[bytes, bytes]:
    found = _ATTRIBUTE.findall(row)
    attributes = {name: double or single for name, double, single in found}
    if len(attributes) < len(found):
        raise _RowError(Reason.CORRUPT_RECORD, "an attribute given twice")
    return attributes


def _parse_number(digits: bytes, problem: str) -> int:
    whole = digits.removeprefix(b"-")
    if not whole.isdigit() or len(whole) > DIGITS:
        raise _RowError(Reason.CORRUPT_RECORD, problem)
    return int(digits)


def _decode_value(value: bytes) -> str:
    """Decode an attribute's value: line ends as XML has them (section 3.3.3), references resolved."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise _RowError(Reason.UNDECODABLE_TEXT, f"not UTF-8 at byte {error.start} of an attribute") from None
    if "\n" in text or "\t" in text or "\r" in text:
        text = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ").replace("\r", " ")
    if "&" not in text:
        return text
    for reference, character in _COMMON:
        text = text.replace(reference, character)
    if text.count("&") != text.count("&amp;"):
        return _resolve_references(text)
    return text.replace("&amp;", "&")


def _resolve_references(text: str) -> str:
    """Resolve all references, rare ones too. Results of `_COMMON` do not form new ones: "&#x26;lt;" is "&lt;"."""
    parts, end = [], 0
    for found in _REFERENCE.finditer(text):
        decimal, hexadecimal, name, other = found.groups()
        if other:
            raise _RowError(Reason.ENTITY_EXPANSION, f"&{other[:40]}; is not one of XML's own entities")
        number = int(decimal) if decimal else int(hexadecimal, 16) if hexadecimal else 0
        if not name and not _is_character(number):
            raise _RowError(Reason.CORRUPT_RECORD, f"{found[0]} is not a character")
        parts += [text[end : found.start()], _NAMED[name] if name else chr(number)]
        end = found.end()
    parts.append(text[end:])
    if any("&" in part for part in parts[::2]):
        raise _RowError(Reason.CORRUPT_RECORD, "an & outside of a reference")
    return "".join(parts)


def _is_character(number: int) -> bool:
    """Return True if XML 1.0 (section 2.2) has such a character."""
    return number in (9, 10, 13) or 32 <= number < 0xD800 or 0xE000 <= number < 0xFFFE or 0x10000 <= number <= 0x10FFFF
