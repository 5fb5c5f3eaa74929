"""Rows of an exported table, JSON Lines or Parquet, and the columns that a recipe names in them.

A damaged row costs itself alone: JSON Lines continue at the next newline, Parquet at the next row group of its footer.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain, pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from filters.formats.stored import FetchedFile, Stored, StoredFile, StoredView
from filters.formats.stream import Chunk, Damage, decode_chunks, decode_stored, is_compressed, settle
from filters.reasons import Reason

PARQUET = b"PAR1"
BOM = b"\xef\xbb\xbf"
BATCH_ROWS = 256  # rows of Parquet held at once
LARGE_BATCH_ROWS = 64  # the same, where a row may be a whole file
NESTING = (
    100  # levels of a row in JSON: how many Python's parser takes depends on its version and on its caller's depth
)
GROUP_BYTES = 4 << 30  # decoded bytes that a row group may state for the columns that are read
_PARQUET_ERRORS = (
    pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, LookupError, NotImplementedError,
)  # fmt: skip


class Line(NamedTuple):
    """A line at [start, stop) of decoded bytes, its newline included, or damage there.

    `stored`: the number of stored bytes that it accounts for.
    """

    start: int
    stop: int
    stored: int
    data: bytes
    problem: Reason | None = None
    detail: str = ""


class Group(NamedTuple):
    """A row group: its number, the stored bytes [start, stop) of its columns, and its stated rows and decoded bytes."""

    number: int
    start: int
    stop: int
    rows: int
    decoded: int


class TableRow(NamedTuple):
    """A row, or the damage in its place.

    A row of JSON Lines lies at its bytes, stored or decoded. A row of Parquet lies in its row group's stored bytes;
    those of all groups leave no gap, `inner_offset` is its number in the group, `inner_length` 1.

    Attributes:
        offset: Where its stored bytes begin.
        length: The number of its stored bytes.
        inner_offset: Where it begins in what these decode to.
        inner_length: Decoded bytes.
        end: Where it ends, in decoded bytes or in rows: the unit by which the stored bytes are divided among rows.
        row: Its columns.
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
    """Find where a table can be cut, without parsing it.

    Returns:
        The pieces (start, end, and the largest `TableRow.end`), the decoded bytes, and about how many rows there are.
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
    """Return where plain lines can be cut into pieces of about `split_bytes`, the file's start and end included."""
    cuts, place = [0], 0
    for wanted in range(split_bytes, len(stored), split_bytes):
        if place < wanted:  # else the line that reaches beyond the wanted place was searched for the place before
            place = stored.find(b"\n", wanted - 1) + 1 or len(stored)
        if cuts[-1] < place < len(stored):
            cuts.append(place)
    return [*cuts, len(stored)]


def read_rows(stored: Stored, start: int, end: int, limit: int, columns: list[str]) -> Iterator[TableRow]:
    """Yield the rows of a piece of a table, in order. Never raises.

    Args:
        stored: The whole file.
        start: A piece's start (see `survey_table`).
        end: A piece's end.
        limit: Bytes of a line, or characters of a row of Parquet; a larger one is damage.
        columns: Those wanted of Parquet.
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
            continue  # a blank line belongs to the next one
        length = line.stop - begin
        place = (0, len(stored), begin, length) if compressed else (begin, length, 0, length)
        yield TableRow(*place, line.stop - base, row)
        begin = -1


def read_lines(stored: StoredView, limit: int, start: int, end: int) -> Iterator[Line]:
    """Yield the plain lines of [start, end), which account for exactly their own bytes.

    A line of more than `limit` bytes is damage and is not held.
    """
    for line in _split_lines(decode_chunks(stored, start, end), limit, start):
        yield line._replace(stored=line.stop - line.start)


def read_compressed_lines(stored: StoredView, limit: int) -> Iterator[Line]:
    """Yield the lines of a file of gzip members or bzip2 streams; damage ends them.

    Each accounts for the stored bytes that were read since the line before, divided by decoded bytes; the last one for
    all that are left.
    """
    size = len(stored)
    lines = settle(_split_lines(decode_chunks(stored, 0, size), limit, 0), size)
    first = next(lines, Line(0, 0, size, b"", Reason.NO_TEXT))
    if size:
        yield first
        yield from lines


def _split_lines(chunks: Iterable[Chunk], limit: int, base: int) -> Iterator[Line]:
    """Yield the lines of decoded chunks, the first of which begins at `base`."""
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
    if size > limit:
        return Line(start, start + size, stored, b"", Reason.TOO_LARGE, f"a line of {size} bytes")
    return Line(start, start + size, stored, b"".join(parts))


def parse_row(data: bytes) -> dict[str, Any] | Damage | None:
    """Return the object in a line, None for a blank one. Of a key given twice the last counts, as C4's readers do."""
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
    if data.count(b"[") + data.count(b"{") > NESTING and _nests_deeper(row, NESTING):
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
    """Return a column's value, or None. `a.b` is a column of that name, else `b` in the object `a`."""
    if not name or name in row:
        return row.get(name)
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def clean_text(value: Any) -> str | Damage | None:
    """Return a column's text without NULs and lone surrogates, which no file of text can hold; None for a null."""
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
    """Return a column's time as ISO 8601 in UTC, or "" if it is not a time. Those of Parquet are bytes."""
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
    """Return the row groups of a Parquet file, by its footer.

    Where they do not lie one after another, each gets all bytes.
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
    """Yield the rows of a row group, with the top-level columns that `names` stand in. Damage ends them."""
    names = [name for name in names if name]
    try:
        file = _open_parquet(stored)
        wanted = {*names, *(name.partition(".")[0] for name in names)}
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
        for batch in file.iter_batches(batch_rows, row_groups=[group.number], columns=present):
            yield from _read_batch(_spell_times(batch))
    except _PARQUET_ERRORS as error:
        yield Damage(Reason.CORRUPT_RECORD, f"a row group that cannot be read: {type(error).__name__}")


def _open_parquet(stored: StoredView) -> pq.ParquetFile:
    return pq.ParquetFile(StoredFile(stored) if isinstance(stored, FetchedFile) else pa.py_buffer(stored))


def _spell_times(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch with its dates and times as ISO 8601 in UTC, in bytes, so that they are not taken for text.

    Python's datetime holds no nanoseconds and no years beyond 9999, and a time zone may be unknown: pyarrow raises, or
    gives other values if pandas is installed.
    """
    original = batch.schema
    for target in (None, pa.string(), pa.binary()):
        schema = pa.schema([field.with_type(_replace_times(field.type, target)) for field in original])
        batch = batch.cast(schema) if schema != batch.schema else batch
    return batch


def _replace_times(kind: pa.DataType, target: pa.DataType | None) -> pa.DataType:
    """Return a type with `target` for the dates and times in it; without a target, with times that have no zone."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_replace_times(field.type, target)) for field in kind])
    if not pa.types.is_temporal(kind):
        return kind
    return target or (pa.timestamp(kind.unit) if pa.types.is_timestamp(kind) else kind)


def _read_batch(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | Damage]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield batch.slice(number, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield Damage(Reason.UNDECODABLE_TEXT, "a row that is not UTF-8")


def _read_adjoining_groups(stored: Stored) -> list[Group] | Damage:
    """Return the row groups with all stored bytes divided among them, or damage if their order does not allow it."""
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
