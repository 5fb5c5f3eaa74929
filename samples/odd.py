"""Write the folder odd/, which the demo does not read: an ARC file, and records that need different treatment."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from deflate import gzipped
from gazetteer import Entry
from warc import Record, http_block, other, response, write
from web_pages import Article, Planted, notebook, weekly

SITE = "https://odd.example/more"
# Pages that test blocklist.txt: (URL, description, expected result).
BLOCKED = (
    ("https://casino.example/welcome.html", "a domain on the list", "blocked-url"),
    ("http://tables.casino.example:8080/rules?lang=en", "below a domain on the list", "blocked-url"),
    ("https://WWW.Pills.Example/", "a domain on the list, in capitals, with www", "blocked-url"),
    ("http://forum.example/members/42", "below a path on the list", "blocked-url"),
    ("https://notebook.example/en/sold-out", "an address on the list", "blocked-url"),
    ("https://mixed.example/offers/today", "an address on the list, other scheme, without www", "blocked-url"),
    ("https://notcasino.example/welcome.html", "ends like a domain on the list", "kept"),
    ("https://casino.example.museum.example/tour.html", "begins like a domain on the list", "kept"),
    ("http://forum.example/gardening/42", "another path of a site on the list", "kept"),
    ("https://library.example/search?url=casino.example/", "a domain on the list, in a query", "kept"),
)  # fmt: skip


def article(entry: Entry) -> Article:
    """Return an entry of the gazetteer as the article of a web page."""
    return Article("", entry.title, tuple(text for _, section in entry.sections for text in section))


def blocked(entries: list[Entry]) -> list[tuple[Planted, str]]:
    """Return (planted page, HTML) for each case in BLOCKED."""
    pages = [notebook(article(entry)) for entry in entries[: len(BLOCKED)]]
    return [
        (Planted(response(url, page), what, expect), page)
        for page, (url, what, expect) in zip(pages, BLOCKED, strict=True)
    ]


def records(entries: list[Entry]) -> Iterator[Planted]:
    """Yield the planted records of a WARC file. Their pages are entries of the gazetteer."""
    pages = [notebook(article(entry)) for entry in entries]
    yield Planted(other(f"{SITE}/resource", pages[0].encode(), "resource", "text/html"), "a resource of HTML", "kept")
    picture = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00;"
    yield Planted(other(f"{SITE}/picture", picture, "resource", "image/gif"), "a resource of pixels", "content-type")
    for status in ("301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"):
        moved = response(f"{SITE}/moved/{status[:3]}", pages[1], status=status, location=f"{SITE}/elsewhere")
        yield Planted(moved, f"{status[:3]} with a page for a body", "redirect")
    same = (
        ("WARC-Profile", "http://netpreserve.org/warc/1.0/revisit/server-not-modified"),
        ("WARC-Refers-To-Target-URI", f"{SITE}/resource"), ("WARC-Refers-To-Date", "2024-02-01T00:00:00Z"),
    )  # fmt: skip
    unchanged = Record(f"{SITE}/visited", b"", "revisit", "304 Not Modified", (("ETag", '"a1"'),), warc_headers=same)
    yield Planted(unchanged, "revisit of a page not modified", "revisit-record")
    digests = (
        ("wrong", (("WARC-Block-Digest", "sha1:" + "A" * 32),), "a block digest that is another's", "corrupt-record"),
        ("right", (), "the right block digest", "kept"),
        ("unknown", (("WARC-Block-Digest", "tiger:LWPNACQDBZRYXW3VHJVC"),), "a digest of no known kind", "kept"),
    )  # fmt: skip
    for page, (name, stated, what, expect) in zip(pages[2:], digests, strict=True):
        yield Planted(Record(f"{SITE}/digest/{name}", page.encode(), warc_headers=stated), what, expect)


def arc(file: Path, entries: list[Entry]) -> list[Planted]:
    """Write an ARC file of version 1 (Burner and Kahle 1996) with one gzip member per record; return its records."""
    pages = [article(entry) for entry in entries]
    planted = [
        Planted(Record("http://arc.example/first.html", notebook(pages[0]).encode()), "a page in an ARC file", "kept"),
        Planted(
            response("http://arc.example/second.html", weekly(pages[1]).encode("latin-1"), "text/html;charset=latin-1"),
            "a latin-1 page in an ARC file", "kept",
        ),
        Planted(
            response("http://arc.example/gone.html", "<p>Gone.</p>", status="404 Not Found"), "404 in an ARC file",
            "http-status",
        ),
        Planted(response("http://arc.example/dot.gif", b"GIF89a", "image/gif"), "a picture in one", "content-type"),
        Planted(
            other("dns:arc.example", b"20080430204825\narc.example.\t300\tIN\tA\t192.0.2.7\n", "response", "text/dns"),
            "a dns record in an ARC file", "not-http",
        ),
        Planted(Record("http://arc.example/third.html", notebook(pages[2]).encode()), "another page", "kept"),
    ]  # fmt: skip
    about = b"1 0 samples/make.py\nURL IP-address Archive-date Content-type Archive-length\n"
    members = [arc_member(f"filedesc://{file.name}", "text/plain", about)]
    for item in planted:
        record, kind = item.record, item.record.content_type or dict(item.record.headers or ())["Content-Type"]
        block = record.body if record.headers is None else http_block(record)
        members.append(arc_member(record.url, kind.partition(";")[0], block))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(members))
    return planted


def arc_member(url: str, kind: str, block: bytes) -> bytes:
    """Return one ARC record as a gzip member."""
    second = int.from_bytes(hashlib.sha1(url.encode()).digest()[:2], "big") % 60
    return gzipped(f"{url} 192.0.2.7 200804302048{second:02} {kind} {len(block)}\n".encode() + block + b"\n")


def odd(out: Path, entries: list[Entry]) -> dict[str, list[Planted]]:
    """Write the folder, using 20 entries of the gazetteer. Return the planted records by file."""
    mixed = [*records(entries[:5]), *(item for item, _ in blocked(entries[8:18]))]
    write(out / "odd/records.warc.gz", (item.record for item in mixed))
    return {"odd/records.warc.gz": mixed, "odd/pages.arc.gz": arc(out / "odd/pages.arc.gz", entries[5:8])}
