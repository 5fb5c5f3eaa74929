"""HTTP responses as crawlers store them: status, header fields, and the body without its transfer and content codings
(RFC 9110, RFC 9112).

Crawlers often keep the header of a body that they stored decoded. So a coding that a body does not bear is passed over,
as browsers do, when the body reads as text.
"""

import re
import zlib
from collections.abc import Callable
from typing import NamedTuple

import brotli

from filters.formats.headers import Headers
from filters.reasons import Reason

MAX_CODINGS = 4
"""content codings undone, one inside the other; more are taken for an attack"""
PIECE = 1 << 20
"""decoded bytes taken from a decompressor at a time"""
FIRST_STEP = 1 << 10
"""coded bytes fed to a decompressor at first"""
CHUNK_LINE = 1 << 10
"""bytes of a chunk's size line, extensions included"""

_BLANK_LINE = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])?[ \t]+([0-9]{3})(?![0-9])")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_NO_CODINGS = ("chunked", "identity", "none")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r\x1b")) + b"\x7f"
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_COMMENT = re.compile(rb"\s*+<!--.*?-->", re.DOTALL)
_HTML_START = re.compile(
    rb"\s*+(?:<\?xml[^>]*+>\s*+)?"
    rb"<(?:!doctype html|html|head|body|title|meta|link|script|style|iframe|table|div|font|h1|p|a|br|b)[\s/>]",
    re.IGNORECASE,
)
"""after the HTML patterns of WHATWG MIME Sniffing (section 7.1), with meta, link and an XML declaration"""


class Response(NamedTuple):
    """An HTTP response. `body`: its bytes without transfer and content codings."""

    status: int
    headers: Headers
    body: bytes


class HttpError(Exception):
    """A response that cannot be read. `reason`: CORRUPT_HTTP, CORRUPT_BODY, TOO_LARGE or UNSUPPORTED_FORMAT."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class _NotSoCodedError(Exception):
    """The body's first bytes are not of the coding that the header names."""


def parse_response(block: bytes, max_body_bytes: int) -> Response:
    """The response in a WARC record's block. Raises HttpError, with TOO_LARGE for a body that decodes to more than
    `max_body_bytes`; memory stays of that order whatever the body claims to be."""
    status = _final_status(block)
    if status is None:
        raise HttpError(Reason.CORRUPT_HTTP, "no status line")
    blank = _BLANK_LINE.search(block, status.end())
    stop, start = blank.span() if blank else (len(block), len(block))
    headers, body = Headers(block[status.start() : stop]), block[start:]
    transfer, content = _codings(headers, "Transfer-Encoding"), _codings(headers, "Content-Encoding")
    if "chunked" in transfer:
        body = _dechunked(body)
    if codings := [name for name in content + transfer if name not in _NO_CODINGS]:
        if len(codings) > MAX_CODINGS:
            raise HttpError(Reason.UNSUPPORTED_FORMAT, f"{len(codings)} content codings")
        for name in reversed(codings):
            body = _decoded(body, name, max_body_bytes)
    if len(body) > max_body_bytes:
        raise HttpError(Reason.TOO_LARGE, f"a body of {len(body)} bytes")
    return Response(int(status.group(1)), headers, body)


def _final_status(block: bytes) -> re.Match[bytes] | None:
    """The status line of the response that counts: interim ones may come before it (RFC 9110, section 15.2)."""
    status = _STATUS_LINE.match(block)
    while status and status[1].startswith(b"1") and (blank := _BLANK_LINE.search(block, status.end())):
        final = _STATUS_LINE.match(block, blank.end())
        if final is None:
            break
        status = final
    return status


def is_html(response: Response) -> bool:
    """Whether the header says HTML or XHTML or, if it says nothing, whether the body begins like HTML."""
    content_type = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if content_type:
        return content_type in _HTML_TYPES
    start = response.body[:4096]
    for mark, encoding in zip(_BYTE_ORDER_MARKS, ("utf-8", "utf-16-le", "utf-16-be"), strict=True):
        if start.startswith(mark):
            start = start.removeprefix(mark).decode(encoding, "replace").encode()
            break
    position = 0
    while comment := _COMMENT.match(start, position):
        position = comment.end()
    return _HTML_START.match(start, position) is not None


def _codings(headers: Headers, name: str) -> list[str]:
    values = headers.all(name)
    return [value.strip() for value in ",".join(values).lower().split(",") if value.strip()] if values else []


