"""Rules that look at URLs hold for every kind of source, whether or not its reader looks at them before."""

from pathlib import Path

from filters.reasons import Reason
from filters.rule_list import parse_rules
from manifests.document import Document, Locator
from manifests.source import Source
from pipeline.sources.base import Outcome
from pipeline.stages.extract import write_outcomes


def test_a_blocked_url_is_dropped_for_a_reader_that_does_not_look_at_urls(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("blocked.example\n", encoding="utf-8")
    source = Source(weight=1.0, kind="wikipedia", filters=parse_rules([{"blocklist": [str(tmp_path / "list")]}]))
    outcomes = []
    for number, url in enumerate(["https://blocked.example/a", "https://open.example/b", ""]):
        place = Locator("dump", number, 1)
        outcomes.append(Outcome(place, 1, Document("wiki", place, "A text.", url)))
    result = write_outcomes(tmp_path, "wiki/dump", "wiki", source, outcomes, {})
    tally = result.tallies["wiki"]
    assert tally.dropped == {Reason.BLOCKED_URL: {"records": 1, "bytes": 1}} and tally.out["records"] == 2
    assert not tally.imbalance()
