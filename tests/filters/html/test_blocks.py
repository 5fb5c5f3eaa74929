"""Blocks of extracted pages, the runs that are text, set phrases, and boilerplate by its mark-up: each rule by hand."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear import assert_linear
from resiliparse.parse.html import ElementNode, HTMLTree

from filters.html.blocks import (
    LONGEST_LINK,
    PHRASES,
    Block,
    find_maximal_runs,
    find_notices,
    is_button,
    is_byline,
    is_label,
    is_notice,
    parse_blocks,
    select_main_blocks,
)
from filters.html.boilerplate import is_junk_name, narrow_to_article, remove_apart, remove_junk

PROSE = "This is a sentence of the article, long enough to count as its text, and it goes on for a while. " * 4


def prose(text: str = PROSE) -> Block:
    return Block(text, len(text), 0, False, True)


def link(text: str) -> Block:
    return Block(text, len(text), len(text), False, False)


def heading(text: str) -> Block:
    return Block(text, len(text), 0, True, True)


def body_of(html: str) -> ElementNode:
    body = HTMLTree.parse(html).body
    assert body is not None
    return body


def kept_text(html: str) -> str:
    body = body_of(html)
    remove_apart(body)
    remove_junk(body)
    return " ".join((body.text_content or "").split())


def test_lines_become_blocks() -> None:
    found = parse_blocks('<h2>Title <a href="/x">more</a></h2>\n\n<p>a &lt;b&gt; &amp;amp; c</p>\nplain\n   \n')
    assert found == [
        Block("Title more", 10, 4, True, False),
        Block("a <b> &amp; c", 13, 0, False, True),
        Block("plain", 5, 0, False, False),
    ]


def test_links_over_several_lines_and_places_to_link_to() -> None:
    first, second, third = parse_blocks('<a href="/x">one\ntwo</a> three\n<a href="">place')
    assert (first.linked, second.linked, third.linked) == (3, 3, 0)


def test_a_link_that_was_never_closed_is_no_link() -> None:
    long = "x" * (LONGEST_LINK + 1)
    first, second, third = parse_blocks(f'<a href="/x">short\n{long}\nshort')
    assert (first.linked, second.linked, third.linked) == (5, 0, 0)


def test_a_heading_of_other_markup_is_none() -> None:
    assert not parse_blocks("<hr>x")[0].heading


@pytest.mark.parametrize(
    "worths, runs",
    [
        ([], []),
        ([-1, 0], []),
        ([4, -5, 3, -3, 1, 2, -2, 2, -2, 1, 5], [(0, 1, 4), (2, 3, 3), (4, 11, 7)]),  # the paper's own example
        ([1, 1], [(0, 2, 2)]),
        ([5, -1, 5], [(0, 3, 9)]),
    ],
)
def test_maximal_runs(worths: list[float], runs: list[tuple[int, int, float]]) -> None:
    assert find_maximal_runs(worths) == runs


@given(st.lists(st.integers(-9, 9), max_size=40))
def test_maximal_runs_as_the_paper_defines_them(worths: list[int]) -> None:
    """Take the best run (of equals the shortest, then the first), and again left and right of it."""

    def defined(start: int, end: int) -> list[tuple[int, int, float]]:
        all_runs = [(sum(worths[a:b]), a - b, -a, b) for a in range(start, end) for b in range(a + 1, end + 1)]
        if not all_runs or max(all_runs)[0] <= 0:
            return []
        score, _, a, b = max(all_runs)
        return [*defined(start, -a), (-a, b, float(score)), *defined(b, end)]

    assert [score for *_, score in find_maximal_runs(worths)] == [score for *_, score in defined(0, len(worths))]
    for start, end, score in find_maximal_runs(worths):
        assert score == sum(worths[start:end]) > 0


def test_maximal_runs_take_linear_time() -> None:
    chance = random.Random(1)
    cases: list[Callable[[int], list[float]]] = [
        lambda size: [1.0, -0.5] * size,
        lambda size: [1.0, -2.0] * size,
        lambda size: [2.0, -1.0] * size,
        lambda size: [float(n % 7 - 3) for n in range(size)],
        lambda size: [chance.uniform(-1, 1) for _ in range(size)],
    ]
    for make in cases:
        assert_linear(find_maximal_runs, make, 10**5)


def test_menus_around_prose_are_left_out() -> None:
    menu = [link("Home"), link("News"), link("Sport")]
    page = [*menu, heading("Title"), prose(), link("Read it at once"), prose(), *menu]
    assert [block.text for block in select_main_blocks(page, trusted=False)] == ["Title", PROSE, PROSE]


def test_a_second_text_is_kept_a_scrap_is_not() -> None:
    menu = [link("a link in a menu " * 4)] * 12
    scrap = prose("A scrap of a sentence, too short.")
    assert select_main_blocks([prose(), *menu, prose()], trusted=False) == [prose(), prose()]
    assert select_main_blocks([prose(), *menu, scrap], trusted=False) == [prose()]


def test_a_page_of_scraps_keeps_the_best() -> None:
    scrap = prose("A sentence that is all there is.")
    assert select_main_blocks([link("Home"), scrap], trusted=False) == [scrap]
    assert select_main_blocks([link("Home")], trusted=False) == []
    assert select_main_blocks([], trusted=True) == []


def test_chinese_says_more_in_a_character() -> None:
    line = prose("这是一个简短的句子。")
    menu = [link("首页")] * 2
    assert select_main_blocks([line, *menu, line, *menu], trusted=False)[0] == line


def test_an_article_keeps_its_short_lines_but_not_its_tail() -> None:
    page = [heading("Title"), prose(), prose("Short."), prose(), heading("Tags"), prose("Politics"), prose("Berlin")]
    assert [block.text for block in select_main_blocks(page, trusted=True)] == ["Title", PROSE, "Short.", PROSE]


def test_an_article_of_short_lines_is_kept() -> None:
    poem = [prose("A line,"), prose("and another.")]
    assert select_main_blocks(poem, trusted=True) == poem


def test_a_label_takes_its_links_along() -> None:
    teaser = Block("A teaser with some words of its own", 36, 18, False, False)
    page = [prose(), prose("Lesen Sie auch"), teaser, prose(), teaser, prose()]
    assert select_main_blocks(page, trusted=True) == [prose(), prose(), teaser, prose()]


@pytest.mark.parametrize(
    "line", ["You may also like", "Mehr zum Thema:", "Lire aussi : la suite", "Zobacz też", "Tags: a, b"]
)
def test_labels(line: str) -> None:
    assert is_label(line.lower())
    assert not is_label(f"he said: {line}".lower()) and not is_label(line.lower() + " and so on" * 9)


def test_phrases_are_in_lower_case_and_those_of_bylines_end_in_whole_words() -> None:
    for phrases in PHRASES.values():
        assert len(set(phrases)) == len(phrases)
        assert all(phrase == phrase.lower().lstrip() and len(phrase) > 2 for phrase in phrases)
    of_words = {"by ", "written by ", "von ", "par ", "por ", "door ", "av "}  # whole words: "bypass" is no byline
    assert {phrase for phrase in PHRASES["byline"] if phrase[-1] == " "} == of_words


def test_buttons_bylines_and_notices() -> None:
    assert all(map(is_button, ["share", "teilen »", "12 kommentare", "comments (3)"])) and not is_button(
        "share prices fell"
    )
    assert is_byline("by jane doe") and is_byline("foto: dpa")
    assert not is_byline("by noon it was over.") and not is_byline("bypass") and not is_byline("by " + "x" * 80)
    phrases = find_notices("this site uses cookies to work")
    assert is_notice("this site uses cookies to work", phrases) and is_notice("© 2020 somebody", [])
    assert not is_notice("this site uses cookies" + " and" * 99, phrases) and not find_notices("an article")


@pytest.mark.parametrize(
    "junk",
    [
        "<nav>Home</nav>", "<aside>x</aside>", "<div role=navigation>x</div>", "<script>x</script>", "<style>x</style>",
        "<noscript>x</noscript>", "<div class=comments>x</div>", "<div id=nav-links>x</div>",
        "<p class='post-meta'>x</p>", "<div class='ShareButtons'>x</div>", "<DIV CLASS='Newsletter'>x</DIV>",
        "<time>x</time>", "<div class=author-box>x</div>",
    ],
)  # fmt: skip
def test_boilerplate_is_taken_out(junk: str) -> None:
    assert kept_text(f"<body><p>{PROSE}</p>{junk}<p>End.</p>") == f"{PROSE.strip()} End."


@pytest.mark.parametrize(
    "name", ["no-share", "has-sidebar", "tag-comments", "overflow-hidden", "card--related", "shareholder", "commentary"]
)
def test_names_that_only_look_like_boilerplate(name: str) -> None:
    assert not is_junk_name(name)
    assert kept_text(f"<body><p class='{name}'>Kept.</p>") == "Kept."


def test_a_wrapper_with_an_unlucky_name_stays() -> None:
    assert "sentence" in kept_text(f"<body><div class=sidebar-right><p>{PROSE}</p></div>")
    assert "sentence" in kept_text(f"<body><article class='article share'><p>{PROSE}</p></article>")
    assert "sentence" in kept_text(f"<body role=navigation><main role=navigation>{PROSE}</main>")


def test_comments_longer_than_the_text_go() -> None:
    assert kept_text(f"<body><p>{PROSE}</p><div id=comments class=comments>{PROSE * 3}</div>") == PROSE.strip()


def test_text_that_is_all_in_noscript_stays() -> None:
    assert "sentence" in kept_text(f"<body><noscript>{PROSE * 3}</noscript>")


def test_the_article_is_found_and_teasers_are_not() -> None:
    teasers = f"<article>{PROSE[:150]}</article>" * 9
    body = body_of(f"<div>{teasers}</div><div><article id=it>{PROSE * 6}</article></div>")
    assert narrow_to_article(body) and (body.text_content or "") == PROSE * 6
    assert not narrow_to_article(body_of(f"<body>{teasers}"))
    assert not narrow_to_article(body_of("<body><article>x</article>"))


def test_the_surest_mark_comes_first() -> None:
    body = body_of(f"<main><h1>Site</h1><article>{PROSE * 2}</article></main>")
    assert narrow_to_article(body) and "Site" not in (body.text_content or "")
