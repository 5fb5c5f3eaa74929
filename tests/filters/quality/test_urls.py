"""URLs in one form, by hand from the rules, and the properties that a join needs."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from linear import assert_linear, repeated

from filters.quality.urls import MAX_CHARACTERS, domain, normalise, url_hash

FORMS = {
    "http://www.Example.COM/": "//example.com",
    "https://example.com": "//example.com",
    "HTTPS://user:secret@example.com:443/a": "//example.com/a",
    "http://example.com:80/a/": "//example.com/a",
    "http://example.com:8080/a": "//example.com:8080/a",
    "//example.com./a": "//example.com/a",
    "http://www.com/a": "//www.com/a",
    "http://www.www.example.com/a": "//example.com/a",
    "http://example.com/index.html": "//example.com/index.html",
    "http://example.com/a#b?c": "//example.com/a",
    "http://example.com/a/./b/../c": "//example.com/a/c",
    "http://example.com/../a": "//example.com/a",
    "http://example.com\\a\\b": "//example.com/a/b",
    "http://example.com/%7Euser/%c3%a4/%2f": "//example.com/~user/%C3%A4/%2F",
    "http://example.com/~user/ä/%2F": "//example.com/~user/%C3%A4/%2F",
    "http://example.com/Foo_%28bar%29": "//example.com/Foo_(bar)",
    "http://example.com/100%": "//example.com/100%25",
    "http://example.com/%%34%31": "//example.com/%2541",
    "http://example.com/?a[]=1&b%5b%5D": "//example.com?a%5B%5D=1&b%5B%5D",
    "http://example.com/a b": "//example.com/a%20b",
    " http://example.com/a\n": "//example.com/a",
    "http://example.com/?b=2&a=1&": "//example.com?b=2&a=1",
    "http://example.com/a?utm_source=x&id=7&fbclid=y&REF=z": "//example.com/a?id=7",
    "http://example.com/a?gclid=x": "//example.com/a",
    "http://example.com/a?": "//example.com/a",
    "http://example.com/a?reference=1": "//example.com/a?reference=1",
    "http://bücher.example/": "//xn--bcher-kva.example",
    "http://B%C3%9CCHER.example/": "//xn--bcher-kva.example",
    "http://XN--BCHER-KVA.example/": "//xn--bcher-kva.example",
    "http://例え。テスト/": "//xn--r8jz45g.xn--zckzah",
    "http://[2001:DB8::1]:80/a": "//[2001:db8::1]/a",
    "http://[2001:DB8::1]:81/a": "//[2001:db8::1]:81/a",
    "http://192.0.2.7/a": "//192.0.2.7/a",
    "https://web.archive.org/web/20150107/http://www.example.com/a?b=1": "//example.com/a?b=1",
    "https://web.archive.org/web/20121107221404/http:/example.com/a": "//example.com/a",
    "https://web.archive.org/web/20121107221404id_/example.com/a": "//example.com/a",
    "https://web.archive.org/web/*/http://example.com/a": "//example.com/a",
    "http://archive.org/web/2012/https://example.com:443/a": "//example.com/a",
    "http://web.archive.org/20121107221404/http://example.com/a": "//example.com/a",
    "http://web.archive.org/web/2012/http%3A//example.com/a": "//example.com/a",
    "https://archive.today/20130101000000/http://example.com/a": "//example.com/a",
    "https://archive.ph/o/abcde/https://example.com/a": "//example.com/a",
    "https://archive.is/abcde": "//archive.is/abcde",
    "https://archive.org/details/book": "//archive.org/details/book",
    "https://web.archive.org/web/2012/http://archive.is/2013/http://example.com": "//example.com",
}


@pytest.mark.parametrize("url", FORMS)
def test_forms(url: str) -> None:
    assert normalise(url) == FORMS[url]


NONE = ["", "example.com/a", "ftp://example.com/", "mailto:a@example.com", "http://", "http:///a", "javascript:x"]
NONE += ["http://a..b/", "http://exa mple.com/", "http://example.com:port/", "http://example.com:65536/"]
NONE += ["http://example.com:" + "9" * 5000, "http://" + "a" * 64 + ".com/", "http://\ud800.com/", "http://a／b.com/"]
NONE += ["http://example.com/" + "a" * MAX_CHARACTERS, "http://[::1/", "http://%00.com/", "http://@/", "https:/a.com"]


@pytest.mark.parametrize("url", NONE)
def test_what_is_no_url(url: str) -> None:
    assert (normalise(url), url_hash(url), domain(url)) == ("", 0, "")


def test_a_lone_surrogate_in_a_path_is_some_character() -> None:
    assert normalise("http://example.com/\ud800") == "//example.com/%3F"


SITES = {
    "http://www.bbc.co.uk/news": "bbc.co.uk",
    "http://news.example.com/": "example.com",
    "http://bar.de": "bar.de",
    "http://foo.bar.de/": "bar.de",
    "http://a.b.c.com.au:8080?x": "c.com.au",
    "http://co.uk/": "co.uk",
    "http://localhost/": "localhost",
    "http://192.0.2.7:81/": "192.0.2.7",
    "http://[::1]:81/": "[::1]",
    "http://web.archive.org/web/2012/http://news.example.com/a": "example.com",
}


@pytest.mark.parametrize("url", SITES)
def test_sites(url: str) -> None:
    assert domain(url) == SITES[url]


def test_the_hash_is_of_the_form() -> None:
    assert url_hash("http://www.example.com/a/") == url_hash("https://example.com/a#b") == 8474151773707942789
    assert 0 < url_hash("http://example.com/b") < 1 << 64


PIECES = st.sampled_from(
    re.findall(
        r"\S+",
        "http:// https:/ // / www. a.com é % 41 %2e .. . ? & = # @ : 80 utm_a ref web.archive.org /web/2012/ archive.is"
        " /o/ab/ \\ [ ] xn-- ß \u3000",
    )
)
URLS = st.one_of(st.text(), st.lists(PIECES, max_size=12).map("".join), st.text().map("http://a.com/".__add__))


@given(URLS)
@example("http://web.archive.org/web/2012/web.archive.org/web/2013/a.com/?utm_a=1&utm_b")
@example("http://web.archive.org/web/2012/a.com/../b.com")
@example("//www.xn--ß.com/%2e%2e/%2E/")
@settings(max_examples=800, deadline=None)
def test_normalising_twice_is_normalising_once(url: str) -> None:
    once = normalise(url)
    assert normalise(once) == once
    assert not once or (once.startswith("//") and once.isascii() and not once.partition("?")[0].endswith("/"))


@given(URLS)
@settings(max_examples=500, deadline=None)
def test_a_site_belongs_to_every_url(url: str) -> None:
    assert bool(domain(url)) == bool(normalise(url)) and domain(url) in normalise(url)


def test_hostile_urls_take_linear_time() -> None:
    wrapped = "http://" + "web.archive.org/web/2012/" * 320 + "a.com"
    assert normalise(wrapped) == "//a.com"
    assert_linear(normalise, lambda size: "http://" + "web.archive.org/web/2012/" * size + "a.com", 320)
    for piece in ("%", "/..", "/.", "%2e%2e/", "é", "&a", "?", "a"):
        assert normalise("http://a.com/" + piece * 1_000)
        assert_linear(normalise, repeated(piece, "http://a.com/"), 8_000)
        assert_linear(normalise, repeated(piece, "http://a.com/"), 1_000_000)
    for piece in (".", "é"):
        assert_linear(normalise, repeated(piece, "http://"), 8_000)
