"""Read the members of a zip archive (PKWARE's APPNOTE 6.3), one at a time, up to a limit of the size."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

from filters.formats.stored import Stored, StoredFile
from filters.formats.tar import ArchiveMember, is_safe_path
from filters.reasons import Reason

MAGIC = b"PK"
# The errors that zipfile raises on malformed archives.
ZIP_ERRORS = (
    zipfile.BadZipFile, EOFError, IndexError, KeyError, MemoryError, NotImplementedError, OSError, OverflowError,
    RuntimeError, UnicodeError, ValueError, struct.error, zlib.error,
)  # fmt: skip
_ENCRYPTED, _LINK = 0x1, 0o12


def read_members(stored: Stored, limit: int, total: int, is_wanted: Callable[[str], bool]) -> Iterator[ArchiveMember]:
    """Yield the members of an archive in the order of the central directory. Never raises.

    `ArchiveMember.end` counts compressed bytes; a member of compressed size 0 counts as one byte.

    Args:
        stored: The archive.
        limit: The size in bytes of the largest file whose data is read.
        total: The number of decoded bytes after which the rest of the archive is not read.
        is_wanted: Returns True for the names of files whose data is wanted.
    """
    try:
        archive = zipfile.ZipFile(io.BufferedReader(StoredFile(stored)))
        infos = archive.infolist()
    except ZIP_ERRORS as error:
        yield ArchiveMember("", 0, 0, len(stored), b"", Reason.CORRUPT_RECORD, f"no zip archive: {error}")
        return
    commit = archive.comment.decode("ascii", "replace")
    commit = commit if len(commit) in (40, 64) and commit.isalnum() else ""
    end = decoded = 0
    for info in infos:
        end += max(info.compress_size, 1)
        decoded += info.file_size
        name = info.filename.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        problem, detail = _check(info, name, limit)
        is_folder = name.endswith("/")  # ZipInfo.is_dir raises an error if the name is empty.
        if decoded > total:
            detail = f"over {total} decoded bytes: the rest of the archive is not read"
            yield ArchiveMember(name, 0, 0, end, b"", Reason.TOO_LARGE, detail)
            return
        data = b""
        if problem is None and not is_folder and is_wanted(name):
            try:
                with archive.open(info) as file:
                    data = file.read(info.file_size + 1)
            except ZIP_ERRORS as error:
                problem, detail = Reason.CORRUPT_RECORD, f"a member that cannot be read: {error}"
        yield ArchiveMember(name, 0, info.file_size, end, data, problem, detail, is_folder, commit)


def _check(info: zipfile.ZipInfo, name: str, limit: int) -> tuple[Reason | None, str]:
    """Return the reason and detail why a member cannot be used, or (None, "")."""
    if info.flag_bits & _ENCRYPTED:
        return Reason.ENCRYPTED, name[:200]
    if info.external_attr >> 28 == _LINK:
        return Reason.UNSAFE_PATH, f"a symbolic link: {name[:200]}"
    if not is_safe_path(name):
        return Reason.UNSAFE_PATH, name[:200]
    return (Reason.TOO_LARGE, f"{info.file_size} bytes") if info.file_size > limit else (None, "")
