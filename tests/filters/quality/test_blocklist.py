"""Blocklists: the rules by hand, hostile lists and URLs, and a naive reference on random ones."""

import gzip
import random
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.errors import UserError
from filters.quality.blocklist import MAX_LINE_BYTES, MAX_SEGMENTS, Blocklist, load, parse_line, split_url


def listed(folder: Path, *lines: str) -> Blocklist:
    path = folder / "list.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return load((str(path),))


@pytest.mark.parametrize(
    ("pattern", "blocked", "passed"),
    [
        (
            "example.com",
            ["http://example.com", "https://www.example.com/a?b#c", "HTTP://WWW.EXAMPLE.COM.:8080/", "//example.com/",
             "http://user:pass@example.com/", "http://a@b@example.com/", "http://%65xample.com/", "example.com/x",
             "http:\\\\example.com\\x", " \thttp://exam\nple.com/ ", "http://.example.com/", "http://a..example.com/",
             "http://ｅｘａｍｐｌｅ。com/", "ftp://a.b.c.d.example.com/", "http://example.com?q", "http://example.com#f",
             "http://\u2603\ud800.example.com/", "http://" + "a." * 1000 + "example.com/"],
            ["http://notexample.com/", "http://example.com.evil.org/", "http://evil.org/example.com",
             "http://evil.org/?u=http://example.com/", "http://evil.org#@example.com", "http://example.com@evil.org/",
             "http://com/", "http://example.org/", "http://example.com:port/", "http://exam ple.com/"],
        ),
        ("*.example.com", ["http://example.com/", "http://a.example.com/"], ["http://bexample.com/"]),
        (".example.com", ["http://example.com/", "http://a.example.com/"], ["http://bexample.com/"]),
        ("http://Example.COM.:80/", ["https://example.com/a", "http://b.example.com/"], ["http://b.com/"]),
        ("xxx", ["http://a.xxx/", "http://xxx/"], ["http://xxx.com/"]),
        ("bücher.example", ["http://xn--bcher-kva.example/", "http://BÜCHER.example/", "http://b%C3%BCcher.example/"],
         ["http://bucher.example/"]),
        ("XN--BCHER-KVA.example", ["http://www.bücher.example/"], ["http://cher.example/"]),
        ("1.2.3.4", ["http://1.2.3.4:80/x"], ["http://0.1.2.3.4/", "http://1.2.3.45/", "http://2.3.4/"]),
        ("3.4", ["http://3.4/"], ["http://1.2.3.4/"]),
        ("[2001:DB8::1]:80", ["http://[2001:db8::1]/x", "http://[2001:db8::1]:8080/"], ["http://[2001:db8::2]/"]),
        (
            "example.com/forum/",
            ["http://example.com/forum", "http://example.com/forum/", "https://example.com:1/forum/a/b?c#d",
             "http://example.com/forum?x", "http://example.com//forum/./a", "http://example.com/a/../forum/",
             "http://example.com/for%75m/", "http://example.com\\forum", "http://example.com/%2e%2e/forum"],
            ["http://example.com/", "http://example.com/forums/", "http://example.com/Forum/",
             "http://m.example.com/forum/", "http://example.com/forum/../other", "http://example.com/a/forum/",
             "http://example.com/forum%2Fa", "http://example.com/?forum", "http://example.org/forum"],
        ),
        ("example.com/a/b", ["http://example.com/a/b/c"], ["http://example.com/a/", "http://example.com/a/bc"]),
        ("example.com/ü%20x", ["http://example.com/%C3%BC x/y", "http://example.com/%c3%bc%20x"],
         ["http://example.com/u x"]),
        ("example.com/p?id=1", ["http://example.com/p?id=1#top", "http://example.com/p/?id=1"],
         ["http://example.com/p", "http://example.com/p?id=12", "http://example.com/p/q?id=1"]),
        ("example.com?id=1", ["http://example.com/?id=1", "http://example.com?id=1"], ["http://example.com/"]),
    ],
)  # fmt: skip
def test_what_a_pattern_blocks(tmp_path: Path, pattern: str, blocked: list[str], passed: list[str]) -> None:
    blocklist = listed(tmp_path, pattern)
    assert (len(blocklist), blocklist.malformed) == (1, 0)
    assert [url for url in blocked if not blocklist.blocks(url)] == []
    assert [url for url in passed if blocklist.blocks(url)] == []


