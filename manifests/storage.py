"""Read and write files below a URL: in object stores, HDFS, or a local folder.

Every object is written by one upload of a finished local file, because an exception inside an output stream of pyarrow
would publish a truncated object. Streams are opened with `compression=None`, because by default pyarrow compresses
files whose names end in .gz. Failed reads and writes are repeated, and finally raise `StorageError`. This error means a
fault of the storage, not damaged data.
"""

import contextlib
import hashlib
import io
import mmap
import os
import string
import textwrap
import time
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple, TypeVar

import pyarrow as pa
from pyarrow import fs

from filters.errors import RunError, UserError
from manifests.files import atomic_path

WAITS = [0.1, 1.0, 5.0]  # Seconds to wait before each retry of a failed read or write.
CHUNK_BYTES = 16 << 20  # Bytes that are read at a time from the stream of a download.
RANGE_BYTES = 16 << 20  # Bytes per request of a download in ranges.
SENT_BYTES = 32 << 20  # Bytes of an upload that are in memory at a time.
RANGES = 4  # Concurrent range requests per file. A request waits for the network most of the time.
REMOVALS = 32  # Concurrent removals of files.
OTHER_HASH = "its SHA-256 is not"  # Start of the message for a wrong hash: an error of the data, not of the storage.
S3_ATTEMPTS = 5  # Attempts per request of the S3 client, with its own backoff.
GCS_LIMIT = timedelta(seconds=3)  # Limit for the retries of the GCS client. Its default is several minutes.
BUCKETS = ("s3", "gs", "gcs")  # URL schemes whose first path component is a bucket.
WHY = 200  # Maximum characters of an error message of a store. libhdfs lists every path where it looked for Java.
_CHECKS = "check the bucket's name, the credentials and the network"
# By URL scheme: advice for the case that a store cannot be opened.
ADVICE = {
    "s3": f"{_CHECKS}, AWS_REGION and AWS_ENDPOINT_URL",
    "gs": _CHECKS,
    "gcs": _CHECKS,
    "hdfs": "set JAVA_HOME, HADOOP_HOME and CLASSPATH (`hadoop classpath --glob`), and check host and port",
}
Value = TypeVar("Value")


class StorageError(RunError):
    """A read or write failed repeatedly. The data may be correct; the same command continues from this point."""


class _MissingError(Exception):
    """A stored file does not exist. It is not an OSError, so `retry_storage` does not repeat the call."""


class Entry(NamedTuple):
    """A stored file: its path below the URL, its size in bytes, and its modification time in nanoseconds."""

    path: str
    bytes: int
    changed: int


def retry_storage(call: Callable[[], Value], place: str) -> Value:
    """Call a function, repeat the call if it raises OSError, and return its result.

    Args:
        call: an idempotent function that reads or writes. An OSError is treated as a failure of the storage, because
            readers of file formats raise other errors for damaged data.
        place: the step and task, or the URL, for the error message.

    Raises:
        StorageError: all attempts failed.
    """
    for wait in WAITS:
        try:
            return call()
        except OSError:
            time.sleep(wait)
    try:
        return call()
    except OSError as error:
        raise storage_error(error, place, len(WAITS) + 1) from error


def storage_error(error: OSError, place: str, tries: int = 1) -> StorageError:
    """Return the StorageError for an OSError. Its message names the place and the file, and contains advice."""
    file = f"access to {os.fsdecode(error.filename)}" if error.filename else "a read or write"
    after = f" after {tries} tries" if tries > 1 else ""
    why = textwrap.shorten(str(error.strerror or error), WHY, placeholder=" …")
    is_remote = place.startswith(tuple(f"{scheme}://" for scheme in BUCKETS))
    cause = "credentials, bucket and network" if is_remote else "disk, mount or permissions"
    return StorageError(
        f"{place}: {file} failed ({why}){after}: check the {cause}, then run "
        "the same command again, which continues from here"
    )


