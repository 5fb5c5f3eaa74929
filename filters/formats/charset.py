"""Text from bytes: pages as the web decodes them, XML files chunk by chunk, and source files.

A page is decoded by its byte order mark, its declarations, or detection. Encodings are those of the WHATWG Encoding
Standard, where a label names an encoding that is often larger than its own standard: `iso-8859-1` is windows-1252,
`gb2312` is gb18030, `shift_jis` has Microsoft's extensions. The table encodings.tsv gives each encoding of the standard
Python's nearest codec and all labels (Encoding Standard, section 4.2); code_points.tsv lists the byte sequences that
this codec decodes otherwise than the standard's index (section 5), or not at all.
"""

import codecs
import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, partial

from filters.data_files import read_rows
from filters.formats.stream import OPENING, Damage
from filters.reasons import Reason

DATA_FILES = ("encodings.tsv", "code_points.tsv")  # part of the code version of a step

REPLACEMENT = "replacement"  # the standard's encoding that gives one U+FFFD, since its codecs were used for attacks
UNDEFINED = "\ufffd"

_ROWS = read_rows("filters.formats", "encodings.tsv")
_CODECS = {encoding: codec for encoding, codec, _ in _ROWS}
_LABELS = {label: encoding for encoding, _, labels in _ROWS for label in labels.split()}
_MULTIBYTE = ("gb18030", "big5hkscs", "euc_jp", "cp932", "cp949")
_C1 = re.compile("[\x80-\x9f]")
_C1_IN_UTF8 = re.compile(rb"\xc2[\x80-\x9f]")
_ESCAPE = re.compile(rb"\x1b(\([BJI]|\$[@B])")  # ISO-2022-JP: ASCII, Roman, Katakana; JIS X 0208 of 1978 and 1983

_ENDLESS_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{9,}+;?")  # html.unescape raises from 4,300 digits on

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
# Byte order marks, then the encodings of "<" without one (XML 1.0, appendix F).
_XML_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (b"<\0", "utf-16-le"),
    (b"\0<", "utf-16-be"),
)
_XML_DECLARED = re.compile(rb"\s{0,64}<\?xml[^>]{0,200}?encoding\s{0,8}=\s{0,8}[\"']([\w.:-]{1,40})[\"']")
SOURCE_OPENING = 400  # bytes in which a source file declares its encoding
_SOURCE_DECLARED = re.compile(
    rb"\A(?:[^\n]{0,200}\n)?[^\n]{0,200}?(?:coding[:=][ \t]{0,4}|encoding=[\"'])([\w.-]{1,40})"
)
# Codecs of text, by the beginnings of their names: in XML, in source files.
_XML_CODECS = ("utf", "iso8859", "cp", "koi8", "gb", "big5", "shift_jis", "euc", "ascii")
_SOURCE_CODECS = ("iso8859", "cp", "koi8", "gb", "big5", "shift_jis", "euc", "latin", "mac")


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
        return _replace_c1(utf8.replace("\0", UNDEFINED), body)
    for encoding in _declared_encodings(body, content_type):
        text = decode_bytes(body, encoding)
        if text.count(UNDEFINED) * CHARACTERS_PER_ERROR <= len(text) + CHARACTERS_PER_ERROR:
            return text
    if utf8 is not None and not escaped:
        return utf8.replace("\0", UNDEFINED)
    return decode_bytes(body, _detect_encoding(body, url))


def _decode_utf8(body: bytes) -> str | None:
    """Return the text if the bytes are UTF-8, but for a character cut at the end and very few others, else None."""
    with suppress(UnicodeDecodeError):
        text, used = codecs.utf_8_decode(body, "strict", False)
        if used == len(body):
            return text
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
    xml = _XML.match(body)
    for label in (_find_meta(body[:META_BYTES]), xml[1].decode("latin-1") if xml else ""):
        if encoding := find_encoding(label):
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


# --- the encodings of the standard ---


def find_encoding(label: str) -> str | None:
    """Return the encoding that a label names, None for an unknown label (Encoding Standard, section 4.2)."""
    return _LABELS.get(label.strip("\t\n\f\r ").lower())


def decode_bytes(body: bytes, encoding: str) -> str:
    """Return the text of bytes in an encoding of the standard; what it does not define becomes U+FFFD.

    The text has no C1 controls (see `replace_c1`), no NULs and no surrogates.
    """
    codec = _CODECS[encoding]
    if codec == REPLACEMENT:
        return UNDEFINED if body else ""
    if codec == "iso-2022-jp":
        text = _decode_iso_2022_jp(body)
    elif codec in _MULTIBYTE:
        text = body.decode(codec, _register_errors(codec)).translate(_find_differences(codec)[1])
    elif codec.startswith("utf"):
        text = body.decode(codec, "replace")
    else:
        return codecs.charmap_decode(body, "replace", _single_byte_table(encoding))[0]
    return replace_c1(text.replace("\0", UNDEFINED))


