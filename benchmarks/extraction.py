"""HTML to main text: ours beside resiliparse's main content and trafilatura's modes, one run, one core, same bytes.

Quality is measured on hand-made gold texts: bag-of-words precision, recall and F1 per page, the mean of a set, then of
the sets; and snippets that a page's text must or must not hold. Words and phrases were taken only from the half of the
pages whose file name hashes to an even number. The other half is shown apart, but a few thresholds
(filters.html.boilerplate: ARTICLE_SHARE, the stems; filters.html.blocks: TAIL_LENGTH) were chosen with both halves in
view, so it is not a clean test set.

Speed is CPU time from bytes to text, decoding included for all.
"""

import gzip
import hashlib
import json
import logging
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.data import ABSENT, SHARED, table
from filters.formats.charset import decode
from filters.formats.http import parse_response
from filters.formats.stream import open_stored
from filters.formats.warc import Limits, read_frames
from filters.html.extract import ExtractionError, extract_text

FOLDER = SHARED / "html_extraction"
TEXT_SETS = ("cleaneval-dev", "page-signal-a", "readability-a")
SNIPPET_SET = "trafilatura-a"
RECIPE_SET = "recipes-a"
# Comments are left out, as in its own evaluation: mean F1 and snippets are higher, CleanEval is lower.
MODES: dict[str, dict[str, bool]] = {
    "trafilatura, favor_recall": {"favor_recall": True},
    "trafilatura, default": {},
    "trafilatura, favor_precision": {"favor_precision": True},
    "trafilatura, fast": {"fast": True},
}
MAX_BODY = 32 << 20
TURN = 25  # pages per turn of an extractor
WORD = re.compile(r"\w+")


class Page(NamedTuple):
    """A page with its stored body and its gold text or snippets."""

    name: str
    body: bytes
    gold: dict[str, Any]


Extractor = Callable[[str], str]


def run() -> str:
    """Return the table, the quality columns of the held-out half, and our speed over each mode."""
    if not FOLDER.is_dir():
        return ABSENT
    pages = {name: load(name) for name in (*TEXT_SETS, SNIPPET_SET, RECIPE_SET)}
    size = sum(len(page.body) for of_set in pages.values() for page in of_set)
    rows, held_out = [], []
    texts, seconds = extract_all([page for of_set in pages.values() for page in of_set], extractors())
    for name, found in texts.items():
        rate = [f"{size / seconds[name] / 1e6:.1f}", f"{len(found) / seconds[name]:.0f}"]
        faster = f"{seconds[name] / seconds['ours']:.1f}"
        rows.append([name, *quality(pages, found, None), *rate, faster])
        held_out.append([name, *quality(pages, found, 1)])
    head = [
        "extractor",
        *(f"{name} F1 (P, R)" for name in TEXT_SETS),
        "mean F1",
        "wanted",
        "unwanted kept out",
        "snippets",
    ]
    speed = ["MB/s", "pages/s", "ours is faster by"]
    return (
        f"{table([*head, 'recipes recall', *speed], rows)}\n\nThe half that no phrase was drawn from:\n\n"
        f"{table([*head, 'recipes recall'], held_out)}"
    )


def extractors() -> dict[str, Extractor]:
    """Return ours, resiliparse's, and trafilatura's if it is installed (with lxml_html_clean, which it imports)."""
    found: dict[str, Extractor] = {
        "ours": ours,
        "resiliparse main_content": lambda html: extract_text(html, extractor="resiliparse"),
        "resiliparse, all text": lambda html: extract_text(html, extractor="all"),
    }
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it reports every page without text
    try:
        from trafilatura import extract
    except ImportError:
        return found

    def mode(options: dict[str, bool]) -> Extractor:
        return lambda html: extract(html, include_comments=False, **options) or ""

    return found | {name: mode(options) for name, options in MODES.items()}


def ours(html: str) -> str:
    """Return our main text, or an empty string for a page that we refuse."""
    try:
        return extract_text(html)
    except ExtractionError:
        return ""


def load(name: str) -> list[Page]:
    """Return the pages of a set with their gold, in file order."""
    with gzip.open(FOLDER / f"{name}.gold.jsonl.gz") as lines:
        gold = {record["source_file"]: record for record in map(json.loads, lines)}
    pages = []
    with open_stored(FOLDER / f"{name}.warc.gz") as stored:
        for frame in read_frames(stored, Limits(MAX_BODY)):
            source = frame.headers.get("X-Source-File")
            if source in gold:
                pages.append(Page(source, parse_response(frame.block, MAX_BODY).body, gold[source]))
    return pages


def extract_all(
    pages: list[Page], all_extractors: dict[str, Extractor]
) -> tuple[dict[str, dict[str, str]], dict[str, float]]:
    """Run all extractors in turns of a few pages, so that other load on the machine affects all equally.

    Returns:
        {extractor: {page: text}} and {extractor: CPU seconds}, decoding included.
    """
    texts: dict[str, dict[str, str]] = {name: {} for name in all_extractors}
    seconds = dict.fromkeys(all_extractors, 0.0)
    for start in range(0, len(pages), TURN):
        for name, extract in all_extractors.items():
            begun = time.process_time()
            for page in pages[start : start + TURN]:
                texts[name][page.name] = extract(decode(page.body, None))
            seconds[name] += time.process_time() - begun
    return texts, seconds


def quality(pages: dict[str, list[Page]], texts: dict[str, str], half: int | None) -> list[str]:
    """Return the quality columns, over all pages or over one half of them."""
    chosen = {name: [p for p in of_set if half in (None, half_of(p.name))] for name, of_set in pages.items()}
    cells, f1s = [], []
    for name in TEXT_SETS:
        scores = [overlap(texts[page.name], page.gold["gold_text"]) for page in chosen[name]]
        precision, recall, f1 = (statistics.mean(column) for column in zip(*scores, strict=True))
        f1s.append(f1)
        cells.append(f"{f1:.4f} ({precision:.3f}, {recall:.3f})")
    wanted, unwanted = [], []
    for page in chosen[SNIPPET_SET]:
        text = " ".join(texts[page.name].split())
        wanted += [" ".join(snippet.split()) in text for snippet in page.gold["with"]]
        unwanted += [" ".join(snippet.split()) not in text for snippet in page.gold["without"]]
    recipes = []
    for page in chosen[RECIPE_SET]:
        parts = [page.gold[key] or [] for key in ("ingredients", "instructions")]
        gold = " ".join(line for part in parts for line in ([part] if isinstance(part, str) else part))
        if gold:
            recipes.append(overlap(texts[page.name], gold)[1])
    shares = (statistics.mean(wanted), statistics.mean(unwanted), statistics.mean(wanted + unwanted))
    return [
        *cells,
        f"{statistics.mean(f1s):.4f}",
        *(f"{share:.4f}" for share in shares),
        f"{statistics.mean(recipes):.3f}",
    ]


def half_of(name: str) -> int:
    """Return 0 for the pages from which words and phrases were taken, 1 for the others."""
    return hashlib.sha256(name.encode()).digest()[0] & 1


def overlap(text: str, gold: str) -> tuple[float, float, float]:
    """Return bag-of-words precision, recall and F1 of a text."""
    ours, theirs = Counter(WORD.findall(text.lower())), Counter(WORD.findall(gold.lower()))
    both = (ours & theirs).total()
    precision, recall = both / max(1, ours.total()), both / max(1, theirs.total())
    return precision, recall, 2 * both / max(1, ours.total() + theirs.total())