class Storage:
    """The files below a URL with the scheme s3, gs, gcs, hdfs or file.

    Attributes:
        url: the URL, without a slash at the end.
        requests: number of requests of this process to all stores, by kind: get, put, list, delete.
        fetched_bytes: number of bytes that this process has read from all stores.
    """

    requests: ClassVar[Counter[str]] = Counter()
    fetched_bytes: ClassVar[int] = 0

    def __init__(self, url: str) -> None:
        """Connect to the store. Raises UserError for a URL that cannot be opened."""
        self.url = url.rstrip("/")
        self.filesystem, self.root = _connect(self.url)

    def read(self, path: str) -> bytes:
        """Return the content of a file. Raises FileNotFoundError or StorageError."""
        file = io.BytesIO()
        self.copy_to(path, file)
        return file.getvalue()

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """Return `length` bytes of a file from `offset`.

        Raises:
            FileNotFoundError: the file does not exist.
            StorageError: the file cannot be read, or is too short.
        """

        def read() -> bytes:
            try:
                with self._count("get").open_input_file(f"{self.root}/{path}") as file:
                    data: bytes = file.read_at(length, offset)
            except FileNotFoundError as error:
                raise _MissingError from error
            Storage.fetched_bytes += len(data)
            if len(data) < length:
                raise OSError(5, "the file is shorter than expected", f"{self.url}/{path}")
            return data

        return self._retry(read, path)

    def list_files(self, folder: str = "") -> list[Entry]:
        """Return all files below a folder, sorted by path."""
        root = f"{self.root}/"
        return sorted(Entry(info.path.removeprefix(root), info.size, info.mtime_ns or 0) for info in self._list(folder))

    def list_sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes of all files below a folder, by path."""
        root = f"{self.root}/"
        return {info.path.removeprefix(root): info.size for info in self._list(folder)}

    def _list(self, folder: str) -> Iterator[fs.FileInfo]:
        """Yield the files below a folder.

        The list of pyarrow may need much memory, so its entries are released one by one.
        """
        selector = fs.FileSelector(f"{self.root}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
        found = self._retry(lambda: self._count("list").get_file_info(selector), folder)
        found.reverse()
        while found:
            info = found.pop()
            if info.size is not None:  # Folders have no size. Testing `info.type` would be much slower.
                yield info

    def is_empty(self) -> bool:
        """Return True if there is no file below the URL."""
        if split_url(self.url)[0] in ("gs", "gcs"):  # pyarrow does not list folders in GCS.
            bucket, _, prefix = self.root.partition("/")
            return not any(_gcs_client().list_blobs(bucket, prefix=f"{prefix}/".lstrip("/"), max_results=1))
        selector = fs.FileSelector(self.root, allow_not_found=True)
        return not self._retry(lambda: self._count("list").get_file_info(selector), "")

    def find(self, path: str) -> Entry | None:
        """Return the size and modification time of a file; None if it does not exist."""
        info = self._retry(lambda: self._count("get").get_file_info(f"{self.root}/{path}"), path)
        return Entry(path, info.size, info.mtime_ns or 0) if info.type == fs.FileType.File else None

    def download(self, path: str, target: Path, sha256: str = "") -> None:
        """Download a file to a local path, atomically. Raises the errors of `copy_to`."""

        def copy() -> None:
            with atomic_path(target) as temporary, temporary.open("wb") as file:
                self._copy(path, file, sha256)

        self._retry(copy, path)

    def copy_to(self, path: str, file: BinaryIO, sha256: str = "") -> None:
        """Download a file into an open local file, from its start.

        Args:
            path: the path of the stored file below the URL.
            file: the local file.
            sha256: the expected hash; empty for no check.

        Raises:
            FileNotFoundError: the stored file does not exist.
            StorageError: it cannot be read, or has another hash.
        """
        self._retry(lambda: self._copy(path, file, sha256), path)

    def _copy(self, path: str, file: BinaryIO, sha256: str) -> None:
        total = hashlib.sha256()
        with self._open(path) as stream:
            file.seek(0)
            while block := stream.read(CHUNK_BYTES):
                Storage.fetched_bytes += len(block)
                file.write(block)
                if sha256:
                    total.update(block)
        file.truncate()
        file.flush()
        if sha256 and total.hexdigest() != sha256:
            raise OSError(5, f"{OTHER_HASH} {sha256}", f"{self.url}/{path}")

    def _open(self, path: str) -> pa.NativeFile:
        """Open a file for sequential reading. Raises _MissingError or OSError."""
        try:
            return self._count("get").open_input_stream(f"{self.root}/{path}", compression=None)
        except FileNotFoundError as error:
            raise _MissingError from error

    def copy_spans(self, path: str, descriptor: int, spans: Iterable[tuple[int, int]]) -> None:
        """Copy byte ranges of a file to the same offsets of an open local file, with several concurrent requests.

        Args:
            path: the path of the stored file below the URL.
            descriptor: the file descriptor of the local file.
            spans: (start, end) of each range, end exclusive.

        Raises:
            FileNotFoundError: the stored file does not exist.
            StorageError: it cannot be read, is too short, or the local file cannot be written.
        """
        parts = [
            (start, min(start + RANGE_BYTES, end)) for first, end in spans for start in range(first, end, RANGE_BYTES)
        ]

        def copy(part: tuple[int, int]) -> None:
            start, end = part
            data = memoryview(self.read_range(path, start, end - start))
            retry_storage(lambda: _write_at(descriptor, data, start), f"a copy of {self.url}/{path}")

        with ThreadPoolExecutor(RANGES) as pool:
            list(pool.map(copy, parts))

    def publish(self, source: Path, path: str) -> None:
        """Upload a local file as one object. Raises StorageError."""

        def copy() -> None:
            with source.open("rb") as file:
                if not os.fstat(file.fileno()).st_size:
                    self._put(path, b"")
                    return
                # The map is not closed here, because a failed stream keeps a reference to it for a while.
                self._put(path, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

        self._retry(copy, path)

    def write(self, path: str, data: bytes) -> None:
        """Store bytes as a file. Raises StorageError."""
        self._retry(lambda: self._put(path, data), path)

    def create(self, path: str, data: bytes) -> bool:
        """Store bytes as a new file and return True; return False if the file exists.

        Raises:
            UserError: a client library that supports this operation is not installed, or the bucket does not exist.
            StorageError: the file cannot be written.
        """
        self.requests["put"] += 1
        create = CREATORS.get(split_url(self.url)[0], _create_by_move)
        return create(self.filesystem, self.root, path, data)

    def remove(self, path: str) -> None:
        """Remove a file, if it exists. Raises StorageError."""

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._count("delete").delete_file(f"{self.root}/{path}")

        self._retry(remove, path)

    def remove_all(self, paths: Iterable[str]) -> None:
        """Remove files as `remove` does, with several concurrent requests."""
        with ThreadPoolExecutor(REMOVALS) as pool:
            list(pool.map(self.remove, paths))

    def _put(self, path: str, data: bytes | mmap.mmap) -> None:
        """Write a file in one upload. All bytes are given, so no error in this process can truncate the upload."""
        target = f"{self.root}/{path}"
        if isinstance(self.filesystem, fs.LocalFileSystem):
            self.requests["put"] += 1
            with atomic_path(Path(target), durable=True) as temporary:
                temporary.write_bytes(data)
            return
        if isinstance(self.filesystem, fs.HadoopFileSystem):
            self.filesystem.create_dir(target.rpartition("/")[0])
        with ThreadPoolExecutor(1) as thread:  # Signals interrupt only the main thread, so they cannot cut an upload.
            thread.submit(_send, self._count("put"), target, data).result()

    def _count(self, kind: str) -> fs.FileSystem:
        """Count a request of a kind and return the file system on which to make it."""
        self.requests[kind] += 1
        return self.filesystem

    def _retry(self, call: Callable[[], Value], path: str) -> Value:
        place = f"{self.url}/{path}".rstrip("/")
        try:
            return retry_storage(call, place)
        except _MissingError as error:
            raise FileNotFoundError(2, "No such file", place) from error

    def __getstate__(self) -> str:
        return self.url

    def __setstate__(self, url: str) -> None:
        self.__init__(url)  # type: ignore[misc]  # Another process opens new connections.


@lru_cache(maxsize=8)
def connect(url: str) -> Storage:
    """Return the storage at a URL, one object per process. Raises UserError if the URL cannot be opened."""
    return Storage(url)


def _send(filesystem: fs.FileSystem, target: str, data: bytes | mmap.mmap) -> None:
    """Upload bytes. The pages of a mapped file are released from memory after they are sent. Raises OSError."""
    stream, view = filesystem.open_output_stream(target, compression=None), memoryview(data)
    for start in range(0, len(data), SENT_BYTES):
        stream.write(view[start : start + SENT_BYTES])
        if isinstance(data, mmap.mmap):
            stream.flush()  # Wait until the bytes are sent.
            data.madvise(mmap.MADV_DONTNEED, start, min(SENT_BYTES, len(data) - start))
    stream.close()


def _write_at(descriptor: int, data: memoryview, place: int) -> None:
    """Write all bytes at an offset of a file. Raises OSError. A single `os.pwrite` may write fewer bytes."""
    while data:
        written = os.pwrite(descriptor, data, place)
        data, place = data[written:], place + written


def split_url(url: str) -> tuple[str, str, str]:
    """Return the scheme, the bucket and the path of a URL."""
    scheme, _, rest = url.partition("://")
    bucket, _, path = rest.partition("/")
    return scheme, bucket, path.strip("/")


def _connect(url: str) -> tuple[fs.FileSystem, str]:
    """Open the file system of a URL.

    Spaces and non-ASCII characters in the URL need not be percent-encoded.

    Returns:
        The file system, and the path of the URL in it.
    """
    scheme, bucket, path = split_url(url)
    store = scheme.rstrip(":")  # The URL `s3://` arrives here as `s3:`, because slashes at the end are removed.
    if store in BUCKETS and not bucket:
        raise UserError(f"{store}:// names no bucket: give {store}://BUCKET/PATH")
    try:
        if scheme == "s3":
            return _s3(bucket), f"{bucket}/{path}".rstrip("/")
        if scheme in ("gs", "gcs"):
            return _gcs(), f"{bucket}/{path}".rstrip("/")
        # Of the schemes hdfs and file, only hdfs has options after `?`. Neither has a fragment after `#`.
        kept = string.punctuation.translate({ord(mark): None for mark in ("#" if scheme == "hdfs" else "#?[]")})
        filesystem, root = fs.FileSystem.from_uri(urllib.parse.quote(url, safe=kept))
    except (ValueError, OSError, pa.ArrowException) as error:
        advice = ADVICE.get(scheme) if isinstance(error, OSError) else None
        why = textwrap.shorten(str(error), WHY, placeholder=" …")
        raise UserError(
            f"{url} cannot be opened ({why}): {advice or 'give s3://, gs://, hdfs:// or file:// and a path'}"
        ) from error
    return filesystem, str(root).rstrip("/")


def _s3(bucket: str) -> fs.FileSystem:
    """Open S3 or, if AWS_ENDPOINT_URL is set, a compatible store. Credentials are found by the AWS client library."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        region = "us-east-1" if endpoint else fs.resolve_s3_region(bucket)
    scheme, _, host = (endpoint or "https://").partition("://")
    retry = fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS)
    return fs.S3FileSystem(
        region=region,
        scheme=scheme,
        endpoint_override=host or None,
        retry_strategy=retry,
        allow_delayed_open=True,  # A small file is uploaded by one request instead of three.
    )


