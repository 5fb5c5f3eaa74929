"""Tests of ARC archives: versions 1 and 2, with one gzip member per record, in one gzip member, or uncompressed."""

import gzip
import io
from collections.abc import Callable

import pytest
from corpus import SHARED
from warcio.archiveiterator import ArchiveIterator

from filters.formats.warc import Frame, Limits, read_frame, read_frames
from filters.reasons import Reason
from filters.rule_list import parse_rules
from manifests.source import Source
from pipeline.sources import common_crawl

LIMITS = Limits(1 << 20)
ABOUT_1 = b"1 0 Example\nURL IP-address Archive-date Content-type Archive-length\n"
ABOUT_2 = b"2 0 Example\nURL IP-address Archive-date Content-type Result-code Checksum Location Offset Filename "
ABOUT_2 += b"Archive-length\n"
VERSION_1 = b"filedesc://a.arc 0.0.0.0 20080430204825 text/plain %d\n%b\n" % (len(ABOUT_1), ABOUT_1)
VERSION_2 = b"filedesc://a.arc 0.0.0.0 20080430204825 text/plain 200 - - 0 a.arc %d\n%b\n" % (len(ABOUT_2), ABOUT_2)
BLOCK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>a page\n\nhttp://b.example/ 1 2 3\n</html>"


def line(uri: bytes = b"http://a.example/", date: bytes = b"20080430204826", length: int = len(BLOCK)) -> bytes:
    return b"%b 192.0.2.1 %b text/html %d\n" % (uri, date, length)


def record(uri: bytes = b"http://a.example/", block: bytes = BLOCK) -> bytes:
    return line(uri, length=len(block)) + block + b"\n"


def by_member(records: list[bytes]) -> bytes:
    return b"".join(gzip.compress(record, mtime=0) for record in records)


def in_one_member(records: list[bytes]) -> bytes:
    return gzip.compress(b"".join(records), mtime=0)


FORMS = (by_member, in_one_member, b"".join)


def good(stored: bytes, limits: Limits = LIMITS) -> list[Frame]:
    found = list(read_frames(stored, limits))
    assert sum(frame.stored for frame in found) == len(stored)
    kept = [frame for frame in found if frame.problem is None]
    for frame in kept:
        place = (frame.offset, frame.length, frame.inner_offset, frame.inner_length)
        assert read_frame(stored, *place, limits) == frame
    return kept


@pytest.mark.parametrize("form", FORMS)
def test_version_1(form: Callable[[list[bytes]], bytes]) -> None:
    about, page, other = good(form([VERSION_1, record(), record(b"https://a.example/b c?d=e f", b"x\n\n")]))
    assert about.headers.get("WARC-Type") == "warcinfo" and about.block.startswith(b"1 0 Example\nURL IP")
    assert (page.target_uri, page.block, page.version) == ("http://a.example/", BLOCK, "ARC/1")
    assert page.headers.get("WARC-Type") == "response"
    assert page.headers.get("WARC-Date") == "2008-04-30T20:48:26Z"
    assert page.headers.get("WARC-IP-Address") == "192.0.2.1"
    assert (other.target_uri, other.block) == ("https://a.example/b c?d=e f", b"x\n\n")


@pytest.mark.parametrize("form", FORMS)
def test_version_2(form: Callable[[list[bytes]], bytes]) -> None:
    first = b"http://a.example/ 192.0.2.1 20080430204826 text/html 200 XYZ - 209 a.arc %d\n%b\n" % (len(BLOCK), BLOCK)
    about, page, again = good(form([VERSION_2, first, first]))
    assert about.headers.get("WARC-Type") == "warcinfo"
    assert (page.target_uri, page.block, page.version) == ("http://a.example/", BLOCK, "ARC/2") and again.block == BLOCK


def test_a_date_that_is_none_and_a_record_without_a_newline_behind_it() -> None:
    (page, last) = good(line(date=b"null") + BLOCK + record()[:-1])
    assert page.headers.get("WARC-Date") is None and last.block == BLOCK


