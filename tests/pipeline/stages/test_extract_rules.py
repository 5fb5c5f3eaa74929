"""Rules while a dump is read: URLs of every kind of source; and the cache keys of lists of rules, in every step."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from filters.reasons import CustomReason, Reason
from filters.rule import ExtractRule, Found, Page, Rule, Verdict, keep
from filters.rule_list import parse_rules
from manifests.document import Document, Locator
from manifests.files import sha256_json
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.tables import read_rows
from pipeline.sources.base import Outcome
from pipeline.stages.extract import source_arguments, write_outcomes
from pipeline.stages.filter import SourceRules, filter_documents, rule_arguments


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


class First(Rule):
    """A rule of a user's, without settings."""

    REASONS = (CustomReason("custom-first", "for the first reason"),)


class Second(First):
    """Another one of the same module."""


class Before(ExtractRule):
    """A rule of a user's that acts while a dump is read."""

    REASONS = First.REASONS


class After(Before):
    """Another one."""


@pytest.mark.parametrize("kinds", [(First, Second), (Before, After)])
def test_lists_of_rules_have_one_cache_key_only_if_they_are_equal(kinds: tuple[type[Rule], type[Rule]]) -> None:
    """Two rules of one module and the same settings, too, in either order."""
    lists = [(), *((kind,) for kind in kinds), *itertools.product(kinds, repeat=2)]
    keys: set[str] = set()
    for chosen in lists:
        filters: list[Any] = [kind() for kind in chosen]
        source = Source(weight=1.0, kind="books", filters=filters)
        recipe = Recipe(name="x", seed=1, goal_tokens=1, sources={"books": source})
        applied = rule_arguments(recipe, {"books": {}}, {}, {})["books"]["applied"]
        keys.add(sha256_json([applied.key, source_arguments("books", source, {})["source"].key]))
    assert len(keys) == len(lists)


class Measure(Rule):
    """A rule that measures some texts alone."""

    REASONS = First.REASONS
    SIGNALS = ("length", "twice")

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return the length of a short text."""
        return keep(length=len(page.text) if len(page.text) < 9 else None, twice=np.float32(2.5))


def test_a_signal_may_be_missing_for_a_document(tmp_path: Path) -> None:
    place = Locator("dump", 0, 1)
    outcomes = [
        Outcome(place, 1, Document("web", replace(place, offset=n), text)) for n, text in enumerate(("ab", "a" * 9))
    ]
    write_outcomes(tmp_path, "web/dump", "web", Source(weight=1.0, kind="c4"), outcomes, {})
    applied = SourceRules("web", [Measure()], {}, False)
    filter_documents(tmp_path, "web/dump", applied=applied, minhash=None, keep_dropped=0)
    found = {row["text"]: dict(row["signals"]) for row in read_rows(tmp_path / "clean/web/dump.parquet")}
    assert found == {"ab": {"length": 2.0, "twice": 2.5}, "a" * 9: {"twice": 2.5}}
