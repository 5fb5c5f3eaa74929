"""The reference rule: pages that read like those which Wikipedia cites (LLaMA, section 2.1), by a linear classifier.

The classifier is a fastText model over words. Its labels are those of RedPajama's classifier (data_prep/cc/classifier),
so that its models work here, too.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated, Self

from pydantic import Field, model_validator

from filters.errors import UserError
from filters.models import fasttext
from filters.settings import Count, Positive, Share, Strict

CITED, OTHER = "__label__wiki", "__label__cc"


class References(Strict):
    """Settings of the rule: the classifier, given or trained on pages that Wikipedia cites.

    Such pages are found in the crawl by the references of `wiki`, or given as `positives`, as in the paper.
    """

    threshold: Share = 0.5  # the paper: "discarded pages not classified as references"; RedPajama takes 0.25
    model: str | None = None  # path of a fastText model with the labels __label__wiki and __label__cc
    wiki: list[str] = []  # Wikipedia dumps; pages of the crawl that they cite are positives to train on
    positives: list[str] = []  # web archives of cited pages, all of which are positives
    min_positives: Positive = 1_000  # fewer cited pages are an error
    min_characters: Count = 1_000  # of a positive (RedPajama's floor); negatives are drawn to the same lengths
    max_pages: Positive = 300_000  # positives, chosen by keyed hash
    dimension: Positive = 100
    epochs: Positive = 5
    learning_rate: Annotated[float, Field(gt=0)] = (
        0.5  # with RedPajama's 0.1, a few hundred pages leave all scores at 0.5
    )
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2  # share of the pages, by domain, that the card is measured on

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (not self.wiki and not self.positives):
            raise ValueError(
                "give either model (a fastText model), or what to train one on: wiki (dumps), positives (archives of "
                "cited pages) or both"
            )
        return self


class ReferenceModel(fasttext.Classifier):
    """A classifier of pages into those that Wikipedia would cite, and others."""

    def score(self, text: str) -> float:
        """Return the probability that Wikipedia would cite the page with this text, in [0, 1]; 0 for no text."""
        prepared = prepare(text)
        return dict(self.predict(prepared, -1)).get(CITED, 0.0) if prepared else 0.0


@lru_cache(maxsize=2)
def load(path: str) -> ReferenceModel:
    """Return a model, loaded once per process.

    Raises:
        UserError: the file is no fastText model, or the model has no label `CITED`.
    """
    model = ReferenceModel(path, "reference model")
    if CITED not in model.labels:
        raise UserError(f"reference model {path} has no label {CITED}: give a model that was trained with it")
    return model


def train(
    positives: Iterable[str], negatives: Iterable[str], dimension: int, epochs: int, learning_rate: float, seed: int
) -> bytes:
    """Return the file of a model that tells texts like `positives` from texts like `negatives`; see `fasttext.train`.

    Raises:
        UserError: a class has no text, or the learning rate is too high.
    """
    texts = {CITED: map(prepare, positives), OTHER: map(prepare, negatives)}
    return fasttext.train(texts, dimension, epochs, learning_rate, seed)


def prepare(text: str) -> str:
    """Return a text as the model reads it, in training as in use: one line, single spaces, none of fastText's tokens.

    Case stays. Preparing a text twice changes nothing.
    """
    for token in ("\0", fasttext.LABEL_PREFIX, fasttext.END_OF_LINE):
        text = text.replace(token, " ")
    return " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")
