"""CCNet's normal forms, against cases worked out by hand from its rules and a literal, slow transcription of them."""

import hashlib
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from filters.quality.duplicate_lines import REMOVED_MARKS, line_hashes, normal_form
from filters.quality.pieces import REPLACED_MARKS, lm_lines, normalize_for_lm

HARD = "aZ 09٣３１\n\t\r\x00\x1c\x7f\x85\x9f\xa0\u2028\u3000’“—…。«éÉẞİΣς'\u0301\u0345\u200b가😀\U000101fd\U0001d7ceⅣ²"
"""letters that lower to several, digits of other scripts, blanks and controls of every kind, marks beyond the BMP"""
text = st.text(
    st.one_of(st.sampled_from(HARD + REMOVED_MARKS), st.characters(exclude_categories=["Cs"])),
    max_size=60,
)


def by_the_book_dedup(line: str) -> str:
    """The rules, one after the other."""
    line = re.sub(r"\d", "0", line.strip().lower())
    return "".join(c for c in line if c not in REMOVED_MARKS and unicodedata.category(c) != "Cc")


def line_hash(line: str) -> int:
    """The head of the SHA-1 of a line's form by the book."""
    return int.from_bytes(hashlib.sha1(by_the_book_dedup(line).encode()).digest()[:8], "little")


def by_the_book_lm(line: str) -> str:
    """The rules, one after the other."""
    line = unicodedata.normalize("NFD", line.strip().lower())
    line = re.sub(r"\d", "0", "".join(c for c in line if unicodedata.category(c) != "Mn"))
    for mark, ascii_form in REPLACED_MARKS.items():
        line = line.replace(mark, ascii_form)
    return "".join(c for c in line if unicodedata.category(c) != "Cc")


@pytest.mark.parametrize(
    ("line", "normal"),
    [
        ("  Hello, World! 1984\t", "hello, world! 0000"),
        ("Ça coûte １２ euros…", "ça coûte 00 euros"),
        ("١٢٣ مرحبا", "000 مرحبا"),
        ("“Quoted” – text—here", "quoted  texthere"),
        ("（全角）、句点。", "全角句点"),
        ("a\x00b\x1fc\x7fd\x80e\x9ff\xa0g", "abcdef\xa0g"),
        ("ΟΔΟΣ", "οδος"),
        ("\u3000 ideographic blank \u3000", "ideographic blank"),
        ("…", ""),
        ("", ""),
    ],
)
def test_a_line_is_compared_without_case_digits_and_marks(line: str, normal: str) -> None:
    assert normal_form(line).decode() == normal


@pytest.mark.parametrize(
    ("line", "normal"),
    [
        ("  Élan Vital, 1984!\t", "elan vital, 0000!"),
        ("“It’s” —here– „now”…", '"it\'s"  - here- "now"...'),
        ("（全角）、句点。１２％～", "(全角),句点.00%~"),
        ("«a» 「b」 《c》 〈d〉 【e】 f ´ ∶ ： ？ ！ ； ． ━ ►", '"a" "b" "c" <d> [e] f \' : : ? ! ; . - -'),
        ("Ngày: tiếng Việt", "ngay: tieng viet"),
        ("two\nlines\x85join", "twolinesjoin"),
        ("a\U000101fdb😀", "ab😀"),
        ("가", "\u1100\u1161"),
        ("\u0301", ""),
        ("", ""),
    ],
)
def test_the_model_reads_lines_without_accents_and_with_ascii_marks(line: str, normal: str) -> None:
    assert normalize_for_lm(line) == normal


def test_there_are_34_marks_for_both() -> None:
    assert len(set(REMOVED_MARKS)) == 34
    assert set(REPLACED_MARKS) == set(REMOVED_MARKS)


def test_a_hash_is_the_head_of_sha1() -> None:
    hashes = line_hashes("ABC\n \t \n…\nChapter １２…\nchapter 34\nnaïve\nnaive").tolist()
    assert hashes[0] == int.from_bytes(bytes.fromhex("a9993e364706816a"), "little")  # FIPS 180: SHA-1 of "abc"
    assert hashes[1] == hashes[2] == int.from_bytes(bytes.fromhex("da39a3ee5e6b4b0d"), "little")
    assert hashes[3] == hashes[4]
    assert hashes[5] != hashes[6]


@given(text)
@example("Σ\nΣA\n\u0345Σ\u0345\na\u0301\n\u0301b")
def test_a_whole_text_is_as_its_lines(page: str) -> None:
    lines = page.split("\n")
    hashes = line_hashes(page)
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [line_hash(line) for line in lines]
    assert lm_lines(page) == [normalize_for_lm(line) for line in lines]


@given(text)
def test_both_forms_are_the_rules_one_after_the_other(line: str) -> None:
    assert normal_form(line).decode().split("\n") == [by_the_book_dedup(part) for part in line.split("\n")]
    assert normalize_for_lm(line) == by_the_book_lm(line)