@pytest.mark.parametrize(
    ("line", "patterns"),
    [
        ("", []),
        ("   ", []),
        ("# a comment", []),
        ("\t#a", []),
        ("example.com # why", ["example.com"]),
        ("0.0.0.0 example.com", ["example.com"]),
        ("127.0.0.1\tA.example B.example # two", ["a.example", "b.example"]),
        ("::1 localhost", ["localhost"]),
        ("fe80::1%lo0 localhost", ["localhost"]),
        ("0.0.0.0 example.com/path", None),
        ("0.0.0.0 a.example b^", None),
        ("example.com example.org", None),
        ("0.0.0.0 # nothing", ["0.0.0.0"]),
        ("||example.com^", None),
        ("! Title: a list", None),
        ("ads*.example.com", None),
        ("*.example.com/path", None),
        ("example.com/#!/page", None),
        ("<html>", None),
        ("/path", None),
        ("http://", None),
        ("http://:80/", None),
        ("*", None),
        ("..", None),
        ("a..b", None),
        ("a" * 64 + ".com", None),
        ("a." * 126 + "b", ["a." * 126 + "b"]),
        ("a." * 127 + "b", None),
        ("[::1", None),
        ("example.com:x", None),
        ("a.example" + "/b" * MAX_SEGMENTS, ["a.example" + "/b" * MAX_SEGMENTS]),
        ("a.example" + "/b" * (MAX_SEGMENTS + 1), None),
        ("\ud800.example", None),
    ],
)
def test_lines(line: str, patterns: list[str] | None) -> None:
    assert parse_line(line) == patterns


def test_lists_are_plain_or_gzipped_and_their_bad_lines_counted(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a", tmp_path / "b"
    plain.write_bytes(
        b"\xef\xbb\xbf#c\na.example\r\n#c\r\n\r\nb\xe9.example\n||x^\n" + b"y" * 3 * MAX_LINE_BYTES + b"\nlast.example"
    )
    packed.write_bytes(gzip.compress(b"c.example\n") + gzip.compress(b"d.example\na.example\n"))
    blocklist = load((str(plain), str(packed)))
    assert (len(blocklist), blocklist.malformed) == (4, 3)
    assert all(blocklist.blocks(f"http://{name}.example/") for name in ("a", "c", "d", "last"))
    assert not blocklist.blocks("http://b.example/")


def test_an_empty_list_blocks_nothing(tmp_path: Path) -> None:
    assert not load(()).blocks("http://example.com/a")
    assert not listed(tmp_path, "# nothing yet").blocks("http://example.com/a")


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (None, "cannot be read"),
        (b"a.example\n\0\1\2", "is a binary file"),
        ("a.example\n".encode("utf-16"), "is a binary file"),
        (gzip.compress(b"a.example\n" * 100, mtime=0)[:-9], "cannot be read"),
        (b"\x1f\x8bgarbage", "cannot be read"),
        (b"<html>\n<p>Not found</p>\n", "contains no domain and no URL"),
    ],
)
def test_a_list_that_is_none_is_a_users_mistake(tmp_path: Path, stored: bytes | None, words: str) -> None:
    path = tmp_path / "list"
    if stored is not None:
        path.write_bytes(stored)
    good = tmp_path / "good"
    good.write_text("a.example", encoding="utf-8")
    with pytest.raises(UserError, match=words):
        load((str(good), str(path)))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://www.Example.com:80/x", "www.example.com"),
        ("example.com", "example.com"),
        ("http://example.com../", "example.com"),
        ("http://[::1]:80/", "[::1]"),
        ("http://[::1]x/", ""),
        ("http://[::1/", ""),
        ("http://[/]/", ""),
        ("http://℀.com/", ""),
        ("http://a%2Fb.com/", ""),
        ("http://a_b.example/", "a_b.example"),
        ("http://" + "ü" * 64 + ".Example/", "ü" * 64 + ".example"),
        ("dns:example.com", ""),
        ("urn:uuid:1", ""),
        ("http://", ""),
        ("", ""),
        ("#", ""),
        ("?/@", ""),
        ("http:///example.com/", "example.com"),
        ("http://" + "a" * 5000 + ".com/", ""),
        ("http://example.com:٣/", ""),
    ],
)
def test_hosts(url: str, host: str) -> None:
    assert split_url(url)[0] == host


