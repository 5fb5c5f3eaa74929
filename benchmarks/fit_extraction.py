"""Fit the weights of the main-text extractor (filters/html/weights.tsv) on gold sets: two networks that label blocks.

    python -m benchmarks fit-extraction --data ../shared/data/html_extraction [--leave-out SET] [--output FILE]

A block's label is the share of its words that lie in runs of three words of the gold text; a shorter block must stand
in it where the blocks before it ended. A block weighs as much as its share in the words of its page, so that pages
count alike.

Pages that have only snippets or parts of their text as gold are labelled by two other extractors as far as these agree:
trafilatura's default and resiliparse's main content (where they disagree, trafilatura counts, with a lower weight). The
snippets and parts count on top. Each set of a new kind would otherwise need gold texts of its own.

Readers' comments are no main text, though one of the sets counts them as such: blocks of its gold texts in containers
named after comments have no weight.

The second network learns from scores as it will see them, of pages that the first was not fitted on: each set's by a
network that is fitted on the others.

The networks are trained by Adam with decoupled decay of the weights (Loshchilov and Hutter, ICLR 2019) and dropout of
units and of names. The result depends on the pages and the version of numpy alone.
"""

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from resiliparse.parse.html import HTMLTree

from benchmarks.data import ROOT, SHARED
from benchmarks.extraction import WORD, Page, extractors, gold_text, load_sets
from filters.formats.charset import decode
from filters.html.blocks import Page as Blocks
from filters.html.blocks import parse_blocks
from filters.html.context import describe_context
from filters.html.features import COMMENTS, describe_blocks
from filters.html.model import BIAS, CONTEXT, CUT, CUT_SHARE, NAMES, OUTPUT, collect_inputs

Array = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

WEIGHTS = ROOT / "filters/html/weights.tsv"
TEACHERS = ("trafilatura, default", "resiliparse")
RUN = 3  # words in a row that a block must share with the gold text
LEAST_WORDS = 60  # a page with fewer words weighs less
DISAGREED, TAUGHT, SNIPPETS = 0.3, 0.7, 0.25  # weights: of blocks that teachers disagree on, that they label, of gold
COMMENTS_SHARE = 0.9  # of a page's blocks: a container with more is not the comments, whatever its name

UNITS, SEED = 24, 1
STEPS, BATCH = 1_100, 1_024  # and blocks per step: the shared sets are passed over eleven times
RATE, WARM_UP = 4e-3, 0.15  # the highest rate of learning, and the share of the steps up to it; it falls to 0 after it
MEAN_DECAY, SQUARE_DECAY = 0.9, 0.995  # of Adam's averages of the gradients and their squares
WEIGHT_DECAY = 0.02
UNIT_DROPOUT, NAME_DROPOUT = 0.4, 0.1
LEAST_DEVIATION = 1e-2  # of an input, by which it is divided
CHOSEN = {CUT: -1.6, CUT_SHARE: 0.5}  # by the F1 of the shared sets, each left out


class Labelled(NamedTuple):
    """The blocks of a page with how far each is main text (0 to 1), and its weight."""

    of_set: str
    blocks: Blocks
    columns: tuple[str, ...]  # the inputs that are not names
    inputs: Array  # (blocks, inputs)
    labels: Array
    weights: Array


class Network(NamedTuple):
    """The weights of d inputs, as they are, on u units and on the output."""

    hidden: Floats  # (d, u)
    bias: Floats  # (u,)
    output: Floats  # (u,)
    direct: Floats  # (d,)
    intercept: Floats  # (1,)

    def score(self, inputs: Array) -> Array:
        """Return the log-odds of blocks."""
        units = np.maximum(inputs @ self.hidden + self.bias, 0)
        scores: Array = units @ self.output + inputs @ self.direct + self.intercept
        return scores

    def rows(self, names: Sequence[str], prefix: str = "") -> list[list[Any]]:
        """Return the rows of the table of weights."""
        rows = [[name, one, *units] for name, one, units in zip(names, self.direct, self.hidden, strict=True)]
        rows += [[BIAS, float(self.intercept[0]), *self.bias], [OUTPUT, 0, *self.output]]
        return [[prefix + name, *weights] for name, *weights in rows]


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
    options.output.write_text(fit_weights(sets), encoding="utf-8")
    print(f"fitted on {', '.join(sets)}: {options.output}")
    return 0


def fit_weights(sets: dict[str, list[Page]]) -> str:
    """Return the table of weights, fitted on sets of pages with gold."""
    pages = [found for name, of_set in sets.items() for page in of_set if (found := label_page(page, name))]
    names = pages[0].columns
    first = fit_pages(pages)
    in_context = []
    for name in sets:
        others = [page for page in pages if page.of_set != name]
        unseen = fit_pages(others) if others else first
        in_context += [add_context(page, unseen) for page in pages if page.of_set == name]
    second = fit_pages(in_context)
    rows = first.rows([*names, *NAMES]) + second.rows(in_context[0].columns, CONTEXT)
    rows += [[name, value, *[0] * UNITS] for name, value in CHOSEN.items()]
    heading = ["input", "direct", *(f"unit {number}" for number in range(1, UNITS + 1))]
    lines = ["\t".join([name, *(f"{weight:.4g}" for weight in weights)]) for name, *weights in rows]
    return "\n".join(["\t".join(heading), *lines, ""])


def add_context(page: Labelled, network: Network) -> Labelled:
    """Return a page with the inputs of the second network, from the scores of the first."""
    columns = describe_context(network.score(page.inputs), page.blocks)
    return page._replace(columns=tuple(columns), inputs=np.array(list(columns.values())).T)


