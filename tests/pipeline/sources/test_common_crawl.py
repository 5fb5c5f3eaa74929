"""The reader of web archives: which records become documents, which do not, and why."""

import base64
import hashlib
from pathlib import Path

import pytest

from filters.reasons import DEAD_LETTERS, Reason
from filters.rule_list import parse_rules
from manifests.source import Limits, Source
from pipeline.sources import common_crawl

LIMITS = Limits(record_bytes=4 << 20)
RECIPE = Source(weight=1.0, kind="common_crawl", limits=LIMITS, filters=parse_rules(["http_status"]))
PAGE = b"<html><body><article><p>" + b"Words of a page that says something. " * 9 + b"</p></article></body></html>"
HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + PAGE


def record(
    block: bytes, *fields: str, kind: str = "response", uri: str = "http://a.example/", eol: str = "\r\n"
) -> bytes:
    lines = ["WARC/1.1", f"Content-Length: {len(block)}", *fields, f"WARC-Target-URI: {uri}", f"WARC-Type: {kind}"]
    return eol.join([*lines, "", ""]).encode() + block + eol.encode() * 2


def reason(stored: bytes, recipe: Source = RECIPE) -> Reason | None:
    (outcome,) = common_crawl.read(stored, "a.warc", "web", recipe)
    assert (outcome.document is None) == (outcome.reason is not None)
    return outcome.reason


def status(code: int) -> bytes:
    return record(HTML.replace(b"200 OK", b"%d" % code))


def walk(stored: bytes) -> list[common_crawl.Outcome]:
    outcomes = list(common_crawl.read(stored, "a.warc.gz", "web", RECIPE))
    assert sum(outcome.stored for outcome in outcomes) == len(stored)
    for outcome in outcomes:
        assert (outcome.document is None) != (outcome.reason is None)
        if outcome.document:
            assert common_crawl.reread(stored, outcome.locator, "web", RECIPE).document == outcome.document
    return outcomes


def test_each_type_of_record() -> None:
    assert reason(record(HTML)) is None
    for kind, expected in (
        ("warcinfo", Reason.ARCHIVE_METADATA),
        ("metadata", Reason.ARCHIVE_METADATA),
        ("request", Reason.REQUEST_RECORD),
        ("revisit", Reason.REVISIT_RECORD),
        ("continuation", Reason.UNSUPPORTED_FORMAT),
        ("", Reason.UNSUPPORTED_FORMAT),
    ):
        assert reason(record(HTML, kind=kind)) is expected
    assert reason(record(HTML, "WARC-Segment-Number: 1")) is Reason.UNSUPPORTED_FORMAT
    assert reason(record(HTML, uri="dns:a.example")) is Reason.NOT_HTTP


def test_redirects_and_other_statuses() -> None:
    assert [reason(status(code)) for code in (301, 302, 304, 399)] == [Reason.REDIRECT] * 4
    assert [reason(status(code)) for code in (204, 404, 403, 500)] == [Reason.HTTP_STATUS] * 4
    kept = RECIPE.model_copy(update={"filters": parse_rules([{"http_status": [302, 404]}])})
    assert [reason(status(code), kept) for code in (302, 404, 301, 200)] == [
        None,
        None,
        Reason.REDIRECT,
        Reason.HTTP_STATUS,
    ]


def test_resources_are_pages_by_their_content_type() -> None:
    assert reason(record(PAGE, "Content-Type: text/html; charset=utf-8", kind="resource")) is None
    assert reason(record(PAGE, "Content-Type: text/plain", kind="resource")) is Reason.CONTENT_TYPE
    assert reason(record(b" ", "Content-Type: text/html", kind="resource")) is Reason.EMPTY_BODY
    assert reason(record(PAGE, "Content-Type: text/html", kind="resource", uri="file:///a")) is Reason.NOT_HTTP


def test_text_records() -> None:
    text = "Überschrift\n\nEin Satz.\n  eingerückt \n"
    fields = (
        "Content-Type: text/plain",
        "WARC-Identified-Content-Language: deu,eng",
        "WARC-Date: 2024-05-18T01:58:10Z",
    )
    (outcome,) = common_crawl.read(record(text.encode(), *fields, kind="conversion"), "a", "web", RECIPE)
    assert outcome.document is not None
    assert outcome.document.text == text.strip("\n")
    assert outcome.document.metadata == {"identified_language": "deu,eng"}
    assert (outcome.document.url, outcome.document.timestamp) == ("http://a.example/", "2024-05-18T01:58:10Z")
    latin = record(text.encode("latin-1"), "Content-Type: text/plain; charset=iso-8859-1", kind="conversion")
    (outcome,) = common_crawl.read(latin, "a", "web", RECIPE)
    assert outcome.document is not None and outcome.document.text == text.strip("\n")
    assert reason(record(b"\n\n", kind="conversion")) is Reason.NO_TEXT
    assert reason(record(b"GIF89a", "Content-Type: image/gif", kind="conversion")) is Reason.CONTENT_TYPE


def test_the_wet_extractor_takes_text_records_alone() -> None:
    wet = RECIPE.model_copy(update={"extractor": "wet"})
    assert reason(record(b"text", kind="conversion"), wet) is None
    for kind in ("response", "resource"):
        assert reason(record(HTML, "Content-Type: text/html", kind=kind), wet) is Reason.OTHER_FORM
    assert reason(record(HTML, kind="request"), wet) is Reason.REQUEST_RECORD


def test_a_block_that_is_not_what_its_digest_says_is_a_dead_letter() -> None:
    for name in ("sha1", "sha256", "md5"):
        digest = hashlib.new(name, HTML).digest()
        for value in (digest.hex(), base64.b32encode(digest).decode()):
            stored = record(HTML, f"WARC-Block-Digest: {name}:{value}")
            assert reason(stored) is None
            (outcome,) = common_crawl.read(stored.replace(b"Words", b"Wards"), "a", "web", RECIPE)
            assert outcome.reason is Reason.CORRUPT_RECORD and name in outcome.detail
    assert reason(record(HTML, "WARC-Block-Digest: whirlpool:0000")) is None
    assert reason(record(HTML, "WARC-Payload-Digest: sha1:" + "A" * 32)) is None
    rewritten = record(HTML, "WARC-Block-Digest: sha1:" + "A" * 32, eol="\n")
    assert reason(rewritten) is None


@pytest.mark.parametrize("date", ["yesterday", "2024-05-18 01:58:10", "2024-05-18T01:58:10Z; DROP", "٢٠٢٤"])
def test_a_date_that_is_none_is_left_out(date: str) -> None:
    (outcome,) = common_crawl.read(record(HTML, f"WARC-Date: {date}"), "a", "web", RECIPE)
    assert outcome.document is not None and outcome.document.timestamp == ""


def test_limits_are_kept(sample: Path) -> None:
    stored = (sample / "web/broken.warc.gz").read_bytes()
    walk(stored)
    tight = RECIPE.model_copy(update={"limits": Limits(record_bytes=2_000, text_characters=300)})
    outcomes = list(common_crawl.read(stored, "a", "web", tight))
    assert all(len(outcome.document.text) <= 300 for outcome in outcomes if outcome.document)
    assert Reason.TOO_LARGE in {outcome.reason for outcome in outcomes} and Reason.TOO_LARGE in DEAD_LETTERS


def test_an_empty_file_has_no_record() -> None:
    assert walk(b"") == []
