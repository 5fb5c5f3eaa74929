"""Describe each block of a page by the scores of the blocks around it: the evidence of a second look at the page.

A block is likelier main text if its neighbours are, and those that share its containers, and those that look alike
wherever they are: one paragraph of an article vouches for the others, and one of twenty teasers speaks for all. The
scores are log-odds of a first look (filters.html.model), at most `MOST` from even odds.
"""

from collections.abc import Sequence

import numpy as np

from filters.html.blocks import Page
from filters.html.features import Column, Indexes, number_distinct

MOST = 4.0  # log-odds: surer than this, a block counts no more
NEXT = (1, 2, 3)  # blocks before and after one, each an input
NEAR = (4, 10, 25)  # blocks on both sides whose mean is an input
LEVELS = 4  # the innermost containers whose means are inputs
NEVER = 14.0  # the logarithm of letters to a block that is likely main text, if the page has none


def describe_context(scores: Column, page: Page) -> dict[str, Column]:
    """Return the inputs of the second look, a number for each block. Means leave the block itself out."""
    scores = np.clip(scores, -MOST, MOST)
    lengths = np.array([len(text) for text in page.texts], dtype=float)
    weights = np.log2(1 + lengths)
    own = np.array([weights, weights * scores])
    sums = np.zeros((2, len(scores) + 1))  # of these, up to each block
    np.cumsum(own, axis=1, out=sums[:, 1:])
    return (
        {"score": scores}
        | _describe_neighbours(scores, own, sums)
        | _describe_containers(own, sums, page)
        | _describe_main(scores, lengths)
    )


def _describe_neighbours(scores: Column, own: Column, sums: Column) -> dict[str, Column]:
    count, edge, reach = len(scores), max(NEXT), max(NEAR)
    padded = np.full(edge + count + edge, -MOST)  # nothing is less likely main text than what is not there
    padded[edge:-edge] = scores
    far = np.zeros((2, reach + count + 1 + reach))
    far[:, reach:-reach] = sums
    far[:, -reach:] = sums[:, -1:]
    columns = {}
    for step in NEXT:
        columns[f"previous_{step}"] = padded[edge - step :][:count]
        columns[f"next_{step}"] = padded[edge + step :][:count]
    for blocks in NEAR:
        within = far[:, reach + blocks + 1 :][:, :count] - far[:, reach - blocks :][:, :count]
        columns[f"near_{blocks}"] = _average_others(own, within)
    return columns


def _describe_containers(own: Column, sums: Column, page: Page) -> dict[str, Column]:
    """Describe the containers of each block, and all blocks whose two innermost containers look alike."""
    within = sums[:, page.ends] - sums[:, page.starts]
    parents = np.maximum(page.parents, 0)
    columns, place = {}, np.array(page.places)
    for level in range(LEVELS):
        columns[f"container_{level}"] = _average_others(own, within[:, place])
        place = parents[place]
    looks = _number_looks(page, parents.tolist())
    alike = np.array([np.bincount(looks, column) for column in own])
    columns["alike"] = _average_others(own, alike[:, looks])
    columns["alike_count"] = np.log2(np.bincount(looks))[looks]
    return columns


def _describe_main(scores: Column, lengths: Column) -> dict[str, Column]:
    """Describe how much of the page is likely main text, and where each block is relative to it."""
    count, order = len(scores), np.arange(len(scores))
    likely = lengths / (1 + np.exp(-scores))
    total = max(float(likely.sum()), 1.0)
    so_far, letters = np.cumsum(likely), np.append(0.0, np.cumsum(lengths))
    last = np.maximum.accumulate(np.where(scores > 0, order, -1))
    following = np.minimum.accumulate(np.where(scores > 0, order, count)[::-1])[::-1]
    since = np.maximum(letters[order] - letters[last + 1], 0)
    until = np.maximum(letters[following] - letters[order + 1], 0)
    return {
        "main_before": (so_far - likely) / total,
        "main_after": 1 - so_far / total,
        "since_main": np.where(last >= 0, np.log2(1 + since), NEVER),
        "until_main": np.where(following < count, np.log2(1 + until), NEVER),
        "best": np.full(count, scores.max()),
        "main_share": np.full(count, total / letters[-1]),
        "main_length": np.full(count, np.log2(1 + total)),
    }


def _average_others(own: Column, within: Column) -> Column:
    """Return the mean score of groups of blocks, without that of the block itself: near 0 if the others are short.

    Args:
        own: The weight of each block, and its weighted score.
        within: The sums of both over its group.
    """
    weight, weighted = within - own
    mean: Column = weighted / (weight + 1)
    return mean


def _number_looks(page: Page, parents: Sequence[int]) -> Indexes:
    """Return a number for each block, the same for blocks whose two innermost containers have the same names."""
    nearest, around = page.places, [parents[place] for place in page.places]
    columns = (map(of.__getitem__, places) for places in (nearest, around) for of in (page.tags, page.names))
    return number_distinct(zip(*columns, strict=True))
