"""Fit the weights of the main-text extractor (filters/html/weights.tsv) on gold sets: logistic regression by blocks.

    python -m benchmarks fit-extraction --data ../shared/data/html_extraction [--leave-out SET] [--output FILE]

A block's label is the share of its words that lie in runs of three words of the gold text; a shorter block must stand
in it where the blocks before it ended. A block weighs as much as its share in the words of its page, so that pages
count alike.

Pages that have only snippets or parts of their text as gold are labelled by two other extractors as far as these agree:
trafilatura's default and resiliparse's main content (where they disagree, trafilatura counts, with a lower weight). The
snippets and parts count on top. Each set of a new kind would otherwise need gold texts of its own.

Each feature is a piecewise linear curve with knots at its quantiles. The penalty holds the weights small and the curves
smooth. The result depends on the pages alone: the same sets give the same file.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from resiliparse.parse.html import HTMLTree

from benchmarks.data import ROOT, SHARED
from benchmarks.extraction import WORD, Page, extractors, gold_text, load_sets
from filters.formats.charset import decode
from filters.html.blocks import parse_blocks
from filters.html.features import Features, describe_blocks
from filters.html.model import CUT, CUT_SHARE, INSIDE, INTERCEPT, NEAREST
from filters.html.names import BITS

Array = npt.NDArray[np.float64]

WEIGHTS = ROOT / "filters/html/weights.tsv"
TEACHERS = ("trafilatura, default", "resiliparse")
RUN = 3  # words in a row that a block must share with the gold text
PAGE_WEIGHT = 10.0  # of all blocks of a page together, against the penalty
LEAST_WORDS = 60  # a page with fewer words weighs less
DISAGREED, TAUGHT, SNIPPETS = (
    0.3,
    0.7,
    0.25,
)  # weights: of a block on which teachers disagree, of one they label, of gold
KNOTS = 7
RIDGE, SMOOTH = 4.0, 10.0  # the penalties on the size of weights, and on the bends of curves
LEAST_EFFECT = 0.07  # the standard deviation, in log-odds, of what a name adds, under which it gets no weight
CUTS = (-1.0, 0.3)  # chosen by the mean F1 of the shared sets, each left out
STEPS, CLOSE = 8, 1e-2  # Newton's method


class Labelled(NamedTuple):
    """The blocks of a page with how far each is main text (0 to 1), and its weight."""

    features: Features
    labels: Array
    weights: Array


def main(arguments: list[str]) -> int:
    """Fit the weights and write them to a file.

    Returns:
        The exit code: 1 if there are no gold sets.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks fit-extraction", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", default=[SHARED / "html_extraction"], metavar="DIR")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="SET", help="sets that are not fitted on")
    parser.add_argument("--output", type=Path, default=WEIGHTS, metavar="FILE")
    options = parser.parse_args(arguments)
    sets = {name: pages for name, pages in load_sets(options.data).items() if name not in options.leave_out}
    if not sets:
        print(f"no NAME.gold.jsonl.gz to fit on in {', '.join(map(str, options.data))}")
        return 1
    options.output.write_text(fit_weights([page for pages in sets.values() for page in pages]), encoding="utf-8")
    print(f"fitted on {', '.join(sets)}: {options.output}")
    return 0


