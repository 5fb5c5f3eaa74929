"""Write small inputs for the filters of CCNet and LLaMA.

The inputs are WET files, a Wikipedia dump that cites pages of the sample, a WARC file of cited pages, and a blocklist.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import odd
import planted_lines
import references
import wet
import wiki
from deflate import gzipped
from gazetteer import Entry
from warc import response, write
from web_pages import LAYOUTS, NOTEBOOK, PAGES, notebook, read

HERE = Path(__file__).parent
BOOKS = ("marks-that-remember", "the-keeper-of-the-lower-light")
LANGUAGES = {
    "cs": "ces", "de": "deu", "es": "spa", "fr": "fra", "it": "ita", "ja": "jpn", "nl": "nld", "pl": "pol", "pt": "por",
    "ru": "rus", "sv": "swe", "uk": "ukr", "zh": "zho",
}  # fmt: skip
BOTH = (0, 1)
Pages = list[tuple[str, str]]


def make(out: Path, documentation: Pages, entries: list[Entry], in_web: set[str], small: bool) -> dict[str, object]:
    """Write wet/, wiki/, cited/ and the blocklist below `out`.

    The documentation of half of the library's modules goes into the WET files. The other half becomes articles of the
    wiki. So no language model is trained on the pages that it scores.

    Args:
        out: The folder of the sample.
        documentation: (URL, HTML) of each page of the documentation.
        entries: Articles of the gazetteer. The first 30 are for the WET files, the others for the wiki.
        in_web: The URLs of the pages of web/ that a reader can extract.
        small: True writes the small sample.

    Returns:
        The contents of the lists of planted records, by file name.
    """
    for_wiki = [page for page in documentation if is_for_wiki(page[0])]
    for_wet = [page for page in documentation if not is_for_wiki(page[0])]
    blocked = odd.blocked(entries[:10])
    texts = [
        *pages(for_wet),
        *(wet.Text(item.record.url, wet.visible(page), "", wet.one_crawl(item.record.url)) for item, page in blocked),
        *(wet.Text(planted_lines.url(name), text, "eng", ("ab".index(name[0]),))
          for name, text in planted_lines.pages(entries[10:30])),
    ]  # fmt: skip
    files = wet.write(out, texts, 3 if small else 4)
    cited = references.references(cited_pages(documentation, in_web))
    uncited = [url for url, _ in for_wet if "/builtin/" in url][:6:2]
    encyclopaedia = [*entries[30:], *(wiki.book(HERE / f"books/{name}.txt") for name in BOOKS), *wiki.manual(for_wiki)]
    beside = wiki.beside(uncited, entries[30].title)
    every = sorted([*wiki.articles(encyclopaedia, cited), *beside], key=lambda page: zlib.crc32(page.title.encode()))
    wiki.write(out / "wiki" / wiki.NAME, every)
    known = {url: page for url, page, _ in articles()} | dict(documentation)
    write(out / "cited" / "pages.warc.gz", (response(item.url, known[item.url]) for item in cited if item.url in known))
    domains = (HERE / "blocklist.txt").read_bytes()
    (out / "blocklist.txt").write_bytes(domains)
    (out / "blocklist.txt.gz").write_bytes(gzipped(domains))
    return {
        "planted-lines.json": planted_lines.rows(files, [text.url for text in texts if text.crawls == BOTH]),
        "planted-references.json": {
            "cited": references.rows(cited, {text.url for text in texts}, in_web),
            "not_cited": uncited,
        },
        "planted-blocked.json": [
            {"file": files[item.record.url], "url": item.record.url, "record": "conversion", "what": item.what,
             "expect": item.expect}
            for item, _ in blocked
        ],
    }  # fmt: skip


def is_for_wiki(url: str) -> bool:
    """Return True if a URL of the documentation belongs to the half of the modules that becomes wiki articles."""
    kind, _, name = url.removesuffix(".html").partition("/python/")[2].partition("/")
    return kind in ("library", "notes") and zlib.crc32(name.partition("-")[0].encode()) % 2 == 0


def pages(documentation: Pages) -> Iterator[wet.Text]:
    """Yield the texts of the articles, the hand-written HTML pages and the documentation, for the WET files.

    Every sixth English article is in both crawls.
    """
    for number, (url, page, _) in enumerate(articles()):
        yield wet.Text(url, wet.visible(page), "eng", BOTH if number % 6 == 5 else wet.one_crawl(url))
    for article in read("other"):
        url = f"{NOTEBOOK}/{article.slug}/page.html"
        text = wet.visible(notebook(article, article.slug))
        yield wet.Text(url, text, LANGUAGES[article.slug], wet.one_crawl(url))
    by_hand = [(f"https://pages.example/{file.name}", file.read_text("utf-8"))
               for file in sorted((PAGES / "html").glob("*.html"))]  # fmt: skip
    for url, page in [*by_hand, *documentation]:
        yield wet.Text(url, wet.visible(page), "eng", wet.one_crawl(url))


def articles() -> Iterator[tuple[str, str, str]]:
    """Yield (URL, HTML, title) of the English articles. The URLs are those of web/."""
    for number, article in enumerate(read("en")):
        site, render = LAYOUTS[number % 3]
        yield f"{site}/en/{article.slug}.html", render(article), article.title


def cited_pages(documentation: Pages, in_web: set[str]) -> Pages:
    """Return (URL, title) of the pages that the wiki cites: all articles, and most of the language reference."""
    out = [(url, title) for url, _, title in articles()]
    out += [(url, title_of(url)) for url in sorted(in_web) if url.startswith(("https://whole.", "https://plain."))]
    topics = [url for url, _ in documentation if "/python/reference/" in url]
    return out + [(url, title_of(url)) for url in topics if references.cites_topic(url)]


def title_of(url: str) -> str:
    """Return a title made from the last part of a URL."""
    return url.rpartition("/")[2].removesuffix(".html").replace("-", " ").capitalize()
