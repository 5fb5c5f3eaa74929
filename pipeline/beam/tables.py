"""Files between steps: Parquet files of documents in row groups of bounded size, and Arrow files of one batch.

No step ever holds a split's text whole. The same rows always give the same bytes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.document import ID_BYTES
from manifests.files import atomic_path

GROUP_ROWS = 4_096  # a row group is closed at this many rows or
GROUP_CHARACTERS = 16 << 20  # this much text, whichever comes first
BATCH_ROWS = 256  # rows of a Parquet file that are Python objects at a time


class TableWriter:
    """Rows of a schema that are written as row groups."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        """Write to an open Parquet file."""
        self.writer, self.schema = writer, schema
        self.rows: list[dict[str, Any]] = []
        self.characters = 0

    def append(self, row: dict[str, Any]) -> None:
        """Add one row, with every column of the schema."""
        self.rows.append(row)
        self.characters += len(row["text"] or "")
        if len(self.rows) >= GROUP_ROWS or self.characters >= GROUP_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Close the row group."""
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows, self.characters = [], 0


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """Yield a writer whose file appears whole when the block ends well."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as parquet:
        writer = TableWriter(parquet, schema)
        yield writer
        writer.flush()


def read_rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, in order; `columns`: only these."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield from batch.to_pylist()


def write_ipc(path: Path, schema: pa.Schema, columns: Sequence[pa.Array]) -> None:
    """Write columns as an uncompressed Arrow file of one batch, which can be memory-mapped."""
    batch = pa.RecordBatch.from_arrays(list(columns), schema=schema)
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(batch)


def read_ipc(path: Path) -> pa.RecordBatch:
    """Return the batch of a file that `write_ipc` wrote, memory-mapped."""
    with pa.memory_map(str(path)) as mapped:
        return pa.ipc.open_file(mapped).get_batch(0)


def id_halves(column: pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return a column of 16-byte ids or hashes as two arrays of 64-bit numbers, which sort as the bytes do."""
    raw = np.frombuffer(column.buffers()[1], ">u8", 2 * len(column), column.offset * ID_BYTES).reshape(-1, 2)
    return raw[:, 0].astype(np.uint64), raw[:, 1].astype(np.uint64)
