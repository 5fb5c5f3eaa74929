"""The perplexity rule of CCNet (Wenzek et al. 2020, sections 3.3 and 3.4): pages by how like Wikipedia they read.

A page's lines are brought to a normal form, cut into SentencePiece pieces and scored by an n-gram model of kenlm. A
page without text has infinite perplexity. Perplexities that are infinite or not a number are tail, and take no part in
percentiles.
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

HIGHEST_EXPONENT = 14  # a perplexity of 10^14 or more counts as infinite: floats above it hold no tenths
PIECES, NGRAMS = ".sp.model", (".arpa.bin", ".arpa")  # endings of a language model's two files, as CCNet names them
LMPLZ = Path(__file__).parents[2] / "build/lmplz/bin/lmplz"  # where `make lmplz` builds it


class LanguageModelText(Strict):
    """Settings of a language model's training (CCNet: 65,536 unigram pieces, 5-grams by modified Kneser-Ney)."""

    text: list[str] = Field(min_length=1)  # paths and globs: Wikipedia dumps (.xml, .xml.bz2), text, gzipped or not
    estimator: Literal["own", "lmplz"] = "own"  # `lmplz` is kenlm's program, built by `make lmplz`
    order: Annotated[int, Field(ge=2, le=6)] = 5
    vocabulary: Annotated[int, Field(ge=300, le=1 << 20)] = 65_536
    character_coverage: Annotated[float, Field(gt=0.9, le=1)] = 0.9995
    max_bytes: Positive = 500_000_000  # of normalised text, drawn by keyed hash; `own` takes 25 times the memory


Cuts: TypeAlias = tuple[float, float]  # perplexities below which head ends and from which tail begins


class LanguageModels(NamedTuple):
    """Models and cut-offs that a run has made.

    Attributes:
        files: the paths of pieces and n-grams by language; None if the recipe gives them.
        cuts: the cut-offs by language; None while they are unknown, or if the recipe gives them.
    """

    files: Mapping[str, tuple[str, str]] | None = None
    cuts: Mapping[str, Cuts] | None = None


class Perplexity(Rule):
    """Drop pages that are unlike Wikipedia, by the perplexity of an n-gram model and percentiles or fixed cut-offs.

    The perplexity rule of CCNet (Wenzek et al. 2020, sections 3.3 and 3.4): pages by how like Wikipedia they read.
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
    # the buckets to keep; `all` has the pages in languages without a model
    keep: list[Literal["head", "middle", "tail", "all"]] = Field(default=["head", "middle"], min_length=1)
    unit: Unit = "line"  # text that the model scores as one sentence; CCNet's cut-offs need `document`

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.models is None) == (not self.train):
            raise ValueError("give either models (a folder) or train (texts by language), and not both")
        if self.head > self.tail:
            raise ValueError(f"head ({self.head}) is above tail ({self.tail})")
        return self

    @property
    def needs(self) -> str:
        """The stage that trains models, scores documents and finds cut-offs."""
        return "perplexity" if self.train or self.cutoffs is None else ""

    @property
    def needs_verdicts(self) -> bool:
        """True where documents are scored for this crawl's percentiles."""
        return self.cutoffs is None

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the page stays, with its perplexity and bucket: "all" in a language without a model.

        Args:
            page: with its language.
            found: the verdict is a perplexity that is known already, or None; the run's models are `LanguageModels`.
        """
        made = found.models or LanguageModels()
        files = find_models(self.models, page.language) if made.files is None else made.files.get(page.language)
        if files is None:
            return self._judge(None, "all")
        score = found.verdict
        if score is None:
            score = load_scorer(files[0], files[1], self.unit).perplexity(page.text)
        cuts = load_cutoffs(self.cutoffs, self.head, self.tail) if self.cutoffs else made.cuts
        if cuts is None:
            return keep(perplexity=score, bucket=None)
        if page.language not in cuts and score < math.inf:
            return self._judge(score, "all")
        return self._judge(score, bucket(score, *cuts.get(page.language, (0.0, 0.0))))

    def _judge(self, score: float | None, place: Bucket | Literal["all"]) -> Verdict:
        signals = {"perplexity": score, "bucket": place}
        return keep(**signals) if place in self.keep else drop(Reason.PERPLEXITY, **signals)

    def check(self) -> None:
        """Load the cut-offs and the estimator. Raises UserError."""
        if self.cutoffs:
            load_cutoffs(self.cutoffs, self.head, self.tail)
        if any(text.estimator == "lmplz" for text in self.train.values()):
            find_lmplz()

    def find_files(self, languages: list[str] | None) -> dict[str, str]:
        """Return the cut-offs and the models' files, all of which are loaded once. Raises UserError."""
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
        """Return the rule with each path changed. `training`: those of what the run trains on as well."""
        train = {
            code: text.model_copy(update={"text": [change(path) for path in text.text] if training else text.text})
            for code, text in self.train.items()
        }
        return super().map_paths(change, training).model_copy(update={"train": train})

    def with_trained(self, files: Mapping[str, str]) -> Self:
        """Return the rule with trained models and cut-offs given by path."""
        return self.model_copy(update={**files, **({"train": {}} if "models" in files else {})})

    def key(self) -> dict[str, Any]:
        """Return the settings without paths."""
        plain = super().key()
        for text in plain["train"].values():
            text["text"] = None
        return plain

    def step_key(self) -> dict[str, Any]:
        """Return the settings without the training's, whose results count by their hashes."""
        return {**self.key(), "train": None}


