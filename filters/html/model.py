"""Score blocks by a linear model over their features: the log-odds that a block is main text.

A feature counts by a piecewise linear curve, given by its weights at some knots; a group of names by one weight where
it is among all containers of a block (`inside`), and one where it is nearest. `python -m benchmarks fit-extraction`
writes the weights; nothing else in them is set by hand.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from filters.data_files import read_rows
from filters.html.features import Column, Features
from filters.html.names import BITS

DATA_FILES = ("weights.tsv",)  # part of the code version of a step
INTERCEPT, INSIDE, NEAREST = "intercept", "inside ", "nearest "
CUT, CUT_SHARE = "cut", "cut share"
NO_CURVES = (INTERCEPT, CUT, CUT_SHARE)


class Model(NamedTuple):
    """The weights of the features."""

    intercept: float
    curves: dict[str, tuple[Column, Column]]  # by feature: knots and weights at these
    inside: Callable[[int], float]  # the sum of the weights of names, from their bits
    nearest: Callable[[int], float]
    cut: float  # blocks are main text above this, plus a share of the highest log-odds of the page
    cut_share: float


def read_model(rows: list[list[str]]) -> Model:
    """Return the model of a table of (feature, knot, weight)."""
    points: dict[str, list[tuple[float, float]]] = {}
    for feature, knot, weight in rows:
        points.setdefault(feature, []).append((float(knot), float(weight)))
    names = {
        kind: _name_scorer(
            [(BITS[name[len(kind) :]], of[0][1]) for name, of in points.items() if name.startswith(kind)]
        )
        for kind in (INSIDE, NEAREST)
    }
    curves = {
        name: (np.array([knot for knot, _ in of]), np.array([weight for _, weight in of]))
        for name, of in points.items()
        if name not in NO_CURVES and not name.startswith((INSIDE, NEAREST))
    }
    intercept, cut, cut_share = (points[name][0][1] for name in NO_CURVES)
    return Model(intercept, curves, names[INSIDE], names[NEAREST], cut, cut_share)


def score_blocks(features: Features, model: Model) -> Column:
    """Return the log-odds of each block."""
    names = zip(features.inside, features.nearest, strict=True)
    scores = np.array([model.inside(inside) + model.nearest(nearest) for inside, nearest in names], dtype=float)
    scores += model.intercept
    for name, (knots, weights) in model.curves.items():
        scores += np.interp(features.columns[name], knots, weights)
    return scores


def select_blocks(scores: Column, model: Model) -> list[int]:
    """Return the indexes of the blocks that are main text: at least the likeliest one."""
    highest = float(scores.max())
    return np.flatnonzero(scores >= min(model.cut + model.cut_share * highest, highest)).tolist()


def _name_scorer(weights: list[tuple[int, float]]) -> Callable[[int], float]:
    @lru_cache(maxsize=1 << 14)  # the blocks of a page share their containers
    def score(names: int) -> float:
        return sum(weight for bit, weight in weights if names & bit)

    return score


MODEL = read_model(read_rows("filters.html", "weights.tsv"))
