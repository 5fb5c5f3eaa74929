"""What every source's reader gives: one outcome a record, and never an exception."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from filters.formats.stream import Stored
from filters.reasons import Reason
from manifests.document import Document, Locator
from manifests.source import Source


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record: a document, or a reason why there is none.

    `locator`: where its stored bytes lie. `stored`: how many stored bytes it accounts for; over a file these sum to its
    size. `detail`: what exactly was wrong, for the dead letters. Of a joined document, `stored` counts all its rows,
    and each row but the one it is named after is an outcome with the reason `joined` and no stored bytes.
    """

    locator: Locator
    stored: int
    document: Document | None = None
    reason: Reason | None = None
    detail: str = ""


class Reader(Protocol):
    """A source: how its files become documents."""

    def read(
        self, stored: Stored, name: str, source: str, recipe: Source, start: int, end: int | None, state: int
    ) -> Iterator[Outcome]:
        """Every record of a file, or of one of its `pieces`, in order. `stored`: the whole file; `name`: the input's
        name; `source`: the source's."""

    def pieces(self, stored: Stored, recipe: Source, split_bytes: int) -> list[tuple[int, int, int]]:
        """Where a file can be cut into pieces of about `split_bytes`: start, end, and the reader's state at the start.
        Read one by one they give the records of the whole."""

    def reread(self, stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
        """The one record at a locator. Raises LookupError when those bytes hold no such record."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a joined source, on its way to the others of its `group`. `locator`: where it lies; `stored`: how many
    stored bytes it accounts for; `data`: what the source needs of it."""

    group: bytes
    locator: Locator
    stored: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Survey:
    """What one look at a file of a joined source gives: `pieces` as `Reader.pieces` does; `decoded`: its bytes, without
    compression; `rows`: how many it may have; `counts`: plain numbers for `Joined.shared`."""

    pieces: list[tuple[int, int, int]]
    decoded: int
    rows: int
    counts: dict[str, int]


class Joined(Protocol):
    """A source whose documents are made of several rows, which may lie anywhere (see `pipeline.stages.join`)."""

    @property
    def ROUNDS(self) -> int:  # noqa: N802  # a constant of the module
        """How often rows are brought together."""

    def survey(self, stored: Stored, name: str, recipe: Source, split_bytes: int) -> Survey:
        """Count a file's rows and find where it can be cut, without parsing it."""

    def round_of(self, name: str, recipe: Source) -> int:
        """The round that takes the rows of a file, from 0."""

    def shared(self, source: str, recipe: Source, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
        """What every split must know, as plain values. `counts`: of each file's survey, by name. Raises UserError."""

    def keyed(
        self, stored: Stored, name: str, recipe: Source, shared: Mapping[str, Any], start: int, end: int, state: int
    ) -> Iterator[Row | Outcome]:
        """The rows of a file, or of one of its pieces, and what became of those that end here, in order."""

    def combine(self, rows: list[Row], source: str, recipe: Source, number: int) -> Iterator[Row | Outcome]:
        """What becomes of the rows of one group, sorted by where they lie, in round `number`: rows for the next round
        (not in the last), documents, and an outcome for each row that is not one of these."""

    def reread(self, stored: Mapping[str, Stored], locator: Locator, source: str, recipe: Source) -> Outcome:
        """The document at a locator. `stored`: the files that it and its parts name. Raises LookupError when they hold
        no such document."""
