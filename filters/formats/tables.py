"""Read the rows of tables in JSON Lines or Parquet, and the columns that a recipe names.

After damage, reading continues at the next line of JSON Lines, or at the next row group of Parquet.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain, pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from filters.formats.stored import FetchedFile, Stored, StoredFile, StoredView
from filters.formats.stream import Chunk, Damage, add_remaining_bytes, decode_chunks, decode_stored, is_compressed
from filters.reasons import Reason

PARQUET = b"PAR1"
BOM = b"\xef\xbb\xbf"
BATCH_ROWS = 256  # Rows of Parquet that are in memory at a time.
LARGE_BATCH_ROWS = 64  # Rows of Parquet that are in memory at a time, if a row may contain a whole file.
# Levels of nested arrays and objects in a row of JSON. A fixed limit is needed, because the limit of Python's parser
# depends on its version and on the depth of the call stack.
MAX_NESTING = 100
MAX_GROUP_BYTES = 4 << 30  # Decoded bytes of the columns that are read from a row group, as stated in the footer.
_PARQUET_ERRORS = (
    pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, LookupError, NotImplementedError,
)  # fmt: skip


class Line(NamedTuple):
    """A line, or damage, at the decoded bytes [start, stop).

    Attributes:
        start: The offset of its first decoded byte.
        stop: The offset after its newline.
        stored: The number of stored bytes that are attributed to it.
        data: The bytes of the line including its newline. Empty if there is a problem.
        problem: The reason why the line cannot be used, else None.
        detail: A sentence about the problem.
    """

    start: int
    stop: int
    stored: int
    data: bytes
    problem: Reason | None = None
    detail: str = ""


class Group(NamedTuple):
    """A row group of a Parquet file, as the footer states it.

    Attributes:
        number: The index of the row group.
        start: The offset of the first stored byte of its columns.
        stop: The offset after the last stored byte of its columns.
        rows: The number of rows.
        decoded: The number of decoded bytes.
    """

    number: int
    start: int
    stop: int
    rows: int
    decoded: int


class TableRow(NamedTuple):
    """A row, or the damage that replaces it.

    Attributes:
        offset: The offset of the first stored byte: of the line, of the compressed file, or of the row group. The
            ranges of all row groups together cover the file.
        length: The number of stored bytes from `offset`.
        inner_offset: The offset of the line in the decoded bytes, 0 for a plain line. For Parquet, the index of the row
            in its row group.
        inner_length: The number of decoded bytes of the line. For Parquet, 1.
        end: The end of the row, in decoded bytes or (Parquet) in rows, counted from the start of the piece. The stored
            bytes of the piece are divided among its rows in proportion to these numbers.
        row: A dict from column name to value, or damage.
    """

    offset: int
    length: int
    inner_offset: int
    inner_length: int
    end: int
    row: dict[str, Any] | Damage


def is_parquet(stored: StoredView) -> bool:
    """Return True if a table is in Parquet, judged by its first bytes."""
    return bytes(stored[:4]) == PARQUET


def survey_table(stored: Stored, split_bytes: int) -> tuple[list[tuple[int, int, int]], int, int]:
    """Find the offsets at which a table can be split, without parsing its rows.

    Returns:
        A list of pieces (start, end, largest `TableRow.end`), the number of decoded bytes, and the approximate number
        of rows.
    """
    size = len(stored)
    if is_parquet(stored):
        groups = _read_adjoining_groups(stored)
        if isinstance(groups, Damage):
            return [(0, size, 0)], size, 1
        pieces, start, rows = list[tuple[int, int, int]](), 0, 0
        for group in groups:
            rows += group.rows
            if group.stop - start >= split_bytes or group is groups[-1]:
                pieces.append((start, group.stop, rows))
                start, rows = group.stop, 0
        return pieces, sum(group.decoded for group in groups), sum(group.rows for group in groups)
    decoded = newlines = 0
    for chunk in decode_stored(stored):
        if isinstance(chunk, bytes):
            decoded, newlines = decoded + len(chunk), newlines + chunk.count(b"\n")
    if is_compressed(stored):
        return [(0, size, decoded)], decoded, newlines
    return [(start, end, end - start) for start, end in pairwise(cut_lines(stored, split_bytes))], size, newlines


def cut_lines(stored: Stored, split_bytes: int) -> list[int]:
    """Return offsets of line starts that split a plain file into pieces of about `split_bytes` bytes.

    The list includes 0 and the size of the file.
    """
    cuts, place = [0], 0
    for wanted in range(split_bytes, len(stored), split_bytes):
        if place < wanted:  # Otherwise the end of the line at `wanted` was already found for an earlier offset.
            place = stored.find(b"\n", wanted - 1) + 1 or len(stored)
        if cuts[-1] < place < len(stored):
            cuts.append(place)
    return [*cuts, len(stored)]


def read_rows(stored: Stored, start: int, end: int, limit: int, columns: list[str]) -> Iterator[TableRow]:
    """Yield the rows of a piece of a table, in order. Never raises.

    Args:
        stored: The whole file.
        start: The start of the piece (see `survey_table`).
        end: The end of the piece.
        limit: The largest number of bytes of a line, or of characters of a row of Parquet. Larger rows are damage.
        columns: The columns to read from Parquet. Rows of JSON Lines contain all columns.
    """
    if is_parquet(stored):
        yield from _read_parquet_rows(stored, start, end, limit, columns)
        return
    compressed = is_compressed(stored)
    base, begin = (0 if compressed else start), -1
    for line in _split_lines(decode_chunks(stored, start, end), limit, base):
        begin = line.start if begin < 0 else begin
        row = parse_row(line.data) if line.problem is None else Damage(line.problem, line.detail)
        if row is None:
            continue  # The bytes of a blank line are attributed to the next row.
        length = line.stop - begin
        place = (0, len(stored), begin, length) if compressed else (begin, length, 0, length)
        yield TableRow(*place, line.stop - base, row)
        begin = -1


def read_lines(stored: StoredView, limit: int, start: int, end: int) -> Iterator[Line]:
    """Yield the lines of the uncompressed bytes [start, end). `stored` of each line is its own length.

    A line of more than `limit` bytes is damage. It is not held in memory.
    """
    for line in _split_lines(decode_chunks(stored, start, end), limit, start):
        yield line._replace(stored=line.stop - line.start)


def read_compressed_lines(stored: StoredView, limit: int) -> Iterator[Line]:
    """Yield the lines of a file of gzip members or bzip2 streams. Damage is yielded as the last line.

    The stored bytes that were read for a chunk are divided among its lines by decoded length. The last line gets all
    remaining stored bytes, so that the sum is the size of the file.
    """
    size = len(stored)
    lines = add_remaining_bytes(_split_lines(decode_chunks(stored, 0, size), limit, 0), size)
    first = next(lines, Line(0, 0, size, b"", Reason.NO_TEXT))
    if size:
        yield first
        yield from lines


def _split_lines(chunks: Iterable[Chunk], limit: int, base: int) -> Iterator[Line]:
    """Yield the lines of decoded chunks. The first line begins at offset `base`."""
    parts: list[bytes] = []
    start, size, decoded = base, 0, base
    accounted = reached = 0
    for chunk in chunks:
        if chunk.damage is not None:
            yield Line(start, start + size, 0, b"", chunk.damage.problem, chunk.damage.detail)
            return
        piece = chunk.data
        if not piece:
            continue
        before, reached = reached, chunk.fed
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
                yield _join_line(start, size, mark - accounted, parts, limit)
                accounted, start, size, parts = mark, decoded + position, 0, []
        decoded += len(piece)
    if size:
        yield _join_line(start, size, 0, parts, limit)


def _join_line(start: int, size: int, stored: int, parts: list[bytes], limit: int) -> Line:
    """Return a line of `size` bytes, or damage if it is larger than `limit`."""
    if size > limit:
        return Line(start, start + size, stored, b"", Reason.TOO_LARGE, f"a line of {size} bytes")
    return Line(start, start + size, stored, b"".join(parts))


def parse_row(data: bytes) -> dict[str, Any] | Damage | None:
    """Parse a line as a JSON object. Return None for a blank line, and damage if it is not an object.

    If a key occurs twice, the last value counts, as in other readers of C4.
    """
    data = data.removeprefix(BOM)
    if not data.strip():
        return None
    try:
        row = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        return Damage(Reason.UNDECODABLE_TEXT, "a line that is not UTF-8")
    except RecursionError:
        return Damage(Reason.CORRUPT_RECORD, "nested too deeply")
    except ValueError as error:
        return Damage(Reason.CORRUPT_RECORD, f"not JSON: {str(error)[:80]}")
    if not isinstance(row, dict):
        return Damage(Reason.CORRUPT_RECORD, f"an object is needed, not {type(row).__name__}")
    if data.count(b"[") + data.count(b"{") > MAX_NESTING and _nests_deeper(row, MAX_NESTING):
        return Damage(Reason.CORRUPT_RECORD, "nested too deeply")
    return row


def _nests_deeper(row: Any, limit: int) -> bool:
    """Return True if arrays and objects nest in more than `limit` levels."""
    level = [row]
    for _ in range(limit):
        parts = chain.from_iterable(outer.values() if isinstance(outer, dict) else outer for outer in level)
        level = [part for part in parts if isinstance(part, dict | list)]
    return bool(level)


def get_column(row: dict[str, Any], name: str) -> Any:
    """Return the value of a column, or None. The name `a.b` is a column `a.b`, or else `b` in the object `a`."""
    if not name or name in row:
        return row.get(name)
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def clean_text(value: Any) -> str | Damage | None:
    """Return a column's text with NULs and lone surrogates replaced by U+FFFD.

    Text files in UTF-8 cannot contain surrogates. Returns None for a null, and damage if the value is not a string.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        return Damage(Reason.CORRUPT_RECORD, f"the text is not a string but {type(value).__name__}")
    text: str = value
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd") if "\0" in text else text


