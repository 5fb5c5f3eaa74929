"""The sample's WET files, wiki, blocklist and folder odd/ agree with samples/README.md and the planted lists."""

import base64
import bz2
import gzip
import hashlib
import html
import json
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from warcio.archiveiterator import ArchiveIterator
from warcio.recordloader import ArcWarcRecord

from filters.reasons import Reason

EXPORT = "{http://www.mediawiki.org/xml/export-0.11/}"
REMOVED = re.compile("[，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►\x00-\x1f\x7f-\x9f]")
"""Unicode punctuation and control characters, as cc_net/text_normalizer.py takes them out of lines."""


def listed(sample: Path, name: str):
    return json.loads((sample / name).read_text("utf-8"))


def wet_records(sample: Path) -> list[tuple[str, ArcWarcRecord, bytes]]:
    """Return (crawl, record, block) of all conversion records."""
    found = []
    for file in sorted((sample / "wet").rglob("*.warc.wet.gz")):
        with file.open("rb") as stream:
            for number, record in enumerate(ArchiveIterator(stream)):
                assert record.rec_type == ("conversion" if number else "warcinfo")
                if number:
                    found.append((file.relative_to(sample).parts[1], record, record.raw_stream.read()))
    return found


@pytest.fixture(scope="module")
def documents(sample: Path) -> list[tuple[str, str, list[str]]]:
    """Return (crawl, URL, lines) of all pages of the WET files."""
    return [
        (crawl, record.rec_headers.get_header("WARC-Target-URI"), block.decode().split("\n"))
        for crawl, record, block in wet_records(sample)
    ]


def test_wet_records_are_as_common_crawl_writes_them(sample: Path) -> None:
    names = ["WARC-Type", "WARC-Target-URI", "WARC-Date", "WARC-Record-ID", "WARC-Refers-To", "WARC-Block-Digest"]
    languages, ids = defaultdict(set), Counter()
    for crawl, record, block in wet_records(sample):
        headers = record.rec_headers
        assert [name for name, _ in headers.headers if not name.startswith(("Content", "WARC-Identified"))] == names
        digest = base64.b32encode(hashlib.sha1(block).digest()).decode()
        assert headers.get_header("WARC-Block-Digest") == f"sha1:{digest}"
        assert headers.get_header("Content-Type") == "text/plain"
        languages[crawl].add(headers.get_header("WARC-Identified-Content-Language"))
        ids[headers.get_header("WARC-Record-ID")] += 1
    assert languages["CC-MAIN-2019-30"] == {None} and {None, "eng"} < languages["CC-MAIN-2020-05"]
    assert max(ids.values()) == 1 and len(ids) > 200


def normalised(line: str) -> str:
    return REMOVED.sub("", re.sub(r"\d", "0", line.strip().lower()))


@pytest.mark.parametrize("scope", ["dump", "all"])
@pytest.mark.parametrize("keep", ["none", "first"])
def test_planted_lines_meet_the_fate_they_are_listed_with(sample: Path, documents, scope: str, keep: str) -> None:
    """By brute force: a line is a duplicate if another page of the scope has it. So are repeats within a page."""
    pages_of = defaultdict(set)
    for number, (crawl, _, lines) in enumerate(documents):
        for line in lines:
            pages_of[crawl if scope == "dump" else "", normalised(line)].add(number)

    def kept(number: int) -> list[str]:
        out, seen = [], {""}
        crawl, _, lines = documents[number]
        for line in lines:
            pages = pages_of[crawl if scope == "dump" else "", normalised(line)]
            alone = len(pages) == 1 or (keep == "first" and number == min(pages))
            if alone and normalised(line) not in seen:
                out.append(line)
            seen.add(normalised(line))
        return out

    places = defaultdict(list)
    for number, (_, url, _) in enumerate(documents):
        places[url].append(number)
    lists = listed(sample, "planted-lines.json")
    for group in lists["lines"]:
        copies = {(copy["url"], normalised(copy["line"])) for copy in group["copies"]}
        whole = {copy["url"]: documents[places[copy["url"]][0]][2] for copy in group["copies"]}
        assert all(copy["line"] in whole[copy["url"]] for copy in group["copies"]), group["what"]
        left = sum(normalised(line) == text for url, text in copies for line in kept(places[url][0]))
        assert left == group["left"][scope][keep], group["what"]
    for group in lists["documents"]:
        numbers = {number for url in group["urls"] for number in places[url]}
        assert len(numbers) == 2
        assert sum(bool(kept(number)) for number in numbers) == group["left"][scope][keep], group
    assert len(lists["lines"]) > 12 and len(lists["documents"]) > 6


@pytest.fixture(scope="module")
def wiki(sample: Path) -> ElementTree.Element:
    (file,) = (sample / "wiki").iterdir()
    return ElementTree.fromstring(bz2.decompress(file.read_bytes()))


def texts(wiki: ElementTree.Element, namespace: str = "0") -> dict[str, str]:
    pages = [page for page in wiki.iter(f"{EXPORT}page") if page.findtext(f"{EXPORT}ns") == namespace]
    return {page.findtext(f"{EXPORT}title"): page.findtext(f".//{EXPORT}text") or "" for page in pages}


