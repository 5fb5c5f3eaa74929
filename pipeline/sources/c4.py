"""Read C4: its released files, other tables in JSON Lines or Parquet, and WET files from which C4 can be rebuilt.

See LLaMA, section 2.1, and Raffel et al. 2020, section 2.2. The first bytes of a file determine its format. Rows become
documents unchanged. A WET record becomes one page, read as in C4's builder: lines are stripped, and blank lines and
lines that look like headers of an archive are removed.

The locators of rows are

- for a line of plain JSON Lines, the bytes of the line;
- for a line of compressed JSON Lines, all stored bytes, and the offset and length of the line in the decoded bytes;
- for a row of Parquet, the bytes of its row group, with `row-group-N` as the member and the index of the row in the row
  group as the inner offset.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from filters.formats import tables
from filters.formats.stored import Stored
from filters.formats.stream import GZIP, Damage, decode_stored, is_compressed
from filters.formats.tables import Group, Line
from filters.reasons import Reason
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.beam.quarantine import is_quarantined
from pipeline.sources import common_crawl
from pipeline.sources.base import Outcome, Piece, apportion, check_text, cut_pieces

HEADERS = ("WARC", "CONTENT-", "Content-")  # Lines with these beginnings are removed (C4's builder, split_wet_file).


def read(
    stored: Stored, name: str, source: str, recipe: Source, start: int = 0, end: int | None = None, state: int = 0
) -> Iterator[Outcome]:
    """Yield the outcome of each row or record of a file, or of one of its pieces.

    Args:
        stored: The whole file.
        name: The name of the input.
        source: The name of the source.
        recipe: The part of the recipe for the source.
        start: The start of the piece.
        end: The end of the piece, None for the end of the file.
        state: The state of the piece, for archives (see `common_crawl.find_pieces`).
    """
    end = len(stored) if end is None else end
    if is_archive(stored):
        for outcome in common_crawl.read(stored, name, source, _with_wet(recipe), start, end, state):
            yield _strip_lines(outcome)
    elif tables.is_parquet(stored):
        items, total = _read_parquet(stored, name, source, recipe, start, end)
        yield from apportion(items, end - start, total, Outcome(Locator(name, start, end - start), 0))
    else:
        packed, limit = is_compressed(stored), recipe.limits.record_bytes
        lines = tables.read_compressed_lines(stored, limit) if packed else tables.read_lines(stored, limit, start, end)
        for line in lines:
            length = line.stop - line.start
            inside = Locator(name, 0, len(stored), "", line.start, length)
            yield _convert_line(
                line, inside if packed else Locator(name, line.start, length, "", 0, length), source, recipe
            )


def find_pieces(stored: Stored, recipe: Source, split_bytes: int) -> list[Piece]:
    """Return pieces (start, end, state) of about `split_bytes` stored bytes. Compressed JSON Lines are one piece."""
    if is_archive(stored):
        return common_crawl.find_pieces(stored, recipe, split_bytes)
    if tables.is_parquet(stored):
        groups = tables.read_groups(stored)
        starts = [] if isinstance(groups, Damage) else [group.start for group in groups[1:]]
        return cut_pieces(starts, len(stored), split_bytes)
    return cut_pieces([] if is_compressed(stored) else tables.cut_lines(stored, split_bytes), len(stored))


def reread(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
    """Read the row or record at a locator again.

    Raises:
        LookupError: There is no row or record at the locator.
    """
    if is_archive(stored):
        return _strip_lines(common_crawl.reread(stored, locator, source, _with_wet(recipe)))
    outcome = None
    if locator.member:
        outcome = _reread_row(stored, locator, source, recipe)
    elif line := _reread_line(stored, locator):
        outcome = _convert_line(line, locator, source, recipe)
    if outcome is None:
        raise LookupError(f"{locator.file} has changed since it was read: it holds no such row")
    return outcome


def is_archive(stored: Stored) -> bool:
    """Return True if a file is a WARC archive, judged by its first (decoded) bytes."""
    opening = bytes(stored[:4])
    if opening[:2] == GZIP:
        first = next(decode_stored(stored), b"")
        opening = first[:5] if isinstance(first, bytes) else b""
    return opening.startswith(b"WARC")


def _convert_line(line: Line, place: Locator, source: str, recipe: Source) -> Outcome:
    """Return the outcome for a line of JSON Lines."""
    if line.problem is not None:
        return Outcome.drop(place, line.stored, line)
    if is_quarantined(place):
        return Outcome(place, line.stored, reason=Reason.QUARANTINED)
    return _convert_row(tables.parse_row(line.data), place, line.stored, source, recipe)


def _convert_row(
    row: dict[str, Any] | Damage | None, place: Locator, stored: int, source: str, recipe: Source
) -> Outcome:
    """Return the outcome for a row, to which `stored` bytes are attributed. None is a blank line."""
    if isinstance(row, Damage):
        return Outcome.drop(place, stored, row)
    names = recipe.columns
    text, url, *more = (
        tables.clean_text(tables.get_column(row or {}, name)) for name in (names.text, names.url, *names.metadata)
    )
    if isinstance(text, Damage):
        return Outcome.drop(place, stored, text)
    if damage := check_text(text or "", recipe):
        return Outcome.drop(place, stored, damage, url if isinstance(url, str) else "")
    assert row is not None and text is not None, "else the text would be blank"
    metadata = {name: value for name, value in zip(names.metadata, more, strict=True) if isinstance(value, str)}
    time = tables.format_time(tables.get_column(row, names.timestamp))
    document = Document(source, place, text, url if isinstance(url, str) else "", time, recipe.licence, metadata)
    return Outcome(place, stored, document)


def _read_parquet(
    stored: Stored, name: str, source: str, recipe: Source, start: int, end: int
) -> tuple[Iterator[tuple[int, Outcome]], int]:
    """Read the row groups that begin in [start, end).

    Returns:
        An iterator over (number of rows up to and including this one, outcome), and the number of rows by the footer.
    """
    groups, whole = tables.read_groups(stored), Locator(name, start, end - start)
    if isinstance(groups, Damage):
        return iter([(0, Outcome.drop(whole, 0, groups))]), 0
    mine = [group for group in groups if start <= (group.start if group.number else 0) < end]
    total = sum(group.rows for group in mine)

    def outcomes() -> Iterator[tuple[int, Outcome]]:
        done = 0
        for group in mine:
            place = _locate_group(group, name)
            rows = tables.read_group_rows(stored, group, _column_names(recipe))
            for number, row in enumerate(islice(rows, group.rows)):
                ends_group = isinstance(row, Damage) and row.problem is not Reason.UNDECODABLE_TEXT
                length = group.rows - number if ends_group else 1
                done += length
                here = replace(place, inner_offset=number, inner_length=length)
                if is_quarantined(here):
                    yield done, Outcome(here, 0, reason=Reason.QUARANTINED)
                else:
                    yield done, _convert_row(row, here, 0, source, recipe)
        if not total:
            yield 0, Outcome(whole, 0, reason=Reason.NO_TEXT, detail="no rows")
        elif done < total:
            yield total, Outcome(whole, 0, reason=Reason.CORRUPT_RECORD, detail="fewer rows than stated")

    return outcomes(), total


def _locate_group(group: Group, name: str) -> Locator:
    """Return the locator of a row group of the input `name`."""
    return Locator(name, group.start, group.stop - group.start, f"row-group-{group.number}")


def _column_names(recipe: Source) -> list[str]:
    """Return the names of the columns that the recipe uses."""
    names = recipe.columns
    return [names.text, names.url, names.timestamp, *names.metadata]


def _reread_row(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome | None:
    """Return the outcome of the row of Parquet at a locator, or None if there is no such row."""
    groups = tables.read_groups(stored) if tables.is_parquet(stored) else []
    for group in [] if isinstance(groups, Damage) else groups:
        number, place = locator.inner_offset, _locate_group(group, locator.file)
        if replace(place, inner_offset=number, inner_length=1) == locator:
            rows = tables.read_group_rows(stored, group, _column_names(recipe))
            row = next(islice(rows, number, None), None)
            return None if row is None else _convert_row(row, locator, 0, source, recipe)
    return None


def _reread_line(stored: Stored, locator: Locator) -> Line | None:
    """Return the line at a locator, or None if there is no line with exactly this start and end."""
    start, length = locator.inner_offset, locator.inner_length
    if not is_compressed(stored):
        line = next(tables.read_lines(stored, length, locator.offset, locator.offset + locator.length), None)
        before = bytes(stored[locator.offset - 1 : locator.offset])
        return line if line and line.stop == locator.offset + length and before in (b"", b"\n") else None
    if locator.length != len(stored):
        return None
    line = next((line for line in tables.read_compressed_lines(stored, length) if line.start >= start), None)
    return line if line and (line.start, line.stop) == (start, start + length) else None


def _with_wet(recipe: Source) -> Source:
    """Return a copy of a source's recipe in which only WET records are read."""
    return recipe.model_copy(update={"extractor": "wet"})


def _strip_lines(outcome: Outcome) -> Outcome:
    """Strip the lines of a WET record, and remove headers and blank lines, as C4's builder does."""
    if outcome.document is None:
        return outcome
    lines = [line.strip() for line in outcome.document.text.splitlines()]
    text = "\n".join(line for line in lines if line and not line.startswith(HEADERS))
    if not text:
        return Outcome(outcome.locator, outcome.stored, reason=Reason.NO_TEXT, url=outcome.document.url)
    return replace(outcome, document=replace(outcome.document, text=text))
