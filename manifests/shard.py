"""A token shard: an Arrow IPC file with one record batch, one row a document.

Its token values are contiguous, so a memory map gives any window without a copy, and the list offsets are the document
boundaries. A document is BOS, its pieces, EOS; the trainer adds nothing.

The trainer reads a corpus in an object store from a folder of this machine (`local`): a `Store` fetches shards when
they are asked for, within a budget of bytes. They appear whole and checked, or not at all, and the ones unused for
longest go first. Any number of processes of a machine may share the folder.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.errors import UserError
from manifests import tokenizer
from manifests.document import ID_BYTES, LOCATOR_FIELDS
from manifests.files import atomic_path, unreadable, write_atomic
from manifests.manifest import ShardEntry, load_manifest
from manifests.mirror import fetch, mirror_of, open_corpus, place_of
from manifests.storage import OTHER_HASH, StorageError

FORMAT = "teratoken-shard-2"
BUDGET = ".bytes"  # file in the cache of a corpus: the most bytes of shards that it may hold
TRIES = 3  # attempts to open a shard that other processes may remove

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def token_dtype(vocabulary: int) -> type[np.uint16] | type[np.uint32]:
    """Return the narrowest unsigned type that holds every id of a vocabulary of that many pieces."""
    return np.uint16 if vocabulary <= 1 << 16 else np.uint32


def shard_schema(vocabulary: int) -> pa.Schema:
    """Return the columns of a shard for a vocabulary of that many pieces."""
    value = pa.uint16() if token_dtype(vocabulary) is np.uint16 else pa.uint32()
    return pa.schema(
        [
            ("tokens", pa.large_list(value)),
            ("document", pa.binary(ID_BYTES)),
            ("source", pa.string()),
            ("url", pa.string()),
            ("cluster_size", pa.uint32()),  # documents that this one stands for, itself among them
            *LOCATOR_FIELDS,
        ]
    )


@dataclass(frozen=True)
class Shard:
    """An open shard, memory-mapped."""

    path: Path
    tokens: Tokens  # (T,) a view of the file
    offsets: npt.NDArray[np.int64]  # (documents + 1,) the start of each document's tokens; the last one is T
    batch: pa.RecordBatch  # all columns
    metadata: dict[str, str]  # of the schema

    def row_of(self, token: int) -> int:
        """Return the row of the document that holds a token of the flat column. Raises IndexError outside it."""
        if not 0 <= token < len(self.tokens):
            raise IndexError(f"the shard holds {len(self.tokens)} tokens, numbered from 0")
        return int(np.searchsorted(self.offsets, token, side="right")) - 1

    def count_tokens(self, rows: npt.NDArray[np.int64]) -> int:
        """Return the number of tokens of some documents, by their rows."""
        return int((self.offsets[rows + 1] - self.offsets[rows]).sum())

    def row(self, index: int) -> dict[str, Any]:
        """Return the columns of one document, without its tokens. Raises UserError if they are damaged."""
        rows = check_rows(self.batch.drop_columns(["tokens"]).slice(index, 1), self.path)
        return dict(rows.to_pylist()[0])


def check_rows(rows: pa.RecordBatch, path: Path) -> pa.RecordBatch:
    """Return rows of a shard whose texts and lists can be read without a fault. Raises UserError for others."""
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid as error:
        raise unreadable(path, error, "run `python -m manifests verify` on its corpus") from error
    return rows


def view_column(column: pa.Array) -> npt.NDArray[Any]:
    """Return a view of a column of numbers. Raises pyarrow.ArrowInvalid if it has nulls.

    It is what `column.to_numpy(zero_copy_only=True)` returns, which would import pandas where that is installed.
    """
    if column.null_count:
        raise pa.ArrowInvalid("a column that must have no nulls has some")
    dtype = np.dtype(str(column.type))
    return np.frombuffer(column.buffers()[1] or b"", dtype, len(column), column.offset * dtype.itemsize)


def open_shard(path: Path) -> Shard:
    """Memory-map a shard. Raises OSError when it is missing and pyarrow.ArrowInvalid when it is no shard."""
    with pa.memory_map(str(path)) as mapped:
        reader = pa.ipc.open_file(mapped)
        if reader.num_record_batches != 1 or "tokens" not in reader.schema.names:
            raise pa.ArrowInvalid(f"{path.name} is not a token shard")
        batch = reader.get_batch(0)
    stored = reader.schema.metadata or {}
    metadata = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in stored.items()}
    if metadata.get("format") != FORMAT:
        raise pa.ArrowInvalid(f"{path.name} is not a token shard of format {FORMAT}")
    column = batch.column("tokens")
    if not pa.types.is_large_list(column.type):
        raise pa.ArrowInvalid(f"the tokens of {path.name} are {column.type}")
    offsets = view_column(column.offsets)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(column) else (0, 0)
    if not 0 <= first <= last <= len(column.values):
        raise pa.ArrowInvalid(f"the documents of {path.name} lie outside its tokens")
    return Shard(path, view_column(column.values.slice(first, last - first)), offsets - first, batch, metadata)


def token_bytes(path: Path) -> tuple[int, int]:
    """Return start and end of the tokens in a shard's file, of which the ends alone need be right.

    Returns:
        Two equal places if the file is no shard.
    """
    with pa.memory_map(str(path)) as mapped:
        begin = mapped.read_buffer(1).address
        try:
            values = pa.ipc.open_file(mapped).get_batch(0).column("tokens").values.buffers()[1]
        except (pa.ArrowException, KeyError, AttributeError, ValueError):
            return 0, 0
        start = values.address - begin
        return start, start + values.size


def open_shard_of(corpus: Path, path: str) -> Shard:
    """Memory-map a shard of a corpus, given its path below `shards/`. Raises UserError when it cannot be read."""
    try:
        return open_shard(fetch(corpus, f"shards/{path}"))
    except (OSError, pa.ArrowException) as error:
        raise unreadable(f"shards/{path}", error, f"run `python -m manifests verify {place_of(corpus)}`") from error


def write_shard(path: Path, batch: pa.RecordBatch, metadata: dict[str, str]) -> None:
    """Write one record batch of `shard_schema` as a shard, atomically and always as the same bytes."""
    schema = batch.schema.with_metadata({"format": FORMAT, **dict(sorted(metadata.items()))})
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def local(corpus: str, cache: Path, cache_bytes: int) -> Path:
    """Return the folder to read a corpus from.

    Args:
        corpus: a path, which is returned, or a URL that pyarrow reads (s3://, gs://, hdfs://, file://).
        cache: folder in which the corpus at a URL has a folder, named by the URL and the manifest.
        cache_bytes: bytes of shards kept there at most, and one shard more for each process that fetches.

    Raises:
        UserError: the corpus cannot be read, or its largest shard is larger than the cache.
    """
    folder = open_corpus(corpus, cache)
    if mirror_of(folder) is not None:
        biggest = max((entry.bytes for entry in load_manifest(folder).shards()), default=0)
        if biggest > cache_bytes:
            raise UserError(f"--cache-bytes {cache_bytes} is less than the largest shard: give {biggest} or more")
        write_atomic(folder / BUDGET, str(cache_bytes).encode())
        fetch(folder, tokenizer.FILE)
    return folder


class Store:
    """Opens the shards of a corpus folder; in the cache of a remote corpus, at `url`, it fetches them first."""

    def __init__(self, corpus: Path) -> None:
        self.corpus, self.url, mirror = corpus, "", mirror_of(corpus)
        if mirror is not None:
            self.url, self.storage = mirror.storage.url, mirror.storage
            self.bytes = int((corpus / BUDGET).read_bytes())
            self.entries = {entry.path: entry for entry in load_manifest(corpus).shards()}

    def open(self, path: str) -> Shard:
        """Open the shard at `path` below shards/.

        Raises:
            UserError: it cannot be read, or its bytes are not those that the manifest says.
        """
        failure: Exception | None = None
        for _ in range(TRIES):
            file = self._ensure(path) if self.url else self.file(path)
            try:
                return open_shard(file)
            except FileNotFoundError as error:  # another process may have made room in the cache just then
                failure = error
            except (OSError, pa.ArrowException) as error:
                failure = error
                break
        raise UserError(f"shards/{path} cannot be read: run `python -m manifests verify {self.corpus}`") from failure

    def file(self, path: str) -> Path:
        """Return the local path of a shard."""
        return self.corpus / "shards" / path

    def touch(self, path: str) -> bool:
        """Mark a shard as used now, by its file's time of change; return False if it is not here."""
        try:
            os.utime(self.file(path))
        except FileNotFoundError:
            return False
        return True

    def _ensure(self, path: str) -> Path:
        target = self.file(path)
        if not self.touch(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _open_locked(target.with_name(f".{target.name}.part")) as part:
                if target.exists():  # another process has fetched it meanwhile
                    Path(part.name).unlink()
                else:
                    self._fetch(self.entries[path], part)
                    Path(part.name).rename(target)
        return target

    def _fetch(self, entry: ShardEntry, part: BinaryIO) -> None:
        with _open_locked(self.corpus / ".evicting"):
            self._evict(entry.bytes, Path(part.name))
            part.truncate(entry.bytes)  # so that others count it in full from now on
        try:
            self.storage.copy_to(f"shards/{entry.path}", part, entry.sha256)
        except (FileNotFoundError, StorageError) as error:
            Path(part.name).unlink()
            cause = error.__cause__ if isinstance(error, StorageError) else error
            problem = " ".join(str(getattr(cause, "strerror", None) or cause).split())
            if isinstance(error, StorageError) and not problem.startswith(OTHER_HASH):
                raise UserError(str(error)) from error  # of the network or this disk, which say nothing about the data
            raise UserError(
                f"shards/{entry.path} as fetched from {self.url} is not the manifest's ({problem}): restore it there"
            ) from error

    def _evict(self, wanted: int, mine: Path) -> None:
        """Delete the least recently used shards until `wanted` bytes fit, and the partial files of killed processes.

        Memory maps of a deleted file stay valid.
        """
        files = []
        for path in (self.corpus / "shards").glob("*/*"):
            if path == mine or (path.suffix == ".part" and _delete_abandoned(path)):
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
def _open_locked(path: Path) -> Iterator[BinaryIO]:
    """Open and lock a file for this process alone; the lock ends with the process.

    A file that was renamed or deleted while the process waited is no longer the one at `path`: then it is opened anew.
    """
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


def _delete_abandoned(path: Path) -> bool:
    """Delete a partial file that no process holds; return True if it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
