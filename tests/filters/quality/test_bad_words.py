"""The rule of bad words: whole words and phrases, whatever their case, as a plain expression finds them."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.errors import UserError
from filters.quality.c4 import BadWords, has_bad_word, read_bad_words
from filters.reasons import Reason
from filters.rule import Found, Page, drop, keep

PIECES = st.sampled_from(
    [
        "word",
        "Long",
        "darn",
        "Darn",
        "dar[]n",
        "word long",
        "d.a.r.n.",
        "-",
        "$",
        "!",
        ".",
        " ",
        "\n",
        "İ",
        "Σ",
        "\u212a",
        "straße",
        "_",
        "é",
        "x1",
        "\u2028",
    ]
)
BAD_WORDS = st.frozensets(
    st.sampled_from(["darn", "STRASSE", "k", "_", "two words", "é", "word Long", "word long x1", "d.a.r.n.", "$darn",
                     "!", "Long-word", "straße _"]),
    max_size=3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ("Well, Darn it said the man.", True),
        ("He was darning a sock by the fire.", False),
        ("Oh (darn) it all, he said.", True),
        ("Who said: Dash It All, and left?", True),
        ("He would dash it all over the place.", True),
        ("They mashed it all; dash it", False),
        ("The b.l.a.s.t. of the horn.", True),
        ("The b l a s t of the horn.", False),
    ],
)
def test_bad_words_count_between_other_characters_alone(tmp_path: Path, line: str, gone: bool) -> None:
    (tmp_path / "words.txt").write_text("other\n  DARN \n\nDash it all\nb.l.a.s.t.\n", encoding="utf-8")
    rule = BadWords(words=str(tmp_path / "words.txt"))
    assert rule.apply(Page(line), Found()) == (drop(Reason.C4_BAD_WORD) if gone else keep())


@given(st.lists(PIECES | st.text(max_size=10), max_size=20).map("".join), BAD_WORDS)
@settings(max_examples=400, deadline=None)
def test_the_rule_finds_what_the_expression_finds(
    tmp_path_factory: pytest.TempPathFactory, text: str, entries: frozenset[str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "entries.txt"
    path.write_text("\n".join(entries), encoding="utf-8")
    plainly = any(re.search(rf"(?<!\w){re.escape(entry.casefold())}(?!\w)", text.casefold()) for entry in entries)
    assert has_bad_word(text, read_bad_words(str(path))) is plainly


def test_time_is_linear(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a b c\na-b\n!\nx\n", encoding="utf-8")
    bad = read_bad_words(str(tmp_path / "list"))
    for unit in ("a b ", "a", "a-", "! !", "ab "):
        assert_linear(lambda text: has_bad_word(text, bad), repeated(unit), 1 << 19)


def test_a_list_that_cannot_be_read_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("binary", "none.txt"):
        with pytest.raises(UserError, match="one word or phrase per line"):
            BadWords(words=str(tmp_path / name)).check()
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    assert not has_bad_word("any word", read_bad_words(str(tmp_path / "empty")))
