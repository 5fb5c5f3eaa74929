"""Download one file over HTTP. The file is complete or absent, and an interrupted download can be resumed.

During the download, the file has the name NAME.part. NAME.part.json contains its version on the server (ETag,
Last-Modified, length). The next attempt requests the remaining bytes (Range) of the same version (If-Range), as defined
in RFC 9110, sections 13.1.5 and 14. If the response does not continue the partial file, the download starts again from
the first byte.

Messages contain the standard's phrase for a status. They never contain text from the server, because that may be
anything.
"""

import email.utils
import fcntl
import http
import http.client
import itertools
import json
import os
import re
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, BinaryIO

from manifests.files import write_atomic

RETRIED = frozenset({403, 429, 500, 502, 503, 504})  # Common Crawl's servers answer 403 to too many requests
MAX_RETRY_AFTER = 3600.0  # seconds; if a server requests a longer wait, the download fails
CHUNK_BYTES = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The number of attempts for a file, and the waits between them.

    Attributes:
        attempts: largest number of attempts.
        backoff: seconds before the second attempt. The wait is doubled before each further attempt.
        max_wait: longest wait in seconds.
        timeout: seconds without data after which a connection is closed.
    """

    attempts: int = 8
    backoff: float = 2.0
    max_wait: float = 120.0
    timeout: float = 60.0

    def wait(self, failures: int) -> float:
        """Return the seconds to wait after the given number of failed attempts (from 1)."""
        return float(min(self.backoff * 2 ** min(failures - 1, 40), self.max_wait))


class RetryableError(Exception):
    """An attempt failed, and another attempt may succeed. `restart`: the partial file must be emptied before it."""

    def __init__(self, reason: str, status: int = 0, retry_after: float = 0.0, restart: bool = False) -> None:
        super().__init__(reason)
        self.status, self.retry_after, self.restart = status, retry_after, restart


class DownloadFailedError(Exception):
    """A file cannot be downloaded. `status` is the last HTTP status, or 0 if there was no response."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to download.

    Attributes:
        url: the URL.
        target: path below the output folder, with forward slashes.
        max_bytes: largest accepted size; None for no limit.
    """

    url: str
    target: str
    max_bytes: int | None = None


class State(StrEnum):
    """Result of a download."""

    FETCHED = "fetched"
    PRESENT = "already there"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """The result for one file. For a failure, `reason` and `status` (the last HTTP status, or 0) describe it."""

    file: RemoteFile
    state: State
    reason: str = ""
    status: int = 0


@dataclass(slots=True)
class Transfer:
    """The progress of one file.

    Attributes:
        file: the file.
        written: number of bytes on disk.
        size: number of bytes of the complete file; None if it is unknown.
        received: number of bytes that this process has received.
    """

    file: RemoteFile
    written: int = 0
    size: int | None = None
    received: int = 0


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()  # otherwise the body of the redirect would be read completely, whatever its length
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def new_opener() -> urllib.request.OpenerDirector:
    """Return an opener that supports only HTTP and HTTPS, so that redirects to `file:` or `ftp:` URLs fail."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener


@dataclass(slots=True)
class Session:
    """The state that all transfers of one call share.

    Attributes:
        policy: number of attempts, and the waits between them.
        log: receives a message for each wait.
        stop: ends all transfers when it is set.
        not_before: from host to the earliest time of the next request. Retry-After applies to all threads.
        opener: sends the requests.
    """

    policy: RetryPolicy
    log: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    not_before: dict[str, float] = field(default_factory=dict)
    opener: urllib.request.OpenerDirector = field(default_factory=new_opener)


