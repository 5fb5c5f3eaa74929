"""Make the planted pages of a few small web sites: different encodings, languages and duplicates.

The expected result of a page is its result under the plain rules of LLaMA's English web data: "kept", or a value of
`filters.reasons.Reason`. Some pages have the results "dropped" (any reason) and "any".
"""

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deflate import gzipped, zlib_stream
from prose import page
from stored import brotli, zstandard
from warc import HTML, Record, response

BOM = b"\xff\xfe"
PAGES = Path(__file__).parent / "pages"
ALMANAC, NOTEBOOK, WEEKLY = "https://www.almanac.example", "https://notebook.example", "http://weekly.example"


@dataclass(frozen=True)
class Planted:
    """A planted record: the record, its description, and the expected result."""

    record: Record
    what: str
    expect: str


@dataclass(frozen=True)
class Article:
    """The text of a page: the name of its file, its title and its paragraphs."""

    slug: str
    title: str
    paragraphs: tuple[str, ...]


def read(folder: str) -> list[Article]:
    """Return the articles of a folder below pages/, sorted by file name. Each paragraph becomes one line."""
    found = []
    for file in sorted((PAGES / folder).glob("*.txt")):
        title, *rest = file.read_text("utf-8").strip().split("\n\n")
        found.append(Article(file.stem, title, tuple(part.replace("\n", " ") for part in rest)))
    return found


def almanac(article: Article, language: str = "en", head: str = '<meta charset="utf-8">\n') -> str:
    """Return a page of the site ALMANAC: its menu, cookie notice and footer are the same on every page."""
    before = (
        "<header><p>The Village Almanac</p></header>\n<nav><ul><li>Home</li><li>Garden</li><li>Workshop</li>"
        "<li>Kitchen</li></ul></nav>\n<noscript><p>Please enable JavaScript to see the pictures.</p></noscript>\n"
    )
    after = (
        "<aside><h3>Read also</h3><ul><li>The ten best spades</li><li>Soup in an hour</li></ul></aside>\n<footer>"
        "<p>This site uses cookies.</p><p>Read our privacy policy before you write to us.</p>"
        "<p>Subscribe to our letter and receive one new page every week.</p><p>Terms of use</p></footer>\n"
    )
    return page(article.title, paragraphs(article), language=language, head=head, before=before, after=after)


def notebook(article: Article, language: str = "en", head: str = '<meta charset="utf-8">\n') -> str:
    """Return a page of the site NOTEBOOK: simple, with a script and a style sheet."""
    head += "<style>main { max-width: 40em; }</style>\n<script>const seen = {}; seen.now = Date.now();</script>\n"
    after = "<p>Share this note</p>\n<p>We use cookies to count our readers, and we count them very badly.</p>\n"
    return page(article.title, paragraphs(article), language=language, head=head, after=after)


def weekly(article: Article, language: str = "en", head: str = "") -> str:
    """Return a page of the site WEEKLY, in the style of the 1990s: tables, tags in capitals, no closing tags."""
    rows = "\n".join(f"<P>{html.escape(text, quote=False)}" for text in article.paragraphs)
    return (
        f"<HTML LANG={language}><HEAD>{head}<TITLE>{html.escape(article.title)}</TITLE></HEAD>\n<BODY BGCOLOR=white>"
        "<TABLE WIDTH=100%><TR><TD WIDTH=150><A HREF=/>Front page</A><BR><A HREF=/old>Old numbers</A></TD><TD>\n"
        f"<H1>{html.escape(article.title)}</H1>\n{rows}\n<P>Best viewed with any browser.\n</TD></TR></TABLE>\n"
        "</BODY></HTML>\n"
    )


def paragraphs(article: Article) -> str:
    """Return the paragraphs of an article as HTML."""
    return "\n".join(f"<p>{html.escape(text, quote=False)}</p>" for text in article.paragraphs)


LAYOUTS = ((ALMANAC, almanac), (NOTEBOOK, notebook), (WEEKLY, weekly))


def fate(article: Article, otherwise: str) -> str:
    """Return the expected result of an article.

    One article contains a word of the list of bad words in a harmless sense, so C4's rule drops it.
    """
    return "c4-bad-word" if article.slug == "life-drawing" else otherwise


