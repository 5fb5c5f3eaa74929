"""Score blocks by two small neural networks: the log-odds that a block is main text.

The inputs of the first are the features of a block (filters.html.features), and for each group of names whether it is
among those of all containers of the block (`inside`) or of the nearest two (`nearest`). The second sees the scores that
the first gives to all blocks of the page (filters.html.context). Each has one layer of rectified units and a direct
linear term. `python -m benchmarks fit-extraction` writes the weights; nothing else in them is set by hand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filters.data_files import read_rows
from filters.html.blocks import Page
from filters.html.context import MOST, describe_context
from filters.html.features import Column, Features
from filters.html.names import GROUPS

DATA_FILES = ("weights.tsv",)  # part of the code version of a step
INSIDE, NEAREST = "inside ", "nearest "
NAMES = [*(INSIDE + name for name in GROUPS), *(NEAREST + name for name in GROUPS)]  # the inputs that are names
CONTEXT = "context "  # before the inputs of the second network
BIAS, OUTPUT = "bias", "output"
CUT, CUT_SHARE = "cut", "cut share"
SETTINGS = (CUT, CUT_SHARE)
CELLS = ("td", "th", "caption")
PARTS = frozenset("h1 h2 h3 h4 h5 h6 li dt dd figcaption caption".split())
PARTS_WITHIN = 3  # the innermost containers of a block that can make it such a part of an article
MOST_CELLS = 4_096  # of a table, so that nested ones take linear time

# Inputs, units and weights are multiples of these, so that all sums are exact: no library or processor that adds in
# another order gives another text.
STEP, WEIGHT_STEP = 2.0**-8, 2.0**-16
ROWS = 64  # blocks at a time: OpenBLAS starts threads for products of over 2^18 numbers, which takes longer than these

_SHIFTS = np.arange(len(GROUPS), dtype=np.uint64)


class Network(NamedTuple):
    """The weights: of d inputs on u units and on the output directly, and of the units on the output."""

    inputs: tuple[str, ...]  # d
    weights: Column  # (d, u + 1): on the units, and in the last column on the output
    bias: Column  # (u + 1,)
    output: Column  # (u,)


class Model(NamedTuple):
    """Two networks, and the thresholds for main text on the scores of the second."""

    blocks: Network  # its last inputs are NAMES
    context: Network
    cut: float  # blocks are main text from this on, plus a share of the highest log-odds of the page
    cut_share: float

    @property
    def features(self) -> tuple[str, ...]:
        """Return the inputs of the first network that are not names."""
        return self.blocks.inputs[: -len(NAMES)]


def read_model(rows: list[list[str]]) -> Model:
    """Return the model of a table of (input, weight on the output, weights on the units).

    The row `bias` holds what is added to each, the row `output` the weights of the units, and the settings one number.
    Rows of the second network begin with `CONTEXT`. Names that are not in the table have no weight.
    """
    table = {name: _round(np.array(weights, dtype=float), WEIGHT_STEP) for name, *weights in rows}
    settings = [float(table.pop(name)[0]) for name in SETTINGS]
    second = {name: table.pop(name) for name in list(table) if name.startswith(CONTEXT)}
    absent = np.zeros_like(table[BIAS])
    first = {name: row for name, row in table.items() if name not in NAMES} | {
        name: table.get(name, absent) for name in NAMES
    }
    context = {name.removeprefix(CONTEXT): row for name, row in second.items()}
    return Model(_read_network(first), _read_network(context), *settings)


def _read_network(rows: dict[str, Column]) -> Network:
    bias, output = rows.pop(BIAS), rows.pop(OUTPUT)
    return Network(tuple(rows), np.roll(list(rows.values()), -1, axis=1), np.roll(bias, -1), output[1:])


def score_blocks(features: Features, page: Page, model: Model) -> Column:
    """Return the log-odds of each block.

    The second network sees the scores of the first up to `MOST` from even odds. What a block has below that counts as
    well: on a page of little text, the menus would be as likely as the text.
    """
    alone = score_alone(features, model)
    inputs = describe_context(alone, page)
    columns = _round(np.array([inputs[name] for name in model.context.inputs]).T, STEP)
    scores = _score(_multiply(columns, model.context.weights) + model.context.bias, model.context)
    return scores + np.minimum(alone + MOST, 0)


def score_alone(features: Features, model: Model) -> Column:
    """Return the log-odds of each block by the first network."""
    network, names = model.blocks, model.features
    kinds: dict[tuple[int, int], int] = {}  # what is due to names is computed once for all blocks of the same
    kind = [kinds.setdefault(masks, len(kinds)) for masks in zip(features.inside, features.nearest, strict=True)]
    inside, nearest = (_unpack(masks) for masks in zip(*kinds, strict=True))
    of_names = _multiply(np.hstack([inside, nearest]).astype(float), network.weights[len(names) :])
    inputs = _round(np.array([features.columns[name] for name in names]).T, STEP)
    return _score(_multiply(inputs, network.weights[: len(names)]) + (of_names + network.bias)[kind], network)


def _score(sums: Column, network: Network) -> Column:
    units = _round(np.maximum(sums[:, :-1], 0), STEP)
    scores: Column = np.einsum("bu,u->b", units, network.output) + sums[:, -1]
    return scores


def _multiply(inputs: Column, weights: Column) -> Column:
    """Return the product of two matrices, computed by one thread."""
    return np.concatenate([inputs[at : at + ROWS] @ weights for at in range(0, len(inputs), ROWS)])


def collect_inputs(features: Features, names: tuple[str, ...]) -> Column:
    """Return the inputs of all blocks, a row each: the named features, then the names of its containers."""
    columns = np.array([features.columns[name] for name in names]).T
    return np.hstack([columns, _unpack(features.inside), _unpack(features.nearest)])


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


def select_blocks(scores: Column, page: Page, model: Model) -> list[int]:
    """Return the indexes of the blocks that are main text: at least the likeliest one.

    The threshold rises with the score of the likeliest block. A subheading, list item or caption between two blocks of
    main text is main text from even odds on.
    """
    highest = float(scores.max())
    is_main = scores >= min(model.cut + model.cut_share * highest, highest)
    for index in np.flatnonzero(is_main[:-2] & (scores[1:-1] >= 0) & ~is_main[1:-1] & is_main[2:]).tolist():
        around = page.climb(page.places[index + 1], PARTS_WITHIN)
        is_main[index + 1] = any(page.tags[place] in PARTS for place in around)
    return np.flatnonzero(is_main).tolist()


def _round(numbers: Column, step: float) -> Column:
    rounded: Column = np.rint(numbers * (1 / step))
    rounded *= step
    return rounded


def _unpack(masks: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Return the bits of names as columns of 0 and 1."""
    return (np.array(masks, dtype=np.uint64)[:, None] >> _SHIFTS) & np.uint64(1)


MODEL = read_model(read_rows("filters.html", "weights.tsv"))
