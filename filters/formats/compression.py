"""Decoded bytes of a stored file: gzip and bzip2 as streams of bounded pieces, and any declared encoding as UTF-8."""

import bz2
import codecs
import re
from collections.abc import Iterable, Iterator
from typing import Any

from isal import isal_zlib

from filters.formats.damage import Damage
from filters.formats.stream import PIECE, Stored
from filters.reasons import Reason

GZIP, BZIP2 = b"\x1f\x8b", b"BZh"
SLICE = 1 << 16
"""stored bytes fed to a decompressor at a time"""
OPENING = 1 << 12
"""bytes in which a file declares its encoding"""

_MARKS = (
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
_TEXT = ("utf", "iso8859", "cp", "koi8", "gb", "big5", "shift_jis", "euc", "ascii")
"""how Python's names of the encodings begin that a declaration may name"""
_InflateError: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # isal's stub gives an instance


def unpacked(stored: Stored) -> Iterator[bytes | Damage]:
    """The bytes of a file of gzip members or bzip2 streams, at most `PIECE` at a time; damage ends them."""
    gzip = bytes(stored[:2]) == GZIP
    inflater: Any
    position, size = 0, len(stored)
    while position < size:
        inflater = isal_zlib.decompressobj(wbits=31) if gzip else bz2.BZ2Decompressor()
        fed, hungry = b"", True
        try:
            while not inflater.eof:
                if hungry:
                    fed = bytes(stored[position : position + SLICE])
                    position += len(fed)
                    if not fed:
                        what = "the gzip member ends early" if gzip else "the bzip2 stream ends early"
                        yield Damage(Reason.TRUNCATED_RECORD, what)
                        return
                piece = inflater.decompress(fed, PIECE)
                fed = inflater.unconsumed_tail if gzip else b""
                hungry = not fed and len(piece) < PIECE if gzip else inflater.needs_input
                if piece:
                    yield piece
        except (_InflateError, OSError, ValueError) as error:
            reason = Reason.CORRUPT_GZIP if gzip else Reason.CORRUPT_RECORD
            yield Damage(reason, f"stored bytes that do not inflate: {error}")
            return
        position -= len(inflater.unused_data)
        if not bytes(stored[position : position + OPENING]).strip(b"\0"):
            return  # padding


def encoding_of(opening: bytes) -> str:
    """The encoding of an XML file by its first bytes: mark, form or declaration; UTF-8 if none of them tells."""
    for mark, name in _MARKS:
        if opening.startswith(mark):
            return name
    declared = _DECLARED.match(opening)
    try:
        name = codecs.lookup(declared[1].decode("ascii", "replace")).name if declared else "utf-8"
    except LookupError:
        return "utf-8"
    return name if name.startswith(_TEXT) and name != "utf-7" else "utf-8"


def as_utf8(chunks: Iterable[bytes | Damage]) -> Iterator[bytes | Damage]:
    """The same text in UTF-8. Bytes that are UTF-8 or say so pass as they are, whatever they hold."""
    decoder: codecs.IncrementalDecoder | None = None
    first = True
    for chunk in chunks:
        if isinstance(chunk, Damage):
            yield chunk
            continue
        if first:
            name, first = encoding_of(chunk[:OPENING]), False
            decoder = None if name in ("utf-8", "ascii") else codecs.getincrementaldecoder(name)("replace")
        yield decoder.decode(chunk).encode("utf-8", "replace") if decoder else chunk
    if decoder:
        yield decoder.decode(b"", True).encode("utf-8", "replace")
