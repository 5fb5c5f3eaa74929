"""EPUB books: chapters in reading order, and archives that lie end in a reason within bounds."""

import io
import re
import tracemalloc
import zipfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.books.epub import MEMBERS, Epub, read_epub
from filters.formats.stream import Damage
from filters.reasons import Reason
from manifests.source import Limits, Source
from pipeline.sources import books

CONTAINER = '<container><rootfiles><rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
ENCRYPTED = (
    '<encryption xmlns:enc="x"><enc:EncryptedData><enc:EncryptionMethod Algorithm="{}"/><enc:CipherData>'
    '<enc:CipherReference URI="{}"/></enc:CipherData></enc:EncryptedData></encryption>'
)


def page(body: str, head: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "x.dtd">'
        f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title/>{head}<script src="a.js"/></head>{body}</html>'
    )


def package(items: str = "", spine: str = "", guide: str = "") -> str:
    return (
        '<package xmlns:dc="d"><metadata><dc:title>The  Lamp</dc:title><dc:creator>A. Writer</dc:creator>'
        f"<dc:creator>B. Other</dc:creator><dc:language>en</dc:language></metadata><manifest>{items}</manifest>"
        f"<spine>{spine}</spine><guide>{guide}</guide></package>"
    )


def item(name: str, href: str, more: str = "") -> str:
    return f'<item id="{name}" href="{href}" media-type="application/xhtml+xml" {more}/>'


ITEMS = item("one", "text/1.xhtml") + item("two", "text/2%20b.xhtml") + item("toc", "nav.xhtml", 'properties="nav"')
SPINE = '<itemref idref="toc"/><itemref idref="two"/><itemref idref="one"/><itemref idref="two"/>'
FILES: dict[str, Any] = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": CONTAINER,
    "OEBPS/content.opf": package(ITEMS, SPINE),
    "OEBPS/nav.xhtml": page("<body><nav>One Two</nav></body>"),
    "OEBPS/text/1.xhtml": page(
        "<body><h1>One</h1><p>The <i>first</i>&nbsp;lamp &amp; more.</p><p>It<a id='x'/> was lit.</p></body>"
    ),
    "OEBPS/text/2 b.xhtml": page("<body><h1>Two</h1><p>Été.</p></body>"),
}
TEXT = "Two\n\nÉté.\n\nOne\n\nThe first lamp & more.\n\nIt was lit."


