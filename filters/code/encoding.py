"""The text of a source file's bytes: byte order mark, UTF-8, what the file declares (PEP 263, XML), then detection."""

import codecs
import re

from filters.html.extract import decode
from filters.reasons import Reason

OPENING = 400
"""bytes in which a file declares its encoding"""
_DECLARED = re.compile(rb"\A(?:[^\n]{0,200}\n)?[^\n]{0,200}?(?:coding[:=][ \t]{0,4}|encoding=[\"'])([\w.-]{1,40})")
_TEXT = ("iso8859", "cp", "koi8", "gb", "big5", "shift_jis", "euc", "latin", "mac")
"""how Python's names of the encodings begin that a declaration may name"""
UNEXPLAINED = 1_000
"""one character in so many may be unknown"""


def decoded(raw: bytes) -> str | Reason:
    """A file's text with LF line ends; NOT_PLAIN_TEXT if it has NULs, UNDECODABLE_TEXT if no encoding explains it."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = raw.decode("utf-16", "replace")
        return _checked(text.encode("utf-8", "replace").decode())
    if b"\0" in raw:
        return Reason.NOT_PLAIN_TEXT
    try:
        return _with_newlines(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        pass
    declared = _declared(raw[:OPENING])
    if declared:
        try:
            return _checked(raw.decode(declared))
        except UnicodeDecodeError:
            pass
    return _checked(decode(raw, None))


def _declared(opening: bytes) -> str:
    found = _DECLARED.match(opening)
    try:
        name = codecs.lookup(found[1].decode("ascii", "replace")).name if found else ""
    except LookupError:
        return ""
    return name if name.startswith(_TEXT) else ""


def _checked(text: str) -> str | Reason:
    if "\0" in text:
        return Reason.NOT_PLAIN_TEXT
    if text.count("\ufffd") * UNEXPLAINED > len(text) + UNEXPLAINED:
        return Reason.UNDECODABLE_TEXT
    return _with_newlines(text)


def _with_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
