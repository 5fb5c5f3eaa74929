"""The rule of bad words: whole words, whatever their case, as a plain expression finds them."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.errors import UserError
from filters.quality.c4 import BadWords, has_bad_word, read_bad_words
from filters.reasons import Reason
from filters.rule import Found, Page, drop, keep

PIECES = st.sampled_from(
    ["word", "Long", "darn", "Darn", "dar[]n", ".", " ", "\n", "İ", "Σ", "\u212a", "straße", "_", "é", "x1", "\u2028"]
)
BAD_WORDS = st.frozensets(st.sampled_from(["darn", "strasse", "k", "_", "two words", "word", "é"]), max_size=2)


@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ("Well, Darn it said the man.", True),
        ("He was darning a sock by the fire.", False),
        ("Oh (darn) it all, he said.", True),
    ],
)
def test_bad_words_count_between_other_characters_alone(tmp_path: Path, line: str, gone: bool) -> None:
    (tmp_path / "words.txt").write_text("other\n  DARN \n\n", encoding="utf-8")
    rule = BadWords(words=str(tmp_path / "words.txt"))
    assert rule.apply(Page(line), Found()) == (drop(Reason.C4_BAD_WORD) if gone else keep())


@given(st.lists(PIECES | st.text(max_size=10), max_size=20).map("".join), BAD_WORDS)
@settings(max_examples=200, deadline=None)
def test_the_rule_finds_what_the_expression_finds(text: str, words: frozenset[str]) -> None:
    plainly = bool(set(re.findall(r"\w+", text.casefold())) & words)
    assert has_bad_word(text, words) is plainly


def test_a_list_that_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("binary", "none.txt"):
        with pytest.raises(UserError, match="one word per line"):
            BadWords(words=str(tmp_path / name)).check()
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert not has_bad_word("any word", read_bad_words(str(tmp_path / "empty")))
