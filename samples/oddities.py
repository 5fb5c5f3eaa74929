"""Make records that are not pages, and hostile pages. Most kinds occur in real crawls; some occur only here."""

import zlib
from collections.abc import Iterator

from deflate import deflate_repeated, gzip_member, gzipped
from warc import Record, other, response
from web_pages import ALMANAC, Article, Planted, almanac, notebook

ODD = "https://odd.example"


def other_records(articles: list[Article]) -> Iterator[Planted]:
    """Yield records that are not web pages: requests, metadata, revisits, DNS, conversions, resources."""
    url = f"{ALMANAC}/en/{articles[0].slug}.html"
    ask = (("Host", "www.almanac.example"), ("User-Agent", "samples/1.0"))
    yield Planted(Record(url, b"", "request", headers=ask), "request", "request-record")
    fields = other(url, b"fetchTimeMs: 12\r\n", "metadata", "application/warc-fields")
    yield Planted(fields, "metadata", "archive-metadata")
    refers = (
        ("WARC-Profile", "http://netpreserve.org/warc/1.0/revisit/identical-payload-digest"),
        ("WARC-Refers-To-Target-URI", url), ("WARC-Refers-To-Date", "2024-02-01T00:00:00Z"),
        ("WARC-Payload-Digest", "sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ"),
    )  # fmt: skip
    yield Planted(Record(url, b"", "revisit", warc_headers=refers), "revisit without a body", "revisit-record")
    address = b"20240301000000\nwww.almanac.example. 300 IN A 192.0.2.1\n"
    yield Planted(other("dns:www.almanac.example", address, "response", "text/dns"), "dns response", "not-http")
    text = "\n".join([articles[1].title, *articles[1].paragraphs]).encode()
    for link, kind, what in (
        (f"{ODD}/converted", "conversion", "text of a page, as in WET files"),
        ("ftp://odd.example/readme.txt", "resource", "ftp resource"),
        (f"{ODD}/new-kind", "surprise", "a record type of no standard"),
    ):
        yield Planted(other(link, text, kind, "text/plain"), what, "not-http")


def other_answers() -> Iterator[Planted]:
    """Yield responses without a page: errors, redirects, other content types, empty bodies."""
    for status in ("301 Moved Permanently", "302 Found", "404 Not Found", "500 Internal Server Error", "503 Busy"):
        body = f"<html><title>{status}</title><body><h1>{status}</h1><p>The server said {status}.</p></body></html>"
        url = f"{ODD}/status/{status[:3]}"
        yield Planted(response(url, body, status=status, location=f"{ODD}/elsewhere"), status, "http-status")
    kinds = {
        "image/png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "application/json": b'{"title": "not a page", "items": [1, 2, 3]}',
        "application/pdf": b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n",
        "text/plain": b"User-agent: *\nDisallow: /private\n",
        "text/css": b"body { color: black }\n",
        "application/rss+xml": b"<?xml version='1.0'?><rss version='2.0'><channel><title>News</title></channel></rss>",
    }
    for kind, data in kinds.items():
        name = kind.rpartition("/")[2]
        yield Planted(response(f"{ODD}/kind/{name}", data, kind), f"content type {kind}", "content-type")
    yield Planted(response(f"{ODD}/kind/image-called-html", kinds["image/png"]), "a PNG called HTML", "dropped")
    yield Planted(response(f"{ODD}/empty", b""), "empty body", "empty-body")
    yield Planted(response(f"{ODD}/blank", b" \r\n\t\r\n"), "white space only", "dropped")
    yield Planted(response(f"{ODD}/one-line", "<p>We are moving to a new house.</p>"), "one line", "dropped")


def hostile(articles: list[Article]) -> Iterator[Planted]:
    """Yield hostile pages: broken encodings, decompression bombs, deep nesting, very long lines."""
    good = notebook(articles[0])
    packed = gzipped(good.encode())
    broken = packed[:200] + bytes(b ^ 0x5A for b in packed[200:260]) + packed[260:]
    encoded = {
        "gzip-broken": (broken, "gzip", "a gzip body with damaged bytes", "corrupt-body"),
        "gzip-cut": (packed[: len(packed) // 2], "gzip", "a gzip body cut in half", "corrupt-body"),
        "brotli-broken": (b"\x1b\xff\x00\x13" * 50, "br", "a brotli body that is none", "corrupt-body"),
        "compress": (b"\x1f\x9d\x90" + packed[10:], "compress", "a body in Unix compress", "unsupported-format"),
        "unknown": (good.encode()[::-1], "x-backwards", "an unknown content encoding", "unsupported-format"),
        "bomb": (bomb(), "gzip", "64 MiB of spaces in 413 KiB of gzip", "too-large"),
    }
    for name, (body, encoding, what, expect) in encoded.items():
        yield Planted(response(f"{ODD}/hostile/{name}", body, content_encoding=encoding), what, expect)
    bad = b"5\r\nhello\r\nzz\r\n<p>never</p>\r\n0\r\n\r\n"
    yield Planted(
        response(f"{ODD}/hostile/chunks", bad, transfer_encoding="chunked"), "a chunk length that is no number",
        "corrupt-body",
    )  # fmt: skip
    noise = b"".join(zlib.crc32(number.to_bytes(4, "big")).to_bytes(4, "big") for number in range(2000))
    yield Planted(response(f"{ODD}/hostile/noise", noise, "text/html"), "8,000 random bytes as HTML", "dropped")
    yield Planted(response(f"{ODD}/hostile/zeros", bytes(5000)), "5,000 zero bytes as HTML", "dropped")
    deep = "<div>" * 20000 + "<p>At the bottom of the well there was a frog, who was surprised to have a visitor.</p>"
    yield Planted(response(f"{ODD}/hostile/deep", deep), "20,000 nested elements", "dropped")
    word = Article("", "A very long word", (*articles[3].paragraphs[:2], f"He was a very{'-very' * 300}-old man."))
    yield Planted(response(f"{ODD}/long-word", almanac(word)), "a word of 1,508 characters; the page stays", "kept")
    quarters = ("northerly", "easterly", "southerly", "westerly")
    days = tuple(
        f"On day {day} the glass stood at {960 + day * 7 % 80}, the wind was {quarters[day % 4]}, "
        f"and the keeper counted {day * 13 % 29} sails before dark."
        for day in range(1, 2400)
    )
    yield Planted(
        response(f"{ODD}/long-page", notebook(Article("", "The log of the lower light", days))),
        "a page over 190,000 characters", "c4-page-too-long",
    )  # fmt: skip


def bomb() -> bytes:
    """Return a gzip member that decompresses to 64 MiB of spaces."""
    size, checksum = 1 << 26, 0
    for _ in range(64):
        checksum = zlib.crc32(b" " * (size // 64), checksum)
    return gzip_member(deflate_repeated(ord(" "), size), checksum, size)
