"""Fit the main-text extractor (filters/html/weights.tsv) on gold sets: two networks that label blocks of HTML.

    python -m benchmarks fit-extraction --data ../shared/data/html_extraction [--leave-out SET] [--output FILE]

Labels: the label of a block is the share of its words that are in a run of three words which the gold text also
contains. A block of at most three words has the label 1 if the gold text contains it near the place where the preceding
blocks ended, else 0.

Weights: a block's weight is about its share of the words of its page, so that all pages have about the same weight.

Pages without gold text: some sets have only snippets or parts of the text as gold. Their blocks are labelled by
trafilatura in its default mode. If resiliparse's main content disagrees, the block has a lower weight. The gold
snippets and parts override these labels and add weight. So a set of this kind needs no gold texts.

Readers' comments are not main text, but one of the sets includes them in its gold texts. Therefore a block has no
weight if the gold text contains it and it is in a container that is named after comments.

The second network gets the scores of the first network as inputs. For training, the scores of a set come from a first
network that was fitted on the other sets, because in use the first network also scores pages that it was not fitted on.

The networks are trained by Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019) and with dropout of
units and of names. The result depends only on the pages and on the version of numpy.
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
TEACHERS = ("trafilatura, default", "resiliparse")  # extractors that label pages without gold text
RUN = 3  # smallest number of consecutive words that a block and the gold text must have in common
LEAST_WORDS = 60  # smallest divisor of weights, so that pages of few words have lower weights
# Factors of a block's weight: if the teachers disagree, and if the teachers and not a snippet label it. SNIPPETS is the
# additional weight of all gold snippets of a page together.
DISAGREED, TAUGHT, SNIPPETS = 0.3, 0.7, 0.25
COMMENTS_SHARE = 0.9  # A container with a larger share of the page's blocks is not the comments, whatever its name is.

UNITS, SEED = 24, 1
STEPS, BATCH = 1_100, 1_024  # steps, and blocks per step: eleven epochs over the shared sets
RATE, WARM_UP = 4e-3, 0.15  # The learning rate rises to RATE in this share of the steps, and then falls linearly to 0.
MEAN_DECAY, SQUARE_DECAY = 0.9, 0.995  # Adam's decay rates for the averages of gradients and squared gradients
WEIGHT_DECAY = 0.02
UNIT_DROPOUT, NAME_DROPOUT = 0.4, 0.1
LEAST_DEVIATION = 1e-2  # added to the standard deviation by which an input is divided
CHOSEN = {CUT: -1.6, CUT_SHARE: 0.5}  # settings chosen by the mean F1 of the shared sets when each is left out in turn


class Labelled(NamedTuple):
    """A page as training data.

    Attributes:
        of_set: The name of its gold set.
        blocks: The blocks of the page.
        columns: The names of the first inputs, which are features. The other inputs are names of containers.
        inputs: (blocks, inputs).
        labels: (blocks,) from 0, not main text, to 1, main text.
        weights: (blocks,).
    """

    of_set: str
    blocks: Blocks
    columns: tuple[str, ...]
    inputs: Array
    labels: Array
    weights: Array


class Network(NamedTuple):
    """A network of d inputs, which are not standardized, and one hidden layer of u rectified units.

    Attributes:
        hidden: (d, u) weights of the inputs on the units.
        bias: (u,) biases of the units.
        output: (u,) weights of the units on the output.
        direct: (d,) weights of the inputs on the output.
        intercept: (1,) bias of the output.
    """

    hidden: Floats
    bias: Floats
    output: Floats
    direct: Floats
    intercept: Floats

    def score(self, inputs: Array) -> Array:
        """Return the log-odds that blocks are main text, from inputs of shape (blocks, d)."""
        units = np.maximum(inputs @ self.hidden + self.bias, 0)
        scores: Array = units @ self.output + inputs @ self.direct + self.intercept
        return scores

    def rows(self, names: Sequence[str], prefix: str = "") -> list[list[Any]]:
        """Return the rows of this network in the table of weights: name, direct weight, weight on each unit."""
        rows = [[name, one, *units] for name, one, units in zip(names, self.direct, self.hidden, strict=True)]
        rows += [[BIAS, float(self.intercept[0]), *self.bias], [OUTPUT, 0, *self.output]]
        return [[prefix + name, *weights] for name, *weights in rows]


def main(arguments: list[str]) -> int:
    """Fit the weights and write them to a file.

    Returns:
        The exit code: 0, or 1 if there are no gold sets.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks fit-extraction", description=__doc__.split("\n")[0])
    default = [SHARED / "html_extraction"]
    parser.add_argument("--data", type=Path, nargs="+", default=default, metavar="DIR", help="folders with gold sets")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="SET", help="sets that are not used")
    parser.add_argument("--output", type=Path, default=WEIGHTS, metavar="FILE", help="file of weights to write")
    options = parser.parse_args(arguments)
    sets = {name: pages for name, pages in load_sets(options.data).items() if name not in options.leave_out}
    if not sets:
        print(f"no NAME.gold.jsonl.gz to fit on in {', '.join(map(str, options.data))}")
        return 1
    options.output.write_text(fit_weights(sets), encoding="utf-8")
    print(f"fitted on {', '.join(sets)}: {options.output}")
    return 0


