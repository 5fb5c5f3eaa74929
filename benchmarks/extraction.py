"""Measure main-text extraction: ours, resiliparse's main content and trafilatura's modes, on the same pages and core.

A gold set is a pair of files, NAME.warc.gz and NAME.gold.jsonl.gz. Each line of the second file is a JSON object that
describes one page of the first file. Its key `source_file` is the page's WARC header X-Source-File. Its other keys
describe the main text in one of three ways:

- `gold_text`: the main text. Precision, recall and F1 are computed on bags of words. In some sets, readers' comments
  follow after a line of punctuation marks. They are cut off, because an extractor should not return them.
- `with`, `without`: snippets that must be in the text, and that must not be in the text, as in trafilatura's own
  evaluation.
- `ingredients`, `instructions`: parts of the text of a cooking recipe. Only the recall is meaningful, because the
  introduction and the title are main text too.

The figures of a set are means over its pages. Confidence intervals are computed by paired bootstrap resampling of the
pages. Speed is the CPU time from bytes to text, including decoding for all extractors.
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
# The modes of trafilatura, as keyword arguments of its function `extract`. All modes exclude readers' comments.
MODES: dict[str, dict[str, bool]] = {
    "trafilatura, default": {},
    "trafilatura, favor_precision": {"favor_precision": True},
    "trafilatura, favor_recall": {"favor_recall": True},
    "trafilatura, fast": {"fast": True},
}
MAX_BODY = 32 << 20  # largest record and body, in bytes
TURN = 25  # pages that an extractor processes before the next extractor's turn
RESAMPLES = 2_000
COMMENTS_MARK = re.compile(r"^!@#\$%\^&\*\(\).*COMMENTS\s*$", re.MULTILINE)  # starts the comments in the set dragnet
WORD = re.compile(r"\w+")

Extractor = Callable[[str], str]
Scores = tuple[float, float, float]  # precision, recall, F1


class Page(NamedTuple):
    """A page: its name in the set, its stored body, and its line of the gold file."""

    name: str
    body: bytes
    gold: dict[str, Any]


def main(arguments: list[str]) -> int:
    """Measure the extractors on gold sets and print the tables.

    Returns:
        The exit code: 0, or 1 if no gold set was found.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks extraction", description=__doc__)
    parser.add_argument(
        "--data", type=Path, nargs="+", default=list(FOLDERS), metavar="DIR", help="folders with gold sets"
    )
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of our extractor, from `fit-extraction`")
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
    """Return the tables for the shared gold sets, or a message if they are missing."""
    sets = load_sets(FOLDERS)
    return report(sets, extractors()) if sets else ABSENT


def extractors(model: Model = MODEL) -> dict[str, Extractor]:
    """Return our extractor, resiliparse's, and the modes of trafilatura, by name.

    trafilatura is left out, with a warning, if it or its dependency lxml_html_clean is not installed.
    """
    found: dict[str, Extractor] = {
        OURS: lambda html: extract_or_nothing(html, model),
        "resiliparse": lambda html: extract_text(html, extractor="resiliparse"),
    }
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # It logs every page without text.
    try:
        from trafilatura import extract
    except ImportError as error:
        logging.warning("trafilatura is left out: %s", error)
        return found

    def mode(options: dict[str, bool]) -> Extractor:
        return lambda html: extract(html, include_comments=False, **options) or ""

    return found | {name: mode(options) for name, options in MODES.items()}


def extract_or_nothing(html: str, model: Model = MODEL) -> str:
    """Return the main text by our extractor, or an empty string if it raises ExtractionError."""
    try:
        return extract_text(html, model=model)
    except ExtractionError:
        return ""


def load_sets(folders: Sequence[Path]) -> dict[str, list[Page]]:
    """Return the gold sets of some folders by name, in the order of the folders, then of the names."""
    paths = [path for folder in folders for path in sorted(folder.glob("*.gold.jsonl.gz"))]
    return {path.name.removesuffix(".gold.jsonl.gz"): load(path) for path in paths}


def load(path: Path) -> list[Page]:
    """Return the pages of a set that have gold data, in the order of the WARC file.

    Args:
        path: The file NAME.gold.jsonl.gz.
    """
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
    """Return True if a record contains a gold text, parts of a text, or wanted snippets."""
    return bool(gold_text(gold).strip() or gold.get("with"))


def gold_text(gold: dict[str, Any]) -> str:
    """Return the gold text of a record without readers' comments, or "" if the record has only snippets."""
    if "gold_text" in gold:
        return COMMENTS_MARK.split(gold["gold_text"], maxsplit=1)[0]
    parts = [gold.get("ingredients") or [], gold.get("instructions") or []]
    return "\n".join(line for part in parts for line in ([part] if isinstance(part, str) else part))


def score(text: str, gold: dict[str, Any]) -> Scores:
    """Return precision, recall and F1 of a text, computed on snippets if the record has them, else on words."""
    if "with" not in gold:
        return overlap(text, gold_text(gold))
    joined = " ".join(text.split())
    wanted, unwanted = (
        sum(" ".join(snippet.split()) in joined for snippet in gold[key] or []) for key in ("with", "without")
    )
    return _scores(wanted, wanted + unwanted, len(gold["with"]))


def overlap(text: str, gold: str) -> Scores:
    """Return precision, recall and F1 of a text, computed on bags of words."""
    ours, theirs = Counter(WORD.findall(text.lower())), Counter(WORD.findall(gold.lower()))
    return _scores((ours & theirs).total(), ours.total(), theirs.total())


def _scores(both: int, found: int, wanted: int) -> Scores:
    return both / max(1, found), both / max(1, wanted), 2 * both / max(1, found + wanted)


def extract_all(
    pages: list[Page], all_extractors: dict[str, Extractor]
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Run all extractors in turns of `TURN` pages, so that other load on the machine affects all equally.

    Returns:
        {extractor: texts, one per page}, and {extractor: CPU seconds including decoding}.
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
    """Return the table of all extractors and sets, and the table of the difference between ours and the best peer."""
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
    """Return a table, by set, of our F1 minus the F1 of the best peer: the peer with the highest mean over the sets."""
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
    """Return the mean difference and its 95 % bootstrap interval, as text.

    Args:
        differences: The difference of each page, by set. The mean is the mean over sets of the means over pages. The
            bootstrap draws pages within each set.
    """
    chance = random.Random(1)
    means = sorted(
        statistics.mean(statistics.fmean(chance.choices(of_set, k=len(of_set))) for of_set in differences)
        for _ in range(RESAMPLES)
    )
    low, high = means[RESAMPLES * 25 // 1000], means[RESAMPLES * 975 // 1000]
    return f"{statistics.mean(map(statistics.fmean, differences)):+.4f}", f"{low:+.4f} to {high:+.4f}"