def format_time(value: Any) -> str:
    """Return a column's time in ISO 8601 and UTC, or "" if it is not a time. Times of Parquet are passed as bytes."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > 40:
        return ""
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    return time.isoformat().replace("+00:00", "Z")


def read_groups(stored: StoredView) -> list[Group] | Damage:
    """Return the row groups of a Parquet file as its footer states them, or damage if it cannot be read.

    If the row groups overlap or are out of order, each one gets the range of the whole file.
    """
    try:
        footer = _open_parquet(stored).metadata
        found = []
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            columns = [group.column(c) for c in range(footer.num_columns)]
            starts = [c.dictionary_page_offset or c.data_page_offset for c in columns]
            stops = [at + c.total_compressed_size for at, c in zip(starts, columns, strict=True)]
            place = min(starts, default=0), max(stops, default=0)
            found.append(Group(number, *place, group.num_rows, group.total_byte_size))
    except _PARQUET_ERRORS as error:
        return Damage(Reason.CORRUPT_RECORD, f"no readable Parquet file: {type(error).__name__}")
    ends = [0, *(group.stop for group in found)]
    apart = all(before <= group.start < group.stop for before, group in zip(ends, found, strict=False))
    if not apart or ends[-1] > len(stored) or any(group.rows < 0 for group in found):
        found = [group._replace(start=0, stop=len(stored), rows=max(group.rows, 0)) for group in found]
    return found


def read_group_rows(
    stored: StoredView, group: Group, names: Iterable[str], batch_rows: int = BATCH_ROWS
) -> Iterator[dict[str, Any] | Damage]:
    """Yield the rows of a row group. Damage is yielded as the last item.

    Args:
        stored: The whole file.
        group: The row group.
        names: The names of columns, also in the form `a.b`. The top-level columns that contain them are read.
        batch_rows: The number of rows that are read at a time.
    """
    names = [name for name in names if name]
    try:
        file = _open_parquet(stored)
        wanted = {*names, *(name.partition(".")[0] for name in names)}
        present = [name for name in file.schema_arrow.names if name in wanted]
        metadata = file.metadata.row_group(group.number)
        columns = [metadata.column(c) for c in range(metadata.num_columns)]
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.partition(".")[0] in wanted)
        if size > MAX_GROUP_BYTES:
            yield Damage(Reason.TOO_LARGE, f"a row group of {size} bytes")
            return
        if not present:
            yield Damage(Reason.NO_TEXT, "none of the columns that the recipe names")
            return
        for batch in file.iter_batches(batch_rows, row_groups=[group.number], columns=present):
            yield from _read_batch(_format_time_columns(batch))
    except _PARQUET_ERRORS as error:
        yield Damage(Reason.CORRUPT_RECORD, f"a row group that cannot be read: {type(error).__name__}")


def _open_parquet(stored: StoredView) -> pq.ParquetFile:
    return pq.ParquetFile(StoredFile(stored) if isinstance(stored, FetchedFile) else pa.py_buffer(stored))


def _format_time_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with dates and times converted to binary columns that contain ISO 8601 in UTC.

    They are bytes, so that they are not taken for text. They are not converted to Python's datetime, because it has no
    nanoseconds and no years after 9999, and the time zone may be unknown. In these cases pyarrow raises an error, or
    returns other values if pandas is installed.
    """
    original = batch.schema
    for target in (None, pa.string(), pa.binary()):
        schema = pa.schema([field.with_type(_replace_times(field.type, target)) for field in original])
        batch = batch.cast(schema) if schema != batch.schema else batch
    return batch


