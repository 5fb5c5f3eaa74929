"""Open fastText model files, with a sentence for the user if they are none, and ask them."""

import struct
from pathlib import Path

import fasttext

from filters.errors import UserError

MAGIC = 793712314
"""first four bytes of a fastText model, little-endian (fasttext.cc, FASTTEXT_FILEFORMAT_MAGIC_INT32)"""


def open_model(path: str, role: str) -> fasttext.FastText._FastText:
    """The model in a file. `role` says what it is for ("language model"). Raises UserError for a file that is none."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise UserError(
            f"{role} {path} cannot be read ({error.strerror}): give the path of a fastText model"
        ) from error
    if len(head) < 4 or struct.unpack("<i", head)[0] != MAGIC:
        raise UserError(f"{role} {path} is no fastText model: give the path of one")
    try:
        return fasttext.load_model(path)
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"{role} {path} is damaged: give the path of a whole fastText model") from error


def predictions(model: fasttext.FastText._FastText, line: str, most: int) -> list[tuple[str, float]]:
    """Return the `most` likeliest labels of a line of text, and their probabilities in [0, 1]; all labels for -1."""
    labels, probabilities = model.predict(line, most)
    return [(label, min(1.0, max(0.0, float(p)))) for label, p in zip(labels, probabilities, strict=True)]
