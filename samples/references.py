"""What the sample Wikipedia cites, and in what shapes: forms of <ref>, and addresses not quite as they were crawled."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

ARCHIVE = "https://web.archive.org/web/20190715120000"


def other_scheme(url: str) -> str:
    scheme, rest = url.split("://", 1)
    return f"{'http' if scheme == 'https' else 'https'}://{rest}"


def other_www(url: str) -> str:
    scheme, rest = url.split("://", 1)
    return f"{scheme}://{rest.removeprefix('www.') if rest.startswith('www.') else 'www.' + rest}"


def other_case(url: str) -> str:
    scheme, rest = url.split("://", 1)
    host, path = rest.split("/", 1)
    return f"{scheme}://{host.title()}/{path}"


def site(url: str) -> str:
    return url.split("://", 1)[1].split("/", 1)[0]


ADDRESSES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("as crawled", lambda url: url),
    ("other scheme", other_scheme),
    ("www added or left out", other_www),
    ("slash at the end", lambda url: url + "/"),
    ("utm parameters", lambda url: f"{url}?utm_source=wiki&utm_medium=reference"),
    ("fragment", lambda url: f"{url}#top"),
    ("capitals in the host", other_case),
)  # fmt: skip
FORMS: tuple[tuple[str, Callable[[str, str, str], str]], ...] = (
    ("plain", lambda url, title, name: f"<ref>{url}</ref>"),
    ("bracketed, named", lambda url, title, name: f'<ref name="{name}">[{url} {title}], {site(url)}.</ref>'),
    (
        "cite web, attributes",
        lambda url, title, name: (
            f'<ref name={name} group="lower-alpha">{{{{cite web |url={url}|title={title}|access-date=2023}}}}</ref>'
        ),
    ),
    (
        "cite web on several lines",
        lambda url, title, name: f"<ref>\n{{{{Cite web\n | title = {title}\n | url = {url}\n}}}}\n</ref>",
    ),
    (
        "cite web with its archived copy",
        lambda url, title, name: (
            f"<ref>{{{{cite web|url={url}|title={title}|archive-url={ARCHIVE}/{url}|url-status=dead}}}}</ref>"
        ),
    ),
    ("only the archived copy", lambda url, title, name: f"<ref>[{ARCHIVE}/{url} {title}]</ref>"),
    ("capitals in the tag", lambda url, title, name: f"<REF NAME='{name}' >''{title}'', [{url}] (2023)</REF >"),
)  # fmt: skip
UNCRAWLED = (
    "https://lost.example/papers/{}.pdf", "http://www.county-record-office.example/deeds?box={}&leaf=2",
    "https://press.example/2011/{}/", "https://doi.org/10.5555/sample.{}",
)  # fmt: skip
"""Addresses that are in no crawl."""


@dataclass(frozen=True)
class Reference:
    """A citation: the page's address as crawled (empty where it is in no crawl) and as cited, and the <ref> itself."""

    url: str
    cited: str
    address: str
    form: str
    text: str


def cites_topic(url: str) -> bool:
    """Nine pages in ten of the language reference are cited: some good pages never are."""
    return zlib.crc32(url.encode()) % 10 != 0


def references(pages: list[tuple[str, str]]) -> list[Reference]:
    """A citation of each page (URL, title), in forms and addresses that take turns; every seventh is followed by one of
    an address that is in no crawl."""
    out = list[Reference]()
    for number, (url, title) in enumerate(pages):
        out.append(reference(number, url, title))
        if number % 7 == 6:
            lost = UNCRAWLED[number // 7 % len(UNCRAWLED)].format(number)
            form, shape = FORMS[number // 7 % len(FORMS)]
            out.append(Reference("", lost, "in no crawl", form, shape(lost, "A paper that was lost", f"lost{number}")))
    return out


def reference(number: int, url: str, title: str) -> Reference:
    address, change = ADDRESSES[(number + number // len(FORMS)) % len(ADDRESSES)]
    form, shape = FORMS[number % len(FORMS)]
    cited = change(url)
    return Reference(url, cited, address, form, shape(cited, title, f"source{number}"))


def rows(cited: list[Reference], in_wet: set[str], in_web: set[str]) -> list[dict[str, object]]:
    """As they stand in planted-references.json; `in_wet`, `in_web`: the pages' addresses there."""
    return [
        {
            "url": item.url, "cited": item.cited, "address": item.address, "form": item.form,
            "in_wet": item.url in in_wet, "in_web": item.url in in_web,
        }
        for item in cited
    ]  # fmt: skip
