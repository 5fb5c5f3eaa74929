"""Generate the manual of a library that does not exist, as web pages. It is the documentation in the small sample.

Chapters and modules are generated from sentence patterns, like the articles of the gazetteer, so they are the same with
every Python version. Each file in `manual/*.txt` has the patterns of one kind of chapter. `manual/library/` has the
patterns of sentences about modules and functions.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import gazetteer
from ccnet import is_for_wiki
from prose import Block
from pydoc_pages import SITE, Section, make_pages

MANUAL = Path(__file__).parent / "manual"
# The word for the data of a function in the patterns. Each module replaces it by another word.
ROW = re.compile(r"\brow(s?)\b")
CHAPTERS, MODULES, BUILTIN, FUNCTIONS = 84, 44, 14, 6


def pages() -> list[tuple[str, str]]:
    """Return (URL, HTML) of all pages, sorted by URL."""
    out = dict[str, str]()
    for number in range(CHAPTERS):
        out.update(chapter(number))
    for kind, count in (("library", MODULES), ("builtin", BUILTIN)):
        for number in range(count):
            out.update(module(kind, number))
    return sorted(out.items())


def choose_evenly(every: list[tuple[str, str]], limit: int) -> list[tuple[str, str]]:
    """Return at most `limit` pages at even distances in the list."""
    return every[:: max(1, len(every) // limit)][:limit]


def chapter(number: int) -> Iterator[tuple[str, str]]:
    """Yield (URL, HTML) of the pages of a chapter, which has sentences under a few headings."""
    files = sorted(MANUAL.glob("*.txt"))
    chance, known = random.Random(f"manual {number}"), dict[str, str]()
    title_pattern, *parts = files[number % len(files)].read_text("utf-8").strip().split("\n\n")
    title = gazetteer.fill_pattern(title_pattern, chance, known).replace("`", "")
    sections = [
        Section(heading, [Block("p", text.replace("`", "")) for text in paragraphs])
        for heading, paragraphs in gazetteer.sections(parts, chance, known)
    ]
    slug = re.sub(r"[^a-z0-9]+", "-", f"{title} {number}".lower())
    yield from make_pages(f"reference/{slug}", title, sections)


def module(kind: str, number: int) -> Iterator[tuple[str, str]]:
    """Yield (URL, HTML) of the pages of a module: an introduction, and some functions with signatures."""
    chance, known = random.Random(f"{kind} {number}"), dict[str, str]()
    name = gazetteer.fill_pattern("$parta", chance, known).replace(" ", "_") + f"{number}"
    introduction = (MANUAL / "library/modules.txt").read_text("utf-8").splitlines()
    half = is_for_wiki(f"{SITE}/{kind}/{name}.html")  # The wiki and the crawls use different halves.
    chosen = chance.sample(introduction[half::2], 4)
    item = gazetteer.fill_pattern("$item", chance, known)

    def said(pattern: str) -> Block:
        return Block("p", ROW.sub(rf"{item}\1", gazetteer.fill_pattern(pattern, chance, known)))

    sections = [Section("", list(map(said, chosen)))]
    functions = (MANUAL / "library/functions.txt").read_text("utf-8").strip().split("\n\n")
    for function in sorted(chance.sample(functions[half::2], FUNCTIONS)):
        head, *lines = function.split("\n")
        verb, _, parameters = head.partition(" ")
        signature = f"{name}.{verb}({parameters.removeprefix('-')})"
        sections.append(Section(f"{name}.{verb}", [Block("pre", signature), *map(said, lines)]))
    yield from make_pages(f"{kind}/{name}", f"The {name} module", sections)
