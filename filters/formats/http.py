"""Parse the HTTP responses that crawlers store: status, header fields, and decoded body (RFC 9110, RFC 9112).

Crawlers often store a body decoded but keep the original header. So if the body does not have the stated coding and
reads as text, the coding is ignored. Browsers do the same.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import brotli
from isal import igzip_lib

from filters.formats.records import Headers
from filters.formats.stream import GZIP, SKIPPABLE, ZSTD, CompressedStream, Decoder, open_zstd
from filters.reasons import Reason

MAX_CODINGS = 4  # Nested content codings. A response with more is rejected, because it is probably an attack.
# Encoded bytes that are passed to a decoder at a time. It is small, because a body may consist of millions of streams.
STEP = 1 << 12
CHUNK_LINE = 1 << 10  # Bytes of the line with the size of a chunk, including extensions.

_BLANK_LINE = re.compile(rb"\n\r{0,2}\n")  # Some servers end lines in CR CR LF.
_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])?[ \t]+([0-9]{1,3})(?![0-9])")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_NO_CODINGS = ("chunked", "identity", "none")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\f\r\x1b")) + b"\x7f"
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_COMMENT = re.compile(rb"\s*+<!--.*?-->", re.DOTALL)
# The HTML patterns of WHATWG MIME Sniffing (section 7.1), extended by meta, link and an XML declaration.
_HTML_START = re.compile(
    rb"\s*+(?:<\?xml[^>]*+>\s*+)?"
    rb"<(?:!doctype html|html|head|body|title|meta|link|script|style|iframe|table|div|font|h1|p|a|br|b)[\s/>]",
    re.IGNORECASE,
)


class Response(NamedTuple):
    """An HTTP response. Transfer and content codings of `body` are removed."""

    status: int
    headers: Headers
    body: bytes


class HttpError(Exception):
    """The error for a response that cannot be read.

    Attributes:
        reason: CORRUPT_HTTP, CORRUPT_BODY, TOO_LARGE or UNSUPPORTED_FORMAT.
        detail: The exact cause.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class _EncodingMismatchError(Exception):
    """The error for a body whose bytes are not in the coding that the header names."""


def parse_response(block: bytes, max_body_bytes: int) -> Response:
    """Parse the response in a WARC record's block. Uses memory of the order of `max_body_bytes`.

    Raises:
        HttpError: The response cannot be read, or its body decodes to more than `max_body_bytes` (TOO_LARGE).
    """
    status = _match_final_status(block)
    if status is None:
        raise HttpError(Reason.CORRUPT_HTTP, "no status line")
    blank = _BLANK_LINE.search(block, status.end())
    stop, start = blank.span() if blank else (len(block), len(block))
    headers, body = Headers(block[status.start() : stop]), block[start:]
    transfer, content = _list_codings(headers, "Transfer-Encoding"), _list_codings(headers, "Content-Encoding")
    if "chunked" in transfer:
        body = _join_chunks(body)
    if codings := [name for name in content + transfer if name not in _NO_CODINGS]:
        if len(codings) > MAX_CODINGS:
            raise HttpError(Reason.UNSUPPORTED_FORMAT, f"{len(codings)} content codings")
        for name in reversed(codings):
            body = _decode(body, name, max_body_bytes)
    if len(body) > max_body_bytes:
        raise HttpError(Reason.TOO_LARGE, f"a body of {len(body)} bytes")
    return Response(int(status.group(1)), headers, body)


def _match_final_status(block: bytes) -> re.Match[bytes] | None:
    """Match the status line of the final response. Interim responses may precede it (RFC 9110, section 15.2)."""
    status = _STATUS_LINE.match(block)
    while status and status[1].startswith(b"1") and (blank := _BLANK_LINE.search(block, status.end())):
        final = _STATUS_LINE.match(block, blank.end())
        if final is None:
            break
        status = final
    return status


def is_html(response: Response) -> bool:
    """Return True if Content-Type is HTML or XHTML, or, without a Content-Type, if the body begins like HTML."""
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


def _list_codings(headers: Headers, name: str) -> list[str]:
    """Return the codings in all fields of a name, in lower case."""
    values = headers.all(name)
    return [value.strip() for value in ",".join(values).lower().split(",") if value.strip()] if values else []


