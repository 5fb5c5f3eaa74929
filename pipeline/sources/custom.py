"""Define `RecordReader`, the base class of user-defined readers.

A recipe names a subclass of `RecordReader` by `kind: MODULE:CLASS`.
"""

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
    """A record of a dump.

    Attributes:
        start: The offset of the first byte.
        end: The offset behind the last byte.
        text: The text of the document.
        url: The URL, or "".
        timestamp: ISO 8601 in UTC, or "".
        metadata: Values that can be written as JSON.
        reason: Why the record has no text; None for a document.
        detail: A sentence about the reason, for the dead letters.
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
    """A reader for files that consist of consecutive records.

    A subclass implements `read_entries`. It also implements `cut` if large files are to be split.

    Attributes:
        Settings: The class of the settings that a recipe gives under `settings`.
    """

    Settings: ClassVar[type[Strict]] = Strict

    def read_entries(self, data: Stored, start: int, end: int, settings: Any) -> Iterator[Entry]:
        """Yield the records that begin in a byte range of a file, in order.

        Args:
            data: The whole file, which can be sliced like `bytes`.
            start: The start of the range; a record begins here.
            end: The end of the range.
            settings: An instance of `Settings`.
        """
        raise NotImplementedError

    def cut(self, data: Stored, position: int, settings: Any) -> int:
        """Return the first position, from `position` on, where a record begins, or the length of the file."""
        return len(data)

    def read(
        self, stored: Stored, name: str, source: str, recipe: Source, start: int = 0, end: int | None = None,
        state: int = 0,
    ) -> Iterator[Outcome]:  # fmt: skip
        """Yield the outcome of every record. Bytes between two records are attributed to the second record."""
        end = len(stored) if end is None else end
        position, last = start, None
        for entry in self._read_user_entries(stored, name, start, end, source, recipe):
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
        """Cut a file into pieces of about `split_bytes` at the starts of records."""
        settings = self.settings("", recipe)
        with self._wrap_errors("cut"):
            places = [self.cut(stored, place, settings) for place in range(split_bytes, len(stored), split_bytes)]
            return cut_pieces(places, len(stored))

    def reread(self, stored: Stored, locator: Locator, source: str, recipe: Source) -> Outcome:
        """Read one record again. Raises LookupError if there is no such record at the locator."""
        end = locator.offset + locator.length
        for entry in self._read_user_entries(stored, locator.file, locator.offset, end, source, recipe):
            if (entry.start, entry.end) == (locator.offset, end):
                return self._convert_entry(entry, locator.file, source, recipe, locator.length)
            break
        raise LookupError(f"{locator.file} has no record of {locator.length} bytes at {locator.offset}")

    def settings(self, source: str, recipe: Source) -> Any:
        """Return the validated settings of the recipe. Raises UserError."""
        try:
            return parse_settings(self.Settings, recipe.settings)
        except ValueError as error:
            raise UserError(f"source {source}, settings: {error}") from error

    @contextmanager
    def _wrap_errors(self, what: str) -> Iterator[None]:
        """Convert exceptions of the subclass's code into UserError. Storage errors are not converted."""
        try:
            yield
        except (UserError, RunError, OSError):
            raise
        except Exception as error:
            raise UserError(
                f"{type(self).__module__}:{type(self).__name__} failed: {what} ({type(error).__name__}: {error}): "
                "correct the reader and run again; the run continues from here"
            ) from error

    def _read_user_entries(
        self, stored: Stored, name: str, start: int, end: int, source: str, recipe: Source
    ) -> Iterator[Entry]:
        settings = self.settings(source, recipe)
        with self._wrap_errors(f"read_entries of {name}, bytes {start} to {end}"):
            yield from self.read_entries(stored, start, end, settings)

    def _convert_entry(self, entry: Entry, name: str, source: str, recipe: Source, stored: int) -> Outcome:
        place = Locator(name, entry.start, entry.end - entry.start)
        if entry.reason is not None:
            return Outcome(place, stored, reason=entry.reason, detail=entry.detail)
        if is_quarantined(place):
            return Outcome(place, stored, reason=Reason.QUARANTINED)
        with self._wrap_errors(f"the record of {name} at byte {entry.start}"):  # fails if a value has a wrong type
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
    """Return the reader that the `kind` of a source names.

    Raises:
        UserError: The kind does not name a reader, or the settings are invalid.
    """
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
