"""Wikipedia's dumps as a source: pages and places, pieces, damage, the bundled dumps, and the real ones."""

import bz2
import gzip
import json
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linear import assert_linear

from filters.reasons import Reason
from filters.rule_list import parse_rules
from filters.wikitext.names import APPARATUS, LANGUAGES
from manifests.document import Document, Locator
from manifests.source import Limits, Source, Wikipedia
from pipeline.sources import wikipedia
from pipeline.sources.base import Outcome

ROOT = Path(__file__).parents[3]
REAL = sorted((ROOT / "../shared/data/wikipedia").rglob("*.bz2"))
NAME = "enwiki-20240101-pages-articles.xml"
HEAD = b'<mediawiki xml:lang="de" version="0.11"><siteinfo><dbname>dewiki</dbname></siteinfo>\n'
TAIL = b"</mediawiki>\n"


def page(number: int, text: str = "Text.", title: str = "", namespace: int = 0, more: str = "") -> bytes:
    return (
        f"  <page>\n    <title>{escape(title or f'Page {number}')}</title>\n    <ns>{namespace}</ns>\n"
        f"    <id>{number}</id>\n{more}    <revision><id>{number + 70}</id><timestamp>2023-12-01T08:00:00Z</timestamp>"
        f"<contributor><id>7</id></contributor><text>{escape(text)}</text></revision>\n  </page>\n"
    ).encode()


def source(limits: Limits | None = None, least: int = 1, **options: Any) -> Source:
    rules = Wikipedia(**options)
    given = {"limits": limits or Limits(), "filters": parse_rules([{"min_characters": least}])}
    return Source(weight=1.0, kind="wikipedia", licence="CC-BY-SA-4.0", wikipedia=rules, **given)


