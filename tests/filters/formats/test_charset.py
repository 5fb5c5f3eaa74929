"""Tests of filters.formats.charset: correct, wrong and missing declarations of encodings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear import assert_linear

from benchmarks.detection import make_pages, read_texts
from filters.formats.charset import decode, decode_source, detect_xml_encoding, transcode_xml

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


KOREAN = "한국어 문서의 내용입니다. 똠방각하와 펲시콜라를 읽는다. " * 20


@pytest.mark.parametrize(
    ("label", "codec", "text"),
    [
        ("euc-kr", "cp949", KOREAN),  # KOREAN contains characters that are not in KS X 1001.
        ("shift_jis", "cp932", "①番目の髙橋さんは㈱山﨑にいる。" * 20),
        ("gb2312", "gb18030", "朱镕基的书，价格€５。" * 20),
        ("big5", "big5hkscs", "香港嘅街市，佢哋喺度買嘢。" * 20),
        ("iso-8859-1", "cp1252", "“It’s a café – really…” " * 20),
        ("tis-620", "cp874", "“ตลาดเก่า” เปิดก่อนพระอาทิตย์ขึ้น… " * 20),
        ("iso-8859-9", "cp1254", "“Eski çarşı” güneşten önce… " * 20),
    ],
)
def test_a_declared_label_covers_what_the_web_means_by_it(label: str, codec: str, text: str) -> None:
    page = f"<html><head><meta charset={label}></head><body>{text}</body></html>"
    assert decode(page.encode(codec), None) == page
    assert decode(text.encode(codec), f"text/html; charset={label}") == text


@pytest.mark.parametrize(
    "label", ["iso-8859-1", "windows-1251", "gb2312", "euc-kr", "shift_jis", "koi8-r", "x-unknown"]
)
@pytest.mark.parametrize("cut", [0, 1])
def test_valid_utf_8_beyond_ascii_is_utf_8_whatever_is_declared(label: str, cut: int) -> None:
    page = f"<meta charset={label}><p>{CZECH}…"
    raw = page.encode()
    expected = page if not cut else page[:-1] + "\ufffd"
    assert decode(raw[: len(raw) - cut], f"text/html; charset={label}") == expected


def test_a_few_stray_bytes_leave_utf_8_utf_8() -> None:
    raw = CZECH.encode() + b"\x93x\x94" + CZECH.encode()
    assert decode(raw, "text/html; charset=iso-8859-1").replace("\ufffd", "") == CZECH + "x" + CZECH


# Bytes that are valid in each single-byte encoding of the test, but decode to different letters.
BOTH = "Köln–Bonn “Straße” ".encode("cp1252") * 20


@pytest.mark.parametrize(
    ("opening", "content_type", "encoding"),
    [
        (b"<?xml version='1.0' encoding='windows-1251'?>", None, "cp1251"),
        (b'\r\n<?xml version="1.0" standalone="no" encoding = "koi8-r"?>', None, "koi8-r"),
        (b"<?xml version='1.0' encoding='windows-1251'?><meta charset=koi8-r>", None, "koi8-r"),
        (b"<?xml version='1.0' encoding='koi8-r'?>", "text/html; charset=windows-1251", "cp1251"),
        (b"<meta charset=koi8-r>", "text/html;CHARSET = 'windows-1251'", "cp1251"),
        (b"<!-- <meta charset=koi8-r> --><meta charset=windows-1251>", None, "cp1251"),
        (
            b"<!-- <meta charset=koi8-r> > --><META HTTP-EQUIV=Content-Type CONTENT='text/html; charset=cp1251'>",
            None,
            "cp1251",
        ),
        (b"<title><meta charset=koi8-r></title><meta charset='cp1251'/>", None, "cp1251"),
        (b"<script>'<meta charset=koi8-r>'</script ><meta\ncharset = cp1251>", None, "cp1251"),
        (b"<meta name=a content='charset=koi8-r'><meta charset=cp1251>", None, "cp1251"),
        (b"<meta content='text/html; charset=cp1251' data-x='>' http-equiv='content-type'>", None, "cp1251"),
        (b"<meta charset=no-such><meta charset=cp1251><meta charset=koi8-r>", None, "cp1251"),
        (b"<metadata charset=koi8-r><meta charset=cp1251>", None, "cp1251"),
        (b"<head>" + b" " * 3_000 + b"<meta charset=cp1251>", None, "cp1251"),
        (b"<meta charset=x-user-defined>", None, "cp1252"),
    ],
)
def test_declarations_count_in_the_standards_order(opening: bytes, content_type: str | None, encoding: str) -> None:
    assert decode(opening + BOTH, content_type) == (opening + BOTH).decode(encoding)


@pytest.mark.parametrize("label", ["utf-16", "utf-16le", "utf-16be"])
def test_a_page_in_ascii_form_that_declares_utf_16_is_utf_8(label: str) -> None:
    raw = f"<meta charset={label}>\x1b".encode()
    assert decode(raw, None) == raw.decode()


@pytest.mark.parametrize("label", ["utf-16", "UTF-16LE", "utf-32", "cp037", "cp500", "utf-7", "idna"])
def test_xml_and_source_files_in_ascii_form_that_declare_another_form_are_utf_8(label: str) -> None:
    raw = f"<?xml version='1.0' encoding='{label}'?><row Text='é'/>".encode()
    assert detect_xml_encoding(raw) == "utf-8" and b"".join(transcode_xml([raw])) == raw  # type: ignore[arg-type]
    latin = f"# coding: {label}\nä = 'öüß'\n"
    assert decode_source(latin.encode("latin-1")) == latin


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told_by_its_first_characters(codec: str) -> None:
    for opening in ("<?xml version='1.0'?>", "<!DOCTYPE html>", "<html>"):
        assert decode((opening + CZECH).encode(codec), None) == opening + CZECH


def test_japanese_in_seven_bits_declared_or_not() -> None:
    page = "<title>日本語の頁</title>" + "古い市場は日の出の少し前に目を覚まします。" * 9
    raw = page.encode("iso-2022-jp")
    assert decode(raw, None) == decode(raw, "text/html; charset=iso-2022-jp") == page


def test_the_replacement_encoding_gives_no_text() -> None:
    assert decode("한국어".encode("iso2022_kr"), "text/html; charset=iso-2022-kr") == "\ufffd"
    assert decode("中文".encode("hz"), "text/html; charset=hz-gb-2312") == "\ufffd"


@given(st.binary(max_size=60), st.sampled_from(["utf-8", "iso-8859-1", "iso-8859-5", "windows-1253", "gb18030", None]))
def test_text_holds_no_c1_controls(body: bytes, label: str | None) -> None:
    text = decode("é…".encode() + body, f"text/html; charset={label}") + decode(b"\xc2\x85" + body, label)
    assert not any(0x80 <= ord(character) < 0xA0 for character in text)


def test_pages_that_declare_nothing_are_decoded() -> None:
    """Detect the encoding of long pages in all languages and encodings of the table.

    The benchmark `detection` measures shorter pages.
    """
    pages = make_pages(read_texts(), 600)
    wrong = [(language, encoding) for language, encoding, page, raw in pages if decode(raw, None) != page]
    assert len(wrong) <= 1, wrong
    assert len({encoding for _, encoding, *_ in pages}) >= 20


def test_the_top_level_domain_is_a_hint() -> None:
    raw = "Kaip gyveni? Ačiū, gerai. Žiema.".encode("cp1257")
    assert decode(raw, None, "http://a.lt/") == decode(raw, None, "HTTPS://user@a.b.LT:8080?x") == raw.decode("cp1257")
    for url in ("", "http://a.xn--p1ai/", "http://192.168.0.1/", "urn:x", "http://ä.ö/", "//"):
        assert decode(raw, None, url)


@pytest.mark.parametrize("unit", [b"<!--", b"<meta ", b"<script>", b"<meta charset=", b"="])
def test_a_hostile_opening_takes_linear_time(unit: bytes) -> None:
    assert_linear(lambda body: decode(b"\x80<meta a" + body, None), lambda size: unit * (size // len(unit)), 32_000)
