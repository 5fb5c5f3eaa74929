"""Tests of filters.html.features: features that are computed for all blocks at once equal those of single blocks."""

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from filters.html.blocks import Page, parse_blocks
from filters.html.features import (
    DIGITS_IN,
    LABEL_LENGTH,
    MAX_STAMP_DISTANCE,
    MIN_STAMPS,
    REACH,
    Features,
    describe_blocks,
)
from filters.html.features import _count as count
from filters.html.features import _count_digits as count_digits
from filters.html.features import _find_lines as find_lines
from filters.html.features import _join as join
from filters.html.names import LABELS

TEXTS = st.lists(st.text("aİΣ ,，、!?5٣७é漢", min_size=1, max_size=12), min_size=1, max_size=9)


@given(TEXTS)
def test_characters_are_counted_in_each_text(texts: list[str]) -> None:
    assert count(b",", join(texts)) == [text.count(",") for text in texts]
    assert count(b"!?", join(texts)) == [text.count("!") + text.count("?") for text in texts]


@given(TEXTS)
def test_digits_of_all_writing_systems_count(texts: list[str]) -> None:
    assert count_digits(texts) == [len(re.findall(r"\d", text)) for text in texts]
    assert count_digits([f"{'1' * DIGITS_IN}2"]) == [DIGITS_IN]


@given(st.lists(st.text("abΣ\n", max_size=6), min_size=1, max_size=9), st.text("ab", min_size=1, max_size=2))
def test_lines_with_a_label_are_found(lines: list[str], label: str) -> None:
    assert {*find_lines("\0".join(lines), label)} == {index for index, line in enumerate(lines) if label in line}


def describe(lines: list[str]) -> tuple[Page, Features]:
    body = HTMLTree.parse("".join(f"<p>{line}</p>" for line in lines)).body
    assert body is not None
    page = parse_blocks(body.html)
    return page, describe_blocks(page, "")


LINES = st.sampled_from(
    ["2024-05-06", "Posted 12:34", "A paragraph.", "<a href=x>Home</a> and more", f"{LABELS['comments'][0].upper()}s",
     "A longer paragraph, " * 5, f"{LABELS['more'][0]} {'x' * LABEL_LENGTH}"]
)  # fmt: skip


@given(st.lists(LINES, min_size=1, max_size=40))
def test_what_is_near_is_counted_block_by_block(lines: list[str]) -> None:
    page, features = describe(lines)
    columns, blocks = features.columns, range(len(page.texts))
    assert page.texts and len(page.texts) == len(lines)
    stamps = [index for index in blocks if columns["stamps_alike"][index] >= np.log2(1 + MIN_STAMPS)]
    for index in blocks:
        since = min([index - stamp for stamp in stamps if stamp <= index], default=MAX_STAMP_DISTANCE)
        until = min([stamp - index for stamp in stamps if stamp >= index], default=MAX_STAMP_DISTANCE)
        near = slice(max(index - REACH, 0), index + REACH + 1)
        letters = sum(map(len, page.texts[near]))
        assert columns["since_stamp"][index] == np.log2(1 + since)
        assert columns["until_stamp"][index] == np.log2(1 + until)
        assert columns["wide_linked"][index] == sum(page.linked[near]) / letters
        assert columns["any_label_more"][index] == 0
    assert (columns["stamps"] == np.log2(1 + len(stamps))).all()
    assert columns["previous_length"].tolist() == [0.0, *columns["length"][:-1]]
    assert columns["next_length"].tolist() == [*columns["length"][1:], 0.0]
