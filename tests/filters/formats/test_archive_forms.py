"""Tests of irregular archives: unusual ARC lines, wrong lengths, mixed forms, zstd, and files that are no archives."""

import gzip
import io
import random
import struct
import sys
from collections.abc import Callable

import pytest
from framing import LIMITS, blocks, check, good, members, reasons, record
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator

from filters.formats.http import parse_response
from filters.formats.warc import Limits, find_boundaries, read_frames
from filters.reasons import Reason
from filters.rule_list import parse_rules
from manifests.source import Source
from pipeline.sources import common_crawl

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ABOUT = b"1 0 Example\nURL IP-address Archive-date Content-type Archive-length\n"
START = b"filedesc://a.arc 0.0.0.0 20080430204825 text/plain %d\n%b\n" % (len(ABOUT), ABOUT)
PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 34\r\n\r\n<html><p>a page of text</p></html>"


def arc(line: bytes = b"http://a.example/ 192.0.2.1 20080430204826 text/html", block: bytes = PAGE) -> bytes:
    return b"%b %d\n%b\n" % (line, len(block), block)


def uris(stored: bytes) -> list[str]:
    check(stored)
    return [frame.target_uri for frame in good(stored) if not frame.target_uri.startswith("filedesc:")]


LINES = {  # From the header line of an ARC record, without the length, to the expected URL, date and version.
    b"http://a.example/ 192.0.2.1 20080430204826 text/html": ("http://a.example/", "2008-04-30T20:48:26Z", "ARC/1"),
    b"http://a.example/ 192.0.2.1 20080430204826 text/html; charset=utf-8": (
        "http://a.example/",
        "2008-04-30T20:48:26Z",
        "ARC/1",
    ),
    b"http://a.example/b c?d e 192.0.2.1 20080430204826 text/html, application/x-javascript": (
        "http://a.example/b c?d e",
        "2008-04-30T20:48:26Z",
        "ARC/1",
    ),
    b"http://a.example/ 192.0.2.1 2008043020 text/html": ("http://a.example/", "2008-04-30", "ARC/1"),
    b"http://a.example/ 192.0.2.1 200804302048 text/html": ("http://a.example/", "2008-04-30T20:48Z", "ARC/1"),
    b"http://a.example/ 192.0.2.1 200804302048260 text/html": ("http://a.example/", "2008-04-30T20:48:26Z", "ARC/1"),
    b"http://a.example/ 192.0.2.1 2008043020482600 text/html": ("http://a.example/", "2008-04-30T20:48:26Z", "ARC/1"),
    b"http://a.example/ 192.0.2.1 200804302048260000 text/html": ("http://a.example/", "2008-04-30T20:48:26Z", "ARC/1"),
    b"http://a.example/ 192.0.2.1 20080430204826Z text/html": ("http://a.example/", "2008-04-30T20:48:26Z", "ARC/1"),
    b"http://a.example/ 192.0.2.1 20080430204826-00001 text/html": (
        "http://a.example/",
        "2008-04-30T20:48:26Z",
        "ARC/1",
    ),
    b"http://a.example/ 192.0.2.1 4818dc5a text/html": ("http://a.example/", None, "ARC/1"),
    b"http://a.example/ 192.0.2.1 99999999999999 text/html": ("http://a.example/", None, "ARC/1"),
    b"http://a.example/ 192.0.2.1 null text/html": ("http://a.example/", None, "ARC/1"),
    b"http://a.example/\rb 192.0.2.1 20080430204826 text/html": (
        "http://a.example/%0Db",
        "2008-04-30T20:48:26Z",
        "ARC/1",
    ),
    b"http://a.example/ 192.0.2.1 20080430204826": ("http://a.example/", "2008-04-30T20:48:26Z", "ARC/1"),
    b"http://a.example/ 20080430204826 text/html": ("http://a.example/", "2008-04-30T20:48:26Z", "ARC/1"),
    b"http://a.example/ 192.0.2.1 text/html": ("http://a.example/", None, "ARC/1"),
    b"http://a.example/ 192.0.2.1 text/html 20080430204826": ("http://a.example/", "2008-04-30T20:48:26Z", "ARC/1"),
    b"http://a.example/ 20080430204826 192.0.2.1 text/html": ("http://a.example/", "2008-04-30T20:48:26Z", "ARC/1"),
    b"http://a.example/ 2001:db8::1 20080430204826 -": ("http://a.example/", "2008-04-30T20:48:26Z", "ARC/1"),
    b"http://a.example/ - - -": ("http://a.example/", None, "ARC/1"),
    b"http://a.example/ 192.0.2.1 20080430204826 text/html 200 XYZ - 2012053112 a.arc": (
        "http://a.example/",
        "2008-04-30T20:48:26Z",
        "ARC/2",
    ),
    b"dns:a.example 192.0.2.1 20080430204826 text/dns": ("dns:a.example", "2008-04-30T20:48:26Z", "ARC/1"),
}
FORMS: dict[str, Callable[[list[bytes]], bytes]] = {
    "plain": b"".join,
    "gzip": lambda records: b"".join(gzip.compress(each, mtime=0) for each in records),
    "one member": lambda records: gzip.compress(b"".join(records), mtime=0),
    "zstd": lambda records: b"".join(zstd.compress(each) for each in records),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("line", LINES)
def test_an_arc_line_as_crawls_wrote_it(line: bytes, form: str) -> None:
    stored = FORMS[form]([START, arc(), arc(line), arc(line), arc(b"http://b.example/ 192.0.2.1 20080430204826 a/b")])
    uri, date, version = LINES[line]
    check(stored)
    found = good(stored)
    assert [frame.target_uri for frame in found[1:]] == ["http://a.example/", uri, uri, "http://b.example/"]
    assert (found[2].headers.get("WARC-Date"), found[2].version, found[2].block) == (date, version, PAGE)


def test_warcio_reads_the_same_lines() -> None:
    """Only lines with five fields and without a carriage return are compared, because warcio supports no others."""
    lines = [line for line in LINES if line.count(b" ") == 3 and b"\r" not in line]
    stored = b"".join([START, *map(arc, lines)])
    expected = [
        (entry.rec_headers.get_header("uri"), entry.content_stream().read())
        for entry in ArchiveIterator(io.BytesIO(stored), no_record_parse=True)
    ]
    assert [(frame.target_uri, frame.block) for frame in good(stored)][1:] == expected[1:] and len(lines) > 8


@pytest.mark.parametrize(
    "about",
    [
        START,
        START.replace(b"20080430204825", b"20080430"),
        b"filedesc:// - - - %d\n%b\n" % (len(ABOUT), ABOUT),
        b"filedesc://a.arc 0.0.0.0 20080430204825 text/plain one\n%b\n" % ABOUT,
        b"filedesc://a.arc 0.0.0.0 20080430204825 text/plain %d\n%b\n" % (len(ABOUT) - 20, ABOUT),
        START.replace(b"1 0", b"2 0"),  # A header of version 2, followed by records of version 1.
    ],
)
@pytest.mark.parametrize("form", ["plain", "one member"])
def test_the_record_about_an_arc_may_be_wrong(about: bytes, form: str) -> None:
    stored = FORMS[form]([about, arc(), arc()])
    assert uris(stored) == ["http://a.example/"] * 2
    assert good(stored)[0].headers.get("WARC-Type") == "warcinfo" and set(reasons(stored)) == {None}


@pytest.mark.parametrize(
    "line", [b"see: pages", b"a 10", b"note: 12", b"http://a.example/ 10", b"<p>http://a.example 5 5"]
)
def test_text_is_no_arc_line(line: bytes) -> None:
    assert uris(START + arc() + line + b" 5\nhello\n" + arc()) == ["http://a.example/"] * 2


# --- lengths ---


@pytest.mark.parametrize("short", range(1, 40))
@pytest.mark.parametrize("http", [True, False])
def test_an_arc_block_that_is_short_does_not_eat_into_the_next_line(short: int, http: bool) -> None:
    block = PAGE if http else b"<html>" + b"x" * 90
    bad = b"http://b.example/ 192.0.2.1 20080430204826 text/html %d\n%b\n" % (len(block), block[: len(block) - short])
    found = uris(START + arc() + bad + arc(b"http://c.example/ 192.0.2.1 20080430204826 a/b") + arc())
    assert found in (
        ["http://a.example/", "http://c.example/", "http://a.example/"],
        ["http://a.example/", "http://b.example/", "http://c.example/", "http://a.example/"][: 4 if short == 1 else 0],
    )


def warc(block: bytes, uri: str = "http://a.example/", stated: int | None = None) -> bytes:
    """Return a WARC record. If `stated` is given, its header states this length instead of the length of the block."""
    made = record(block, uri)
    return made if stated is None else made.replace(b"Length: %d\r" % len(block), b"Length: %d\r" % stated, 1)


@pytest.mark.parametrize("form", ["plain", "one member"])
@pytest.mark.parametrize("block", [b"some text", PAGE.replace(b"Content-Length: 34\r\n", b""), b""])
@pytest.mark.parametrize("follows", [b"", record(b"the one after", "http://c.example/")])
def test_a_warc_length_that_spans_the_next_record_keeps_the_next(form: str, block: bytes, follows: bytes) -> None:
    after = record(b"its block", "http://b.example/")
    header = after.index(b"\r\n\r\n")
    for more in (
        4 + header,
        4 + header + 4,
        4 + len(after) - 4,
        4 + len(after) - 2,
        4 + len(after),
        4 + len(after) - 9,
    ):
        stored = FORMS[form]([warc(b"first"), warc(block, stated=len(block) + more), after, follows])
        assert uris(stored) == ["http://a.example/", "http://b.example/", *["http://c.example/"] * bool(follows)], more


@pytest.mark.parametrize("form", ["plain", "one member"])
def test_an_arc_length_that_spans_the_next_record_keeps_the_next(form: str) -> None:
    after = arc(b"http://b.example/ 192.0.2.1 20080430204826 text/html")
    for more in (1 + len(after) - 1, 1 + len(after), 40):
        bad = b"http://x.example/ 192.0.2.1 20080430204826 text/html %d\nsome text\n" % (9 + more)
        for follows in (b"", arc(b"http://c.example/ 192.0.2.1 20080430204826 a/b")):
            found = uris(FORMS[form]([START, arc(), bad, after, follows]))
            assert found == ["http://a.example/", "http://b.example/", *["http://c.example/"] * bool(follows)], more


def test_a_block_that_is_an_archive_stays_one_block() -> None:
    inner = warc(b"one", "http://i.example/") + warc(b"two", "http://i.example/")
    html = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(inner) - 4, inner[:-4])
    for block in (inner, b"text\r\n\r\n" + inner, html, b"see\r\n\r\n" + inner + b"end"):
        assert blocks(warc(block) + warc(b"after")) == [block, b"after"]
        assert blocks(gzip.compress(warc(block)) + gzip.compress(warc(b"after"))) == [block, b"after"]
    lines = arc(b"http://i.example/ 192.0.2.1 20080430204826 a/b", b"inner")
    for block in (
        lines * 2,
        b"text\n" + lines,
        b"HTTP/1.0 200 OK\nContent-Length: %d\n\n%b" % (len(lines) - 1, lines[:-1]),
    ):
        assert blocks(START + arc(block=block) + arc())[1:] == [block, PAGE]


