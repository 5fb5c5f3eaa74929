"""Write WET files in Common Crawl's format: the visible text of pages, one `conversion` record per page.

The text of a page is its title and then all visible lines, including menus and footers, without empty lines.
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
    """A monthly crawl.

    Attributes:
        name: The name of the crawl.
        segments: The names of its segments.
        begun: The time of its first record.
        languages: True if records state the languages of their pages, as in recent crawls.
    """

    name: str
    segments: tuple[str, ...]
    begun: datetime
    languages: bool

    def file(self, number: int) -> str:
        """Return the path of the crawl's file with this number, relative to the folder of the sample."""
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
    """The text of a page.

    Attributes:
        url: The URL.
        text: The visible text.
        language: The languages, ISO 639-3 codes separated by commas.
        crawls: The indexes in CRAWLS of the crawls that contain the page.
    """

    url: str
    text: str
    language: str
    crawls: tuple[int, ...]


def visible(page: str) -> str:
    """Return the title and the visible lines of an HTML page. The regular expressions suit the sample's own pages."""
    title = TITLE.search(page)
    lines = [title[1] if title else ""]
    for number, part in enumerate(FORMATTED.split(UNSEEN.sub("", page))):
        flowing = part if number % 2 else " ".join(part.split())
        lines += TAG.sub("\n", CELL.sub("\t\t", WITHIN_LINES.sub("", flowing))).split("\n")
    return "\n".join(line.strip() for line in map(html.unescape, lines) if line.strip())


def one_crawl(url: str) -> tuple[int]:
    """Return a crawl for a page, chosen by a hash of the URL."""
    return (zlib.crc32(url.encode()) % len(CRAWLS),)


def write(out: Path, texts: Iterable[Text], files: int) -> dict[str, str]:
    """Write the WET files of each crawl.

    Args:
        out: The folder of the sample.
        texts: The texts of the pages.
        files: The number of files per crawl.

    Returns:
        The file of each URL. If a URL is in two crawls, it is the file of the second crawl.
    """
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
    """Return the conversion record of a page in a crawl."""
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
    """Return the warcinfo record of the crawl's file with this number."""
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
    """Return an uncompressed WARC record with the given header fields and block."""
    head = "".join(f"{name}: {value}\r\n" for name, value in {**fields, "Content-Length": str(len(block))}.items())
    return f"WARC/1.0\r\n{head}\r\n".encode() + block + b"\r\n\r\n"


def record_id(*parts: str) -> str:
    """Return a record id that is a hash of the given strings."""
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join(parts))}>"
