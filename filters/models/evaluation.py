"""Evaluation of a binary classifier: the metrics that are stored in its card.

Labels are booleans and scores are floats. A score equal to a threshold counts as above it. Metrics are rounded, so that
cards can be compared as text. A metric that is undefined, for example because a class is empty, is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DIGITS = 4  # decimals of the metrics in a card
BINS = 10  # bins of the calibration table
BINS_PER_DOUBLING = 4  # Bins of lengths between two powers of two. Lengths in one bin differ by at most a quarter.

Labels = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Matched:
    """A selection of candidates by length.

    Attributes:
        places: indices of the selected candidates, ascending.
        wanted: number of candidates to select.
        bins: number of bins of lengths from which at least one candidate is to be selected.
        short_bins: number of bins with too few candidates.
    """

    places: Numbers
    wanted: int
    bins: int
    short_bins: int


def auc(labels: Labels, scores: Scores) -> float | None:
    """Return the area under the ROC curve; None if a class is empty.

    It is the probability that a positive has a higher score than a negative, where equal scores count as one half.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    twice_ranks = 2 * ends - counts + 1  # Equal scores have their mean rank. It is doubled to be an integer.
    above = int(twice_ranks[place[labels]].sum()) - positives * (positives + 1)
    return _round(above / (2 * positives * negatives))


def precision_recall(labels: Labels, scores: Scores, thresholds: Sequence[float]) -> list[dict[str, float | None]]:
    """Return a row per threshold: the share of positives among the kept texts, and the share of positives kept."""
    return [
        {
            "threshold": threshold,
            "precision": _divide((kept & labels).sum(), kept.sum()),
            "recall": _divide((kept & labels).sum(), labels.sum()),
        }
        for threshold in thresholds
        for kept in [scores >= threshold]
    ]


def calibration(labels: Labels, scores: Scores) -> list[dict[str, float | int | None]]:
    """Return a row per tenth of [0, 1]: the number of scores, their mean, and the share of positives among them.

    Mean and share are equal if the scores are calibrated probabilities.
    """
    places = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    positives = np.bincount(places, weights=labels, minlength=BINS)
    sums = np.bincount(places, weights=scores, minlength=BINS)
    return [
        {
            "from": place / BINS,
            "count": int(counts[place]),
            "mean_score": _divide(sums[place], counts[place]),
            "positives": _divide(positives[place], counts[place]),
        }
        for place in range(BINS)
    ]


def kept_shares(scores: Scores, sizes: Numbers, thresholds: Sequence[float]) -> list[dict[str, float | None]]:
    """Return a row per threshold: the share of documents kept, and the share of text kept.

    Args:
        scores: score of each document.
        sizes: size of each document, for example in tokens or characters.
        thresholds: the thresholds.
    """
    return [
        {
            "threshold": threshold,
            "documents": _divide(kept.sum(), len(scores)),
            "text": _divide(sizes[kept].sum(), sizes.sum()),
        }
        for threshold in thresholds
        for kept in [scores >= threshold]
    ]


def length_matched(lengths: Numbers, candidate_lengths: Numbers, keys: npt.NDArray[Any]) -> Matched:
    """Select candidates so that their lengths have the same distribution as `lengths`. Select one for each length.

    There are four bins of equal width between each power of two and the next. In each bin, the candidates with the
    smallest keys are selected, or all candidates if there are too few. The selection is deterministic. It does not
    depend on the order of the candidates if the keys are distinct. Of candidates with equal keys, the first is
    selected.

    Args:
        lengths: (n,) the lengths to match.
        candidate_lengths: (m,) the length of each candidate.
        keys: (m,) the sort key of each candidate.
    """
    bins, candidate_bins = length_bins(lengths), length_bins(candidate_lengths)
    size = max(bins.max(initial=0), candidate_bins.max(initial=0)) + 1
    wanted, there = (np.bincount(places, minlength=size) for places in (bins, candidate_bins))
    order = np.lexsort((keys, candidate_bins))
    rank = np.arange(len(order)) - (np.cumsum(there) - there)[candidate_bins[order]]
    taken = np.sort(order[rank < wanted[candidate_bins[order]]])
    return Matched(taken, int(wanted.sum()), int((wanted > 0).sum()), int((there < wanted).sum()))


def length_bins(lengths: Numbers) -> Numbers:
    """Return the number of the bin of each length; 0 for the length 0. It is exact, since no logarithm is used."""
    fractions, exponents = np.frexp(np.maximum(lengths, 0.0))
    within = np.floor((fractions - 0.5) * 2 * BINS_PER_DOUBLING).astype(np.int64)
    return np.where(fractions > 0, exponents * BINS_PER_DOUBLING + within, 0).astype(np.int64)


def card(
    labels: Labels,
    scores: Scores,
    crawl_scores: Scores,
    crawl_sizes: Numbers,
    thresholds: Sequence[float],
    trained_on: Mapping[str, int],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the card of a classifier as plain JSON values.

    Args:
        labels: labels of the held-out texts.
        scores: scores of the held-out texts.
        crawl_scores: scores of a random sample of the crawl, not matched by length. It gives the share that is kept.
        crawl_sizes: sizes of the pages of this sample.
        thresholds: the thresholds in the tables.
        trained_on: number of texts by class.
        settings: settings of the training.
    """
    return {
        "settings": dict(settings),
        "trained_on": dict(trained_on),
        "held_out": {"positives": int(labels.sum()), "negatives": int((~labels).sum())},
        "auc": auc(labels, scores),
        "precision_recall": precision_recall(labels, scores, thresholds),
        "calibration": calibration(labels, scores),
        "kept_of_crawl": kept_shares(crawl_scores, crawl_sizes, thresholds),
    }


def _divide(part: float, whole: float) -> float | None:
    return _round(part / whole) if whole else None


def _round(value: float) -> float:
    return round(float(value), DIGITS)
