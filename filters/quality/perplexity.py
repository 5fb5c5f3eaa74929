"""The rule `perplexity`: CCNet's selection of pages by their similarity to Wikipedia.

The method is that of Wenzek et al. 2020, sections 3.3 and 3.4. The lines of a page are normalised, split into
SentencePiece pieces, and scored by an n-gram model of kenlm. A page without text has infinite perplexity. Pages whose
perplexity is infinite or NaN belong to the bucket `tail` and are not counted for percentiles.
"""

import csv
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from filters.errors import UserError
from filters.loaded_files import keep_loaded
from filters.quality.pieces import PieceEncoder, lm_lines, normalize_for_lm
from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep
from filters.settings import Positive, Strict

Unit: TypeAlias = Literal["line", "document"]
Bucket: TypeAlias = Literal["head", "middle", "tail"]
Perplexities: TypeAlias = npt.NDArray[np.floating[Any]]
Histogram: TypeAlias = dict[int, int]  # tenths of perplexity -> pages

HIGHEST_EXPONENT = 14  # A perplexity of 10^14 or more counts as infinite: larger floats do not represent tenths.
PIECES, NGRAMS = ".sp.model", (".arpa.bin", ".arpa")  # suffixes of a language model's two files, as in CCNet
LMPLZ = Path(__file__).parents[2] / "build/lmplz/bin/lmplz"  # the program that `make lmplz` builds


class LanguageModelText(Strict):
    """Settings for training a language model (CCNet: 65,536 unigram pieces, 5-grams with modified Kneser-Ney)."""

    text: list[str] = Field(min_length=1)  # paths and globs: Wikipedia dumps (.xml, .xml.bz2), text, gzipped or not
    estimator: Literal["own", "lmplz"] = "own"  # `lmplz` is kenlm's program, built by `make lmplz`
    order: Annotated[int, Field(ge=2, le=6)] = 5
    vocabulary: Annotated[int, Field(ge=300, le=1 << 20)] = 65_536
    character_coverage: Annotated[float, Field(gt=0.9, le=1)] = 0.9995
    # largest number of bytes of normalised text, drawn by keyed hash; `own` takes 25 times as much memory
    max_bytes: Positive = 500_000_000


# Two perplexities: pages below the first are head, and pages at or above the second are tail.
Cuts: TypeAlias = tuple[float, float]


class LanguageModels(NamedTuple):
    """The models and cut-offs that a run has made.

    Attributes:
        files: by language, the paths of the models of pieces and of n-grams; None if the recipe gives the paths.
        cuts: the cut-offs by language; None if they are not known yet, or if the recipe gives them.
    """

    files: Mapping[str, tuple[str, str]] | None = None
    cuts: Mapping[str, Cuts] | None = None


