"""Local files: atomic writes, links, listings and hashes; and the number of usable cores."""

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
    """Return the canonical JSON of a value: UTF-8, sorted keys, no spaces, a newline at the end.

    Raises:
        ValueError: the value contains NaN or an infinity, which JSON cannot represent.
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
    """Return the size and modification time of a file, which change when it is written. Raises OSError."""
    state = path.stat()
    return f"{state.st_size} {state.st_mtime_ns}"


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` if the block succeeds, and deleted if it fails.

    Two processes may write the same path at the same time: the last rename wins, and both write the same bytes.

    Args:
        path: the final path. Its folder is created.
        durable: flush the bytes to the disk before the rename, so that after a power cut the file is either complete or
            does not exist.
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
    """Yield a temporary folder that is renamed to `output` if the block succeeds, and deleted if it fails.

    Raises:
        UserError: an OSError occurred in the block. The message names the file that cannot be read or written.
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
    """Return the UserError for an OSError in the block of `new_folder`; temporary paths become final paths."""
    named = error.filename if isinstance(error.filename, str | bytes | os.PathLike) else ""
    file, why = Path(os.fsdecode(named)).absolute() if named else temporary, error.strerror or error
    if not named and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UserError(f"a read or write failed while {output} was made ({why}): check the disks, then try again")
    if not file.is_relative_to(temporary) and not temporary.is_relative_to(file):
        return unreadable(file, why, "check the path, the disk and the permissions")
    place = output / file.relative_to(temporary) if file.is_relative_to(temporary) else file
    return UserError(f"{place} cannot be written ({why}): make room there, or give another folder")


def sync_path(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk (fsync). Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, durable: bool = False) -> None:
    """Write bytes to a path atomically; `durable` as in `atomic_path`."""
    if path.exists() and not path.is_file():  # A rename by root would replace a device such as /dev/null.
        path.write_bytes(data)
        return
    with atomic_path(path, durable) as temporary:
        temporary.write_bytes(data)


def is_temporary(path: Path) -> bool:
    """Return True for a temporary file of `atomic_path`, which remains if the process is killed."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def unreadable(path: Path | str, why: object, advice: str) -> UserError:
    """Return the UserError for a file that cannot be read, as one line: the path, the cause, and advice."""
    return UserError(f"{path} cannot be read ({' '.join(str(why).split())}): {advice}")


def link_or_copy(source: Path, target: Path) -> None:
    """Create a hard link to a file, or copy it if the file system has no hard links. `target` must not exist."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def relative_files(root: Path) -> list[str]:
    """Return the sorted relative paths, with forward slashes, of all files below a folder.

    The list is empty if `root` does not exist or is not a folder.

    Raises:
        OSError: a folder cannot be listed. Its files must not be treated as missing.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    start = len(str(root).rstrip("/")) + 1
    return sorted(f"{folder}/{name}"[start:] for folder, _, names in os.walk(root, onerror=refuse) for name in names)


def is_inner_path(path: str) -> bool:
    """Return True if a relative path with forward slashes stays inside its folder: no absolute path and no `..`."""
    return path not in ("", ".") and not path.startswith("/") and ".." not in path.split("/")


def usable_cores() -> int:
    """Return the number of cores that this process may use. A container or `taskset` may limit it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