def english(articles: list[Article]) -> Iterator[Planted]:
    """Yield each article once, on one of three sites. Some have unusual headers or encodings."""
    wrapped = wrappings()
    for number, article in enumerate(articles):
        site, render = LAYOUTS[number % 3]
        url = f"{site}/en/{article.slug}.html"
        expect = fate(article, "kept")
        if article.slug in wrapped:
            what, make = wrapped[article.slug]
            yield Planted(make(url, render(article)), what, expect)
        else:
            yield Planted(response(url, render(article)), "a page", expect)


def wrappings() -> dict[str, tuple[str, Callable[[str, str], Record]]]:
    """Return the pages with unusual headers or encodings.

    Returns:
        {slug: (description, function from URL and HTML to the record)}.
    """
    plain = "text/html"

    def undeclared(text: str) -> str:
        return re.sub(r'<meta charset="utf-8">\n', "", text)

    return {
        "lighthouse-lens": ("gzip body", lambda u, t: response(u, gzipped(t.encode()), content_encoding="gzip")),
        "glass-blowing": ("chunked body", lambda u, t: response(u, chunked(t.encode()), transfer_encoding="chunked")),
        "harvesting-salt": (
            "chunked gzip body",
            lambda u, t: response(
                u, chunked(gzipped(t.encode())), transfer_encoding="chunked", content_encoding="gzip"
            ),
        ),
        "making-paper": ("brotli body", lambda u, t: response(u, brotli(t.encode()), content_encoding="br")),
        "compost-heap": ("zstandard body", lambda u, t: response(u, zstandard(t.encode()), content_encoding="zstd")),
        "map-projections": (
            "deflate body",
            lambda u, t: response(u, zlib_stream(t.encode()), content_encoding="deflate"),
        ),
        "postage-stamps": ("gzip promised, plain body", lambda u, t: response(u, t, content_encoding="gzip")),
        "old-typewriter": ("chunks promised, plain body", lambda u, t: response(u, t, transfer_encoding="chunked")),
        "pendulum-clocks": (
            "latin-1 in the header",
            lambda u, t: response(u, undeclared(t).encode("latin-1"), "text/html; charset=ISO-8859-1"),
        ),
        "coffee-roasting": (
            "windows-1252 with curved quotes, declared nowhere",
            lambda u, t: response(u, undeclared(t).replace("'", "’").encode("cp1252"), plain),
        ),
        "hedgehogs": ("utf-16 with BOM", lambda u, t: response(u, BOM + undeclared(t).encode("utf-16-le"), plain)),
        "garden-sundial": ("utf-8 with BOM", lambda u, t: response(u, undeclared(t).encode("utf-8-sig"), plain)),
        "ice-harvest": ("XHTML content type", lambda u, t: response(u, t, "application/xhtml+xml")),
        "night-sky": ("capitals in the content type", lambda u, t: response(u, t, "TEXT/HTML;CHARSET=UTF-8")),
        "canal-locks": (
            "a long chain of odd headers",
            lambda u, t: response(u, t, x_powered_by="a hamster", set_cookie="a=1; Path=/", age="  7 "),
        ),
    }


def foreign(articles: list[Article]) -> Iterator[Planted]:
    """Yield pages in other languages in UTF-8, and some of them again in old encodings.

    An old encoding is declared in the HTTP header, in a meta tag, or nowhere.
    """
    by_slug = {article.slug: article for article in articles}
    for article in articles:
        url = f"{NOTEBOOK}/{article.slug}/page.html"
        yield Planted(response(url, notebook(article, article.slug)), f"language {article.slug}", "language")
    old = (
        ("fr", "iso-8859-1", "header"), ("de", "iso-8859-1", "meta"), ("es", "iso-8859-1", "nowhere"),
        ("sv", "windows-1252", "nowhere"), ("pl", "iso-8859-2", "header"), ("cs", "windows-1250", "meta"),
        ("ru", "windows-1251", "header"), ("uk", "windows-1251", "meta"), ("ru", "windows-1251", "nowhere"),
        ("ru", "koi8-r", "meta"), ("zh", "gb2312", "header"), ("zh", "gbk", "meta"), ("zh", "gb18030", "nowhere"),
        ("ja", "shift_jis", "header"), ("ja", "euc-jp", "meta"), ("ja", "shift_jis", "nowhere"),
    )  # fmt: skip
    for slug, charset, where in old:
        kind = f"text/html; charset={charset}" if where == "header" else "text/html"
        meta = f'<META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset={charset}">' if where == "meta" else ""
        text = weekly(by_slug[slug], slug, meta).encode(charset)
        what = f"language {slug}, {charset}, declared in: {where}"
        yield Planted(response(f"{WEEKLY}/{slug}/{charset}-{where}.html", text, kind), what, "language")
    lying = almanac(by_slug["fr"], "fr").encode()
    yield Planted(
        response(f"{ALMANAC}/fr/lying.html", lying, "text/html; charset=iso-8859-1"),
        "utf-8 that the header calls latin-1", "language",
    )  # fmt: skip