def find_models(folder: str | None, code: str) -> tuple[str, str] | None:
    """Return the files of pieces and n-grams of a language in a folder, or None if one is missing."""
    if folder is None or not code:
        return None
    pieces, *ngrams = (Path(folder) / f"{code}{ending}" for ending in (PIECES, *NGRAMS))
    found = next(filter(Path.is_file, ngrams), None)
    return (str(pieces), str(found)) if found and pieces.is_file() else None


def model_languages(folder: str) -> list[str]:
    """Return the languages that a folder has pieces for."""
    return sorted(path.name.removesuffix(PIECES) for path in Path(folder).glob(f"*{PIECES}"))


def find_lmplz() -> Path:
    """Return kenlm's estimator: as `make lmplz` builds it, else from the PATH. Raises UserError if it is not found."""
    found = LMPLZ if LMPLZ.is_file() else shutil.which("lmplz")
    if found is None:
        raise UserError("estimator: lmplz was not found: build it with `make lmplz`, or choose `estimator: own`")
    return Path(found)


class PageScorer:
    """A SentencePiece model and a kenlm model of one language.

    Args:
        pieces: path of the SentencePiece model.
        model: path of the kenlm model.
        unit: text that the model takes for one sentence, between `<s>` and `</s>`. `line`: every line with text.
            `document`: the whole text without its line breaks, as cc_net's mine.py scores it and as its published
            cut-offs were made.

    Raises:
        UserError: a file is missing, or is no such model.
    """

    def __init__(self, pieces: str, model: str, unit: Unit = "line") -> None:
        self._encoder = PieceEncoder(pieces)
        self._score = load_kenlm(model).score
        self._unit = unit

    def score(self, text: str) -> tuple[float, int]:
        """Return (sum of log10 probabilities, number of pieces and sentence ends); (0.0, 0) for no words."""
        log10, tokens = 0.0, 0
        for line in lm_lines(text) if self._unit == "line" else [normalize_for_lm(text)]:
            sentence = self._encoder.sentence(line)
            if sentence:
                log10 += self._score(sentence)
                tokens += sentence.count(b" ") + 1
        return log10, tokens

    def perplexity(self, text: str) -> float:
        """Return 10 to the mean negative log10 probability of a token, rounded to 0.1 as in CCNet; inf without text."""
        return perplexity_of(*self.score(text))


load_scorer = keep_loaded(64, lambda *arguments: arguments[:2])(PageScorer)  # loaded once per process


def load_kenlm(path: str) -> Any:
    """Return a kenlm model, ARPA or binary, without progress on the terminal.

    Raises:
        UserError: the file cannot be read, or is no such model.
    """
    import kenlm

    config = kenlm.Config()
    config.show_progress = False
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    try:
        return kenlm.Model(path, config)
    except (OSError, RuntimeError, ValueError) as error:  # ValueError: undecodable bytes in kenlm's own message
        raise UserError(
            f"{path} is not a language model that kenlm can read: it is missing, truncated, or another kind of file."
        ) from error


def perplexity_of(log10: float, tokens: int) -> float:
    """Return the perplexity of a sum of log10 probabilities of tokens, rounded to 0.1."""
    if tokens == 0 or -log10 / tokens >= HIGHEST_EXPONENT:
        return math.inf
    return round(float(10.0 ** (-log10 / tokens)), 1)


def bucket(perplexity: float, head_cut: float, tail_cut: float) -> Bucket:
    """Return `head` below the first cut, `middle` below the second, else `tail`; compared in tenths."""
    perplexity = round(float(perplexity), 1)
    if perplexity < head_cut:
        return "head"
    return "middle" if perplexity < tail_cut else "tail"


@keep_loaded(16, lambda path, *percentiles: [path])
def load_cutoffs(path: str | Path, head: int = 30, tail: int = 60) -> dict[str, Cuts]:
    """Return the perplexities at two percentiles, by language, from CCNet's cutoff.csv, read once per process.

    Args:
        path: a table with a row for each percentile and a column for each language.
        head: percentile.
        tail: percentile.

    Raises:
        UserError: the file cannot be read, is no such table, or lacks a percentile.
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
    """Return the number of pages by perplexity in tenths, infinite ones and NaN left out.

    The histograms of the parts of a crawl, added up in any order, are that of the whole.
    """
    finite = perplexities[perplexities < 10.0**HIGHEST_EXPONENT].astype(np.float64)
    tenths = np.rint(finite * 10).astype(np.int64)
    values, counts = np.unique(tenths, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def cuts_from(pages: Histogram, head: int, tail: int) -> tuple[float, float]:
    """Return the perplexities at two percentiles of at least one page, by nearest rank.

    The nearest rank of a percentile is the lowest perplexity that at least that share of the pages does not exceed.
    """
    values = sorted(pages)
    reached = np.cumsum([pages[value] for value in values])
    ranks = [-(-int(reached[-1]) * percentile // 100) for percentile in (head, tail)]
    at_head, at_tail = (values[int(np.searchsorted(reached, rank))] / 10 for rank in ranks)
    return at_head, at_tail
