"""Count, by language, the templates in the running text of Wikipedia dumps that stand for text and are lost.

`python -m benchmarks templates [--data DIR] [--names N]` reads all dumps below DIR (`xxwiki-….xml.bz2`, `xx.wiki.xml`).
Looked at are templates on a line of prose, with five words or more around them, outside tables, notes and other
templates. One stands for text if a table of ours says what it shows, or if it is unknown and what is around it says so
(`filters.wikitext.gaps`). Lost ones are unknown and have no argument that can be shown, so their sentence is removed.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.data import ABSENT, SHARED, table
from filters.formats.mediawiki import Page, read_dump
from filters.wikitext.gaps import GONE, SPOKEN, UNKNOWN, resolve_marks
from filters.wikitext.names import ASIDE, CODE, LITERAL
from filters.wikitext.render import strip_elements
from filters.wikitext.templates import render_template
from manifests.source import Source
from pipeline.sources.wikipedia import detect_language

WORDS = 5  # beside the templates of a line, at least, for it to be prose
SHOWN, SILENT, ASIDE_MARK, LOST = "shown", "notes and boxes", "unknown notes, pronunciations", "lost"
_BRACKETS = re.compile(r"\{\{|\}\}|\{\||\|\}(?!\})")
_WORD = re.compile(r"[^\W\d_]+")


class Use(NamedTuple):
    """A template on a line of prose: what is between its braces, and the line on both sides of it."""

    content: str
    left: str
    right: str


def find_uses(wikitext: str) -> Iterator[Use]:
    """Yield the outermost templates on lines of prose."""
    text = strip_elements(wikitext, LITERAL | CODE | ASIDE)
    spans = list(_outermost(text))
    plain = list(text)
    for start, end in spans:
        plain[start:end] = ["\n" if character == "\n" else "" for character in plain[start:end]]
    for start, end in spans:
        begin, stop = text.rfind("\n", 0, start) + 1, text.find("\n", end)
        stop = len(text) if stop < 0 else stop
        around = "".join(plain[begin:start]) + " " + "".join(plain[end:stop])
        if text[start:end].startswith("{{") and text[begin] not in "|!" and len(_WORD.findall(around)) >= WORDS:
            yield Use(text[start + 2 : end - 2], "".join(plain[begin:start]), "".join(plain[end:stop]))


def _outermost(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of templates and tables that are in no other."""
    depth, start = 0, 0
    for mark in _BRACKETS.finditer(text):
        if mark[0] in ("{{", "{|"):
            start = start if depth else mark.start()
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                yield start, mark.end()


def classify(use: Use, language: str) -> str:
    """Return what becomes of a template: shown, silent by its name or form, left out like a note, or lost."""
    shown = render_template(use.content, language, "Title")
    if shown == GONE:
        return SILENT
    if UNKNOWN not in shown and SPOKEN not in shown:
        return SHOWN
    whole = not use.left.startswith(("*", "#", ":", ";"))
    left = use.left.lstrip("*#:;").replace("'''", "").replace("''", "").replace("[[", "")
    right = use.right.replace("'''", "").replace("''", "").replace("[[", "")
    line = resolve_marks(f"{left}{shown}{right}", whole_line=whole)
    if line == f"{left}{GONE}{right}" or (GONE in line and UNKNOWN not in shown):
        return ASIDE_MARK
    phrase = shown.strip("\x07\x08\x0e")
    return SHOWN if phrase and phrase in line else LOST


def measure(folder: Path) -> tuple[dict[str, Counter[str]], Counter[tuple[str, str]]]:
    """Return the uses by language and class, and the names of lost templates by language."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    lost: Counter[tuple[str, str]] = Counter()
    for path in sorted({*folder.rglob("*.xml*"), *folder.rglob("*.bz2")}):
        language = detect_language(path.relative_to(folder).as_posix(), Source(weight=1))
        for page in read_dump(path) if language else ():
            if not isinstance(page, Page) or page.namespace or page.redirect:
                continue
            for use in find_uses(page.wikitext):
                found = classify(use, language)
                classes[language][found] += 1
                if found == LOST:
                    lost[language, use.content.partition("|")[0].strip()] += 1
    return classes, lost


def main(arguments: list[str]) -> int:
    """Print the table, and the names of the templates that are lost most often."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks templates", description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "wikipedia", help="a folder of Wikipedia dumps")
    parser.add_argument("--names", type=int, default=20, help="how many names of lost templates to list")
    options = parser.parse_args(arguments)
    classes, lost = measure(options.data)
    if not classes:
        print(f"no dumps below {options.data}; {ABSENT}")
        return 1
    rows = []
    for language, counts in [*sorted(classes.items()), ("all", sum(classes.values(), Counter()))]:
        content = counts[SHOWN] + counts[LOST]
        share = f"{counts[LOST] / content:.1%}" if content else "-"
        rows.append([language, content, counts[LOST], share, counts[SILENT], counts[ASIDE_MARK]])
    print(table(["language", "content templates", "lost", "share", SILENT, ASIDE_MARK], rows))
    often = [f"{name} ({language}, {number})" for (language, name), number in lost.most_common(options.names)]
    print(f"\nlost most often: {', '.join(often)}")
    return 0
