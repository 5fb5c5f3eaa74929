"""WET files in Common Crawl's format: the whole visible text of pages, one `conversion` record per page, by crawl.

The text of a page is its title and then every visible line, menus and footers included, without empty lines.
"""

import html
import re
import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deflate import gzipped
from warc import digest

TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)
UNSEEN = re.compile(
    r"<!--.*?-->|<!doctype[^>]*>|<(head|title|script|style|noscript)\b.*?</\1>", re.IGNORECASE | re.DOTALL
)
WITHIN_LINES = re.compile(r"</?(a|b|code|em|i|s|small|span|strong|sub|sup|tt|u)\b[^>]*>", re.IGNORECASE)
CELL = re.compile(r"</t[dh]>\s*<t[dh]\b[^>]*>", re.IGNORECASE)
TAG = re.compile(r"<[^>]*>")
FORMATTED = re.compile(r"(<pre\b.*?</pre>)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Crawl:
    """A monthly crawl; `languages` is True if its records state their languages, as those of recent crawls do."""

    name: str
    segments: tuple[str, ...]
    begun: datetime
    languages: bool

    def file(self, number: int) -> str:
        """Return the path, below the sample, of a file of the crawl by its number."""
        segment, stamp = self.segments[number % len(self.segments)], f"{self.begun:%Y%m%d%H%M%S}"
        end = f"{self.begun + timedelta(hours=2, minutes=24, seconds=4):%Y%m%d%H%M%S}"
        name = f"CC-MAIN-{stamp}-{end}-{number:05}.warc.wet.gz"
        return f"wet/{self.name}/segments/{segment}/wet/{name}"


CRAWLS = (
    Crawl("CC-MAIN-2019-30", ("1563195523840.34", "1563195525187.9"), datetime(2019, 7, 15, 17, 52, tzinfo=UTC), False),
    Crawl("CC-MAIN-2020-05", ("1579250589560.16", "1579250591234.15"), datetime(2020, 1, 17, 12, 31, tzinfo=UTC), True),
)


@dataclass(frozen=True)
class Text:
    """The text of a page, its languages (ISO 639-3, separated by commas) and the crawls that hold it."""

    url: str
    text: str
    language: str
    crawls: tuple[int, ...]


def visible(page: str) -> str:
    """Return the title and the visible lines of one of our own HTML pages, found by a few expressions."""
    title = TITLE.search(page)
    lines = [title[1] if title else ""]
    for number, part in enumerate(FORMATTED.split(UNSEEN.sub("", page))):
        flowing = part if number % 2 else " ".join(part.split())
        lines += TAG.sub("\n", CELL.sub("\t\t", WITHIN_LINES.sub("", flowing))).split("\n")
    return "\n".join(line.strip() for line in map(html.unescape, lines) if line.strip())


def one_crawl(url: str) -> tuple[int]:
    """Return the crawl that holds the page, chosen by its URL."""
    return (zlib.crc32(url.encode()) % len(CRAWLS),)


def write(out: Path, texts: Iterable[Text], files: int) -> dict[str, str]:
    """Write the files of each crawl; return the file of each URL (in its last crawl, if it is in two)."""
    inside = {crawl.file(number): [warcinfo(crawl, number)] for crawl in CRAWLS for number in range(files)}
    place = dict[str, str]()
    for text in sorted(texts, key=lambda text: text.url):
        for number in text.crawls:
            crawl = CRAWLS[number]
            file = crawl.file(zlib.crc32(text.url.encode()) // 2 % files)
            inside[file].append(conversion(text, crawl))
            place[text.url] = file
    for file, records in inside.items():
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_bytes(b"".join(gzipped(record) for record in records))
    return place


def conversion(text: Text, crawl: Crawl) -> bytes:
    """Return a conversion record with the text of a page."""
    block = text.text.encode() + b"\n"
    date = crawl.begun + timedelta(seconds=zlib.crc32(text.url.encode()) % (3 * 3600))
    fields = {
        "WARC-Type": "conversion",
        "WARC-Target-URI": text.url,
        "WARC-Date": f"{date:%Y-%m-%dT%H:%M:%SZ}",
        "WARC-Record-ID": record_id("conversion", text.url, crawl.name),
        "WARC-Refers-To": record_id("response", text.url, crawl.name),
        "WARC-Block-Digest": digest(block),
    }
    if crawl.languages and text.language:
        fields["WARC-Identified-Content-Language"] = text.language
    return record({**fields, "Content-Type": "text/plain"}, block)


def warcinfo(crawl: Crawl, number: int) -> bytes:
    """Return the warcinfo record of a file of a crawl."""
    name = crawl.file(number).rpartition("/")[2]
    block = (
        f"Software-Info: samples/make.py\r\nExtracted-Date: {crawl.begun:%a, %d %b %Y %H:%M:%S} GMT\r\n"
        f"isPartOf: {crawl.name}\r\ndescription: sample pages in the form of a crawl of {crawl.begun:%B %Y}\r\n"
    )
    fields = {
        "WARC-Type": "warcinfo",
        "WARC-Date": f"{crawl.begun:%Y-%m-%dT%H:%M:%SZ}",
        "WARC-Filename": name,
        "WARC-Record-ID": record_id("warcinfo", name, crawl.name),
        "Content-Type": "application/warc-fields",
    }
    return record(fields, block.encode())


def record(fields: dict[str, str], block: bytes) -> bytes:
    """Return a WARC record of header fields and a block."""
    head = "".join(f"{name}: {value}\r\n" for name, value in {**fields, "Content-Length": str(len(block))}.items())
    return f"WARC/1.0\r\n{head}\r\n".encode() + block + b"\r\n\r\n"


def record_id(*parts: str) -> str:
    """Return a record id that follows from its parts."""
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join(parts))}>"
