"""Tests of filters.html.extract: the text of pages, and pages that are made to hang the parser."""

import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from filters.formats.characters import _STACKED
from filters.formats.charset import decode
from filters.html.blocks import parse_blocks
from filters.html.extract import ExtractionError, extract_text
from filters.html.model import MODEL, select_blocks
from filters.reasons import Reason

PARAGRAPH = "<p>" + "Some text of the page, long enough to be kept by the extractor. " * 5 + "</p>"


def test_main_text_is_tidy_and_leaves_menus_out() -> None:
    page = f"<html><body><nav><ul><li>Home</li></ul></nav><main><h1>Title</h1>{PARAGRAPH * 3}</main></body></html>"
    text = extract_text(page)
    assert "Some text of the page" in text and "Home" not in text
    assert text == text.strip("\n") and "\n\n\n" not in text and all(line == line.rstrip() for line in text.split("\n"))
    assert extract_text("") == ""


def test_what_the_parser_refuses_is_named() -> None:
    with pytest.raises(ExtractionError) as caught:
        extract_text("\ud800")
    assert caught.value.reason is Reason.EXTRACTION_FAILED


@pytest.mark.parametrize(
    "page",
    [
        "'<div>' * 10**6",
        "'<div></x>' * 10**5",
        "'<b><div>' * 10**5",
        "'<div ' + ' '.join(f'a{n}=b' for n in range(10**5)) + '>'",
        "'<p<1<p<! ' + ' '.join(f'a{n}=b' for n in range(10**5)) + '>'",
    ],
    ids=["nested", "stray end tags", "formatting", "attributes", "attributes of an odd name"],
)
def test_pages_made_to_hang_the_parser_are_refused(page: str) -> None:
    code = (
        "from filters.html.extract import ExtractionError, extract_text\n"
        f"try: extract_text({page})\n"
        "except ExtractionError as error: print(error.reason)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=6000, check=True)
    assert done.stdout.strip() == "too-large"


ARTICLE = f"<article><h1>Title</h1>{PARAGRAPH * 3}</article>"
AROUND = (
    "<nav><a href=/>Home</a></nav>{}<aside>Most read</aside><div class=comments><p>First!</p></div>"
    "<p class=cookie-bar>We use cookies.</p><footer>Imprint</footer>"
)


def test_three_extractors() -> None:
    page = f"<body>{AROUND.format(ARTICLE)}</body>"
    main, own, everything = (extract_text(page, extractor=name) for name in ("main", "resiliparse", "all"))
    assert main.startswith("Title\n\nSome text of the page") and main.count("Some text") == 15
    assert not any(word in main for word in ("Home", "Most read", "First!", "cookies", "Imprint"))
    assert "Home" not in own and "Some text" in own
    assert all(word in everything for word in ("Home", "Most read", "First!", "cookies", "Imprint", "Some text"))


def test_what_looks_like_markup_in_text_stays_text() -> None:
    page = f"<article><p>{'if a &lt; b &amp;&amp; c &gt; d then &amp;lt; stays escaped. ' * 9}</p></article>"
    assert "if a < b && c > d then &lt; stays escaped." in extract_text(page)
    hidden = "<a href='x\"><b>hidden</b>'>this</a>"
    text = extract_text(f"<article><p>{f'See {hidden} for more of what there is to see. ' * 9}</p></article>")
    assert "hidden" not in text and "See this for more of what there is to see." in text


TAGS = (
    "div",
    "p",
    "a",
    "h1",
    "ul",
    "li",
    "table",
    "td",
    "article",
    "main",
    "nav",
    "script",
    "style",
    "noscript",
    "pre",
)
TAGS += ("b", "br", "template", "svg", "form", "frameset", "title", "body", "select", "plaintext")
PIECE = st.one_of(
    st.sampled_from([f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS]),
    st.sampled_from(
        ["<a href='/x'>", "<div class=comments>", "<p class='", '<i id="', "<!--", "-->", "<![CDATA[", "&lt;", "&#0;"]
    ),
    st.text(max_size=30),
)


@given(st.lists(PIECE, max_size=60).map("".join))
def test_any_page_gives_text_or_a_reason(page: str) -> None:
    for extractor in ("main", "resiliparse", "all"):
        try:
            text = extract_text(page, extractor=extractor)
        except ExtractionError as error:
            assert error.reason in (Reason.EXTRACTION_FAILED, Reason.TOO_LARGE)
        else:
            text.encode()


@given(st.binary(max_size=400))
def test_any_bytes_give_text_or_a_reason(body: bytes) -> None:
    for page in (body, b"<html><body><article><p>" + body):
        try:
            extract_text(decode(page, None))
        except ExtractionError as error:
            assert error.reason in (Reason.EXTRACTION_FAILED, Reason.TOO_LARGE)


WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=9), min_size=1, max_size=40).map(" ".join)