@dataclass(frozen=True, slots=True)
class _Version:
    """The version of a file on its server. A partial file is the beginning of one version."""

    url: str
    etag: str | None
    last_modified: str | None
    size: int | None

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong ETag, or else Last-Modified (RFC 9110, section 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def fetch(transfer: Transfer, folder: Path, session: Session) -> DownloadResult:
    """Download one file to `folder / target`.

    Errors of the server, the disk or the file name are part of the result. They are not raised.

    Args:
        transfer: the file. Its progress is updated.
        folder: the output folder.
        session: the state that all transfers share.
    """
    target = folder / transfer.file.target
    part, notes = Path(f"{target}.part"), Path(f"{target}.part.json")
    try:
        if target.exists():
            return _report_present(transfer.file, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            if not lock(file):
                return DownloadResult(transfer.file, State.FAILED, "another process is fetching it")
            if target.exists():  # the other process ended between the first check and the lock
                part.unlink(missing_ok=True)
                return _report_present(transfer.file, target)
            try:
                _retry(transfer, file, notes, session)
                file.flush()
                os.fsync(file.fileno())  # so that after a power failure the final name never lacks bytes
                part.replace(target)
            finally:
                if not file.tell() or target.exists():
                    part.unlink(missing_ok=True)
                    notes.unlink(missing_ok=True)
    except DownloadFailedError as error:
        return DownloadResult(transfer.file, State.FAILED, str(error), error.status)
    except OSError as error:
        return DownloadResult(transfer.file, State.FAILED, f"cannot be written: {error.strerror or error}")
    return DownloadResult(transfer.file, State.FETCHED)


def _report_present(file: RemoteFile, target: Path) -> DownloadResult:
    if target.is_file():
        return DownloadResult(file, State.PRESENT)
    return DownloadResult(file, State.FAILED, "its name is taken by something that is not a file")


def lock(file: IO[bytes]) -> bool:
    """Lock an open file. Return False if another process is writing it, or has removed or renamed it since.

    On a file system without locks, no other process is assumed to write the file.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))  # noqa: PTH116  # `name` is text
    except FileNotFoundError:
        return False


def _retry(transfer: Transfer, part: BinaryIO, notes: Path, session: Session) -> None:
    """Repeat attempts until the partial file is complete.

    Args:
        transfer: the file to download.
        part: the open partial file.
        notes: path of the JSON file with the version of the partial file.
        session: the state that all transfers share.

    Raises:
        DownloadFailedError: the file cannot be downloaded.
        OSError: the partial file cannot be written.
    """
    host, policy = _host_of(transfer.file.url), session.policy
    for attempt in itertools.count(1):
        session.stop.wait(max(session.not_before.get(host, 0.0) - time.monotonic(), 0.0))
        if session.stop.is_set():
            raise DownloadFailedError("stopped")
        try:
            _attempt(transfer, part, notes, session)
            return
        except RetryableError as error:
            if error.restart:
                _empty(part)
            if attempt == policy.attempts:
                raise DownloadFailedError(f"{error}; {attempt} attempts", error.status) from error
            if error.retry_after > MAX_RETRY_AFTER:
                reason = f"{error}; the server asks to wait {error.retry_after:,.0f} s"
                raise DownloadFailedError(reason, error.status) from error
            wait = policy.wait(attempt)
            session.not_before[host] = max(session.not_before.get(host, 0.0), time.monotonic() + error.retry_after)
            session.log(f"{transfer.file.target}: {error}; next attempt in {max(wait, error.retry_after):.0f} s")
            session.stop.wait(wait)


def _attempt(transfer: Transfer, part: BinaryIO, notes: Path, session: Session) -> None:
    """Send one request and append the response's body to the partial file. The parameters are those of `_retry`."""
    url = transfer.file.url
    length: int | None
    offset = part.seek(0, os.SEEK_END)
    known = _read_notes(notes, url) if offset else None
    if known and offset == known.size:
        return  # an earlier process was killed after it had written the last byte
    validator = known.validator if known and (known.size is None or offset < known.size) else None
    headers = {"User-Agent": "teratoken", "Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    with _open_url(session, url, headers) as response:
        if known and validator and response.status == 206:
            version, length = _continue_version(response, known, offset)
        elif response.status == 200:
            _empty(part)
            offset, length = 0, None if response.chunked else _parse_count(response.headers.get("Content-Length"))
            version = _Version(url, *_read_validators(response), length)
        else:
            raise DownloadFailedError(_describe_status(response.status), response.status)
        _check_size(version.size, transfer.file)
        write_atomic(notes, json.dumps(asdict(version)).encode())
        transfer.written, transfer.size = offset, version.size
        _copy(response, length, part, transfer, session)
    if version.size is not None and transfer.written != version.size:
        raise RetryableError(f"broke off after {transfer.written:,} of {version.size:,} bytes")


def _open_url(session: Session, url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Send a GET request and return the response. Its body is not read."""
    if not url.lower().startswith(("http://", "https://")):
        raise DownloadFailedError("not an http or https URL")
    try:
        request = urllib.request.Request(url, headers=headers)
        response: http.client.HTTPResponse = session.opener.open(request, timeout=session.policy.timeout)
        return response
    except urllib.error.HTTPError as error:
        error.close()
        reason = _describe_status(error.code)
        if error.code in RETRIED:
            raise RetryableError(reason, error.code, parse_retry_after(error.headers.get("Retry-After"))) from error
        if error.code == 416 and "Range" in headers:
            raise RetryableError("the partial file does not fit the server's", error.code, restart=True) from error
        raise DownloadFailedError(reason, error.code) from error
    except (http.client.InvalidURL, ValueError) as error:
        raise DownloadFailedError("not a valid URL") from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
            raise DownloadFailedError("the server's certificate cannot be verified") from error
        raise RetryableError(_describe_error(error, session.policy)) from error


def _copy(
    response: http.client.HTTPResponse, length: int | None, part: BinaryIO, transfer: Transfer, session: Session
) -> None:
    """Append `length` bytes of the response's body to the partial file, or the whole body if `length` is None."""
    left = length
    while left != 0:
        try:
            chunk = response.read1(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
        except (OSError, http.client.HTTPException, ValueError) as error:
            part.flush()
            raise RetryableError(_describe_error(error, session.policy)) from error
        if not chunk:
            return
        part.write(chunk)
        left = None if left is None else left - len(chunk)
        transfer.written += len(chunk)
        transfer.received += len(chunk)
        _check_size(transfer.written, transfer.file)
        if session.stop.is_set():
            raise DownloadFailedError("stopped")


def _check_size(size: int | None, file: RemoteFile) -> None:
    if size is not None and file.max_bytes is not None and size > file.max_bytes:
        raise DownloadFailedError(f"more than {file.max_bytes:,} bytes, too large for such a file")


def _continue_version(response: http.client.HTTPResponse, known: _Version, offset: int) -> tuple[_Version, int]:
    """Check that a 206 response continues a partial file.

    Args:
        response: the response.
        known: the version of the partial file.
        offset: size of the partial file.

    Returns:
        The version with its size, and the number of bytes in the response.

    Raises:
        RetryableError: the response does not continue the partial file.
    """
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match:
        raise RetryableError("a partial response without a valid Content-Range", restart=True)
    start, end = int(match[1]), int(match[2])
    size = known.size if match[3] == "*" else int(match[3])
    length = end - start + 1
    if start != offset or size is None or not start <= end < size:
        raise RetryableError("a partial response that does not continue the file", restart=True)
    if _parse_count(response.headers.get("Content-Length")) not in (None, length):
        raise RetryableError("a partial response that contradicts itself", restart=True)
    etag, last_modified = _read_validators(response)
    current = (etag or known.etag, last_modified or known.last_modified)
    if current != (known.etag, known.last_modified) or known.size not in (None, size):
        raise RetryableError("the file has changed on the server", restart=True)
    return _Version(known.url, known.etag, known.last_modified, size), length


def _read_validators(response: http.client.HTTPResponse) -> tuple[str | None, str | None]:
    """Return ETag and Last-Modified of a response. A value is None if it is missing or cannot be sent in a request."""
    values = (response.headers.get("ETag"), response.headers.get("Last-Modified"))
    etag, last_modified = (value if value and value.isascii() and value.isprintable() else None for value in values)
    return etag, last_modified


def _describe_status(code: int) -> str:
    if 300 <= code < 400:
        return f"HTTP {code}, a redirect in circles, too long, or without a valid target"
    known = code in {int(status) for status in http.HTTPStatus}
    return f"HTTP {code} {http.HTTPStatus(code).phrase}" if known else f"HTTP {code}"


def _describe_error(error: BaseException, policy: RetryPolicy) -> str:
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return f"no data for {policy.timeout:g} s"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return f"connection broken ({type(cause).__name__})"


def parse_retry_after(value: str | None) -> float:
    """Return the seconds to wait for a Retry-After header, which is a number or a date (RFC 9110, section 10.2.3).

    Returns 0 if the header is missing or invalid.
    """
    if value is None:
        return 0.0
    seconds = _parse_count(value)
    if seconds is not None:
        return float(seconds)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _parse_count(value: str | None) -> int | None:
    return int(value) if value is not None and _NUMBER.fullmatch(value.strip()) else None


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _host_of(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).netloc
    except ValueError:
        return ""


def _read_notes(path: Path, url: str) -> _Version | None:
    """Read the version of a partial file. Return None if the JSON file is missing, damaged or for another URL."""
    try:
        version = _Version(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    texts = (version.etag, version.last_modified)
    sound = all(text is None or isinstance(text, str) for text in texts) and isinstance(version.size, int | None)
    return version if sound and version.url == url else None
