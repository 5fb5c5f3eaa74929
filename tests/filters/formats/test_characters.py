"""Tests of filters.formats.characters: characters that are changed or kept, and linear time."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.formats.characters import INVISIBLE, normalise_text

ODD = st.text(
    st.sampled_from("ab \n\t\r\f\0\x1c\x81\x85\x93\xa0\xad\u200b\u200c\u200d\u2009\u202f\u2060\ufeffe\u0301\u0323é")
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("plain text\n\twith a tab", "plain text\n\twith a tab"),
        ("Donau\xaddampf\xadschiff", "Donaudampfschiff"),
        ("zero\u200bwidth\u2060 \ufefftext\0", "zerowidth text"),
        ("cafe\u0301 and e\u0323\u0302", "café and ệ"),
        ("10\xa0000\u202f€", "10 000 €"),
        ("\x93quoted\x94\x85 \x81", "“quoted”… \ufffd"),
        ("one\r\ntwo\rthree\ffour", "one\ntwo\nthree\nfour"),
        ("می\u200cخواهم क्\u200dष \u200fא\u200e", "می\u200cخواهم क्\u200dष \u200fא\u200e"),  # Joiners and marks of order.
        ("½ ﬁ Ａ …", "½ ﬁ Ａ …"),  # Compatibility characters are not decomposed.
        ("\t   x  = 1", "\t   x  = 1"),
    ],
)
def test_what_changes_and_what_stays(text: str, normal: str) -> None:
    assert normalise_text(text) == normal


@given(ODD | st.text())
def test_every_text_has_one_form(text: str) -> None:
    normal = normalise_text(text)
    assert normalise_text(normal) == normal and not INVISIBLE.search(normal)
    assert not any("\x80" <= character < "\xa0" for character in normal)
    assert normal == normalise_text(unicodedata.normalize("NFD", text))


def test_stacked_marks_take_linear_time() -> None:
    assert_linear(normalise_text, repeated("\u0301\u0323", "e"), 80_000)