def test_a_digest_proves_a_block_that_looks_like_two_records() -> None:
    block = b"text\r\n\r\n" + warc(b"inner")[:-4]
    digest = b"sha1:" + __import__("hashlib").sha1(block).hexdigest().encode()
    proved = warc(block).replace(b"\r\nContent-Length", b"\r\nWARC-Block-Digest: " + digest + b"\r\nContent-Length", 1)
    assert blocks(proved + warc(b"after")) == [block, b"after"]
    assert blocks(warc(block) + warc(b"after")) == [b"inner", b"after"]


@pytest.mark.parametrize("form", ["plain", "one member"])
@pytest.mark.parametrize("kind", ["warc", "arc"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_length_that_lies_costs_no_other_record_and_takes_nothing_of_it(
    kind: str, form: str, data: st.DataObject
) -> None:
    count = data.draw(st.integers(2, 5))
    texts = [b"text %d: " % n + b"a word\n" * data.draw(st.integers(0, 9)) for n in range(count)]
    heads = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) for text in texts]
    texts = [head + text if data.draw(st.booleans()) else text for head, text in zip(heads, texts, strict=True)]
    liar = data.draw(st.integers(0, count - 1))
    names = [f"http://{n}.example/" for n in range(count)]
    made = [
        arc(b"%b 192.0.2.1 20080430204826 a/b" % name.encode(), text) for name, text in zip(names, texts, strict=True)
    ]
    if kind == "warc":
        made = [record(text, name) for name, text in zip(names, texts, strict=True)]
    stated = data.draw(st.integers(0, sum(map(len, made[liar:])) + 9))
    field = b"Content-Length: " if kind == "warc" else b"a/b "
    length, place = len(texts[liar]), made[liar].index(field + b"%d" % len(texts[liar]))
    made[liar] = made[liar][:place] + made[liar][place:].replace(field + b"%d" % length, field + b"%d" % stated, 1)
    start = [START] if kind == "arc" else []
    kept = {frame.target_uri: frame.block for frame in good(FORMS[form]([*start, *made]))}
    assert {name: kept.get(name) for n, name in enumerate(names) if n != liar} == {
        name: text for n, (name, text) in enumerate(zip(names, texts, strict=True)) if n != liar
    }
    assert (texts[liar] + b"\r\n\r\n").startswith(kept.get(names[liar], b"").rstrip(b"\r\n"))


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r\r\n"])
def test_headers_with_any_line_ends(newline: bytes) -> None:
    lines = [b"WARC/1.0", b"WARC-Type: response", b"WARC-Target-URI: http://b.example/", b"Content-Length: 4", b"", b""]
    stored = record(b"a") + newline.join(lines) + b"text\r\n\r\n" + record(b"c")
    assert blocks(stored) == [b"a", b"text", b"c"] and uris(stored)[1] == "http://b.example/"
    response = parse_response(newline.join([b"HTTP/1.1 200 OK", b"Content-Type: text/html", b"", b"<p>"]), 100)
    assert (response.headers.get("Content-Type"), response.body) == ("text/html", b"<p>")


