"""Decode bytes to text: web pages, XML files, and source files.

The encoding of a page is determined by its byte order mark, its declarations, or detection. Encodings are those of the
WHATWG Encoding Standard. In it many labels name an encoding with more characters than the label's own standard:
`iso-8859-1` is windows-1252, `gb2312` is gb18030, `shift_jis` has Microsoft's extensions.

The table encodings.tsv lists, for each encoding of the standard, Python's most similar codec and all labels (Encoding
Standard, section 4.2). The table code_points.tsv lists the byte sequences that this codec does not decode, or decodes
differently from the standard's index (section 5).
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

# The cache keys of steps that use this module contain the hashes of these files.
DATA_FILES = ("encodings.tsv", "code_points.tsv")

# The standard's encoding for labels whose codecs were used for attacks. The text is a single U+FFFD.
REPLACEMENT = "replacement"
UNDEFINED = "\ufffd"

_ROWS = read_rows("filters.formats", "encodings.tsv")
_CODECS = {encoding: codec for encoding, codec, _ in _ROWS}
_LABELS = {label: encoding for encoding, _, labels in _ROWS for label in labels.split()}
_MULTIBYTE = ("gb18030", "big5hkscs", "euc_jp", "cp932", "cp949")
_C1 = re.compile("[\x80-\x9f]")
_C1_IN_UTF8 = re.compile(rb"\xc2[\x80-\x9f]")
# The escape sequences of ISO-2022-JP: ASCII, Roman, Katakana, JIS X 0208 of 1978 and of 1983.
_ESCAPE = re.compile(rb"\x1b(\([BJI]|\$[@B])")

_LONG_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{9,}+;?")  # html.unescape raises an error from 4,300 digits.

# Byte order marks come before every declaration (WHATWG Encoding, section 6).
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16le", codecs.BOM_UTF16_BE: "utf-16be"}
# Bytes at the start of a page in which a declaration of the encoding is searched. Browsers look at the first 1,024
# bytes, and restart parsing if a declaration comes later.
META_BYTES = 1 << 15
# A declared encoding is accepted if at most one character in this many is undefined. Some must be allowed, because
# pages may be truncated within a character.
CHARACTERS_PER_ERROR = 1_000
# Bytes are taken for UTF-8 if they have at least this many valid multi-byte sequences per invalid one. Text in East
# Asian encodings has about one valid sequence per six invalid ones.
SEQUENCES_PER_ERROR = 10

_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_CONTENT = re.compile(rb"charset\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s;\"']+))", re.IGNORECASE)
_XML = re.compile(rb"\s{0,64}<\?xml[^>]{0,512}?encoding\s*=\s*[\"']([^\"'>]{1,40})[\"']")
# Comments and elements with raw text are matched whole, to skip them. Meta elements are matched up to their attributes.
_META = re.compile(rb"<!--.*?(?:-->|\Z)|<(script|style|title)[\s>].*?(?:</\1|\Z)|<meta(?=[\s/])", re.I | re.S)
_ATTRIBUTE = re.compile(rb"[\s/]*([^\s/>=]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]*)))?")
_UTF_16 = re.compile(rb"(<\0[!?a-zA-Z]\0)|\0<\0[!?a-zA-Z]")  # The first two characters of markup in UTF-16.
# The detector returns the names of Python's codecs. These two are not labels of the standard.
_OTHER_NAMES = {"cp874": "windows-874", "mac_cyrillic": "x-mac-cyrillic"}
_TOP_LEVEL = re.compile(r"[a-z]+://(?:[^/?#@]*@)?[^/?#:]*\.([a-z]{2,20}|xn--[a-z0-9-]{1,40})(?:[:/?#]|\Z)", re.I)
# Byte order marks, then the encodings of "<" without a byte order mark (XML 1.0, appendix F).
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
SOURCE_OPENING = 400  # Bytes at the start of a source file in which a declaration of the encoding is searched.
_SOURCE_DECLARED = re.compile(
    rb"\A(?:[^\n]{0,200}\n)?[^\n]{0,200}?(?:coding[:=][ \t]{0,4}|encoding=[\"'])([\w.-]{1,40})"
)
# Beginnings of the names of codecs that are accepted in declarations of XML files and source files.
_XML_CODECS = ("utf", "iso8859", "cp", "koi8", "gb", "big5", "shift_jis", "euc", "ascii")
_SOURCE_CODECS = ("iso8859", "cp", "koi8", "gb", "big5", "shift_jis", "euc", "latin", "mac")


def decode(body: bytes, content_type: str | None, url: str = "") -> str:
    """Return the text of a page, without NULs, C1 controls and surrogates. Never raises.

    The encoding is determined in this order:

    1. The byte order mark.
    2. UTF-8 if the bytes are valid UTF-8 beyond ASCII, because other encodings rarely look like UTF-8 by chance.
    3. The declarations in the order of WHATWG HTML, section 13.2.3: HTTP header, meta element, XML declaration. A
       declared encoding is used only if nearly all bytes are defined in it.
    4. Detection.

    Bytes that the encoding does not define become U+FFFD.

    Args:
        body: The bytes of the page.
        content_type: The value of the HTTP field Content-Type, None without this field.
        url: The address of the page. Detection uses its top-level domain as a hint.
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
    """Return the text if the bytes are UTF-8, else None.

    A truncated character at the end and few other errors are allowed (SEQUENCES_PER_ERROR).
    """
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
    """Yield the declared encodings in the order of the standard.

    They come from the HTTP header, the form of the first characters (UTF-16), the meta element and the XML declaration.
    """
    header = _CHARSET.search(content_type or "")
    if header and (encoding := find_encoding(header[1])):
        yield encoding
    if form := _UTF_16.match(body):
        yield "utf-16le" if form[1] else "utf-16be"
    xml = _XML.match(body)
    for label in (_find_meta(body[:META_BYTES]), xml[1].decode("latin-1") if xml else ""):
        if encoding := find_encoding(label):
            # A declaration that can be read as ASCII is not in UTF-16 (WHATWG HTML, section 13.2.3.2).
            yield {"utf-16le": "utf-8", "utf-16be": "utf-8", "x-user-defined": "windows-1252"}.get(encoding, encoding)


