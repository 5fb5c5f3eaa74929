"""The contract of the sources' readers, what they have in common, and their registry.

A reader returns one outcome per record, and raises no exception for a damaged one.
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

# Modules of readers by a source's kind, loaded on demand: a reader's code is no part of another source's code version.
READERS = {
    "arxiv": "pipeline.sources.arxiv",
    "books": "pipeline.sources.books",
    "c4": "pipeline.sources.c4",
    "common_crawl": "pipeline.sources.common_crawl",
    "wikipedia": "pipeline.sources.wikipedia",
}
JOINED = {"github": "pipeline.sources.github", "stackexchange": "pipeline.sources.stackexchange"}
GITHUB_TABLES = "pipeline.sources.github_bigquery"
Piece = tuple[int, int, int]  # start and end in stored bytes, and the reader's state at the start


class Problem(Protocol):
    """The part of a format's records that says why one cannot be read; `Damage` is nothing else."""

    @property
    def problem(self) -> AnyReason | None:
        """Return the reason, None for a sound record."""

    @property
    def detail(self) -> str:
        """Return what exactly is wrong."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of reading one record: a document, or the reason for dropping it.

    Attributes:
        locator: The record's stored bytes.
        stored: The number of stored bytes that it accounts for; over a file they add up to its size. For a joined
            document they are those of all its rows; each row but the one that names it is an outcome of its own, with
            the reason `joined` and no stored bytes.
        document: None for a dropped record.
        reason: None for a document.
        detail: What exactly was wrong, for the dead letters.
        url: Of a dropped page, for people who look for it; empty if the record names none.
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
    """A source whose files become documents record by record."""

    def read(
        self, stored: Stored, name: str, source: str, recipe: Source, start: int, end: int | None, state: int
    ) -> Iterator[Outcome]:
        """Yield the outcome of every record of a file, or of one of its pieces, in order.

        Args:
            stored: The whole file.
            name: The input's name.
            source: The source's name.
            recipe: The source's part of the recipe.
            start: A piece's start.
            end: A piece's end; None for the file's.
            state: A piece's state.
        """

    def find_pieces(self, stored: Stored, recipe: Source, split_bytes: int) -> list[Piece]:
        """Return pieces of about `split_bytes` that, read one by one, give the outcomes of the whole file."""

    def reread(self, stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
        """Read one record again. Raises LookupError if there is no such record at the locator."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a joined source.

    Attributes:
        group: The key of the rows that it is joined with.
        locator: The row's stored bytes.
        stored: The number of stored bytes that it accounts for.
        data: The content that the source needs.
    """

    group: bytes
    locator: Locator
    stored: int
    data: bytes

    @property
    def place(self) -> tuple[str, int, str, int]:
        """The key by which the rows of a group are sorted, whenever they are joined."""
        return self.locator.file, self.locator.offset, self.locator.member, self.locator.inner_offset


@dataclass(frozen=True, slots=True)
class Survey:
    """Measurements of a file of a joined source.

    Attributes:
        pieces: As `Reader.find_pieces` returns them.
        decoded: Its bytes without compression.
        rows: About how many rows it has.
        counts: Plain numbers for `JoinedReader.collect_shared`.
    """

    pieces: list[Piece]
    decoded: int
    rows: int
    counts: dict[str, int]


class JoinedReader(Protocol):
    """A source whose documents are joined from rows, which may lie in any of its files (see `pipeline.stages.join`)."""

    @property
    def ROUNDS(self) -> int:  # noqa: N802  # a constant of the module
        """Return the number of rounds in which rows are grouped by key."""

    def survey(self, stored: Stored, name: str, recipe: Source, split_bytes: int) -> Survey:
        """Count a file's rows and find where it can be cut, without parsing it."""

    def select_round(self, name: str, recipe: Source) -> int:
        """Return the round, from 0, in which the rows of a file are grouped."""

    def collect_shared(self, source: str, recipe: Source, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
        """Return plain values that every split needs, from the counts of each file's survey. Raises UserError."""

    def read_rows(
        self, stored: Stored, name: str, recipe: Source, shared: Mapping[str, Any], start: int, end: int, state: int
    ) -> Iterator[Row | Outcome]:
        """Yield the rows of a piece of a file, and the outcomes of those that are not joined, in order."""

    def combine(self, rows: list[Row], source: str, recipe: Source, number: int) -> Iterator[Row | Outcome]:
        """Join the rows of one group, sorted by `Row.place`, in the round `number`.

        Yields:
            Rows for the next round (not in the last), documents, and an outcome for every other row.
        """

    def reread(self, stored: Mapping[str, Stored], locator: Locator, source: str, recipe: Source) -> Outcome:
        """Read one document again from the files that its locator and parts name.

        Raises:
            LookupError: They hold no such document.
        """


_Item = TypeVar("_Item", bound=Row | Outcome)


def apportion(items: Iterable[tuple[int, _Item]], size: int, total: int, empty: _Item) -> Iterator[_Item]:
    """Yield items with their shares of stored bytes, which add up to `size`.

    Args:
        items: Pairs of the position where an item ends, in decoded bytes or rows, and the item.
        size: The stored bytes.
        total: The last position; a file may turn out to hold more or fewer. The last item gets the remainder.
        empty: The item that gets all stored bytes if there are no others.
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
    """The reason why a record is no document, and a sentence for the dead letters."""

    problem: AnyReason
    detail: str = ""


def check_length(text: str, recipe: Source, language: str = "") -> Dropped | None:
    """Return why a text is dropped: over the recipe's limit, or by a rule that acts at `extract`. None to keep it."""
    if len(text) > recipe.limits.text_characters:
        return Dropped(Reason.TOO_LARGE, f"{len(text)} characters")
    reason = first_reason(recipe.filters, Page(text, language=language))
    return Dropped(reason) if reason is not None else None


def check_text(text: str, recipe: Source) -> Dropped | None:
    """Return why a text is dropped: it is blank, too long, or dropped by a rule."""
    return Dropped(Reason.NO_TEXT) if not text or text.isspace() else check_length(text, recipe)


def cut_pieces(places: Iterable[int], size: int, least: int = 1) -> list[Piece]:
    """Return the pieces of a file between places, in ascending order, that lie at least `least` bytes apart."""
    cuts = [0]
    for place in places:
        if place - cuts[-1] >= least and place < size:
            cuts.append(place)
    return [(start, end, 0) for start, end in pairwise([*cuts, size])]


def byte_range(place: Locator | Part) -> tuple[str, int, int, str, int, int]:
    """Return the fields that locators and their parts have in common, in the order in which both take them."""
    return place.file, place.offset, place.length, place.member, place.inner_offset, place.inner_length


def joined_for(source: Source) -> JoinedReader | None:
    """Return the reader of a source whose documents are joined from rows; None for other sources."""
    tables = source.kind == "github" and source.github.form == "tables"
    module = GITHUB_TABLES if tables else JOINED.get(source.kind or "")
    reader: JoinedReader | None = import_module(module) if module else None
    return reader


def reader_for(name: str, source: Source) -> Reader:
    """Return the reader of a source. Raises UserError for a kind that this version cannot read."""
    if ":" in (source.kind or ""):
        from pipeline.sources.custom import custom_reader  # here, since it builds on this module

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
    """Return the function, or the user's class, whose code is hashed for reading or cutting a source's files."""
    found: Callable[..., Any] = getattr(reader, use) if isinstance(reader, ModuleType) else type(reader)
    return found


def check_readable(name: str, source: Source) -> None:
    """Raise UserError for a kind that this version cannot read."""
    if joined_for(source) is None:
        reader_for(name, source)
