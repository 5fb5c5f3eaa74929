"""HTML to main text: ours beside resiliparse's main content and trafilatura's modes, one run, one core, same bytes.

A gold set is a pair of files, NAME.warc.gz and NAME.gold.jsonl.gz. A line of the second describes one page of the
first: `source_file` is the page's WARC header X-Source-File, and one of these says what its main text is:

- `gold_text`: the text. Precision, recall and F1 are those of the bags of words. Readers' comments, which some sets
  add after a line of marks, are cut off: an extractor should not return them.
- `with`, `without`: snippets that the text must and must not hold, as in trafilatura's own evaluation.
- `ingredients`, `instructions`: parts of the text of a recipe. Only the recall says something, since the introduction
  and the title are main text too.

The figures of a set are the means over its pages. Intervals are of paired bootstrap resamples of the pages. Speed is
CPU time from bytes to text, decoding included for all.
"""

import argparse
import gzip
import json
import logging
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.data import ABSENT, SHARED, table
from filters.data_files import parse_rows
from filters.formats.charset import decode
from filters.formats.http import parse_response
from filters.formats.stored import open_stored
from filters.formats.warc import Limits, read_frames
from filters.html.extract import ExtractionError, extract_text
from filters.html.model import MODEL, Model, read_model

FOLDERS = (SHARED / "html_extraction", SHARED / "html_extraction_more")
OURS = "ours"
MODES: dict[str, dict[str, bool]] = {  # trafilatura's, all without readers' comments
    "trafilatura, default": {},
    "trafilatura, favor_precision": {"favor_precision": True},
    "trafilatura, favor_recall": {"favor_recall": True},
    "trafilatura, fast": {"fast": True},
}
MAX_BODY = 32 << 20  # bytes
TURN = 25  # pages per turn of an extractor
RESAMPLES = 2_000
COMMENTS_MARK = re.compile(r"^!@#\$%\^&\*\(\).*COMMENTS\s*$", re.MULTILINE)  # of the set dragnet
WORD = re.compile(r"\w+")

Extractor = Callable[[str], str]
Scores = tuple[float, float, float]  # precision, recall, F1


class Page(NamedTuple):
    """A page with its stored body and its gold text or snippets."""

    name: str
    body: bytes
    gold: dict[str, Any]


def main(arguments: list[str]) -> int:
    """Measure the extractors on the gold sets of some folders.

    Returns:
        The exit code: 1 if no folder holds a gold set.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks extraction", description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", default=list(FOLDERS), metavar="DIR", help="of gold sets")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of our extractor, by `fit-extraction`")
    options = parser.parse_args(arguments)
    sets = load_sets(options.data)
    sets = {name: pages for name, pages in sets.items() if name in (options.sets or sets)}
    model = read_model(parse_rows(options.weights.read_text(encoding="utf-8"))) if options.weights else MODEL
    if not sets:
        print(f"no NAME.gold.jsonl.gz in {', '.join(map(str, options.data))}")
        return 1
    print(f"## extraction\n\n{report(sets, extractors(model))}")
    return 0


def run() -> str:
    """Return the tables for the shared gold sets, or say that they are missing."""
    sets = load_sets(FOLDERS)
    return report(sets, extractors()) if sets else ABSENT


def extractors(model: Model = MODEL) -> dict[str, Extractor]:
    """Return ours, resiliparse's, and trafilatura's if it is installed (with lxml_html_clean, which it imports)."""
    found: dict[str, Extractor] = {
        OURS: lambda html: extract_or_nothing(html, model),
        "resiliparse": lambda html: extract_text(html, extractor="resiliparse"),
    }
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it reports every page without text
    try:
        from trafilatura import extract
    except ImportError as error:
        logging.warning("trafilatura is left out: %s", error)
        return found

    def mode(options: dict[str, bool]) -> Extractor:
        return lambda html: extract(html, include_comments=False, **options) or ""

    return found | {name: mode(options) for name, options in MODES.items()}


def extract_or_nothing(html: str, model: Model = MODEL) -> str:
    """Return our main text, or an empty string for a page that we refuse."""
    try:
        return extract_text(html, model=model)
    except ExtractionError:
        return ""


def load_sets(folders: Sequence[Path]) -> dict[str, list[Page]]:
    """Return the gold sets of some folders by name, in the folders' order, then by name."""
    paths = [path for folder in folders for path in sorted(folder.glob("*.gold.jsonl.gz"))]
    return {path.name.removesuffix(".gold.jsonl.gz"): load(path) for path in paths}


def load(path: Path) -> list[Page]:
    """Return the pages of a set with their gold, in file order, without those that have none."""
    with gzip.open(path) as lines:
        gold = {record["source_file"]: record for record in map(json.loads, lines)}
    pages = []
    with open_stored(path.with_name(path.name.replace(".gold.jsonl.gz", ".warc.gz"))) as stored:
        for frame in read_frames(stored, Limits(MAX_BODY)):
            source = frame.headers.get("X-Source-File")
            if source in gold and has_gold(gold[source]):
                pages.append(Page(source, parse_response(frame.block, MAX_BODY).body, gold[source]))
    return pages