def _find_meta(opening: bytes) -> str:
    """Return the label of the first meta element that declares an encoding, or ""."""
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
    """Return the attributes of a tag and the position where they end.

    Names are in lower case. If a name occurs twice, the first value counts.
    """
    attributes: dict[str, str] = {}
    while found := _ATTRIBUTE.match(markup, position):
        name, *values = found.groups(b"")
        attributes.setdefault(name.decode("latin-1").lower(), b"".join(values).decode("latin-1"))
        position = found.end()
    return attributes, position


def _detect_encoding(body: bytes, url: str) -> str:
    """Return the encoding that chardetng, the detector of Firefox, guesses. UTF-8 was tried before and is excluded."""
    from chardetng_py import EncodingDetector

    domain = _TOP_LEVEL.match(url)
    detector = EncodingDetector()
    detector.feed(body, last=True)
    guess = detector.guess(tld=domain[1].lower().encode() if domain else None, allow_utf8=False)
    encoding = find_encoding(_OTHER_NAMES.get(guess.lower(), guess)) or "windows-1252"
    return "windows-1250" if encoding == "windows-1252" and _is_hungarian(body) else encoding


def _is_hungarian(body: bytes) -> bool:
    """Return True for Hungarian text in windows-1250. The detector takes its ő and ű for õ and û of windows-1252."""
    counts = Counter(body)
    doubled = sum(counts[letter] for letter in "őű".encode("cp1250"))
    common = sum(counts[letter] for letter in "áéíóöúü".encode("cp1250"))
    return 0 < doubled < common and sum(counts[letter] for letter in "ãäâàçèêôñå".encode("cp1252")) < doubled


# --- the encodings of the standard ---