def _join_chunks(body: bytes) -> bytes:
    """Decode the chunked transfer coding (RFC 9112, section 7.1) and drop trailers.

    If the first chunk does not parse, the body is returned unchanged. If the body ends within a chunk, the bytes up to
    its end are returned.

    Raises:
        HttpError: A later chunk does not parse.
    """
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


def _decode(body: bytes, name: str, limit: int) -> bytes:
    """Remove one content coding. A body that does not have the coding and reads as text is returned unchanged.

    Raises:
        HttpError: The coding is unknown, or the body cannot be decoded or is larger than `limit` bytes.
    """
    decode = _DECODERS.get(name.removeprefix("x-"))
    if not body:
        return body
    if decode is None:
        if _reads_as_text(body):
            return body
        raise HttpError(Reason.UNSUPPORTED_FORMAT, f"content coding {name[:40]!r}")
    try:
        return decode(body, limit)
    except _EncodingMismatchError:
        if _reads_as_text(body):
            return body
        raise HttpError(Reason.CORRUPT_BODY, f"not {name}") from None


def _reads_as_text(body: bytes) -> bool:
    """Return True if the first bytes are a byte order mark, or contain no control characters."""
    start = body[:1024]
    return start.startswith(_BYTE_ORDER_MARKS) or len(start.translate(None, _CONTROLS)) == len(start)


def _decode_streams(begins: re.Pattern[bytes], create: Callable[[], Decoder], body: bytes, limit: int) -> bytes:
    """Decode consecutive compressed streams. Bytes after the last stream are ignored, as in browsers.

    Args:
        begins: A pattern for the first bytes of a stream.
        create: Returns a new decoder for one stream.
        body: The encoded bytes.
        limit: The largest number of decoded bytes.
    """
    parts: list[bytes] = []
    size = position = 0
    while begins.match(body, position):
        part, position = _decompress(body, position, create(), limit - size)
        parts.append(part)
        size += len(part)
    if not parts:
        raise _EncodingMismatchError
    return b"".join(parts)


def _decode_deflate(body: bytes, limit: int) -> bytes:
    """Decode the zlib format (RFC 1950), or a raw deflate stream (RFC 1951), which many servers send instead."""
    if len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0:
        flag = igzip_lib.DECOMP_ZLIB
    elif _reads_as_text(body):
        raise _EncodingMismatchError
    else:
        flag = igzip_lib.DECOMP_DEFLATE
    return _decompress(body, 0, igzip_lib.IgzipDecompressor(flag=flag), limit)[0]


def _decode_brotli(body: bytes, limit: int) -> bytes:
    """Decode brotli (RFC 7932).

    Brotli has no magic number. So if decoding fails and the body reads as text, the body is not brotli.
    """
    decoder = brotli.Decompressor()
    try:
        data = decoder.process(body, output_buffer_limit=limit + 1)
    except brotli.error:
        if _reads_as_text(body):
            raise _EncodingMismatchError from None
        raise HttpError(Reason.CORRUPT_BODY, "the body does not decompress: brotli") from None
    if len(data) > limit:
        raise HttpError(Reason.TOO_LARGE, f"decompresses to more than {limit} bytes")
    if not decoder.is_finished():
        raise HttpError(Reason.CORRUPT_BODY, "the body ends early")
    return bytes(data)


def _decompress(body: bytes, position: int, decoder: Decoder, limit: int) -> tuple[bytes, int]:
    """Decompress one stream that begins at `position` in `body`. Return its bytes and the position of its end."""
    stream = CompressedStream(body, position, len(body), decoder, "body", Reason.CORRUPT_BODY, STEP)
    parts: list[bytes] = []
    for piece in stream.pieces():
        parts.append(piece)
        if stream.size > limit:
            raise HttpError(Reason.TOO_LARGE, f"decompresses to more than {limit} bytes")
    if stream.damage is not None:
        raise HttpError(Reason.CORRUPT_BODY, stream.damage.detail)
    return b"".join(parts), position + stream.length


_DECODERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": partial(
        _decode_streams, re.compile(GZIP), partial(igzip_lib.IgzipDecompressor, flag=igzip_lib.DECOMP_GZIP)
    ),
    "zstd": partial(_decode_streams, re.compile(re.escape(ZSTD) + b"|" + SKIPPABLE.pattern), open_zstd),  # RFC 8878
    "deflate": _decode_deflate,
    "br": _decode_brotli,
}