def replace_c1(text: str) -> str:
    """Replace the C1 controls, which no text holds, by the characters that windows-1252 has in their places.

    They are left by conversions from windows-1252 that took it for ISO 8859-1. HTML reads numeric references to them in
    the same way (section 13.2.5.80). The five bytes that windows-1252 does not define become U+FFFD.
    """
    return text if text.isascii() else _replace_c1(text, text.encode("utf-8", "replace"))


def _replace_c1(text: str, utf8: bytes) -> str:
    """Replace the C1 controls of a text, given with its bytes, which are searched at several times its speed."""
    if text.isascii() or not _C1_IN_UTF8.search(utf8):
        return text
    return _C1.sub(lambda control: _windows_1252()[control[0]], text)


@cache
def _windows_1252() -> dict[str, str]:
    """Return what windows-1252 has in the places of the C1 controls."""
    return {chr(code): bytes([code]).decode("cp1252", "replace") for code in range(0x80, 0xA0)}


@cache
def _find_differences(codec: str) -> tuple[dict[bytes, str], dict[int, str]]:
    """Return what a codec lacks: byte sequences that it does not decode, and characters that it gives for others."""
    missing: dict[bytes, str] = {}
    other: dict[int, str] = {}
    for encoding, sequences, characters in read_rows("filters.formats", "code_points.tsv"):
        if _CODECS[encoding] == codec:
            for sequence, character in zip(map(bytes.fromhex, sequences.split()), characters, strict=True):
                try:
                    other[ord(sequence.decode(codec))] = character
                except UnicodeDecodeError:
                    missing[sequence] = character
    if codec == "cp932":  # bytes that only Microsoft's table defines
        other |= dict.fromkeys((0xA0, 0xF8F0, 0xF8F1, 0xF8F2, 0xF8F3), UNDEFINED)
    return missing, other


@cache
def _single_byte_table(encoding: str) -> str:
    """Return the 256 characters of an encoding, where U+FFFE stands for undefined bytes, as `charmap_decode` has it."""
    codec = _CODECS[encoding]
    if codec == "x-user-defined":  # section 14.5
        return "".join(map(chr, [*range(0x80), *range(0xF780, 0xF800)])).replace("\0", UNDEFINED)
    missing, other = _find_differences(codec)
    table = ""
    for code in range(256):
        raw = bytes([code])
        text = missing.get(raw) or raw.decode(codec, "replace").translate(other)
        if text == UNDEFINED or _C1.match(text):
            text = _windows_1252().get(chr(code), UNDEFINED)
        table += text.replace(UNDEFINED, "\ufffe").replace("\0", UNDEFINED)
    return table


@cache
def _register_errors(codec: str) -> str:
    """Register the handler of a codec's errors and return its name."""
    name = f"encodings-{codec}"
    codecs.register_error(name, partial(_resolve_error, _find_differences(codec)[0], codec))
    return name


def _resolve_error(missing: dict[bytes, str], codec: str, error: UnicodeError) -> tuple[str, int]:
    """Return the text of bytes that a codec does not decode, and where to continue.

    A trail byte in ASCII is read again, so that a stray lead byte does not swallow a quote or a bracket, others are not
    (for example section 12.1.1).
    """
    assert isinstance(error, UnicodeDecodeError)
    start = error.start
    pair = error.object[start : start + 2]
    for sequence in (pair, pair[:1]):
        if sequence in missing:
            return missing[sequence], start + len(sequence)
    if codec == "euc_jp":
        if len(pair) == 2 and min(pair) >= 0xA1 and max(pair) <= 0xFE:
            return _decode_jis(pair), start + 2
        if pair[0] == 0x8F:  # leads three bytes
            pair = error.object[start : start + 3]
    return UNDEFINED, start + (len(pair) if pair[-1] >= 0x80 else 1)


def _decode_jis(pairs: bytes) -> str:
    """Return the text of JIS X 0208 in EUC form, with the rows that Microsoft added: Shift_JIS has the same index."""
    text = ""
    for lead, trail in zip(pairs[::2], pairs[1::2], strict=True):
        row, cell = divmod((lead - 0xA1) * 94 + trail - 0xA1, 188)
        moved = bytes((row + (0x81 if row < 0x1F else 0xC1), cell + (0x40 if cell < 0x3F else 0x41)))
        text += moved.decode("cp932", "replace")[:1]
    return text


