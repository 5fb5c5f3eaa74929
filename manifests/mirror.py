"""A folder of this machine that stands for a corpus in an object store: it holds the files that were used here.

Every process of a machine may share it. A file in it is valid if its record names the hash that is expected of it and
the file has not been touched since; so an older file of the same name is never taken for the one that is wanted.
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
MARK = "remote.json"  # beside the files: where they come from
RECORDS = ".checked"  # folder of the records of files: size, time of change, hash
INPUTS = "inputs"  # folder of copies of dumps, models and lists, beside the mirrors
UNKNOWN = "-"  # in a record: the file's hash was not asked for
SCRATCH_BYTES = 64 << 30  # of files that a machine keeps by default
TRIM_SECONDS = 60.0  # between two looks at all files, which takes long where there are many
CHANGED = "has changed or gone since the run began: give the same command again, which reads it anew"
END_BYTES = 16 << 20  # at either end of an Arrow file: more than all that says where its columns lie
THREADS = 32  # transfers at once: each waits for the network most of the time


def is_url(place: str) -> bool:
    """Return True for a URL; False for a path of this machine."""
    return "://" in place


@dataclass(frozen=True)
class Mirror:
    """A corpus in an object store, and the folder that stands for it here.

    Attributes:
        folder: of this machine, with `remote.json`.
        storage: of the corpus.
    """

    folder: Path
    storage: Storage

    def fetch(self, path: str, sha256: str = "") -> Path:
        """Return the local path of a file, downloaded unless it is here.

        Args:
            path: below the corpus.
            sha256: of the file that is wanted; empty to take any that is here.

        Raises:
            FileNotFoundError: there is no such file.
            StorageError: it cannot be read, or has another hash.
        """
        if not self.holds(path, sha256):
            self.fetch_anew(path, sha256)
            record(self.folder, path, sha256 or UNKNOWN)
        return self.folder / path

    def publish(self, path: str, sha256: str = "") -> None:
        """Upload a file of the folder. `sha256`: its hash, if it will be asked for."""
        self.storage.publish(self.folder / path, path)
        record(self.folder, path, sha256 or UNKNOWN)

    def push(self, paths: Iterable[str]) -> None:
        """Upload those of the named files that are in the folder, in order."""
        for path in paths:
            if (self.folder / path).is_file():
                self.storage.publish(self.folder / path, path)

    def pull(self, folder: str) -> None:
        """Make a folder here hold exactly what it holds in the store."""
        stored = [entry.path for entry in self.storage.list_files(folder)]
        for relative in relative_files(self.folder / folder):
            (self.folder / folder / relative).unlink()
        self.fetch_all(stored)

    def fetch_all(self, paths: Iterable[str]) -> None:
        """Download those of the named files that are not here. Files that do not exist are left out."""

        def fetch(path: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self.fetch_anew(path)

        missing = [path for path in paths if not (self.folder / path).is_file()]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fetch, missing))

    def fetch_anew(self, path: str, sha256: str = "") -> None:
        """Download a file in place of what is here. Raises FileNotFoundError, StorageError as `fetch`.

        Raises:
            UserError: the path leads out of the folder, as an object's name or a foreign manifest may.
        """
        if not is_inner_path(path) or "//" in path or "\0" in path:  # the latter two no system takes
            raise UserError(f"{self.storage.url}/{path} is no name of a file of a corpus: use another corpus")
        self.storage.download(path, self.folder / path, sha256)

    def holds(self, path: str, sha256: str = "") -> bool:
        """Return True if a file is here, with a hash that begins with `sha256`."""
        return (self.folder / path).is_file() and (is_recorded(self.folder, path, sha256) or not sha256)


def record(folder: Path, path: str, mark: str) -> None:
    """Note what a file of a folder is: a mark without blanks, such as its hash, beside its size and time of change."""
    state = (folder / path).stat()
    write_atomic(folder / RECORDS / path, f"{state.st_size} {state.st_mtime_ns} {mark}".encode())


def is_recorded(folder: Path, path: str, mark: str) -> bool:
    """Return True if a file has a mark that begins with `mark`, and has not been touched since it got it.

    It counts as used now, so that `trim` removes others first.
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
    """Remove files with a record, those unused for longest first, until `most` bytes or one file are left.

    A task whose file is removed before the task opens it is repeated, and downloads the file again.
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
    """Trim a folder, unless a process has done so within `TRIM_SECONDS`."""
    last = folder / ".trimmed"
    if not last.exists() or time.time() - last.stat().st_mtime > TRIM_SECONDS:
        write_atomic(last, b"")
        trim(folder)


def mirror_folder(url: str, cache: Path | None = None) -> Path:
    """Return the folder that stands for a corpus here, below `cache`; None for the scratch folder."""
    return (cache or _scratch()) / sha256_bytes(url.rstrip("/").encode())[:16]


def _scratch() -> Path:
    """Return the folder that TERATOKEN_SCRATCH names, else one below the temporary folder."""
    named = os.environ.get("TERATOKEN_SCRATCH")
    folder = Path(named or f"{tempfile.gettempdir()}/teratoken-{os.getuid()}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_mirror(folder: Path, url: str) -> Mirror:
    """Return the mirror of the corpus at a URL in a folder, which is made if it is not there."""
    if not (folder / MARK).is_file():
        write_atomic(folder / MARK, canonical_json({"url": url.rstrip("/")}))
    return Mirror(folder, connect(url.rstrip("/")))


@lru_cache(maxsize=64)
def mirror_of(corpus: Path) -> Mirror | None:
    """Return the mirror that a folder is, or that holds it as the folder of a generation; None for other folders."""
    for folder, below in ((corpus, ""), (corpus.parent.parent, f"/{corpus.parent.name}/{corpus.name}")):
        try:
            url = str(json.loads((folder / MARK).read_bytes())["url"])
        except (FileNotFoundError, NotADirectoryError):
            continue
        return Mirror(corpus, connect(f"{url}{below}"))
    return None


def place_of(corpus: Path) -> str:
    """Return how a corpus is named to people: its URL, or its path on this machine."""
    mirror = mirror_of(corpus.absolute())
    return mirror.storage.url if mirror is not None else str(corpus)


def fetch(corpus: Path, path: str) -> Path:
    """Return the local path of a file of a corpus; of a corpus in an object store it is downloaded first.

    A file that is not there is not fetched: whoever opens the path finds it missing.
    """
    mirror = mirror_of(corpus)
    if mirror is not None:
        with contextlib.suppress(FileNotFoundError):
            mirror.fetch(path)
    return corpus / path


@contextlib.contextmanager
def stored_copy(corpus: Path, path: str, left_out: Callable[[Path], tuple[int, int]] | None = None) -> Iterator[Path]:
    """Yield the local path of a file of a corpus; in an object store that of a copy of what lies there now.

    The copy is made in ranges and deleted when the block ends, so that a check of a whole corpus neither trusts files
    that were fetched earlier nor fills the disk. A file that is not there is not copied.

    Args:
        corpus: its folder.
        path: of the file, below it.
        left_out: returns start and end of a range that is not read, from a copy that has `END_BYTES` at both ends; the
            final copy has zeros there.
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
                start, end = left_out(copy) if left_out else (0, 0)
                mirror.storage.copy_spans(path, file.fileno(), [(first, min(start, last)), (max(end, first), last)])
        yield copy


