"""Readers of a user's own: what their code may return and raise."""

from collections.abc import Iterator
from typing import Any

import pytest

from filters.errors import UserError
from filters.formats.stored import Stored
from filters.reasons import Reason
from manifests.document import DOCUMENT_SCHEMA
from manifests.source import Source
from pipeline.sources.base import Outcome
from pipeline.sources.custom import Entry, RecordReader

DUMP = b"one record" * 10


class Lines(RecordReader):
    """A reader that gives one record, as a test sets it."""

    given: dict[str, Any]

    def read_entries(self, data: Stored, start: int, end: int, settings: Any) -> Iterator[Entry]:
        yield Entry(start, end, **{"text": "A text.", **self.given})


def outcome_of(**given: Any) -> Outcome:
    reader = Lines()
    reader.given = given
    (outcome,) = reader.read(DUMP, "a.txt", "mine", Source(weight=1))
    assert outcome == reader.reread(DUMP, outcome.locator, "mine", Source(weight=1))
    return outcome


def test_lone_surrogates_which_json_may_hold_end_no_run() -> None:
    broken = {"text": "a \ud83d b", "url": "http://a/\ud83d", "timestamp": "\ud83d", "metadata": {"tags": ["\ud83d"]}}
    document = outcome_of(**broken).document
    assert document is not None and (document.text, document.url) == ("a \ufffd b", "http://a/\ufffd")
    row = document.as_row()
    assert row["metadata"].startswith('{"tags":["\ufffd')
    assert all(value.encode() for name in DOCUMENT_SCHEMA.names if isinstance(value := row[name], str) and value)


def test_values_that_are_no_text_drop_the_record() -> None:
    for name in ("text", "url", "timestamp"):
        outcome = outcome_of(**{name: 7})
        assert (outcome.reason, outcome.detail) == (Reason.CORRUPT_RECORD, "the text is not a string but int")
    assert outcome_of(text=None).reason is Reason.NO_TEXT
    document = outcome_of(url=None, timestamp=None).document
    assert document is not None and document.url == document.timestamp == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metadata": {"when": object()}}, "the record of a.txt at byte 0 (TypeError"),
        ({"author": "x"}, "read_entries of a.txt, bytes 0 to 100 (TypeError"),
    ],
)
def test_a_failure_of_the_users_code_is_a_sentence(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as raised:
        outcome_of(**given)
    assert words in str(raised.value) and "test_custom:Lines failed" in str(raised.value)
