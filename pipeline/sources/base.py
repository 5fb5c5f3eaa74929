"""Define the interfaces of source readers, their registry, and functions that several readers use.

A reader returns one outcome per record, and raises no exception for a damaged record.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import Any, Literal, Protocol, TypeVar

from filters.errors import UserError
from filters.formats.stored import Stored
from filters.reasons import AnyReason, Reason
from filters.rule import Page
from filters.rule_list import first_reason
from manifests.document import Document, Locator, Part
from manifests.source import Source

# The module of the reader for each kind of source. Modules are imported on demand, so that a change to one reader does
# not change the code version of other sources.
READERS = {
    "arxiv": "pipeline.sources.arxiv",
    "books": "pipeline.sources.books",
    "c4": "pipeline.sources.c4",
    "common_crawl": "pipeline.sources.common_crawl",
    "wikipedia": "pipeline.sources.wikipedia",
}
JOINED = {"github": "pipeline.sources.github", "stackexchange": "pipeline.sources.stackexchange"}
GITHUB_TABLES = "pipeline.sources.github_bigquery"
Piece = tuple[int, int, int]  # (start, end, state): a range of stored bytes, and an integer that the reader defines


class Problem(Protocol):
    """Attributes, of a record in any file format, that say why the record cannot be read. `Damage` has only these."""

    @property
    def problem(self) -> AnyReason | None:
        """The reason, or None if the record can be read."""

    @property
    def detail(self) -> str:
        """A description of the problem."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of reading one record: a document, or the reason for dropping it.

    Attributes:
        locator: The location of the record's stored bytes.
        stored: The number of stored bytes that are attributed to the record. The sum over all outcomes of a file is the
            size of the file. A joined document has the stored bytes of all its rows. Each other row of the document has
            a separate outcome with the reason `joined` and 0 stored bytes.
        document: The document; None for a dropped record.
        reason: The reason for dropping the record; None for a document.
        detail: A description of the problem, for the dead letters.
        url: The URL of a dropped page, which makes dead letters searchable; "" if the record has none.
    """

    locator: Locator
    stored: int
    document: Document | None = None
    reason: AnyReason | None = None
    detail: str = ""
    url: str = ""

    @classmethod
    def drop(cls, locator: Locator, stored: int, problem: Problem, url: str = "") -> "Outcome":
        """Return the outcome of a record that cannot be read or kept."""
        return cls(locator, stored, reason=problem.problem, detail=problem.detail, url=url)


class Reader(Protocol):
    """The interface of a reader for sources in which each record becomes at most one document."""

    def read(
        self, stored: Stored, name: str, source: str, recipe: Source, start: int, end: int | None, state: int
    ) -> Iterator[Outcome]:
        """Yield the outcome of every record of a file, or of a piece of a file, in order.

        Args:
            stored: The bytes of the whole file.
            name: The name of the input.
            source: The name of the source.
            recipe: The part of the recipe for the source.
            start: The start of the piece.
            end: The end of the piece; None for the end of the file.
            state: The state of the piece, see `Piece`.
        """

    def find_pieces(self, stored: Stored, recipe: Source, split_bytes: int) -> list[Piece]:
        """Cut a file into pieces of about `split_bytes`.

        Reading the pieces one by one must give the same outcomes as reading the whole file.
        """

    def reread(self, stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
        """Read one record again. Raises LookupError if there is no such record at the locator."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a joined source.

    Attributes:
        group: The join key. Rows with the same key are joined.
        locator: The location of the row's stored bytes.
        stored: The number of stored bytes that are attributed to the row.
        data: The content of the row, in a format that the reader defines.
    """

    group: bytes
    locator: Locator
    stored: int
    data: bytes

    @property
    def place(self) -> tuple[str, int, str, int]:
        """The sort key of the rows of a group: file, offset, member, inner offset."""
        return self.locator.file, self.locator.offset, self.locator.member, self.locator.inner_offset


@dataclass(frozen=True, slots=True)
class Survey:
    """The size and the pieces of a file of a joined source.

    Attributes:
        pieces: The pieces of the file, as for `Reader.find_pieces`.
        decoded: The number of bytes after decompression.
        rows: The approximate number of rows.
        counts: Integers by name, which `JoinedReader.collect_shared` receives.
    """

    pieces: list[Piece]
    decoded: int
    rows: int
    counts: dict[str, int]


class JoinedReader(Protocol):
    """The interface of a reader for sources in which a document is joined from several rows of any files.

    See `pipeline.stages.join`.
    """

    @property
    def ROUNDS(self) -> int:  # noqa: N802  # a constant of the module
        """The number of rounds in which rows are grouped by key."""

    def survey(self, stored: Stored, name: str, recipe: Source, split_bytes: int) -> Survey:
        """Count the rows of a file and cut it into pieces, without parsing it completely."""

    def select_round(self, name: str, recipe: Source) -> int:
        """Return the round (from 0) in which the rows of a file are grouped."""

    def collect_shared(self, source: str, recipe: Source, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
        """Return values that all splits need, computed from the counts of all files.

        Args:
            source: The name of the source.
            recipe: The part of the recipe for the source.
            counts: `Survey.counts` by name of the input.

        Returns:
            Values by name that can be written as JSON.

        Raises:
            UserError: The files do not fit the source.
        """

    def read_rows(
        self, stored: Stored, name: str, recipe: Source, shared: Mapping[str, Any], start: int, end: int, state: int
    ) -> Iterator[Row | Outcome]:
        """Yield the rows of a piece of a file, or outcomes for rows that are not joined, in order."""

    def combine(self, rows: list[Row], source: str, recipe: Source, number: int) -> Iterator[Row | Outcome]:
        """Join the rows of one group.

        Args:
            rows: The rows of the group, sorted by `Row.place`.
            source: The name of the source.
            recipe: The part of the recipe for the source.
            number: The number of the round, from 0.

        Yields:
            Rows for the next round (except in the last round), documents, and an outcome for every other row.
        """

    def reread(self, stored: Mapping[str, Stored], locator: Locator, source: str, recipe: Source) -> Outcome:
        """Read one document again from the files that its locator and the locator's parts name.

        Raises:
            LookupError: The files do not contain this document.
        """


_Item = TypeVar("_Item", bound=Row | Outcome)


def apportion(items: Iterable[tuple[int, _Item]], size: int, total: int, empty: _Item) -> Iterator[_Item]:
    """Distribute `size` stored bytes over items in proportion to their lengths. Yield the items with `stored` set.

    Args:
        items: Pairs (end, item), where `end` is the position behind the item in decoded bytes or rows.
        size: The number of stored bytes to distribute.
        total: The expected last position. The actual one may differ. The last item gets the remainder.
        empty: The item that gets all stored bytes if `items` is empty.
    """
    last, accounted, share = empty, 0, 0
    for number, (position, item) in enumerate(items):
        if number:
            yield replace(last, stored=share)
        share = max(size * min(position, total) // max(total, 1) - accounted, 0)
        accounted += share
        last = item
    yield replace(last, stored=share + size - accounted)


@dataclass(frozen=True, slots=True)
class Dropped:
    """The reason for dropping a record, and a sentence for the dead letters."""

    problem: AnyReason
    detail: str = ""


def check_length(text: str, recipe: Source, language: str = "") -> Dropped | None:
    """Return why a text is dropped, or None to keep it.

    A text is dropped if it is longer than the recipe's limit, or by a filter rule that runs in the stage `extract`.
    """
    if len(text) > recipe.limits.text_characters:
        return Dropped(Reason.TOO_LARGE, f"{len(text)} characters")
    reason = first_reason(recipe.filters, Page(text, language=language))
    return Dropped(reason) if reason is not None else None


def check_text(text: str, recipe: Source) -> Dropped | None:
    """Return why a text is dropped (it is blank, too long, or dropped by a filter rule), or None to keep it."""
    return Dropped(Reason.NO_TEXT) if not text or text.isspace() else check_length(text, recipe)


def cut_pieces(places: Iterable[int], size: int, least: int = 1) -> list[Piece]:
    """Cut a file at the given positions and return the pieces, with state 0.

    Args:
        places: Positions at which the file may be cut, in ascending order.
        size: The size of the file in bytes.
        least: The least size of a piece in bytes, except for the last piece.
    """
    cuts = [0]
    for place in places:
        if place - cuts[-1] >= least and place < size:
            cuts.append(place)
    return [(start, end, 0) for start, end in pairwise([*cuts, size])]


def byte_range(place: Locator | Part) -> tuple[str, int, int, str, int, int]:
    """Return the fields that `Locator` and `Part` have in common, in the order of their constructors."""
    return place.file, place.offset, place.length, place.member, place.inner_offset, place.inner_length


def joined_for(source: Source) -> JoinedReader | None:
    """Return the reader of a source whose documents are joined from rows, or None for other sources."""
    tables = source.kind == "github" and source.github.form == "tables"
    module = GITHUB_TABLES if tables else JOINED.get(source.kind or "")
    reader: JoinedReader | None = import_module(module) if module else None
    return reader


def reader_for(name: str, source: Source) -> Reader:
    """Return the reader of a source. Raises UserError for a kind that this version cannot read."""
    if ":" in (source.kind or ""):
        from pipeline.sources.custom import custom_reader  # a local import, because `custom` imports this module

        return custom_reader(name, source)
    module = READERS.get(source.kind or "")
    if module is None:
        raise UserError(
            f"source {name}: this version reads no {source.kind} yet, only {', '.join(sorted([*READERS, *JOINED]))}: "
            "leave its inputs empty"
        )
    reader: Reader = import_module(module)
    return reader


def code_of(reader: Reader, use: Literal["read", "find_pieces"]) -> Callable[..., Any]:
    """Return the object whose code is hashed into cache keys of the steps that read or cut a source's files.

    It is the function `use` of a reader module, or the class of a user's reader.
    """
    found: Callable[..., Any] = getattr(reader, use) if isinstance(reader, ModuleType) else type(reader)
    return found


def check_readable(name: str, source: Source) -> None:
    """Raise UserError for a kind that this version cannot read."""
    if joined_for(source) is None:
        reader_for(name, source)
