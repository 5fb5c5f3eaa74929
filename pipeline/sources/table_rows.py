"""Rows of an exported table: JSON Lines, plain or compressed, and Parquet, each with where it lies.

A row of JSON Lines lies at its bytes, stored or decoded. A row of Parquet lies in its row group's stored bytes, and
`inner_offset` is its number in the group, `inner_length` 1.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from filters.formats.compression import BZIP2, GZIP, unpacked
from filters.formats.mediawiki import Damage
from filters.formats.stored import Stored
from filters.formats.stored_file import StoredFile
from filters.formats.stream import PIECE
from filters.reasons import Reason
from manifests.document import Locator
from pipeline.sources.post_tables import pieces_of

PARQUET = b"PAR1"
BATCH = 64
"""rows of Parquet that are held at once"""


class TableRow(NamedTuple):
    """A row, or what is none; it ends at `end`, by what the file's stored bytes are shared out."""

    place: Locator
    end: int
    row: dict[str, Any] | Damage


class _Group(NamedTuple):
    """A row group at [start, stop) of stored bytes; those of a file leave no gap."""

    number: int
    start: int
    stop: int
    rows: int
    decoded: int


def look(stored: Stored, split_bytes: int) -> tuple[list[tuple[int, int, int]], int, int]:
    """Where a table can be cut (its state: by what the stored bytes of each piece are shared out), its decoded bytes,
    and about how many rows it has."""
    size = len(stored)
    if is_parquet(stored):
        groups = _groups(stored)
        if isinstance(groups, Damage):
            return [(0, size, 0)], size, 1
        return _cut(groups, split_bytes), sum(group.decoded for group in groups), sum(group.rows for group in groups)
    if is_compressed(stored):
        decoded = rows = 0
        for chunk in unpacked(stored):
            if isinstance(chunk, bytes):
                decoded, rows = decoded + len(chunk), rows + chunk.count(b"\n")
        return [(0, size, decoded)], decoded, rows
    cuts = [0]
    for wanted in range(split_bytes, size, split_bytes):
        place = _next_line(stored, wanted)
        if cuts[-1] < place < size:
            cuts.append(place)
    rows = sum(chunk.count(b"\n") for chunk in pieces_of(stored, 0, size) if isinstance(chunk, bytes))
    return [(start, end, end - start) for start, end in zip(cuts, [*cuts[1:], size], strict=True)], size, rows


def is_parquet(stored: Stored) -> bool:
    """Whether a table is in Parquet."""
    return bytes(stored[:4]) == PARQUET


def is_compressed(stored: Stored) -> bool:
    """Whether a table is compressed as a whole."""
    return bytes(stored[:3]).startswith((GZIP, BZIP2))


def rows_in(stored: Stored, name: str, start: int, end: int, limit: int, columns: list[str]) -> Iterator[TableRow]:
    """The rows of a piece of a table, in order. Never raises."""
    if is_parquet(stored):
        yield from _parquet_rows(stored, name, start, end, limit, columns)
        return
    packed = is_compressed(stored)
    chunks = unpacked(stored) if packed else pieces_of(stored, start, end)
    for begin, stop, line in _lines(chunks, 0 if packed else start, limit):
        length = stop - begin
        place = (
            Locator(name, 0, len(stored), "", begin, length) if packed else Locator(name, begin, length, "", 0, length)
        )
        yield TableRow(place, stop - (0 if packed else start), line if isinstance(line, Damage) else _parsed(line))


def row_at(stored: Stored, place: Locator, limit: int, columns: list[str]) -> dict[str, Any]:
    """The row at a place. Raises LookupError."""
    if not is_parquet(stored) and not is_compressed(stored):
        found = _parsed(bytes(stored[place.offset : place.offset + place.length]))
        if isinstance(found, dict):
            return found
        raise LookupError(f"{place.file} holds no row at {place.offset}")
    start, end = (place.offset, place.offset + place.length) if is_parquet(stored) else (0, len(stored))
    for item in rows_in(stored, place.file, start, end, limit, columns):
        if item.place == place and isinstance(item.row, dict):
            return item.row
    raise LookupError(f"{place.file} holds no row at {place.inner_offset}")


def _next_line(stored: Stored, position: int) -> int:
    while position < len(stored):
        found = bytes(stored[position : position + PIECE]).find(b"\n")
        if found >= 0:
            return position + found + 1
        position += PIECE
    return len(stored)