def fetch_files(corpus: Path, folder: str, suffix: str = "") -> list[Path]:
    """Return the local paths of all files below a folder of a corpus, by name; they are downloaded first if need be.

    Args:
        corpus: its folder.
        folder: below it.
        suffix: of the names of the files that are needed.

    Raises:
        OSError, StorageError: a folder cannot be listed, or a file not be fetched.
    """
    paths = [f"{folder}/{name}" for name in list_folder(corpus, folder) if name.endswith(suffix)]
    mirror = mirror_of(corpus)
    if mirror is not None:
        mirror.fetch_all(paths)
    return [corpus / path for path in paths]


def list_folder(corpus: Path, folder: str) -> list[str]:
    """Return all files below a folder of a corpus, relative to it, wherever the corpus is stored."""
    mirror = mirror_of(corpus)
    if mirror is None:
        return relative_files(corpus / folder)
    return [entry.path.removeprefix(f"{folder}/") for entry in mirror.storage.list_files(folder)]


def fetch_url(url: str, version: str, corpus: Path) -> Path:
    """Return the local path of a copy of a stored file.

    Args:
        url: of the file.
        version: its time of change, as `Storage.find` tells it; a file that has changed since is refused.
        corpus: that is built from it: beside its mirror lies the copy, at the same path on every machine.

    Raises:
        StorageError: the file cannot be read, is gone, or is another than when the run began.
    """
    folder, path = _place_copy(url, version, corpus)
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
    """A dump in an object store, of which a part is read: its URL, its time of change, and its size in bytes."""

    url: str
    version: str
    size: int

    def __str__(self) -> str:
        return self.url