def fit_pages(pages: Sequence[Labelled]) -> Network:
    """Return the network that is fitted on the blocks of pages."""
    inputs, labels, weights = (
        np.concatenate([getattr(page, part) for page in pages]).astype(np.float32)
        for part in ("inputs", "labels", "weights")
    )
    features = len(pages[0].columns)
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0) + LEAST_DEVIATION
    mean[features:], scale[features:] = 0, 1
    hidden, bias, output, direct, intercept = fit_network(
        (inputs - mean) / scale, labels, weights / weights.mean(), features
    )
    hidden, direct = hidden / scale[:, None], direct / scale
    return Network(hidden, bias - mean @ hidden, output, direct, intercept - mean @ direct)


def fit_network(inputs: Floats, labels: Floats, weights: Floats, features: int) -> list[Floats]:
    """Return the network that minimises the weighted log loss.

    Args:
        inputs: (n, d) of all blocks; the first `features` are never left out.
        labels: (n,) from 0 to 1.
        weights: (n,).
        features: the number of inputs that are no names.

    Returns:
        Weights of the inputs on the units (d, u), the units' biases, their weights on the output, the direct weights
        of the inputs, and the intercept (1,).
    """
    chance = np.random.default_rng(SEED)
    count, width = inputs.shape
    network = [
        chance.normal(0, np.sqrt(2 / width), (width, UNITS)),
        np.zeros(UNITS),
        chance.normal(0, np.sqrt(1 / UNITS), UNITS),
        np.zeros(width),
        np.zeros(1),
    ]
    network = [part.astype(np.float32) for part in network]
    decays = (WEIGHT_DECAY, 0, WEIGHT_DECAY, WEIGHT_DECAY, 0)
    means, squares = ([np.zeros_like(part) for part in network] for _ in range(2))
    batch = min(BATCH, count)
    orders = (chance.permutation(count) for _ in range(STEPS))
    batches = (order[at : at + batch] for order in orders for at in range(0, count - batch + 1, batch))
    for step, chosen in enumerate(islice(batches, STEPS)):
        seen = inputs[chosen]
        seen[:, features:] *= chance.random(width - features) > NAME_DROPOUT
        kept = (chance.random((batch, UNITS), dtype=np.float32) > UNIT_DROPOUT) / np.float32(1 - UNIT_DROPOUT)
        gradients = compute_gradients(network, seen, labels[chosen], weights[chosen] / batch, kept)
        done = (step + 1) / STEPS
        rate = RATE * (done / WARM_UP if done < WARM_UP else (1 - done) / (1 - WARM_UP))
        for part, gradient, mean, square, decay in zip(network, gradients, means, squares, decays, strict=True):
            mean += (1 - MEAN_DECAY) * (gradient - mean)
            square += (1 - SQUARE_DECAY) * (gradient**2 - square)
            deviation = np.sqrt(square / (1 - SQUARE_DECAY ** (step + 1))) + 1e-8
            part -= rate * (mean / (1 - MEAN_DECAY ** (step + 1)) / deviation + decay * part)
    return network


def compute_gradients(
    network: Sequence[Floats], inputs: Floats, labels: Floats, weights: Floats, kept: Floats
) -> list[Floats]:
    """Return the gradients of the weighted log loss. `kept`: the factors of units, 0 for those that are left out."""
    hidden, bias, output, direct, intercept = network
    units = np.maximum(inputs @ hidden + bias, 0) * kept
    chances = 1 / (1 + np.exp(-(units @ output + inputs @ direct + intercept)))
    errors = (chances - labels) * weights
    on_units = np.outer(errors, output) * (units > 0) * kept
    return [inputs.T @ on_units, on_units.sum(axis=0), errors @ units, errors @ inputs, errors.sum(keepdims=True)]


def label_page(page: Page, of_set: str) -> Labelled | None:
    """Return the blocks of a page with their labels and weights; None if it has no blocks."""
    html = decode(page.body, None)
    tree = HTMLTree.parse(html)
    blocks = parse_blocks(tree.body.html) if tree.body is not None else None
    if blocks is None or not blocks.texts:
        return None
    features = describe_blocks(blocks, tree.title or "")
    columns = tuple(features.columns)
    words = np.array([len(WORD.findall(text)) for text in blocks.texts], dtype=float)
    if "gold_text" in page.gold:
        labels = align(blocks.texts, gold_text(page.gold))
        weights = np.where((labels > 0.5) & find_comments(blocks), 0, share_weight(words, labels))
    else:
        labels, weights = label_by_teachers(blocks.texts, words, html)
        label = label_by_snippets if "with" in page.gold else label_parts
        known = label(blocks.texts, page.gold)
        sure = ~np.isnan(known)
        weights = np.where(sure, weights + SNIPPETS / max(1, int(sure.sum())), TAUGHT * weights)
        labels = np.where(sure, known, labels)
    return Labelled(of_set, blocks, columns, collect_inputs(features, columns), labels, weights)


def find_comments(blocks: Blocks) -> npt.NDArray[np.bool_]:
    """Return which blocks are in a container named after comments."""
    inside, least = [False], COMMENTS_SHARE * len(blocks.texts)
    for place in range(1, len(blocks.tags)):
        named = blocks.names[place] & COMMENTS and blocks.ends[place] - blocks.starts[place] < least
        inside.append(inside[blocks.parents[place]] or bool(named))
    return np.array(inside)[blocks.places]


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
