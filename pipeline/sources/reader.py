"""What every source's reader gives: one outcome a record, and never an exception."""

from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Protocol

from manifests.document import Document, Locator
from manifests.reasons import Reason
from manifests.source import Source

Stored = bytes | mmap
"""The stored bytes of a split."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record: a document, or a reason why there is none.

    `locator`: where its stored bytes lie. `stored`: how many stored bytes it accounts for; over a file these sum to its
    size. `detail`: what exactly was wrong, for the dead letters.
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
