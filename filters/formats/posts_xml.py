"""Posts.xml of Stack Exchange's data dumps, row by row: `<row Id="1" PostTypeId="1" … Body="&lt;p&gt;…" />`.

No `<` can stand in an attribute (XML 1.0, section 3.1), so `<row` begins a row wherever it stands, and a row that is
broken costs itself alone. A row may use XML's own entities and character references; no others are ever expanded.
"""

import re
from collections.abc import Iterable, Iterator
from mmap import mmap
from typing import NamedTuple

from filters.formats.mediawiki import Damage
from filters.reasons import Reason

HOPELESS = 1 << 30
"""bytes without a row after which no more are looked for: a bomb"""
QUESTION, ANSWER = 1, 2
"""PostTypeId; others are wikis, nominations, and what moderators write"""
DIGITS = 18
"""of a number, at most: it fits 64 bits"""

_MARK = b"<row"
_AFTER_MARK = frozenset(b" \t\r\n/>")
_NAME = rb"[A-Za-z_][A-Za-z0-9_.:-]*+"
_ROW = re.compile(
    rb"(<row((?:[ \t\r\n]++" + _NAME + rb"=(?:\"[^\"<]*+\"|'[^'<]*+'))*+)[ \t\r\n]*+(?:/>|></row[ \t\r\n]*+>))"
    rb"[ \t\r\n]*+(</posts[ \t\r\n]*+>)?+[ \t\r\n]*+"
)
_ATTRIBUTE = re.compile(rb"(" + _NAME + rb")=(?:\"([^\"<]*+)\"|'([^'<]*+)')")
_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?+\s*+(?:<\?xml[^<>]*+>\s*+)?+(?:(<posts[^<>]*+>)\s*+(</posts\s*+>\s*+)?+)?+")
_DEFINES = re.compile(rb"<!(?:DOCTYPE|ENTITY)")
_REFERENCE = re.compile(r"&(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|(lt|gt|quot|apos|amp)|([^;&\s]{1,64}));")
_FORBIDDEN = bytes(set(range(32)) - set(b"\t\n\r"))
"""control characters that XML has no place for"""
_COMMON = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#xA;", "\n"), ("&#xD;", "\r"), ("&#x9;", "\t"))


class Raw(NamedTuple):
    """A row, or what is none, at [start, stop) of decoded bytes: `data` is the element, and `problem` why it is no
    row (ARCHIVE_METADATA: what stands before the first)."""

    start: int
    stop: int
    data: bytes = b""
    problem: Reason | None = None
    detail: str = ""


class Keys(NamedTuple):
    """What a row is: PostTypeId, its Id, and that of the question it belongs to (its own, if it is one)."""

    kind: int
    identifier: int
    question: int


class Post(NamedTuple):
    """A post: `kind` and `question` as in `Keys`; `body` is HTML; `created` as the dump has it; `licence` is empty if
    it names none."""

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


def rows(chunks: Iterable[bytes | Damage], limit: int, position: int = 0, ends: bool | None = None) -> Iterator[Raw]:
    """The rows of decoded bytes that begin at `position`, and what is none, without a gap; rows over `limit` bytes are
    too large. `ends`: whether `</posts>` must be the last that comes; None: if `<posts` is there. Never raises; takes
    linear time, and memory of the order of `limit`."""
    buffer, base = bytearray(), position  # the open segment begins at `start`, what is held of it at buffer[begin]
    start, begin, seen = position, 0, 0
    first, too_large, tail = True, False, b""
    for chunk in chunks:
        if isinstance(chunk, Damage):
            end = base + len(buffer)
            yield from _segment(buffer, begin, len(buffer), start, end, first, too_large, True)
            yield Raw(end, end, problem=chunk.problem, detail=chunk.detail)
            return
        buffer += chunk
        tail = (tail + chunk[-64:])[-64:]
        while (found := buffer.find(_MARK, seen)) >= 0 and found + 4 < len(buffer):
            seen = found + 4
            if buffer[seen] in _AFTER_MARK:
                stop = base + found
                if first and ends is None:
                    ends = b"<posts" in buffer[begin:found]
                yield from _segment(buffer, begin, found, start, stop, first, too_large, False)
                begin, start, first, too_large = found, stop, False, False
        seen = max(seen, len(buffer) - 4) if found < 0 else found
        if len(buffer) - begin > limit:
            begin, too_large = seen, True
        if base + len(buffer) - start > HOPELESS:
            end = base + len(buffer)
            yield Raw(start, end, problem=Reason.TOO_LARGE, detail=f"over {HOPELESS} bytes without a row")
            return
        del buffer[:begin]
        base, begin, seen = base + begin, 0, seen - begin
    end = base + len(buffer)
    if first and ends is None:
        ends = b"<posts" in buffer[begin:]
    yield from _segment(buffer, begin, len(buffer), start, end, first, too_large, True)
    if ends and b"</posts" not in tail:
        yield Raw(end, end, problem=Reason.TRUNCATED_RECORD, detail="the file ends without </posts>")


def _segment(
    buffer: bytearray, begin: int, stop: int, start: int, end: int, first: bool, too_large: bool, last: bool
) -> Iterator[Raw]:
    """What stands from one row's mark to the next: [start, end), of which buffer[begin:stop] is held."""
    if start == end:
        return
    if too_large:
        yield Raw(start, end, problem=Reason.TOO_LARGE, detail=f"{end - start} bytes")
        return
    data = bytes(buffer[begin:stop])
    if first and not data.startswith(_MARK):
        yield _before(data, start, end, last)
        return
    found = _ROW.match(data)
    if found is None:
        reason = Reason.TRUNCATED_RECORD if last else Reason.CORRUPT_RECORD
        yield Raw(start, end, problem=_defining(data) or reason, detail="no well-formed row")
        return
    middle = start + found.end()
    yield Raw(start, middle, found[1])
    if middle < end:
        reason = _defining(data) or Reason.CORRUPT_RECORD
        yield Raw(middle, end, problem=reason, detail="bytes that belong to no row")