@pytest.mark.parametrize("status", [b"HTTP/1.1 0", b"HTTP/1.1 0 \r", b"HTTP/1.0 000 Unknown", b"HTTP/1.1 99 x"])
def test_a_status_that_no_server_sends_is_a_status(status: bytes) -> None:
    stored = record(status + b"\r\nContent-Type: text/html\r\n\r\n<p>text", "http://a.example/")
    (outcome,) = common_crawl.read(
        stored, "a", "web", Source(weight=1.0, kind="common_crawl", filters=parse_rules(["http_status"]))
    )
    assert outcome.reason is Reason.HTTP_STATUS


# --- forms ---


def test_the_form_is_told_by_record() -> None:
    parts = members(25)
    plain = [record(b"plain %d" % n, f"http://p.example/{n}") for n in range(3)]
    arcs = [START, arc()]
    expected = [f"http://a.example/{n}" for n in range(25)]
    assert uris(plain[0] + b"".join(parts)) == ["http://p.example/0", *expected]
    assert uris(b"".join(parts) + plain[0]) == [*expected, "http://p.example/0"]
    mixed = b"".join(
        [parts[0], plain[0], arcs[0], arcs[1], zstd.compress(plain[1]), parts[1], gzip.compress(arcs[1]), plain[2]]
    )
    assert uris(mixed) == [
        "http://a.example/0", "http://p.example/0", "http://a.example/", "http://p.example/1", "http://a.example/1",
        "http://a.example/", "http://p.example/2",
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["plain", "gzip", "zstd", "arc", "junk", "cut"])), max_size=9)
)
def test_any_mixture_gives_its_whole_records_and_the_same_in_pieces(parts: list[tuple[int, str]]) -> None:
    stored, expected = b"", []
    for number, form in parts:
        chance = random.Random(number)
        if form == "junk":
            stored += b"\0junk" + chance.randbytes(20) + b"\n"
            continue
        text = " ".join(chance.choices(("alpha", "beta", "gamma", "delta"), k=60)).encode()
        made = record(text, f"http://{form}.example/{number}")
        if form == "arc":
            made = arc(b"http://arc.example/%d 192.0.2.1 20080430204826 a/b" % number)
        made = (
            gzip.compress(made, mtime=0) if form in ("gzip", "cut") else zstd.compress(made) if form == "zstd" else made
        )
        stored += made[: len(made) // 2] + b"\n" if form == "cut" else made
        expected += [f"http://{form}.example/{number}"] * (form != "cut")
    found = uris(stored)
    assert found == expected
    whole = list(read_frames(stored, LIMITS))
    for size in (1, 500):
        cuts = find_boundaries(stored, LIMITS, size) if stored else []
        assert [f for cut in cuts for f in read_frames(stored, LIMITS, cut.start, cut.end, cut.wasted)] == whole


def test_empty_members_are_no_records() -> None:
    empty, parts = gzip.compress(b"", mtime=0), members(3)
    bgzf = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
    stored = b"".join([parts[0], empty, bgzf, parts[1], parts[2], empty])
    frames = list(read_frames(stored, LIMITS))
    assert [frame.problem for frame in frames] == [None] * 3 and sum(frame.stored for frame in frames) == len(stored)
    check(stored)
    for size in (1, 300, len(parts[0]) + 1):
        cuts = find_boundaries(stored, LIMITS, size)
        assert [f for cut in cuts for f in read_frames(stored, LIMITS, cut.start, cut.end, cut.wasted)] == frames
    assert reasons(empty + parts[0] + empty) == [Reason.ARCHIVE_METADATA, None]
    assert reasons(empty * 3) == [Reason.ARCHIVE_METADATA]


@pytest.mark.parametrize("garbage", [b"garbage", b"\0\0\xff", b"<p>some text ", b"\x1f\x8b\x08\0broken"])
def test_a_record_right_behind_garbage_is_found(garbage: bytes) -> None:
    assert uris(record(b"a") + garbage + record(b"b", "http://b.example/") + record(b"c")) == [
        "http://a.example/",
        "http://b.example/",
        "http://a.example/",
    ]
    assert uris(START + arc() + garbage + arc()) == ["http://a.example/"] * 2
    assert uris(members(1)[0] + garbage + record(b"b")) == ["http://a.example/0", "http://a.example/"]


def test_what_cut_members_cost_is_what_was_read_of_them() -> None:
    made = [
        gzip.compress(record(random.Random(n).randbytes(225), f"http://a.example/{n}"), mtime=0) for n in range(1_500)
    ]
    assert 330 < len(made[0]) < 370
    stored = b"".join(member if n % 2 else member[: 30 + n % 290] for n, member in enumerate(made))
    assert uris(stored) == [f"http://a.example/{n}" for n in range(1, 1_500, 2)]


# --- zstd ---


def dictionary() -> zstd.ZstdDict:
    return zstd.train_dict(
        [record(b"the text of page %d " % n * 9, f"http://a.example/{n}") for n in range(300)], 4_000
    )


def framed_dictionary(content: bytes) -> bytes:
    return b"\x5d\x2a\x4d\x18" + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_with_a_dictionary(packed: bool) -> None:
    shared = dictionary()
    content = shared.dict_content
    records = [record(b"the text of page %d " % n * 9, f"http://a.example/{n}") for n in range(9)]
    frames = [zstd.compress(each, zstd_dict=shared) for each in records]
    start = framed_dictionary(zstd.compress(content) if packed else content)
    stored = start + b"".join(frames)
    assert uris(stored) == [f"http://a.example/{n}" for n in range(9)]
    assert reasons(stored)[0] is Reason.ARCHIVE_METADATA
    whole = list(read_frames(stored, LIMITS))
    cuts = find_boundaries(stored, LIMITS, 100)
    assert len(cuts) > 2
    assert [f for cut in cuts for f in read_frames(stored, LIMITS, cut.start, cut.end, cut.wasted)] == whole
    broken = bytearray(stored)
    broken[len(start) + len(frames[0]) + 30] ^= 0xFF
    assert uris(bytes(broken)) == [f"http://a.example/{n}" for n in range(9) if n != 1]


def test_a_record_in_many_frames_with_skippable_frames_between() -> None:
    made = record(random.Random(0).randbytes(9_000), "http://b.example/")
    parts = [zstd.compress(made[n : n + 2_000]) for n in range(0, len(made), 2_000)]
    skipped = b"\x50\x2a\x4d\x18" + struct.pack("<I", 5) + b"about"
    first, last = zstd.compress(record(b"a")), zstd.compress(record(b"c"))
    stored = b"".join([first, skipped, parts[0], skipped, *parts[1:], last, skipped])
    assert uris(stored) == ["http://a.example/", "http://b.example/", "http://a.example/"]
    assert set(reasons(stored)) == {None}


def test_damaged_frames_cost_themselves() -> None:
    frames = [zstd.compress(record(random.Random(n).randbytes(500), f"http://a.example/{n}")) for n in range(6)]
    broken = bytearray(frames[2])
    broken[-1] ^= 1  # The last byte belongs to literals. This frame has no checksum.
    checked = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
    sealed = bytearray(checked.compress(record(b"x" * 99)) + checked.flush())
    sealed[-1] ^= 1
    stored = b"".join([frames[0], bytes(sealed), frames[1], frames[2][:-7], frames[3], b"\x28\xb5\x2f\xfd", frames[4]])
    assert uris(stored) == [f"http://a.example/{n}" for n in (0, 1, 3, 4)]
    assert Reason.CORRUPT_RECORD in reasons(stored) and Reason.CORRUPT_GZIP not in reasons(stored)
    assert reasons(b"".join(frames)[:-4])[-1] is Reason.TRUNCATED_RECORD
    bomb = zstd.compress(record(bytes(32 << 20)))
    assert reasons(bomb + frames[0], Limits(1 << 20)) == [Reason.TOO_LARGE, None]


def test_bodies_in_zstd() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\n\r\n"
    assert parse_response(head + zstd.compress(b"<p>text") + zstd.compress(b"</p>"), 100).body == b"<p>text</p>"
    assert parse_response(head + b"<p>stored decoded", 100).body == b"<p>stored decoded"


# --- other files ---


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "a PNG image"),
        (b"\xff\xd8\xff\xe0" + bytes(400), "a JPEG image"),
        (b"<!DOCTYPE html>\n<title>404</title>\n<p>Not found", "a page in HTML or XML"),
        (b"\n\n<html><body>" + b"x" * 9_000, "a page in HTML or XML"),
        (b"%PDF-1.4\n" + bytes(99), "a PDF file"),
        (b"PK\x03\x04" + bytes(99), "a ZIP archive"),
        (b'{"error": "no such file"}', "a file in JSON"),
        (b"nothing of the kind\n" * 9, "a file of another kind"),
    ],
)
def test_a_file_of_another_kind_is_named(stored: bytes, kind: str) -> None:
    (frame,) = read_frames(stored, LIMITS)
    assert (frame.problem, frame.stored) == (Reason.UNSUPPORTED_FORMAT, len(stored)) and kind in frame.detail
    assert uris(stored + b"\n" + record(b"a")) == ["http://a.example/"]
