"""Compute the inputs of the second network of filters.html.model: for each block, the scores of related blocks.

The first network scores each block alone. A block is more likely main text if related blocks have high scores: its
neighbours, the blocks in the same containers, and the blocks whose containers look the same. For example, if most
paragraphs of an article have high scores, the other paragraphs are probably also main text. If most of twenty teasers
have low scores, the other teasers are probably not.

Scores are log-odds, clipped to the range from -MAX_SCORE to MAX_SCORE.
"""

from collections.abc import Sequence

import numpy as np

from filters.html.blocks import Page
from filters.html.features import Column, Indexes, number_distinct

MAX_SCORE = 4.0  # Log-odds. Scores are clipped, so that a single block with an extreme score has limited influence.
NEXT = (1, 2, 3)  # Distances in blocks. The scores of the blocks at these distances, on both sides, are inputs.
NEAR = (4, 10, 25)  # Numbers of blocks on each side. The mean scores of these ranges are inputs.
LEVELS = 4  # The mean scores of this many innermost containers of a block are inputs.
# The value of `since_main` and `until_main` (logarithms of a number of characters) if there is no such block.
NO_MAIN_TEXT = 14.0


def describe_context(scores: Column, page: Page) -> dict[str, Column]:
    """Return the inputs of the second network, by name. Means do not include the block itself.

    Args:
        scores: The log-odds of each block by the first network, of shape (blocks,).
        page: The blocks and containers.

    Returns:
        A dict from input name to an array of shape (blocks,).
    """
    scores = np.clip(scores, -MAX_SCORE, MAX_SCORE)
    lengths = np.array([len(text) for text in page.texts], dtype=float)
    weights = np.log2(1 + lengths)
    own = np.array([weights, weights * scores])
    sums = np.zeros((2, len(scores) + 1))  # The cumulative sums of `own`.
    np.cumsum(own, axis=1, out=sums[:, 1:])
    return (
        {"score": scores}
        | _describe_neighbours(scores, own, sums)
        | _describe_containers(own, sums, page)
        | _describe_main(scores, lengths)
    )


def _describe_neighbours(scores: Column, own: Column, sums: Column) -> dict[str, Column]:
    """Return the scores of single blocks at the distances NEXT, and the means of the ranges NEAR."""
    count, edge, reach = len(scores), max(NEXT), max(NEAR)
    padded = np.full(edge + count + edge, -MAX_SCORE)  # Positions outside the page get the lowest score.
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
    """Return the mean scores of each block's containers, and of all blocks whose containers look the same."""
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
    """Return how much of the page is probably main text, and the position of each block relative to it."""
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
        "since_main": np.where(last >= 0, np.log2(1 + since), NO_MAIN_TEXT),
        "until_main": np.where(following < count, np.log2(1 + until), NO_MAIN_TEXT),
        "best": np.full(count, scores.max()),
        "main_share": np.full(count, total / letters[-1]),
        "main_length": np.full(count, np.log2(1 + total)),
    }


def _average_others(own: Column, within: Column) -> Column:
    """Return, for each block, the weighted mean score of the other blocks in its group.

    One is added to the total weight. So the mean is near 0 if the other blocks are short or absent.

    Args:
        own: The weight and the weighted score of each block, of shape (2, blocks).
        within: The sums of the weights and of the weighted scores over the block's group, of shape (2, blocks).
    """
    weight, weighted = within - own
    mean: Column = weighted / (weight + 1)
    return mean


def _number_looks(page: Page, parents: Sequence[int]) -> Indexes:
    """Return a number for each block, equal for blocks whose two innermost containers have equal tags and names."""
    nearest, around = page.places, [parents[place] for place in page.places]
    columns = (map(of.__getitem__, places) for places in (nearest, around) for of in (page.tags, page.names))
    return number_distinct(zip(*columns, strict=True))