# Words that `second_edition` replaces: (old, new).
SWAPS = (
    ("because", "since"), ("often", "frequently"), ("begin", "start"), ("little", "small"), ("nothing", "not a thing"),
    ("at once", "right away"), ("a quarter", "one fourth"), ("nobody", "no one"),
    ("every", "each"), ("from", "out of"), ("before", "ahead of"), ("which", "that"),
)  # fmt: skip


def second_edition(article: Article, words: int) -> Article:
    """Return an article in which at most `words` words are replaced."""
    text = list(article.paragraphs)
    for old, new in SWAPS:
        for number, paragraph in enumerate(text):
            if words and f" {old} " in paragraph:
                text[number] = paragraph.replace(f" {old} ", f" {new} ", 1)
                words -= 1
                break
    return Article(article.slug, article.title, tuple(text))


def duplicates(articles: list[Article]) -> Iterator[Planted]:
    """Yield copies of English pages: identical bytes, the same text in another layout, similar texts, first halves."""
    for number in range(2, 7):
        article, (_, render) = articles[number], LAYOUTS[number % 3]
        url = f"http://mirror.example/copy/{article.slug}.html?utm_source=letter"
        yield Planted(response(url, render(article)), f"copy of {article.slug}", "exact-duplicate")
    for number in range(8, 12):
        article, (_, render) = articles[number], LAYOUTS[(number + 1) % 3]
        url = f"https://reader.example/{article.slug}"
        yield Planted(response(url, render(article)), f"the text of {article.slug}, another layout", "duplicate")
    for number, article in enumerate(articles[13:23]):
        render = LAYOUTS[(13 + number) % 3][1]
        url = f"https://archive.example/2021/{article.slug}.html"
        what = f"{article.slug} with up to {number % 2 + 1} words changed"
        text = render(second_edition(article, number % 2 + 1))
        yield Planted(response(url, text), what, fate(article, "near-duplicate"))
    for article in articles[24:27]:
        half = Article(article.slug, article.title, article.paragraphs[:2])
        url = f"https://quotes.example/{article.slug}"
        yield Planted(response(url, notebook(half)), f"the first half of {article.slug}: no duplicate", "kept")
    date = "This page was last changed on 3 March 2021 by the keeper of the archive."
    for article in articles[27:30]:
        changed = second_edition(article, 6)
        dated = Article(changed.slug, changed.title, (date, *changed.paragraphs[1:]))
        url = f"https://archive.example/2022/{article.slug}.html"
        what = f"{article.slug} with six words changed, a date, one paragraph less: a case for the threshold"
        yield Planted(response(url, weekly(dated)), what, "any")


def chunked(body: bytes, size: int = 997) -> bytes:
    """Return a body in HTTP's chunked coding. The first chunk has an extension, and a trailer ends the body."""
    out = bytearray()
    for start in range(0, len(body), size):
        chunk = body[start : start + size]
        out += f"{len(chunk):x}{';first=1' if start == 0 else ''}\r\n".encode() + chunk + b"\r\n"
    return bytes(out) + b"0\r\nX-Trailer: end\r\n\r\n"


def handwritten() -> Iterator[Planted]:
    """Yield the pages of pages/html, which are complete HTML files."""
    fates = {
        "encyclopedia": ("citation marks, [edit], tables", "kept"), "forum": ("a forum thread, scripts", "kept"),
        "recipe": ("unclosed tags, no body tag", "kept"), "shop": ("only short lines", "c4-too-few-sentences"),
        "keywords": ("keyword spam", "c4-too-few-sentences"), "lorem": ("lorem ipsum", "c4-lorem-ipsum"),
        "template": ("curly brackets in the text", "c4-curly-bracket"), "gallery": ("only images", "no-text"),
        "policies": ("only policy lines", "c4-too-few-sentences"), "mixed": ("five languages", "language-unsure"),
    }  # fmt: skip
    for name, (what, expect) in fates.items():
        text = (PAGES / "html" / f"{name}.html").read_bytes()
        yield Planted(response(f"https://pages.example/{name}.html", text, HTML), what, expect)
