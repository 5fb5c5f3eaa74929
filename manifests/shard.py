"""Token shards: Arrow IPC files with one record batch and one row per document.

The token values of a shard are contiguous, so a memory map gives any window without a copy. The list offsets are the
document boundaries. Each document consists of BOS, its tokens, and EOS; the trainer adds no further tokens.

The trainer reads a corpus in an object store through a local cache folder (`open_cached`). A `Store` downloads shards
on demand, up to a limit in bytes, and deletes the least recently used shards. A shard gets its final name only after
its download is complete and its hash is verified. Any number of processes of a machine may share the cache folder.
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
BUDGET = ".bytes"  # The file in the cache folder that contains the maximum total size of its shards, in bytes.
TRIES = 3  # Attempts to open a shard. Another process may delete it between download and open.

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def token_dtype(vocabulary: int) -> type[np.uint16] | type[np.uint32]:
    """Return the narrowest unsigned type for the token ids of a vocabulary of the given size."""
    return np.uint16 if vocabulary <= 1 << 16 else np.uint32


def shard_schema(vocabulary: int) -> pa.Schema:
    """Return the schema of a shard for a vocabulary of the given size."""
    value = pa.uint16() if token_dtype(vocabulary) is np.uint16 else pa.uint32()
    return pa.schema(
        [
            ("tokens", pa.large_list(value)),
            ("document", pa.binary(ID_BYTES)),
            ("source", pa.string()),
            ("url", pa.string()),
            ("cluster_size", pa.uint32()),  # number of documents in its duplicate cluster, including this document
            *LOCATOR_FIELDS,
        ]
    )


@dataclass(frozen=True)
class Shard:
    """An open, memory-mapped shard.

    Attributes:
        tokens: (T,) uint16 or uint32, a view of the file.
        offsets: (documents + 1,) int64, the start of the tokens of each document; the last value is T.
        batch: all columns.
        metadata: the metadata of the schema.
    """

    path: Path
    tokens: Tokens
    offsets: npt.NDArray[np.int64]
    batch: pa.RecordBatch
    metadata: dict[str, str]

    def row_of(self, token: int) -> int:
        """Return the row of the document that contains a token.

        Args:
            token: index into `tokens`.

        Raises:
            IndexError: there is no such token.
        """
        if not 0 <= token < len(self.tokens):
            raise IndexError(f"the shard holds {len(self.tokens)} tokens, numbered from 0")
        return int(np.searchsorted(self.offsets, token, side="right")) - 1

    def count_tokens(self, rows: npt.NDArray[np.int64]) -> int:
        """Return the total number of tokens of the documents in the given rows."""
        return int((self.offsets[rows + 1] - self.offsets[rows]).sum())

    def row(self, index: int) -> dict[str, Any]:
        """Return the columns of one row as a dict, without the tokens. Raises UserError if they are damaged."""
        rows = check_rows(self.batch.drop_columns(["tokens"]).slice(index, 1), self.path)
        return dict(rows.to_pylist()[0])


def check_rows(rows: pa.RecordBatch, path: Path) -> pa.RecordBatch:
    """Validate rows of a shard and return them.

    Args:
        rows: rows of a memory-mapped shard.
        path: the shard, for the error message.

    Raises:
        UserError: strings or lists are damaged. Reading them without this check could crash the process.
    """
    try:
        rows.validate(full=True)
    except pa.ArrowInvalid as error:
        raise unreadable(path, error, "run `python -m manifests verify` on its corpus") from error
    return rows


def view_column(column: pa.Array) -> npt.NDArray[Any]:
    """Return a NumPy view of a column of numbers, without a copy.

    It replaces `column.to_numpy(zero_copy_only=True)`, which imports pandas if pandas is installed.

    Raises:
        pyarrow.ArrowInvalid: the column has nulls.
    """
    if column.null_count:
        raise pa.ArrowInvalid("a column that must have no nulls has some")
    dtype = np.dtype(str(column.type))
    return np.frombuffer(column.buffers()[1] or b"", dtype, len(column), column.offset * dtype.itemsize)


def open_shard(path: Path) -> Shard:
    """Memory-map a shard.

    Raises:
        OSError: the file is missing.
        pyarrow.ArrowInvalid: the file is not a shard.
    """
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


def find_token_bytes(path: Path) -> tuple[int, int]:
    """Return the byte range of the token values in a shard file.

    Only the beginning and the end of the file are read, so the bytes in between may be missing.

    Returns:
        The start and the end (exclusive). They are equal if the file is not a shard.
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
    """Memory-map a shard of a corpus, given its path below `shards/`. Raises UserError if it cannot be read."""
    try:
        return open_shard(fetch(corpus, f"shards/{path}"))
    except (OSError, pa.ArrowException) as error:
        raise unreadable(f"shards/{path}", error, f"run `python -m manifests verify {place_of(corpus)}`") from error


