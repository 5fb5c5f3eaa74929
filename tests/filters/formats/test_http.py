"""Tests of filters.formats.http: codings, wrong headers, and decompression bombs."""

import gzip
import subprocess
import sys
import tracemalloc
import zlib
from functools import partial

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear import assert_linear

from filters.formats.http import HttpError, is_html, parse_response
from filters.formats.records import Headers
from filters.formats.stream import zstd
from filters.reasons import Reason

PAGE = b"<html><body>" + b"words of a page " * 50 + b"</body></html>"
CAP = 1 << 20


def response(body: bytes, *fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *fields, "", ""]).encode() + body


def chunked(body: bytes, size: int = 100) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x;e=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nX-Trailer: 1\r\n\r\n"


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def reason(block: bytes) -> Reason:
    with pytest.raises(HttpError) as caught:
        parse_response(block, CAP)
    return caught.value.reason


CODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": partial(brotli.compress, quality=5),
}


@pytest.mark.parametrize("name", CODERS)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_codings_are_undone_alone_and_stacked(name: str, in_chunks: bool) -> None:
    for fields, body in (
        ([f"Content-Encoding: {name.upper()}"], CODERS[name](PAGE)),
        ([f"Content-Encoding: gzip, {name}"], CODERS[name](gzip.compress(PAGE))),
        (["Content-Encoding: br", f"content-encoding: {name}"], CODERS[name](brotli.compress(PAGE))),
    ):
        if in_chunks:
            fields, body = [*fields, "Transfer-Encoding: chunked"], chunked(body)
        assert parse_response(response(body, *fields), CAP).body == PAGE


def test_bare_deflate_and_two_gzip_members() -> None:
    assert parse_response(response(raw_deflate(PAGE), "Content-Encoding: deflate"), CAP).body == PAGE
    twice = gzip.compress(PAGE) * 2 + b"junk"
    assert parse_response(response(twice, "Content-Encoding: gzip"), CAP).body == PAGE * 2


def test_a_zstd_frame_without_content_may_come_first() -> None:
    """Decoders skip skippable frames at any position (RFC 8878, section 3.1.2)."""
    skipped = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"any"
    body = skipped + zstd.compress(b"one") + skipped + zstd.compress(b"two")
    assert parse_response(response(body, "Content-Encoding: zstd"), 100).body == b"onetwo"


@pytest.mark.parametrize("name", [*CODERS, "zstd", "utf-8"])
def test_a_body_stored_decoded_is_taken_as_it_is(name: str) -> None:
    block = response(PAGE, f"Content-Encoding: {name}", "Transfer-Encoding: chunked")
    assert parse_response(block, CAP).body == PAGE


def test_chunks() -> None:
    def body(raw: bytes) -> bytes:
        return parse_response(response(raw, "Transfer-Encoding: chunked"), CAP).body

    assert body(chunked(PAGE)) == PAGE
    assert body(chunked(PAGE)[:-300]) == PAGE[: len(body(chunked(PAGE)[:-300]))]
    assert body(b"5\nhello\n0\n\n") == b"hello"
    assert body(b"3\r\nit is not a chunk") == b"3\r\nit is not a chunk"


