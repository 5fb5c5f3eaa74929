"""Wikitext to text: by hand from MediaWiki's rules, hostile nesting, and the samples where they lie."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear

from filters.formats.mediawiki import Page, read_dump
from filters.wikitext.render import render_text

SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "wikipedia"
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
    "a\n{| class=x\n! b\n|-\n| c || {{d|\n|}}\n{|\n| e\n|}\n|}\nf": "a\n\nf",
    "{{Infobox\n| a = {|\n| b\n|}\n|}}\nc": "c",
    "a<ref>b</ref><ref name=x />c<ref name='y'\n>{{d</ref>e<REF\tgroup=1>f</Ref >g": "aceg",
    "a <!-- b {{ --> c <!-- d": "a c",
    "<math>\\f{{a}}{b}</math>x<syntaxhighlight lang=c>if (a[[0]])</syntaxhighlight>y<gallery>\nA.jpg</gallery>": (
        "\\f{{a}}{b}x\n\nif (a[[0]])\n\ny"
    ),
    "l<nowiki>'</nowiki>a <nowiki>[[b]]</nowiki> <nowiki/>c": "l'a [[b]] c",
    "a<br/>b<small>c</small><div class='d'>e</div>": "a\nbc\n\ne",
    "1 < 2 &amp; 3 &gt; 2&nbsp;&mdash; &#x41;&#65;&lt;b&gt; &unknown;": "1 < 2 & 3 > 2 — AA<b> &unknown;",
    "== A ==\n=== B ===\n* c\n*# d\n: e\n; f\n----\n\n__NOTOC__\n=\n": "A\n\nB\n\nc\nd\ne\nf\n\n=",
    "Berlin ({{IPA|x}}) is; ({{a}}, {{b}}) a": "Berlin is; a",
    "-{sr: x; sh: y}- -{Q}- -{A|b}-": "x Q b",
    "{{open\na [[b\n{| c\n| d": "open a b\n\nc",
    "a }} b ]] c |} d": "a b c |} d",
    "&#123;&#123; &#91;&#91;a&#93;&#93;": "{{ [[a]]",
    "&#" + "9" * 5000 + ";": "\ufffd",
    "[{{sfn}}[b]{{sfn}}]": "[[b]]",
    "": "",
    "[[Mercury (planet)|]] [[a|b|c]] [[a\nb]] [[|d]]": "Mercury b|c a b d",
    "[[wikt:word|word]], [[:fr:Mot]], [[WP:A]]": "word, fr:Mot, WP:A",
    "a[[Kategorie:x]][[Catégorie:y|z]][[Arquivo:a.png|thumb|b]][[Датотека:а|б]]b": "ab",
    "10<sup>6</sup> m<sup>2</sup>, 1<sup>st</sup>, H<sub>2</sub>O": "10^6 m^2, 1st, H2O",
    "''x''<sup>2</sup> '''R'''<sup>3</sup> [[metre|m]]<sup>2</sup> |x|<sup>2</sup> cm<sup>&minus;1</sup>": (
        "x^2 R^3 m^2 |x|^2 cm^−1"
    ),
    "''e''<sup>''x''</sup> 10<sup>n</sup> 2<sup>''n'' + 1</sup> 10<sup>1/2</sup>": "e^x 10^n 2^(n + 1) 10^(1/2)",
    "''A''<sup>T</sup> ''f''<sup>(2)</sup>": "A^T f^(2)",
    "101<sub>2</sub> ''x''<sub>''i''</sub> SO<sub>4</sub><sup>2−</sup> ''a''<sub>1</sub>": "101_2 x_i SO4^2− a1",
    "XX<sup>e</sup> n<sup>o</sup> ''M''<sup>e</sup> <sup>14</sup>C Na<sup>+</sup>": "XXe no Me 14C Na+",
    "''a''<small>''b''</small> '''c'''<b>'''d'''</b>": "ab cd",
    "<poem>\nRoses are ''red'',\n: violets are [[blue]].\n\nEnd.\n</poem>\nAfter.": (
        "Roses are red,\nviolets are blue.\n\nEnd.\n\nAfter."
    ),
    "a <poem>b\nc": "a\n\nb c",
    "5 <s>wrong</s> <del>old</del> <strike>x</strike> <strong>new</strong> <small>s</small> 7": "5 new s 7",
    "-{H|sr-ec:а}- -{T|б}- -{A;H|в}- -{R|г}-": "г",
    "a &amp;lt; &#39;&#39;b&#39;&#39; &sup2;": "a &lt; ''b'' ²",
    "x <foo> y <bar baz='1'> 1 <2> 3 </b>": "x <foo> y <bar baz='1'> 1 <2> 3",
    "<pre>\n a  b\n  <nowiki>''c''</nowiki>\n</pre>": " a  b\n  ''c''",
    "Call <syntaxhighlight lang=py inline>f({})</syntaxhighlight> <code>g(''x'')</code>": "Call f({}) g(x)",
    "a {{sfn}}, b {{sfn}}. c ({{x}}) d ({{x}}, 1879) e (f; {{x}})": "a, b. c d (1879) e (f)",
    "f() ( ) a ,b": "f() ( ) a ,b",
    "{{sfn}} b {{sfn|{{d}}}} e": "b e",
    "{{{1|default}}} {{{2|}}} {{{{x|y}}}}": "default {y}",
    "__NOTOC__ __init__ __БЕЗ_ОГЛ__": "__init__",
    " a b\n c": "a b\nc",
    "a\nb\n\nc": "a b\n\nc",
    'a<ref group="x">{{y</ref>b<!-- {{ -->c': "abc",
    "'" * 5 + " a" + "'" * 5 + " b ''c'' d''": "a b c d",
    "'" * 7 + "a" + "'" * 7: "''a''",
    "<includeonly>a</includeonly><noinclude>b</noinclude><onlyinclude>c</onlyinclude>": "bc",
    "{{a|<nowiki>}}</nowiki>}}b <math>|}}</math>c": "b |}}c",
    "<table><tr><td>a<table><tr><td>b</td></tr></table></td></tr></table>c": "c",
    "a\n:{| x\n| b\n|}\nc": "a\n\nc",
    "a {| b": "a {| b",
    "{{Infobox\n| a = b\n| c = d\n\nText.": "Infobox\n\nText.",
    "== A ==\n=== B ===\nx\n=== C ===\n== D ==\n{{y}}\n== E ==": "A\n\nB\n\nx",
    "[[File:a.jpg|thumb|[[File:b.jpg]] c]]d": "d",
}


def test_scripts_of_other_wikis() -> None:
    variants = "-{zh-hans:计算机;zh-hant:電腦}--{H|zh-cn:A;zh-tw:B}--{A|zh-cn:软件; zh-tw:軟體;}-"
    assert render_text(variants, "zh") == "计算机软件"
    assert render_text("-{a}-", "en") == "-{a}-"


@pytest.mark.parametrize("wikitext", TEXTS)
def test_texts(wikitext: str) -> None:
    assert render_text(wikitext) == TEXTS[wikitext]


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


TWO = 2 * chr(39)
LONG: list[Callable[[int], str]] = [
    lambda size: "=" + "a" * 3 * size,
    lambda size: "=a" * (3 * size // 2),
    lambda size: "{" * size + "|a" * size + "}" * size,
    lambda size: TWO + (TWO + chr(39) + "b ") * size,
    lambda size: "{{" * 60 + "|a" * size + "}}" * 60,
    lambda size: "(" + "{{a}} " * size,
    lambda size: "[[" + "a|" * size,
    lambda size: "* " * 2 * size,
    lambda size: "=" * 3 * size,
    lambda size: "-{" * 60 + "sr-ec:" * (size // 2) + "}-" * 60,
    lambda size: "{|\n" * 60 + "|a\n" * size + "[[a",
    lambda size: "&#x" + "1" * size,
]


@pytest.mark.parametrize("make", LONG, ids=range(len(LONG)))
def test_long_hostile_lines_take_linear_time(make: Callable[[int], str]) -> None:
    assert_linear(lambda text: render_text(text, "sr"), make, 20_000)
    assert_linear(lambda text: render_text(f"{text}\n{text}", "en", apparatus=False), make, 20_000)


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_nesting_takes_linear_time(piece: str) -> None:
    assert_linear(render_text, lambda size: piece * size, 12_000)
    assert_linear(render_text, lambda size: piece * size + "x" + "}}" * size, 8_000)
    assert_linear(render_text, lambda size: piece * size + "]]" * size + "</ref>" * 9, 8_000)


MARKUP = st.lists(
    st.one_of(
        st.text(max_size=3), st.sampled_from([*HOSTILE, "</ref>", "</nowiki>", "-->", "|", "/>", "{", "}", ";", "x"])
    ),
    max_size=40,
).map("".join)


@given(MARKUP, st.sampled_from(["", "en", "sr", "fr"]))
@settings(max_examples=400, deadline=None)
def test_no_markup_makes_it_raise_or_leaves_room(wikitext: str, language: str) -> None:
    text = render_text(wikitext, language, "T", apparatus=False)
    assert text == text.strip("\n") and not any(mark in text for mark in "\x00\x01\x02\x03\x04\x05\x06")


@given(st.text(alphabet="abc é.,", min_size=1))
def test_text_without_markup_stays(text: str) -> None:
    assert render_text(text) == " ".join(text.split())


OPENED = [
    "{{",
    "{{{",
    "{{a|b=",
    "[[",
    "[[a|",
    "[[File:a.jpg|",
    "{|\n",
    "<table>",
    "<ref>",
    "<math>",
    "<nowiki>",
    "<pre>",
]
OPENED += [
    3 * "'",
    "''",
    "[http://a.com ",
    "-{",
    "<gallery>",
    "<div",
    "&",
    "{{a|[[",
    "[[b|{{",
    "{|\n| {{",
    "<ref name=b>",
]


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("language", ["", "en", "sr"])
def test_what_does_not_end_takes_no_text_with_it(opened: str, language: str) -> None:
    """MediaWiki shows a bracket or tag without its partner as text."""
    rest = "The [[river|Rhine]] is {{nowrap|1,230 km}} long.\n\n== Towns ==\n* [[Basel]]{{x|y}}\n* [[Bonn]]\n\nIt ends."
    text = render_text(f"Before. {opened}\n\n{rest}", language)
    for words in ("Before.", "The Rhine is 1,230 km", "Towns", "Basel", "Bonn", "It ends."):
        assert words in text, words
    assert render_text(f"{rest}\n\n{opened}").startswith("The Rhine is")


def test_a_comment_that_does_not_end_hides_the_rest_as_in_mediawiki() -> None:
    assert render_text("a <!-- b\n\nc") == "a"


def test_the_samples_become_prose() -> None:
    if not SAMPLES.exists():
        pytest.skip("no sample dumps here")
    found = {
        page.title: render_text(page.wikitext)
        for page in read_dump(next(SAMPLES.glob("enwiki*")))
        if isinstance(page, Page)
    }
    assert found["Anarchism"].startswith(
        "Anarchism is a political philosophy that advocates self-governed societies based on voluntary institutions."
        " These are often described as stateless societies, although several authors have defined them more"
        " specifically as institutions based on non-hierarchical free associations. Anarchism considers"
    )
    text = "".join(found.values())
    assert sum(map(text.count, "|{}<>")) / len(text) < 0.0005