LABELS = st.sampled_from(["a", "b", "com", "www", "ü", "xn--tda", "1"])
SEGMENTS = st.sampled_from(["p", "q", "ä", "%C3%A4", "x y"])
HOSTS = st.lists(LABELS, min_size=1, max_size=4).filter(lambda labels: labels[-1] != "1")
PATHS = st.lists(SEGMENTS, max_size=3)
QUERIES = st.sampled_from(["", "", "i=1", "i=2"])


def plain(labels: list[str]) -> list[str]:
    return [{"ü": "xn--tda"}.get(label, label) for label in labels]


def same(segments: list[str]) -> list[str]:
    return [{"ä": "%C3%A4"}.get(segment, segment) for segment in segments]


def naive(patterns: list[tuple[list[str], list[str], str]], labels: list[str], path: list[str], query: str) -> bool:
    """The rules in one line each, over every pattern."""
    labels, path = plain(labels), same(path)
    for host, prefix, asked in patterns:
        host, prefix = plain(host), same(prefix)
        if asked:
            blocked = without_www(host) == without_www(labels) and prefix == path and asked == query
        elif prefix:
            blocked = without_www(host) == without_www(labels) and path[: len(prefix)] == prefix
        else:
            blocked = labels[-len(host) :] == host
        if blocked:
            return True
    return False


def without_www(labels: list[str]) -> list[str]:
    return labels[1:] if labels[0] == "www" and len(labels) > 1 else labels


def written(labels: list[str], path: list[str], query: str) -> str:
    return ".".join(labels) + "".join(f"/{part}" for part in path).replace(" ", "%20") + (f"?{query}" if query else "")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(HOSTS, PATHS, QUERIES), max_size=12), st.lists(st.tuples(HOSTS, PATHS, QUERIES), max_size=12))
def test_blocks_as_a_naive_reference_does(
    tmp_path_factory: pytest.TempPathFactory,
    patterns: list[tuple[list[str], list[str], str]],
    urls: list[tuple[list[str], list[str], str]],
) -> None:
    folder = tmp_path_factory.getbasetemp()
    blocklist = listed(folder, *(written(*pattern) for pattern in patterns))
    assert blocklist.malformed == 0
    for url in [*urls, *patterns]:
        assert blocklist.blocks(f"http://{written(*url)}") == naive(patterns, *url), url


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Blocklist:
    return listed(tmp_path_factory.mktemp("some"), "a.com", "b.com/p/q", "b.com?q")


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(), max_size=40) | st.text("a.b/com:?#@[]%\\\ud800ü\u2488 \t", max_size=40))
@example("http://[")
@example("http://xn--\u0378.com")
def test_no_url_and_no_line_raises(some: Blocklist, text: str) -> None:
    for url in (text, f"http://{text}", f"http://{text}.a.com/", f"http://b.com/{text}"):
        assert isinstance(some.blocks(url), bool)
        host = split_url(url)[0]
        assert split_url(f"http://{host}/")[0] == host
    assert parse_line(text) is None or all(split_url(pattern)[0] for pattern in parse_line(text) or [])


@pytest.mark.parametrize(
    "piece", ["a.", "ü.", "/", "/p", "../", "%", "@", ":", "ü", "%C3%BC", "%2e%2e/", "?", "#", "\\", "\u2488", "\n"]
)
@pytest.mark.parametrize("before", ["", "http://", "http://b.com/", "http://b.com/p?"])
def test_time_is_linear_in_a_hostile_url(some: Blocklist, before: str, piece: str) -> None:
    assert_linear(some.blocks, repeated(piece, before), 200_000 * len(piece))


def test_every_pattern_of_a_larger_list_is_found(tmp_path: Path) -> None:
    rng = random.Random(0)
    names = [f"{rng.getrandbits(60):x}.example" for _ in range(20_000)]
    blocklist = listed(tmp_path, *names)
    assert len(blocklist) == 20_000
    assert all(blocklist.blocks(f"http://www.{name}/") for name in names)
    assert not any(blocklist.blocks(f"http://x{name}/") for name in names)


def test_a_host_that_punycode_would_take_seconds_for_is_left_as_it_is() -> None:
    label = "".join(map(chr, random.Random(0).choices(range(0x4E00, 0x9000), k=4_000)))
    assert split_url(f"http://{label}.com/")[0] == f"{label}.com"
    assert_linear(split_url, lambda size: f"http://{label[:size]}.com/", len(label))
