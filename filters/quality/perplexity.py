"""How like a language model's text a page reads (CCNet: Wenzek et al. 2020, section 3.3): head, middle or tail.

A page without text has infinite perplexity. What is infinite or not a number is tail, and takes no part in percentiles.
"""

import csv
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import kenlm
import numpy as np
import numpy.typing as npt

from filters.dedup.ccnet import lm_lines, normalize_for_lm
from filters.errors import UserError
from filters.models.pieces import PieceEncoder

Unit: TypeAlias = Literal["line", "document"]
Bucket: TypeAlias = Literal["head", "middle", "tail"]
Perplexities: TypeAlias = npt.NDArray[np.floating[Any]]
Histogram: TypeAlias = dict[int, int]
"""tenths of perplexity → pages"""

HIGHEST_EXPONENT = 14
"""a perplexity of 10^14 or more counts as infinite: beyond it floats do not hold tenths"""


class PageScorer:
    """A SentencePiece model and a kenlm model of one language.

    `unit`: what the model takes for one sentence, with `<s>` before and `</s>` behind it. `line`: every line with text.
    `document`: the whole text with its line breaks taken out, as cc_net's mine.py does it and as its published
    cut-offs were made. Raises UserError for a file that is missing or no such model.
    """

    def __init__(self, pieces: str, model: str, unit: Unit = "line") -> None:
        self._encoder = PieceEncoder(pieces)
        self._score = load_kenlm(model).score
        self._lines = lm_lines if unit == "line" else _one_line

    def score(self, text: str) -> tuple[float, int]:
        """(sum of log10 probabilities, number of pieces and sentence ends); (0.0, 0) for a text without words."""
        log10, tokens = 0.0, 0
        for line in self._lines(text):
            sentence = self._encoder.sentence(line)
            if sentence:
                log10 += self._score(sentence)
                tokens += sentence.count(b" ") + 1
        return log10, tokens

    def perplexity(self, text: str) -> float:
        """10 to the mean negative log10 probability of a token, rounded to 0.1 as CCNet does; infinite without text."""
        return perplexity_of(*self.score(text))


@lru_cache(maxsize=64)
def load_scorer(pieces: str, model: str, unit: Unit = "line") -> PageScorer:
    """The scorer of these files, loaded once a process. Raises UserError."""
    return PageScorer(pieces, model, unit)


def load_kenlm(path: str) -> Any:
    """A kenlm model, ARPA or binary, without a word on the terminal. Raises UserError."""
    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(path, config)
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: garbage in kenlm's own message
        raise UserError(
            f"{path} is not a language model that kenlm can read: it is missing, cut short, or something else."
        ) from error


def perplexity_of(log10: float, tokens: int) -> float:
    """Perplexity of a sum of log10 probabilities over so many tokens, rounded to 0.1."""
    if tokens == 0 or -log10 / tokens >= HIGHEST_EXPONENT:
        return math.inf
    return round(float(10.0 ** (-log10 / tokens)), 1)


def bucket(perplexity: float, head_cut: float, tail_cut: float) -> Bucket:
    """`head` below the one cut, `middle` below the other, else `tail`; in tenths, so that 32-bit floats will do."""
    perplexity = round(float(perplexity), 1)
    if perplexity < head_cut:
        return "head"
    return "middle" if perplexity < tail_cut else "tail"


def load_cutoffs(path: Path, head: int = 30, tail: int = 60) -> dict[str, tuple[float, float]]:
    """The perplexities at two percentiles by language, from CCNet's cutoff.csv: a row a percentile, a column a
    language. Raises UserError."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            languages, *rows = csv.reader(file)
            by_percentile = {
                int(row[0]): dict(zip(languages[1:], map(float, row[1:]), strict=True)) for row in rows if row
            }
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give CCNet's cutoff.csv, or leave cutoffs out."
        ) from error
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is not a table of cut-offs, a row a percentile and a column a language: {error}."
        ) from error
    for percentile in (head, tail):
        if percentile not in by_percentile:
            raise UserError(f"{path} has no row for percentile {percentile}: choose head and tail among its rows.")
    return {language: (by_percentile[head][language], by_percentile[tail][language]) for language in languages[1:]}


def histogram(perplexities: Perplexities) -> Histogram:
    """How many pages have each perplexity, in tenths; infinite ones and NaN are left out.

    Histograms of parts of a crawl add up key by key, in any order, to that of the whole.
    """
    finite = perplexities[perplexities < 10.0**HIGHEST_EXPONENT].astype(np.float64)
    tenths = np.rint(finite * 10).astype(np.int64)
    values, counts = np.unique(tenths, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def cuts_from(pages: Histogram, head: int, tail: int) -> tuple[float, float]:
    """The perplexities at two percentiles by nearest rank: the lowest that at least so many percent of the pages do not
    exceed. (inf, inf) for no pages."""
    if not pages:
        return math.inf, math.inf
    values = sorted(pages)
    reached = np.cumsum([pages[value] for value in values])
    ranks = [-(-int(reached[-1]) * percentile // 100) for percentile in (head, tail)]
    at_head, at_tail = (values[int(np.searchsorted(reached, rank))] / 10 for rank in ranks)
    return at_head, at_tail


def percentile_cuts(perplexities: Perplexities, head: int, tail: int) -> tuple[float, float]:
    """`cuts_from` of one array."""
    return cuts_from(histogram(perplexities), head, tail)


def _one_line(text: str) -> list[str]:
    return [normalize_for_lm(text)]
