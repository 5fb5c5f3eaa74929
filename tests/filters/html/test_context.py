"""Tests of filters.html.context: values computed by hand, and properties of any page."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from filters.html.blocks import Page, parse_blocks
from filters.html.context import MAX_SCORE, NO_MAIN_TEXT, describe_context
from filters.html.features import describe_blocks
from filters.html.model import MODEL, score_alone, score_blocks


def blocks_of(html: str) -> Page:
    body = HTMLTree.parse(html).body
    assert body is not None
    return parse_blocks(body.html)


def test_the_context_of_a_short_page() -> None:
    page = blocks_of("<h1>seven__</h1><div><p>seven__</p><p>seven__</p></div><ul><li>seven__</ul>")
    columns = describe_context(np.array([-1.0, 2.0, 9.0, -2.0]), page)
    assert columns["score"].tolist() == [-1, 2, MAX_SCORE, -2]
    assert columns["previous_1"].tolist() == [-MAX_SCORE, -1, 2, MAX_SCORE]
    assert columns["next_2"].tolist() == [MAX_SCORE, -2, -MAX_SCORE, -MAX_SCORE]
    # Each block has the weight log2(1 + 7) = 3. Each mean also includes a score of 0 with weight 1.
    assert columns["near_4"].tolist() == [3 * (2 + 4 - 2) / 10, 3 * (-1 + 4 - 2) / 10, 3 * (-1 + 2 - 2) / 10, 1.5]
    assert columns["container_0"].tolist() == [0, 0, 0, 0]
    assert columns["container_1"].tolist() == [pytest.approx(1.2), 3.0, 1.5, 0]
    assert columns["alike"].tolist() == [0, 3.0, 1.5, 0] and columns["alike_count"].tolist() == [0, 1, 1, 0]
    assert columns["since_main"].tolist() == [NO_MAIN_TEXT, 0, 0, 0]
    assert columns["until_main"].tolist() == [0, 0, 0, NO_MAIN_TEXT]
    assert columns["main_before"][0] == 0 and columns["main_after"][-1] == pytest.approx(0)


PAGES = st.lists(
    st.sampled_from("<div> </div> <p> <ul> <li> </ul> <article> </article> <br>".split()) | st.text("ab ", max_size=9),
    max_size=40,
).map(lambda parts: blocks_of("".join(["<body>text", *parts])))
LIKELY = st.floats(-9, 9, width=16)


@given(PAGES, st.lists(LIKELY, min_size=50, max_size=50), st.data())
def test_means_are_of_the_other_blocks(page: Page, scores: list[float], data: st.DataObject) -> None:
    count = len(page.texts)
    one = data.draw(st.integers(0, count - 1))
    first = np.array(scores[:count])
    second = first.copy()
    second[one] = data.draw(LIKELY)
    before, after = describe_context(first, page), describe_context(second, page)
    assert tuple(before) == MODEL.context.inputs
    for name, column in before.items():
        assert column.shape == (count,) and np.isfinite(column).all()
        if name.startswith(("previous", "next", "near", "container", "alike")):
            assert after[name][one] == pytest.approx(column[one], abs=1e-6)


@given(PAGES)
def test_what_is_surely_no_text_stays_so_whatever_is_around(page: Page) -> None:
    """If the second network returns 0, the score of a block is the part of its first score below -MAX_SCORE."""
    silent = MODEL.context._replace(
        weights=0 * MODEL.context.weights, bias=0 * MODEL.context.bias, output=0 * MODEL.context.output
    )
    blocks = MODEL.blocks._replace(bias=MODEL.blocks.bias - np.eye(len(MODEL.blocks.bias))[-1] * MAX_SCORE)
    model = MODEL._replace(blocks=blocks, context=silent)
    features = describe_blocks(page, "")
    alone = score_alone(features, model)
    assert np.array_equal(score_blocks(features, page, model), np.where(alone < -MAX_SCORE, alone + MAX_SCORE, 0))
