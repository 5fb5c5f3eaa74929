"""Measure the conversion of wikitext to text, beside `strip_code` of mwparserfromhell: pages per second and token F1.

RedPajama's rows were made with `strip_code`. There are two sets of pages with reference texts:

- Golden pages (samples/wikipedia) in twenty languages. Their reference text was written by hand.
- Real pages. Their reference text is rendered by this module from mwparserfromhell's parse tree, by the rules of
  docs/sources/wikipedia.md: links become their text; pictures, categories, tables, notes and comments are removed; a
  few templates show their argument. This rendering shares no code with our converter, but shares the parser with
  `strip_code`.
"""

import re
import statistics
from collections import Counter
from typing import Any, NamedTuple

import mwparserfromhell
from mwparserfromhell import nodes

from benchmarks.data import ABSENT, ROOT, SHARED, table
from benchmarks.measure import alternate, format_ratios
from filters.formats.mediawiki import Page, read_dump
from filters.wikitext.render import render_text

ROUNDS = 5
GOLDEN = ROOT / "samples/wikipedia"
HIDDEN = ("ref", "references", "gallery", "timeline", "imagemap", "table", "templatestyles", "graph", "score")
FILES = ("file:", "image:", "datei:", "bild:", "archivo:", "fichier:", "fitxer:", "imatge:", "soubor:", "fájl:", "kép:",
         "plik:", "файл:", "изображение:", "датотека:", "слика:", "картинка:", "imagen:", "immagine:", "category:",
         "kategorie:", "categoría:", "catégorie:", "categoria:", "kategória:", "kategoria:", "категория:",
         "категорија:")  # fmt: skip
# By name of a template: the position of the argument that it shows, from 1.
ARGUMENTS = {"lang": 2, "langue": 2, "langx": 2, "nowrap": 1, "nobr": 1, "formatnum": 1, "ta": 1, "esd": 1,
             "smaller": 1, "vanchor": 1, "abbr": 1, "szám": 1, "quote": 1, "zitat": 1, "senza fonte": 1}  # fmt: skip
PAIRS = ("convert", "unité", "nombre", "tmp")  # templates that show a quantity and a unit
_TOKEN = re.compile(r"\w+")


class Article(NamedTuple):
    """A page: its language, title, wikitext and reference text."""

    language: str
    title: str
    wikitext: str
    reference: str


def golden() -> list[Article]:
    """Return the golden pages with their hand-written reference texts."""
    found = []
    for path in sorted(GOLDEN.glob("*.wiki")):
        title, _, text = path.with_suffix(".txt").read_text("utf-8").partition("\n\n")
        found.append(Article(path.stem, title, path.read_text("utf-8"), text))
    return found


def real() -> list[Article]:
    """Return the articles of the real sample dumps, with reference texts from `render_tree`."""
    return [
        Article(path.name[:2], page.title, page.wikitext, render_tree(mwparserfromhell.parse(page.wikitext)))
        for path in sorted((SHARED / "wikipedia").rglob("*.bz2"))
        for page in read_dump(path)
        if isinstance(page, Page) and page.namespace == 0 and not page.redirect
        if not page.wikitext.lstrip().lower().startswith("#redirect")
    ]


def render_tree(code: Any) -> str:
    """Return the text of a parse tree of mwparserfromhell, by the rules in this module's docstring."""
    return "".join(map(_node, code.nodes))


def _node(node: Any) -> str:
    """Return the text of one node of a parse tree."""
    if isinstance(node, nodes.Text | nodes.HTMLEntity):
        return str(node.normalize() if isinstance(node, nodes.HTMLEntity) else node)
    if isinstance(node, nodes.Heading):
        return render_tree(node.title)
    if isinstance(node, nodes.ExternalLink):
        return render_tree(node.title) if node.title else "" if node.brackets else str(node.url)
    if isinstance(node, nodes.Wikilink):
        target = str(node.title).strip()
        if target.lower().startswith(FILES) or re.match(r"[a-z]{2,3}:", target):
            return ""
        return render_tree(node.text) if node.text else target.removeprefix(":")
    if isinstance(node, nodes.Template):
        return _template(node)
    if isinstance(node, nodes.Tag):
        tag = str(node.tag).lower()
        if tag in HIDDEN or node.contents is None:
            return "" if tag not in ("br",) else "\n"
        return str(node.contents) if tag in ("math", "nowiki", "syntaxhighlight") else render_tree(node.contents)
    return ""


def _template(node: Any) -> str:
    """Return the text that a template shows, or "" for a template that shows none."""
    name = str(node.name).strip().lower()
    if name.startswith("formatnum:"):
        return name.partition(":")[2]
    if re.fullmatch(r"lang-\w{2,3}", name):
        name, place = "lang", 1
    else:
        place = ARGUMENTS.get(name, 0)
    shown = [render_tree(item.value).strip() for item in node.params if not item.showkey]
    if name in PAIRS:
        return " ".join(shown[:2])
    return shown[place - 1] if 0 < place <= len(shown) else ""


def f1(text: str, reference: str) -> float:
    """Return the token F1 of two texts as bags of words."""
    ours, theirs = (Counter(_TOKEN.findall(part.lower())) for part in (text, reference))
    common = (ours & theirs).total()
    return 2 * common / max(ours.total() + theirs.total(), 1)


def ours(article: Article, apparatus: bool = True) -> str:
    """Return our text of an article. `apparatus=False` removes the sections of notes, links and literature."""
    return render_text(article.wikitext, article.language, article.title, apparatus)


def theirs(article: Article) -> str:
    """Return the text of an article by mwparserfromhell's `strip_code`."""
    return str(mwparserfromhell.parse(article.wikitext).strip_code())


def run() -> str:
    """Return a table of both sets of pages: median rates over alternating rounds, and mean token F1."""
    lines = []
    for name, articles, sections in (("golden, 20 languages", golden(), False), ("real dumps", real(), True)):
        if not articles:
            continue
        some = articles * (1 if len(articles) > 20 else 20)  # A small set is repeated, so that its time is measurable.
        ways = {"ours": lambda some=some: list(map(ours, some)), "theirs": lambda some=some: list(map(theirs, some))}
        seconds, _ = alternate(ways, ROUNDS)
        quick, slow = (statistics.median(times) for times in seconds.values())
        mine = statistics.mean(f1(ours(article, sections), article.reference) for article in articles)
        other = statistics.mean(f1(theirs(article), article.reference) for article in articles)
        over = format_ratios(seconds["theirs"], seconds["ours"], 1)
        rates = [f"{len(some) / quick:,.0f}", f"{len(some) / slow:,.0f}", over]
        lines.append([name, len(articles), *rates, f"{mine:.4f}", f"{other:.4f}"])
    headings = [
        "pages",
        "number",
        "ours, pages/s",
        "strip_code, pages/s",
        "times as fast",
        "our F1",
        "F1 of strip_code",
    ]
    return table(headings, lines) + ("" if len(lines) > 1 else f"\n\nreal dumps: {ABSENT}")
