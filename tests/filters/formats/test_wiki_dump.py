"""Tests of filters.formats.mediawiki: made dumps, damaged dumps, and the samples if they are present."""

import bz2
import gzip
import re
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from linear import assert_linear

from filters.formats.mediawiki import MAX_BYTES, Page, parse_page, read_dump, read_frames, scan_pages
from filters.formats.stream import Damage
from filters.reasons import Reason

SAMPLES = Path(__file__).parents[4] / "shared" / "data" / "wikipedia"
HEAD = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10">\n<siteinfo><ns>7</ns></siteinfo>\n'
TAIL = "</mediawiki>\n"
TEXTS = ["'''A''' & <b>", "", "<page>", "</page> ]]>", "é\u2028\U0001f600", "&amp;lt;", " two\n lines "]


def page(identifier: int, text: str, namespace: int = 0, redirect: str = "") -> str:
    return (
        f"  <page>\n<title>Page {identifier} &amp; more</title>\n<ns>{namespace}</ns>\n<id>{identifier}</id>\n"
        f"{redirect}<revision><id>77</id><contributor><id>9</id></contributor><title>no</title>"
        f'<text bytes="1" xml:space="preserve">{escape(text)}</text></revision>\n</page>\n'
    )


def expected(identifier: int, text: str, namespace: int = 0, redirect: bool = False) -> Page:
    return Page(identifier, namespace, f"Page {identifier} & more", redirect, text, 77)


def dump(texts: Iterable[str]) -> str:
    return HEAD + "".join(page(n, text) for n, text in enumerate(texts)) + TAIL


def read_pages(stored: bytes) -> Iterator[Page | Damage]:
    """Yield the pages of a dump given as bytes, like `read_dump`, which reads a file."""
    for frame in read_frames(stored, MAX_BYTES):
        if frame.problem is not Reason.ARCHIVE_METADATA:
            yield Damage(frame.problem, frame.detail) if frame.problem else parse_page(frame.data, {})


def scan(chunks: Iterable[bytes], limit: int = MAX_BYTES) -> Iterator[Page | Damage]:
    """Yield the pages of a dump given as decoded chunks."""
    for raw in scan_pages(chunks, limit, ends=True):
        if raw.problem is not Reason.ARCHIVE_METADATA:
            yield Damage(raw.problem, raw.detail) if raw.problem else parse_page(raw.data, {})


def problems(found: Iterable[Page | Damage]) -> list[Reason]:
    return [item.problem for item in found if isinstance(item, Damage)]


def identifiers(found: Iterable[Page | Damage]) -> list[int]:
    return [item.identifier for item in found if isinstance(item, Page)]


WHOLE = [expected(n, text) for n, text in enumerate(TEXTS)]


def test_pages_of_a_dump() -> None:
    assert list(read_pages(dump(TEXTS).encode())) == WHOLE
    stored = HEAD + page(3, "x", 10) + page(4, "#REDIRECT [[A]]", 0, '<redirect title="A" />') + TAIL
    assert list(read_pages(stored.encode())) == [expected(3, "x", 10), expected(4, "#REDIRECT [[A]]", 0, True)]
    stored = "<mediawiki><page><title>T</title><id>1</id></page></mediawiki>"
    assert list(read_pages(stored.encode())) == [Page(1, 0, "T", False, "")]


@given(st.integers(0, len(TEXTS) - 1), st.integers(0, 4), st.integers(0, 255), st.integers(1, 200), st.booleans())
def test_a_page_whose_first_tag_is_damaged_is_counted(
    number: int, at: int, byte: int, piece: int, compressed: bool
) -> None:
    stored = bytearray(dump(TEXTS).encode())
    place = [match.start() for match in re.finditer(b"<page>", stored)][number] + at
    assume(stored[place] != byte)
    stored[place] = byte
    chunks = (bytes(stored[n : n + piece]) for n in range(0, len(stored), piece))
    found = list(read_pages(bz2.compress(stored)) if compressed else scan(chunks))
    assert problems(found) == [Reason.CORRUPT_RECORD]
    assert [item for item in found if isinstance(item, Page)] == WHOLE[:number] + WHOLE[number + 1 :]