@pytest.mark.parametrize("length", [b"-5", b"", b"9" * 30, b"1e3", b"300000", b"17"])
@pytest.mark.parametrize("form", FORMS)
def test_a_length_that_lies_costs_one_record(form: Callable[[list[bytes]], bytes], length: bytes) -> None:
    bad = b"http://c.example/ 192.0.2.1 20080430204826 text/html %b\n" % length + BLOCK + b"\n"
    kept = good(form([VERSION_1, record(), bad, record(b"http://d.example/")]))
    assert [frame.target_uri for frame in kept[1:]] == ["http://a.example/", "http://d.example/"]


def test_damage_between_records_and_at_either_end() -> None:
    stored = b"\0junk\n" + VERSION_1 + record() + b"\0" * 700 + b"\n" + record() + record()[:-30]
    found = list(read_frames(stored, LIMITS))
    assert [frame.problem for frame in found] == [
        Reason.CORRUPT_RECORD,
        None,
        None,
        Reason.CORRUPT_RECORD,
        None,
        Reason.TRUNCATED_RECORD,
    ]
    members = by_member([VERSION_1, record(), record(b"http://d.example/")])
    broken = bytearray(members)
    broken[len(by_member([VERSION_1])) + 30] ^= 0xFF
    assert [frame.target_uri for frame in good(bytes(broken))] == ["filedesc://a.arc", "http://d.example/"]
    assert [frame.target_uri for frame in good(b"\0" + members[1:])] == ["http://a.example/", "http://d.example/"]


def test_a_block_may_hold_an_archive_and_a_member_of_the_other_kind_may_follow() -> None:
    inner = record(b"http://inner.example/") * 2
    kept = good(b"".join([VERSION_1, record(block=inner), record()]))
    assert [frame.block for frame in kept[1:]] == [inner, BLOCK]
    warc = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 1\r\n\r\nx\r\n\r\n"
    assert [f.block for f in good(by_member([record(), warc, record()]))] == [BLOCK, b"x", BLOCK]


def test_long_lines_of_almost_records_take_linear_time() -> None:
    almost = b"http://a.example/" + b" 1 20080430204826 a/b c d e" * 30_000
    for stored in (record() + almost + b"\n" + record(), record() + (almost[:8_001] + b"\n") * 100 + record()):
        assert len(good(stored)) == 2


CRAWL = SHARED / "common_crawl/warc/crawl"


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not present")
def test_the_arc_of_a_crawl_holds_what_its_warc_holds() -> None:
    rules, texts, blocks = parse_rules(["http_status"]), [], []
    source = Source(weight=1.0, kind="common_crawl", extractor="resiliparse", filters=rules)
    for name in ("IAH-20080430204825-blackbook.arc.gz", "IAH-20080430204825-blackbook.warc.gz"):
        stored = (CRAWL / name).read_bytes()
        found = good(stored, Limits(8 << 20))
        kept = [frame for frame in found if frame.headers.get("WARC-Type") == "response"]
        blocks.append([(frame.target_uri, frame.block) for frame in kept])
        outcomes = common_crawl.read(stored, name, "web", source)
        texts.append([(o.document.url, o.document.text) for o in outcomes if o.document])
    assert len(blocks[0]) == 299 and len(texts[0]) == 93
    assert blocks[0] == blocks[1] and texts[0] == texts[1]


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared data not present")
def test_an_arc_reads_as_warcio_reads_it() -> None:
    stored = (CRAWL / "IAH-20080430204825-blackbook.arc.gz").read_bytes()
    expected = [
        (entry.rec_headers.get_header("uri"), len(entry.content_stream().read()))
        for entry in ArchiveIterator(io.BytesIO(stored), no_record_parse=True)
    ]
    found = [(frame.target_uri, len(frame.block)) for frame in good(stored, Limits(8 << 20))]
    # The first record differs, because warcio takes lines of its block for a header.
    assert found[1:] == expected[1:] and len(found) == 300
