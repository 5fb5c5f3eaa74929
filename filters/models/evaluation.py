"""Evaluation of a classifier of two classes: the figures of its card.

Labels are booleans, scores floats; a score at a threshold counts as above it. Figures are rounded, so that cards can be
compared as text; an undefined figure, such as that of an empty class, becomes None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

DIGITS = 4  # decimals of the figures on a card
BINS = 10  # of the calibration table
BINS_PER_DOUBLING = 4  # of lengths, by which classes are matched: lengths in one bin differ by a quarter at most

Labels = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Matched:
    """A choice of candidates by length.

    Attributes:
        places: the places of the chosen candidates, ascending.
        wanted: number of candidates to choose.
        bins: number of bins of lengths in which candidates are wanted.
        short_bins: number of bins with too few candidates.
    """

    places: Numbers
    wanted: int
    bins: int
    short_bins: int


def auc(labels: Labels, scores: Scores) -> float | None:
    """Return the area under the ROC curve: the probability of a positive above a negative, where ties count half."""
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    twice_ranks = 2 * ends - counts + 1  # of equal scores the mean rank, doubled to stay whole
    above = int(twice_ranks[place[labels]].sum()) - positives * (positives + 1)
    return _round(above / (2 * positives * negatives))


def precision_recall(labels: Labels, scores: Scores, thresholds: Sequence[float]) -> list[dict[str, float | None]]:
    """Return, by threshold, the share of positives among those kept, and the share kept of the positives."""
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
    """Return, by tenths of [0, 1], the number of scores, their mean, and the share of positives among them.

    Mean and share are equal if the scores are probabilities.
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


def sweep(scores: Scores, sizes: Numbers, thresholds: Sequence[float]) -> list[dict[str, float | None]]:
    """Return, by threshold, the share of documents kept, and of text, in the unit of `sizes` (tokens, characters)."""
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
    """Choose candidates whose lengths are distributed as `lengths` are, one for each.

    Lengths fall into four bins of equal width between one power of two and the next; in each bin the candidates with
    the smallest keys are chosen, all of them if there are too few. The choice is deterministic, and independent of the
    candidates' order if the keys are distinct (of equal keys, the first).
    """
    bins, candidate_bins = length_bins(lengths), length_bins(candidate_lengths)
    size = max(bins.max(initial=0), candidate_bins.max(initial=0)) + 1
    wanted, there = (np.bincount(places, minlength=size) for places in (bins, candidate_bins))
    order = np.lexsort((keys, candidate_bins))
    rank = np.arange(len(order)) - (np.cumsum(there) - there)[candidate_bins[order]]
    taken = np.sort(order[rank < wanted[candidate_bins[order]]])
    return Matched(taken, int(wanted.sum()), int((wanted > 0).sum()), int((there < wanted).sum()))


def length_bins(lengths: Numbers) -> Numbers:
    """Return the number of each length's bin, which is 0 for the length 0; exact, since it takes no logarithm."""
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
    """Return a classifier's card, ready for JSON.

    Args:
        labels: labels of the held-out texts.
        scores: scores of the held-out texts.
        crawl_scores: scores of a plain sample of the crawl, not matched by length, which gives the share that is kept.
        crawl_sizes: sizes of the same pages.
        thresholds: thresholds that the tables list.
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
        "kept_of_crawl": sweep(crawl_scores, crawl_sizes, thresholds),
    }


def _divide(part: float, whole: float) -> float | None:
    return _round(part / whole) if whole else None


def _round(value: float) -> float:
    return round(float(value), DIGITS)
