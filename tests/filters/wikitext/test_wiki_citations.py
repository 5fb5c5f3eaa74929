"""The URLs that wikitext cites: by hand from MediaWiki's rules, hostile input, and the samples where they lie."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.formats.mediawiki import Page, read_dump
from filters.quality.urls import normalise, url_hash
from filters.wikitext.citations import find_cited_urls

SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "wikipedia"
CITED = {
    "<ref>http://a.com/x</ref>": ["http://a.com/x"],
    '<ref name="b" group=c>\n[https://a.com/x A page],\np. 3</ref>': ["https://a.com/x"],
    "<ref>{{cite web|url=http://a.com/x|title=T|archiveurl = https://web.archive.org/web/2012/http://a.com/x}}</ref>": [
        "http://a.com/x",
        "https://web.archive.org/web/2012/http://a.com/x",
    ],
    "{{cite web\n | url = http://a.com/x\n}}": ["http://a.com/x"],
    "{{cite web|url=//a.com/x}} [//b.com/ b] [[//c.com]] a//d.com": ["//a.com/x", "//b.com/"],
    "See http://a.com/x, http://a.com/y. (http://a.com/z) http://a.com/A_(b). http://a.com/?!": [
        "http://a.com/x",
        "http://a.com/y",
        "http://a.com/z",
        "http://a.com/A_(b)",
        "http://a.com/",
    ],
    "[http://a.com/x. x]": ["http://a.com/x."],
    "[http://a.com/?a&#91;&#93;&#61;1&#124;2 x]": ["http://a.com/?a[]=1|2"],
    "http://a.com/?a=1&amp;b=2 http://a.com/&lt;c http://a.com/''d''": ["http://a.com/?a=1&b=2", "http://a.com/"],
    "HTTP://A.com/x http://a.com/é": ["HTTP://A.com/x", "http://a.com/é"],
    "http://a.com/x http://a.com/x": ["http://a.com/x"],
    "<!-- http://a.com/x --> <nowiki>http://a.com/y</nowiki> <math>http://a.com/z</math>": [],
    "<nowiki> http://a.com/x": ["http://a.com/x"],
    "ftp://a.com/x mailto:a@b.com xhttp://a.com http:/a.com http://": [],
    "<gallery>A.jpg|<ref>http://a.com/x</ref></gallery>": ["http://a.com/x"],
}


@pytest.mark.parametrize("wikitext", CITED)
def test_what_is_cited(wikitext: str) -> None:
    assert find_cited_urls(wikitext) == CITED[wikitext]


@given(
    st.text(), st.lists(st.sampled_from(["http://", "[", "//", "=", "''", "&lt;", "<!--", "-->", "a.com", ")", "|"]))
)
@settings(max_examples=500, deadline=None)
def test_no_wikitext_makes_it_raise(text: str, pieces: list[str]) -> None:
    found = find_cited_urls(text + "".join(pieces))
    assert len(set(found)) == len(found) and not any(map(str.isspace, "".join(found)))


@pytest.mark.parametrize(
    "piece", ["http://", "[//", "=//a", "<nowiki>", "<nowiki", "<!--", "''", "&lt;", "http://a''", "/", "]]"]
)
def test_hostile_wikitext_takes_linear_time(piece: str) -> None:
    assert_linear(find_cited_urls, repeated(piece), 100_000 * len(piece))


def test_the_samples_cite_pages() -> None:
    if not SAMPLES.exists():
        pytest.skip("no sample dumps here")
    articles = [page for page in read_dump(next(SAMPLES.glob("enwiki*"))) if isinstance(page, Page)]
    found = [url for page in articles for url in find_cited_urls(page.wikitext)]
    assert len(found) > 3_000 and sum(bool(normalise(url)) for url in found) > 0.995 * len(found)


def test_a_cited_page_is_found_among_crawled_ones() -> None:
    cited = {url_hash(url) for url in find_cited_urls("<ref name=a>[http://www.Example.com/B%C3%BCcher/ x]</ref>")}
    assert url_hash("https://example.com/Bücher?utm_source=wikipedia#top") in cited
    assert url_hash("https://example.com/Bücher/2") not in cited and 0 not in cited