@contextlib.contextmanager
def open_range(dump: StoredDump | Path | str, corpus: Path, start: int, end: int) -> Iterator[Stored]:
    """Yield the stored bytes of a dump of which the part from `start` to `end` is read.

    If this machine has no copy, that part is downloaded now, and other bytes when they are read. They lie in a file
    without a name, which is gone when the block or the process ends.

    Args:
        dump: in an object store, or a path of this machine.
        corpus: that is built from the dump.
        start: of the part, in stored bytes.
        end: of the part.

    Raises:
        OSError: the file cannot be opened.
        StorageError: the dump cannot be read, is gone, or is another than when the run began.
    """
    if not isinstance(dump, StoredDump):
        with open_stored(Path(dump)) as stored:
            yield stored
        return
    folder, path = _place_copy(dump.url, dump.version, corpus)
    if is_recorded(folder, path, dump.version):
        with open_stored(folder / path) as stored:
            yield stored
        return
    parent, _, name = dump.url.rpartition("/")

    def fetch(first: int, last: int) -> None:
        try:
            connect(parent).copy_spans(name, file.fileno(), [(first, last)])
        except FileNotFoundError as error:  # which readers of a format may take for damage
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


def _place_copy(url: str, version: str, corpus: Path) -> tuple[Path, str]:
    """Return the place for the copy of a stored file: the folder of all copies, and the path below it."""
    folder = (corpus.parent if mirror_of(corpus) is not None else _scratch()) / INPUTS
    return folder, f"{sha256_bytes(f'{url} {version}'.encode())[:16]}/{url.rpartition('/')[2]}"


def _is_version(url: str, version: str, size: int) -> bool:
    """Return True if a stored file has this time of change and size; then what was read before is of this version."""
    parent, _, name = url.rpartition("/")
    entry = connect(parent).find(name)
    return entry is not None and (str(entry.changed), entry.bytes) == (version, size)


def open_corpus(place: str, cache: Path | None = None) -> Path:
    """Return the folder of a corpus to read.

    Args:
        place: a folder, which is returned, or a URL: then a folder of this machine for the files that are read, another
            one for every manifest, so that a corpus that has changed is read anew.
        cache: that folder is below it; None for the scratch folder.

    Raises:
        UserError: the URL cannot be opened or holds no corpus.
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
    """Yield a folder to write a corpus to; for a URL one whose files are uploaded when the block ends well.

    Raises:
        UserError: there are files at the URL already.
        StorageError: a file cannot be uploaded; those that were are removed again, as far as the store allows.
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
        names = sorted(relative_files(folder), key=lambda name: name == FILE)  # the manifest last
        try:
            for name in names:
                storage.publish(folder / name, name)
        except BaseException:
            with contextlib.suppress(StorageError):
                storage.remove_all(names)
            raise
