"""Make citations for the sample Wikipedia: several forms of <ref>, and URLs that differ slightly from crawled URLs."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

ARCHIVE = "https://web.archive.org/web/20190715120000"


def other_scheme(url: str) -> str:
    """Return a URL in which http is replaced by https, or https by http."""
    scheme, rest = url.split("://", 1)
    return f"{'http' if scheme == 'https' else 'https'}://{rest}"


def other_www(url: str) -> str:
    """Return a URL with `www.` added to its host, or removed if the host begins with it."""
    scheme, rest = url.split("://", 1)
    return f"{scheme}://{rest.removeprefix('www.') if rest.startswith('www.') else 'www.' + rest}"


def other_case(url: str) -> str:
    """Return a URL in which each part of the host begins with a capital letter."""
    scheme, rest = url.split("://", 1)
    host, path = rest.split("/", 1)
    return f"{scheme}://{host.title()}/{path}"


def site(url: str) -> str:
    """Return the host of a URL."""
    return url.split("://", 1)[1].split("/", 1)[0]


# Variants of a URL: (description, function from the crawled URL to the cited URL).
ADDRESSES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("as crawled", lambda url: url),
    ("other scheme", other_scheme),
    ("www added or left out", other_www),
    ("slash at the end", lambda url: url + "/"),
    ("utm parameters", lambda url: f"{url}?utm_source=wiki&utm_medium=reference"),
    ("fragment", lambda url: f"{url}#top"),
    ("capitals in the host", other_case),
)  # fmt: skip
# Forms of a citation: (description, function from URL, title and name of the reference to wikitext).
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
# URLs that are in no crawl.
UNCRAWLED = (
    "https://lost.example/papers/{}.pdf", "http://www.county-record-office.example/deeds?box={}&leaf=2",
    "https://press.example/2011/{}/", "https://doi.org/10.5555/sample.{}",
)  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """A citation.

    Attributes:
        url: The URL in the crawl, or "" if it is in no crawl.
        cited: The URL in the citation.
        address: The description of the variant of the URL.
        form: The description of the form of the citation.
        text: The wikitext of the citation.
    """

    url: str
    cited: str
    address: str
    form: str
    text: str


def cites_topic(url: str) -> bool:
    """Return True for nine in ten pages of the language reference. The other pages are good, but never cited."""
    return zlib.crc32(url.encode()) % 10 != 0


def references(pages: list[tuple[str, str]]) -> list[Reference]:
    """Return a citation of each page (URL, title). Forms of <ref> and variants of the URL alternate.

    After every seventh citation comes a citation of a URL that is in no crawl.
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
    """Return the citation of a page. The number of the page determines the form and the variant of the URL."""
    address, change = ADDRESSES[(number + number // len(FORMS)) % len(ADDRESSES)]
    form, shape = FORMS[number % len(FORMS)]
    cited = change(url)
    return Reference(url, cited, address, form, shape(cited, title, f"source{number}"))


def rows(cited: list[Reference], in_wet: set[str], in_web: set[str]) -> list[dict[str, object]]:
    """Return the citations as entries of planted-references.json.

    Args:
        cited: The citations.
        in_wet: The URLs of the pages in wet/.
        in_web: The URLs of the pages in web/.
    """
    return [
        {
            "url": item.url, "cited": item.cited, "address": item.address, "form": item.form,
            "in_wet": item.url in in_wet, "in_web": item.url in in_web,
        }
        for item in cited
    ]  # fmt: skip
