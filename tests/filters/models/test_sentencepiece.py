"""Texts to ids and back: as SentencePiece does it, whatever the text, and from parts as from the whole."""

import unittest.mock
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_tokenizers import AWKWARD, opened, small_model, texts, trained

from filters.errors import UserError
from filters.models import sentencepiece as tokens
from filters.models.sentencepiece import (
    chunks,
    decode_ids,
    decoded_form,
    encode_texts,
    inner_pairs,
    open_model,
    utf8,
)
from manifests.shard import token_dtype

VOCABULARY = 3_000


def bare(text: str) -> list[int]:
    """What SentencePiece itself makes of a text."""
    return [1, *opened().encode(utf8(text)), 2]


@settings(max_examples=500, deadline=None)
@given(texts)
def test_any_text_comes_back_but_for_the_two_stated_rules(text: str) -> None:
    (ids,) = encode_texts([text], opened(), VOCABULARY)
    assert ids.dtype == np.uint16 and ids.tolist() == bare(text)
    expected = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else " " if c == "\u2581" else c for c in text)
    assert decode_ids(ids, opened()) == decoded_form(text) == expected


@settings(max_examples=500, deadline=None)
@given(texts, st.integers(1, 9))
@example("aaaaaaaaaaaaaaaaaaaa", 3)
@example("the" * 20, 1)
@example("<s>" * 9, 2)
@example(" " * 40, 3)
def test_parts_give_the_ids_of_the_whole(text: str, size: int) -> None:
    with unittest.mock.patch.object(tokens, "CHUNK", size):
        (ids,) = encode_texts([text], opened(), VOCABULARY)
    assert ids.tolist() == bare(text)


def test_parts_of_a_model_without_a_space_before_the_text() -> None:
    model = open_model(trained(add_dummy_prefix=False), "bare")
    assert len(model.encode("\0")) == 1
    text = " the <s>\n\n  othe\u2581 the\0re 12" * 9
    for size in range(1, 30):
        with unittest.mock.patch.object(tokens, "CHUNK", size):
            (ids,) = encode_texts([text], model, 400)
        assert ids.tolist() == [1, *model.encode(text), 2]
        assert decode_ids(ids, model) == decoded_form(text)


@settings(max_examples=200, deadline=None)
@given(texts, st.integers(1, 9), st.integers(1, 20))
def test_a_stretch_without_a_place_to_cut_is_cut_all_the_same_and_comes_back(text: str, size: int, most: int) -> None:
    with unittest.mock.patch.multiple(tokens, CHUNK=size, LONGEST_STRETCH=max(size, most)):
        parts = list(chunks(text, inner_pairs(opened())))
        (ids,) = encode_texts([text], opened(), VOCABULARY)
    assert "".join(parts) == text and all(parts)
    assert max(map(len, parts), default=0) <= max(size, most)
    assert decode_ids(ids, opened()) == decoded_form(text)


@pytest.mark.parametrize("stretch", [1 << 23, 3_000])
@pytest.mark.parametrize("text", ["a" * 50_000, "ab\n" * 20_000, "\u6f22" * 50_000, "a" * 9_999 + "\n" * 9_999])
def test_looking_for_places_to_cut_is_linear(text: str, stretch: int) -> None:
    looked_at = 0

    class Counted(frozenset[str]):
        def __contains__(self, pair: object) -> bool:
            nonlocal looked_at
            looked_at += 1
            return super().__contains__(pair)

    with unittest.mock.patch.multiple(tokens, CHUNK=1_000, LONGEST_STRETCH=stretch):
        list(chunks(text, Counted(["aa", "\u6f22\u6f22"])))
    assert 0 < looked_at <= len(text)


@settings(deadline=None)
@given(st.lists(st.text(min_size=2, max_size=2)), st.text())
def test_text_is_cut_at_the_first_place_where_no_pair_reaches_over(pairs: list[str], text: str) -> None:
    with unittest.mock.patch.object(tokens, "CHUNK", 1):
        parts = list(chunks(text, frozenset(pairs)))
    expected = "".join(text[i] + ("" if text[i : i + 2] in pairs else "|") for i in range(len(text)))
    assert sum(map(len, parts)) == len(text) and len(parts) == expected.count("|") - text.count("|")


