"""What blocks say about the blocks around them, by hand and for any page."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from filters.html.blocks import Page, parse_blocks
from filters.html.context import MOST, NEVER, describe_context
from filters.html.features import describe_blocks
from filters.html.model import MODEL, score_alone, score_blocks


def blocks_of(html: str) -> Page:
    body = HTMLTree.parse(html).body
    assert body is not None
    return parse_blocks(body.html)


def test_the_context_of_a_short_page() -> None:
    page = blocks_of("<h1>seven__</h1><div><p>seven__</p><p>seven__</p></div><ul><li>seven__</ul>")
    columns = describe_context(np.array([-1.0, 2.0, 9.0, -2.0]), page)
    assert columns["score"].tolist() == [-1, 2, MOST, -2]
    assert columns["previous_1"].tolist() == [-MOST, -1, 2, MOST]
    assert columns["next_2"].tolist() == [MOST, -2, -MOST, -MOST]
    # Each block weighs log2(1 + 7) = 3 letters, and means have a weight of 1 at 0.
    assert columns["near_4"].tolist() == [3 * (2 + 4 - 2) / 10, 3 * (-1 + 4 - 2) / 10, 3 * (-1 + 2 - 2) / 10, 1.5]
    assert columns["container_0"].tolist() == [0, 0, 0, 0]
    assert columns["container_1"].tolist() == [pytest.approx(1.2), 3.0, 1.5, 0]
    assert columns["alike"].tolist() == [0, 3.0, 1.5, 0] and columns["alike_count"].tolist() == [0, 1, 1, 0]
    assert columns["since_main"].tolist() == [NEVER, 0, 0, 0] and columns["until_main"].tolist() == [0, 0, 0, NEVER]
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
    """With a second network that says nothing, a block scores what the first says below the bound that it sees."""
    silent = MODEL.context._replace(
        weights=0 * MODEL.context.weights, bias=0 * MODEL.context.bias, output=0 * MODEL.context.output
    )
    blocks = MODEL.blocks._replace(bias=MODEL.blocks.bias - np.eye(len(MODEL.blocks.bias))[-1] * MOST)
    model = MODEL._replace(blocks=blocks, context=silent)
    features = describe_blocks(page, "")
    alone = score_alone(features, model)
    assert np.array_equal(score_blocks(features, page, model), np.where(alone < -MOST, alone + MOST, 0))
