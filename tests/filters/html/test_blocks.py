"""Blocks of serialised pages, their containers, and what names say: each rule by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from filters.html.blocks import Page, parse_blocks
from filters.html.features import describe_blocks
from filters.html.model import MODEL, STEP, WEIGHT_STEP, collect_inputs, score_alone, score_blocks
from filters.html.names import BITS, GROUPS, LABELS, read_names


def blocks_of(html: str) -> Page:
    body = HTMLTree.parse(html).body
    assert body is not None
    return parse_blocks(body.html)


def lines_of(html: str) -> list[str]:
    return blocks_of(html).texts


def test_lines_end_at_block_elements_and_breaks() -> None:
    page = blocks_of(
        "<h2>Title <a href=/x>more</a></h2><p>a &lt;b&gt; &amp;amp; <b>c</b><br>d<br><br>e</p>plain\n"
        "<ul><li>one<li>two</ul>"
    )
    assert page.texts == ["Title more", "a <b> &amp; c", "d", "e", "plain", "one", "two"]
    assert page.linked == [4, 0, 0, 0, 0, 0, 0]
    assert page.gaps[1:] == ["\n\n", "\n", "\n\n", "\n\n", "\n\n", "\n"]


def test_cells_of_a_row_are_on_one_line() -> None:
    page = blocks_of("<table><tr><th>a<th>b<tr><td>1<td>2</table>")
    assert "".join(map("".join, zip(page.gaps, page.texts, strict=True))).strip() == "a\tb\n1\t2"


def test_preformatted_lines_are_one_block() -> None:
    assert lines_of("<p>Code:</p><pre>\nif x:\n    y  =  1\n\n</pre>") == ["Code:", "if x:\ny = 1"]


@pytest.mark.parametrize(
    "unseen",
    [
        "<script>if (a < b) document.write('<p>x</p>')</script>", "<style>p > a {}</style>", "<!---->",
        "<template><p>x</p></template>",
        "<!-- a comment <p>x</p> \" -->", "<!---->", "<svg><title>x</title></svg>", "<select><option>x</select>",
        "<textarea><p>x</textarea>", "<iframe>x</iframe>",
    ],
)  # fmt: skip
def test_what_is_not_shown_is_no_text(unseen: str) -> None:
    assert lines_of(f"<p>before</p>{unseen}<p>after</p>") == ["before", "after"]


@pytest.mark.parametrize(
    "tag",
    ["<a title='x > y'>", "<a title='x < y'>", "<a href='x\"><b>hidden</b>'>", '<b ="" a"b>', "<img alt='<p>a</p>'>"],
)
def test_brackets_and_quotes_in_attributes_are_no_text(tag: str) -> None:
    assert lines_of(f"<p>See {tag}this</a> for more.</p><p>after</p>") == ["See this for more.", "after"]


def test_containers_hold_ranges_of_blocks() -> None:
    page = blocks_of("<div class=comments><p>one</p><p>two</p></div><p>three</p>")
    div = page.tags.index("div")
    assert page.texts[page.starts[div] : page.ends[div]] == ["one", "two"]
    assert page.names[div] == BITS["word_comments"] | BITS["element_division"]
    assert all(parent < child for child, parent in enumerate(page.parents))


TAGS = st.sampled_from("div p a b ul li table tr td pre span h1 script article br".split())
PIECES = st.one_of(
    TAGS.map("<{}>".format),
    TAGS.map("</{}>".format),
    st.text("ab <>&\"'=-!\n", max_size=9),
    st.just("<p title='<>\"'>"),
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_page_has_blocks_in_order_without_blanks_around(html: str) -> None:
    body = HTMLTree.parse(html).body
    page = parse_blocks(body.html if body is not None else html)
    for text in page.texts:
        assert text and all(line == line.strip() != "" for line in text.split("\n"))
    assert len({len(column) for column in page[:4]}) == 1 and len({len(column) for column in page[4:]}) == 1
    for container, (start, end) in enumerate(zip(page.starts, page.ends, strict=True)):
        parent = max(page.parents[container], 0)
        assert page.starts[parent] <= start <= end <= page.ends[parent]
    for index, place in enumerate(page.places):
        assert page.starts[place] <= index < page.ends[place]
    if page.texts:
        features = describe_blocks(page, "a title")
        scores = score_blocks(features, page, MODEL)
        assert len(scores) == len(page.texts) and all(abs(score) < 1e3 for score in scores.tolist())
        assert set(MODEL.features) == set(features.columns)


@pytest.mark.parametrize(
    "attributes, groups",
    [
        ('class="comments-area"', ["word_comments"]),
        ('id="NAV"', ["word_menu"]),
        ('class="no-sidebar has-share tag-comments"', []),
        ('class="card--related"', ["word_item"]),
        ('class="overflow"', []),
        ('class="entry-content"', ["name_body", "word_text"]),
        ('role="navigation"', ["schema_apart"]),
        ('itemtype="https://schema.org/NewsArticle"', ["schema_article"]),
        ('style="color: red; display: none"', ["word_hidden"]),
        ('hidden=""', ["word_hidden"]),
        ('aria-hidden="false"', []),
    ],
)
def test_names_say_what_an_element_is(attributes: str, groups: list[str]) -> None:
    bits = read_names(attributes)
    assert [group for group in GROUPS if bits & BITS[group]] == sorted(groups, key=GROUPS.index)


def test_labels_are_in_lower_case() -> None:
    assert all(label == label.lower().strip() and len(label) > 3 for labels in LABELS.values() for label in labels)


def test_scores_are_exact_so_that_the_order_of_additions_does_not_matter() -> None:
    page = blocks_of("<main><h1>A title</h1><p>A line of 1,234 words, <a>linked</a>.</p></main>" * 30)
    features, network = describe_blocks(page, "A title"), MODEL.blocks
    inputs = np.round(collect_inputs(features, MODEL.features) / STEP).astype(np.int64)
    weights, output = ((part / WEIGHT_STEP).astype(np.int64) for part in (network.weights, network.output))
    sums = (inputs @ weights) * (STEP * WEIGHT_STEP) + network.bias
    exact = np.round(np.maximum(sums[:, :-1], 0) / STEP).astype(np.int64) @ output
    assert np.array_equal(score_alone(features, MODEL), exact * (STEP * WEIGHT_STEP) + sums[:, -1])
