"""Local copies of files in object stores. A mirror is the local folder of a remote corpus: a cache of its files.

All processes of a machine may share a mirror. For each file, the mirror keeps a record of its size, modification time
and hash. A file is valid if its record contains the expected hash and the file has not changed since the record was
written, so an outdated file of the same name is never used.
"""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from filters.errors import UserError
from filters.formats.stored import FetchedFile, Stored, open_stored
from manifests.files import canonical_json, is_inner_path, relative_files, sha256_bytes, write_atomic
from manifests.storage import Storage, StorageError, connect, storage_error

FILE = "manifest.json"
MARK = "remote.json"  # The file in a mirror that contains the URL of the corpus.
RECORDS = ".checked"  # The folder of the records of files: size, modification time, hash.
INPUTS = "inputs"  # The folder of local copies of dumps, models and lists, beside the mirrors.
UNKNOWN = "-"  # Replaces the hash in the record of a file that was fetched without an expected hash.
SCRATCH_BYTES = 64 << 30  # The default limit for the local copies on a machine.
TRIM_SECONDS = 60.0  # Minimum time between two scans of all local copies. A scan of many files is slow.
CHANGED = "has changed or gone since the run began: give the same command again, which reads it anew"
# Bytes at each end of an Arrow file that are copied first. They contain all metadata on the positions of the columns.
END_BYTES = 16 << 20
THREADS = 32  # Concurrent transfers. A transfer waits for the network most of the time.


def is_url(place: str) -> bool:
    """Return True for a URL, False for a local path."""
    return "://" in place


@dataclass(frozen=True)
class Mirror:
    """A corpus in an object store, and the local folder that caches its files.

    Attributes:
        folder: the local folder, which contains `remote.json`.
        storage: the store of the corpus.
    """

    folder: Path
    storage: Storage

    def fetch(self, path: str, sha256: str = "") -> Path:
        """Return the local path of a file. The file is downloaded if there is no valid local copy.

        Args:
            path: the path of the file below the corpus.
            sha256: the expected hash; if it is empty, any local copy is valid.

        Raises:
            FileNotFoundError: the file does not exist.
            StorageError: the file cannot be read, or has another hash.
        """
        if not self.has_copy(path, sha256):
            self.download(path, sha256)
            record(self.folder, path, sha256 or UNKNOWN)
        return self.folder / path

    def publish(self, path: str, sha256: str = "") -> None:
        """Upload a file of the local folder, and record its hash if `sha256` is given."""
        self.storage.publish(self.folder / path, path)
        record(self.folder, path, sha256 or UNKNOWN)

    def push(self, paths: Iterable[str]) -> None:
        """Upload files of the local folder in the given order. Paths without a local file are skipped."""
        for path in paths:
            if (self.folder / path).is_file():
                self.storage.publish(self.folder / path, path)

    def pull(self, folder: str) -> None:
        """Replace the contents of a local folder by the contents of the same folder in the store."""
        stored = [entry.path for entry in self.storage.list_files(folder)]
        for relative in relative_files(self.folder / folder):
            (self.folder / folder / relative).unlink()
        self.fetch_all(stored)

    def fetch_all(self, paths: Iterable[str]) -> None:
        """Download the files that have no local copy. Files that do not exist in the store are skipped."""

        def fetch(path: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self.download(path)

        missing = [path for path in paths if not (self.folder / path).is_file()]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fetch, missing))

    def download(self, path: str, sha256: str = "") -> None:
        """Download a file and replace the local copy.

        Raises:
            FileNotFoundError: the file does not exist.
            StorageError: the file cannot be read, or has another hash.
            UserError: the path leads out of the folder. The name of an object, or a path in an untrusted manifest, may
                do so.
        """
        if not is_inner_path(path) or "//" in path or "\0" in path:  # A file system cannot represent "//" and "\0".
            raise UserError(f"{self.storage.url}/{path} is no name of a file of a corpus: use another corpus")
        self.storage.download(path, self.folder / path, sha256)

    def has_copy(self, path: str, sha256: str = "") -> bool:
        """Return True if there is a local copy of a file whose recorded hash begins with `sha256`."""
        return (self.folder / path).is_file() and (is_recorded(self.folder, path, sha256) or not sha256)