class Watched:
    """A model that remembers the longest text it was given."""

    def __init__(self) -> None:
        self.longest = 0

    def encode(self, given: Any, **options: Any) -> Any:
        self.longest = max([self.longest, *map(len, given if isinstance(given, list) else [given])])
        return opened().encode(given, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(opened(), name)


@pytest.mark.parametrize("unit", ["lorem ipsum ", "\u6f22\u5b57", "x1"])
def test_a_long_line_never_reaches_sentencepiece_whole(unit: str) -> None:
    text = unit * (300_000 // len(unit))
    watched: Any = Watched()
    with unittest.mock.patch.object(tokens, "CHUNK", 1 << 17):
        (ids,) = encode_texts([text], watched, VOCABULARY)
    assert watched.longest <= len(utf8(unit)) / len(unit) * ((1 << 17) + 100)
    assert ids.tolist() == bare(text)


@pytest.mark.parametrize("letter", ["a", " ", "\n", "0"])
def test_a_line_of_one_letter_has_the_ids_of_the_whole(letter: str) -> None:
    text = letter * ((1 << 18) + 1)
    with unittest.mock.patch.object(tokens, "CHUNK", 1 << 17):
        (ids,) = encode_texts([text], opened(), VOCABULARY)
    assert np.array_equal(ids[1:-1], opened().encode(text, return_type="numpy"))


def test_what_looks_like_a_piece_with_a_meaning_is_text() -> None:
    for text in ("<s>", "</s>", "<unk>", "<0x0A>", " <s> ", "a<s></s>b", "\n<0x00>"):
        (ids,) = encode_texts([text], opened(), VOCABULARY)
        inside = ids[1:-1].tolist()
        assert not any(opened().is_control(i) or opened().is_unknown(i) for i in inside)
        assert inside.count(opened().piece_to_id("<0x0A>")) == text.count("\n")
        assert opened().piece_to_id("<0x00>") not in inside
        assert decode_ids(ids, opened()) == text


def test_texts_come_in_their_order_whatever_their_length() -> None:
    many = ["", "a b", "word " * 50, "", *AWKWARD]
    with unittest.mock.patch.object(tokens, "CHUNK", 20):
        found = encode_texts(many, opened(), VOCABULARY)
    assert [ids.tolist() for ids in found] == [bare(text) for text in many]
    assert encode_texts([], opened(), VOCABULARY) == []


@pytest.mark.parametrize("vocabulary", [300, VOCABULARY, 1 << 16, (1 << 16) + 1, 1 << 20])
def test_ids_have_the_type_of_the_shard(vocabulary: int) -> None:
    with unittest.mock.patch.object(tokens, "CHUNK", 3):
        for ids in encode_texts(["ab", "a b c d e"], opened(), vocabulary):
            assert ids.dtype == token_dtype(vocabulary)


REFUSED = {
    "is not a BPE model": {"model_type": "unigram"},
    "has no byte pieces": {"byte_fallback": False},
    "puts spaces behind words": {"treat_whitespace_as_suffix": True},
    "normalises text": {"normalization_rule_name": "nmt_nfkc"},
    "drops spaces": {"remove_extra_whitespaces": True},
    "no BOS or EOS": {"bos_id": -1},
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_model_that_would_lose_text_is_refused_and_says_why(why: str) -> None:
    with pytest.raises(UserError, match=f"tokenizer some.model .*{why}.*: give a"):
        open_model(trained(**REFUSED[why]), "some.model")


def test_a_model_with_unused_pieces_is_refused() -> None:
    proto = pytest.importorskip("transformers.utils.sentencepiece_model_pb2_new").ModelProto.FromString(small_model())
    proto.pieces[1_000].type = 5
    with pytest.raises(UserError, match="unused pieces"):
        open_model(proto.SerializeToString(), "x")


@pytest.mark.parametrize("stored", [b"", b"not a model", b"\0" * 100, small_model()[:-7], small_model()[:50]])
def test_what_is_no_model_is_refused(stored: bytes) -> None:
    with pytest.raises(UserError, match=r"tokenizer x.* give a|tokenizer x .* give the path"):
        open_model(stored, "x")