def outcomes(stored: bytes, name: str = NAME, split_bytes: int = 0, recipe: Source | None = None) -> list[Outcome]:
    """Return every page's outcome; all stored bytes are accounted for.

    Of a file that is read whole some sixty documents are read again at their places.
    """
    recipe = recipe or source()
    pieces = wikipedia.find_pieces(stored, recipe, split_bytes) if split_bytes else [(0, len(stored), 0)]
    found = []
    for start, end, state in pieces:
        part = list(wikipedia.read(stored, name, "w", recipe, start, end, state))
        assert sum(item.stored for item in part) == end - start and all(item.stored >= 0 for item in part)
        found += part
    made = [item for item in found if item.document is not None]
    for item in [] if split_bytes else made[:: 1 + len(made) // 60 * 20]:
        assert wikipedia.reread(stored, item.locator, "w", recipe).document == item.document
    return found


def documents(found: list[Outcome]) -> list[Document]:
    return [item.document for item in found if item.document is not None]


def reasons(found: list[Outcome]) -> Counter[str]:
    return Counter(item.reason.value for item in found if item.reason not in (None, Reason.ARCHIVE_METADATA))


@pytest.mark.parametrize("pack", [bytes, bz2.compress])
def test_namespaces_of_old_dumps_are_told_by_titles(pack: Callable[[bytes], bytes]) -> None:
    """Before export schema 0.6, pages state no namespace."""
    listed = {-1: "Special", 1: "Talk", 4: "Wikipedia", 5: "Wikipedia talk", 10: "Portal &amp; x"}
    header = "".join(f'<namespace key="{number}">{name}</namespace>\n' for number, name in listed.items())
    titles = ["Wikipedia", "Talk: a", "Talk:A", "Wikipedia talk:B", "Portal & x:C", "2001: A Space Odyssey", "talk"]
    pages = b"".join(page(number, title=title) for number, title in enumerate(titles))
    dump = f'<mediawiki version="0.3"><siteinfo><namespace key="0" />{header}</siteinfo>'.encode() + pages + TAIL
    found = outcomes(pack(dump.replace(b"<ns>0</ns>", b"")))
    made = [item.document.metadata["title"] for item in found if item.document is not None]
    assert made == ["Wikipedia", "2001: A Space Odyssey", "talk"]
    assert sum(item.reason is Reason.OTHER_NAMESPACE for item in found) == 4
    assert len([item for item in outcomes(pack(dump)) if item.document is not None]) == 7


def test_a_page_becomes_a_document() -> None:
    text = "'''Ä''' is [[b|a]] letter.\n\n== See also ==\n* [[B]]"
    (document,) = documents(outcomes(HEAD + page(5, text, "Ä? (a & b)") + TAIL))
    assert document.text == "Ä? (a & b)\n\nÄ is a letter."
    assert document.url == "https://en.wikipedia.org/wiki/%C3%84%3F_(a_%26_b)"
    assert document.timestamp == "2023-12-01T08:00:00Z" and document.licence == "CC-BY-SA-4.0"
    assert document.metadata == {"page": 5, "revision": 75, "language": "en", "title": "Ä? (a & b)"}


def test_tables_by_recipe() -> None:
    stored = HEAD + page(1, "A.\n{|\n! Year !! Name\n|-\n| 1900 || [[London]]\n|}\nB.", "T") + TAIL
    for tables, text in (("drop", "T\n\nA.\n\nB."), ("rows", "T\n\nA.\n\nYear | Name\n1900 | London\n\nB.")):
        assert [item.text for item in documents(outcomes(stored, recipe=source(tables=tables)))] == [text]


def test_title_and_apparatus_by_recipe() -> None:
    stored = HEAD + page(5, "A.\n\n== See also ==\n* [[B]]", "T") + TAIL
    for options, text in (({"title": False}, "A."), ({"apparatus": True}, "T\n\nA.\n\nSee also\n\nB")):
        assert [item.text for item in documents(outcomes(stored, recipe=source(**options)))] == [text]


def test_what_becomes_of_other_pages() -> None:
    mark = '    <redirect title="A" />\n'
    pages = [
        page(1, "x", namespace=14), page(2, "x", namespace=-1), page(3, "#REDIRECT [[A]]", more=mark),
        page(4, " #redirect:[[A]]"), page(5, "#ПЕРЕНАПРАВЛЕНИЕ [[A]]"), page(6, "# [[A]] and b"), page(7, "{{a}}"),
        page(8, "#foo [[A]]"), page(9, "'''M''' may be:\n* [[N]]\n{{disambiguation}}"),
    ]  # fmt: skip
    found = outcomes(HEAD + b"".join(pages) + TAIL)
    assert reasons(found) == {"other-namespace": 2, "redirect": 3, "no-text": 1}
    assert [item.metadata["page"] for item in documents(found)] == [6, 8, 9]


def test_limits_by_recipe() -> None:
    stored = HEAD + page(1, "x" * 500) + page(2) + TAIL
    assert reasons(outcomes(stored, recipe=source(Limits(record_bytes=500)))) == {"too-large": 1}
    assert reasons(outcomes(stored, recipe=source(Limits(text_characters=100)))) == {"too-large": 1}
    assert reasons(outcomes(stored, recipe=source(least=100))) == {"too-short": 1}


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("enwiki-20220801-pages-articles-multistream1.xml-p1p41242.bz2", "en"),
        ("bgwiki-latest-pages-articles-shortened.xml.bz2", "bg"),
        ("minidumps/sr.wiki.xml.bz2", "sr"),
        ("dumps/dewiki/20220801/pages.xml", "de"),
        ("frwiki/20220801/dewiki-20220801-pages-articles.xml.bz2", "de"),
        ("zh_min_nanwiki-20220801-pages-articles.xml.bz2", "zh-min-nan"),
        ("samplewiki-20220801-pages-articles.xml.bz2", ""),
        ("enwiktionary-20220801-pages-articles.xml.bz2", ""),
        ("dump.xml", ""),
    ],
)
def test_a_dump_s_language(name: str, language: str) -> None:
    assert wikipedia.detect_language(name, source()) == language
    assert wikipedia.detect_language(name, source(language="uk")) == "uk"


def test_the_twenty_languages_of_the_paper() -> None:
    assert list(LANGUAGES) == Wikipedia().languages == sorted(APPARATUS) and len(LANGUAGES) == 20


def test_other_languages_are_refused_or_kept_by_recipe() -> None:
    stored = HEAD + page(1) + TAIL
    assert reasons(outcomes(stored, "jawiki-20240101.xml")) == {"language": 1}
    assert len(documents(outcomes(stored, "jawiki-20240101.xml", recipe=source(languages=["ja"])))) == 1
    (told,) = outcomes(stored, "dump.xml")
    assert told.reason is Reason.UNSUPPORTED_FORMAT and "set wikipedia.language" in told.detail


def streams(parts: list[bytes]) -> bytes:
    return b"".join(bz2.compress(part) for part in parts)


def unaligned(data: bytes) -> bytes:
    """As parallel compressors do: a stream every so many bytes."""
    return streams([data[start : start + 700] for start in range(0, len(data), 700)])


