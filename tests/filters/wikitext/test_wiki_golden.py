"""Wikipedia's text against what people wrote, against an independent rendering, and beside RedPajama's rows."""

import gzip
import json
import re
import statistics
from collections import Counter
from pathlib import Path

import pytest

from filters.formats.mediawiki import Page, read_dump
from filters.wikitext.names import LANGUAGES
from filters.wikitext.render import render_text

SHARED = Path(__file__).parents[4] / "shared/data"
REDPAJAMA = SHARED / "c4_redpajama/redpajama-sample_wiki1.jsonl.gz"
wikitext = pytest.importorskip("benchmarks.wikitext", reason="needs mwparserfromhell: pip install -e '.[bench]'")


@pytest.mark.parametrize("language", LANGUAGES)
def test_golden_pages_come_out_as_written(language: str) -> None:
    (article,) = [article for article in wikitext.golden() if article.language == language]
    assert wikitext.ours(article, apparatus=False) + "\n" == article.reference
    assert wikitext.f1(wikitext.theirs(article), article.reference) < 0.98


def test_f1_by_hand() -> None:
    assert wikitext.f1("a b b", "b c") == pytest.approx(0.4) and wikitext.f1("A", "a.") == 1.0
    assert wikitext.f1("", "") == 0.0


def test_the_independent_rendering_by_hand() -> None:
    """It is a second opinion, not ours: it must be right on what it claims to do."""
    parsed = wikitext.mwparserfromhell.parse(
        "'''A''' [[b|c]]<ref>d</ref> [[File:e.jpg|f]] {{convert|5|km|mi}} {{lang|fr|g}} {{h|i}} [http://j k] "
        "<math>l</math>\n{| class=m\n| n\n|}\n[[de:O]]"
    )
    assert wikitext.render_tree(parsed).split() == ["A", "c", "5", "km", "g", "k", "l"]


@pytest.mark.skipif(not SHARED.exists(), reason="the real sample data (../shared/data) is not here")
def test_real_pages_are_nearer_to_an_independent_rendering_than_strip_code() -> None:
    articles = [
        wikitext.Article(path.name[:2], page.title, page.wikitext, "")
        for path in sorted((SHARED / "wikipedia").glob("minidumps/*"))
        for page in read_dump(path)
        if isinstance(page, Page) and len(page.wikitext) < 60_000
    ]
    ours, theirs = [], []
    for article in articles:
        reference = wikitext.render_tree(wikitext.mwparserfromhell.parse(article.wikitext))
        ours.append(wikitext.f1(wikitext.ours(article), reference))
        theirs.append(wikitext.f1(wikitext.theirs(article), reference))
    assert len(articles) > 6 and statistics.mean(ours) > max(0.97, statistics.mean(theirs))


@pytest.mark.skipif(not REDPAJAMA.exists(), reason="the real sample data (../shared/data) is not here")
def test_redpajamas_row_of_the_same_page_differs_in_the_ways_the_docs_name() -> None:
    with gzip.open(REDPAJAMA, "rt", encoding="utf-8") as file:
        rows = {row["meta"]["title"]: row["text"] for row in map(json.loads, file)}
    dump = read_dump(next((SHARED / "wikipedia").glob("bgwiki*")))
    (page,) = [page for page in dump if isinstance(page, Page) and page.title in rows]
    theirs, ours = rows[page.title], render_text(page.wikitext, "bg", page.title)
    words = [Counter(re.findall(r"\w+", text.lower())) for text in (theirs, ours)]
    missing = words[0] - words[1]
    assert missing.total() < 0.15 * words[0].total(), "six years of edits, and names of categories"
    assert theirs.endswith("\n\nКалендари") and not ours.endswith("Календари"), "categories' names stay in theirs"
    assert "\xa0" in theirs and "\xa0" not in ours and "\n " in theirs and "\n " not in ours
    assert "\\frac" not in theirs and "\\frac" in ours, "formulas"
    assert sum("()" in text for text in rows.values()) > 0, "brackets around what was a template"
    assert re.search(r"\n\n[А-Я]\n\n[А-Я]\n\n", rows["Списък на страните"]), "headings of which tables were all"