def _gcs() -> fs.FileSystem:
    """Open Google Cloud Storage, or the emulator at STORAGE_EMULATOR_HOST."""
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if not emulator:
        return fs.GcsFileSystem(retry_time_limit=GCS_LIMIT)
    scheme, _, host = emulator.rpartition("://")
    return fs.GcsFileSystem(anonymous=True, scheme=scheme or "http", endpoint_override=host, retry_time_limit=GCS_LIMIT)


def _create_s3(filesystem: fs.FileSystem, root: str, path: str, data: bytes) -> bool:
    """Create a new file in S3 by a conditional request: `If-None-Match: *`."""
    try:
        import obstore
    except ImportError as error:
        raise UserError("corpora in S3 need the package obstore: pip install -e '.[s3]'") from error
    bucket, _, prefix = root.partition("/")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    allow: Any = {"allow_http": True} if (endpoint or "").startswith("http://") else None
    store = obstore.store.S3Store(bucket, client_options=allow, **options)
    try:
        obstore.put(store, f"{prefix}/{path}".lstrip("/"), data, mode="create")
    except obstore.exceptions.AlreadyExistsError:
        return False
    except FileNotFoundError as error:
        raise UserError(f"the bucket s3://{bucket} does not exist: create it, or check the URL") from error
    except obstore.exceptions.BaseError as error:
        raise storage_error(OSError(5, str(error)), f"s3://{root}/{path}") from error
    return True


