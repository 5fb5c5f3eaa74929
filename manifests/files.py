"""Files of this machine: written whole or not at all, linked, listed, hashed the same everywhere; and its cores."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filters.errors import UserError


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON of a value: UTF-8, keys sorted, no spaces, a newline at the end.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON does not have.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hexadecimal."""
    return sha256_bytes(canonical_json(value))


def version_of(path: Path) -> str:
    """Return what changes whenever a file is written: its size and time of change. Raises OSError."""
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns}"


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path` that becomes `path` when the block ends well, and is deleted if it does not.

    Two writers of one path do not disturb each other: the last rename wins, and both wrote the same bytes. With
    `durable` the bytes are on the disk before the name is, so that a power cut leaves all of them or no such name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        yield temporary
        if durable:
            sync_path(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Yield a folder beside `output` that becomes it when the block ends well, and is deleted when it does not.

    Raises:
        UserError: a file cannot be written, or one that is read for it cannot be read: it names the file.
    """
    output = output.absolute()
    temporary = output.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(output)
    except OSError as error:
        raise _name_failure(error, temporary, output) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _name_failure(error: OSError, temporary: Path, output: Path) -> UserError:
    """Return the error for a read or write that failed while a folder was made under a temporary name."""
    named = error.filename if isinstance(error.filename, str | bytes | os.PathLike) else ""
    file, why = Path(os.fsdecode(named)).absolute() if named else temporary, error.strerror or error
    if not named and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"a read or write failed while {output} was made ({why}): check the disks, then try again")
    if not file.is_relative_to(temporary) and not temporary.is_relative_to(file):
        return unreadable(file, why, "check the path, the disk and the permissions")
    place = output / file.relative_to(temporary) if file.is_relative_to(temporary) else file
    return UserError(f"{place} cannot be written ({why}): make room there, or give another folder")


def sync_path(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, durable: bool = False) -> None:
    """Write bytes to a path that is never seen half-written; `durable` as of `atomic_path`."""
    if path.exists() and not path.is_file():  # a device such as /dev/null, which root could replace by a file
        path.write_bytes(data)
        return
    with atomic_path(path, durable) as temporary:
        temporary.write_bytes(data)


def is_temporary(path: Path) -> bool:
    """Return True if a file was left by an `atomic_path` whose process was killed."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def unreadable(path: Path | str, why: object, advice: str) -> UserError:
    """Return the error for a file that cannot be read: one line that ends with what to do."""
    return UserError(f"{path} cannot be read ({' '.join(str(why).split())}): {advice}")


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, which must be free, or copy it where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def relative_files(root: Path) -> list[str]:
    """Return every file below a folder, as sorted paths with forward slashes, relative to it; none if it is no folder.

    Raises:
        OSError: a folder cannot be listed, so its files may not be taken for missing ones.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    start = len(str(root).rstrip("/")) + 1
    return sorted(f"{folder}/{name}"[start:] for folder, _, names in os.walk(root, onerror=refuse) for name in names)


def is_inner_path(path: str) -> bool:
    """Return True for a path with forward slashes that leads to a file below the folder it is relative to."""
    return path not in ("", ".") and not path.startswith("/") and ".." not in path.split("/")


def usable_cores() -> int:
    """Return the number of cores that this process may use, which a container or `taskset` may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
