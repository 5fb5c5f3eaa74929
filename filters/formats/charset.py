"""Decode the bytes of a page or text file by its byte order mark, its declarations, or detection."""

import codecs
import re
from collections import Counter
from collections.abc import Iterator

from filters.formats.encodings import UNDEFINED, decode_bytes, find_encoding, replace_c1

# Byte order marks come before every declaration (WHATWG Encoding, section 6).
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16le", codecs.BOM_UTF16_BE: "utf-16be"}
META_BYTES = 1 << 15  # of a page in which it may declare its encoding: beyond a parser's first 1,024, it starts again
CHARACTERS_PER_ERROR = 1_000  # of which a declared encoding may leave one undefined, since pages are cut
SEQUENCES_PER_ERROR = 10  # valid ones of UTF-8 for each invalid one; text in East Asian encodings has one for six

_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_CONTENT = re.compile(rb"charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.IGNORECASE)
_XML = re.compile(rb"\s{0,64}<\?xml[^>]{0,512}?encoding\s*=\s*[\"']([^\"'>]{1,40})[\"']")
# Comments and elements of text are skipped; meta elements are matched up to their attributes.
_META = re.compile(rb"<!--.*?(?:-->|\Z)|<(script|style|title)[\s>].*?(?:</\1|\Z)|<meta(?=[\s/])", re.I | re.S)
_ATTRIBUTE = re.compile(rb"[\s/]*([^\s/>=]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]*)))?")
_UTF_16 = re.compile(rb"(<\0[!?a-zA-Z]\0)|\0<\0[!?a-zA-Z]")  # the first two characters of markup
_OTHER_NAMES = {"cp874": "windows-874", "mac_cyrillic": "x-mac-cyrillic"}  # where the detector names a codec of Python
_TOP_LEVEL = re.compile(r"[a-z]+://(?:[^/?#@]*@)?[^/?#:]*\.([a-z]{2,20}|xn--[a-z0-9-]{1,40})(?:[:/?#]|\Z)", re.I)


def decode(body: bytes, content_type: str | None, url: str = "") -> str:
    """Return the text of a page's bytes, without NULs, C1 controls and surrogates. Never raises.

    The byte order mark decides first. Then bytes that are UTF-8 beyond ASCII are UTF-8: chance does not produce them.
    Then the declarations count in the order of WHATWG HTML, section 13.2.3: HTTP header, meta element, XML declaration,
    each if the bytes agree with it. What declares nothing is detected. Bytes that no encoding explains become U+FFFD.

    Args:
        body: The page.
        content_type: The value of the HTTP field, None without one.
        url: The page's address: detection takes its top-level domain for a hint.
    """
    for mark, encoding in MARKS.items():
        if body.startswith(mark):
            return decode_bytes(body[len(mark) :], encoding)
    utf8 = _decode_utf8(body)
    escaped = b"\x1b" in body
    if utf8 is not None and not (utf8.isascii() and (escaped or b"\0" in body or b"~{" in body)):
        return replace_c1(utf8.replace("\0", UNDEFINED))
    for encoding in _declared_encodings(body, content_type):
        text = decode_bytes(body, encoding)
        if text.count(UNDEFINED) * CHARACTERS_PER_ERROR <= len(text) + CHARACTERS_PER_ERROR:
            return text
    if utf8 is not None and not escaped:
        return utf8.replace("\0", UNDEFINED)
    return decode_bytes(body, _detect_encoding(body, url))


def _decode_utf8(body: bytes) -> str | None:
    """Return the text if the bytes are UTF-8, but for a character cut at the end and very few others, else None."""
    try:
        text, used = codecs.utf_8_decode(body, "strict", False)
        if used == len(body):
            return text
    except UnicodeDecodeError:
        pass
    text = body.decode("utf-8", "replace")
    errors = text.count(UNDEFINED)
    sequences = len(text) - len(text.encode("ascii", "ignore")) - errors
    enough = sequences >= SEQUENCES_PER_ERROR * errors or (errors == 1 and sequences and text.endswith(UNDEFINED))
    return text if enough else None


def _declared_encodings(body: bytes, content_type: str | None) -> Iterator[str]:
    """Yield the encodings of the standard that header, form and page declare, in its order."""
    header = _CHARSET.search(content_type or "")
    if header and (encoding := find_encoding(header[1])):
        yield encoding
    if form := _UTF_16.match(body):
        yield "utf-16le" if form[1] else "utf-16be"
    for label in (_find_meta(body[:META_BYTES]), _find_xml_declaration(body)):
        encoding = find_encoding(label) if label else None
        if encoding:
            # The declaration itself was in ASCII (WHATWG HTML, section 13.2.3.2).
            yield {"utf-16le": "utf-8", "utf-16be": "utf-8", "x-user-defined": "windows-1252"}.get(encoding, encoding)


def _find_meta(opening: bytes) -> str:
    """Return the label of the first meta element that has one, or ""."""
    position = 0
    while found := _META.search(opening, position):
        position = found.end()
        if found[0][:5].lower() != b"<meta":
            continue
        attributes, position = _read_attributes(opening, position)
        label = attributes.get("charset", "")
        if not label and attributes.get("http-equiv", "").lower() == "content-type":
            content = _CONTENT.search(attributes.get("content", "").encode("latin-1"))
            label = next(filter(None, content.groups()), b"").decode("latin-1") if content else ""
        if find_encoding(label):
            return label
    return ""


def _read_attributes(markup: bytes, position: int) -> tuple[dict[str, str], int]:
    """Return the attributes of a tag, of each name the first, in lower case, and where they end."""
    attributes: dict[str, str] = {}
    while found := _ATTRIBUTE.match(markup, position):
        name, *values = found.groups(b"")
        attributes.setdefault(name.decode("latin-1").lower(), b"".join(values).decode("latin-1"))
        position = found.end()
    return attributes, position


def _find_xml_declaration(body: bytes) -> str:
    declared = _XML.match(body)
    return declared[1].decode("latin-1") if declared else ""


def _detect_encoding(body: bytes, url: str) -> str:
    """Return the encoding that Firefox's detector takes the bytes for: its guess is never UTF-8, which was tried."""
    from chardetng_py import EncodingDetector

    domain = _TOP_LEVEL.match(url)
    detector = EncodingDetector()
    detector.feed(body, last=True)
    guess = detector.guess(tld=domain[1].lower().encode() if domain else None, allow_utf8=False)
    encoding = find_encoding(_OTHER_NAMES.get(guess.lower(), guess)) or "windows-1252"
    return "windows-1250" if encoding == "windows-1252" and _is_hungarian(body) else encoding


def _is_hungarian(body: bytes) -> bool:
    """Return True for Hungarian text in windows-1250, of which the detector takes ő and ű for õ and û."""
    counts = Counter(body)
    doubled = sum(counts[letter] for letter in "őű".encode("cp1250"))
    common = sum(counts[letter] for letter in "áéíóöúü".encode("cp1250"))
    return 0 < doubled < common and sum(counts[letter] for letter in "ãäâàçèêôñå".encode("cp1252")) < doubled
