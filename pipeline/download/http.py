"""One file over HTTP: whole or absent, and gone on with where it broke off.

A file grows as NAME.part; NAME.part.json holds what the server said of it (ETag, Last-Modified, length). A new attempt
asks for the rest (Range) of that very version (If-Range), as RFC 9110, sections 13.1.5 and 14, has it; whatever in the
answer does not fit what is there already means a start from the first byte.
"""

import fcntl
import http.client
import json
import os
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from manifests.files import write_atomic
from pipeline.download.request import AgainError, GiveUpError, Patience, new_opener, number, open_url, status_text, why

LONGEST_RETRY_AFTER = 3600.0
"""seconds; a server that asks for a longer wait is left alone"""
CHUNK_BYTES = 1 << 18
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A URL, where its file belongs below the output folder (forward slashes), and how many bytes at most are taken."""

    url: str
    target: str
    most: int | None = None


class State(StrEnum):
    """What became of a file."""

    FETCHED = "fetched"
    PRESENT = "already there"
    FAILED = "could not be had"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a file; `reason` and `status` (the last HTTP status, 0 for none) are of failures."""

    wanted: Wanted
    state: State
    reason: str = ""
    status: int = 0


@dataclass(slots=True)
class Transfer:
    """A file under way, for whoever watches: bytes it has, bytes it will have (None: unknown), bytes received."""

    wanted: Wanted
    have: int = 0
    size: int | None = None
    received: int = 0


@dataclass(slots=True)
class Session:
    """What the transfers of one run share. `say` gets a line for every wait; setting `stop` ends all transfers."""

    patience: Patience
    say: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    not_before: dict[str, float] = field(default_factory=dict)
    """by host: a server's Retry-After is meant for all our threads, not only for the one it answered"""
    opener: urllib.request.OpenerDirector = field(default_factory=new_opener)


@dataclass(frozen=True, slots=True)
class _Version:
    """Which bytes a partial file is the beginning of."""

    url: str
    etag: str | None
    last_modified: str | None
    size: int | None

    @property
    def validator(self) -> str | None:
        """For If-Range, which takes no weak ETag (RFC 9110, section 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def fetch(transfer: Transfer, folder: Path, session: Session) -> Outcome:
    """Fetch one file to `folder / target`; raises nothing for anything that a server, a disk or a file name does."""
    target = folder / transfer.wanted.target
    part, notes = Path(f"{target}.part"), Path(f"{target}.part.json")
    try:
        if target.exists():
            return _found(transfer.wanted, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            if not _lock(file):
                return Outcome(transfer.wanted, State.FAILED, "another process is fetching it")
            if target.exists():  # that other process ended between our first look and the lock
                part.unlink(missing_ok=True)
                return _found(transfer.wanted, target)
            try:
                _persist(transfer, file, notes, session)
                file.flush()
                part.replace(target)
            finally:
                if not file.tell() or target.exists():
                    part.unlink(missing_ok=True)
                    notes.unlink(missing_ok=True)
    except GiveUpError as error:
        return Outcome(transfer.wanted, State.FAILED, str(error), error.status)
    except OSError as error:
        return Outcome(transfer.wanted, State.FAILED, f"cannot be written: {error.strerror or error}")
    return Outcome(transfer.wanted, State.FETCHED)


def _found(wanted: Wanted, target: Path) -> Outcome:
    if target.is_file():
        return Outcome(wanted, State.PRESENT)
    return Outcome(wanted, State.FAILED, "something that is no file has its name")


def _lock(file: BinaryIO) -> bool:
    """Whether this process alone writes the file. A file system without locks is trusted."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _persist(transfer: Transfer, part: BinaryIO, notes: Path, session: Session) -> None:
    """Attempt after attempt until the part is whole. Raises GiveUpError, and OSError when it cannot be written."""
    host = _host(transfer.wanted.url)
    for attempt in range(1, session.patience.attempts + 1):
        session.stop.wait(max(session.not_before.get(host, 0.0) - time.monotonic(), 0.0))
        if session.stop.is_set():
            raise GiveUpError("stopped")
        try:
            return _attempt(transfer, part, notes, session)
        except AgainError as again:
            if again.anew:
                _empty(part)
            if attempt == session.patience.attempts:
                raise GiveUpError(f"{again}; {attempt} attempts", again.status) from again
            if again.retry_after > LONGEST_RETRY_AFTER:
                reason = f"{again}; the server asks to wait {again.retry_after:,.0f} s"
                raise GiveUpError(reason, again.status) from again
            wait = session.patience.wait(attempt)
            session.not_before[host] = max(session.not_before.get(host, 0.0), time.monotonic() + again.retry_after)
            session.say(f"{transfer.wanted.target}: {again}; again in {max(wait, again.retry_after):.0f} s")
            session.stop.wait(wait)
    raise GiveUpError("no attempt was allowed")