def fit_weights(sets: dict[str, list[Page]]) -> str:
    """Fit both networks on gold sets and return the table of weights as TSV text."""
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
    """Return a page with the inputs of the second network, computed from the scores of the first network."""
    columns = describe_context(network.score(page.inputs), page.blocks)
    return page._replace(columns=tuple(columns), inputs=np.array(list(columns.values())).T)


def fit_pages(pages: Sequence[Labelled]) -> Network:
    """Fit a network on the blocks of pages. Inputs are standardized for the fit only."""
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
    """Fit a network that minimises the weighted log loss.

    Args:
        inputs: (n, d) inputs of n blocks.
        labels: (n,) from 0 to 1.
        weights: (n,).
        features: The number of inputs, from the first, that are features. Dropout applies only to the other inputs,
            which are names.

    Returns:
        The arrays of a `Network`, in the order of its attributes.
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
    """Return the gradients of the weighted log loss with respect to each array of a network.

    Args:
        network: The arrays of a `Network`, in the order of its attributes.
        inputs: (n, d).
        labels: (n,).
        weights: (n,).
        kept: (n, u) factors of the units for dropout. A unit with the factor 0 is left out.
    """
    hidden, bias, output, direct, intercept = network
    units = np.maximum(inputs @ hidden + bias, 0) * kept
    chances = 1 / (1 + np.exp(-(units @ output + inputs @ direct + intercept)))
    errors = (chances - labels) * weights
    on_units = np.outer(errors, output) * (units > 0) * kept
    return [inputs.T @ on_units, on_units.sum(axis=0), errors @ units, errors @ inputs, errors.sum(keepdims=True)]


def label_page(page: Page, of_set: str) -> Labelled | None:
    """Return a page as training data, or None if it has no blocks."""
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
    """Return a mask of the blocks that are in a container whose name means comments."""
    inside, least = [False], COMMENTS_SHARE * len(blocks.texts)
    for place in range(1, len(blocks.tags)):
        named = blocks.names[place] & COMMENTS and blocks.ends[place] - blocks.starts[place] < least
        inside.append(inside[blocks.parents[place]] or bool(named))
    return np.array(inside)[blocks.places]


def share_weight(words: Array, labels: Array) -> Array:
    """Return the weights of a page's blocks, which are proportional to their numbers of words plus one.

    The divisor is the number of words of main text plus 0.3 times the number of all words of the page, but at least
    `LEAST_WORDS`.
    """
    return (words + 1) / max(float(words @ labels + 0.3 * words.sum()), LEAST_WORDS)


def align(texts: Sequence[str], gold: str) -> Array:
    """Return the share of each block's words that are in runs of at least three words of the gold text.

    A block of at most three words gets 1 if the gold text contains it from 8 words before to 60 words after the place
    where the last matching block ended, else 0.
    """
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
    """Return the labels of blocks by trafilatura, and weights that are lower if resiliparse disagrees.

    Raises:
        SystemExit: If trafilatura is not installed.
    """
    known = extractors()
    if TEACHERS[0] not in known:
        raise SystemExit("sets without gold texts are labelled by trafilatura: run `make peers`, or leave them out")
    first, second = (align(texts, known[name](html)) > 0.5 for name in TEACHERS)
    labels = first.astype(float)
    return labels, share_weight(words, labels) * np.where(first == second, 1.0, DISAGREED)


def label_by_snippets(texts: Sequence[str], gold: dict[str, Any]) -> Array:
    """Return labels by snippets.

    Returns:
        For each block: 1 if it is the longest block that contains some wanted snippet, 0 if it contains an unwanted
        snippet, else NaN.
    """
    labels = np.full(len(texts), np.nan)
    for key, label in (("without", 0.0), ("with", 1.0)):
        for snippet in filter(None, (" ".join(snippet.split()) for snippet in gold[key] or [])):
            hits = [index for index, text in enumerate(texts) if snippet in text]
            labels[hits if label == 0 else sorted(hits, key=lambda index: len(texts[index]))[-1:]] = label
    return labels


def label_parts(texts: Sequence[str], gold: dict[str, Any]) -> Array:
    """Return labels by a gold text that is only a part of the main text.

    Returns:
        For each block: 1 if more than 0.6 of its words are in the gold text, else NaN.
    """
    return np.where(align(texts, gold_text(gold)) > 0.6, 1.0, np.nan)