def find_encoding(label: str) -> str | None:
    """Return the encoding for a label, None for an unknown label (Encoding Standard, section 4.2)."""
    return _LABELS.get(label.strip("\t\n\f\r ").lower())


def decode_bytes(body: bytes, encoding: str) -> str:
    """Decode bytes in an encoding of the standard. Undefined bytes become U+FFFD.

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
    """Replace C1 controls by the characters that windows-1252 has at the same codes.

    C1 controls are not used in text. They are the result of conversions that read windows-1252 as ISO 8859-1. HTML
    handles numeric references to them in the same way (section 13.2.5.80). The five codes that windows-1252 does not
    define become U+FFFD.
    """
    return text if text.isascii() else _replace_c1(text, text.encode("utf-8", "replace"))


def _replace_c1(text: str, utf8: bytes) -> str:
    """Replace the C1 controls of a text.

    Args:
        text: The text.
        utf8: The same text in UTF-8. Searching the bytes is several times as fast as searching the text.
    """
    if text.isascii() or not _C1_IN_UTF8.search(utf8):
        return text
    return _C1.sub(lambda control: _windows_1252()[control[0]], text)


@cache
def _windows_1252() -> dict[str, str]:
    """Return a dict from each C1 control to the character of windows-1252 at the same code."""
    return {chr(code): bytes([code]).decode("cp1252", "replace") for code in range(0x80, 0xA0)}


@cache
def _find_differences(codec: str) -> tuple[dict[bytes, str], dict[int, str]]:
    """Return the differences between a codec of Python and the standard.

    Returns:
        A dict from byte sequences that the codec does not decode to their characters, and a dict from code points that
        the codec gives to the characters of the standard.
    """
    missing: dict[bytes, str] = {}
    other: dict[int, str] = {}
    for encoding, sequences, characters in read_rows("filters.formats", "code_points.tsv"):
        if _CODECS[encoding] == codec:
            for sequence, character in zip(map(bytes.fromhex, sequences.split()), characters, strict=True):
                try:
                    other[ord(sequence.decode(codec))] = character
                except UnicodeDecodeError:
                    missing[sequence] = character
    if codec == "cp932":  # These characters come from bytes that are defined only in Microsoft's table.
        other |= dict.fromkeys((0xA0, 0xF8F0, 0xF8F1, 0xF8F2, 0xF8F3), UNDEFINED)
    return missing, other


@cache
def _single_byte_table(encoding: str) -> str:
    """Return the 256 characters of an encoding. Undefined bytes are U+FFFE, as `codecs.charmap_decode` expects."""
    codec = _CODECS[encoding]
    if codec == "x-user-defined":  # Encoding Standard, section 14.5.
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
    """Register an error handler for a codec and return the handler's name."""
    name = f"encodings-{codec}"
    codecs.register_error(name, partial(_resolve_error, _find_differences(codec)[0], codec))
    return name