def _attempt(transfer: Transfer, part: BinaryIO, notes: Path, session: Session) -> None:
    """One request, and its body into the part. Raises AgainError, GiveUpError, and OSError from writing."""
    url = transfer.wanted.url
    length: int | None
    offset = part.seek(0, os.SEEK_END)
    known = _read_notes(notes, url) if offset else None
    if known and offset == known.size:
        return  # killed between the last byte and the renaming
    validator = known.validator if known and (known.size is None or offset < known.size) else None
    headers = {"User-Agent": "teratoken", "Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    with open_url(session.opener, url, headers, session.patience.silence) as response:
        if known and validator and response.status == 206:
            version, length = _continued(response, known, offset)
        elif response.status == 200:
            _empty(part)
            offset, length = 0, None if response.chunked else number(response.headers.get("Content-Length"))
            version = _Version(url, *_validators(response), length)
        else:
            raise GiveUpError(status_text(response.status), response.status)
        _check_size(version.size, transfer.wanted)
        write_atomic(notes, json.dumps(asdict(version)).encode())
        transfer.have, transfer.size = offset, version.size
        _copy(response, length, part, transfer, session)
    if version.size is not None and transfer.have != version.size:
        raise AgainError(f"broke off after {transfer.have:,} of {version.size:,} bytes")


def _copy(
    response: http.client.HTTPResponse, length: int | None, part: BinaryIO, transfer: Transfer, session: Session
) -> None:
    """A body into the part: `length` bytes of it, or to its end."""
    left = length
    while left != 0:
        try:
            chunk = response.read1(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
        except (OSError, http.client.HTTPException, ValueError) as error:
            part.flush()
            raise AgainError(why(error, session.patience.silence)) from error
        if not chunk:
            return
        part.write(chunk)
        left = None if left is None else left - len(chunk)
        transfer.have += len(chunk)
        transfer.received += len(chunk)
        _check_size(transfer.have, transfer.wanted)
        if session.stop.is_set():
            raise GiveUpError("stopped")


def _check_size(size: int | None, wanted: Wanted) -> None:
    if size is not None and wanted.most is not None and size > wanted.most:
        raise GiveUpError(f"more than {wanted.most:,} bytes, which is no such file")


def _continued(response: http.client.HTTPResponse, known: _Version, offset: int) -> tuple[_Version, int]:
    """The version and the number of bytes that a 206 goes on with; raises AgainError where it is not the rest of what
    is there."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match:
        raise AgainError("a partial answer that does not say of what", anew=True)
    start, end = int(match[1]), int(match[2])
    size = known.size if match[3] == "*" else int(match[3])
    length = end - start + 1
    if start != offset or size is None or not start <= end < size:
        raise AgainError("a partial answer that is not the rest", anew=True)
    if number(response.headers.get("Content-Length")) not in (None, length):
        raise AgainError("a partial answer that contradicts itself", anew=True)
    etag, last_modified = _validators(response)
    said = (etag or known.etag, last_modified or known.last_modified)
    if said != (known.etag, known.last_modified) or known.size not in (None, size):
        raise AgainError("the file has changed on the server", anew=True)
    return _Version(known.url, known.etag, known.last_modified, size), length


def _validators(response: http.client.HTTPResponse) -> tuple[str | None, str | None]:
    """ETag and Last-Modified, where they can be sent back."""
    values = (response.headers.get("ETag"), response.headers.get("Last-Modified"))
    etag, last_modified = (value if value and value.isascii() and value.isprintable() else None for value in values)
    return etag, last_modified


def _empty(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _host(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).netloc
    except ValueError:
        return ""


def _read_notes(path: Path, url: str) -> _Version | None:
    """What a partial file's notes say; None when they are missing, damaged or about another URL."""
    try:
        version = _Version(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    texts = (version.etag, version.last_modified)
    sound = all(text is None or isinstance(text, str) for text in texts) and isinstance(version.size, int | None)
    return version if sound and version.url == url else None
