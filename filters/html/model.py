"""Score blocks by a small neural network: the log-odds that a block is main text.

Its inputs are the features of a block, and for each group of names whether it is among those of all containers of the
block (`inside`) or of the nearest two (`nearest`). One layer of rectified units and a direct linear term are added.
`python -m benchmarks fit-extraction` writes the weights; nothing else in them is set by hand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filters.data_files import read_rows
from filters.html.blocks import Page
from filters.html.features import Column, Features
from filters.html.names import GROUPS

DATA_FILES = ("weights.tsv",)  # part of the code version of a step
INSIDE, NEAREST = "inside ", "nearest "
NAMES = [*(INSIDE + name for name in GROUPS), *(NEAREST + name for name in GROUPS)]  # the inputs that are names
BIAS, OUTPUT = "bias", "output"
CUT, CUT_SHARE, CUT_MARGIN, NEIGHBOURS = "cut", "cut share", "cut margin", "neighbours"
SETTINGS = (CUT, CUT_SHARE, CUT_MARGIN, NEIGHBOURS)
NEAR = 2  # blocks before and after one that are its neighbours
MOST = 3.0  # log-odds from the cut, by which a neighbour counts at most
CELLS = ("td", "th", "caption")
MOST_CELLS = 4_096  # of a table, so that nested ones take linear time

# Inputs, units and weights are multiples of these, so that all sums are exact: no library or processor that adds in
# another order gives another text.
STEP, WEIGHT_STEP = 2.0**-8, 2.0**-16
ROWS = 64  # blocks at a time: OpenBLAS starts threads for products of over 2^18 numbers, which takes longer than these

_SHIFTS = np.arange(len(GROUPS), dtype=np.uint64)


class Model(NamedTuple):
    """The weights: of d inputs on u units and on the output directly, and of the units on the output."""

    features: tuple[str, ...]  # the inputs that are not names, which are the first
    weights: Column  # (d, u + 1): on the units, and in the last column on the output
    bias: Column  # (u + 1,)
    output: Column  # (u,)
    cut: float  # blocks are main text above this, plus a share of the highest log-odds of the page
    cut_share: float
    cut_margin: float  # and in any case, if their log-odds are lower than the highest by no more than this
    neighbours: float  # the share of its neighbours' mean log-odds that is added to those of a block


def read_model(rows: list[list[str]]) -> Model:
    """Return the model of a table of (input, weight on the output, weights on the units).

    The row `bias` holds what is added to each, the row `output` the weights of the units, and the settings one number.
    Names that are not in the table have no weight.
    """
    table = {name: _round(np.array(weights, dtype=float), WEIGHT_STEP) for name, *weights in rows}
    names = [name for name in table if name not in (BIAS, OUTPUT, *SETTINGS, *NAMES)]
    bias = table[BIAS]
    weights = np.array([table.get(name, np.zeros_like(bias)) for name in [*names, *NAMES]])
    settings = (float(table[name][0]) for name in SETTINGS)
    return Model(tuple(names), np.roll(weights, -1, axis=1), np.roll(bias, -1), table[OUTPUT][1:], *settings)


def score_blocks(features: Features, model: Model) -> Column:
    """Return the log-odds of each block."""
    kinds: dict[tuple[int, int], int] = {}  # what is due to names is computed once for all blocks of the same
    kind = [kinds.setdefault(masks, len(kinds)) for masks in zip(features.inside, features.nearest, strict=True)]
    inside, nearest = (_unpack(masks) for masks in zip(*kinds, strict=True))
    of_names = _multiply(np.hstack([inside, nearest]).astype(float), model.weights[len(model.features) :])
    inputs = _round(np.array([features.columns[name] for name in model.features]).T, STEP)
    sums = _multiply(inputs, model.weights[: len(model.features)]) + (of_names + model.bias)[kind]
    units = _round(np.maximum(sums[:, :-1], 0), STEP)
    scores: Column = np.einsum("bu,u->b", units, model.output) + sums[:, -1]
    return scores


def _multiply(inputs: Column, weights: Column) -> Column:
    """Return the product of two matrices, computed by one thread."""
    return np.concatenate([inputs[at : at + ROWS] @ weights for at in range(0, len(inputs), ROWS)])


def collect_inputs(features: Features, names: tuple[str, ...]) -> Column:
    """Return the inputs of all blocks, a row each: the named features, then the names of its containers."""
    columns = np.array([features.columns[name] for name in names]).T
    return np.hstack([columns, _unpack(features.inside), _unpack(features.nearest)])


def add_neighbours(scores: Column, page: Page, model: Model) -> Column:
    """Return the scores with a share of the mean of each block's neighbours, by how far these lie from the cut.

    Neighbours are at most `NEAR` blocks away, in containers with the same parent or grandparent; long ones count more.
    A block that is above the cut by less than the share counts against its neighbours: main text is surer than that.
    """
    parent, count = np.maximum(page.parents, 0), len(scores)
    up = parent[page.places]
    further = parent[up]
    sizes = np.log2([1 + len(text) for text in page.texts])
    distances = np.clip(scores - find_cut(scores, model) - model.neighbours, -MOST, MOST)
    sums, weights = np.zeros(count), np.full(count, 1e-6)
    for step in range(1, min(NEAR, count - 1) + 1):
        together = (up[step:] == up[:-step]) | (further[step:] == further[:-step])
        for here, there in ((slice(step, None), slice(None, -step)), (slice(None, -step), slice(step, None))):
            sums[here] += together * sizes[there] * distances[there]
            weights[here] += together * sizes[there]
    added: Column = scores + model.neighbours * sums / weights
    return added


def level_tables(scores: Column, page: Page) -> Column:
    """Return the scores, in each table of data the mean of its cells: it is main text as a whole, or not at all.

    A table of data has one block in each cell, and more text than links; a table that lays out a page has more blocks,
    and a list of threads more links.
    """
    levelled = scores.copy()
    for table, tag in enumerate(page.tags):
        if tag == "table" and page.ends[table] - page.starts[table] <= MOST_CELLS:
            cells = page.places[page.starts[table] : page.ends[table]]
            blocks = slice(page.starts[table], page.ends[table])
            plain = 2 * sum(page.linked[blocks]) < sum(map(len, page.texts[blocks]))
            if plain and len(cells) == len(set(cells)) > 1 and all(page.tags[cell] in CELLS for cell in cells):
                levelled[blocks] = scores[blocks].mean()
    return levelled


def select_blocks(scores: Column, model: Model) -> list[int]:
    """Return the indexes of the blocks that are main text: at least the likeliest one."""
    return np.flatnonzero(scores >= find_cut(scores, model)).tolist()


def find_cut(scores: Column, model: Model) -> float:
    """Return the least score of main text on a page."""
    highest = float(scores.max())
    return min(model.cut + model.cut_share * highest, highest - model.cut_margin)


def _round(numbers: Column, step: float) -> Column:
    rounded: Column = np.rint(numbers * (1 / step))
    rounded *= step
    return rounded


def _unpack(masks: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Return the bits of names as columns of 0 and 1."""
    return (np.array(masks, dtype=np.uint64)[:, None] >> _SHIFTS) & np.uint64(1)


MODEL = read_model(read_rows("filters.html", "weights.tsv"))