def _create_gcs(filesystem: fs.FileSystem, root: str, path: str, data: bytes) -> bool:
    """Create a new file in GCS with the precondition `if_generation_match=0`: there is no such object."""
    client = _gcs_client()
    from google.api_core.exceptions import GoogleAPIError, PreconditionFailed

    bucket, _, prefix = root.partition("/")
    try:
        client.bucket(bucket).blob(f"{prefix}/{path}".lstrip("/")).upload_from_string(data, if_generation_match=0)
    except PreconditionFailed:
        return False
    except (GoogleAPIError, OSError) as error:
        raise storage_error(OSError(5, str(error)), f"gs://{root}/{path}") from error
    return True


def _gcs_client() -> Any:
    try:
        from google.auth import credentials
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud import storage
    except ImportError as error:
        raise UserError("corpora in gs:// need google-cloud-storage: pip install -e '.[gcs]'") from error
    if "STORAGE_EMULATOR_HOST" not in os.environ:
        try:
            return storage.Client()
        except (DefaultCredentialsError, OSError) as error:  # An unknown project raises OSError.
            why = " ".join(str(error).split())
            raise UserError(f"gs:// cannot be opened ({why}): give application default credentials") from error
    anonymous: Any = credentials.AnonymousCredentials  # untyped
    return storage.Client(project="emulated", credentials=anonymous())


def _create_file(filesystem: fs.FileSystem, root: str, path: str, data: bytes) -> bool:
    """Create a new local file by a hard link, which never replaces an existing file."""
    target = Path(root) / path
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        return True
    except OSError as error:
        raise storage_error(error, f"file://{root}/{path}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _create_by_move(filesystem: fs.FileSystem, root: str, path: str, data: bytes) -> bool:
    """Create a new file by a rename, which HDFS rejects if the target exists."""
    target, temporary = f"{root}/{path}", f"{root}/.{uuid.uuid4().hex}.tmp"
    filesystem.create_dir(target.rpartition("/")[0])
    with filesystem.open_output_stream(temporary, compression=None) as stream:
        stream.write(data)
    try:
        filesystem.move(temporary, target)
    except OSError as error:
        filesystem.delete_file(temporary)
        if filesystem.get_file_info(target).type == fs.FileType.NotFound:
            raise storage_error(error, f"{root}/{path}") from error
        return False
    return True


# By URL scheme: the function that creates a file only if it does not exist. pyarrow has no such function.
CREATORS = {"s3": _create_s3, "gs": _create_gcs, "gcs": _create_gcs, "file": _create_file}
