"""HTTP responses as crawlers store them (RFC 9110, RFC 9112): the body out of its transfer and content encodings.

Crawlers keep headers that no longer describe the stored body; where a body is plainly not encoded as its header says,
it is taken as it is, as browsers do. A body that begins as stated and breaks half-way is damage.
"""

import re
import zlib
from dataclasses import dataclass

import brotli

from filters.headers import Headers, parse_headers
from manifests.reasons import Reason

MAX_ENCODINGS = 4
STATUS_LINE = re.compile(r"HTTP/\d(?:\.\d)?\s+(\d{3})\b")
GZIP_MAGIC = b"\x1f\x8b"
INFLATE_BYTES = 1 << 20
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]{0,4096})?\r?\n")
_MARKUP = re.compile(rb"\s*(?:<!--.{0,4096}?-->\s*)*<(?:!doctype\s+html|html|head|body|meta|title)\b", re.I | re.S)
HTML_TYPES = ("text/html", "application/xhtml+xml")


class HttpError(Exception):
    """A response that cannot be read: `reason` as the catalogue names it, `detail` what exactly."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Response:
    """A response with its body decoded."""

    status: int
    headers: Headers
    body: bytes


def parse_response(block: bytes, max_body_bytes: int) -> Response:
    """Read a stored response. Raises HttpError: CORRUPT_HTTP without a status line, CORRUPT_BODY for an encoding that
    breaks half-way, TOO_LARGE for a body over the limit, UNSUPPORTED_FORMAT for an encoding not known here."""
    end = _head_end(block)
    headers = parse_headers(block[:end])
    status = STATUS_LINE.match(headers.first)
    if status is None:
        raise HttpError(Reason.CORRUPT_HTTP, "no status line")
    body = block[end:]
    if "chunked" in ",".join(headers.all("Transfer-Encoding")).lower():
        body = dechunk(body)
    codings = [coding.strip().lower() for coding in ",".join(headers.all("Content-Encoding")).split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity", "none", "utf-8", "chunked")]
    if len(codings) > MAX_ENCODINGS:
        raise HttpError(Reason.CORRUPT_HTTP, f"{len(codings)} content encodings")
    for coding in reversed(codings):
        body = _decode(body, coding, max_body_bytes)
    if len(body) > max_body_bytes:
        raise HttpError(Reason.TOO_LARGE, f"over {max_body_bytes} bytes of body")
    return Response(int(status[1]), headers, body)


def is_html(response: Response) -> bool:
    """Whether the body is HTML: by its content type, or where there is none by how it begins."""
    kind = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if kind:
        return kind in HTML_TYPES
    return _MARKUP.match(response.body[:8192].lstrip(b"\xef\xbb\xbf")) is not None


def dechunk(body: bytes) -> bytes:
    """A body out of its chunks (RFC 9112, section 7.1). A body that is not chunked is given as it is; one that ends
    early or breaks is given as far as its chunks go."""
    parts: list[bytes] = []
    position = 0
    while True:
        size = CHUNK_SIZE.match(body, position)
        if size is None:
            return b"".join(parts) if parts else body
        length = int(size[1], 16)
        if length == 0:
            return b"".join(parts)
        parts.append(body[size.end() : size.end() + length])
        position = size.end() + length
        if position >= len(body):
            return b"".join(parts)
        position += 2 if body[position : position + 2] == b"\r\n" else body[position : position + 1] == b"\n"


def _decode(body: bytes, coding: str, limit: int) -> bytes:
    if not body:
        return body
    if coding in ("gzip", "x-gzip"):
        return _inflate(body, 31, limit) if body.startswith(GZIP_MAGIC) else body
    if coding == "deflate":
        if _is_zlib(body):
            return _inflate(body, 15, limit)
        return body if body.lstrip()[:1] in (b"<", b"{") else _inflate(body, -15, limit)
    if coding == "br":
        return _unbrotli(body, limit)
    if _MARKUP.match(body[:8192]):
        return body
    raise HttpError(Reason.UNSUPPORTED_FORMAT, f"content encoding {coding[:40]!r}")


def _is_zlib(body: bytes) -> bool:
    """RFC 1950, section 2.2: method 8, and a header checksum that is a multiple of 31."""
    return len(body) >= 2 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0


def _inflate(body: bytes, wbits: int, limit: int) -> bytes:
    parts: list[bytes] = []
    size, rest = 0, body
    while rest:
        inflate = zlib.decompressobj(wbits)
        while True:
            try:
                piece = inflate.decompress(rest, INFLATE_BYTES)
            except zlib.error as error:
                raise HttpError(Reason.CORRUPT_BODY, str(error)) from error
            parts.append(piece)
            size += len(piece)
            if size > limit:
                raise HttpError(Reason.TOO_LARGE, f"over {limit} bytes of body")
            rest = inflate.unconsumed_tail
            if inflate.eof:
                break
            if not rest and not piece:
                raise HttpError(Reason.CORRUPT_BODY, "the compressed body ends early")
        rest = inflate.unused_data
        if wbits != 31 or not rest.startswith(GZIP_MAGIC):
            break
    return b"".join(parts)


def _unbrotli(body: bytes, limit: int) -> bytes:
    decompressor = brotli.Decompressor()
    parts: list[bytes] = []
    size, rest = 0, body
    try:
        while not decompressor.is_finished():
            piece = decompressor.process(rest, output_buffer_limit=INFLATE_BYTES)
            rest = b""
            parts.append(piece)
            size += len(piece)
            if size > limit:
                raise HttpError(Reason.TOO_LARGE, f"over {limit} bytes of body")
            if not piece and decompressor.can_accept_more_data():
                raise HttpError(Reason.CORRUPT_BODY, "the compressed body ends early")
    except brotli.error as error:
        if _MARKUP.match(body[:8192]):
            return body
        raise HttpError(Reason.CORRUPT_BODY, "not Brotli") from error
    return b"".join(parts)


def _head_end(block: bytes) -> int:
    """Where the body begins; the end of the block when no empty line ends the head."""
    proper = block.find(b"\r\n\r\n")
    bare = block.find(b"\n\n", 0, proper if proper >= 0 else len(block))
    if bare >= 0:
        return bare + 2
    return proper + 4 if proper >= 0 else len(block)