PAGES = [page(n, f"Text {n} é " * (1 + n % 7)) for n in range(1, 60)]
WHOLE = HEAD + b"".join(PAGES) + TAIL
FORMS: dict[str, Callable[[], bytes]] = {
    "plain": lambda: WHOLE,
    "byte order mark": lambda: b"\xef\xbb\xbf" + WHOLE,
    "bzip2": lambda: bz2.compress(WHOLE),
    "multistream": lambda: streams([HEAD, *(b"".join(PAGES[n : n + 10]) for n in range(0, 59, 10)), TAIL]),
    "streams of any bytes": lambda: unaligned(WHOLE),
    "empty streams": lambda: streams([b"", HEAD, b"", b"".join(PAGES[:9]), b"", b"".join(PAGES[9:]), b"", TAIL, b""]),
    "gzip": lambda: gzip.compress(WHOLE),
    "gzip members": lambda: gzip.compress(WHOLE[:900]) + gzip.compress(WHOLE[900:]),
    "utf-16": lambda: WHOLE.decode().encode("utf-16"),
    "utf-16 by bzip2": lambda: bz2.compress(WHOLE.decode().encode("utf-16")),
    "declared": lambda: ('<?xml version="1.0" encoding="iso-8859-1"?>' + WHOLE.decode()).encode("latin-1"),
    "padded": lambda: bz2.compress(WHOLE) + bytes(600),
}


@cache
def whole_texts() -> list[str]:
    return [item.text for item in documents(outcomes(WHOLE))]


@cache
def locators_of(form: str) -> list[Locator]:
    return [item.locator for item in outcomes(FORMS[form]())]


@pytest.mark.parametrize("split_bytes", [0, 20, 300, 1_000, 3_000])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_any_pieces_gives_the_same_documents(form: str, split_bytes: int) -> None:
    stored = FORMS[form]()
    found = outcomes(stored, split_bytes=split_bytes)
    assert reasons(found) == {}
    assert [item.text for item in documents(found)] == whole_texts()
    assert [item.locator for item in found] == locators_of(form), "pieces leave no trace"
    count = len(wikipedia.find_pieces(stored, source(), split_bytes)) if split_bytes else 1
    assert count > 1 or split_bytes == 0 or form not in ("plain", "multistream") or split_bytes > len(stored) // 2


def test_places_are_those_of_streams_or_of_the_page() -> None:
    stored = FORMS["multistream"]()
    for item in documents(outcomes(stored)):
        place = item.locator
        element = bz2.decompress(stored[place.offset : place.offset + place.length])
        element = element[place.inner_offset : place.inner_offset + place.inner_length]
        assert element.startswith(b"<page>") and element.endswith(b"</page>")
        assert f"<id>{item.metadata['page']}</id>".encode() in element
    for item in documents(outcomes(WHOLE)):
        place = item.locator
        assert WHOLE[place.offset : place.offset + place.length].startswith(b"<page>") and place.inner_offset == 0
    (one, *_) = documents(outcomes(bz2.compress(WHOLE)))
    assert (one.locator.offset, one.locator.length) == (0, len(bz2.compress(WHOLE)))


def test_a_unit_too_long_to_be_held_names_the_rest_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("filters.formats.mediawiki.MAX_UNIT_BYTES", 1_000)
    stored = FORMS["multistream"]()
    found = documents(outcomes(stored))
    assert len(found) == 59 and {item.locator.offset + item.locator.length for item in found[:50]} == {len(stored)}
    assert found == documents(outcomes(stored, split_bytes=300))


