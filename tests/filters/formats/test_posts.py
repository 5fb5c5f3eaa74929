"""Tests of filters.formats.posts_xml and sevenzip: made rows, damaged and compressed files, and real samples."""

import bz2
import gzip
import io
import itertools
import struct
import tracemalloc
import xml.etree.ElementTree
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import py7zr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear

from filters.formats import posts_xml, sevenzip
from filters.formats.charset import detect_xml_encoding, transcode_xml
from filters.formats.posts_xml import Post, PostKeys, RawRow, find_row, parse_keys, parse_post, scan_rows
from filters.formats.stream import Damage, decode_stored
from filters.reasons import Reason

SAMPLES = sorted((Path(__file__).parents[4] / "shared/data/stackexchange").glob("*.xml.gz"))
HEAD = b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>\r\n<posts>\r\n  '
TAIL = b"</posts>"
LIMIT = 1 << 20


def row(identifier: int, body: str = "&lt;p&gt;x&lt;/p&gt;", kind: int = 1, more: str = "") -> bytes:
    return f'<row Id="{identifier}" PostTypeId="{kind}" Body="{body}"{more} />\r\n  '.encode()


def read(data: bytes, size: int = 1 << 30, limit: int = LIMIT) -> list[RawRow]:
    found = list(scan_rows([data[n : n + size] for n in range(0, len(data), size)], limit))
    assert not data or (found[0].start == 0 and found[-1].stop == len(data))
    assert all(a.stop == b.start for a, b in itertools.pairwise(found)), "bytes without an account"
    return found


def identifiers(found: Iterable[RawRow]) -> list[int]:
    items = [parse_keys(raw.data) for raw in found if raw.problem is None]
    return [item.identifier for item in items if isinstance(item, PostKeys)]


def problems(found: Iterable[RawRow]) -> list[Reason]:
    return [raw.problem for raw in found if raw.problem not in (None, Reason.ARCHIVE_METADATA)]


@pytest.mark.parametrize("size", [1, 3, 64, 1 << 20])
def test_rows_of_a_table(size: int) -> None:
    data = HEAD + row(1) + row(2, kind=2) + row(3) + TAIL
    found = read(data, size)
    assert found[0] == RawRow(0, len(HEAD), problem=Reason.ARCHIVE_METADATA)
    assert [raw.data for raw in found[1:]] == [row(1).strip(), row(2, kind=2).strip(), row(3).strip()]
    assert found[-1].stop == len(data)


def test_other_ways_to_write_the_same() -> None:
    first = b"<row Id='1' PostTypeId='1'\n\tBody='a > \"b\"'></row>"
    data = b"<posts>" + first + b'<row\tId="2" PostTypeId="2" ParentId="1"/></posts >\n'
    found = read(data)
    assert problems(found) == [] and [parse_keys(raw.data) for raw in found[1:]] == [
        PostKeys(1, 1, 1),
        PostKeys(2, 2, 1),
    ]
    assert parse_post(found[1].data) == Post(1, 1, 1, 0, "", 'a > "b"', "", "", 0, "", "")


def test_a_table_without_rows_and_what_is_none() -> None:
    assert [raw.problem for raw in read(b"<posts></posts>")] == [Reason.ARCHIVE_METADATA]
    assert [raw.problem for raw in read(b"<posts />")] == [Reason.ARCHIVE_METADATA, Reason.TRUNCATED_RECORD]
    assert [raw.problem for raw in read(b"hello")] == [Reason.UNSUPPORTED_FORMAT]
    assert [raw.problem for raw in read(b"<html><body>")] == [Reason.UNSUPPORTED_FORMAT]
    assert read(b"") == []