def epub(changes: dict[str, Any] | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", options.get("method", zipfile.ZIP_DEFLATED)) as archive:
        for name, data in {**FILES, **(changes or {})}.items():
            if data is not None:
                archive.writestr(name, data)
    return out.getvalue()


def damage(stored: bytes, limit: int = 1 << 20) -> Reason:
    found = read_epub(stored, limit)
    assert isinstance(found, Damage), found
    return found.problem


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_chapters_come_in_the_order_of_the_spine_and_without_contents(method: int) -> None:
    book = read_epub(epub(method=method), 1 << 20)
    assert isinstance(book, Epub)
    squeezed = "\n\n".join(filter(None, (part.strip() for part in book.text.replace("\u00a0", " ").split("\n"))))
    assert squeezed == TEXT
    assert book.package == "OEBPS/content.opf"
    assert book.size == sum(len(FILES[f"OEBPS/text/{name}"].encode()) for name in ("1.xhtml", "2 b.xhtml"))
    assert book.about == {"title": "The Lamp", "author": "A. Writer", "language": "en"}


@pytest.mark.parametrize(
    "changes",
    [
        {
            "OEBPS/content.opf": package(
                ITEMS.replace('properties="nav"', ""), SPINE, '<reference type="toc" href="./nav.xhtml"/>'
            )
        },
        {
            "OEBPS/content.opf": package(
                ITEMS.replace('properties="nav"', ""), SPINE, '<reference type="toc" href="nav.xhtml#a"/>'
            ),
            "OEBPS/nav.xhtml": page('<body><h1 id="a"><a href="text/1.xhtml">One</a></h1></body>'),
        },
        {
            "OEBPS/content.opf": package(ITEMS.replace('properties="nav"', ""), SPINE),
            "OEBPS/nav.xhtml": page('<body epub:type="frontmatter toc">One</body>'),
        },
        {
            "OEBPS/content.opf": package(
                ITEMS.replace('properties="nav"', ""), SPINE.replace('idref="toc"', 'idref="toc" linear="no"')
            )
        },
        {"META-INF/encryption.xml": ENCRYPTED.format("http://www.idpf.org/2008/embedding", "OEBPS/font.ttf")},
        {"META-INF/encryption.xml": ENCRYPTED.format("http://ns.adobe.com/pdf/enc#RC", "OEBPS/text/1.xhtml")},
        {
            "OEBPS/text/2 b.xhtml": page("<body><h1>Two</h1><p>Été.</p></body>")
            .replace("utf-8", "iso-8859-1")
            .encode("latin-1")
        },
        {"OEBPS/text/2 b.xhtml": page("<body><h1>Two</h1><p>Été.</p></body>").encode("utf-16")},
        {"OEBPS/content.opf": package(ITEMS.replace("application/xhtml+xml", "text/html"), SPINE)},
        {"OEBPS/content.opf": package(ITEMS.replace("application/xhtml+xml", "Application/XHTML; charset=x"), SPINE)},
        {
            "OEBPS/content.opf": package(
                f'{ITEMS}<item id="cover" href="a.jpg" media-type="image/jpeg"/>', f'<itemref idref="cover"/>{SPINE}'
            )
        },
        {
            "OEBPS/text/2 b.xhtml": page(
                "<body><h1>Two</h1><p>É<span epub:type='pagebreak' id='p12'>12</span>té."
                '<span role="doc-pagebreak" id="p13"/></p></body>'
            )
        },
        {
            "OEBPS/text/2 b.xhtml": page(
                '<body><h1>Two</h1><p>É<span class="pagenum"><a id="p12">[12]</a></span>té.'
                '<span class="x-ebookmaker-pageno" title="[Pg 13]">[13]</span></p></body>'
            )
        },
        {
            "OEBPS/text/2 b.xhtml": page(
                '<body><h1>Two<a epub:type="noteref" href="#n1">1</a></h1><p>Été'
                '<sup><a href="n.xhtml#n2">[2]</a></sup>.'
                '<a href="n.xhtml#n3" class="x"><sup>*</sup></a> <a role="doc-backlink" href="#b">↩</a></p></body>'
            )
        },
        *(
            {"OEBPS/content.opf": package(ITEMS.replace('properties="nav"', ""), SPINE), "OEBPS/nav.xhtml": page(body)}
            for body in (
                '<body><section epub:type="frontmatter index"><p>lamp, 7</p></section></body>',
                '<body class="x"><div><section role="doc-toc"><p>One</p></section></div></body>',
                '<body><section epub:type="copyright-page"><p>All rights reserved.</p></section></body>',
                '<body><h2>Contents</h2><ul><li><a href="text/1.xhtml">The first chapter</a></li>'
                '<li><a href="text/2.xhtml"><b>The second</b> chapter</a></li>'
                '<li><a href="#x">Notes</a></li></ul></body>',
            )
        ),
    ],
    ids=[
        "guide",
        "guide with a place",
        "type",
        "linear",
        "fonts",
        "fonts, Adobe",
        "latin-1",
        "UTF-16",
        "media type",
        "media type with parameters",
        "image",
        "page breaks",
        "page numbers",
        "notes",
        "index",
        "contents by role",
        "copyright",
        "undeclared contents",
    ],
)
def test_other_ways_to_say_the_same(changes: dict[str, Any]) -> None:
    book, plain = read_epub(epub(changes), 1 << 20), read_epub(epub(), 1 << 20)
    assert isinstance(book, Epub) and isinstance(plain, Epub) and book.text == plain.text


@pytest.mark.parametrize("name", ["META-INF/container.xml", "OEBPS/content.opf", "META-INF/encryption.xml"])
def test_an_encoding_that_does_not_exist_is_damage(name: str) -> None:
    assert damage(epub({name: f"<?xml version='1.0' encoding='utf-99'?>{FILES.get(name, '<a/>')}"})) is (
        Reason.CORRUPT_RECORD
    )


def test_other_renditions_of_a_container_are_passed_over() -> None:
    other = '<rootfile full-path="book.pdf" media-type="application/pdf"/>'
    container = CONTAINER.replace("<rootfile ", f"{other}<rootfile ")
    assert container != CONTAINER and isinstance(read_epub(epub({"META-INF/container.xml": container}), 1 << 20), Epub)


def test_a_document_that_begins_with_a_table_of_contents_stays() -> None:
    """Else a book in one document was dropped, for its guide names the place of the contents in it."""
    inside = '<body><h2 id="toc"><a href="#c1">One</a></h2><h2 id="c1">One</h2><p>It was a dark night.</p></body>'
    guide = '<reference type="toc" href="text/1.xhtml#toc"/>'
    changes = {"OEBPS/content.opf": package(ITEMS, '<itemref idref="one"/>', guide), "OEBPS/text/1.xhtml": page(inside)}
    book = read_epub(epub(changes), 1 << 20)
    assert isinstance(book, Epub) and book.text.split("\n")[-1] == "It was a dark night."


@pytest.mark.parametrize(
    "body",
    [
        '<p>See <a href="1.xhtml">the first</a> and <a href="#x">the same</a> and <a href="#y">this</a>, he said.</p>',
        '<p><a href="http://a.example/1">A</a> <a href="http://a.example/2">B</a> <a href="mailto:a@b.c">C</a></p>',
        "<p>10<sup>6</sup> <a href='#a'>words</a><sup>2</sup></p>",
        '<section epub:type="chapter" class="index toc"><p>The index finger.</p></section>',
    ],
)
def test_chapters_with_links_stay(body: str) -> None:
    book = read_epub(epub({"OEBPS/text/1.xhtml": page(f"<body>{body}</body>")}), 1 << 20)
    assert isinstance(book, Epub)
    text = re.sub(r"<sup>", "^", body)
    assert " ".join(book.text.split()) == "Two Été. " + " ".join(re.sub(r"<[^<>]*>", "", text).split())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"META-INF/container.xml": None}, Reason.UNSUPPORTED_FORMAT),
        ({"META-INF/container.xml": "<container"}, Reason.CORRUPT_RECORD),
        ({"OEBPS/content.opf": None}, Reason.CORRUPT_RECORD),
        ({"OEBPS/text/1.xhtml": None}, Reason.CORRUPT_RECORD),
        ({"OEBPS/content.opf": package(ITEMS, "")}, Reason.CORRUPT_RECORD),
        ({"OEBPS/content.opf": package(ITEMS, f'{SPINE}<itemref idref="gone"/>')}, Reason.CORRUPT_RECORD),
        (
            {"OEBPS/content.opf": package(ITEMS.replace("application/xhtml+xml", "application/x-dtbook+xml"), SPINE)},
            Reason.UNSUPPORTED_FORMAT,
        ),
        ({"META-INF/container.xml": CONTAINER.replace("OEBPS/", "../../etc/")}, Reason.UNSAFE_PATH),
        (
            {"OEBPS/content.opf": package(item("one", "../../../etc/passwd"), '<itemref idref="one"/>')},
            Reason.UNSAFE_PATH,
        ),
        (
            {"OEBPS/content.opf": package(item("one", "file:///etc/passwd"), '<itemref idref="one"/>')},
            Reason.UNSAFE_PATH,
        ),
        ({"../../evil.xhtml": "x"}, Reason.UNSAFE_PATH),
        ({"/evil.xhtml": "x"}, Reason.UNSAFE_PATH),
        (
            {
                "META-INF/encryption.xml": ENCRYPTED.format(
                    "http://www.w3.org/2001/04/xmlenc#aes256-cbc", "OEBPS/text/1.xhtml"
                )
            },
            Reason.ENCRYPTED,
        ),
        (
            {
                "META-INF/encryption.xml": ENCRYPTED.format(
                    "http://www.w3.org/2001/04/xmlenc#aes256-cbc", "OEBPS/text/2%20b.xhtml"
                )
            },
            Reason.ENCRYPTED,
        ),
        (
            {"OEBPS/content.opf": '<!DOCTYPE package [<!ENTITY a "aaaa">]>' + package(ITEMS, SPINE)},
            Reason.ENTITY_EXPANSION,
        ),
        (
            {"META-INF/container.xml": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + CONTAINER},
            Reason.ENTITY_EXPANSION,
        ),
        (
            {"OEBPS/text/1.xhtml": '<!DOCTYPE html [<!ENTITY a "x"><!ENTITY b "&a;&a;">]><html>&b;</html>'},
            Reason.ENTITY_EXPANSION,
        ),
        ({"OEBPS/text/1.xhtml": page("<body>" + "<div>" * 5_000 + "</body>")}, Reason.TOO_LARGE),
        ({"OEBPS/text/1.xhtml": "word " * 300_000}, Reason.TOO_LARGE),
    ],
)
def test_archives_that_are_no_book(changes: dict[str, Any], reason: Reason) -> None:
    stored = epub(changes)
    assert damage(stored) is reason
    (outcome,) = books.read(
        stored, "a.epub", "books", Source(weight=1.0, kind="books", limits=Limits(record_bytes=1 << 20))
    )
    assert outcome.reason is reason and outcome.stored == len(stored)