class Perplexity(Rule):
    """Drop pages that are unlike Wikipedia, by the perplexity of an n-gram model and percentiles or fixed cut-offs.

    This is CCNet's rule (Wenzek et al. 2020, sections 3.3 and 3.4).
    """

    REASONS = (Reason.PERPLEXITY,)
    SIGNALS = ("perplexity", "bucket")
    FILES = ("models", "cutoffs")
    FIXED = ("train", "head", "tail", "unit")

    models: str | None = None  # folder of LANGUAGE.sp.model with LANGUAGE.arpa.bin or .arpa, as CCNet publishes them
    train: dict[str, LanguageModelText] = {}  # texts of the models that the run trains, by language
    cutoffs: str | None = None  # path of CCNet's cutoff.csv; null: the percentiles of this crawl, by language
    head: Annotated[int, Field(ge=1, le=99)] = 30  # a page below this percentile is head
    tail: Annotated[int, Field(ge=1, le=99)] = 60  # a page at or above this percentile is tail
    # the buckets to keep; `all` contains the pages in languages without a model
    keep: list[Literal["head", "middle", "tail", "all"]] = Field(default=["head", "middle"], min_length=1)
    unit: Unit = "line"  # text that the model scores as one sentence; CCNet's cut-offs need `document`

    @model_validator(mode="after")
    def _check_consistent(self) -> Self:
        if (self.models is None) == (not self.train):
            raise ValueError("give either models (a folder) or train (texts by language), and not both")
        if self.head > self.tail:
            raise ValueError(f"head ({self.head}) is above tail ({self.tail})")
        return self

    @property
    def needs(self) -> str:
        """The name of the stage that trains models and finds cut-offs; empty if the settings give both."""
        return "perplexity" if self.train or self.cutoffs is None else ""

    @property
    def needs_verdicts(self) -> bool:
        """True if the stage scores all documents, to find the percentiles of this crawl."""
        return self.cutoffs is None

    def apply(self, page: Page, found: Found) -> Verdict:
        """Keep or drop the page by its bucket. The signals are its perplexity and bucket.

        The bucket is "all" for a page in a language without a model. While the cut-offs are not known, the page is kept
        and the bucket is None.

        Args:
            page: a page with a language.
            found: the verdict is the perplexity of the page if it was already computed, otherwise None. The models are
                `LanguageModels` or None.
        """
        made = found.models or LanguageModels()
        files = find_models(self.models, page.language) if made.files is None else made.files.get(page.language)
        if files is None:
            return self._keep_or_drop(None, "all")
        score = found.verdict
        if score is None:
            score = load_scorer(files[0], files[1], self.unit).perplexity(page.text)
        cuts = load_cutoffs(self.cutoffs, self.head, self.tail) if self.cutoffs else made.cuts
        if cuts is None:
            return keep(perplexity=score, bucket=None)
        if page.language not in cuts and score < math.inf:
            return self._keep_or_drop(score, "all")
        return self._keep_or_drop(score, bucket(score, *cuts.get(page.language, (0.0, 0.0))))

    def _keep_or_drop(self, score: float | None, place: Bucket | Literal["all"]) -> Verdict:
        """Return the verdict on a page. `score`: its perplexity, None without a model; `place`: its bucket."""
        signals = {"perplexity": score, "bucket": place}
        return keep(**signals) if place in self.keep else drop(Reason.PERPLEXITY, **signals)

    def check(self) -> None:
        """Load the cut-offs and find the program lmplz, if the settings need them.

        Raises:
            UserError: the cut-offs cannot be read, or lmplz is not found.
        """
        if self.cutoffs:
            load_cutoffs(self.cutoffs, self.head, self.tail)
        if any(text.estimator == "lmplz" for text in self.train.values()):
            find_lmplz()

    def find_files(self, languages: list[str] | None) -> dict[str, str]:
        """Return the paths of the cut-offs and the models, by their use. Load the models, to find defects early.

        Args:
            languages: codes of the languages that the earlier rules keep; None for all languages with a model.

        Raises:
            UserError: a file cannot be read, or there is no model for any of the languages.
        """
        found = {"cutoffs": self.cutoffs} if self.cutoffs else {}
        if self.models is None:
            return found
        for code in model_languages(self.models) if languages is None else languages:
            if files := find_models(self.models, code):
                load_scorer(*files, self.unit)
                found |= {f"{code}.pieces": files[0], f"{code}.ngrams": files[1]}
        if len(found) < 2:
            raise UserError(
                f"{self.models} holds no language model for {' or '.join(languages or ()) or 'any language'}: give a "
                "folder with LANGUAGE.sp.model and LANGUAGE.arpa.bin or LANGUAGE.arpa"
            )
        return found

    def training_inputs(self) -> dict[str, list[str]]:
        """Return the texts to train on, by language."""
        return {code: text.text for code, text in self.train.items()}

    def map_paths(self, change: Callable[[str], str], training: bool = True) -> Self:
        """Return a copy of the rule with changed paths. See `Rule.map_paths`."""
        train = {
            code: text.model_copy(update={"text": [change(path) for path in text.text] if training else text.text})
            for code, text in self.train.items()
        }
        return super().map_paths(change, training).model_copy(update={"train": train})

    def with_trained(self, files: Mapping[str, str]) -> Self:
        """Return a copy of the rule that reads trained models and cut-offs. See `Rule.with_trained`."""
        return self.model_copy(update={**files, **({"train": {}} if "models" in files else {})})

    def key(self) -> dict[str, Any]:
        """Return the settings that are part of a recipe's hash: all settings without paths."""
        plain = super().key()
        for text in plain["train"].values():
            text["text"] = None
        return plain

    def step_key(self) -> dict[str, Any]:
        """Return the settings without `train`, because the trained models are hashed separately."""
        return {**self.key(), "train": None}


def find_models(folder: str | None, code: str) -> tuple[str, str] | None:
    """Return the paths of the models of pieces and of n-grams for a language in a folder; None if one is missing."""
    if folder is None or not code:
        return None
    pieces, *ngrams = (Path(folder) / f"{code}{ending}" for ending in (PIECES, *NGRAMS))
    found = next(filter(Path.is_file, ngrams), None)
    return (str(pieces), str(found)) if found and pieces.is_file() else None


def model_languages(folder: str) -> list[str]:
    """Return the codes of the languages for which a folder has a model of pieces, sorted."""
    return sorted(path.name.removesuffix(PIECES) for path in Path(folder).glob(f"*{PIECES}"))


def find_lmplz() -> Path:
    """Return the path of kenlm's program lmplz: the one that `make lmplz` builds, or one on the PATH.

    Raises:
        UserError: the program is not found.
    """
    found = LMPLZ if LMPLZ.is_file() else shutil.which("lmplz")
    if found is None:
        raise UserError("estimator: lmplz was not found: build it with `make lmplz`, or choose `estimator: own`")
    return Path(found)


