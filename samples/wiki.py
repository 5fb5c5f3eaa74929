"""Write a small Wikipedia dump: MediaWiki XML, export version 0.11, in several bzip2 streams like a multistream dump.

The articles are made from the gazetteer, from the books of the sample, and from documentation. They cite pages of the
sample.
"""

import bz2
import hashlib
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from gazetteer import Entry
from references import Reference

NAME = "samplewiki-20240101-pages-articles.xml.bz2"
STREAM_PAGES = 50
NAMESPACES = {-1: "Special", 0: "", 1: "Talk", 2: "User", 4: "Project", 6: "File", 10: "Template", 14: "Category"}
HEADER = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xsi:schemaLocation="http://www.mediawiki.org/xml/export-0.11/ http://www.mediawiki.org/xml/export-0.11.xsd" '
    'version="0.11" xml:lang="en">\n  <siteinfo>\n'
    "    <sitename>Sample Wiki</sitename>\n    <dbname>samplewiki</dbname>\n"
    "    <base>https://wiki.example/wiki/Main_Page</base>\n    <generator>samples/make.py</generator>\n"
    "    <case>first-letter</case>\n    <namespaces>\n"
    + "".join(
        f'      <namespace key="{key}" case="first-letter"' + (f">{name}</namespace>\n" if name else " />\n")
        for key, name in NAMESPACES.items()
    )
    + "    </namespaces>\n  </siteinfo>\n"
)
PARAGRAPH = re.compile(r"<p>(.*?)</p>", re.DOTALL)
NAMED = re.compile(r"<ref name\s*=\s*[\"']?(\w+)", re.IGNORECASE)
NOT_PROSE = re.compile(r"[{}\[\]|<>=*_~#\\]|''|\.\w+\(|>>>")


@dataclass(frozen=True)
class Page:
    """A page of the wiki.

    Attributes:
        title: The title.
        text: The wikitext.
        namespace: The number of the namespace.
        redirect: The title of the target of a redirect, else "".
    """

    title: str
    text: str
    namespace: int = 0
    redirect: str = ""


def manual(pages: list[tuple[str, str]]) -> list[Entry]:
    """Return an article for each module with enough plain sentences in its documentation, given as (URL, HTML)."""
    modules = dict[str, list[str]]()
    for url, page in pages:
        name = url.rpartition("/")[2].removesuffix(".html").partition("-")[0]
        article = page.partition("<article>")[2].partition("</article>")[0]
        found = (html.unescape(text) for text in PARAGRAPH.findall(article))
        kept = [text for text in found if len(text) > 80 and text[-1] == "." and not NOT_PROSE.search(text)]
        module = modules.setdefault(name, [])
        module += [text for text in kept if text not in module]
    return [
        Entry(f"{name} (module)", "software", (("", (f"{name} is a module of the Python library.", *text)),))
        for name, text in sorted(modules.items())
        if sum(map(len, text)) > 500
    ]


def book(file: Path) -> Entry:
    """Return a book as one article."""
    title, *parts = file.read_text("utf-8").strip().split("\n\n")
    paragraphs = tuple(" ".join(part.split()) for part in parts if len(part) > 80)
    return Entry(title.title(), "book", (("", paragraphs),))


