"""Compute the log-odds that a block is main text, with two small neural networks.

The inputs of the first network are the features of a block (filters.html.features) and two bits for each group of names
(filters.html.names): whether the group occurs among all containers of the block (`inside`), and whether it occurs among
the two innermost containers (`nearest`). The inputs of the second network are computed from the scores of the first
network for all blocks of the page (filters.html.context).

Each network has one hidden layer of ReLU units and a direct linear term. `python -m benchmarks fit-extraction` trains
the networks and writes the weights. No weight is set by hand.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from filters.data_files import read_rows
from filters.html.blocks import Page
from filters.html.context import MAX_SCORE, describe_context
from filters.html.features import Column, Features
from filters.html.names import GROUPS

DATA_FILES = ("weights.tsv",)  # The cache keys of steps that use this module contain the hashes of these files.
INSIDE, NEAREST = "inside ", "nearest "
NAMES = [*(INSIDE + name for name in GROUPS), *(NEAREST + name for name in GROUPS)]  # The inputs for groups of names.
CONTEXT = "context "  # The prefix of the rows of the second network in weights.tsv.
BIAS, OUTPUT = "bias", "output"
CUT, CUT_SHARE = "cut", "cut share"
SETTINGS = (CUT, CUT_SHARE)
CELLS = ("td", "th", "caption")
PARTS = frozenset("h1 h2 h3 h4 h5 h6 li dt dd figcaption caption".split())
PART_LEVELS = 3  # Levels. A block is a heading, list item or caption if one of this many innermost containers is one.
# Blocks. In larger tables scores are not averaged. The limit makes the time linear if tables are nested.
MAX_TABLE_BLOCKS = 4_096

# Inputs, hidden units and weights are rounded to multiples of these steps. So all sums are exact, and libraries and
# processors that add in a different order select the same text.
STEP, WEIGHT_STEP = 2.0**-8, 2.0**-16
# Blocks per matrix product. OpenBLAS starts threads for products of more than 2^18 numbers, which takes longer than the
# product itself.
ROWS = 64

_SHIFTS = np.arange(len(GROUPS), dtype=np.uint64)


class Network(NamedTuple):
    """A network with one hidden layer and a direct linear term.

    Attributes:
        inputs: The names of the inputs, of length d.
        weights: Of shape (d, u + 1): from the inputs to the u hidden units, and in the last column to the output.
        bias: Of shape (u + 1,): for the hidden units, and last for the output.
        output: Of shape (u,): from the hidden units to the output.
    """

    inputs: tuple[str, ...]
    weights: Column
    bias: Column
    output: Column


class Model(NamedTuple):
    """Two networks, and the threshold for main text on the scores of the second.

    A block is main text if its score is at least `cut` + `cut_share` * (the highest score of the page).

    Attributes:
        blocks: The first network. Its last inputs are NAMES.
        context: The second network.
        cut: The constant part of the threshold, in log-odds.
        cut_share: The factor of the highest score in the threshold.
    """

    blocks: Network
    context: Network
    cut: float
    cut_share: float

    @property
    def features(self) -> tuple[str, ...]:
        """Return the inputs of the first network without the inputs for names."""
        return self.blocks.inputs[: -len(NAMES)]


def read_model(rows: list[list[str]]) -> Model:
    """Return the model of a table of (input, weight to the output, weights to the hidden units).

    The row `bias` contains the biases, the row `output` the weights from the hidden units to the output. The rows of
    the settings (`SETTINGS`) contain one number. Rows of the second network begin with `CONTEXT`. Names that are not in
    the table have weight zero.
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
    """Return a network of its rows. The first column of a row is the weight to the output."""
    bias, output = rows.pop(BIAS), rows.pop(OUTPUT)
    return Network(tuple(rows), np.roll(list(rows.values()), -1, axis=1), np.roll(bias, -1), output[1:])


def score_blocks(features: Features, page: Page, model: Model) -> Column:
    """Return the log-odds of each block, of shape (blocks,), by both networks.

    The second network gets the scores of the first clipped to the range from -MAX_SCORE to MAX_SCORE. The part of a
    first score below -MAX_SCORE is added to the result. Without it, the menus of a page with little text would get the
    same score as the text.
    """
    alone = score_alone(features, model)
    inputs = describe_context(alone, page)
    columns = _round(np.array([inputs[name] for name in model.context.inputs]).T, STEP)
    scores = _score(_multiply(columns, model.context.weights) + model.context.bias, model.context)
    return scores + np.minimum(alone + MAX_SCORE, 0)


