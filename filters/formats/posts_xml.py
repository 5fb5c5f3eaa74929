"""Read Posts.xml of Stack Exchange's data dumps row by row: `<row Id="1" PostTypeId="1" … Body="&lt;p&gt;…" />`.

The character `<` cannot occur in an attribute (XML 1.0, section 3.1). So each `<row` is the start of a row, and a
broken row does not affect other rows. Character references, and the five entities that XML defines, are resolved. Other
entities are never expanded. A file is a plain or compressed table, or a 7z archive that contains it.
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
MAX_GAP = 1 << 30  # Bytes without a row after which reading stops, because the file is probably a decompression bomb.
QUESTION, ANSWER = 1, 2  # Values of PostTypeId. Other values are wikis, nominations, and moderators' texts.
MAX_DIGITS = 18  # Digits of the longest number. It fits into 64 bits.

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
_FORBIDDEN = bytes(set(range(32)) - set(b"\t\n\r"))  # Control characters that are not allowed in XML.
_NAMED = {"lt": "<", "gt": ">", "quot": '"', "apos": "'", "amp": "&"}
_COMMON = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#xA;", "\n"), ("&#xD;", "\r"), ("&#x9;", "\t"))


class RawRow(NamedTuple):
    """A row, or other text, at the decoded bytes [start, stop).

    Attributes:
        start: The offset of the first byte.
        stop: The offset after the last byte.
        data: The row element. Empty if there is a problem.
        problem: The reason why there is no row, else None. ARCHIVE_METADATA is the text before the first row.
        detail: A sentence about the problem.
    """

    start: int
    stop: int
    data: bytes = b""
    problem: Reason | None = None
    detail: str = ""


class PostKeys(NamedTuple):
    """The keys of a post.

    Attributes:
        kind: The PostTypeId.
        identifier: The id of the post.
        question: The id of the question to which the post belongs. For a question, its own id.
    """

    kind: int
    identifier: int
    question: int


class Post(NamedTuple):
    """A post.

    Attributes:
        kind: The PostTypeId.
        identifier: The id of the post.
        question: The id of the question to which the post belongs. For a question, its own id.
        score: The score as in the dump.
        title: The title of a question.
        body: The text in HTML.
        tags: The tags as in the dump.
        created: The time as in the dump.
        accepted: The id of the accepted answer, 0 if there is none.
        author: The user id, or the display name if there is no user id.
        licence: The licence, or "" if the post names none.
    """

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
    """A file, or a member of an archive.

    Attributes:
        member: The name of the member, "" if the file is not an archive.
        size: The number of decoded bytes. For a member it is read from the archive's header. It is 0 for a compressed
            table.
        chunks: The decoded bytes in UTF-8. None for a member that is not Posts.xml.
    """

    member: str
    size: int
    chunks: Iterator[bytes | Damage] | None


def is_plain(stored: Stored) -> bool:
    """Return True if a file is an uncompressed table in UTF-8, so that rows can be read by byte offset."""
    opening = bytes(stored[:OPENING])
    return not opening.startswith((GZIP, BZIP2, sevenzip.MAGIC)) and is_utf8_xml(opening)


def read_tables(stored: Stored, start: int, end: int) -> Iterator[Table]:
    """Yield the table of posts of a file. For an archive, yield an item for each member.

    Args:
        stored: The whole file.
        start: The start of the part to read, if the file is plain.
        end: The end of the part to read, if the file is plain.
    """
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
    """Yield the rows of decoded bytes, and the text between them, without a gap.

    Never raises. Takes linear time, and memory of the order of `limit`.

    Args:
        chunks: The bytes of a table in UTF-8.
        limit: The largest number of bytes of a row. A larger row is damage.
        position: The offset of the first byte.
        ends: If True, the table is damaged if it does not end with `</posts>`. None means True if the bytes before the
            first row contain `<posts`.
    """
    # `base` is the offset of buffer[0]. `start` is the offset of the current segment, which begins with `<row`.
    # `begin` is the index in `buffer` of the part of the segment that is in memory. `seen` is the index at which the
    # search continues.
    buffer, base = bytearray(), position
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
        if base + len(buffer) - start > MAX_GAP:
            end = base + len(buffer)
            yield RawRow(start, end, problem=Reason.TOO_LARGE, detail=f"over {MAX_GAP} bytes without a row")
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
    """Yield the row of a segment, and the bytes after the row if they are not blank.

    A segment is the decoded bytes from one `<row` to the next one.

    Args:
        buffer: The buffer that contains the segment.
        begin: The start of the segment in `buffer`.
        stop: The end of the segment in `buffer`.
        start: The offset of the segment in the decoded bytes.
        end: The offset of its end.
        first: True for the bytes before the first row.
        too_large: True if the segment is larger than the limit, so that `buffer` does not contain all of it.
        last: True if the decoded bytes end here.
    """
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
    """Return the item for the text before the first row of a file."""
    if _DEFINES.search(data):
        return RawRow(start, end, problem=Reason.ENTITY_EXPANSION, detail="a document type")
    found = _HEAD.fullmatch(data)
    if found and (found[1] or not last):
        return RawRow(start, end, problem=Reason.ARCHIVE_METADATA)
    if last:
        return RawRow(start, end, problem=Reason.UNSUPPORTED_FORMAT, detail="not a list of posts")
    return RawRow(start, end, problem=Reason.CORRUPT_RECORD, detail="bytes that belong to no row")


def find_row(data: Stored, position: int) -> int:
    """Return the offset of the next row at or after `position`, or the length of `data`."""
    while (found := data.find(_MARK, position)) >= 0:
        if found + 4 < len(data) and data[found + 4] in _AFTER_MARK:
            return found
        position = found + 4
    return len(data)


class _RowError(Exception):
    """The error for a row that cannot be parsed. Its arguments are the reason and the detail."""


def parse_keys(row: bytes) -> PostKeys | Damage:
    """Parse the keys of a row. Return damage if they are invalid. An answer without ParentId belongs to question 0."""
    try:
        return _get_keys(_parse_attributes(row))
    except _RowError as error:
        return Damage(*error.args)


def parse_post(row: bytes) -> Post | Damage:
    """Parse a row. Return damage if it is invalid. Never raises."""
    try:
        return _get_post(row)
    except _RowError as error:
        return Damage(*error.args)


def _get_keys(attributes: dict[bytes, bytes]) -> PostKeys:
    """Return the keys of a row. Raises _RowError if they are missing or not numbers."""
    missing = "a row without PostTypeId or Id"
    kind, identifier = (_parse_number(attributes.get(name, b""), missing) for name in (b"PostTypeId", b"Id"))
    parent = attributes.get(b"ParentId", b"0")
    question = identifier if kind == QUESTION else _parse_number(parent, "a ParentId that is not a number")
    return PostKeys(kind, identifier, question)


def _get_post(row: bytes) -> Post:
    """Parse a row. Raises _RowError if it is invalid."""
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
    """Return the attributes of a row, with undecoded values. Raises _RowError if an attribute occurs twice."""
    found = _ATTRIBUTE.findall(row)
    attributes = {name: double or single for name, double, single in found}
    if len(attributes) < len(found):
        raise _RowError(Reason.CORRUPT_RECORD, "an attribute given twice")
    return attributes


def _parse_number(digits: bytes, problem: str) -> int:
    """Return a number. Raises _RowError with the detail `problem` if it has other characters or too many digits."""
    whole = digits.removeprefix(b"-")
    if not whole.isdigit() or len(whole) > MAX_DIGITS:
        raise _RowError(Reason.CORRUPT_RECORD, problem)
    return int(digits)


def _decode_value(value: bytes) -> str:
    """Decode the value of an attribute: normalise white space (XML 1.0, section 3.3.3), and resolve references."""
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
    """Resolve all references in a text in which the references of `_COMMON` were already replaced.

    Characters from references do not form new references: "&#x26;lt;" becomes "&lt;", which is not resolved again.
    """
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
    """Return True if the character with this code point is allowed in XML 1.0 (section 2.2)."""
    return number in (9, 10, 13) or 32 <= number < 0xD800 or 0xE000 <= number < 0xFFFE or 0x10000 <= number <= 0x10FFFF
