"""Write WARC records whose ids and dates depend only on the content, so that the same input gives the same bytes."""

import base64
import hashlib
import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from deflate import gzipped

START = datetime(2024, 3, 1, tzinfo=UTC)
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Record:
    """A WARC record.

    Attributes:
        url: The value of WARC-Target-URI.
        body: The HTTP body with its transfer and content codings, or the whole block if it is not an HTTP message.
        kind: The value of WARC-Type.
        status: The HTTP status code and reason.
        headers: The HTTP headers, or None if the block is not an HTTP message.
        content_type: The content type of the record; "" means an HTTP message.
        warc_headers: Additional WARC headers.
    """

    url: str
    body: bytes
    kind: str = "response"
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] | None = (("Content-Type", HTML),)
    content_type: str = ""
    warc_headers: tuple[tuple[str, str], ...] = ()

    @property
    def date(self) -> str:
        """Return a date in March 2024, chosen by a hash of the record's type and URL."""
        minute = zlib.crc32(f"{self.kind} {self.url}".encode()) % (31 * 24 * 60)
        return (START + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ")


def response(url: str, body: str | bytes, content_type: str = HTML, **more: str) -> Record:
    """Return a response record.

    Args:
        url: The URL.
        body: The HTTP body.
        content_type: The value of the HTTP header Content-Type; "" leaves the header out.
        **more: `status`, by default "200 OK". All other keywords are HTTP headers, such as `content_encoding="gzip"`.
    """
    status = more.pop("status", "200 OK")
    names = {"Content-Type": content_type} if content_type else {}
    names |= {name.replace("_", "-").title(): value for name, value in more.items()}
    return Record(url, body.encode() if isinstance(body, str) else body, status=status, headers=tuple(names.items()))


def other(url: str, block: bytes, kind: str, content_type: str) -> Record:
    """Return a record whose block is not an HTTP message."""
    return Record(url, block, kind, headers=None, content_type=content_type)


def member(record: Record, gzip: bool = True) -> bytes:
    """Return the bytes of a record in a file, by default as one gzip member."""
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{record.kind} {record.url} {zlib.crc32(record.body)}")
    block = record.body if record.headers is None else http_block(record)
    fields = {
        "WARC-Type": record.kind,
        "WARC-Record-ID": f"<urn:uuid:{name}>",
        "WARC-Date": record.date,
        **dict(record.warc_headers),
    }
    if record.url:
        fields["WARC-Target-URI"] = record.url
    if record.kind not in ("warcinfo", "revisit"):
        fields.setdefault("WARC-Payload-Digest", digest(record.body))
    fields.setdefault("WARC-Block-Digest", digest(block))
    message = "request" if record.kind == "request" else "response"
    fields["Content-Type"] = record.content_type or f"application/http; msgtype={message}"
    fields["Content-Length"] = str(len(block))
    head = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    stored = f"WARC/1.0\r\n{head}\r\n".encode() + block + b"\r\n\r\n"
    return gzipped(stored) if gzip else stored


def http_block(record: Record) -> bytes:
    """Return the HTTP message of a record: start line, headers and body."""
    first = f"HTTP/1.1 {record.status}"
    if record.kind == "request":
        first = f"GET {urlsplit(record.url).path} HTTP/1.1"
    head = "".join(f"{name}: {value}\r\n" for name, value in record.headers or ())
    return f"{first}\r\n{head}\r\n".encode() + record.body


def digest(data: bytes) -> str:
    """Return the SHA-1 digest of data in the form of WARC headers."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data).digest()).decode()


def raw(record: Record, block: bytes, length: int | None = None) -> bytes:
    """Return an uncompressed record with any block.

    Args:
        record: The record whose type, URL and date are used.
        block: The block, which need not be a valid HTTP message.
        length: The value of Content-Length, which may be wrong. None means the right length.
    """
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"raw {record.kind} {record.url} {zlib.crc32(block)}")
    head = (
        f"WARC/1.0\r\nWARC-Type: {record.kind}\r\nWARC-Record-ID: <urn:uuid:{name}>\r\nWARC-Date: {record.date}\r\n"
        f"WARC-Target-URI: {record.url}\r\nContent-Type: application/http; msgtype={record.kind}\r\n"
        f"Content-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def info(filename: str) -> Record:
    """Return the warcinfo record for the beginning of a file."""
    text = f"software: samples/make.py\r\nformat: WARC File Format 1.0\r\ndescription: {filename}\r\n"
    return Record(
        "", text.encode(), "warcinfo", headers=None, content_type="application/warc-fields",
        warc_headers=(("WARC-Filename", filename),),
    )  # fmt: skip


def write(path: Path, records: Iterable[Record]) -> None:
    """Write a .warc.gz file: a warcinfo record and the given records, one gzip member per record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        out.write(member(info(path.name)))
        for record in records:
            out.write(member(record))
