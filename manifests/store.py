"""A corpus in an object store: small files copied here, shards fetched when asked for, within a budget of bytes.

The copy is a folder like any corpus, with `remote.json` beside the manifest; shards appear in it whole and checked, or
not at all, and the ones unused for longest go first. Any number of processes of a machine may share it.
"""

import fcntl
import hashlib
import json
import os
import string
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from pyarrow import fs

from manifests import tokenizer
from manifests.errors import UserError
from manifests.files import CHUNK_BYTES, canonical_json, write_atomic
from manifests.manifest import FILE, SHA_FILE, ShardEntry, load_manifest
from manifests.shard import Shard, open_shard

REMOTE = "remote.json"
TRIES = 3
"""times that a shard is fetched before it is refused"""


def local(corpus: str, cache: Path, cache_bytes: int) -> Path:
    """The folder to read a corpus from: `corpus` itself if it is a path; for a URL that pyarrow reads (s3://, gs://,
    hdfs://, file://) a folder below `cache`, named by the URL and the manifest. `cache_bytes`: of shards kept there at
    most, and one shard more for each process that fetches. Raises UserError."""
    if "://" not in corpus:
        return Path(corpus)
    url = corpus.rstrip("/")
    filesystem, root = _connect(url)
    found = {}
    for name in (FILE, SHA_FILE, tokenizer.FILE):
        try:
            with filesystem.open_input_stream(f"{root}/{name}") as stream:
                found[name] = stream.read()
        except FileNotFoundError as error:
            if name == FILE:
                raise UserError(f"{url} has no {FILE}: give the URL of a finished corpus") from error
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{url}/{name} cannot be read ({error}): check the URL and your access to it") from error
    folder = cache / hashlib.sha256(url.encode() + b"\0" + found[FILE]).hexdigest()[:16]
    for name, data in found.items():
        write_atomic(folder / name, data)
    biggest = max((entry.bytes for entry in load_manifest(folder).shards()), default=0)
    if biggest > cache_bytes:
        raise UserError(f"--cache-bytes {cache_bytes} is less than the largest shard: give {biggest} or more")
    write_atomic(folder / REMOTE, canonical_json({"url": url, "bytes": cache_bytes}))
    return folder


class Store:
    """Opens the shards of a corpus folder, and fetches them first where the folder is the copy of a corpus elsewhere
    (`url` is empty where it is not)."""

    def __init__(self, corpus: Path) -> None:
        self.corpus, self.url = corpus, ""
        if (corpus / REMOTE).is_file():
            said = json.loads((corpus / REMOTE).read_bytes())
            self.url, self.bytes = str(said["url"]), int(said["bytes"])
            self.filesystem, self.root = _connect(self.url)
            self.entries = {entry.path: entry for entry in load_manifest(corpus).shards()}

    def open(self, path: str) -> Shard:
        """The shard at `path` below shards/. Raises UserError naming one that cannot be read or is not the
        manifest's."""
        for _ in range(TRIES):
            file = self._ensure(path) if self.url else self.file(path)
            try:
                return open_shard(file)
            except FileNotFoundError:
                continue  # another process made room in the cache just then
            except (OSError, pa.ArrowException) as error:
                raise UserError(self._unreadable(path)) from error
        raise UserError(self._unreadable(path))

    def file(self, path: str) -> Path:
        """Where a shard lies, or would."""
        return self.corpus / "shards" / path

    def touch(self, path: str) -> bool:
        """Note that a shard is in use, as a file's time of change; says whether it is here."""
        try:
            os.utime(self.file(path))
        except FileNotFoundError:
            return False
        return True

    def _unreadable(self, path: str) -> str:
        return f"shards/{path} cannot be read: run `python -m manifests verify {self.corpus}`"

    def _ensure(self, path: str) -> Path:
        target = self.file(path)
        if not self.touch(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_name(f".{target.name}.part")) as part:
                if target.exists():  # another process has fetched it meanwhile
                    Path(part.name).unlink()
                else:
                    self._fetch(self.entries[path], part)
                    Path(part.name).rename(target)
        return target

    def _fetch(self, entry: ShardEntry, part: BinaryIO) -> None:
        problem = ""
        for _ in range(TRIES):
            with _locked(self.corpus / ".evicting"):
                self._evict(entry.bytes, Path(part.name))
                part.truncate(entry.bytes)  # so that others count it in full from now on
            try:
                problem = self._copy(entry, part)
            except (OSError, pa.ArrowException) as error:
                problem = str(error)
            if not problem:
                return
        Path(part.name).unlink()
        raise UserError(
            f"shards/{entry.path} as fetched from {self.url} is not the manifest's ({problem}): restore it there"
        )

    def _copy(self, entry: ShardEntry, part: BinaryIO) -> str:
        """Stream one shard into the open file; says what is wrong with it, or nothing."""
        total, size = hashlib.sha256(), 0
        part.seek(0)
        with self.filesystem.open_input_stream(f"{self.root}/shards/{entry.path}") as stream:
            while size <= entry.bytes and (block := stream.read(CHUNK_BYTES)):
                size += len(block)
                total.update(block)
                part.write(block)
        part.flush()
        if size != entry.bytes:
            return f"{'more' if size > entry.bytes else 'less'} than {entry.bytes} bytes"
        return "" if total.hexdigest() == entry.sha256 else "another sha256"

    def _evict(self, wanted: int, mine: Path) -> None:
        """Remove the shards unused for longest until `wanted` bytes fit, and what killed processes left half-fetched.
        Memory maps of a removed file stay good."""
        files = []
        for path in (self.corpus / "shards").glob("*/*"):
            if path == mine or (path.suffix == ".part" and _abandoned(path)):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            files.append((path.suffix == ".part", status.st_mtime_ns, status.st_size, path))
        used = sum(size for _, _, size, _ in files)
        for being_fetched, _, size, path in sorted(files):
            if used + wanted <= self.bytes or being_fetched:
                return
            path.unlink(missing_ok=True)
            used -= size


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """A file that this process alone has open and locked; the lock ends with the process. If the file was renamed or
    removed while we waited, it is not the one at `path` any more: then it is opened anew."""
    while True:
        with open(path, "r+b", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666)) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if same:
                yield file
                return


def _abandoned(path: Path) -> bool:
    """Remove a half-fetched file that no process holds; says whether it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _connect(url: str) -> tuple[fs.FileSystem, str]:
    """Open the file system of a URL, in which blanks and letters beyond ASCII may stand as they are."""
    try:
        filesystem, root = fs.FileSystem.from_uri(urllib.parse.quote(url, safe=string.punctuation))
    except (ValueError, OSError, pa.ArrowException) as error:
        raise UserError(
            f"{url} cannot be opened ({error}): give s3://, gs://, hdfs:// or file:// and a path"
        ) from error
    return filesystem, str(root).rstrip("/")
