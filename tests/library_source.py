"""Define a source for tests that joins rows in two rounds, like the source of GitHub's tables.

A dump has lines of three kinds: `house H yes|no`, `work H T` and `text T words`. The first round joins works with their
publishing house H, and drops works of houses with "no". The second round joins the remaining works with their text T.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from filters.formats.stored import Stored
from filters.reasons import Reason
from manifests.document import Document, Locator, Part
from manifests.source import Source
from pipeline.sources.base import Outcome, Row, Survey

ROUNDS = 2


def survey(stored: Stored, name: str, recipe: Source, split_bytes: int) -> Survey:
    return Survey([(0, len(stored), 0)], len(stored), bytes(stored).count(b"\n"), {})


def select_round(name: str, recipe: Source) -> int:
    return int(name.startswith("text"))


def collect_shared(source: str, recipe: Source, counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    return {"files": len(counts)}


def read_rows(
    stored: Stored, name: str, recipe: Source, shared: Mapping[str, Any], start: int, end: int, state: int
) -> Iterator[Row | Outcome]:
    assert shared == {"files": 3}
    for line in bytes(stored).splitlines(keepends=True):
        place = Locator(name, start, len(line), "", 0, len(line))
        start += len(line)
        words = line.split()
        if len(words) < 3:
            yield Outcome(place, len(line), reason=Reason.CORRUPT_RECORD, detail="too few words")
        elif words[0] == b"other":
            yield Outcome(place, len(line), reason=Reason.OTHER_POST)
        else:
            yield Row(words[1], place, len(line), line)


def combine(rows: list[Row], source: str, recipe: Source, number: int) -> Iterator[Row | Outcome]:
    kinds = {kind: [row for row in rows if row.data.startswith(kind)] for kind in (b"house", b"work", b"text")}
    first, second = (kinds[b"house"], kinds[b"work"]) if number == 0 else (kinds[b"text"], kinds[b"work"])
    if number == 0:
        allowed = bool(first) and first[0].data.split()[2] == b"yes"
        yield from (Outcome(row.locator, row.stored, reason=Reason.UNUSED_ROW) for row in first)
        for row in second:
            text = row.data.split()[2]
            gone = Outcome(row.locator, row.stored, reason=Reason.NO_LICENCE)
            yield Row(text, row.locator, row.stored, row.data) if allowed else gone
    elif not first or not second:
        reason = Reason.ORPHAN if second else Reason.UNUSED_ROW
        yield from (Outcome(row.locator, row.stored, reason=reason) for row in (*first, *second))
    else:
        text, named = first[0], second[0]
        part = Part(named.locator.file, named.locator.offset, named.locator.length)
        place = Locator(text.locator.file, text.locator.offset, text.locator.length, parts=(part,))
        stored = sum(row.stored for row in (*first, *second))
        yield Outcome(place, stored, Document(source, place, text.data.decode().split(maxsplit=2)[2]))
        yield from (Outcome(row.locator, 0, reason=Reason.JOINED) for row in second)


def reread(stored: Mapping[str, Stored], locator: Locator, source: str, recipe: Source) -> Outcome:
    raise LookupError