def _dechunked(body: bytes) -> bytes:
    """RFC 9112, section 7.1, trailers dropped. A body whose first chunk does not parse is taken as not chunked; one
    that ends within a chunk gives what is there. Raises HttpError for a later chunk that does not parse."""
    data = bytearray()
    position = 0
    while position < len(body):
        line = _CHUNK_SIZE.match(body, position, position + CHUNK_LINE)
        start, size = (line.end(), int(line.group(1), 16)) if line else (0, 0)
        stop = start + size
        follows = body[stop : stop + 2]
        if line is None or not (size == 0 or b"\r\n".startswith(follows) or follows.startswith(b"\n")):
            if position == 0:
                return body
            if line is None and b"\n" not in body[position : position + CHUNK_LINE] and len(body) - position < 18:
                break
            raise HttpError(Reason.CORRUPT_BODY, "a chunk that does not parse")
        if size == 0:
            break
        data += body[start:stop]
        position = stop + (1 if follows.startswith(b"\n") else 2)
    return bytes(data)


def _decoded(body: bytes, name: str, limit: int) -> bytes:
    """The body without one content coding, or as it is if it does not bear that coding and reads as text."""
    decode = _DECODERS.get(name.removeprefix("x-"))
    if not body:
        return body
    if decode is None:
        if _reads_as_text(body):
            return body
        raise HttpError(Reason.UNSUPPORTED_FORMAT, f"content coding {name[:40]!r}")
    try:
        return decode(body, limit)
    except _NotSoCodedError:
        if _reads_as_text(body):
            return body
        raise HttpError(Reason.CORRUPT_BODY, f"not {name}") from None


def _reads_as_text(body: bytes) -> bool:
    start = body[:1024]
    return start.startswith(_BYTE_ORDER_MARKS) or len(start.translate(None, _CONTROLS)) == len(start)


def _gzip(body: bytes, limit: int) -> bytes:
    """One or more members; what follows them is dropped, as browsers do."""
    if not body.startswith(b"\x1f\x8b"):
        raise _NotSoCodedError
    parts: list[bytes] = []
    size = position = 0
    while body.startswith(b"\x1f\x8b", position):
        part, position = _inflated(body, position, zlib.MAX_WBITS | 16, limit - size)
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _deflate(body: bytes, limit: int) -> bytes:
    """The zlib format (RFC 1950), or the bare deflate stream (RFC 1951) that many servers send instead."""
    if len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0:
        return _inflated(body, 0, zlib.MAX_WBITS, limit)[0]
    if _reads_as_text(body):
        raise _NotSoCodedError
    return _inflated(body, 0, -zlib.MAX_WBITS, limit)[0]


def _inflated(body: bytes, position: int, window: int, limit: int) -> tuple[bytes, int]:
    """One zlib stream of `body` from a position on, and where it ends. What is fed grows with what was read: the
    decompressor copies what it leaves, and there may be millions of streams."""
    inflater = zlib.decompressobj(window)
    parts: list[bytes] = []
    size, step = 0, FIRST_STEP
    while not inflater.eof:
        fed = body[position : position + step]
        if not fed:
            raise HttpError(Reason.CORRUPT_BODY, "the compressed body ends early")
        try:
            parts.append(inflater.decompress(fed, limit - size + 1))
        except zlib.error as error:
            raise HttpError(Reason.CORRUPT_BODY, f"does not inflate: {error}") from error
        position, size, step = position + len(fed), size + len(parts[-1]), min(4 * step, PIECE)
        if size > limit:
            raise HttpError(Reason.TOO_LARGE, f"inflates to more than {limit} bytes")
    return b"".join(parts), position - len(inflater.unused_data)


def _brotli(body: bytes, limit: int) -> bytes:
    """RFC 7932. Brotli has no magic number: a body that fails before it gives a byte is taken as not so coded."""
    decoder = brotli.Decompressor()
    parts: list[bytes] = []
    size, fed = 0, body
    try:
        while not decoder.is_finished():
            part = decoder.process(fed, output_buffer_limit=PIECE)
            fed = b""
            parts.append(part)
            size += len(part)
            if size > limit:
                raise HttpError(Reason.TOO_LARGE, f"inflates to more than {limit} bytes")
            if not part and decoder.can_accept_more_data():
                raise HttpError(Reason.CORRUPT_BODY, "the compressed body ends early")
    except brotli.error as error:
        if _reads_as_text(body):
            raise _NotSoCodedError from error
        raise HttpError(Reason.CORRUPT_BODY, "does not inflate: brotli") from error
    return b"".join(parts)


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {"gzip": _gzip, "deflate": _deflate, "br": _brotli}
