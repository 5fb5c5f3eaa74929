"""Wikitext to text: by hand from MediaWiki's rules, hostile nesting, and the samples where they lie."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.wiki_dump import Page, open_dump, pages
from filters.wiki_text import plain_text

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "wikipedia"
TEXTS = {
    "'''Bold''' and ''italic'' and '''''both'''''.": "Bold and italic and both.",
    "L''''Autriche''' et l'''Italia''.": "L'Autriche et l'Italia.",
    "l'''Italia'' a": "l'Italia a",
    "'''A''' l'''Italia'''": "A lItalia",
    "[[Berlin]] and [[Berlin|the city]]s": "Berlin and the citys",
    "[[:Category:Cities|all]] of [[:de:Berlin]]": "all of de:Berlin",
    "a[[File:A.jpg|thumb|A [[city]] {{x}} [http://a.com b]]]b": "ab",
    "[[Datei:A.jpg|mini|x]][[Kategorie:Stadt]][[Категория:Город| ]][[de:Berlin]][[zh-min-nan:A]]b": "b",
    "[http://a.com/x a page] [http://a.com] [//a.com b] [1] http://a.com": "a page b [1] http://a.com",
    "a {{Infobox|x={{y|z}}|\n|}} b": "a b",
    "{{lang|fr|bon [[jour|matin]]}} {{nowrap|a b}} a{{snd}}b {{'}}": "bon matin a b a – b ’",
    "{{nowrap}} {{lang|fr}} a": "a",
    "a\n{| class=x\n! b\n|-\n| c || {{d|\n|}}\n{|\n| e\n|}\n|}\nf": "a\nf",
    "{{Infobox\n| a = {|\n| b\n|}\n|}}\nc": "c",
    "a<ref>b</ref><ref name=x />c<ref name='y'\n>{{d</ref>e<REF\tgroup=1>f</Ref >g": "aceg",
    "a <!-- b {{ --> c <!-- d": "a c",
    "<math>\\f{{a}}{b}</math>x<syntaxhighlight lang=c>if (a[[0]])</syntaxhighlight>y<gallery>\nA.jpg</gallery>": "xy",
    "l<nowiki>'</nowiki>a <nowiki>[[b]]</nowiki> <nowiki/>c": "l’a ((b)) c",
    "a<br/>b<small>c</small><div class='d'>e</div>": "a\nbc\ne",
    "1 < 2 &amp; 3 &gt; 2&nbsp;&mdash; &#x41;&#65;&lt;b&gt; &unknown;": "1 < 2 & 3 > 2 — AA<b> &unknown;",
    "== A ==\n=== B ===\n* c\n*# d\n: e\n; f\n----\n\n__NOTOC__\n=\n": "A\nB\nc\nd\ne\nf",
    "Berlin ({{IPA|x}}) is; ({{a}}, {{b}}) a": "Berlin is; a",
    "-{sr: x; sh: y}- -{Q}- -{A|b}-": "-{sr: x; sh: y}- Q b",
    "{{open\na [[b\n{| c\n| d": "open\na b\nc",
    "a }} b ]] c |} d": "a b c |} d",
    "&#123;&#123; &#91;&#91;a&#93;&#93;": "a",
    "&#" + "9" * 5000 + ";": "\ufffd",
    "[{{a}}[b]{{a}}]": "b",
    "": "",
}


@pytest.mark.parametrize("wikitext", TEXTS)
def test_texts(wikitext: str) -> None:
    assert plain_text(wikitext) == TEXTS[wikitext]


HOSTILE = [
    "{{",
    "[[",
    "}}",
    "]]",
    "{|\n",
    "\n|}",
    "[http://",
    "<ref>",
    "<ref",
    "<nowiki>",
    "<!--",
    "</",
    "'",
    "''a",
    "&#",
]
HOSTILE += [
    "[[a|",
    "{{lang|x|",
    "<",
    "(",
    "( ",
    "&",
    "=",
    "\n",
    " \n",
    "__A",
    "-{",
    "-{a|",
    "{{{",
    "[",
    "]",
    "-{a}-",
    "\n ",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_nesting_takes_linear_time(piece: str) -> None:
    start = time.process_time()
    for text in (
        piece * 50_000,
        piece * 30_000 + "x" + "}}" * 30_000,
        piece * 30_000 + "]]" * 30_000 + "</ref>" * 9,
    ):
        plain_text(text)
    assert time.process_time() - start < 6


MARKUP = st.lists(
    st.one_of(
        st.text(max_size=3), st.sampled_from([*HOSTILE, "</ref>", "</nowiki>", "-->", "|", "/>", "{", "}", ";", "x"])
    ),
    max_size=40,
).map("".join)


@given(MARKUP)
@settings(max_examples=1_000, deadline=None)
def test_no_markup_makes_it_raise_or_leaves_brackets(wikitext: str) -> None:
    text = plain_text(wikitext)
    assert not any(mark in text for mark in ("{{", "}}", "[[", "]]", "\n\n"))
    assert all(line == line.strip() for line in text.split("\n"))


@given(st.text(alphabet="abc é.,", min_size=1))
def test_text_without_markup_stays(text: str) -> None:
    assert plain_text(text) == " ".join(text.split())


def test_the_samples_become_prose() -> None:
    if not SAMPLES.exists():
        pytest.skip("no sample dumps here")
    found = {
        page.title: plain_text(page.wikitext)
        for page in pages(open_dump(next(SAMPLES.glob("enwiki*"))))
        if isinstance(page, Page)
    }
    assert found["Anarchism"].startswith(
        "Anarchism is a political philosophy that advocates self-governed societies based on voluntary institutions."
        " These are often described as stateless societies, although several authors have defined them more"
        " specifically as institutions based on non-hierarchical free associations. Anarchism considers"
    )
    text = "".join(found.values())
    assert sum(map(text.count, "|{}<>")) / len(text) < 0.0005