def test_rereading_another_file_is_told() -> None:
    for form in ("plain", "multistream", "gzip", "utf-16"):
        stored = FORMS[form]()
        place = documents(outcomes(stored))[-1].locator
        for other in (b"", stored[: len(stored) // 2], WHOLE.replace(b"Page 3", b"Page three")):
            with pytest.raises(LookupError):
                wikipedia.reread(other, place, "w", source())


@pytest.mark.parametrize("form", [form for form in FORMS if "utf" not in form and form != "padded"])
def test_a_truncated_dump_gives_what_it_holds_and_says_so(form: str) -> None:
    stored = FORMS[form]()
    for cut in (30, len(stored) // 3, len(stored) // 2, len(stored) - 20):
        found = outcomes(stored[:cut])
        told = reasons(found)
        assert set(told) <= {"truncated-record", "corrupt-record", "unsupported-format"} and told, (form, cut)
        texts = [item.text for item in documents(found)]
        assert texts == whole_texts()[: len(texts)]


def test_a_damaged_stream_costs_itself_alone() -> None:
    parts = [HEAD, *(b"".join(PAGES[n : n + 10]) for n in range(0, 59, 10)), TAIL]
    data = [bytearray(bz2.compress(part)) for part in parts]
    data[3][len(data[3]) // 2] ^= 0xFF
    stored = b"".join(data)
    for split_bytes in (0, 300):
        found = outcomes(stored, split_bytes=split_bytes)
        assert reasons(found) == {"corrupt-record": 1}
        assert [item.metadata["page"] for item in documents(found)] == [*range(1, 21), *range(31, 60)]
    (dead,) = [item for item in found if item.reason is Reason.CORRUPT_RECORD]
    assert dead.locator.offset == sum(map(len, data[:3])) and dead.stored == len(data[3])


@given(st.data(), st.sampled_from(["plain", "multistream", "gzip", "bzip2"]))
@settings(max_examples=120, deadline=None)
def test_no_damage_makes_it_raise_or_loses_a_byte(data: st.DataObject, form: str) -> None:
    stored = bytearray(FORMS[form]())
    for at in data.draw(st.lists(st.integers(0, len(stored) - 1), max_size=4)):
        stored[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(stored)))
    outcomes(bytes(stored[:cut]), split_bytes=data.draw(st.sampled_from([0, 500, 2_000])))


def test_an_empty_file_is_told() -> None:
    for stored in (b"", b"<html>Not Found</html>", bz2.compress(b""), b"7z\xbc\xaf\x27\x1c" + bytes(99)):
        assert reasons(outcomes(stored)) == {"unsupported-format": 1}, stored[:9]


def test_entities_of_its_own_end_in_dead_letters() -> None:
    """A billion laughs: the document type is told, and the page that uses it."""
    entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10 if n else 'ha'}'>" for n in range(10))
    laughs = page(1, "laugh").replace(b"laugh", b"&e9;")
    found = outcomes(f"<!DOCTYPE mediawiki [{entities}]>".encode() + HEAD + laughs + page(2) + TAIL)
    assert reasons(found) == {"entity-expansion": 2} and len(documents(found)) == 1


HUGE: dict[str, Callable[[], bytes]] = {
    "a line of 20 MB": lambda: HEAD + page(1, "x" * 20_000_000) + page(2) + TAIL,
    "a title of 20 MB": lambda: HEAD + page(1, title="x" * 20_000_000) + page(2) + TAIL,
    "20 MB before the first page": lambda: HEAD + b" " * 20_000_000 + page(2) + TAIL,
}


@pytest.mark.parametrize("what", HUGE)
def test_a_bomb_is_passed_over_in_bounded_memory(what: str) -> None:
    stored = bz2.compress(HUGE[what]())
    assert len(stored) < 10_000
    tracemalloc.start()
    found = outcomes(stored, recipe=source(Limits(record_bytes=4 << 20)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(documents(found)) == 1 and set(reasons(found)) <= {"too-large"} and peak < 30_000_000


def test_elements_within_one_another_without_end_take_linear_time() -> None:
    def deep(size: int) -> bytes:
        return HEAD + page(1, "deep").replace(b"deep", b"<a>" * size) + page(2) + TAIL

    def many(size: int) -> bytes:
        return HEAD + b"<page>" * size + TAIL

    assert reasons(outcomes(deep(80_000))) == {"corrupt-record": 1}
    assert reasons(outcomes(many(1_000))) == {"corrupt-record": 999, "truncated-record": 1}
    assert_linear(outcomes, deep, 80_000)
    assert_linear(outcomes, many, 50_000)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(ROOT / "samples"))
    try:
        import gazetteer
        import make
        import wikipedia as dumps
    finally:
        sys.path.pop(0)
    out = tmp_path_factory.mktemp("wikipedia")
    rows = dumps.make(out / "dumps", make.encyclopaedia(gazetteer.entries(80)))
    (out / "planted.json").write_text(json.dumps(rows), encoding="utf-8")
    return out


def test_the_bundled_dumps_of_twenty_languages(sample: Path) -> None:
    rows = json.loads((sample / "planted.json").read_text(encoding="utf-8"))
    texts = {path.stem: path.read_text("utf-8").rstrip("\n") for path in (ROOT / "samples/wikipedia").glob("*.txt")}
    assert sorted(texts) == sorted(LANGUAGES)
    for path in sorted((sample / "dumps").iterdir()):
        stored = path.read_bytes()
        found = outcomes(stored, path.name)
        expected = Counter(row["expect"] for row in rows if row["file"] == path.name and row["expect"] != "kept")
        assert reasons(found) == expected, path.name
        assert documents(found)[0].text == texts[path.name[:2]]
        assert [item.text for item in documents(outcomes(stored, path.name, 1_000))] == [
            item.text for item in documents(found)
        ]


@pytest.mark.skipif(not REAL, reason="the real sample data (../shared/data) is not here")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name[:12])
def test_real_dumps_are_accounted_for(path: Path) -> None:
    found = outcomes(path.read_bytes(), path.name)
    told, made = reasons(found), documents(found)
    if path.name.startswith("enwiki"):
        assert told == {"redirect": 99, "other-namespace": 1} and len(made) == 106
    elif path.name.startswith("bgwiki"):
        assert told == {"other-namespace": 2} and [item.metadata["page"] for item in made] == [558]
    else:
        assert told == {} and made
    for item in made:
        assert item.metadata["language"] == path.name[:2] and item.url.startswith(f"https://{path.name[:2]}.wiki")
        assert item.timestamp and len(item.text) > 150
