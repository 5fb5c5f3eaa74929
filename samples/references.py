"""Citations of the sample Wikipedia: forms of <ref>, and addresses that differ a little from those of the crawl."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

ARCHIVE = "https://web.archive.org/web/20190715120000"


def other_scheme(url: str) -> str:
    """Return the address with the other of http and https."""
    scheme, rest = url.split("://", 1)
    return f"{'http' if scheme == 'https' else 'https'}://{rest}"


def other_www(url: str) -> str:
    """Return the address with `www.` added, or removed if it is there."""
    scheme, rest = url.split("://", 1)
    return f"{scheme}://{rest.removeprefix('www.') if rest.startswith('www.') else 'www.' + rest}"


def other_case(url: str) -> str:
    """Return the address with its host in capitals."""
    scheme, rest = url.split("://", 1)
    host, path = rest.split("/", 1)
    return f"{scheme}://{host.title()}/{path}"


def site(url: str) -> str:
    """Return the host of an address without `www.`."""
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
# Addresses that are in no crawl.
UNCRAWLED = (
    "https://lost.example/papers/{}.pdf", "http://www.county-record-office.example/deeds?box={}&leaf=2",
    "https://press.example/2011/{}/", "https://doi.org/10.5555/sample.{}",
)  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A citation: the address in the crawl (empty if it is in no crawl), the cited address, and the <ref> itself."""

    url: str
    cited: str
    address: str
    form: str
    text: str


def cites_topic(url: str) -> bool:
    """Return True for nine in ten pages of the language reference, so that some good pages are never cited."""
    return zlib.crc32(url.encode()) % 10 != 0


def references(pages: list[tuple[str, str]]) -> list[Reference]:
    """Return a citation of each page (URL, title), in alternating forms of <ref> and of addresses.

    Every seventh citation is followed by a citation of an address that is in no crawl.
    """
    out = list[Reference]()
    for number, (url, title) in enumerate(pages):
        out.append(reference(number, url, title))
        if number % 7 == 6:
            lost = UNCRAWLED[number // 7 % len(UNCRAWLED)].format(number)
            form, shape = FORMS[number // 7 % len(FORMS)]
            out.append(Reference("", lost, "in no crawl", form, shape(lost, "A paper that was lost", f"lost{number}")))
    return out


def reference(number: int, url: str, title: str) -> Reference:
    """Return one citation in the form and address variant of its number."""
    address, change = ADDRESSES[(number + number // len(FORMS)) % len(ADDRESSES)]
    form, shape = FORMS[number % len(FORMS)]
    cited = change(url)
    return Reference(url, cited, address, form, shape(cited, title, f"source{number}"))


def rows(cited: list[Reference], in_wet: set[str], in_web: set[str]) -> list[dict[str, object]]:
    """Return the contents of planted-references.json; `in_wet` and `in_web` hold the addresses of the pages there."""
    return [
        {
            "url": item.url, "cited": item.cited, "address": item.address, "form": item.form,
            "in_wet": item.url in in_wet, "in_web": item.url in in_web,
        }
        for item in cited
    ]  # fmt: skip
