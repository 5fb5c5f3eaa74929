"""A local HTTP server whose faulty responses a test can plan.

A plan is a list of answers for a path, one for each request. The last answer is repeated.
"""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Handler = http.server.BaseHTTPRequestHandler
Answer = Callable[[Handler], None]


class Server(http.server.ThreadingHTTPServer):
    """A server with a plan for each path.

    Attributes:
        plans: The answers by path.
        requests: (path, headers) of all requests, in order.
        ended: An event that ends waiting answers at the end of a test.
        lock: Protects the plans and requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plans: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.ended = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def plan(self, path: str, *answers: Answer) -> str:
        """Set the answers to requests for a path. Return the URL of the path."""
        self.plans[path] = list(answers)
        return self.url + path

    def asked(self, path: str, header: str = "Range") -> list[str | None]:
        """Return the value of a header in each request for a path."""
        return [headers.get(header) for asked, headers in self.requests if asked == path]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers)))
            answers = self.server.plans.get(self.path, [status(404)])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        with contextlib.suppress(ConnectionError):  # In some tests the client closes the connection.
            answer(self)
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server during the `with` block."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.ended.set()
        server.shutdown()


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Return an answer with a status, a body and its right Content-Length. `_` in names of headers becomes `-`."""
    return raw(code, body, Content_Length=str(len(body)), **headers)


def raw(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Return an answer with a status, a body, and no other headers than the given ones."""

    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def file(body: bytes, etag: str | None = '"1"', cut: int | None = None, ranges: bool = True, **headers: str) -> Answer:
    """Return an answer that sends a file.

    Args:
        body: The content of the file.
        etag: The ETag, or None for no ETag.
        cut: The number of bytes after which the connection is closed, or None to send the whole file.
        ranges: True if the server supports range requests.
        **headers: Further headers.
    """
    if etag is not None:
        headers["ETag"] = etag

    def answer(handler: Handler) -> None:
        asked = handler.headers.get("Range") if ranges else None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        condition = handler.headers.get("If-Range")
        if condition not in (None, etag, headers.get("Last_Modified")):
            start = 0
        if asked and start >= len(body):
            status(416, Content_Range=f"bytes */{len(body)}")(handler)
            return
        rest = body[start:]
        stated = {"Content_Length": str(len(rest)), **headers}
        if start:
            stated["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        raw(206 if start else 200, rest[:cut], **stated)(handler)

    return answer


def silent(first: bytes = b"", length: int = 1000) -> Answer:
    """Return an answer that sends headers and some bytes of the body, and then waits until the test ends."""

    def answer(handler: Handler) -> None:
        raw(200, first, Content_Length=str(length), ETag='"1"')(handler)
        handler.wfile.flush()
        assert isinstance(handler.server, Server)
        handler.server.ended.wait(30)

    return answer


def mute(handler: Handler) -> None:
    """Send nothing, not even a status, until the test ends."""
    assert isinstance(handler.server, Server)
    handler.server.ended.wait(30)


def hang_up(handler: Handler) -> None:
    """Close the connection without an answer."""