def has_gold(gold: dict[str, Any]) -> bool:
    """Return True if a record says anything about the main text of its page."""
    return bool(gold_text(gold).strip() or gold.get("with"))


def gold_text(gold: dict[str, Any]) -> str:
    """Return the main text that a record gives, without readers' comments; empty if it only has snippets."""
    if "gold_text" in gold:
        return COMMENTS_MARK.split(gold["gold_text"], maxsplit=1)[0]
    parts = [gold.get("ingredients") or [], gold.get("instructions") or []]
    return "\n".join(line for part in parts for line in ([part] if isinstance(part, str) else part))


def score(text: str, gold: dict[str, Any]) -> Scores:
    """Return precision, recall and F1 of a text, from words or snippets."""
    if "with" not in gold:
        return overlap(text, gold_text(gold))
    joined = " ".join(text.split())
    wanted, unwanted = (
        sum(" ".join(snippet.split()) in joined for snippet in gold[key] or []) for key in ("with", "without")
    )
    return _scores(wanted, wanted + unwanted, len(gold["with"]))


def overlap(text: str, gold: str) -> Scores:
    """Return bag-of-words precision, recall and F1 of a text."""
    ours, theirs = Counter(WORD.findall(text.lower())), Counter(WORD.findall(gold.lower()))
    return _scores((ours & theirs).total(), ours.total(), theirs.total())


def _scores(both: int, found: int, wanted: int) -> Scores:
    return both / max(1, found), both / max(1, wanted), 2 * both / max(1, found + wanted)


def extract_all(
    pages: list[Page], all_extractors: dict[str, Extractor]
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Run all extractors in turns of a few pages, so that other load on the machine affects all equally.

    Returns:
        {extractor: texts, one per page} and {extractor: CPU seconds}, decoding included.
    """
    texts: dict[str, list[str]] = {name: [] for name in all_extractors}
    seconds = dict.fromkeys(all_extractors, 0.0)
    for start in range(0, len(pages), TURN):
        for name, extract in all_extractors.items():
            begun = time.process_time()
            texts[name] += [extract(decode(page.body, None)) for page in pages[start : start + TURN]]
            seconds[name] += time.process_time() - begun
    return texts, seconds


def report(sets: dict[str, list[Page]], all_extractors: dict[str, Extractor]) -> str:
    """Return the table of all extractors and sets, and that of ours minus the best peer."""
    scores: dict[str, dict[str, list[Scores]]] = {name: {} for name in all_extractors}
    seconds = dict.fromkeys(all_extractors, 0.0)
    for of_set, pages in sets.items():
        texts, spent = extract_all(pages, all_extractors)
        for name, found in texts.items():
            seconds[name] += spent[name]
            scores[name][of_set] = [score(text, page.gold) for text, page in zip(found, pages, strict=True)]
    count = sum(map(len, sets.values()))
    rows = []
    for name, of_sets in scores.items():
        means = [_mean_scores(found) for found in of_sets.values()]
        cells = [f"{f1:.4f} ({precision:.3f}, {recall:.3f})" for precision, recall, f1 in [*means, _mean_scores(means)]]
        speed = f"{count / seconds[name]:.0f}", f"{seconds[name] / seconds[OURS]:.1f}"
        rows.append([name, *cells, *speed])
    headings = [f"{of_set}, {len(pages)} pages" for of_set, pages in sets.items()]
    head = ["F1 (precision, recall)", *headings, "mean of the sets", "pages/s", "ours is faster by"]
    return f"{table(head, rows)}\n\n{compare(scores)}"


def _mean_scores(scores: Sequence[Scores]) -> Scores:
    precision, recall, f1 = (statistics.fmean(column) for column in zip(*scores, strict=True))
    return precision, recall, f1


def compare(scores: dict[str, dict[str, list[Scores]]]) -> str:
    """Return the table of the F1 of ours minus that of the peer that is best in the mean of the sets, by set."""
    f1s = {name: {of_set: [f1 for *_, f1 in found] for of_set, found in of.items()} for name, of in scores.items()}
    means = {name: statistics.mean(map(statistics.mean, of_sets.values())) for name, of_sets in f1s.items()}
    peer = max((name for name in means if name != OURS), key=means.__getitem__)
    differences = {
        of_set: [a - b for a, b in zip(found, f1s[peer][of_set], strict=True)] for of_set, found in f1s[OURS].items()
    }
    rows = [[of_set, *interval([found])] for of_set, found in differences.items()]
    rows.append(["mean of the sets", *interval(list(differences.values()))])
    return table([f"F1 of ours minus {peer}", "difference", "95 % interval"], rows)


def interval(differences: list[list[float]]) -> tuple[str, str]:
    """Return the mean over sets of mean differences, and its bootstrap interval, pages drawn within their set."""
    chance = random.Random(1)
    means = sorted(
        statistics.mean(statistics.fmean(chance.choices(of_set, k=len(of_set))) for of_set in differences)
        for _ in range(RESAMPLES)
    )
    low, high = means[RESAMPLES * 25 // 1000], means[RESAMPLES * 975 // 1000]
    return f"{statistics.mean(map(statistics.fmean, differences)):+.4f}", f"{low:+.4f} to {high:+.4f}"
