"""Bytes to text: encodings as pages declare and misdeclare them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.formats.charset import decode

CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy. " * 50


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_comes_before_every_declaration(encoding: str) -> None:
    assert decode(("\ufeff" + CZECH).encode(encoding), "text/html; charset=koi8-r") == CZECH


@pytest.mark.parametrize(
    "label, codec", [("windows-1250", "cp1250"), ("ISO-8859-2", "iso8859-2"), ('"utf-8"', "utf-8")]
)
def test_header_then_meta(label: str, codec: str) -> None:
    assert decode(CZECH.encode(codec), f"text/html; charset={label}") == CZECH
    page = f"<meta charset={label}>{CZECH}"
    assert decode(page.encode(codec), None) == page


def test_the_webs_latin_1_is_windows_1252() -> None:
    assert decode(b"\x93quoted\x94", "text/html; charset=iso-8859-1") == "“quoted”"


def test_a_header_that_lies_gives_way_to_the_page() -> None:
    page = '<meta charset="windows-1251">' + "Привет, мир. " * 30
    assert decode(page.encode("cp1251"), "text/html; charset=utf-8") == page


def test_an_unknown_label_gives_way_to_detection() -> None:
    page = "<meta charset=big5_solaris>" + "中文網頁的內容，用於測試。" * 40
    assert decode(page.encode("big5"), "text/html; charset=big5_solaris") == page


def test_utf_16_by_header_alone() -> None:
    assert decode(CZECH.encode("utf-16-le"), "text/html; charset=utf-16le") == CZECH


def test_one_bad_byte_does_not_change_the_encoding() -> None:
    body = CZECH.encode()
    text = decode(body[:500] + b"\xff" + body[500:], "text/html; charset=utf-8")
    assert text.replace("\ufffd", "") == CZECH


@given(st.binary(max_size=300), st.sampled_from([None, "text/html; charset=utf-16", "x; charset=utf-7", "charset=\0"]))
def test_decode_takes_any_bytes(body: bytes, content_type: str | None) -> None:
    for damaged in (body, b"<meta charset=gb18030>" + body, b"\xff\xfe" + body):
        text = decode(damaged, content_type)
        assert "\0" not in text
        text.encode("utf-8")