@pytest.mark.parametrize("name", CODERS)
def test_broken_half_way_and_bombs(name: str) -> None:
    whole = CODERS[name](PAGE * 3)
    assert reason(response(whole[: len(whole) // 2], f"Content-Encoding: {name}")) is Reason.CORRUPT_BODY
    assert reason(response(CODERS[name](bytes(30 << 20)), f"Content-Encoding: {name}")) is Reason.TOO_LARGE


def test_refusals() -> None:
    assert reason(b"") is Reason.CORRUPT_HTTP
    assert reason(b"<html>") is Reason.CORRUPT_HTTP
    assert reason(response(b"\x1f\x9d\x90\0\1", "Content-Encoding: compress")) is Reason.UNSUPPORTED_FORMAT
    assert reason(response(b"\x28\xb5\x2f\xfd\0\1", "Content-Encoding: zstd")) is Reason.CORRUPT_BODY
    assert reason(response(bytes(CAP + 1))) is Reason.TOO_LARGE
    reason(response(PAGE, "Content-Encoding: " + "gzip," * 20))


def test_interim_responses_come_before_the_one_that_counts() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    found = parse_response(interim + response(b"x", "A: 1", status="HTTP/1.1 404 Not Found"), CAP)
    assert (found.status, found.headers.get("A"), found.headers.get("Link"), found.body) == (404, "1", None, b"x")
    assert parse_response(interim, CAP).status == 103
    assert parse_response(interim * 100_000, 1 << 30).status == 103


GZIPPED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_many_gzip_members_or_chunks_take_linear_time_and_little_memory() -> None:
    member = gzip.compress(b"x", mtime=0)
    assert parse_response(GZIPPED + member * 20_000, 1 << 20).body == b"x" * 20_000
    assert_linear(lambda block: parse_response(block, 1 << 20), lambda size: GZIPPED + member * size, 20_000)
    assert_linear(lambda block: parse_response(block, 1 << 22), lambda size: CHUNKED + b"2\r\nxx\r\n" * size, 100_000)
    block = CHUNKED + b"2\r\nxx\r\n" * 50_000
    tracemalloc.start()
    body = parse_response(block, 1 << 22).body
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert body == b"x" * 100_000 and peak < 4 * len(block)


def test_a_header_is_read_field_by_field() -> None:
    headers = Headers(
        b"HTTP/1.1 200 OK\r\nA : one\r\na:two\r\n  three\r\n\t\r\nno colon\r\nAb: x\r\nB: \xe9\r\nC: \xc3\xa9"
    )
    assert (headers.get("a"), headers.all("A")) == ("one", ["one", "two three"])
    assert (headers.get("B"), headers.get("C"), headers.get("AB"), headers.get("no colon")) == (
        "\xe9",
        "\xe9",
        "x",
        None,
    )
    assert headers.get("D") is None and headers.all("D") == []


@pytest.mark.parametrize("status", ["HTTP/1.0 404 Not Found", "HTTP/1.1 404", "HTTP/2 404", "HTTP/1.1  404 "])
def test_heads(status: str) -> None:
    found = parse_response(response(b"x", "A: 1", "Folded: one", " two", "no colon", status=status), CAP)
    assert (found.status, found.body, found.headers.get("FOLDED")) == (404, b"x", "one two")
    bare = parse_response(response(b"x", "A: 1", status=status).replace(b"\r\n", b"\n"), CAP)
    assert (bare.status, bare.body, bare.headers.get("a")) == (404, b"x", "1")
    assert parse_response(f"{status}\r\nA: 1\r\n".encode(), CAP).body == b""


def test_mixed_newlines_end_the_head_at_its_first_blank_line() -> None:
    assert parse_response(b"HTTP/1.1 200 OK\nA: 1\n\r\nbody\r\n\r\nmore", CAP).body == b"body\r\n\r\nmore"


@pytest.mark.parametrize(
    "body",
    [PAGE, b"\xef\xbb\xbf \n<!DOCTYPE html>", b"<!-- a --><!-- b > -->\n<HTML lang=en>", b"<head >", b"<title>x"],
)
def test_html_by_its_beginning(body: bytes) -> None:
    assert is_html(parse_response(response(body), CAP))
    assert not is_html(parse_response(response(body, "Content-Type: image/png"), CAP))
    assert is_html(parse_response(response(b"x", "Content-Type: Text/HTML ;charset=x"), CAP))
    assert not is_html(parse_response(response(b"%PDF-1.4"), CAP))


def test_a_row_of_comments_takes_linear_time() -> None:
    code = (
        "from filters.formats.http import is_html, parse_response\n"
        "assert not is_html(parse_response(b'HTTP/1.1 200 OK\\r\\n\\r\\n' + b'<!---->' * 1000 + b'x', 10**6))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "br", "gzip, br", "zstd"]), st.booleans())
def test_no_bytes_raise_anything_else(body: bytes, coding: str, in_chunks: bool) -> None:
    fields = [f"Content-Encoding: {coding}"] + ["Transfer-Encoding: chunked"] * in_chunks
    for block in (body, response(body, *fields), response(CODERS["gzip"](PAGE)[:20] + body, *fields)):
        try:
            assert isinstance(parse_response(block, CAP).body, bytes)
        except HttpError as error:
            assert error.reason in set(Reason)