def _before(data: bytes, start: int, end: int, last: bool) -> Raw:
    """What stands before a file's first row."""
    if _DEFINES.search(data):
        return Raw(start, end, problem=Reason.ENTITY_EXPANSION, detail="a document type")
    found = _HEAD.fullmatch(data)
    if found and (found[1] or not last):
        return Raw(start, end, problem=Reason.ARCHIVE_METADATA)
    if last:
        return Raw(start, end, problem=Reason.UNSUPPORTED_FORMAT, detail="no list of posts")
    return Raw(start, end, problem=Reason.CORRUPT_RECORD, detail="bytes that belong to no row")


def _defining(data: bytes) -> Reason | None:
    return Reason.ENTITY_EXPANSION if _DEFINES.search(data) else None


def next_row(data: bytes | mmap, position: int) -> int:
    """Where the next row's mark begins at or after `position`; the length of `data` if none does."""
    while (found := data.find(_MARK, position)) >= 0:
        if found + 4 < len(data) and data[found + 4] in _AFTER_MARK:
            return found
        position = found + 4
    return len(data)


def keys(row: bytes) -> Keys | Damage:
    """What a row is, before the rest of it is read. An answer that names no question belongs to question 0."""
    attributes = _attributes(row)
    return attributes if isinstance(attributes, Damage) else _keys(attributes)


def _keys(attributes: dict[bytes, bytes]) -> Keys | Damage:
    kind, identifier = (_number(attributes.get(name, b"")) for name in (b"PostTypeId", b"Id"))
    if kind is None or identifier is None:
        return Damage(Reason.CORRUPT_RECORD, "a row without PostTypeId or Id")
    if kind == QUESTION:
        return Keys(kind, identifier, identifier)
    question = _number(attributes.get(b"ParentId", b"0"))
    if question is None:
        return Damage(Reason.CORRUPT_RECORD, "a ParentId that is no number")
    return Keys(kind, identifier, question)


def post(row: bytes) -> Post | Damage:
    """A whole row. Never raises."""
    attributes = _attributes(row)
    if isinstance(attributes, Damage):
        return attributes
    fields = _keys(attributes)
    if isinstance(fields, Damage):
        return fields
    if len(row.translate(None, _FORBIDDEN)) < len(row):
        return Damage(Reason.CORRUPT_RECORD, "a control character")
    values = {}
    for name in ("Title", "Body", "Tags", "CreationDate", "OwnerUserId", "OwnerDisplayName", "ContentLicense"):
        value = _text(attributes.get(name.encode(), b""))
        if isinstance(value, Damage):
            return value
        values[name] = value
    score, accepted = (_number(attributes.get(name, b"0")) for name in (b"Score", b"AcceptedAnswerId"))
    if score is None or accepted is None:
        return Damage(Reason.CORRUPT_RECORD, "a Score or AcceptedAnswerId that is no number")
    return Post(
        *fields,
        score,
        values["Title"],
        values["Body"],
        values["Tags"],
        values["CreationDate"],
        accepted,
        values["OwnerUserId"] or values["OwnerDisplayName"],
        values["ContentLicense"],
    )


def _attributes(row: bytes) -> dict[bytes, bytes] | Damage:
    found = _ATTRIBUTE.findall(row)
    attributes = {name: double or single for name, double, single in found}
    if len(attributes) < len(found):
        return Damage(Reason.CORRUPT_RECORD, "an attribute that stands twice")
    return attributes


def _number(digits: bytes) -> int | None:
    whole = digits.removeprefix(b"-")
    return int(digits) if whole.isdigit() and len(whole) <= DIGITS else None


def _text(value: bytes) -> str | Damage:
    """An attribute's value: line ends as XML has them (section 3.3.3), references resolved."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return Damage(Reason.UNDECODABLE_TEXT, f"no UTF-8 at byte {error.start} of an attribute")
    if "\n" in text or "\t" in text or "\r" in text:
        text = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ").replace("\r", " ")
    if "&" not in text:
        return text
    for reference, character in _COMMON:
        text = text.replace(reference, character)
    if text.count("&") != text.count("&amp;"):
        return _resolved(text)
    return text.replace("&amp;", "&")


def _resolved(text: str) -> str | Damage:
    """As above, with references that are seldom used. What `_COMMON` gave is no part of any: "&#x26;lt;" is "&lt;"."""
    parts, end = [], 0
    for found in _REFERENCE.finditer(text):
        decimal, hexadecimal, name, other = found.groups()
        if other:
            return Damage(Reason.ENTITY_EXPANSION, f"&{other[:40]}; is none of XML's own entities")
        number = int(decimal) if decimal else int(hexadecimal, 16) if hexadecimal else 0
        if not name and not _is_character(number):
            return Damage(Reason.CORRUPT_RECORD, f"{found[0]} is no character")
        parts += [text[end : found.start()], _NAMED[name] if name else chr(number)]
        end = found.end()
    parts.append(text[end:])
    if any("&" in part for part in parts[::2]):
        return Damage(Reason.CORRUPT_RECORD, "an & that begins no reference")
    return "".join(parts)


_NAMED = {"lt": "<", "gt": ">", "quot": '"', "apos": "'", "amp": "&"}


def _is_character(number: int) -> bool:
    """Whether XML 1.0 (section 2.2) has such a character."""
    return number in (9, 10, 13) or 32 <= number < 0xD800 or 0xE000 <= number < 0xFFFE or 0x10000 <= number <= 0x10FFFF