def test_bombs_are_not_inflated() -> None:
    bomb = epub({"OEBPS/text/1.xhtml": b" " * (60 << 20)})
    many = "".join(item(f"i{n}", f"t/{n}.xhtml") for n in range(80))
    spine = "".join(f'<itemref idref="i{n}"/>' for n in range(80))
    chapters = {f"OEBPS/t/{n}.xhtml": b"<html>" + b"ab " * 150_000 + b"</html>" for n in range(80)}
    wide = epub({"OEBPS/content.opf": package(many, spine), **chapters})
    tracemalloc.start()
    assert damage(bomb, 1 << 30) is Reason.TOO_LARGE
    assert damage(wide, 8 << 20) is Reason.TOO_LARGE
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20
    assert damage(epub({f"x/{n}": "" for n in range(MEMBERS)})) is Reason.TOO_LARGE


def test_a_size_that_lies_is_found_out() -> None:
    stored = bytearray(epub())
    place = stored.rindex(b"PK\x01\x02", 0, stored.rindex(b"OEBPS/text/1.xhtml"))
    stored[place + 24 : place + 28] = (10).to_bytes(4, "little")
    assert damage(bytes(stored)) is Reason.CORRUPT_RECORD


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_hurt_archives_end_in_a_book_or_a_reason(place: int, data: bytes, cut: bool) -> None:
    stored = bytearray(epub())
    place %= len(stored)
    stored[place : place + len(data)] = data
    found = read_epub(bytes(stored[:place] if cut else stored), 1 << 20)
    assert isinstance(found, Epub | Damage)


