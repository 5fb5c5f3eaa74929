"""Readers of a user's own: `kind: MODULE:CLASS` in a recipe names a class derived from `RecordReader`."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from filters.errors import RunError, UserError
from filters.formats.stored import Stored
from filters.formats.stream import Damage
from filters.formats.tables import clean_text
from filters.reasons import AnyReason, Reason
from filters.rule_list import load_class
from filters.settings import Strict, parse_settings
from manifests.document import Document, Locator
from manifests.files import canonical_json
from manifests.source import Source
from pipeline.beam.quarantine import is_quarantined
from pipeline.sources.base import Outcome, Piece, Reader, check_text, cut_pieces


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of a dump: its bytes from `start` to `end`, and its text, or the reason why it has none.

    `metadata` holds plain values; `timestamp` is ISO 8601 in UTC, or empty.
    """

    start: int
    end: int
    text: str = ""
    url: str = ""
    timestamp: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reason: AnyReason | None = None
    detail: str = ""


class RecordReader:
    """A source whose files hold one record after another. A subclass writes `read_entries`, and `cut` to split files.

    Attributes:
        Settings: the class of the settings that a recipe gives under `settings`.
    """

    Settings: ClassVar[type[Strict]] = Strict

    def read_entries(self, data: Stored, start: int, end: int, settings: Any) -> Iterator[Entry]:
        """Yield the records that begin in a stretch of a file, in order.

        Args:
            data: the whole file, which can be sliced as bytes can.
            start: the stretch's start; a record begins there.
            end: the stretch's end.
            settings: an instance of `Settings`.
        """
        raise NotImplementedError

    def cut(self, data: Stored, position: int, settings: Any) -> int:
        """Return the first place from `position` on where a record begins; the file's length for none."""
        return len(data)

    def read(
        self, stored: Stored, name: str, source: str, recipe: Source, start: int = 0, end: int | None = None,
        state: int = 0,
    ) -> Iterator[Outcome]:  # fmt: skip
        """Yield the outcome of every record; bytes between records count as part of the record behind them."""
        end = len(stored) if end is None else end
        position, last = start, None
        for entry in self._read_own(stored, name, start, end, source, recipe):
            if last is not None:
                yield last
            if not position <= entry.start <= entry.end <= end:
                raise UserError(
                    f"source {source}: {type(self).__name__}.read_entries gives bytes {entry.start} to {entry.end} "
                    f"after {position} in {name}: records must follow each other"
                )
            last = self._convert_entry(entry, name, source, recipe, entry.end - position)
            position = entry.end
        if last is not None:
            yield Outcome(last.locator, last.stored + end - position, last.document, last.reason, last.detail)
        elif end > start:
            yield Outcome(Locator(name, start, end - start), end - start, reason=Reason.ARCHIVE_METADATA)

    def find_pieces(self, stored: Stored, recipe: Source, split_bytes: int) -> list[Piece]:
        """Return pieces of about `split_bytes` that begin where records do."""
        settings = self.settings("", recipe)
        with self._own_code("cut"):
            places = [self.cut(stored, place, settings) for place in range(split_bytes, len(stored), split_bytes)]
            return cut_pieces(places, len(stored))

    def reread(self, stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
        """Read one record again. Raises LookupError if there is no such record at the locator."""
        end = locator.offset + locator.length
        for entry in self._read_own(stored, locator.file, locator.offset, end, source, recipe):
            if (entry.start, entry.end) == (locator.offset, end):
                return self._convert_entry(entry, locator.file, source, recipe, locator.length)
            break
        raise LookupError(f"{locator.file} has no record of {locator.length} bytes at {locator.offset}")

    def settings(self, source: str, recipe: Source) -> Any:
        """Return the recipe's settings, checked. Raises UserError."""
        try:
            return parse_settings(self.Settings, recipe.settings)
        except ValueError as error:
            raise UserError(f"source {source}, settings: {error}") from error

    @contextmanager
    def _own_code(self, what: str) -> Iterator[None]:
        """Raise UserError for what the user's code raises, but for failures of storage."""
        try:
            yield
        except (UserError, RunError, OSError):
            raise
        except Exception as error:
            raise UserError(
                f"{type(self).__module__}:{type(self).__name__} failed: {what} ({type(error).__name__}: {error}): "
                "correct the reader and run again; the run continues from here"
            ) from error

    def _read_own(
        self, stored: Stored, name: str, start: int, end: int, source: str, recipe: Source
    ) -> Iterator[Entry]:
        settings = self.settings(source, recipe)
        with self._own_code(f"read_entries of {name}, bytes {start} to {end}"):
            yield from self.read_entries(stored, start, end, settings)

    def _convert_entry(self, entry: Entry, name: str, source: str, recipe: Source, stored: int) -> Outcome:
        place = Locator(name, entry.start, entry.end - entry.start)
        if entry.reason is not None:
            return Outcome(place, stored, reason=entry.reason, detail=entry.detail)
        if is_quarantined(place):
            return Outcome(place, stored, reason=Reason.QUARANTINED)
        with self._own_code(f"the record of {name} at byte {entry.start}"):  # values of types that no document has
            values = [clean_text(value) for value in (entry.text, entry.url, entry.timestamp)]
            metadata = json.loads(canonical_json(dict(entry.metadata)).decode("utf-8", "replace"))
        for value in values:
            if isinstance(value, Damage):
                return Outcome.drop(place, stored, value)
        text, url, time = (value or "" for value in values if not isinstance(value, Damage))
        if dropped := check_text(text, recipe):
            return Outcome.drop(place, stored, dropped)
        return Outcome(place, stored, Document(source, place, text, url, time, recipe.licence, metadata))


def custom_reader(name: str, source: Source) -> Reader:
    """Return the reader that a source's kind names. Raises UserError for no reader, and for wrong settings."""
    assert source.kind is not None
    try:
        found = load_class(source.kind, "kind")
    except ValueError as error:
        raise UserError(f"source {name}: {error}") from error
    if not issubclass(found, RecordReader) or found.read_entries is RecordReader.read_entries:
        raise UserError(
            f"source {name}: {source.kind} is not a reader: derive it from pipeline.sources.custom.RecordReader and "
            "write read_entries (docs/extend.md)"
        )
    reader = found()
    reader.settings(name, source)
    return reader
