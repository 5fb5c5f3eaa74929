"""Tests of the WHATWG Encoding Standard: labels, and characters for which its tables differ from Python's codecs."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.data_files import read_rows
from filters.formats.charset import decode_bytes, find_encoding, replace_c1

ENCODINGS = [row[0] for row in read_rows("filters.formats", "encodings.tsv")]


def test_the_table_has_every_encoding_and_label_of_the_standard() -> None:
    rows = read_rows("filters.formats", "encodings.tsv")
    labels = [label for row in rows for label in row[2].split()]
    assert len(rows) == 40 and len(labels) == len(set(labels)) == 228
    assert all(label == label.lower() and find_encoding(label) for label in labels)


@pytest.mark.parametrize(
    ("label", "encoding"),
    [
        ("ISO-8859-1", "windows-1252"),
        ("\n latin1\t", "windows-1252"),
        ("us-ascii", "windows-1252"),
        ("iso-8859-9", "windows-1254"),
        ("tis-620", "windows-874"),
        ("x-sjis", "shift_jis"),
        ("ks_c_5601-1987", "euc-kr"),
        ("gb2312", "gbk"),
        ("big5-hkscs", "big5"),
        ("utf-16", "utf-16le"),
        ("unicode", "utf-16le"),
        ("hz-gb-2312", "replacement"),
        ("utf-7", None),
        ("utf-32", None),
        ("utf8mb4", None),
        ("", None),
    ],
)
def test_a_label_means_what_the_standard_says(label: str, encoding: str | None) -> None:
    assert find_encoding(label) == encoding


@pytest.mark.parametrize(
    ("encoding", "raw", "text"),
    [
        ("windows-1252", "80 93 94 9f e9", "€“”Ÿé"),
        ("windows-874", "a1 80 85 96 e1", "ก€…–แ"),
        ("koi8-u", "ae be a4 c1", "ўЎєа"),
        ("windows-1255", "ca e0", "\u05baא"),
        ("macintosh", "db 8e", "€é"),
        ("x-mac-cyrillic", "a2 ff 80", "Ґ€А"),
        ("shift_jis", "8740 fbfc 81 60 a6", "①髙～ｦ"),
        ("shift_jis", "f040 80", "\ue000€"),
        ("euc-jp", "ada1 fce2 a1c1 8ea6 8fb0a1", "①髙～ｦ丂"),
        ("iso-2022-jp", "1b2442 2d21 3441 1b2842 61 1b2849 26 1b284a 62", "①漢aｦb"),
        ("euc-kr", "8141 b0a1 c8fe fdfe", "갂가힝詰"),
        ("gbk", "80 b0a1 fe59 8130 8130", "€啊龴\x80"),
        ("gbk", "a8bc a2e3 94 39 da 33", "ḿ€💩"),
        ("big5", "a4a4 a145 a3e1 8862 c6cf 877a", "中‧€Ê̄廴㡵"),
        ("x-user-defined", "61 80 ff", "a\uf780\uf7ff"),
        ("utf-16be", "0061 d83d dca9 d83d", "a💩\ufffd"),
        ("replacement", "1b2429 43 0e", "\ufffd"),
    ],
)
def test_bytes_decode_as_in_the_standards_tables(encoding: str, raw: str, text: str) -> None:
    assert decode_bytes(bytes.fromhex(raw), encoding) == replace_c1(text)


@pytest.mark.parametrize("encoding", ["gbk", "big5", "euc-kr", "euc-jp", "shift_jis"])
def test_a_stray_lead_byte_does_not_swallow_the_markup_behind_it(encoding: str) -> None:
    assert decode_bytes(b'a="\x81"<b>', encoding).endswith('"<b>')
    assert decode_bytes(b"x\x81", encoding) == "x\ufffd"


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(raw=st.binary(max_size=80))
@settings(max_examples=50)
def test_any_bytes_give_text_that_files_can_hold(encoding: str, raw: bytes) -> None:
    text = decode_bytes(raw, encoding)
    text.encode()
    assert not any(0x80 <= ord(character) < 0xA0 or character == "\0" for character in text)


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [
        ("windows-1251", "cp1251"),
        ("iso-8859-2", "iso8859-2"),
        ("gbk", "gb18030"),
        ("euc-kr", "cp949"),
        ("shift_jis", "cp932"),
    ],
)
@given(text=st.text(st.characters(codec="utf-8", min_codepoint=0x20), max_size=40))
def test_what_both_define_decodes_as_it_was_encoded(encoding: str, codec: str, text: str) -> None:
    raw = text.encode(codec, "ignore")
    kept = codecs.decode(raw, codec)
    if not any(0x80 <= ord(character) <= 0xA0 or 0xE000 <= ord(character) < 0xF900 for character in kept):
        assert decode_bytes(raw, encoding) == kept


def test_c1_controls_are_windows_1252s_characters() -> None:
    assert replace_c1("\x93quoted\x94 \x85 \x81|") == "“quoted” … \ufffd|"
    assert replace_c1("\xa0é") == "\xa0é"
