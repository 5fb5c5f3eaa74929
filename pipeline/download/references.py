"""Fetch pages that Wikipedia cites into a WARC file, as positive examples of the reference classifier.

The paper's classifier distinguishes pages "used as references in Wikipedia" from other pages (LLaMA, section 2.1). A
part of a crawl contains only few cited pages, so they are fetched from their own servers. RedPajama used 300,000.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import urldefrag

from filters.errors import UserError
from filters.formats.mediawiki import read_dump
from filters.formats.stream import Damage
from filters.quality import urls
from filters.wikitext.citations import find_cited_urls
from manifests.document import order_key
from pipeline.download.crawl import PRODUCT, Crawl, CrawlOptions
from pipeline.download.page_archive import PAGE, PageArchive


@dataclass(frozen=True)
class CrawlSummary:
    """The result of a crawl.

    Attributes:
        urls: number of requested URLs.
        counts: number of URLs per result: `PAGE`, or the reason for which there is no page.
        fetched: number of pages that this call added.
        temporary_failures: number of URLs that the next call tries again.
    """

    urls: int
    counts: Counter[str]
    fetched: int
    temporary_failures: int

    def text(self) -> str:
        """Return a line with the number of pages, and one line per reason, the most frequent reason first."""
        lines = [f"{self.urls:,} URLs: {self.counts[PAGE]:,} pages, {self.fetched:,} of them fetched now"]
        reasons = sorted((-count, reason) for reason, count in self.counts.items() if reason != PAGE)
        lines += [f"  {reason}: {-count:,}" for count, reason in reasons]
        if self.temporary_failures:
            lines.append(f"{self.temporary_failures:,} URLs failed for now: the same command tries them again")
        return "\n".join(lines)


def draw_cited_urls(dumps: Sequence[Path], most: int, seed: int) -> list[str]:
    """Select pages that Wikipedia dumps cite, by keyed hash, and return their URLs in the order of the hash.

    A page that is cited with several URLs is selected once. Its URL is then the alphabetically first one, where copies
    in web archives come last.

    Args:
        dumps: paths of Wikipedia dumps.
        most: largest number of pages.
        seed: seed of the keyed hash.

    Raises:
        UserError: a dump cannot be read, or the dumps cite no URL.
    """
    chosen: dict[int, str] = {}
    limit = 1 << 64
    for url in _cited_urls(dumps):
        page = urls.url_hash(url)
        key = order_key(seed, "references/download", page.to_bytes(8, "big"))
        if not page or key >= limit:
            continue
        chosen[key] = min(url, chosen.get(key, url), key=lambda one: (urls.is_archived_copy(one), one))
        if len(chosen) > 2 * most:
            chosen = dict(sorted(chosen.items())[:most])
            limit = max(chosen) + 1
    if not chosen:
        raise UserError(
            f"no article of {', '.join(map(str, dumps))} cites a URL: give dumps of articles (pages-articles)"
        )
    return [url for _, url in sorted(chosen.items())[:most]]


def _cited_urls(dumps: Sequence[Path]) -> Iterator[str]:
    """Yield the URLs that articles cite, without fragments."""
    for dump in dumps:
        try:
            for page in read_dump(dump):
                if not isinstance(page, Damage) and page.namespace == 0 and not page.redirect:
                    for url in find_cited_urls(page.wikitext):
                        yield urldefrag(f"https:{url}" if url.startswith("//") else url).url
        except OSError as error:
            raise UserError(f"{dump} cannot be read ({error.strerror}): give paths of Wikipedia dumps") from error


def user_agent(contact: str) -> str:
    """Return the User-Agent header with a contact. Raises UserError if a header cannot contain the contact."""
    if not contact.isascii() or not contact.isprintable() or not contact.strip():
        raise UserError(f"--contact {contact!r} is not a URL or an e-mail address: give one where you can be reached")
    return f"{PRODUCT} (+{contact})"


def download_references(
    wanted: Sequence[str], output: Path, options: CrawlOptions, terminal: TextIO | None = None
) -> CrawlSummary:
    """Fetch pages into a WARC file. URLs with a result in the file are not requested again.

    Args:
        wanted: URLs of the pages.
        output: path of the file.
        options: settings of the crawl.
        terminal: receives lines of progress; None for no output.

    Raises:
        UserError: the file cannot be written, or another process writes it.
    """
    with closing(PageArchive(output, options.request.agent)) as archive:
        before = archive.counts[PAGE]
        crawl = Crawl(archive, options, [url for url in dict.fromkeys(wanted) if url not in archive.done])
        crawl.run(terminal)
        outcomes = {**archive.done, **crawl.temporary_failures}
        counts = Counter(outcomes[url] for url in wanted)
        return CrawlSummary(len(wanted), counts, archive.counts[PAGE] - before, len(crawl.temporary_failures))