def _replace_times(kind: pa.DataType, target: pa.DataType | None) -> pa.DataType:
    """Return an Arrow type in which dates and times, also inside structs, are replaced by `target`.

    If `target` is None, only the time zones of timestamps are removed.
    """
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_replace_times(field.type, target)) for field in kind])
    if not pa.types.is_temporal(kind):
        return kind
    return target or (pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else kind)


def _read_batch(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | Damage]:
    """Yield the rows of a batch. A row with invalid UTF-8 is yielded as damage."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield Damage(Reason.UNDECODABLE_TEXT, "a row that is not UTF-8")


def _read_adjoining_groups(stored: Stored) -> list[Group] | Damage:
    """Return the row groups with ranges that cover all stored bytes without a gap.

    Each range is extended to the start of the next row group. Returns damage if the footer cannot be read, or if the
    row groups are out of order.
    """
    groups = read_groups(stored)
    if isinstance(groups, Damage):
        return groups
    edges = [0, *(group.start for group in groups[1:]), len(stored)]
    if not groups or any(first >= second for first, second in pairwise(edges)):
        return Damage(Reason.CORRUPT_RECORD, "Parquet without row groups, or with row groups out of order")
    return [
        group._replace(start=start, stop=stop) for group, (start, stop) in zip(groups, pairwise(edges), strict=True)
    ]


def _read_parquet_rows(stored: Stored, start: int, end: int, limit: int, columns: list[str]) -> Iterator[TableRow]:
    """Yield the rows of the row groups that begin in [start, end). See `read_rows` for the arguments."""
    groups, position = _read_adjoining_groups(stored), 0
    if isinstance(groups, Damage):
        yield TableRow(start, end - start, 0, 0, 0, groups)
        return
    for group in groups:
        if not start <= group.start < end:
            continue
        place = (group.start, group.stop - group.start)
        for number, row in enumerate(read_group_rows(stored, group, columns, LARGE_BATCH_ROWS)):
            if isinstance(row, Damage) and row.problem is not Reason.UNDECODABLE_TEXT:
                yield TableRow(*place, 0, 0, position, row)
                position += max(group.rows - number, 0)
                break
            position += 1
            size = 0 if isinstance(row, Damage) else sum(len(value) for value in row.values() if isinstance(value, str))
            too_large = Damage(Reason.TOO_LARGE, f"{size} characters")
            yield TableRow(*place, number, 1, position, too_large if size > limit else row)