def _resolve_error(missing: dict[bytes, str], codec: str, error: UnicodeError) -> tuple[str, int]:
    """Handle a decoding error: return the text for the undecodable bytes, and the position at which to continue.

    If the second byte is ASCII, it is decoded again by itself, so that a stray lead byte does not remove a quote or a
    bracket. Other second bytes are skipped (Encoding Standard, for example section 12.1.1).

    Args:
        missing: The byte sequences that the codec lacks, with their characters.
        codec: The name of the codec.
        error: The error.
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
        if pair[0] == 0x8F:  # The lead byte of a sequence of three bytes.
            pair = error.object[start : start + 3]
    return UNDEFINED, start + (len(pair) if pair[-1] >= 0x80 else 1)


def _decode_jis(pairs: bytes) -> str:
    """Decode JIS X 0208 in EUC form, including the rows that Microsoft added.

    The bytes are converted to Shift_JIS, which has the same index, because Python's cp932 contains the added rows.
    """
    text = ""
    for lead, trail in zip(pairs[::2], pairs[1::2], strict=True):
        row, cell = divmod((lead - 0xA1) * 94 + trail - 0xA1, 188)
        moved = bytes((row + (0x81 if row < 0x1F else 0xC1), cell + (0x40 if cell < 0x3F else 0x41)))
        text += moved.decode("cp932", "replace")[:1]
    return text


def _decode_iso_2022_jp(body: bytes) -> str:
    """Decode ISO-2022-JP (Encoding Standard, section 12.2). Each escape sequence selects a character set."""
    first, *rest = _ESCAPE.split(body)
    parts = [_decode_ascii(first)]
    for escape, stretch in zip(rest[::2], rest[1::2], strict=True):
        if escape.startswith(b"$"):
            line, newline, after = stretch.partition(b"\n")  # A new line always begins in ASCII.
            pairs = bytes(byte | 0x80 for byte in line if 0x21 <= byte <= 0x7E)
            parts += [_decode_jis(pairs[: len(pairs) & ~1]), UNDEFINED * (len(pairs) & 1)]
            parts.append(_decode_ascii(newline + after))
        elif escape == b"(I":
            parts.append(bytes(byte | 0x80 if 0x21 <= byte <= 0x5F else byte for byte in stretch).decode("cp932"))
        else:
            parts.append(_decode_ascii(stretch))
    return "".join(parts)


def _decode_ascii(raw: bytes) -> str:
    return raw.decode("ascii", "replace")


def unescape(text: str) -> str:
    """Replace HTML's character references by their characters. Numbers of nine or more digits become U+FFFD."""
    return html.unescape(_LONG_NUMBER.sub(UNDEFINED, text)) if "&" in text else text


# --- XML ---


def detect_xml_encoding(opening: bytes) -> str:
    """Return the name of the codec of an XML file, given its first bytes.

    The encoding is determined by the byte order mark, by the bytes of the first "<", or by the declaration. The default
    is UTF-8.
    """
    for mark, name in _XML_MARKS:
        if opening.startswith(mark):
            return name
    name = _find_codec(_XML_DECLARED.match(opening), _XML_CODECS)
    return name if name not in ("", "utf-7") else "utf-8"


def is_utf8_xml(opening: bytes) -> bool:
    """Return True if an XML file is in UTF-8, judged by its first bytes. Reading can begin anywhere in such a file."""
    return detect_xml_encoding(opening[:OPENING]) in ("utf-8", "ascii")


def transcode_xml(chunks: Iterable[bytes | Damage]) -> Iterator[bytes | Damage]:
    """Yield the chunks of an XML file converted to UTF-8.

    Chunks of a file in UTF-8 (by its declaration or by default) are yielded unchanged, even with invalid bytes.
    """
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
    """Return the text of a source file with LF line ends.

    These encodings are tried in order: the one of the byte order mark, UTF-8, the declared one (PEP 263, XML), and the
    detected one.

    Returns:
        The text, or the reason why it cannot be read: NOT_PLAIN_TEXT if it contains NULs, UNDECODABLE_TEXT if no
        encoding fits.
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
    """Return the text with LF line ends, or a reason if it contains NULs or too many undefined characters."""
    if "\0" in text:
        return Reason.NOT_PLAIN_TEXT
    if text.count(UNDEFINED) * CHARACTERS_PER_ERROR > len(text) + CHARACTERS_PER_ERROR:
        return Reason.UNDECODABLE_TEXT
    return _unify_line_ends(text)


def _unify_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _find_codec(declared: re.Match[bytes] | None, families: tuple[str, ...]) -> str:
    """Return the name of Python's codec for a declared label, or "" if there is none.

    The name must begin with one of `families`. The bytes of the label must also read as the label in that encoding:
    bytes that declare UTF-16 or EBCDIC in ASCII are not in UTF-16 or EBCDIC (WHATWG HTML, section 13.2.3.2).
    """
    if declared is None:
        return ""
    try:
        label = declared[1].decode("ascii")
        name = codecs.lookup(label).name
        return name if name.startswith(families) and declared[1].decode(name) == label else ""
    except (LookupError, UnicodeError):
        return ""