def test_a_book_of_a_collection_can_be_read_again() -> None:
    recipe, stored = Source(weight=1.0, kind="books", licence="CC0"), epub()
    (outcome,) = books.read(stored, "a.epub", "books", recipe)
    assert outcome.document and outcome.stored == len(stored)
    assert outcome.document.metadata == {"title": "The Lamp", "author": "A. Writer", "language": "en"}
    place = outcome.locator
    assert (place.offset, place.length, place.member, place.inner_offset) == (0, len(stored), "OEBPS/content.opf", 0)
    assert books.reread(stored, place, "books", recipe) == outcome
    with pytest.raises(LookupError):
        books.reread(epub({"OEBPS/text/1.xhtml": page("<body>Other.</body>")}), place, "books", recipe)


def test_gutenbergs_wrapping_comes_off_epubs_as_well() -> None:
    begin = page(
        "<body><p>The Project Gutenberg eBook of The Lamp</p><p>Title: The Lamp</p>"
        "<p>Release date: May 1, 2001 [eBook #77]</p>"
        "<p>*** START OF THE PROJECT GUTENBERG EBOOK THE LAMP ***</p><p>It was dark.</p></body>"
    )
    end = page(
        "<body><p>It was light.</p><p>*** END OF THE PROJECT GUTENBERG EBOOK THE LAMP ***</p><p>Licence.</p></body>"
    )
    (outcome,) = books.read(
        epub({"OEBPS/text/2 b.xhtml": begin, "OEBPS/text/1.xhtml": end}),
        "a.epub",
        "books",
        Source(weight=1.0, kind="books"),
    )
    assert outcome.document and outcome.document.text.split() == ["It", "was", "dark.", "It", "was", "light."]
    assert outcome.document.url == "https://www.gutenberg.org/ebooks/77" and outcome.document.metadata["ebook"] == 77