def write_shard(path: Path, batch: pa.RecordBatch, metadata: dict[str, str]) -> None:
    """Write a record batch of `shard_schema` as a shard file.

    The file appears atomically. The same arguments always give the same bytes.
    """
    schema = batch.schema.with_metadata({"format": FORMAT, **dict(sorted(metadata.items()))})
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))


def open_cached(corpus: str, cache: Path, cache_bytes: int) -> Path:
    """Return the local folder from which the trainer reads a corpus.

    Args:
        corpus: a path, which is returned unchanged, or a URL that pyarrow can read (s3://, gs://, hdfs://, file://).
        cache: the parent of the cache folder of a remote corpus, whose name depends on the URL and the manifest.
        cache_bytes: maximum total size of the shards in the cache folder. Each process that is downloading may exceed
            it by one shard.

    Raises:
        UserError: the corpus cannot be read, or its largest shard is larger than `cache_bytes`.
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
    """Opens the shards of a corpus, and downloads them first if the corpus is remote.

    Args:
        corpus: the folder returned by `open_cached`.
    """

    def __init__(self, corpus: Path) -> None:
        self.corpus, self.url, mirror = corpus, "", mirror_of(corpus)
        if mirror is not None:
            self.url, self.storage = mirror.storage.url, mirror.storage
            self.bytes = int((corpus / BUDGET).read_bytes())
            self.entries = {entry.path: entry for entry in load_manifest(corpus).shards()}

    def open(self, path: str) -> Shard:
        """Open a shard, given its path below `shards/`.

        Raises:
            UserError: the shard cannot be read, or the downloaded bytes do not have the hash in the manifest.
        """
        failure: Exception | None = None
        for _ in range(TRIES):
            file = self._ensure(path) if self.url else self.file(path)
            try:
                return open_shard(file)
            except FileNotFoundError as error:  # Another process may have deleted it to make room in the cache.
                failure = error
            except (OSError, pa.ArrowException) as error:
                failure = error
                break
        raise UserError(f"shards/{path} cannot be read: run `python -m manifests verify {self.corpus}`") from failure

    def file(self, path: str) -> Path:
        """Return the local path of a shard."""
        return self.corpus / "shards" / path

    def touch(self, path: str) -> bool:
        """Set the modification time of a shard to now, which marks it as recently used.

        Returns:
            False if there is no local copy.
        """
        try:
            os.utime(self.file(path))
        except FileNotFoundError:
            return False
        return True

    def _ensure(self, path: str) -> Path:
        """Return the local path of a shard, after downloading it if necessary."""
        target = self.file(path)
        if not self.touch(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _open_locked(target.with_name(f".{target.name}.part")) as part:
                if target.exists():  # Another process downloaded it while this process waited for the lock.
                    Path(part.name).unlink()
                else:
                    self._fetch(self.entries[path], part)
                    Path(part.name).rename(target)
        return target

    def _fetch(self, entry: ShardEntry, part: BinaryIO) -> None:
        """Make room in the cache and download a shard into a locked partial file."""
        with _open_locked(self.corpus / ".evicting"):
            self._evict(entry.bytes, Path(part.name))
            part.truncate(entry.bytes)  # Other processes now count the full size of the shard.
        try:
            self.storage.copy_to(f"shards/{entry.path}", part, entry.sha256)
        except (FileNotFoundError, StorageError) as error:
            Path(part.name).unlink()
            cause = error.__cause__ if isinstance(error, StorageError) else error
            problem = " ".join(str(getattr(cause, "strerror", None) or cause).split())
            if isinstance(error, StorageError) and not problem.startswith(OTHER_HASH):
                raise UserError(str(error)) from error  # An error of the network or the disk, not of the data.
            raise UserError(
                f"shards/{entry.path} as fetched from {self.url} is not the manifest's ({problem}): restore it there"
            ) from error

    def _evict(self, wanted: int, mine: Path) -> None:
        """Delete the least recently used shards until `wanted` bytes fit into the cache.

        Partial files of killed processes are also deleted. Memory maps of a deleted file remain valid.

        Args:
            wanted: the number of bytes that must fit.
            mine: the partial file of this process, which is kept.
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
    """Open a file, create it if necessary, and lock it exclusively (flock). The lock ends if the process is killed.

    While the process waits for the lock, another process may rename or delete the file. In this case `path` is opened
    again.
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
    """Delete a partial file that no process has locked. Return True if the file no longer exists."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True
