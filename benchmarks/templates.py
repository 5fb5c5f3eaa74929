"""Count, by language, the templates in prose of Wikipedia dumps whose text our converter cannot show.

`python -m benchmarks templates [--data DIR] [--names N]` reads all dumps below DIR (`xxwiki-….xml.bz2`, `xx.wiki.xml`).
It counts templates on lines of prose, which have at least five words outside templates. Templates inside tables, notes
and other templates are not counted.

A template is a content template if a reader of the page would see text in its place. This is so if our tables of
templates contain it with a text, or if it is unknown and the text around it suggests it (`filters.wikitext.gaps`). A
content template is lost if it is unknown and has no argument that can be shown. Our converter then removes the
sentence.
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

WORDS = 5  # smallest number of words outside templates on a line of prose
SHOWN, SILENT, ASIDE_MARK, LOST = "shown", "notes and boxes", "unknown notes, pronunciations", "lost"
_BRACKETS = re.compile(r"\{\{|\}\}|\{\||\|\}(?!\})")
_WORD = re.compile(r"[^\W\d_]+")


class Use(NamedTuple):
    """A template on a line of prose.

    Attributes:
        content: The wikitext between its braces.
        left: The line before the template, without other templates.
        right: The line after the template, without other templates.
    """

    content: str
    left: str
    right: str


def find_uses(wikitext: str) -> Iterator[Use]:
    """Yield the templates on lines of prose that are not inside other templates or tables."""
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
    """Yield (start, end) of each template or table that is not inside another template or table."""
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
    """Return how our converter treats a template.

    Returns:
        SHOWN: The template's text is shown.
        SILENT: The template is removed because of its name or form: notes and boxes.
        ASIDE_MARK: The template is unknown, or a pronunciation, and is removed like a note.
        LOST: The template is unknown, stands in a sentence and cannot be shown.
    """
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
    """Count the templates in all dumps below a folder.

    Returns:
        The counts by language and class, and the counts of lost templates by (language, name).
    """
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
    """Print the table by language and the names of the templates that are lost most often. Return the exit code."""
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