def _lines(chunks: Iterable[bytes | Damage], position: int, limit: int) -> Iterator[tuple[int, int, bytes | Damage]]:
    """The lines of decoded bytes from `position` on, each with where it begins and ends; a blank line is part of the
    next."""
    held, begin, place, too_large = bytearray(), position, position, False
    for chunk in chunks:
        if isinstance(chunk, Damage):
            yield begin, place, chunk
            return
        start = 0
        while start < len(chunk):
            newline = chunk.find(b"\n", start)
            stop = newline + 1 if newline >= 0 else len(chunk)
            place += stop - start
            too_large = too_large or len(held) + stop - start > limit
            held += b"" if too_large else chunk[start:stop]
            start = stop
            if newline >= 0 and (too_large or held.strip()):
                yield begin, place, _sized(held, place - begin, too_large)
                held, begin, too_large = bytearray(), place, False
    if too_large or held.strip():
        yield begin, place, _sized(held, place - begin, too_large)


def _sized(line: bytearray, size: int, too_large: bool) -> bytes | Damage:
    return Damage(Reason.TOO_LARGE, f"{size} bytes") if too_large else bytes(line)


def _parsed(line: bytes) -> dict[str, Any] | Damage:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Damage(Reason.CORRUPT_RECORD, f"no JSON: {type(error).__name__}")
    return row if isinstance(row, dict) else Damage(Reason.CORRUPT_RECORD, "JSON that is no row")


def _groups(stored: Stored) -> list[_Group] | Damage:
    """The row groups of a Parquet file, by where they say they begin."""
    try:
        about = pq.ParquetFile(pa.PythonFile(StoredFile(stored), mode="r")).metadata
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        starts = [min(map(_first_page, map(group.column, range(group.num_columns)))) for group in groups]
    except (pa.ArrowException, OSError, ValueError) as error:
        return Damage(Reason.CORRUPT_RECORD, f"no Parquet: {str(error)[:200]}")
    edges = [0, *starts[1:], len(stored)]
    if not groups or any(first >= second for first, second in pairwise(edges)):
        return Damage(Reason.CORRUPT_RECORD, "Parquet without row groups, or with such as do not follow one another")
    return [
        _Group(number, start, stop, group.num_rows, group.total_byte_size)
        for number, (group, start, stop) in enumerate(zip(groups, edges, edges[1:], strict=False))
    ]


def _first_page(column: Any) -> int:
    pages = (column.dictionary_page_offset, column.data_page_offset)
    return int(min(page for page in pages if page is not None))


def _cut(groups: list[_Group], split_bytes: int) -> list[tuple[int, int, int]]:
    """Pieces of about so many bytes; the state of each is its number of rows."""
    pieces = list[tuple[int, int, int]]()
    start = rows = 0
    for group in groups:
        rows += group.rows
        if group.stop - start >= split_bytes or group is groups[-1]:
            pieces.append((start, group.stop, rows))
            start, rows = group.stop, 0
    return pieces


def _parquet_rows(
    stored: Stored, name: str, start: int, end: int, limit: int, columns: list[str]
) -> Iterator[TableRow]:
    groups, position = _groups(stored), 0
    if isinstance(groups, Damage):
        yield TableRow(Locator(name, start, end - start), 0, groups)
        return
    for group in groups:
        if not start <= group.start < end:
            continue
        whole = Locator(name, group.start, group.stop - group.start)
        number = 0
        try:
            for row in _rows_of(stored, group, columns):
                position += 1
                place = Locator(name, whole.offset, whole.length, "", number, 1)
                number += 1
                size = sum(len(value) for value in row.values() if isinstance(value, str))
                large = Damage(Reason.TOO_LARGE, f"{size} characters")
                yield TableRow(place, position, large if size > limit else row)
        except (pa.ArrowException, OSError, ValueError) as error:
            detail = f"a row group that cannot be read: {str(error)[:200]}"
            yield TableRow(whole, position, Damage(Reason.CORRUPT_RECORD, detail))
            position += max(group.rows - number, 0)


def _rows_of(stored: Stored, group: _Group, columns: list[str]) -> Iterator[dict[str, Any]]:
    file = pq.ParquetFile(pa.PythonFile(StoredFile(stored), mode="r"))
    present = [column for column in columns if column in file.schema_arrow.names]
    for batch in file.iter_batches(batch_size=BATCH, row_groups=[group.number], columns=present):
        yield from batch.to_pylist()
