"""Read and write files between steps: Parquet files with row groups of bounded size, and Arrow files with one batch.

Row groups are bounded so that no step has the whole text of a split in memory. The same rows always give the same
bytes.
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

# A row group is closed at this number of rows or characters of text, whichever is reached first.
GROUP_ROWS = 4_096
GROUP_CHARACTERS = 16 << 20
BATCH_ROWS = 256  # number of rows of a Parquet file that are converted to Python objects at a time


class TableWriter:
    """A writer of rows to a Parquet file. It writes a row group when it has enough rows or characters."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        """Begin without rows. `writer` is an open Parquet file with this schema."""
        self.writer, self.schema = writer, schema
        self.rows: list[dict[str, Any]] = []
        self.characters = 0

    def append(self, row: dict[str, Any]) -> None:
        """Add a row, which has all columns of the schema."""
        self.rows.append(row)
        self.characters += len(row["text"] or "")
        if len(self.rows) >= GROUP_ROWS or self.characters >= GROUP_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Write the buffered rows as a row group."""
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows, self.characters = [], 0


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """Yield a writer of a Parquet file. The file appears, complete, if the `with` block ends without an exception."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as parquet:
        writer = TableWriter(parquet, schema)
        yield writer
        writer.flush()


def read_rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file as dicts, in order. If `columns` is given, read only these columns."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield from batch.to_pylist()


def write_ipc(path: Path, schema: pa.Schema, columns: Sequence[pa.Array]) -> None:
    """Write columns as an uncompressed Arrow file with one record batch, which can be memory-mapped."""
    batch = pa.RecordBatch.from_arrays(list(columns), schema=schema)
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(batch)


def read_ipc(path: Path) -> pa.RecordBatch:
    """Return the record batch of a file that `write_ipc` wrote, memory-mapped."""
    with pa.memory_map(str(path)) as mapped:
        return pa.ipc.open_file(mapped).get_batch(0)


def id_halves(column: pa.Array) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Convert a column of 16-byte ids or hashes to two uint64 arrays: the high and the low 8 bytes, big-endian.

    Pairs of the two numbers sort in the same order as the bytes.
    """
    raw = np.frombuffer(column.buffers()[1], ">u8", 2 * len(column), column.offset * ID_BYTES).reshape(-1, 2)
    return raw[:, 0].astype(np.uint64), raw[:, 1].astype(np.uint64)
