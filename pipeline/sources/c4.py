"""C4: its released files, any JSON lines or Parquet with a column mapping, and WET files to rebuild it from (LLaMA
section 2.1; Raffel et al. 2020, section 2.2).

What a file is shows in its first bytes. Rows become documents as they are. A WET record becomes one page as C4's
builder reads it: lines stripped, blank ones and what looks like a header of the archive left out.
Locators: a JSON line's is its bytes, in a compressed file its decoded bytes with all stored ones; a Parquet row's is
its row group's bytes, with `row-group-N` as member, and as inner offset the row's number in it.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise

from filters.formats import tables
from filters.formats.compression import GZIP, decode_stored, is_compressed
from filters.formats.stream import Damage, Stored
from filters.formats.tables import Group, Line
from filters.reasons import Reason
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.sources import common_crawl
from pipeline.sources.base import Outcome

HEADERS = ("WARC", "CONTENT-", "Content-")
"""lines that begin so are no text (C4's builder, split_wet_file)"""
GROUP = "row-group-"


def read(
    stored: Stored, name: str, source: str, recipe: Source, start: int = 0, end: int | None = None, state: int = 0
) -> Iterator[Outcome]:
    """Every row or record of a file, or of one of its `pieces`, in order."""
    end = len(stored) if end is None else end
    if is_archive(stored):
        for outcome in common_crawl.read(stored, name, source, _as_wet(recipe), start, end, state):
            yield _page(outcome, recipe)
    elif tables.is_parquet(stored):
        yield from _parquet(stored, name, source, recipe, start, end)
    else:
        packed = is_compressed(stored)
        limit = recipe.limits.record_bytes
        lines = tables.read_compressed_lines(stored, limit) if packed else tables.read_lines(stored, limit, start, end)
        for line in lines:
            yield _line(line, _place(line, name, len(stored) if packed else 0), source, recipe)


def pieces(stored: Stored, recipe: Source, split_bytes: int) -> list[tuple[int, int, int]]:
    """Where a file can be cut: between lines, row groups or records; compressed lines nowhere."""
    if is_archive(stored):
        return common_crawl.pieces(stored, recipe, split_bytes)
    cuts = [0]
    if tables.is_parquet(stored):
        found = tables.read_groups(stored)
        for group in [] if isinstance(found, Damage) else found[1:]:
            if group.start - cuts[-1] >= split_bytes:
                cuts.append(group.start)
    elif not is_compressed(stored):
        cuts = tables.cut_lines(stored, split_bytes)[:-1]
    return [(begin, stop, 0) for begin, stop in pairwise([*cuts, len(stored)])]


def reread(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
    """The row or record at a locator. Raises LookupError when those bytes hold no such one."""
    if is_archive(stored):
        return _page(common_crawl.reread(stored, locator, source, _as_wet(recipe)), recipe)
    outcome = None
    if locator.member:
        outcome = _reread_row(stored, locator, source, recipe)
    else:
        line = _reread_line(stored, locator)
        if line is not None:
            outcome = _line(line, locator, source, recipe)
    if outcome is None:
        raise LookupError(f"{locator.file} is not the file that was read: it holds no such row")
    return outcome


def is_archive(stored: Stored) -> bool:
    """Whether a file is a web archive."""
    opening = bytes(stored[:4])
    if opening[:2] == GZIP:
        first = next(decode_stored(stored), b"")
        opening = first[:5] if isinstance(first, bytes) else b""
    return opening.startswith(b"WARC")


def _place(line: Line, name: str, packed: int) -> Locator:
    """Where a line lies; `packed`: the stored bytes of its compressed file, 0 if it is none."""
    length = line.stop - line.start
    return (
        Locator(name, 0, packed, "", line.start, length) if packed else Locator(name, line.start, length, "", 0, length)
    )


def _line(line: Line, place: Locator, source: str, recipe: Source) -> Outcome:
    if line.problem is not None:
        return Outcome(place, line.stored, reason=line.problem, detail=line.detail)
    return _row(tables.parse_row(line.data), place, line.stored, source, recipe)


def _row(row: dict[str, object] | Damage | None, place: Locator, stored: int, source: str, recipe: Source) -> Outcome:
    """A row as a document, or why it is none."""
    names = recipe.columns
    text = row if isinstance(row, Damage) else tables.clean_text(tables.get_column(row, names.text)) if row else None
    if isinstance(text, Damage) or isinstance(row, Damage):
        damage = text if isinstance(text, Damage) else row
        assert isinstance(damage, Damage), "one of them is"
        return Outcome(place, stored, reason=damage.problem, detail=damage.detail)
    if row is None or text is None or not text.strip():
        return Outcome(place, stored, reason=Reason.NO_TEXT)
    if len(text) > recipe.limits.text_characters:
        return Outcome(place, stored, reason=Reason.TOO_LARGE, detail=f"{len(text)} characters")
    if len(text) < recipe.min_characters:
        return Outcome(place, stored, reason=Reason.TOO_SHORT)
    url = tables.clean_text(tables.get_column(row, names.url))
    more = {name: tables.clean_text(tables.get_column(row, name)) for name in names.metadata}
    metadata = {name: value for name, value in more.items() if isinstance(value, str)}
    time = tables.format_time(tables.get_column(row, names.timestamp))
    document = Document(source, place, text, url if isinstance(url, str) else "", time, recipe.licence, metadata)
    return Outcome(place, stored, document)


def _parquet(stored: Stored, name: str, source: str, recipe: Source, start: int, end: int) -> Iterator[Outcome]:
    """The rows of the row groups that begin in [start, end), each with its share of the bytes."""
    found = tables.read_groups(stored)
    if isinstance(found, Damage):
        yield Outcome(Locator(name, start, end - start), end - start, reason=found.problem, detail=found.detail)
        return
    mine = [group for group in found if start <= (group.start if group.number else 0) < end]
    total, done, accounted = sum(group.rows for group in mine), 0, 0
    for group in mine:
        place = _group_place(group, name)
        for number, row in enumerate(islice(tables.read_group_rows(stored, group, _names(recipe)), group.rows)):
            rest = isinstance(row, Damage) and row.problem is not Reason.UNDECODABLE_TEXT
            length = group.rows - number if rest else 1
            done += length
            share = (end - start) * done // total - accounted
            accounted += share
            yield _row(row, replace(place, inner_offset=number, inner_length=length), share, source, recipe)
    if done < total or not total:
        reason, detail = (Reason.CORRUPT_RECORD, "fewer rows than stated") if total else (Reason.NO_TEXT, "no rows")
        left = end - start - accounted
        yield Outcome(Locator(name, start, end - start), left, reason=reason, detail=detail)


def _group_place(group: Group, name: str) -> Locator:
    return Locator(name, group.start, group.stop - group.start, f"{GROUP}{group.number}")


def _names(recipe: Source) -> list[str]:
    names = recipe.columns
    return [names.text, names.url, names.timestamp, *names.metadata]


def _reread_row(stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome | None:
    found = tables.read_groups(stored) if tables.is_parquet(stored) else []
    groups = [] if isinstance(found, Damage) else found
    named = {f"{GROUP}{group.number}": group for group in groups}.get(locator.member)
    if (
        named is None
        or replace(_group_place(named, locator.file), inner_offset=locator.inner_offset, inner_length=1) != locator
    ):
        return None
    some = tables.read_group_rows(stored, named, _names(recipe))
    row = next(islice(some, locator.inner_offset, None), None)
    return None if row is None else _row(row, locator, 0, source, recipe)


def _reread_line(stored: Stored, locator: Locator) -> Line | None:
    """The line at a locator, None if none begins and ends there."""
    start, length = locator.inner_offset, locator.inner_length
    if not is_compressed(stored):
        found = tables.read_lines(stored, length, locator.offset, locator.offset + locator.length)
        line = next(found, None)
        before = bytes(stored[locator.offset - 1 : locator.offset])
        return line if line and line.stop == locator.offset + length and before in (b"", b"\n") else None
    if locator.length != len(stored):
        return None
    for line in tables.read_compressed_lines(stored, length):
        if line.start >= start:
            return line if (line.start, line.stop) == (start, start + length) else None
    return None


def _as_wet(recipe: Source) -> Source:
    return recipe.model_copy(update={"extractor": "wet"})


def _page(outcome: Outcome, recipe: Source) -> Outcome:
    """A WET record's text as C4's builder has it."""
    if outcome.document is None:
        return outcome
    lines = [line.strip() for line in outcome.document.text.splitlines()]
    text = "\n".join(line for line in lines if line and not line.startswith(HEADERS))
    if not text:
        return Outcome(outcome.locator, outcome.stored, reason=Reason.NO_TEXT)
    return replace(outcome, document=replace(outcome.document, text=text))
