"""Rows of text in JSON lines or Parquet, and the columns that a recipe names in them.

A damaged row costs itself alone: JSON lines are found again at the next newline, Parquet's row groups by its footer.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from filters.formats.compression import unpacked
from filters.formats.mediawiki import Damage
from filters.formats.stream import PIECE, Stored
from filters.reasons import Reason

PARQUET = b"PAR1"
BOM = b"\xef\xbb\xbf"
BATCH_ROWS = 256
GROUP_BYTES = 4 << 30
"""decoded bytes that a row group may state for the columns that are read"""
_PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, IndexError, NotImplementedError)


class Line(NamedTuple):
    """A line at [start, stop) of decoded bytes, its newline included, or damage there. `stored`: how many stored bytes
    it accounts for."""

    start: int
    stop: int
    stored: int
    data: bytes
    problem: Reason | None = None
    detail: str = ""


class Group(NamedTuple):
    """A row group: its number, the stored bytes [start, stop) of its columns, and how many rows it states."""

    number: int
    start: int
    stop: int
    rows: int


class _Fed:
    """Stored bytes that know how far they have been read."""

    def __init__(self, stored: Stored) -> None:
        self.stored, self.reached = stored, 0

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, part: slice) -> bytes:
        self.reached = max(self.reached, min(part.stop, len(self.stored)))
        return bytes(self.stored[part])


def plain_lines(stored: Stored, limit: int, start: int, end: int) -> Iterator[Line]:
    """The lines of [start, end), which account for just their own bytes. A line of more than `limit` bytes is damage
    and is not held."""
    pieces = ((bytes(stored[at : min(at + PIECE, end)]), 0) for at in range(start, end, PIECE))
    for line in _lines(pieces, limit, start):
        yield line._replace(stored=line.stop - line.start)


def packed_lines(stored: Stored, limit: int) -> Iterator[Line]:
    """The lines of a file of gzip members or bzip2 streams; damage ends them. Each accounts for the stored bytes that
    were read since the line before, shared out by decoded bytes; the last one for all that are left."""
    fed = _Fed(stored)
    held: Line | None = None
    left = len(stored)
    for line in _lines(((piece, fed.reached) for piece in unpacked(fed)), limit, 0):  # type: ignore[arg-type]
        if held is not None:
            left -= held.stored
            yield held
        held = line
    if held is None:
        held = Line(0, 0, 0, b"", Reason.NO_TEXT) if left else None
    if held is not None:
        yield held._replace(stored=left)


def _lines(pieces: Iterable[tuple[bytes | Damage, int]], limit: int, base: int) -> Iterator[Line]:
    """Lines of decoded pieces that come with the number of stored bytes read so far."""
    parts: list[bytes] = []
    start, size, decoded = base, 0, base
    accounted, reached = 0, 0
    for piece, now in pieces:
        before, reached = reached, now
        if isinstance(piece, Damage):
            yield Line(start, start + size, 0, b"", piece.problem, piece.detail)
            return
        position = 0
        while position < len(piece):
            found = piece.find(b"\n", position)
            stop = found + 1 if found >= 0 else len(piece)
            size += stop - position
            if size <= limit:
                parts.append(piece[position:stop])
            else:
                parts.clear()
            position = stop
            if found >= 0:
                mark = before + (reached - before) * position // len(piece)
                yield _line(start, size, mark - accounted, parts, limit)
                accounted, start, size, parts = mark, decoded + position, 0, []
        decoded += len(piece)
    if size:
        yield _line(start, size, 0, parts, limit)


def _line(start: int, size: int, stored: int, parts: list[bytes], limit: int) -> Line:
    if size > limit:
        return Line(start, start + size, stored, b"", Reason.TOO_LARGE, f"a line of {size} bytes")
    return Line(start, start + size, stored, b"".join(parts))


def row_of(data: bytes) -> dict[str, Any] | Damage | None:
    """The object in a line; None for a blank one. Of a key given twice the last counts, as for every reader of C4."""
    data = data.removeprefix(BOM)
    if not data.strip():
        return None
    try:
        row = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        return Damage(Reason.UNDECODABLE_TEXT, "a line that is no UTF-8")
    except RecursionError:
        return Damage(Reason.CORRUPT_RECORD, "nested too deeply")
    except ValueError as error:
        return Damage(Reason.CORRUPT_RECORD, f"no JSON: {str(error)[:80]}")
    return row if isinstance(row, dict) else Damage(Reason.CORRUPT_RECORD, f"no object but {type(row).__name__}")


def column(row: dict[str, Any], name: str) -> Any:
    """A column's value; None if there is none. `a.b` is a column of that name, else `b` in the object `a`."""
    if not name or name in row:
        return row.get(name)
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def text_of(value: Any) -> str | Damage | None:
    """A column's text, without NULs and lone surrogates, which no file of text can hold; None if it has none."""
    if value is None:
        return None
    if not isinstance(value, str):
        return Damage(Reason.CORRUPT_RECORD, f"the text is no string but {type(value).__name__}")
    text: str = value
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd") if "\0" in text else text