DAMAGED = {
    "unquoted": b"<row Id=3 />",
    "unclosed": b'<row Id="3" PostTypeId="1"',
    "raw mark-up": b'<row Id="3" PostTypeId="1" Body="<p>x</p>" />',
    "half a value": b'<row Id="3" PostTypeId="1" Body="x\r\n  ',
    "bytes between": b"",
    "no attributes' blanks": b'<row Id="3"PostTypeId="1" />',
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_row_costs_itself_alone(name: str) -> None:
    between = DAMAGED[name] or b"some bytes"
    found = read(HEAD + row(1) + between + row(2) + TAIL)
    assert identifiers(found) == [1, 2] and problems(found) == [Reason.CORRUPT_RECORD]


def test_a_row_that_names_no_number_or_one_twice() -> None:
    for text in ('PostTypeId="1"', 'Id="1"', 'Id="x" PostTypeId="1"', f'Id="{"9" * 5000}" PostTypeId="1"'):
        found = parse_keys(f"<row {text} />".encode())
        assert isinstance(found, Damage) and found.problem is Reason.CORRUPT_RECORD
    twice = b'<row Id="1" PostTypeId="1" Id="2" />'
    assert isinstance(parse_keys(twice), Damage) and isinstance(parse_post(twice), Damage)
    assert parse_keys(b'<row Id="-3" PostTypeId="2" />') == PostKeys(2, -3, 0)


def test_entities_are_those_of_xml() -> None:
    text = "&lt;a href=&quot;x&quot;&gt; &amp;lt; &apos;&#39;&#x27;&#xA;&#xD;&#x9;&#128512; \u00e9 &amp;amp; &#38;lt;"
    found = parse_post(row(1, text).strip())
    assert isinstance(found, Post)
    assert found.body == "<a href=\"x\"> &lt; '''\n\r\t\U0001f600 \u00e9 &amp; &lt;"


def test_white_space_in_a_value_is_a_blank() -> None:
    found = parse_post(row(1, "a\nb\tc\r\nd&#xA;e").strip())
    assert isinstance(found, Post) and found.body == "a b c d\ne"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("&lol;", Reason.ENTITY_EXPANSION),
        ("a & b", Reason.CORRUPT_RECORD),
        ("&#0;", Reason.CORRUPT_RECORD),
        ("&#xD800;", Reason.CORRUPT_RECORD),
        ("&#x110000;", Reason.CORRUPT_RECORD),
        ("&#99999999999;", Reason.ENTITY_EXPANSION),
        ("\x01", Reason.CORRUPT_RECORD),
    ],
)
def test_what_a_value_may_not_hold(body: str, reason: Reason) -> None:
    found = parse_post(row(1, body).strip())
    assert isinstance(found, Damage) and found.problem is reason


def test_a_value_that_is_no_utf8() -> None:
    found = parse_post(row(1, "caf\u00e9").strip().replace("\u00e9".encode(), b"\xe9"))
    assert isinstance(found, Damage) and found.problem is Reason.UNDECODABLE_TEXT


def test_entities_do_not_multiply() -> None:
    """In a "billion laughs" attack, the definitions and each row that uses them become dead letters."""
    entities = b"".join(b'<!ENTITY e%d "%b">' % (n, b"&e%d;" % (n - 1) * 10 if n else b"ha") for n in range(10))
    data = b"<!DOCTYPE posts [" + entities + b"]><posts>" + row(1) + row(2, "&e9;") + TAIL
    found = read(data)
    assert problems(found) == [Reason.ENTITY_EXPANSION] and identifiers(found) == [1, 2]
    laughing = parse_post(found[2].data)
    assert isinstance(laughing, Damage) and laughing.problem is Reason.ENTITY_EXPANSION
    again = read(HEAD + row(1) + b"<!DOCTYPE posts [" + entities + b"]>" + row(2) + TAIL)
    assert problems(again) == [Reason.ENTITY_EXPANSION] and identifiers(again) == [1, 2]


@pytest.mark.parametrize("size", [1 << 12, 1 << 20])
@pytest.mark.parametrize("closed", [True, False])
def test_a_gigantic_row_is_passed_over(size: int, closed: bool) -> None:
    gigantic = row(2, "x" * 3_000_000) if closed else row(2, "x" * 3_000_000).replace(b" />", b"")
    found = read(HEAD + row(1) + gigantic + row(3) + TAIL, size, 500_000)
    assert identifiers(found) == [1, 3] and problems(found) == [Reason.TOO_LARGE]


def test_forty_megabytes_stay_within_memory_and_time() -> None:
    def stream(size: int) -> Iterator[bytes]:
        yield HEAD + row(1)
        yield b'<row Id="2" PostTypeId="1" Body="'
        yield from (b"x" * 1_000_000 for _ in range(size))
        yield b'" />'
        yield from (b"<row" * 400 for _ in range(size))
        yield from (b"<row " * 200 for _ in range(size))
        yield from (b"<row A='" * 100 for _ in range(size))
        yield row(3) + TAIL

    def whole(size: int) -> list[RawRow]:
        return [raw for raw in scan_rows(stream(size), 8 << 20) if raw.problem is None]

    tracemalloc.start()
    found = whole(40)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert identifiers(found) == [1, 3] and peak < 25_000_000
    assert_linear(whole, int, 40)


