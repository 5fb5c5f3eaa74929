"""A token shard: an Arrow IPC file with one record batch, one row a document.

Its token values are contiguous, so a memory map gives any window without a copy, and the list offsets are the document
boundaries. A document is BOS, its pieces, EOS; the trainer adds nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.document import ID_BYTES, LOCATOR_FIELDS, Locator, locator_from
from manifests.files import atomic_path, unreadable
from manifests.mirror import fetch

FORMAT = "teratoken-shard-2"

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
            raise IndexError(f"the shard holds tokens 0 to {len(self.tokens) - 1}")
        return int(np.searchsorted(self.offsets, token, side="right")) - 1

    def row(self, index: int) -> dict[str, Any]:
        """Return the columns of one document, without its tokens."""
        row = self.batch.drop_columns(["tokens"]).slice(index, 1).to_pylist()[0]
        return dict(row)

    def locator(self, index: int) -> Locator:
        """Return the locator of one document."""
        return locator_from(self.row(index))


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
    metadata = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
    if metadata.get("format") != FORMAT:
        raise pa.ArrowInvalid(f"{path.name} is not a token shard of format {FORMAT}")
    column = batch.column("tokens")
    offsets = view_column(column.offsets)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(column) else (0, 0)
    return Shard(path, view_column(column.values.slice(first, last - first)), offsets - first, batch, metadata)


def open_shard_of(corpus: Path, path: str) -> Shard:
    """Memory-map a shard of a corpus, given its path below `shards/`. Raises UserError when it cannot be read."""
    try:
        return open_shard(fetch(corpus, f"shards/{path}"))
    except (OSError, pa.ArrowException) as error:
        raise unreadable(f"shards/{path}", error, f"run `python -m manifests verify {corpus}`") from error


def write_shard(path: Path, batch: pa.RecordBatch, metadata: dict[str, str]) -> None:
    """Write one record batch of `shard_schema` as a shard, atomically and always as the same bytes."""
    schema = batch.schema.with_metadata({"format": FORMAT, **dict(sorted(metadata.items()))})
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(batch.replace_schema_metadata(schema.metadata))