def fit_weights(pages: Sequence[Page]) -> str:
    """Return the table of weights, fitted on pages with gold."""
    labelled = [found for page in pages if (found := label_page(page))]
    labels = np.concatenate([page.labels for page in labelled])
    weights = np.concatenate([page.weights for page in labelled])
    names = list(labelled[0].features.columns)
    values = {name: np.concatenate([page.features.columns[name] for page in labelled]) for name in names}
    knots = {name: choose_knots(column) for name, column in values.items()}
    curves = [len(knots[name]) for name in names]
    columns: list[tuple[str, float]] = [(name, knot) for name in names for knot in knots[name]]
    design = [spread(values[name], knots[name]) for name in names]
    for kind, position in ((INSIDE, 0), (NEAREST, 1)):
        masks = [bits for page in labelled for bits in (page.features.inside, page.features.nearest)[position]]
        columns += [(kind + name, 1.0) for name in BITS]
        design += [np.array([bool(mask & bit) for mask in masks], dtype=float)[:, None] for bit in BITS.values()]
    columns.append((INTERCEPT, 0.0))
    design.append(np.ones((len(labels), 1)))
    matrix = np.concatenate(design, axis=1)
    found = fit_logistic(matrix, labels, weights, penalty(curves, len(columns)))
    effects = found * weighted_deviation(matrix, weights)
    chosen = [
        number
        for number, (name, _) in enumerate(columns)
        if not name.startswith((INSIDE, NEAREST)) or abs(effects[number]) >= LEAST_EFFECT
    ]
    columns = [columns[number] for number in chosen]
    found = fit_logistic(matrix[:, chosen], labels, weights, penalty(curves, len(columns)))
    rows = [f"{name}\t{knot:.6g}\t{weight:.4f}" for (name, knot), weight in zip(columns, found, strict=True)]
    rows += [f"{CUT}\t0\t{CUTS[0]}", f"{CUT_SHARE}\t0\t{CUTS[1]}"]
    return "\n".join(["feature\tknot\tweight", *rows, ""])


def weighted_deviation(matrix: Array, weights: Array) -> Array:
    """Return the weighted standard deviation of each column."""
    shares = weights / weights.sum()
    mean = shares @ matrix
    return np.asarray(np.sqrt(np.maximum(shares @ matrix**2 - mean**2, 0)))


def label_page(page: Page) -> Labelled | None:
    """Return the blocks of a page with their labels and weights; None if it has no blocks."""
    html = decode(page.body, None)
    tree = HTMLTree.parse(html)
    blocks = parse_blocks(tree.body.html) if tree.body is not None else None
    if blocks is None or not blocks.texts:
        return None
    features = describe_blocks(blocks, tree.title or "")
    words = np.array([len(WORD.findall(text)) for text in blocks.texts], dtype=float)
    if "gold_text" in page.gold:
        labels = align(blocks.texts, gold_text(page.gold))
        weights = share_weight(words, labels)
    else:
        labels, weights = label_by_teachers(blocks.texts, words, html)
        known = (
            label_by_snippets(blocks.texts, page.gold) if "with" in page.gold else label_parts(blocks.texts, page.gold)
        )
        sure = ~np.isnan(known)
        weights = np.where(sure, weights + SNIPPETS / max(1, int(sure.sum())), TAUGHT * weights)
        labels = np.where(sure, known, labels)
    return Labelled(features, labels, PAGE_WEIGHT * weights)


def share_weight(words: Array, labels: Array) -> Array:
    """Return weights by words, which are larger on pages with a larger share of main text."""
    return (words + 1) / max(float(words @ labels + 0.3 * words.sum()), LEAST_WORDS)


def align(texts: Sequence[str], gold: str) -> Array:
    """Return the share of each block's words that the gold text holds, in runs of at least three."""
    wanted = WORD.findall(gold.lower())
    at: dict[tuple[str, ...], list[int]] = {}
    for size in range(1, RUN + 1):
        for start in range(len(wanted) - size + 1):
            at.setdefault(tuple(wanted[start : start + size]), []).append(start)
    labels, last = np.zeros(len(texts)), 0
    for index, text in enumerate(texts):
        words = WORD.findall(text.lower())
        if len(words) <= RUN:
            near = (start for start in at.get(tuple(words), ()) if last - 8 <= start <= last + 60)
            start = next(near, None)
            if start is not None:
                labels[index], last = 1.0, max(last, start + len(words))
            continue
        covered, first = np.zeros(len(words)), None
        for offset in range(len(words) - RUN + 1):
            places = at.get(tuple(words[offset : offset + RUN]))
            if places:
                covered[offset : offset + RUN] = 1
                first = min(places, key=lambda place: abs(place - last)) if first is None else first
        labels[index] = covered.mean()
        if first is not None and labels[index] >= 0.5:
            last = first + len(words)
    return labels