def record(folder: Path, path: str, mark: str) -> None:
    """Write the record of a file: its size, its modification time, and a mark.

    Args:
        folder: the folder.
        path: the path of the file below the folder.
        mark: the hash or the version of the file, without spaces.
    """
    state = (folder / path).stat()
    write_atomic(folder / RECORDS / path, f"{state.st_size} {state.st_mtime_ns} {mark}".encode())


def is_recorded(folder: Path, path: str, mark: str) -> bool:
    """Return True if the mark in a file's record begins with `mark` and the file has not changed since then.

    If so, the time of last use of the file is updated, so that `trim` removes other files first.
    """
    try:
        state, known = (folder / path).stat(), (folder / RECORDS / path).read_text("ascii")
        if not known.startswith(f"{state.st_size} {state.st_mtime_ns} {mark}"):
            return False
        os.utime(folder / RECORDS / path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    return True


def trim(folder: Path, most: int = SCRATCH_BYTES) -> None:
    """Remove recorded files, the least recently used first, until at most `most` bytes or one file remain.

    If a file is removed before a task opens it, the task is repeated and downloads the file again.
    """
    found = []
    for relative in relative_files(folder / RECORDS):
        path, noted = folder / relative, folder / RECORDS / relative
        try:
            found.append((noted.stat().st_mtime_ns, path.stat().st_size, path))
        except FileNotFoundError:
            noted.unlink(missing_ok=True)
    left = sum(size for _, size, _ in found)
    for _, size, path in sorted(found)[:-1]:
        if left <= most:
            return
        path.unlink(missing_ok=True)
        left -= size


def trim_if_due(folder: Path) -> None:
    """Trim a folder, unless a process trimmed it within the last `TRIM_SECONDS`."""
    last = folder / ".trimmed"
    if not last.exists() or time.time() - last.stat().st_mtime > TRIM_SECONDS:
        write_atomic(last, b"")
        trim(folder)


def mirror_folder(url: str, cache: Path | None = None) -> Path:
    """Return the local folder for the corpus at a URL, below `cache` or, if `cache` is None, the scratch folder."""
    return (cache or _scratch()) / sha256_bytes(url.rstrip("/").encode())[:16]


def _scratch() -> Path:
    """Return the folder named by TERATOKEN_SCRATCH, or else a folder of this user in the temporary folder."""
    named = os.environ.get("TERATOKEN_SCRATCH")
    folder = Path(named or f"{tempfile.gettempdir()}/teratoken-{os.getuid()}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_mirror(folder: Path, url: str) -> Mirror:
    """Return the mirror of the corpus at a URL in a local folder. The folder is created if necessary."""
    if not (folder / MARK).is_file():
        write_atomic(folder / MARK, canonical_json({"url": url.rstrip("/")}))
    return Mirror(folder, connect(url.rstrip("/")))


@lru_cache(maxsize=64)
def mirror_of(corpus: Path) -> Mirror | None:
    """Return the mirror of a local folder; None if the folder is not part of a mirror.

    Args:
        corpus: the folder of a corpus, or the folder `generations/<number>` of an append.
    """
    for folder, below in ((corpus, ""), (corpus.parent.parent, f"/{corpus.parent.name}/{corpus.name}")):
        try:
            url = str(json.loads((folder / MARK).read_bytes())["url"])
        except (FileNotFoundError, NotADirectoryError):
            continue
        return Mirror(corpus, connect(f"{url}{below}"))
    return None


def place_of(corpus: Path) -> str:
    """Return the name of a corpus for messages: its URL, or its local path."""
    mirror = mirror_of(corpus.absolute())
    return mirror.storage.url if mirror is not None else str(corpus)


def fetch(corpus: Path, path: str) -> Path:
    """Return the local path of a file of a corpus. If the corpus is in an object store, the file is downloaded.

    If the file does not exist, the path is returned nevertheless, and opening it raises FileNotFoundError.
    """
    mirror = mirror_of(corpus)
    if mirror is not None:
        with contextlib.suppress(FileNotFoundError):
            mirror.fetch(path)
    return corpus / path


@contextlib.contextmanager
def stored_copy(corpus: Path, path: str, find_gap: Callable[[Path], tuple[int, int]] | None = None) -> Iterator[Path]:
    """Yield the local path of a file of a corpus. If the corpus is in an object store, yield a fresh temporary copy.

    The copy is downloaded in ranges, and is deleted at the end of the block. A check of a whole corpus therefore does
    not depend on files that were downloaded earlier, and does not fill the disk. If the file does not exist, the path
    of a missing file is yielded.

    Args:
        corpus: the folder of the corpus.
        path: the path of the file below the corpus.
        find_gap: a function that returns the start and end of a byte range that is not downloaded. Its argument is the
            path of a partial copy, with `END_BYTES` at each end. The gap is filled with zeros.
    """
    mirror = mirror_of(corpus)
    if mirror is None:
        yield corpus / path
        return
    with tempfile.TemporaryDirectory(dir=_scratch()) as scratch:
        copy = Path(scratch) / Path(path).name
        entry = mirror.storage.find(path)
        if entry is not None:
            size = entry.bytes
            with copy.open("wb") as file:
                file.truncate(size)
                first, last = min(END_BYTES, size), max(size - END_BYTES, min(END_BYTES, size))
                mirror.storage.copy_spans(path, file.fileno(), [(0, first), (last, size)])
                start, end = find_gap(copy) if find_gap else (0, 0)
                mirror.storage.copy_spans(path, file.fileno(), [(first, min(start, last)), (max(end, first), last)])
        yield copy


def fetch_files(corpus: Path, folder: str, suffix: str = "") -> list[Path]:
    """Return the sorted local paths of the files below a folder of a corpus.

    If the corpus is in an object store, files without a local copy are downloaded.

    Args:
        corpus: the folder of the corpus.
        folder: the path of the folder below the corpus.
        suffix: the end of the names of the files; empty for all files.

    Raises:
        OSError: a local folder cannot be listed.
        StorageError: a remote folder cannot be listed, or a file cannot be downloaded.
    """
    paths = [f"{folder}/{name}" for name in list_folder(corpus, folder) if name.endswith(suffix)]
    mirror = mirror_of(corpus)
    if mirror is not None:
        mirror.fetch_all(paths)
    return [corpus / path for path in paths]


def list_folder(corpus: Path, folder: str) -> list[str]:
    """Return the relative paths of all files below a folder of a local or remote corpus."""
    mirror = mirror_of(corpus)
    if mirror is None:
        return relative_files(corpus / folder)
    return [entry.path.removeprefix(f"{folder}/") for entry in mirror.storage.list_files(folder)]


def fetch_url(url: str, version: str, corpus: Path) -> Path:
    """Return the local path of a copy of a file in an object store. The file is downloaded if there is no valid copy.

    Args:
        url: the URL of the file.
        version: the modification time that `Storage.find` returned. A file that has changed since is rejected.
        corpus: the folder of the corpus that is built from the file. If it is a mirror, the copy is stored beside it.

    Raises:
        StorageError: the file cannot be read, has been deleted, or has changed since the run began.
    """
    folder, path = _locate_copy(url, version, corpus)
    if is_recorded(folder, path, version):
        return folder / path
    trim_if_due(folder)
    parent, _, name = url.rpartition("/")
    with contextlib.suppress(FileNotFoundError):
        connect(parent).download(name, folder / path)
        if _is_version(url, version, (folder / path).stat().st_size):
            record(folder, path, version)
            return folder / path
    (folder / path).unlink(missing_ok=True)
    raise StorageError(f"{url} {CHANGED}")


class StoredDump(NamedTuple):
    """A dump in an object store that is read in parts: its URL, its modification time, and its size in bytes."""

    url: str
    version: str
    size: int

    def __str__(self) -> str:
        return self.url


@contextlib.contextmanager
def open_range(dump: StoredDump | Path | str, corpus: Path, start: int, end: int) -> Iterator[Stored]:
    """Open a dump from which mainly the bytes from `start` to `end` are read.

    If the dump is remote and has no local copy, this range is downloaded immediately, and other bytes on access. The
    downloaded bytes are stored in an unnamed temporary file, which disappears when the block or the process ends.

    Args:
        dump: a dump in an object store, or a local path.
        corpus: the folder of the corpus that is built from the dump.
        start: the first byte of the range, in stored bytes.
        end: the end of the range, exclusive.

    Yields:
        The stored bytes of the whole dump.

    Raises:
        OSError: the file cannot be opened.
        StorageError: the dump cannot be read, has been deleted, or has changed since the run began.
    """
    if not isinstance(dump, StoredDump):
        with open_stored(Path(dump)) as stored:
            yield stored
        return
    folder, path = _locate_copy(dump.url, dump.version, corpus)
    if is_recorded(folder, path, dump.version):
        with open_stored(folder / path) as stored:
            yield stored
        return
    parent, _, name = dump.url.rpartition("/")

    def fetch(first: int, last: int) -> None:
        try:
            connect(parent).copy_spans(name, file.fileno(), [(first, last)])
        except FileNotFoundError as error:  # Format readers may treat a FileNotFoundError as damaged data.
            raise storage_error(error, dump.url) from error
        finally:
            if not _is_version(*dump):
                raise StorageError(f"{dump} {CHANGED}")

    with tempfile.TemporaryFile(dir=_scratch()) as file:
        file.truncate(dump.size)
        fetched = FetchedFile(file.fileno(), dump.size, fetch)
        with fetched.mapped:
            fetched.download(start, end)
            yield fetched


def _locate_copy(url: str, version: str, corpus: Path) -> tuple[Path, str]:
    """Return the folder of all local copies, and the path below it for the copy of a remote file."""
    folder = (corpus.parent if mirror_of(corpus) is not None else _scratch()) / INPUTS
    return folder, f"{sha256_bytes(f'{url} {version}'.encode())[:16]}/{url.rpartition('/')[2]}"


def _is_version(url: str, version: str, size: int) -> bool:
    """Return True if a remote file has this modification time and size.

    If it is True after a read, then the bytes that were read belong to this version.
    """
    parent, _, name = url.rpartition("/")
    entry = connect(parent).find(name)
    return entry is not None and (str(entry.changed), entry.bytes) == (version, size)


def open_corpus(place: str, cache: Path | None = None) -> Path:
    """Return the local folder from which a corpus is read.

    Args:
        place: the path or the URL of the corpus. A path is returned unchanged. For a URL, a local folder is created, to
            which files are downloaded when they are needed. Its name depends on the hash of the manifest, so files of
            an earlier version of the corpus are not used.
        cache: the parent of this folder; None for the scratch folder.

    Raises:
        UserError: the URL cannot be opened, or contains no corpus.
    """
    if not is_url(place):
        return Path(place)
    try:
        manifest = connect(place.rstrip("/")).read(FILE)
    except FileNotFoundError as error:
        raise UserError(f"{place} has no {FILE}: give the URL of a finished corpus") from error
    except StorageError as error:
        raise UserError(f"{error}; check the URL and your access to it") from error
    folder = mirror_folder(f"{place.rstrip('/')} {sha256_bytes(manifest)}", cache)
    open_mirror(folder, place)
    trim_if_due(folder)
    write_atomic(folder / FILE, manifest)
    return folder


@contextlib.contextmanager
def new_corpus(place: str) -> Iterator[Path]:
    """Yield a local folder to which a new corpus is written.

    For a URL, it is a temporary folder, whose files are uploaded if the block succeeds.

    Args:
        place: the path or the URL of the new corpus.

    Raises:
        UserError: there are already files at the URL.
        StorageError: a file cannot be uploaded. The files that were uploaded before are removed if possible.
    """
    if not is_url(place):
        yield Path(place)
        return
    storage = connect(place.rstrip("/"))
    if storage.list_files():
        raise UserError(f"--output {place} already exists: give another URL, or delete what lies there")
    with tempfile.TemporaryDirectory(dir=_scratch()) as scratch:
        folder = Path(scratch) / "corpus"
        yield folder
        names = sorted(relative_files(folder), key=lambda name: name == FILE)  # The manifest is last.
        try:
            for name in names:
                storage.publish(folder / name, name)
        except BaseException:
            with contextlib.suppress(StorageError):
                storage.remove_all(names)
            raise