class PageScorer:
    """Computes perplexities with a SentencePiece model and a kenlm model of one language.

    Args:
        pieces: path of the SentencePiece model.
        model: path of the kenlm model.
        unit: the text that is scored as one sentence, between `<s>` and `</s>`. `line`: every line with text.
            `document`: the whole text without its line breaks, as in cc_net's mine.py, with which CCNet's published
            cut-offs were made.

    Raises:
        UserError: a file is missing or is not a model of its kind.
    """

    def __init__(self, pieces: str, model: str, unit: Unit = "line") -> None:
        self._encoder = PieceEncoder(pieces)
        self._score = load_kenlm(model).score
        self._unit = unit

    def score(self, text: str) -> tuple[float, int]:
        """Return the sum of the log10 probabilities of all tokens, and the number of tokens.

        Tokens are pieces and ends of sentences. The result is (0.0, 0) for a text without words.
        """
        log10, tokens = 0.0, 0
        for line in lm_lines(text) if self._unit == "line" else [normalize_for_lm(text)]:
            sentence = self._encoder.sentence(line)
            if sentence:
                log10 += self._score(sentence)
                tokens += sentence.count(b" ") + 1
        return log10, tokens

    def perplexity(self, text: str) -> float:
        """Return the perplexity of a text, rounded to 0.1 as in CCNet; infinity for a text without words."""
        return perplexity_of(*self.score(text))


load_scorer = keep_loaded(64, lambda *arguments: arguments[:2])(PageScorer)  # A cached PageScorer, one per process.


def load_kenlm(path: str) -> Any:
    """Load a kenlm model, ARPA or binary, without output of the progress on the terminal.

    Raises:
        UserError: the file cannot be read, or is not a model that kenlm reads.
    """
    import kenlm

    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(path, config)
    # kenlm raises ValueError if its own message contains bytes that cannot be decoded.
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{path} is not a language model that kenlm can read: it is missing, truncated, or another kind of file."
        ) from error


def perplexity_of(log10: float, tokens: int) -> float:
    """Return the perplexity, rounded to 0.1: 10 to the power of the mean negative log10 probability of a token.

    Args:
        log10: sum of the log10 probabilities of all tokens.
        tokens: number of tokens.

    Returns:
        Infinity if there is no token, or if the perplexity is at least 10^`HIGHEST_EXPONENT`.
    """
    if tokens == 0 or -log10 / tokens >= HIGHEST_EXPONENT:
        return math.inf
    return round(float(10.0 ** (-log10 / tokens)), 1)


def bucket(perplexity: float, head_cut: float, tail_cut: float) -> Bucket:
    """Return the bucket of a perplexity, which is rounded to tenths before it is compared.

    It is `head` below `head_cut`, otherwise `middle` below `tail_cut`, and otherwise `tail`.
    """
    perplexity = round(float(perplexity), 1)
    if perplexity < head_cut:
        return "head"
    return "middle" if perplexity < tail_cut else "tail"


@keep_loaded(16, lambda path, *percentiles: [path])
def load_cutoffs(path: str | Path, head: int = 30, tail: int = 60) -> dict[str, Cuts]:
    """Load CCNet's cutoff.csv and return the perplexities at two percentiles, by language. The result is cached.

    Args:
        path: a table with a row for each percentile and a column for each language.
        head: the percentile of the first cut-off.
        tail: the percentile of the second cut-off.

    Raises:
        UserError: the file cannot be read, does not have this form, or has no row for a percentile.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
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
            f"{path} is not a table of cut-offs, with a row per percentile and a column per language: {error}."
        ) from error
    for percentile in (head, tail):
        if percentile not in by_percentile:
            raise UserError(f"{path} has no row for percentile {percentile}: choose head and tail among its rows.")
    return {language: (by_percentile[head][language], by_percentile[tail][language]) for language in languages[1:]}


def histogram(perplexities: Perplexities) -> Histogram:
    """Return a dict from perplexity, in tenths, to number of pages. Infinite values and NaN are not counted.

    The histogram of a crawl is the sum of the histograms of its parts, in any order.
    """
    finite = perplexities[perplexities < 10.0**HIGHEST_EXPONENT].astype(np.float64)
    tenths = np.rint(finite * 10).astype(np.int64)
    values, counts = np.unique(tenths, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def cuts_from(pages: Histogram, head: int, tail: int) -> tuple[float, float]:
    """Return the perplexities at two percentiles, by the nearest-rank method.

    The result for a percentile is the lowest perplexity p such that at least this percentage of the pages have a
    perplexity of at most p.

    Args:
        pages: the histogram of at least one page.
        head: the first percentile.
        tail: the second percentile.
    """
    values = sorted(pages)
    reached = np.cumsum([pages[value] for value in values])
    ranks = [-(-int(reached[-1]) * percentile // 100) for percentile in (head, tail)]
    at_head, at_tail = (values[int(np.searchsorted(reached, rank))] / 10 for rank in ranks)
    return at_head, at_tail
