"""Score blocks by a small neural network: the log-odds that a block is main text.

Its inputs are the features of a block, and for each group of names whether it is among those of all containers of the
block (`inside`) or of the nearest two (`nearest`). One layer of rectified units and a direct linear term are added.
`python -m benchmarks fit-extraction` writes the weights; nothing else in them is set by hand.
"""

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
CUT, CUT_SHARE, CUT_MARGIN = "cut", "cut share", "cut margin"
SETTINGS = (CUT, CUT_SHARE, CUT_MARGIN)
CELLS = ("td", "th", "caption")

_SHIFTS = np.arange(len(GROUPS), dtype=np.uint64)


class Model(NamedTuple):
    """The weights: of d inputs on u units and on the output directly, and of the units on the output."""

    features: tuple[str, ...]  # the inputs that are not names, which are the first
    hidden: Column  # (d, u)
    bias: Column  # (u,)
    output: Column  # (u,)
    direct: Column  # (d,)
    intercept: float
    cut: float  # blocks are main text above this, plus a share of the highest log-odds of the page
    cut_share: float
    cut_margin: float  # and in any case, if their log-odds are lower than the highest by no more than this


def read_model(rows: list[list[str]]) -> Model:
    """Return the model of a table of (input, weight on the output, weights on the units).

    The row `bias` holds what is added to each, the row `output` the weights of the units, and the settings one number.
    Names that are not in the table have no weight.
    """
    table = {name: np.array([float(weight) for weight in weights]) for name, *weights in rows}
    names = [name for name in table if name not in (BIAS, OUTPUT, *SETTINGS, *NAMES)]
    bias = table[BIAS]
    weights = np.array([table.get(name, np.zeros_like(bias)) for name in [*names, *NAMES]])
    cut, share, margin = (float(table[name][0]) for name in SETTINGS)
    return Model(
        tuple(names), weights[:, 1:], bias[1:], table[OUTPUT][1:], weights[:, 0], float(bias[0]), cut, share, margin
    )


def score_blocks(features: Features, model: Model) -> Column:
    """Return the log-odds of each block."""
    inputs = collect_inputs(features, model.features)
    units: Column = np.maximum(inputs @ model.hidden + model.bias, 0)
    scores: Column = units @ model.output + inputs @ model.direct + model.intercept
    return scores


def collect_inputs(features: Features, names: tuple[str, ...]) -> Column:
    """Return the inputs of all blocks, a row each: the named features, then the names of its containers."""
    columns = np.array([features.columns[name] for name in names]).T
    return np.hstack([columns, _unpack(features.inside), _unpack(features.nearest)])


def level_tables(scores: Column, page: Page) -> Column:
    """Return the scores, in each table of data the mean of its cells: it is main text as a whole, or not at all.

    A table of data has one block in each cell; a table that lays out a page has more.
    """
    levelled = scores.copy()
    for table, tag in enumerate(page.tags):
        if tag == "table":
            cells = page.places[page.starts[table] : page.ends[table]]
            if len(cells) == len(set(cells)) > 1 and all(page.tags[cell] in CELLS for cell in cells):
                blocks = slice(page.starts[table], page.ends[table])
                levelled[blocks] = scores[blocks].mean()
    return levelled


def select_blocks(scores: Column, model: Model) -> list[int]:
    """Return the indexes of the blocks that are main text: at least the likeliest one."""
    highest = float(scores.max())
    least = min(model.cut + model.cut_share * highest, highest - model.cut_margin)
    return np.flatnonzero(scores >= least).tolist()


def _unpack(masks: list[int]) -> npt.NDArray[np.uint64]:
    """Return the bits of names as columns of 0 and 1."""
    return (np.array(masks, dtype=np.uint64)[:, None] >> _SHIFTS) & np.uint64(1)


MODEL = read_model(read_rows("filters.html", "weights.tsv"))
