"""Score blocks by a small neural network: the log-odds that a block is main text.

Its inputs are the features of a block (filters.html.features), and for each group of names whether it is among those of
all containers of the block (`inside`) or of the nearest two (`nearest`). It has one layer of rectified units and a
direct linear term. `python -m benchmarks fit-extraction` writes the weights; nothing else in them is set by hand.
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
BIAS, OUTPUT, CUT, CUT_SHARE = "bias", "output", "cut", "cut share"
CELLS = ("td", "th", "caption")
MOST_CELLS = 4_096  # of a table, so that nested ones take linear time

# Inputs, units and weights are multiples of these, so that all sums are exact: no library or processor that adds in
# another order gives another text.
STEP, WEIGHT_STEP = 2.0**-8, 2.0**-16
ROWS = 64  # blocks at a time: OpenBLAS starts threads for products of over 2^18 numbers, which takes longer than these

_SHIFTS = np.arange(len(GROUPS), dtype=np.uint64)


class Model(NamedTuple):
    """The weights of d inputs on u units and on the score, and the threshold for main text."""

    features: tuple[str, ...]  # the first inputs; the others are NAMES
    weights: Column  # (d, u + 1): on the units, and in the last column on the score
    bias: Column  # (u + 1,)
    output: Column  # (u,): of the units on the score
    cut: float  # blocks are main text from this on, plus a share of the highest log-odds of the page
    cut_share: float


def read_model(rows: list[list[str]]) -> Model:
    """Return the model of a table of (input, weight on the score, weights on the units).

    The row `bias` holds what is added to each, the row `output` the weights of the units, the rows of the threshold one
    number. Names that are not in the table have no weight.
    """
    table = {name: _round(np.array(weights, dtype=float), WEIGHT_STEP) for name, *weights in rows}
    bias, output, cut, cut_share = (table.pop(name) for name in (BIAS, OUTPUT, CUT, CUT_SHARE))
    of_names = [table.pop(name, np.zeros_like(bias)) for name in NAMES]
    weights = np.roll([*table.values(), *of_names], -1, axis=1)
    return Model(tuple(table), weights, np.roll(bias, -1), output[1:], float(cut[0]), float(cut_share[0]))


def score_blocks(features: Features, model: Model) -> Column:
    """Return the log-odds of each block."""
    names = model.features
    kinds: dict[tuple[int, int], int] = {}  # what is due to names is computed once for all blocks of the same
    kind = [kinds.setdefault(masks, len(kinds)) for masks in zip(features.inside, features.nearest, strict=True)]
    inside, nearest = (_unpack(masks) for masks in zip(*kinds, strict=True))
    of_names = _multiply(np.hstack([inside, nearest]).astype(float), model.weights[len(names) :])
    inputs = _round(np.array([features.columns[name] for name in names]).T, STEP)
    sums = _multiply(inputs, model.weights[: len(names)]) + (of_names + model.bias)[kind]
    units = _round(np.maximum(sums[:, :-1], 0), STEP)
    scores: Column = np.einsum("bu,u->b", units, model.output) + sums[:, -1]
    return scores


def _multiply(inputs: Column, weights: Column) -> Column:
    """Return the product of two matrices, computed by one thread."""
    return np.concatenate([inputs[at : at + ROWS] @ weights for at in range(0, len(inputs), ROWS)])


def collect_inputs(features: Features) -> Column:
    """Return the inputs of all blocks, a row each: the features, then the names of the containers."""
    return np.hstack([np.array([*features.columns.values()]).T, _unpack(features.inside), _unpack(features.nearest)])


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
    highest = float(scores.max())
    return np.flatnonzero(scores >= min(model.cut + model.cut_share * highest, highest)).tolist()


def _round(numbers: Column, step: float) -> Column:
    rounded: Column = np.rint(numbers * (1 / step))
    rounded *= step
    return rounded


def _unpack(masks: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Return the bits of names as columns of 0 and 1."""
    return (np.array(masks, dtype=np.uint64)[:, None] >> _SHIFTS) & np.uint64(1)


MODEL = read_model(read_rows("filters.html", "weights.tsv"))