def test_a_bomb_without_rows_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts_xml, "MAX_GAP", 10 << 20)
    bomb = decode_stored(gzip.compress(HEAD + bytes(60 << 20), 1))
    found = list(scan_rows(bomb, 1 << 20))
    assert problems(found) == [Reason.TOO_LARGE] and next(bomb, None) is not None, "the rest was not inflated"


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_truncated_table_gives_its_whole_rows_and_says_so(data: st.DataObject) -> None:
    whole = HEAD + row(1) + row(2, "\u00e9", 2, ' ParentId="1"') + row(3) + TAIL
    cut = data.draw(st.integers(len(HEAD), len(whole) - len(TAIL)))
    found = read(whole[:cut], data.draw(st.integers(1, 50)))
    assert identifiers(found) == [1, 2, 3][: whole[:cut].count(b"/>")]
    assert Reason.TRUNCATED_RECORD in problems(found) or Reason.UNSUPPORTED_FORMAT in problems(found)


PARTS = b"<row, ,/>,Id=\"1\",',\",<posts>,&,\0,\xff,</row>,PostTypeId='1'".split(b",")


@given(st.lists(st.sampled_from(PARTS), max_size=60), st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_it_raise(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    found = read(data, size)
    assert found == read(data)
    for raw in found:
        if raw.problem is None:
            parse_keys(raw.data)
            parse_post(raw.data)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=50))
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back(text: str) -> None:
    text = "".join(c for c in text if posts_xml._is_character(ord(c)))
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    found = parse_post(row(1, escaped).strip())
    assert isinstance(found, Post) and found.body == text


def test_pieces_begin_at_rows() -> None:
    data = HEAD + row(1) + row(2) + TAIL
    first, second = data.index(b"<row"), data.rindex(b"<row")
    assert (
        find_row(data, 0) == first and find_row(data, first + 1) == second and find_row(data, second + 1) == len(data)
    )
    assert find_row(b"<rows><rowing /><row ", 0) == 16


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "windows-1251"])
def test_any_encoding_becomes_utf8(encoding: str) -> None:
    text = f'<?xml version="1.0" encoding="{encoding}"?><posts>{row(1, "Привет").decode()}</posts>'.encode(encoding)
    chunks = transcode_xml(text[n : n + 7] for n in range(0, len(text), 7))
    if encoding == "windows-1251":
        chunks = transcode_xml([text])
    found = [parse_post(raw.data) for raw in scan_rows(chunks, LIMIT) if raw.problem is None]
    assert [item.body for item in found if isinstance(item, Post)] == ["Привет"]


@pytest.mark.parametrize("name", ["nonsense", "base64", "utf-7", "unicode_escape", "rot13"])
def test_no_declaration_leads_astray(name: str) -> None:
    assert detect_xml_encoding(f"<?xml version='1.0' encoding='{name}'?>".encode()) == "utf-8"


def unpack(data: bytes) -> tuple[bytes, list[Reason]]:
    found = list(decode_stored(data))
    return b"".join(c for c in found if isinstance(c, bytes)), [c.problem for c in found if isinstance(c, Damage)]


