"""Parquet files of documents: written in row groups of bounded size, read one batch at a time, so that no stage ever
holds a split's text whole. The same rows always give the same bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.files import atomic_path

GROUP_ROWS = 4_096
GROUP_CHARACTERS = 16 << 20
"""a row group is closed at whichever comes first"""
BATCH_ROWS = 256


class TableWriter:
    """Collects rows of a schema and writes them as row groups."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self.writer, self.schema = writer, schema
        self.rows: list[dict[str, Any]] = []
        self.characters = 0

    def append(self, row: dict[str, Any]) -> None:
        """Add one row, with every column of the schema."""
        self.rows.append(row)
        self.characters += len(row["text"])
        if len(self.rows) >= GROUP_ROWS or self.characters >= GROUP_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Close the row group."""
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.rows, self.characters = [], 0


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """A writer whose file appears whole when the block ends well."""
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as parquet:
        writer = TableWriter(parquet, schema)
        yield writer
        writer.flush()


def read_rows(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, in order; `columns`: only these."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield from batch.to_pylist()
