"""robots.txt: the examples of RFC 9309, rules of its sections, and a plain matcher as oracle."""

import re
import time
import urllib.robotparser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.download.robots import MAX_BYTES, Robots, parse_robots

SITE = "http://a.example"


def allows(lines: str, path: str, product: str = "teratoken") -> bool:
    return parse_robots(lines.encode(), product).allows(SITE + path)


def test_the_example_of_the_standard() -> None:
    """RFC 9309, section 5.1."""
    lines = """User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""
    for product, path, expected in (
        ("teratoken", "/", True), ("teratoken", "/x.gif", False), ("teratoken", "/x.gif?y", True),
        ("teratoken", "/example/page.html", False), ("teratoken", "/publications/a", True),
        ("foobot", "/", False), ("foobot", "/example/page.html", True), ("foobot", "/example/allowed.gif", True),
        ("FooBot", "/example/other.html", False), ("barbot", "/example/page.html", False), ("barbot", "/x.gif", True),
        ("bazbot", "/example/page.html", False), ("quxbot", "/example/x.gif", True),
    ):  # fmt: skip
        assert allows(lines, path, product) is expected, (product, path)


@pytest.mark.parametrize(
    ("rules", "path", "expected"),
    [
        ("Allow: /example/page/\nDisallow: /example/page/disallowed.gif", "/example/page/disallowed.gif", False),
        ("Disallow: /a\nAllow: /a", "/a", True),  # of equal rules, the one that allows
        ("Disallow: /", "/robots.txt", True),
        ("Disallow:", "/a", True),
        ("disallow : /a # a comment", "/a b", False),
        ("Disallow: /path/file-with-a-%2A.html", "/path/file-with-a-*.html", True),  # section 2.2.3
        ("Disallow: /path/file-with-a-%2A.html", "/path/file-with-a-%2A.html", False),
        ("Disallow: /path/foo-%24", "/path/foo-%24", False),
        ("Disallow: /foo/bar/ツ", "/foo/bar/%E3%83%84", False),  # section 2.2.2
        ("Disallow: /foo/bar/%e3%83%84", "/foo/bar/ツ", False),
        ("Disallow: /foo/bar/%62%61%7A", "/foo/bar/baz", False),
        ("Disallow: /*.pdf$", "/deep/a.pdf", False),
        ("Disallow: /*.pdf$", "/deep/a.pdf?x=1", True),
        ("Disallow: /a*b*c$", "/abbcc", False),
        ("Disallow: /a*b*c$", "/abbccd", True),
        ("Disallow: /a$", "/a", False),
        ("Disallow: /a$", "/ab", True),
        ("Disallow: /*?print=", "/page?x=1&print=2", True),
        ("Disallow: /*print=", "/page?x=1&print=2", False),
        ("Disallow: a", "/a", True),
        ("Disallow /a", "/a", True),  # malformed
        ("Sitemap: /s\nDisallow: /a", "/a", False),
    ],
)
def test_rules_by_the_standard(rules: str, path: str, expected: bool) -> None:
    assert allows(f"User-agent: *\n{rules}\n", path) is expected


def test_groups_of_one_name_are_one_and_rules_before_any_name_are_none() -> None:
    lines = (
        "Disallow: /\nUser-agent: TeraToken/2.0\nDisallow: /a\n\nUser-agent: *\nDisallow: /b\nuser-agent: teratoken\n"
    )
    assert [allows(lines + "Disallow: /c", path) for path in ("/a", "/b", "/c", "/d")] == [False, True, False, True]
    assert [allows(lines, path, "other") for path in ("/a", "/b")] == [True, False]


def test_a_delay_is_that_of_the_group() -> None:
    lines = b"User-agent: *\nCrawl-delay: 7\nUser-agent: teratoken\nCrawl-delay: 2.5\nCrawl-delay: soon\nDisallow: /a"
    assert parse_robots(lines, "teratoken") == Robots((("/a", False),), 2.5)
    assert parse_robots(lines, "other").delay == 7


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    parse_robots(b"User-agent: *\nDisallow: /" + data, "teratoken").allows(SITE + "/a")


def test_hostile_files_take_linear_time() -> None:
    started = time.monotonic()
    for line in ("/" + "*a" * 200_000, "/" + "%" * 400_000, ":" * 400_000, " " * 400_000, "/\rAllow: /b" * 40_000):
        found = parse_robots(f"User-agent: *\nDisallow: {line}$".encode()[:MAX_BYTES], "teratoken")
        found.allows(SITE + "/" + "a" * 8000)
    assert time.monotonic() - started < 20


PATTERNS = st.lists(st.tuples(st.text("ab*$/", max_size=6), st.booleans()), max_size=5)


@given(PATTERNS, st.text("ab/$*", max_size=8))
def test_the_longest_rule_of_those_that_match_decides(rules: list[tuple[str, bool]], path: str) -> None:
    lines = "User-agent: *\n" + "".join(f"{'Allow' if allow else 'Disallow'}: /{rule}\n" for rule, allow in rules)
    found = []
    for rule, allow in rules:
        body = f"/{rule}".removesuffix("$")
        pattern = ".*".join(map(re.escape, body.split("*"))) + (r"\Z" if f"/{rule}".endswith("$") else "")
        if re.match(pattern, f"/{path}"):
            found.append((len(rule), allow))
    assert allows(lines, f"/{path}") is max(found, default=(0, True))[1]


@given(st.text("abc/", max_size=5), st.text("abc/", max_size=6))
def test_one_plain_rule_is_as_pythons_parser_has_it(rule: str, path: str) -> None:
    lines = f"User-agent: *\nDisallow: /x{rule}\n"
    python = urllib.robotparser.RobotFileParser()
    python.parse(lines.split("\n"))
    assert allows(lines, f"/x{path}") is python.can_fetch("teratoken", f"{SITE}/x{path}")
