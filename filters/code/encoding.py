"""Decode source files: byte order mark, UTF-8, the declared encoding (PEP 263, XML), then detection."""

import codecs
import re
from contextlib import suppress

from filters.formats.charset import decode
from filters.reasons import Reason

OPENING = 400  # bytes in which a file declares its encoding
CHARACTERS_PER_ERROR = 1_000  # of which the encoding may leave one undefined
_DECLARED = re.compile(rb"\A(?:[^\n]{0,200}\n)?[^\n]{0,200}?(?:coding[:=][ \t]{0,4}|encoding=[\"'])([\w.-]{1,40})")
_TEXT = ("iso8859", "cp", "koi8", "gb", "big5", "shift_jis", "euc", "latin", "mac")  # prefixes of encodings of text


def decode_source(raw: bytes) -> str | Reason:
    """Return a file's text with LF line ends, or NOT_PLAIN_TEXT for NULs, UNDECODABLE_TEXT if no encoding fits."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _check(raw.decode("utf-16", "replace").encode("utf-8", "replace").decode())
    if b"\0" in raw:
        return Reason.NOT_PLAIN_TEXT
    with suppress(UnicodeDecodeError):
        return _normalize_newlines(raw.decode("utf-8-sig"))
    if declared := _find_declared_encoding(raw[:OPENING]):
        with suppress(UnicodeDecodeError):
            return _check(raw.decode(declared))
    return _check(decode(raw, None))


def _find_declared_encoding(opening: bytes) -> str:
    declaration = _DECLARED.match(opening)
    try:
        name = codecs.lookup(declaration[1].decode("ascii", "replace")).name if declaration else ""
    except LookupError:
        return ""
    return name if name.startswith(_TEXT) else ""


def _check(text: str) -> str | Reason:
    if "\0" in text:
        return Reason.NOT_PLAIN_TEXT
    if text.count("\ufffd") * CHARACTERS_PER_ERROR > len(text) + CHARACTERS_PER_ERROR:
        return Reason.UNDECODABLE_TEXT
    return _normalize_newlines(text)


def _normalize_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
