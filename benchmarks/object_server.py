"""Serve the part of the S3 protocol that a driver uses, on loopback, and pretend to hold millions of objects.

Usage: `python -m benchmarks.object_server PORT`. Objects are held in memory. A client can POST lines of the form `size
key` to the path `PRETEND`. The server then pretends to hold objects with these keys: their bytes are zeros, and only
key and size are stored. moto is not used, because the time of its listings grows with the number of objects in the
bucket; here it grows with the number of keys on the listed page.
"""

import bisect
import re
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

PRETEND = "pretend"  # the path of POST requests that list pretended objects
PAGE = 1_000  # keys per page of a listing, as in S3
STAMP = "Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01T00:00:00.000Z"  # modification time of all objects, in two formats
ETAG = '"0"'


class Objects:
    """The objects of all buckets, by `bucket/key`.

    Attributes:
        held: The content of each object, or the size of a pretended object of zeros.
        parts: The parts of unfinished multipart uploads: {key: {part number: content}}.
        lock: Protects the attributes, because each connection has its own thread.
    """

    def __init__(self) -> None:
        self.held: dict[str, bytes | int] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.lock = threading.Lock()
        self._keys: list[str] | None = None  # sorted keys; None if they must be sorted again

    def put(self, items: dict[str, bytes | int]) -> None:
        """Store objects, given as contents or sizes by key."""
        with self.lock:
            self._keys = self._keys if items.keys() <= self.held.keys() else None
            self.held |= items

    def remove(self, key: str) -> None:
        """Remove an object if it exists."""
        with self.lock:
            if self.held.pop(key, None) is not None:
                self._keys = None

    def list(self, prefix: str, after: str) -> tuple[list[tuple[str, int]], bool]:
        """Return a page of (key, size) of the keys that begin with a prefix, and True if more pages follow.

        Args:
            prefix: The beginning of the keys.
            after: The last key of the page before, or "" for the first page.
        """
        with self.lock:
            if self._keys is None:
                self._keys = sorted(self.held)
            start = bisect.bisect_right(self._keys, after) if after else bisect.bisect_left(self._keys, prefix)
            found = self._keys[start : start + PAGE + 1]
            below = [key for key in found if key.startswith(prefix)]
            return [(key, _size(self.held[key])) for key in below[:PAGE]], len(below) > PAGE


def _size(held: bytes | int) -> int:
    """Return the size of an object in bytes."""
    return held if isinstance(held, int) else len(held)


class Handler(BaseHTTPRequestHandler):
    """A handler of the requests of one connection."""

    protocol_version = "HTTP/1.1"
    objects = Objects()

    def do_GET(self) -> None:
        """Send an object, a byte range of an object, or a page of a listing."""
        key, query = self._place()
        if "list-type" in query or not key.partition("/")[2]:
            self._list(key.partition("/")[0], query)
            return
        held = self.objects.held.get(key)
        if held is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        size, found = _size(held), re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(found[1]), min(int(found[2] or size), size - 1) + 1) if found else (0, size)
        body = bytes(end - start) if isinstance(held, int) else held[start:end]
        more = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if found else {}
        self._answer(206 if found else 200, body, more | {"Last-Modified": STAMP[0], "ETag": ETAG})

    def do_HEAD(self) -> None:
        """Send the size of an object, or 404 if it does not exist. Every bucket exists."""
        key, _ = self._place()
        held = self.objects.held.get(key) if key.partition("/")[2] else 0
        length = {"Content-Length": str(_size(held or 0)), "Last-Modified": STAMP[0], "ETag": ETAG}
        self._answer(404 if held is None else 200, b"", length)

    def do_PUT(self) -> None:
        """Store an object or a part of a multipart upload."""
        (key, query), body = self._place(), self._body()
        if "uploadId" in query:
            self.objects.parts.setdefault(key, {})[int(query["partNumber"])] = body
        elif key.partition("/")[2]:
            self.objects.put({key: body})
        self._answer(200, b"", {"ETag": ETAG})

    def do_POST(self) -> None:
        """Begin or complete a multipart upload, or store pretended objects; answer any other request without effect."""
        (key, query), body = self._place(), self._body()
        if key == PRETEND:
            items = (line.split(" ", 1) for line in body.decode().splitlines())
            self.objects.put({name: int(size) for size, name in items})
        elif "uploads" in query:
            self._xml("InitiateMultipartUploadResult", f"<Key>{escape(key)}</Key><UploadId>{escape(key)}</UploadId>")
            return
        elif "uploadId" in query:
            parts = self.objects.parts.pop(key, {})
            self.objects.put({key: b"".join(part for _, part in sorted(parts.items()))})
            self._xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key><ETag>{ETAG}</ETag>")
            return
        self._xml("DeleteResult", "")

    def do_DELETE(self) -> None:
        """Remove an object."""
        self.objects.remove(self._place()[0])
        self._answer(204, b"")

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        """Send a page of a listing of a bucket."""
        prefix, start = query.get("prefix", ""), len(bucket) + 1
        page, more = self.objects.list(f"{bucket}/{prefix}", query.get("continuation-token", ""))
        rows = [
            f"<Contents><Key>{escape(key[start:])}</Key><LastModified>{STAMP[1]}</LastModified><ETag>{ETAG}</ETag>"
            f"<Size>{size}</Size></Contents>"
            for key, size in page
        ]
        token = f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>" if more else ""
        head = f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
        self._xml("ListBucketResult", f"{head}<IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(rows)}")

    def _place(self) -> tuple[str, dict[str, str]]:
        """Return `bucket/key` of a request and the parameters of its query."""
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        return urllib.parse.unquote(parts.path).lstrip("/"), query

    def _body(self) -> bytes:
        """Return the body of a request without its transfer coding and without AWS's chunked encoding."""
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return _decode_aws_chunks(body) if "aws-chunked" in self.headers.get("Content-Encoding", "") else body

    def _chunk(self) -> bytes:
        """Read one chunk of HTTP's chunked coding. The last chunk is empty."""
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _xml(self, name: str, inner: str) -> None:
        """Send an XML document with a root element of S3's namespace."""
        namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
        self._answer(200, f'<?xml version="1.0"?><{name} xmlns="{namespace}">{inner}</{name}>'.encode())

    def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        """Send a response."""
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: object) -> None:
        """Print nothing."""


def _decode_aws_chunks(body: bytes) -> bytes:
    """Return the data of a body in AWS's chunked encoding, in which a line with its length precedes each chunk."""
    found, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].split(b";")[0], 16)
        if not size:
            return b"".join(found)
        found.append(body[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
