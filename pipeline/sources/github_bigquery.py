"""Read exports of BigQuery's `github_repos`: the tables `licenses`, `files` and `contents`, as Parquet or JSON Lines.

The tables are joined in two rounds of `pipeline.stages.join`. Round 0 joins licences and files by repository. Round 1
joins the files of repositories with an allowed licence and contents by content id.

Each content is one document. It has the repository and the path of its first file (ordered by repository and path), and
the number of its files as metadata. RedPajama joins the tables row by row, which gives one document per file.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from filters.code.licences import UNKNOWN, is_allowed, join_licences
from filters.errors import UserError
from filters.formats.stored import Stored
from filters.formats.stream import Damage, is_compressed
from filters.formats.tables import TableRow, survey_table
from filters.formats.tables import read_rows as read_table_rows
from filters.formats.tar import is_safe_path
from filters.reasons import Reason
from manifests.document import Locator, Part
from manifests.files import canonical_json
from manifests.source import Source
from pipeline.beam.quarantine import is_quarantined
from pipeline.sources.base import Dropped, Outcome, Row, Survey, apportion, byte_range
from pipeline.sources.github import Code, check_path, make_document, read_code

ROUNDS = 2
COLUMNS = {
    "licenses": ["repo_name", "license"],
    "files": ["repo_name", "ref", "path", "mode", "id"],
    "contents": ["id", "binary", "content"],
}
_TABLE = re.compile(r"(?<![a-z])(licenses|files|contents)(?![a-z])")
# The kind of a regular file in Git's file modes, and the mask of the kind. Symbolic links and submodules have others.
_REGULAR_FILE, _KIND = 0o100000, 0o170000
_LICENCE, _FILE, _CONTENT = b"L", b"F", b"C"  # first byte of a row's data


def table_of(name: str) -> str:
    """Return the table that a file belongs to, by its name or a folder's name, or "" if none of them names a table."""
    found = _TABLE.findall(name.lower())
    return found[-1] if found else ""


def survey(stored: Stored, name: str, recipe: Source, split_bytes: int) -> Survey:
    """Count the rows and decoded bytes of a file, and cut it into pieces."""
    return Survey(*survey_table(stored, split_bytes), {})


def select_round(name: str, recipe: Source) -> int:
    """Return 1 for files of the table `contents`, and 0 for other tables."""
    return int(table_of(name) == "contents")