def articles(entries: list[Entry], references: list[Reference]) -> Iterator[Page]:
    """Yield the articles of entries. The references are divided evenly among a third of the articles, in order."""
    citing = [number for number in range(len(entries)) if (number + number // 6) % 3 == 0]
    share = {number: (len(references) * n // len(citing), len(references) * (n + 1) // len(citing))
             for n, number in enumerate(citing)}  # fmt: skip
    for number, entry in enumerate(entries):
        first, end = share.get(number, (0, 0))
        yield Page(entry.title, wikitext(entry, number, references[first:end]))


def wikitext(entry: Entry, number: int, cited: list[Reference]) -> str:
    """Return the wikitext of an article: an infobox, its sections, and sometimes a table or a picture.

    One reference follows each paragraph. The remaining references are in the section Sources, which also refers again
    to all named references. If the last reference has a name, it is defined in the list of references instead.
    """
    waiting = [reference.text for reference in cited]
    again = "".join(f'<ref name="{name}" />' for name in NAMED.findall("".join(waiting)))
    listed = waiting.pop() if len(waiting) > 1 and NAMED.search(waiting[-1]) else ""
    out = [f"{{{{Infobox {entry.kind}\n| name = {entry.title}\n| image = {entry.kind}.jpg <!-- replace -->\n}}}}"]
    for place, (heading, paragraphs) in enumerate(entry.sections):
        out += [f"== {heading} =="] if heading else []
        for paragraph in paragraphs:
            notes, waiting = waiting[:1], waiting[1:]
            out.append(marked(paragraph, entry.title, number + place) + "".join(notes))
        if place == number % 4 and number % 5 == 0:
            out.append(TABLE.format(number * 37 % 900 + 60, number * 53 % 900 + 80))
    if number % 6 == 1:
        out.append(f"[[File:{entry.kind}.jpg|thumb|left|A [[view]] of {entry.title}]]")
    out.append(f"== See also ==\n* [[List of {entry.kind} articles]]\n* [[Main Page|The front page]]")
    out += ["== Sources ==\nThe article follows older works." + "".join(waiting) + again] if waiting or again else []
    out.append("== References ==\n" + (f"{{{{reflist|refs=\n{listed}\n}}}}" if listed else "<references />"))
    out.append(f"{{{{Stub|{entry.kind}}}}}\n[[Category:{entry.kind.title()}]]\n")
    return "\n\n".join(out)


TABLE = """{{| class="wikitable" style="text-align:right"
|+ Population
! Year !! People
|-
| 1851 || {}
|-
| 1901 || {}
|}}"""


def marked(text: str, title: str, number: int) -> str:
    """Return a paragraph as wikitext, with one word linked, and the title in bold if the paragraph begins with it."""
    if text.startswith(title):
        text = f"'''{title}'''{text[len(title) :]}"
    word = ("river", "church", "water", "tower", "module", "object", "work")[number % 7]
    link = f"[[{word}]]" if number % 2 else f"[[{word} (disambiguation)|{word}]]"
    return text.replace(f" {word} ", f" {link} ", 1).replace(" miles ", "&nbsp;miles ")


def beside(uncited: list[str], first: str) -> list[Page]:
    """Return other pages: redirects, a help page, a template, a category, an empty page, a disambiguation page.

    Args:
        uncited: Three URLs. The help page, a comment and a nowiki text seem to cite one URL each. A reader must not
            count these URLs as cited.
        first: The title of the target of the redirects.
    """
    in_help, in_comment, in_raw_text = (f"<ref>[{url} A listing]</ref>" for url in uncited)
    return [
        Page("Main page (old)", f"#REDIRECT [[{first}]]", redirect=first),
        Page("Gazeteer", f"#redirect [[{first}]] {{{{R from misspelling}}}}", redirect=first),
        Page("Project:How to write", f"Say where you have it from.{in_help}\n\nWrite ''plainly''.", 4),
        Page("Template:Stub", "<noinclude>About.</noinclude><includeonly>A short {{{1}}} article.</includeonly>", 10),
        Page("Category:Village", "Places of all sizes.", 14),
        Page("Empty article", ""),
        Page(
            "Mill (disambiguation)",
            "'''Mill''' may be:\n* [[Corn mill]], for grain\n* [[Paper mill]], for rags "
            f"<!-- {in_comment} -->\n* <nowiki>[[not a link]] {in_raw_text}</nowiki>\n{{{{disambiguation}}}}\n",
        ),
    ]


def write(file: Path, pages: list[Page]) -> None:
    """Write the dump: a stream for the header, a stream for every 50 pages, and a stream for the end."""
    parts = ["".join(page_xml(page, start + n) for n, page in enumerate(pages[start : start + STREAM_PAGES]))
             for start in range(0, len(pages), STREAM_PAGES)]  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(bz2.compress(part.encode()) for part in (HEADER, *parts, "</mediawiki>\n")))


def page_xml(page: Page, number: int) -> str:
    """Return the XML of a page with this number, from which its ids and dates are computed."""
    data = page.text.encode()
    digest = int.from_bytes(hashlib.sha1(data).digest(), "big")
    redirect = f"    <redirect title={quoteattr(page.redirect)} />\n" if page.redirect else ""
    return (
        f"  <page>\n    <title>{escape(page.title)}</title>\n    <ns>{page.namespace}</ns>\n"
        f"    <id>{number + 10}</id>\n{redirect}    <revision>\n      <id>{number + 70_010}</id>\n"
        f"      <parentid>{number + 60_010}</parentid>\n"
        f"      <timestamp>2023-12-{number % 28 + 1:02}T08:{number % 60:02}:00Z</timestamp>\n      <contributor>\n"
        "        <username>Editor &amp; Sons</username>\n        <id>7</id>\n      </contributor>\n"
        f"      <comment>more about it</comment>\n      <origin>{number + 70_010}</origin>\n"
        f'      <model>wikitext</model>\n      <format>text/x-wiki</format>\n      <text bytes="{len(data)}" '
        f'sha1="{base36(digest)}" xml:space="preserve">{escape(page.text, {chr(34): "&quot;"})}</text>\n'
        f"      <sha1>{base36(digest)}</sha1>\n    </revision>\n  </page>\n"
    )


def base36(number: int) -> str:
    """Return a number as 31 digits in base 36, the form in which MediaWiki writes SHA-1 digests."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    out = ""
    while number:
        number, digit = divmod(number, 36)
        out = digits[digit] + out
    return out.rjust(31, "0")