def time_of(value: Any) -> str:
    """A column's time as ISO 8601 in UTC; empty if it is none."""
    if isinstance(value, str) and len(value) <= 40:
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return ""
    if not isinstance(value, datetime):
        return ""
    value = value.replace(tzinfo=UTC) if value.tzinfo is None else value
    try:
        return str(value.astimezone(UTC).isoformat().replace("+00:00", "Z"))
    except OverflowError:
        return ""


def groups(stored: Stored) -> list[Group] | Damage:
    """The row groups of a Parquet file, by its footer. Where they do not lie one behind another, each has all bytes."""
    try:
        footer = pq.ParquetFile(pa.py_buffer(stored)).metadata
        found = []
        for number in range(footer.num_row_groups):
            columns = [footer.row_group(number).column(c) for c in range(footer.num_columns)]
            starts = [c.dictionary_page_offset or c.data_page_offset for c in columns]
            stops = [at + c.total_compressed_size for at, c in zip(starts, columns, strict=True)]
            rows = footer.row_group(number).num_rows
            found.append(Group(number, min(starts, default=0), max(stops, default=0), rows))
    except _PARQUET_ERRORS as error:
        return Damage(Reason.CORRUPT_RECORD, f"no readable Parquet file: {type(error).__name__}")
    ends = [0, *(group.stop for group in found)]
    apart = all(before <= group.start < group.stop for before, group in zip(ends, found, strict=False))
    if not apart or ends[-1] > len(stored) or any(group.rows < 0 for group in found):
        found = [group._replace(start=0, stop=len(stored), rows=max(group.rows, 0)) for group in found]
    return found


def group_rows(stored: Stored, group: Group, names: Iterable[str]) -> Iterator[dict[str, Any] | Damage]:
    """The rows of a row group, with the top-level columns that `names` stand in. Damage ends them."""
    try:
        file = pq.ParquetFile(pa.py_buffer(stored))
        wanted = {name for name in names if name} | {name.partition(".")[0] for name in names if name}
        present = [name for name in file.schema_arrow.names if name in wanted]
        metadata = file.metadata.row_group(group.number)
        columns = [metadata.column(c) for c in range(metadata.num_columns)]
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.partition(".")[0] in wanted)
        if size > GROUP_BYTES:
            yield Damage(Reason.TOO_LARGE, f"a row group of {size} bytes")
            return
        if not present:
            yield Damage(Reason.NO_TEXT, "none of the columns that the recipe names")
            return
        for batch in file.iter_batches(BATCH_ROWS, row_groups=[group.number], columns=present):
            yield from _batch_rows(batch)
    except _PARQUET_ERRORS as error:
        yield Damage(Reason.CORRUPT_RECORD, f"a row group that cannot be read: {type(error).__name__}")


def _batch_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | Damage]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield Damage(Reason.UNDECODABLE_TEXT, "a row that is no UTF-8")
