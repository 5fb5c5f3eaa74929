"""The rule `references`: keep pages that are similar to the pages that Wikipedia cites (LLaMA, section 2.1).

The pages are classified by a linear model, a fastText model of words. It has the same labels as RedPajama's classifier
(data_prep/cc/classifier), so RedPajama's models can also be used.
"""

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field, model_validator

from filters.errors import UserError
from filters.loaded_files import keep_loaded
from filters.models import fasttext
from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict
from filters.settings import Count, Positive, Share

CITED, OTHER = "__label__wiki", "__label__cc"


class References(Rule):
    """Drop pages that are unlike the pages that Wikipedia cites, by a given or trained classifier.

    The classifier is linear (LLaMA, section 2.1).
    """

    REASONS = (Reason.NOT_REFERENCE_LIKE,)
    SIGNALS = ("reference_score",)
    FILES = ("model",)
    TRAINING = ("wiki", "positives")
    FIXED = ("min_positives", "min_characters", "max_pages", "dimension", "epochs", "learning_rate", "held_out")

    threshold: Share = 0.5  # smallest score; the paper: "discarded pages not classified as references". RedPajama: 0.25
    model: str | None = None  # path of a fastText model with the labels __label__wiki and __label__cc
    wiki: list[str] = []  # paths of Wikipedia dumps; the pages of the crawl that they cite are positive examples
    positives: list[str] = []  # paths of web archives of cited pages; all pages in them are positive examples
    min_positives: Positive = 1_000  # with fewer positive examples the run ends with a message
    # smallest length of a positive example (RedPajama); negative examples have the same distribution of lengths
    min_characters: Count = 1_000
    max_pages: Positive = 300_000  # largest number of positive examples, selected by keyed hash
    dimension: Positive = 100  # dimension of the word vectors
    epochs: Positive = 5  # number of passes over the examples in training
    # learning rate of the training; with RedPajama's 0.1 and a few hundred pages, all scores stay at 0.5
    learning_rate: Annotated[float, Field(gt=0)] = 0.5
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2  # share of pages, by domain, to evaluate the model on

    @property
    def needs(self) -> str:
        """The name of the stage that trains the classifier; empty if a classifier is given."""
        return "" if self.model else "references"

    @property
    def needs_verdicts(self) -> bool:
        """False, since the rule needs only the classifier and no verdicts."""
        return False

    def apply(self, page: Page, found: Found) -> Verdict:
        """Keep or drop the page by its score, which is also a signal. `found.models` is the path of a classifier."""
        score = load(self.model or found.models).score(page.text)
        reason = None if score >= self.threshold else Reason.NOT_REFERENCE_LIKE
        return Verdict(reason=reason, signals={"reference_score": score})

    def check(self) -> None:
        """Load the given classifier, if there is one.

        Raises:
            UserError: the file is not a model with the label `CITED`.
        """
        if self.model:
            load(self.model)

    @model_validator(mode="after")
    def _check_one_model(self) -> Self:
        if (self.model is None) == (not self.wiki and not self.positives):
            raise ValueError(
                "give either model (a fastText model), or the data to train one: wiki (dumps), positives (archives of "
                "cited pages) or both"
            )
        return self


class ReferenceModel(fasttext.Classifier):
    """A classifier that separates pages that Wikipedia would cite from other pages."""

    def score(self, text: str) -> float:
        """Return the probability, in [0, 1], that Wikipedia would cite the page with this text; 0 for empty text."""
        prepared = prepare(text)
        return dict(self.predict(prepared, -1)).get(CITED, 0.0) if prepared else 0.0


@keep_loaded(2, lambda path: [path])
def load(path: str) -> ReferenceModel:
    """Load a model. The result is cached, so each model is read once per process.

    Raises:
        UserError: the file is not a fastText model, or the model has no label `CITED`.
    """
    model = ReferenceModel(path, "reference model")
    if CITED not in model.labels:
        raise UserError(f"reference model {path} has no label {CITED}: give a model that was trained with it")
    return model


def train(
    positives: Iterable[str], negatives: Iterable[str], dimension: int, epochs: int, learning_rate: float, seed: int
) -> bytes:
    """Train a model that separates texts like `positives` from texts like `negatives`. Return the bytes of its file.

    See `fasttext.train` for the arguments.

    Raises:
        UserError: a class has no text, or the learning rate is too high.
    """
    texts = {CITED: map(prepare, positives), OTHER: map(prepare, negatives)}
    return fasttext.train(texts, dimension, epochs, learning_rate, seed)


def prepare(text: str) -> str:
    """Return the form of a text that is passed to the model, both in training and in prediction.

    The text becomes one line with single spaces. fastText's special tokens are removed, and case is kept. The function
    is idempotent.
    """
    for token in ("\0", fasttext.LABEL_PREFIX, fasttext.END_OF_LINE):
        text = text.replace(token, " ")
    return " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")