@given(
    st.lists(
        st.tuples(st.sampled_from(["p", "h2", "div", "li", "td", "nav", "span"]), WORDS, st.booleans()), max_size=12
    )
)
def test_no_text_is_invented(parts: list[tuple[str, str, bool]]) -> None:
    """All words of the main text are words of the page, in the same order. Words of the page may be missing."""
    page = "".join(f"<{tag}>{f'<a href=/x>{text}</a>' if linked else text}</{tag}>\n" for tag, text, linked in parts)
    visible = iter(" ".join(text for _, text, _ in parts).split())
    for word in extract_text(f"<body>{page}</body>").split():
        assert word in visible  # A membership test on an iterator continues after the last match.


@pytest.mark.parametrize(
    "page",
    [
        "'<p>text of a paragraph ' * n",
        "'<a href=/x>link' * n",
        "'<div class=comments id=share>x</div>' * n",
        "'<article><p>some text</p></article>' * n",
        "('<div>' * 99 + 'x' + '</div>' * 99) * (n // 99)",
        "'<br>' * n",
        "'&amp;&lt;' * n",
        "'<p>text e' + '\\u0301\\u0323' * n",
        "('<a ' + '<a ' * 900 + '>') * (n // 900)",
        "('<p ' + ' '.join(f'a{k}=\">\"' for k in range(60)) + '>x') * (n // 60)",
        "'<a href=\"' * n",
        "'<p' * 8 * n",
        "'<p<1' * 8 * n",
        "'<noscript><p>' * (n // 100)",
        "'1<sup>2</sup><svg><i hidden>x</i></svg><math><mn>1</mn></math><pre> </pre>' * n",
    ],
)
def test_time_is_linear_in_the_page(page: str) -> None:
    """The test runs in a subprocess, because a stack overflow of the parser ends the process."""
    code = (
        "from filters.html.extract import ExtractionError, extract_text\n"
        "from linear import assert_linear\n"
        "def work(page):\n"
        "    try: extract_text(page)\n"
        "    except ExtractionError: pass\n"
        f"assert_linear(work, lambda n: {page}, 16_000)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=600, check=True)


@pytest.mark.parametrize("extractor", ["main", "resiliparse", "all"])
def test_letters_with_marks_are_composed(extractor: str) -> None:
    text = extract_text(
        "<article>" + "<p>Scho\u0308ne Gru\u0308\u00dfe, \u09df, e\u0323\u0302.</p>" * 9, extractor=extractor
    )
    assert text.split("\n\n") == ["Sch\u00f6ne Gr\u00fc\u00dfe, \u09af\u09bc, \u1ec7."] * 9


def test_marks_that_are_sorted_are_found() -> None:
    r"""Each character with a combining class above 0 matches `_STACKED`, because it is neither in \w nor in \s."""
    marks = [character for character in map(chr, range(0x110000)) if unicodedata.combining(character)]
    assert len(marks) > 800 and all(_STACKED.search(mark * 64) for mark in marks)


def prose(about: str, sentences: int = 3) -> str:
    return " ".join(
        f"Sentence {number} on {about} says what happened, and it goes on for a while, as sentences of an article do."
        for number in range(sentences)
    )


def paragraphs(about: str, count: int = 5) -> str:
    return "".join(f"<p>{prose(f'{about} {number}')}</p>" for number in range(count))


STORY = f"<h1>The story of the river</h1>{paragraphs('the river')}"
TEASERS = "".join(
    f"<div class=card><a href=/{name}><h3>News of the {name}</h3></a><p>What is new on the {name}.</p></div>"
    for name in ("lake", "hill", "wood", "town", "road", "sea")
)
MENU = (
    "<ul>"
    + "".join(f"<li><a href=/{name}>{name.title()}</a></li>" for name in "home sport money travel".split())
    + "</ul>"
)
PAGES = {  # From the class of a page to (page, parts that its text must contain, parts that it must not contain).
    "comments": (
        f"<article>{STORY}</article><section id=comments><h3>2 comments</h3><ol><li class=comment><b>Ann</b>"
        "<p>I was there in spring, and it was cold.</p></li><li class=comment><b>Ben</b>"
        "<p>My uncle fished there for years.</p></li></ol></section>",
        ["the river 4"], ["uncle", "cold"],
    ),
    "further articles": (
        f"<article>{STORY}</article><div class=related><h2>More stories</h2>{TEASERS}</div>",
        ["the river 4"], ["the lake", "the sea"],
    ),
    "cookie notice": (
        f"<div id=cookies role=dialog><p>{'We and our partners store cookies on your device to see its use. ' * 4}</p>"
        f"<button>Accept</button></div><main>{STORY}</main>", ["the river 0"], ["partners", "Accept"],
    ),
    "cookie notice with an id alone": (
        f"<div id=cookie-bar><p>{'We and our partners store cookies on your device to see its use. ' * 2}</p></div>"
        f"<div>{STORY}</div>", ["the river 0"], ["partners"],
    ),
    "author box": (
        f"<article>{STORY}</article><div class=author-box><h4>Jane Doe</h4><p>Jane has written for this paper "
        "since 1999, and lives in the north with two dogs.</p></div>", ["the river 4"], ["two dogs"],
    ),
    "navigation of a portal": (
        f"<div class=nav>{MENU * 5}</div><div class=left>{MENU * 3}</div><div>{STORY}</div>"
        f"<div class=footer>{MENU * 4}</div>",
        ["the river 0"], ["Travel", "Money"],
    ),
    "recipe": (
        f"<article class=recipe><h1>Soup</h1><p>{prose('soup')}</p><h2>Ingredients</h2><ul class=ingredients>"
        + "".join(f"<li>{number} g of {name}</li>" for number, name in enumerate(["leek", "salt", "oil", "rice"], 100))
        + f"</ul><h2>Method</h2><ol class=instructions><li>{prose('boiling')}</li><li>{prose('serving')}</li></ol>"
        f"</article>{MENU}",
        ["100 g of leek", "103 g of rice", "boiling"], ["Travel"],
    ),
    "list in prose": (
        f"<article><h1>Five rules</h1>{paragraphs('rules', 2)}<ul>"
        + "".join(f"<li>Rule {number} is to keep it short.</li>" for number in range(5))
        + f"</ul>{paragraphs('reasons', 2)}</article>", ["Rule 0 is", "Rule 4 is"], [],
    ),
    "table in prose": (
        f"<article><h1>Heights</h1>{paragraphs('hills', 2)}<table><tr><th>hill<th>metres<tr><td>Ben<td>1345</table>"
        f"{paragraphs('heights', 2)}</article>", ["Ben\t1345"], [],
    ),
    "table of short cells": (
        f"<article><h1>Heights</h1>{paragraphs('hills', 2)}<table>"
        + "".join(f"<tr><td>{name}<td>{height}" for height, name in enumerate(["Ben", "Am", "Carn", "Sgor"], 1300))
        + f"</table>{paragraphs('heights', 2)}</article>{MENU}", ["Ben\t1300", "Sgor\t1303"], ["Travel"],
    ),
    "thread of a forum": (
        "<div class=thread><h1>How do I mend a pump?</h1>"
        + "".join(f"<div class=post><div><p>{prose(f'pump {number}')}</p></div></div>" for number in range(4))
        + f"</div>{MENU}", ["pump 0", "pump 3"], ["Travel"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PAGES)
def test_classes_of_pages(kind: str) -> None:
    page, wanted, unwanted = PAGES[kind]
    text = extract_text(f"<html><head><title>The story of the river</title></head><body>{page}</body></html>")
    assert [part for part in wanted if part not in text] == []
    assert [part for part in unwanted if part in text] == []


@given(st.lists(PIECE, max_size=60).map("".join))
def test_only_code_begins_with_blanks_and_the_text_is_the_same_each_time(page: str) -> None:
    for extractor in ("main", "all"):
        try:
            text = extract_text(page, extractor=extractor)
        except ExtractionError:
            continue
        assert "<pre" in page or all(line == line.lstrip() for line in text.split("\n"))
        assert text == extract_text(page, extractor=extractor)


def number(first: int, count: int, end: str = "\n") -> str:
    return end.join(map(str, range(first, first + count)))


CODE = "<pre>def f(x):\n    if x:\n        return 1</pre>"


@pytest.mark.parametrize(
    ("rows", "is_numbered"),
    [
        (f"<tr><td class=linenos><div><pre>{number(1, 3)}</pre></div></td><td><div>{CODE}</div></td></tr>", True),
        (f"<tr><td>{number(98, 3, '<br>')}</td><td>{CODE}</td></tr>", True),
        (f"<tr><th><div>8</div><div>9</div><div>10</div></th><td>{CODE}</td></tr>", True),
        ("".join(f"<tr><td>{n}</td><td><pre>def f(x):{n}</pre></td></tr>" for n in range(8, 12)), True),
        (f"<tr><td>1 3</td><td>{CODE}</td></tr>", False),
        (f"<tr><td>1</td><td>{CODE}</td></tr>", False),
        (f"<tr><td>1<br>2<br>x</td><td>{CODE}</td></tr>", False),
        (f"<tr><td>1<br>2</td></tr><tr><td>{CODE}</td></tr>", False),
        ("<tr><td>1<br>2</td><td>def f(x):<br>b</td></tr>", False),
    ],
)
def test_the_numbers_of_the_lines_of_a_listing_are_no_text(rows: str, is_numbered: bool) -> None:
    page = f"<article>{PARAGRAPH}<table>{rows}</table>{PARAGRAPH}</article>"
    for extractor in ("main", "all"):
        text = extract_text(page, extractor=extractor)
        assert "def f(x):" in text
        assert (
            any(line.strip().isdecimal() or "1 3" in line or "1\t" in line for line in text.split("\n")) != is_numbered
        )


def test_subheadings_items_and_captions_between_main_text_are_main_text() -> None:
    markup = (
        "<p>a<h2>b</h2><p>c<ul><li>d</ul><p>e<figure><figcaption><p>f</p></figcaption></figure><p>g<div>h</div><p>i"
    )
    body = HTMLTree.parse(markup).body
    page = parse_blocks(body.html if body is not None else "")
    assert page.texts == list("abcdefghi")
    even, against = (np.array([4.0, odds] * 4 + [4.0]) for odds in (0.0, -0.1))
    assert [page.texts[index] for index in select_blocks(even, page, MODEL)] == list("abcdefgi")
    assert [page.texts[index] for index in select_blocks(against, page, MODEL)] == list("acegi")
    even[2] = -1  # The subheading "b" and the item "d" are now next to a block that is not main text.
    assert [page.texts[index] for index in select_blocks(even, page, MODEL)] == list("aefgi")