@pytest.mark.parametrize("write", [gzip.compress, bz2.compress])
def test_members_and_streams_are_read_and_damage_is_told(write) -> None:
    text = (HEAD + row(1)) * 3000
    whole = write(text) + write(TAIL)
    assert unpack(whole) == (text + TAIL, []) and unpack(whole + bytes(700)) == (text + TAIL, [])
    for cut in (3, 20, len(whole) // 2, len(whole) - 1):
        data, told = unpack(whole[:cut])
        assert (text + TAIL).startswith(data) and told == [Reason.TRUNCATED_RECORD]
    hurt = bytearray(whole)
    hurt[len(write(text)) // 2] ^= 0xFF
    assert len(unpack(bytes(hurt))[1]) == 1


def seven(path: Path, files: dict[str, bytes], filters: list[dict[str, int]] | None = None) -> bytes:
    with py7zr.SevenZipFile(path, "w", filters=filters) as archive:
        for name, data in files.items():
            archive.writestr(data, name)
    return path.read_bytes()


METHODS = [None, *([{"id": name}] for name in (py7zr.FILTER_LZMA, py7zr.FILTER_BZIP2, py7zr.FILTER_COPY))]


@pytest.mark.parametrize("filters", METHODS)
def test_members_of_a_solid_archive(tmp_path: Path, filters) -> None:
    files = {"Badges.xml": b"b" * 3_000_000, "Posts.xml": HEAD + row(1) * 20_000 + TAIL, "Votes.xml": b"v"}
    stored = seven(tmp_path / "a.7z", files, filters)
    found = sevenzip.list_entries(stored)
    if filters is None:  # py7zr's default has a filter for machine code, which is not supported.
        assert isinstance(found, list) and [member.name for member in found] == list(files)
        told = list(sevenzip.decode_entry(stored, found[1]))
        assert [d.problem for d in told if isinstance(d, Damage)] in ([], [Reason.UNSUPPORTED_FORMAT])
        return
    assert isinstance(found, list)
    for member in found:
        chunks = list(sevenzip.decode_entry(stored, member))
        assert b"".join(c for c in chunks if isinstance(c, bytes)) == files[member.name], chunks[-1:]
        assert max(map(len, chunks)) <= 1 << 20  # type: ignore[arg-type]


def test_a_hurt_archive_is_told(tmp_path: Path) -> None:
    files = {"Posts.xml": HEAD + bytes(range(256)) * 4000 + TAIL}
    stored = seven(tmp_path / "a.7z", files, [{"id": py7zr.FILTER_LZMA2}])
    (member,) = sevenzip.list_entries(stored)
    for at in (40, len(stored) // 3, len(stored) // 2):
        hurt = bytearray(stored)
        hurt[at] ^= 0xFF
        found = list(sevenzip.decode_entry(bytes(hurt), member))
        assert isinstance(found[-1], Damage)
    for cut in range(0, len(stored), 97):
        assert isinstance(sevenzip.list_entries(stored[:cut]), Damage)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_archive_makes_it_raise(data: st.DataObject) -> None:
    stored = bytearray(_small_archive())
    for _ in range(data.draw(st.integers(1, 3))):
        stored[data.draw(st.integers(0, len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    _mend(stored)
    found = sevenzip.list_entries(bytes(stored))
    for member in found if isinstance(found, list) else []:
        assert sum(len(c) for c in sevenzip.decode_entry(bytes(stored), member) if isinstance(c, bytes)) <= 10 << 20


def test_no_end_within_a_header_makes_it_raise() -> None:
    whole = _small_archive()
    offset, size = struct.unpack_from("<QQ", whole, 12)
    for place in range(32 + offset, 32 + offset + size):
        hurt = bytearray(whole)
        hurt[place] = 0
        _mend(hurt)
        assert isinstance(sevenzip.list_entries(bytes(hurt)), Damage | list)


def _small_archive() -> bytes:
    out = io.BytesIO()
    with py7zr.SevenZipFile(out, "w", filters=[{"id": py7zr.FILTER_LZMA2}]) as archive:
        archive.header.set_encode(False) if hasattr(archive.header, "set_encode") else None
        archive.encoded_header_mode = False
        archive.writestr(HEAD + TAIL, "Posts.xml")
    return out.getvalue()


def _mend(stored: bytearray) -> None:
    """Correct the checksums of a damaged archive, so that its headers are parsed in spite of the damage."""
    offset, size = struct.unpack_from("<QQ", stored, 12)
    if 32 + offset + size <= len(stored):
        stored[28:32] = struct.pack("<L", zlib.crc32(stored[32 + offset : 32 + offset + size]))
    stored[8:12] = struct.pack("<L", zlib.crc32(stored[12:32]))


@pytest.mark.skipif(not SAMPLES, reason="the real sample data (../shared/data) is not here")
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_real_tables_give_what_an_xml_parser_gives(path: Path) -> None:
    data = gzip.decompress(path.read_bytes())
    found = read(data, 1 << 16)
    assert problems(found) == []
    ours = [parse_post(raw.data) for raw in found if raw.problem is None]
    theirs = list(xml.etree.ElementTree.fromstring(data))
    assert len(ours) == len(theirs) and len(ours) > 500
    for item, element in zip(ours, theirs, strict=True):
        assert isinstance(item, Post)
        given = [element.get(name, "") for name in ("Title", "Body", "Tags", "CreationDate")]
        assert [item.title, item.body, item.tags, item.created] == given
        assert (item.identifier, item.score) == (int(element.get("Id", "")), int(element.get("Score", "0")))