def score_alone(features: Features, model: Model) -> Column:
    """Return the log-odds of each block by the first network, of shape (blocks,)."""
    network, names = model.blocks, model.features
    # The contribution of names is computed once for each distinct combination of names.
    numbers: dict[tuple[int, int], int] = {}
    number = [numbers.setdefault(masks, len(numbers)) for masks in zip(features.inside, features.nearest, strict=True)]
    inside, nearest = (_unpack(masks) for masks in zip(*numbers, strict=True))
    name_sums = _multiply(np.hstack([inside, nearest]).astype(float), network.weights[len(names) :])
    inputs = _round(np.array([features.columns[name] for name in names]).T, STEP)
    return _score(_multiply(inputs, network.weights[: len(names)]) + (name_sums + network.bias)[number], network)


def _score(sums: Column, network: Network) -> Column:
    """Return the outputs of a network, given the pre-activations of its units and output, of shape (blocks, u + 1)."""
    units = _round(np.maximum(sums[:, :-1], 0), STEP)
    scores: Column = np.einsum("bu,u->b", units, network.output) + sums[:, -1]
    return scores


def _multiply(inputs: Column, weights: Column) -> Column:
    """Return the product of two matrices. It is computed in pieces so small that one thread is used (see ROWS)."""
    return np.concatenate([inputs[at : at + ROWS] @ weights for at in range(0, len(inputs), ROWS)])


def collect_inputs(features: Features, names: tuple[str, ...]) -> Column:
    """Return the inputs of the first network, one row per block: the features `names`, then the bits of NAMES."""
    columns = np.array([features.columns[name] for name in names]).T
    return np.hstack([columns, _unpack(features.inside), _unpack(features.nearest)])


def average_tables(scores: Column, page: Page) -> Column:
    """Return the scores with each score in a table of data replaced by the mean of the table.

    So a table of data is selected completely or not at all. A table is data if it has exactly one block in each cell,
    and less than half of its text in links. A table for the layout of a page has more blocks in a cell, and a list of
    threads has more links.
    """
    averaged = scores.copy()
    for table, tag in enumerate(page.tags):
        if tag == "table" and page.ends[table] - page.starts[table] <= MAX_TABLE_BLOCKS:
            cells = page.places[page.starts[table] : page.ends[table]]
            blocks = slice(page.starts[table], page.ends[table])
            plain = 2 * sum(page.linked[blocks]) < sum(map(len, page.texts[blocks]))
            if plain and len(cells) == len(set(cells)) > 1 and all(page.tags[cell] in CELLS for cell in cells):
                averaged[blocks] = scores[blocks].mean()
    return averaged


def select_blocks(scores: Column, page: Page, model: Model) -> list[int]:
    """Return the indexes of the blocks that are main text. At least the block with the highest score is selected.

    The threshold rises with the highest score. A subheading, list item or caption between two blocks of main text is
    selected if its log-odds are at least 0.
    """
    highest = float(scores.max())
    is_main = scores >= min(model.cut + model.cut_share * highest, highest)
    for index in np.flatnonzero(is_main[:-2] & (scores[1:-1] >= 0) & ~is_main[1:-1] & is_main[2:]).tolist():
        around = page.iter_ancestors(page.places[index + 1], PART_LEVELS)
        is_main[index + 1] = any(page.tags[place] in PARTS for place in around)
    return np.flatnonzero(is_main).tolist()


def _round(numbers: Column, step: float) -> Column:
    """Round numbers to multiples of a power of two."""
    rounded: Column = np.rint(numbers * (1 / step))
    rounded *= step
    return rounded


def _unpack(masks: Sequence[int]) -> npt.NDArray[np.uint64]:
    """Return the bits of group masks as columns of 0 and 1, of shape (blocks, groups)."""
    return (np.array(masks, dtype=np.uint64)[:, None] >> _SHIFTS) & np.uint64(1)


MODEL = read_model(read_rows("filters.html", "weights.tsv"))