def _decode_iso_2022_jp(body: bytes) -> str:
    """Return the text of ISO-2022-JP (section 12.2): stretches after escape sequences, the first in ASCII."""
    first, *rest = _ESCAPE.split(body)
    parts = [_ascii(first)]
    for escape, stretch in zip(rest[::2], rest[1::2], strict=True):
        if escape.startswith(b"$"):
            line, newline, after = stretch.partition(b"\n")  # a line ends in ASCII, whatever its escapes say
            pairs = bytes(byte | 0x80 for byte in line if 0x21 <= byte <= 0x7E)
            parts += [_decode_jis(pairs[: len(pairs) & ~1]), UNDEFINED * (len(pairs) & 1), _ascii(newline + after)]
        elif escape == b"(I":
            parts.append(bytes(byte | 0x80 if 0x21 <= byte <= 0x5F else byte for byte in stretch).decode("cp932"))
        else:
            parts.append(_ascii(stretch))
    return "".join(parts)


def _ascii(raw: bytes) -> str:
    return raw.decode("ascii", "replace")


def unescape(text: str) -> str:
    """Resolve HTML's character references; those to numbers of nine digits and more become U+FFFD."""
    return html.unescape(_ENDLESS_NUMBER.sub(UNDEFINED, text)) if "&" in text else text


# --- XML ---


def detect_xml_encoding(opening: bytes) -> str:
    """Return the encoding of an XML file by its first bytes: byte order mark, form or declaration; UTF-8 by default."""
    for mark, name in _XML_MARKS:
        if opening.startswith(mark):
            return name
    name = _find_codec(_XML_DECLARED.match(opening), _XML_CODECS)
    return name if name not in ("", "utf-7") else "utf-8"


def is_utf8_xml(opening: bytes) -> bool:
    """Return True if the first bytes of an XML file say that it is in UTF-8, so that it can be read from within."""
    return detect_xml_encoding(opening[:OPENING]) in ("utf-8", "ascii")


def transcode_xml(chunks: Iterable[bytes | Damage]) -> Iterator[bytes | Damage]:
    """Yield XML text as UTF-8. Bytes that are UTF-8, or are declared so, pass unchanged, whatever they hold."""
    decoder: codecs.IncrementalDecoder | None = None
    first = True
    for chunk in chunks:
        if isinstance(chunk, Damage):
            yield chunk
            continue
        if first:
            first = False
            if not is_utf8_xml(chunk):
                decoder = codecs.getincrementaldecoder(detect_xml_encoding(chunk[:OPENING]))("replace")
        yield decoder.decode(chunk).encode("utf-8", "replace") if decoder else chunk
    if decoder:
        yield decoder.decode(b"", True).encode("utf-8", "replace")


# --- source files ---


def decode_source(raw: bytes) -> str | Reason:
    """Return a source file's text with LF line ends.

    The encoding is told by a byte order mark, else it is UTF-8, else the declared one (PEP 263, XML), else detected.

    Returns:
        The text, or why it cannot be read: NOT_PLAIN_TEXT for NULs, UNDECODABLE_TEXT if no encoding fits.
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _check_source(raw.decode("utf-16", "replace").encode("utf-8", "replace").decode())
    if b"\0" in raw:
        return Reason.NOT_PLAIN_TEXT
    with suppress(UnicodeDecodeError):
        return _unify_line_ends(raw.decode("utf-8-sig"))
    if name := _find_codec(_SOURCE_DECLARED.match(raw[:SOURCE_OPENING]), _SOURCE_CODECS):
        with suppress(UnicodeDecodeError):
            return _check_source(raw.decode(name))
    return _check_source(decode(raw, None))


def _check_source(text: str) -> str | Reason:
    if "\0" in text:
        return Reason.NOT_PLAIN_TEXT
    if text.count(UNDEFINED) * CHARACTERS_PER_ERROR > len(text) + CHARACTERS_PER_ERROR:
        return Reason.UNDECODABLE_TEXT
    return _unify_line_ends(text)


def _unify_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _find_codec(declared: re.Match[bytes] | None, families: tuple[str, ...]) -> str:
    """Return the name of Python's codec for a declared label, "" without one.

    The name has to begin as one of `families`, and the label to be written in that encoding: bytes that declare UTF-16
    or EBCDIC in ASCII are not in it (WHATWG HTML, section 13.2.3.2).
    """
    if declared is None:
        return ""
    try:
        label = declared[1].decode("ascii")
        name = codecs.lookup(label).name
        return name if name.startswith(families) and declared[1].decode(name) == label else ""
    except (LookupError, UnicodeError):
        return ""
