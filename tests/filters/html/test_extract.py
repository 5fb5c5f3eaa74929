"""Pages to text, and pages made to hang the parser."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.formats.charset import decode
from filters.html.extract import ExtractionError, extract_text
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
    ],
    ids=["nested", "stray end tags", "formatting", "attributes"],
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
    """The words of the main text are words of the page, in its order: parts may be left out, also inside a line."""
    page = "".join(f"<{tag}>{f'<a href=/x>{text}</a>' if linked else text}</{tag}>\n" for tag, text, linked in parts)
    visible = iter(" ".join(text for _, text, _ in parts).split())
    for word in extract_text(f"<body>{page}</body>").split():
        assert word in visible  # a membership test on an iterator goes on from the last match


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
        "('<a ' + '<a ' * 900 + '>') * (n // 900)",
        "('<p ' + ' '.join(f'a{k}=\">\"' for k in range(60)) + '>x') * (n // 60)",
        "'<a href=\"' * n",
        "'<noscript><p>' * (n // 100)",
    ],
)
def test_time_is_linear_in_the_page(page: str) -> None:
    """In a process of its own, which a parser that overflows its stack may end."""
    code = (
        "from filters.html.extract import ExtractionError, extract_text\n"
        "from linear import assert_linear\n"
        "def work(page):\n"
        "    try: extract_text(page)\n"
        "    except ExtractionError: pass\n"
        f"assert_linear(work, lambda n: {page}, 32_000)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=600, check=True)