def label_by_teachers(texts: Sequence[str], words: Array, html: str) -> tuple[Array, Array]:
    """Return labels by trafilatura, and weights that are lower where resiliparse disagrees.

    Raises:
        SystemExit: trafilatura is not installed.
    """
    known = extractors()
    if TEACHERS[0] not in known:
        raise SystemExit("sets without gold texts are labelled by trafilatura: run `make peers`, or leave them out")
    first, second = (align(texts, known[name](html)) > 0.5 for name in TEACHERS)
    labels = first.astype(float)
    return labels, share_weight(words, labels) * np.where(first == second, 1.0, DISAGREED)


def label_by_snippets(texts: Sequence[str], gold: dict[str, Any]) -> Array:
    """Return 1 for blocks with a wanted snippet (the longest with each), 0 for those with an unwanted one, else NaN."""
    labels = np.full(len(texts), np.nan)
    for key, label in (("without", 0.0), ("with", 1.0)):
        for snippet in filter(None, (" ".join(snippet.split()) for snippet in gold[key] or [])):
            hits = [index for index, text in enumerate(texts) if snippet in text]
            labels[hits if label == 0 else sorted(hits, key=lambda index: len(texts[index]))[-1:]] = label
    return labels


def label_parts(texts: Sequence[str], gold: dict[str, Any]) -> Array:
    """Return 1 for blocks that are mostly in the gold text, which is a part of the main text, else NaN."""
    return np.where(align(texts, gold_text(gold)) > 0.6, 1.0, np.nan)


def choose_knots(column: Array) -> Array:
    """Return all values of a feature that has few, else its quantiles and some even steps between its extremes."""
    values = np.unique(column.round(4))
    if len(values) <= KNOTS + 1:
        return values if len(values) > 1 else np.array([values[0], values[0] + 1])
    knots = np.unique(np.quantile(column, np.linspace(0, 1, KNOTS)).round(4))
    return knots if len(knots) >= 5 else np.unique(np.append(knots, np.quantile(values, np.linspace(0, 1, 5)).round(4)))


def spread(column: Array, knots: Array) -> Array:
    """Return the shares of the two knots around each value: the basis of piecewise linear curves."""
    at = np.clip(np.searchsorted(knots, column, side="right") - 1, 0, len(knots) - 2)
    share = np.clip((column - knots[at]) / (knots[at + 1] - knots[at]), 0, 1)
    basis = np.zeros((len(column), len(knots)))
    rows = np.arange(len(column))
    basis[rows, at], basis[rows, at + 1] = 1 - share, share
    return basis


def penalty(curves: Sequence[int], size: int) -> Array:
    """Return the quadratic penalty on the weights: their size, and the slopes and bends of curves of so many knots."""
    total = RIDGE * np.eye(size)
    total[-1, -1] = 1e-3  # the intercept
    start = 0
    for count in curves:
        slopes = np.diff(np.eye(count), axis=0)
        bends = np.diff(slopes, axis=0)
        total[start : start + count, start : start + count] += SMOOTH * (0.1 * slopes.T @ slopes + bends.T @ bends)
        start += count
    return total


def fit_logistic(design: Array, labels: Array, weights: Array, penalties: Array) -> Array:
    """Return the weights of the logistic regression that minimise the penalised log loss, by Newton's method."""
    found = np.zeros(design.shape[1])
    small = design.astype(np.float32)  # half the time; the sums over the blocks are what takes it
    for _ in range(STEPS):
        chances = 1 / (1 + np.exp(-np.clip(small @ found.astype(np.float32), -30, 30).astype(float)))
        gradient = small.T @ (weights * (chances - labels)).astype(np.float32) + penalties @ found
        root = np.sqrt(weights * (chances * (1 - chances) + 1e-6)).astype(np.float32)
        curvature = (small * root[:, None]).T @ (small * root[:, None])
        step = np.linalg.solve(curvature.astype(float) + penalties, gradient)
        found -= step
        if np.abs(step).max() < CLOSE:
            break
    return found