def test_zeroed_pages_are_damage_and_joined_dumps_are_not() -> None:
    first, second, third = (page(n, "x") for n in range(3))
    zeroed = (HEAD + first + "\0" * len(second) + third + TAIL).encode()
    assert problems(read_pages(zeroed)) == [Reason.CORRUPT_RECORD]
    assert identifiers(read_pages(zeroed)) == [0, 2]
    joined = (HEAD + first + TAIL + HEAD + second + TAIL).encode()
    assert list(read_pages(joined)) == [expected(0, "x"), expected(1, "x")]


def test_the_last_revision_of_a_history_counts() -> None:
    text = page(1, "old").replace("</revision>", "</revision><revision><text>new</text></revision>")
    assert list(read_pages((HEAD + text + TAIL).encode())) == [expected(1, "new")]


def test_a_part_of_a_dump_is_a_dump() -> None:
    assert list(read_pages("".join(page(n, text) for n, text in enumerate(TEXTS)).encode())) == WHOLE
    assert list(read_pages((page(1, "x") + TAIL).encode())) == [expected(1, "x")]


@pytest.mark.parametrize("size", [1000, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_any_encoding_in_any_members(encoding: str, size: int) -> None:
    stored = dump(TEXTS).encode(encoding)
    members = [gzip.compress(stored[n : n + size]) for n in range(0, len(stored), size)]
    assert list(read_pages(stored)) == list(read_pages(b"".join(members))) == WHOLE


@pytest.mark.parametrize("name", ["windows-1251", "KOI8-R", "iso-8859-5"])
def test_a_declared_encoding_counts(name: str) -> None:
    stored = f"<?xml version='1.0' encoding='{name}'?>{dump(['Привет'])}".encode(name)
    assert list(read_pages(stored)) == [expected(0, "Привет")]


@pytest.mark.parametrize("name", ["nonsense", "base64", "utf-7", "unicode_escape", "idna", "rot13", "UTF-8"])
def test_no_declaration_leads_astray(name: str) -> None:
    text = "a+AGE- \\u0041"
    stored = f"<?xml version='1.0' encoding='{name}'?>{dump([text])}".encode()
    assert list(read_pages(stored)) == [expected(0, text)]


@pytest.mark.parametrize("write", [bytes, bz2.compress, gzip.compress])
@pytest.mark.parametrize("parts", [1, 5])
def test_dumps_plain_and_compressed(tmp_path: Path, write, parts: int) -> None:
    stored = dump(TEXTS).encode()
    step = len(stored) // parts + 1
    path = tmp_path / "dump"
    path.write_bytes(b"".join(write(stored[n : n + step]) for n in range(0, len(stored), step)))
    assert list(read_dump(path)) == WHOLE


BROKEN = {
    "unclosed": ("<page><title>T</title><id>9</id>", "a page that does not end"),
    "mismatched": ("<page><title>T</id></page>", "mismatched tag"),
    "entity": ("<page><title>&nbsp;</title><id>9</id></page>", "undefined entity"),
    "control": ("<page><title>\x01</title><id>9</id></page>", "not well-formed"),
    "surrogate": ("<page><title>&#xD800;</title><id>9</id></page>", "invalid character number"),
    "nameless": ("<page><id>9</id></page>", "without title or id"),
    "numberless": ("<page><title>T</title><id>" + "9" * 5000 + "</id></page>", "without title or id"),
    "doctype": ("<page><!DOCTYPE page [<!ENTITY a 'b'>]><title>&a;</title><id>9</id></page>", "not well-formed"),
    "cut": ("<page><title>T</title><id>9</id><revision><text>a</page>", "mismatched tag"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_page_costs_itself_alone(name: str) -> None:
    text, detail = BROKEN[name]
    found = list(read_pages((HEAD + page(1, "a") + text + page(2, "b") + TAIL).encode()))
    told = Reason.ENTITY_EXPANSION if name == "entity" else Reason.CORRUPT_RECORD
    assert identifiers(found) == [1, 2] and problems(found) == [told]
    assert isinstance(found[1], Damage) and detail in found[1].detail


def test_entities_do_not_multiply() -> None:
    """In a "billion laughs" attack, a document type declares entities that are nested ten levels deep."""
    entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10 if n else 'ha'}'>" for n in range(10))
    laughs = page(1, "laugh").replace("laugh", "&e9;")
    found = list(read_pages((f"<!DOCTYPE mediawiki [{entities}]>" + HEAD + laughs + page(2, "b") + TAIL).encode()))
    assert identifiers(found) == [2] and problems(found) == [Reason.ENTITY_EXPANSION] * 2


@pytest.mark.parametrize("size", [1 << 8, 1 << 16, 1 << 30])
@pytest.mark.parametrize("ended", [True, False])
def test_a_gigantic_page_is_passed_over(size: int, ended: bool) -> None:
    gigantic = page(2, "x" * 3_000_000)
    text = HEAD + page(1, "a") + (gigantic if ended else gigantic.replace("</page>", "")) + page(3, "c") + TAIL
    stored = text.encode()
    found = list(scan((stored[n : n + size] for n in range(0, len(stored), size)), 500_000))
    assert identifiers(found) == [1, 3] and problems(found) == [Reason.TOO_LARGE]


def test_memory_stays_bounded_and_time_linear() -> None:
    def stream(size: int) -> Iterable[bytes]:
        yield HEAD.encode()
        for n in range(size // 50):
            yield (page(n, "x" * 1_000_000)).encode()
        yield b"<page>" + b"<a>" * 100 * size
        yield from (b"<page" * 1_000 for _ in range(size))
        yield from (b"<page>" * 100 for _ in range(size))
        yield from (b" " * 10_000 for _ in range(size))

    def damages(size: int) -> list[Damage]:
        return [item for item in scan(stream(size), 2_000_000) if isinstance(item, Damage)]

    tracemalloc.start()
    found = damages(250)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 25_001 and peak < 60_000_000
    assert_linear(damages, int, 400)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_truncated_dump_gives_its_whole_pages_and_says_so(data: st.DataObject) -> None:
    stored = dump(TEXTS).encode()
    cut = data.draw(st.integers(0, len(stored) - len(TAIL)))
    found = list(read_pages(stored[:cut]))
    whole = stored[:cut].count(b"</page>")
    assert found[:whole] == WHOLE[:whole]
    assert problems(found) == [Reason.TRUNCATED_RECORD if b"<mediawiki" in stored[:cut] else Reason.UNSUPPORTED_FORMAT]
    assert len(found) == whole + 1


@pytest.mark.parametrize("write", [bz2.compress, gzip.compress])
def test_a_truncated_file_gives_what_it_holds_and_says_so(tmp_path: Path, write) -> None:
    path = tmp_path / "dump"
    stored = write(HEAD.encode() + page(1, "a").encode()) + write(page(2, "b").encode()) + write(TAIL.encode())
    for cut in range(20, len(stored)):
        path.write_bytes(stored[:cut])
        found = list(read_dump(path))
        assert identifiers(found) == [1, 2][: len(identifiers(found))]
        assert set(problems(found)) <= {Reason.TRUNCATED_RECORD, Reason.UNSUPPORTED_FORMAT} and problems(found)


def test_a_damaged_bzip2_stream_costs_itself_alone(tmp_path: Path) -> None:
    parts = [bz2.compress((HEAD + page(0, "x")).encode())]
    parts += [bz2.compress(page(n, str(n) * 50).encode()) for n in range(1, 6)] + [bz2.compress(TAIL.encode())]
    path = tmp_path / "dump.bz2"
    for at in range(4, len(parts[3])):
        broken = bytearray(parts[3])
        broken[at] ^= 0x55
        path.write_bytes(b"".join([*parts[:3], bytes(broken), *parts[4:]]))
        found = list(read_dump(path))
        if problems(found):
            assert identifiers(found) == [0, 1, 2, 4, 5] and problems(found) == [Reason.CORRUPT_RECORD], at
        else:  # The changed bits have no meaning in bzip2.
            assert found[3] == expected(3, "3" * 50), at


def test_a_damaged_gzip_member_ends_the_dump(tmp_path: Path) -> None:
    broken = bytearray(gzip.compress((page(2, "b") * 3).encode()))
    broken[20] ^= 0xFF
    path = tmp_path / "dump.gz"
    path.write_bytes(gzip.compress((HEAD + page(1, "a")).encode()) + broken + gzip.compress(TAIL.encode()))
    found = list(read_dump(path))
    assert identifiers(found)[:1] == [1] and problems(found) == [Reason.CORRUPT_GZIP]


def test_files_that_are_no_dumps(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    for content in (b"", b"<html><body>Not Found</body></html>", b"7z\xbc\xaf\x27\x1c" + bytes(100)):
        path.write_bytes(content)
        assert problems(read_dump(path)) == [Reason.UNSUPPORTED_FORMAT]
    for unreadable in (tmp_path / "none", tmp_path):  # An error of the storage is not reported as damage.
        with pytest.raises(OSError):
            list(read_dump(unreadable))


@given(st.lists(st.one_of(st.binary(max_size=50), st.sampled_from([b"<page>", b"</page>", b"<title>", b"<mediawiki"]))))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_it_raise(chunks: list[bytes]) -> None:
    assert list(scan(chunks)) == list(scan([b"".join(chunks)]))
    assert isinstance(list(read_pages(b"".join(chunks))), list)


def test_the_samples_are_read_whole() -> None:
    if not SAMPLES.exists():
        pytest.skip("no sample dumps here")
    english = list(read_dump(next(SAMPLES.glob("enwiki*"))))
    assert len(english) == 206 and sum(page.redirect for page in english if isinstance(page, Page)) == 100
    bulgarian = list(read_dump(next(SAMPLES.glob("bgwiki*"))))  # This dump is in UTF-16.
    assert [page.namespace for page in bulgarian if isinstance(page, Page)] == [0, 4, 4]
    for path in SAMPLES.glob("minidumps/*"):
        assert not problems(read_dump(path))


@given(st.data(), st.sampled_from([bz2.compress, gzip.compress]))
@settings(max_examples=150, deadline=None)
def test_no_damage_makes_a_file_raise(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, write) -> None:
    stored = bytearray(b"".join(write(part) for part in dump(TEXTS).encode().partition(b"<page>")))
    for at in data.draw(st.lists(st.integers(0, len(stored) - 1), max_size=4)):
        stored[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(stored[: data.draw(st.integers(0, len(stored)))])
    found = list(read_dump(path))
    assert found == WHOLE or problems(found) or stored[:3] not in (b"BZh", b"\x1f\x8b\x08")


def test_many_beginnings_of_streams_take_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "dump.bz2"

    def dump_of(stream: bytes) -> Callable[[int], list[Reason]]:
        def read(count: int) -> list[Reason]:
            path.write_bytes(stream * count)
            return problems(read_dump(path))

        return read

    beginnings, empty = dump_of(b"BZh91AY&SY"), dump_of(bz2.compress(b""))
    assert len(beginnings(8_000)) > 1_000 and empty(8_000) == [Reason.UNSUPPORTED_FORMAT]
    assert_linear(beginnings, int, 8_000)
    assert_linear(empty, int, 8_000)
