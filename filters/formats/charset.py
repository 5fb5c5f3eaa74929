"""Decode the bytes of a page or text file by its byte order mark, its declarations, or detection."""

import codecs
import re

from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

# Byte order marks come before every declaration (WHATWG Encoding, section 6).
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
META_BYTES = 1024  # from the start of a page, in which it declares its encoding (WHATWG HTML, section 13.2.3.2)
CHARACTERS_PER_ERROR = 1_000  # a declared encoding may leave one in as many unexplained, since pages are cut

_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_META = re.compile(rb"<meta[^>]{0,512}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_SURROGATES = re.compile("[\ud800-\udfff]")


def decode(body: bytes, content_type: str | None) -> str:
    """Return the text of a page's bytes. Never raises.

    The byte order mark decides first, then the declared encodings (HTTP header, then meta element) if the bytes agree
    with them, then detection. Bytes that no encoding explains become U+FFFD, as do NULs and lone surrogates, which text
    files cannot hold.
    """
    labels = _declared_encodings(body, content_type)
    text = _decode_plain_utf8(body, labels)
    if text is None:
        text = _decode_by_labels(body, labels)
        try:
            text.encode()  # much faster than a search for surrogates, which are very rare
        except UnicodeEncodeError:
            text = _SURROGATES.sub("\ufffd", text)
    return text.replace("\0", "\ufffd")


def _decode_plain_utf8(body: bytes, labels: list[str]) -> str | None:
    """Return the text if the bytes are valid UTF-8 that declare UTF-8 or nothing, else None.

    Most pages are, and detection takes longer than to try. Bytes with escapes and NULs can be stateful encodings and
    UTF-16, so they are left to detection, as are byte order marks.
    """
    if labels[:1] not in ([], ["utf-8"]) or body.startswith(tuple(MARKS)):
        return None
    if not labels and (b"\x1b" in body or b"\0" in body):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _decode_by_labels(body: bytes, labels: list[str]) -> str:
    for mark, encoding in MARKS.items():
        if body.startswith(mark):
            return body[len(mark) :].decode(encoding, "replace")
    for label in labels:
        text = body.decode(label, "replace")
        if text.count("\ufffd") * CHARACTERS_PER_ERROR <= len(text) + CHARACTERS_PER_ERROR:
            return text
    encoding = detect_encoding(body, from_html_meta=False) or "utf-8"
    try:
        return bytes_to_str(body, encoding, errors="replace")
    except (LookupError, UnicodeError):
        return body.decode("utf-8", "replace")


def _declared_encodings(body: bytes, content_type: str | None) -> list[str]:
    """Return the encodings that header and page declare, as the web maps their labels (latin1 is windows-1252)."""
    header = _CHARSET.search(content_type or "")
    meta = _META.search(body[:META_BYTES])
    in_header = map_encoding_to_html5(header[1], fallback_utf8=False) if header else None
    in_page = map_encoding_to_html5(meta[1].decode("ascii"), fallback_utf8=False) if meta else None
    if in_page and in_page.lower().startswith("utf-16"):
        in_page = "utf-8"  # the declaration itself was not UTF-16 (WHATWG HTML, section 13.2.3.2)
    return [name for name in (in_header, in_page) if name]