def collect_shared(source: str, recipe: Source, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Check that all tables are given, and return an empty dict.

    Raises:
        UserError: A file does not name its table, or a table is missing.
    """
    tables = {table_of(name): name for name in counts}
    if "" in tables:
        raise UserError(
            f"source {source}: {tables['']} does not name its table: call the file, or the folder it is in, after it: "
            f"{', '.join(COLUMNS)}"
        )
    for table in COLUMNS:
        if table not in tables:
            raise UserError(f"source {source}: no file of the table {table} is given: give a glob above all tables")
    return {}


def read_rows(
    stored: Stored, name: str, recipe: Source, shared: Mapping[str, Any], start: int, end: int, state: int
) -> Iterator[Row | Outcome]:
    """Yield the rows of a piece. Licences and files have the repository as group, and contents have the id.

    The state of a piece is the largest `TableRow.end` in it.
    """
    table, limit = table_of(name), recipe.limits.record_bytes
    rows = read_table_rows(stored, start, end, limit, COLUMNS[table])
    items = ((item.end, _make_row(_locate(name, item), item.row, table, recipe)) for item in rows)
    reason = Reason.UNUSED_ROW if end - start < len(stored) else Reason.UNSUPPORTED_FORMAT
    nothing = Outcome(Locator(name, start, end - start), 0, reason=reason, detail="no rows")
    if start < end:
        yield from apportion(items, end - start, state, nothing)


def _make_row(place: Locator, row: dict[str, Any] | Damage, table: str, recipe: Source) -> Row | Outcome:
    """Return a table row as a row for the join, or the outcome of a row that is dropped."""
    if isinstance(row, Damage):
        return Outcome.drop(place, 0, row)
    if is_quarantined(place):
        return Outcome(place, 0, reason=Reason.QUARANTINED)
    if table == "licenses":
        named = _get_texts(row, "repo_name", "license")
        return Row(named[0], place, 0, _LICENCE + named[1]) if named else _drop_broken(place, table)
    if table == "files":
        return _make_file_row(place, row, recipe)
    (identifier,) = _get_texts(row, "id") or (b"",)
    if not identifier:
        return _drop_broken(place, table)
    if row.get("binary") in (True, "true"):
        return Outcome(place, 0, reason=Reason.NOT_PLAIN_TEXT)
    content = row.get("content")
    if content is None:  # BigQuery leaves out files of 1 MiB or more
        return Outcome(place, 0, reason=Reason.NO_TEXT)
    if not isinstance(content, str):
        return _drop_broken(place, table)
    return Row(identifier, place, 0, _CONTENT + content.encode("utf-8", "replace"))


def _make_file_row(place: Locator, row: dict[str, Any], recipe: Source) -> Row | Outcome:
    """Return a row of the table `files` as a row for the join, or the outcome of a row that is dropped."""
    named = _get_texts(row, "repo_name", "path", "id")
    if named is None:
        return _drop_broken(place, "files")
    repository, path, identifier = (part.decode() for part in named)
    (ref,) = _get_texts(row, "ref") or (b"",)
    mode = str(row.get("mode") or _REGULAR_FILE)
    if not mode.isdecimal() or int(mode[:9]) & _KIND != _REGULAR_FILE:
        return Outcome(place, 0, reason=Reason.FILE_TYPE)
    if not is_safe_path(path):
        return Outcome(place, 0, reason=Reason.UNSAFE_PATH, detail=path[:200])
    reason = check_path(path, recipe)
    if reason is not None:
        return Outcome(place, 0, reason=reason)
    about = {"repository": repository, "path": path, "id": identifier, "ref": ref.decode()}
    return Row(named[0], place, 0, _FILE + canonical_json(about))


def _get_texts(row: dict[str, Any], *columns: str) -> tuple[bytes, ...] | None:
    """Return the values of columns in UTF-8, or None if a value is not a string, is empty, or has 64 KiB or more."""
    values = [row.get(column) for column in columns]
    found = tuple(value.encode("utf-8", "replace") for value in values if isinstance(value, str) and value)
    return found if len(found) == len(columns) and max(map(len, found)) < 1 << 16 else None


def _drop_broken(place: Locator, table: str) -> Outcome:
    detail = f"not a row of {table}: a column is missing or not a text"
    return Outcome(place, 0, reason=Reason.CORRUPT_RECORD, detail=detail)


def combine(rows: list[Row], source: str, recipe: Source, number: int) -> Iterator[Row | Outcome]:
    """Join the rows of one group.

    Round 0 yields the files of a repository, with the content id as group, if its licence is allowed. Round 1 yields
    the document of a content. Both yield outcomes for all other rows.
    """
    first = _LICENCE if number == 0 else _CONTENT
    leading = [row for row in rows if row.data[:1] == first]
    files = [row for row in rows if row.data[:1] == _FILE]
    return _join_licences(leading, files, recipe) if number == 0 else _join_content(leading, files, source, recipe)


def _join_licences(licences: list[Row], files: list[Row], recipe: Source) -> Iterator[Row | Outcome]:
    """Yield the files of a repository with its licence and the content id as group, or outcomes if it is not kept."""
    names = {name.lower(): name for name in recipe.github.licences}
    stated = {row.data[1:].decode(): row for row in reversed(licences)}
    licence = join_licences(names.get(name.lower(), name) for name in stated) or UNKNOWN
    kept = is_allowed(licence, recipe.github.licences)
    for row in licences:
        used = kept and files and stated[row.data[1:].decode()] is row
        yield Outcome(row.locator, row.stored, reason=Reason.JOINED if used else Reason.UNUSED_ROW)
    parts = [byte_range(stated[name].locator) for name in sorted(stated)]
    for row in files:
        if not kept:
            yield Outcome(row.locator, row.stored, reason=Reason.NO_LICENCE)
            continue
        about = {**json.loads(row.data[1:]), "licence": licence, "licences": parts}
        yield Row(about["id"].encode(), row.locator, row.stored, _FILE + canonical_json(about))


def _join_content(contents: list[Row], files: list[Row], source: str, recipe: Source) -> Iterator[Outcome]:
    """Yield the document of a content and the outcomes of its files.

    Args:
        contents: The rows of the table `contents` with one content id. All but the first are dropped.
        files: The files with this content id.
        source: The name of the source.
        recipe: The part of the recipe for the source.
    """
    for row in contents[1:]:
        yield Outcome(row.locator, row.stored, reason=Reason.OLDER_COPY)
    if not contents or not files:
        yield from (Outcome(row.locator, row.stored, reason=Reason.UNUSED_ROW) for row in (*contents[:1], *files))
        return
    content, places = contents[0], [(json.loads(row.data[1:]), row) for row in files]
    about, named = min(places, key=lambda place: (place[0]["repository"], place[0]["path"], place[0]["ref"]))
    code = read_code(content.data[1:], about["path"], recipe)
    licence = (code.licence if isinstance(code, Code) else "") or about["licence"]
    if isinstance(code, Code) and not is_allowed(licence, recipe.github.licences):
        code = Dropped(Reason.NO_LICENCE)
    if isinstance(code, Dropped):
        yield Outcome(content.locator, content.stored, reason=code.problem, detail=about["path"])
        yield from (Outcome(row.locator, row.stored, reason=Reason.UNUSED_ROW) for row in files)
        return
    parts = (Part(*byte_range(named.locator)), *(Part(*numbers) for numbers in about["licences"]))
    place = replace(content.locator, parts=parts)
    names = about["repository"], about["path"], about["ref"]
    document = make_document(source, place, code, *names, licence, places=len(files))
    yield Outcome(place, content.stored + sum(row.stored for row in files), document)
    yield from (Outcome(row.locator, 0, reason=Reason.JOINED) for row in files)


def reread(stored: Mapping[str, Stored], locator: Locator, source: str, recipe: Source) -> Outcome:
    """Read the document at a locator again, with only its first file.

    Raises:
        LookupError: The files do not contain this document.
    """
    places = [replace(locator, parts=()), *(Locator(*byte_range(part)) for part in locator.parts)]
    rows = list[Row]()
    for place in places:
        table = table_of(place.file)
        found = _reread_row(stored[place.file], place, recipe.limits.record_bytes, COLUMNS[table])
        row = _make_row(place, found, table, recipe)
        if isinstance(row, Row):
            rows.append(row)
    content = [row for row in rows if row.data[:1] == _CONTENT]
    files = [row for row in combine(rows, source, recipe, 0) if isinstance(row, Row)]
    for outcome in _join_content(content, files, source, recipe):
        if outcome.document is not None and outcome.document.locator == locator:
            return outcome
    raise LookupError(f"{locator.file} has changed since it was read: its rows make no such document")


def _locate(name: str, row: TableRow) -> Locator:
    return Locator(name, row.offset, row.length, "", row.inner_offset, row.inner_length)


def _reread_row(stored: Stored, place: Locator, limit: int, columns: list[str]) -> dict[str, Any]:
    """Return the row of a table at a locator. Raises LookupError if there is none."""
    start, end = (0, len(stored)) if is_compressed(stored) else (place.offset, place.offset + place.length)
    for item in read_table_rows(stored, start, end, limit, columns):
        if _locate(place.file, item) == place and isinstance(item.row, dict):
            return item.row
    raise LookupError(f"{place.file} holds no row at {place.inner_offset or place.offset}")