def test_the_wiki_is_an_export_in_several_streams(sample: Path, wiki: ElementTree.Element) -> None:
    (file,) = (sample / "wiki").iterdir()
    stored, streams = file.read_bytes(), 0
    while stored:
        unpacker = bz2.BZ2Decompressor()
        unpacker.decompress(stored)
        stored, streams = unpacker.unused_data, streams + 1
    assert streams > 4
    for page in wiki.iter(f"{EXPORT}page"):
        text = page.find(f".//{EXPORT}text")
        data = (text.text or "").encode()
        assert int(text.get("bytes")) == len(data)
        assert int(text.get("sha1"), 36) == int.from_bytes(hashlib.sha1(data).digest(), "big")
    pages = list(wiki.iter(f"{EXPORT}page"))
    assert {page.findtext(f"{EXPORT}ns") for page in pages} == {"0", "4", "10", "14"}
    assert len({page.findtext(f"{EXPORT}title") for page in pages}) == len(pages) > 150
    assert sum(page.find(f"{EXPORT}redirect") is not None for page in pages) == 2
    wikitext = "\n".join(texts(wiki).values())
    assert all(mark in wikitext for mark in ("{{Infobox", "{|", "<!--", "[[File:", "'''", "&nbsp;", "== Sources =="))


def test_every_listed_reference_stands_in_an_article(sample: Path, wiki: ElementTree.Element) -> None:
    lists = listed(sample, "planted-references.json")
    notes = "\n".join(
        re.findall(r"<ref\b[^>/]*>.*?</ref\s*>", "\n".join(texts(wiki).values()), re.DOTALL | re.IGNORECASE)
    )
    found = set(re.findall(r"https?://[^\s|\]<}]+", notes))
    for row in lists["cited"]:
        assert row["cited"] in found or f"https://web.archive.org/web/20190715120000/{row['cited']}" in found, row
    pages = [row["url"] for row in lists["cited"] if row["url"]]
    assert len(set(pages)) == len(pages)
    assert not set(lists["not_cited"]) & set(pages) and len(lists["not_cited"]) == 3
    everywhere = "\n".join(text for namespace in ("0", "4") for text in texts(wiki, namespace).values())
    assert all(everywhere.count(url) == 1 for url in lists["not_cited"])
    assert min(Counter(row["form"] for row in lists["cited"]).values()) > 10
    assert min(Counter(row["address"] for row in lists["cited"]).values()) > 10


def test_cited_pages_are_in_the_crawls_and_differ_in_kind_from_the_others(sample: Path, documents) -> None:
    cited = {row["url"] for row in listed(sample, "planted-references.json")["cited"] if row["in_wet"]}
    crawled = {url: len("\n".join(lines)) for _, url, lines in documents}
    assert cited < set(crawled)
    assert sum(crawled[url] >= 1000 for url in cited) > 60
    assert sum(row["in_web"] for row in listed(sample, "planted-references.json")["cited"]) > 50
    uncited = [url for url in crawled if url not in cited]
    assert len(uncited) > 60 and sum("/reference/" in url for url in uncited) < 12


def test_the_cited_pages_are_in_an_archive_under_the_addresses_of_the_crawl(sample: Path) -> None:
    with (sample / "cited/pages.warc.gz").open("rb") as stream:
        urls = [record.rec_headers.get_header("WARC-Target-URI") for record in ArchiveIterator(stream)][1:]
    cited = {row["url"] for row in listed(sample, "planted-references.json")["cited"] if row["url"]}
    assert len(set(urls)) == len(urls) > 60 and set(urls) <= cited


def test_no_article_of_the_wiki_is_made_of_pages_of_the_wet_files(wiki: ElementTree.Element, documents) -> None:
    crawled = {line for _, _, lines in documents for line in lines if len(line) > 80}
    paragraphs = [line for text in texts(wiki).values() for line in text.split("\n") if len(line) > 80]
    assert len(paragraphs) > 300
    assert sum(html.unescape(line) in crawled for line in paragraphs) < 0.01 * len(paragraphs)


def test_blocklist(sample: Path, documents) -> None:
    names = (sample / "blocklist.txt").read_bytes()
    assert gzip.decompress((sample / "blocklist.txt.gz").read_bytes()) == names
    rows = listed(sample, "planted-blocked.json")
    assert {row["url"] for row in rows} <= {url for _, url, _ in documents}
    assert Counter(row["expect"] for row in rows) == {"blocked-url": 6, "kept": 4}
    assert all(row["file"].startswith("wet/") for row in rows)


def test_odd_records(sample: Path) -> None:
    rows = {row["url"]: row for row in listed(sample, "planted-odd.json")}
    found = dict[str, ArcWarcRecord]()
    for name in ("records.warc.gz", "pages.arc.gz"):
        with (sample / "odd" / name).open("rb") as stream:
            for record in ArchiveIterator(stream, check_digests=True, arc2warc=True):
                record.content_stream().read()
                if url := record.rec_headers.get_header("WARC-Target-URI"):
                    found[url] = record
    assert set(rows) == set(found)
    failed = {url for url, record in found.items() if record.digest_checker.passed is False}
    unknown = {url for url in failed if "tiger:" in found[url].rec_headers.get_header("WARC-Block-Digest")}
    assert len(unknown) == 1  # warcio reports a digest that it cannot compute as wrong
    assert failed - unknown == {url for url, row in rows.items() if row["expect"] == Reason.CORRUPT_RECORD}
    statuses = Counter(row["expect"] for row in rows.values())
    assert statuses[Reason.REDIRECT] == 4 and statuses[Reason.REVISIT_RECORD] == 1
