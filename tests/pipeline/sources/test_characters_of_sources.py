"""The characters of documents: one form in every text that a reader extracts, and no change to rows and code."""

import json
from pathlib import Path

import pytest
from test_common_crawl import record

from manifests.source import Source, SourceKind
from pipeline.sources import arxiv, books, c4, common_crawl, github, stackexchange, wikipedia

TYPED = (
    "A cafe\u0301 at Donau\xaddampf\xadschiff, zero\u200bwidth, \ufeffmarked, for 10\xa0000\u202f€, \x93says\x94 it."
)
NORMAL = "A café at Donaudampfschiff, zerowidth, marked, for 10 000 €, “says” it."


def recipe(kind: SourceKind) -> Source:
    return Source(weight=1.0, kind=kind)


def read_post() -> str:
    row = f'<row Id="1" PostTypeId="1" Title="{TYPED}" Body="&lt;p&gt;{TYPED}&lt;/p&gt;" Score="1" />\n'.encode()
    shared = {"sites": ["a.example"]}
    rows = stackexchange.read_rows(row, "a.example/Posts.xml", recipe("stackexchange"), shared, 0, len(row), 0)
    (outcome,) = stackexchange.combine(list(rows), "s", recipe("stackexchange"), 0)
    assert outcome.document is not None
    title, body = outcome.document.text.removeprefix("Q: ").split("\n\n")
    assert title == body
    return body


def read_one(reader: object, stored: bytes, name: str, kind: SourceKind) -> str:
    (outcome,) = (found for found in reader.read(stored, name, "s", recipe(kind)) if found.document is not None)
    return outcome.document.text


def read_article() -> str:
    page = f"<page><title>T</title><ns>0</ns><id>1</id><revision><id>2</id><text>{TYPED}</text></revision></page>"
    dump = f"<mediawiki>{page}</mediawiki>".encode()
    return read_one(wikipedia, dump, "enwiki-20240101-pages-articles.xml", "wikipedia").removeprefix("T\n\n")


def read_paper() -> str:
    paper = f"\\documentclass{{a}}\\begin{{document}}\\section{{A}} {TYPED}\\end{{document}}".encode()
    return read_one(arxiv, paper, "a.tex", "arxiv").removeprefix("\\section{A} ")


def read_web_page() -> str:
    html = f"<html><body><article>{f'<p>{TYPED}</p>' * 9}</article></body></html>".encode()
    page = record(b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html)
    (text,) = set(read_one(common_crawl, page, "a.warc", "common_crawl").split("\n\n"))
    return text


def read_wet(reader: object, kind: SourceKind) -> str:
    return read_one(reader, record(TYPED.encode(), kind="conversion"), "a.warc.wet", kind)


@pytest.mark.parametrize(
    "read",
    [
        read_post,
        read_article,
        read_paper,
        read_web_page,
        lambda: read_wet(common_crawl, "common_crawl"),
        lambda: read_wet(c4, "c4"),
        lambda: read_one(books, TYPED.encode() * 9, "a.txt", "books")[: len(NORMAL)],
    ],
    ids=["posts", "articles", "papers", "pages", "WET", "C4 from WET", "books"],
)
def test_extracted_text_has_one_form(read: object) -> None:
    assert read() == NORMAL


def test_rows_and_code_keep_their_characters(tmp_path: Path) -> None:
    row = json.dumps({"text": TYPED, "url": "http://a.example/"}).encode() + b"\n"
    assert read_one(c4, row, "c4.json", "c4") == TYPED
    code = github.read_code(f'text = "{TYPED}"\n'.encode(), "a.py", recipe("github"))
    assert isinstance(code, github.Code) and code.text == f'text = "{TYPED}"\n'
