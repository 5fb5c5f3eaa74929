"""Train a fastText classifier so that the same texts give the same bytes.

fastText-community fills its first matrix from the seed alone, block by block, whatever the number of threads. fastText
0.9.3 did not: with one thread it left nine tenths to what the memory held. Several threads race with one another while
they train, so one thread trains. Equal bytes need the same build of fastText on the same kind of processor, as all sums
of floating-point numbers do.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import fasttext
import xxhash

from filters.errors import UserError
from filters.models.reference_model import CITED, OTHER, prepare

MAX_WORDS = 2_000_000
"""of the vocabulary: of a larger one the words at the bottom are left out, all that are equally rare. 100 dimensions of
so many words are 800 MB."""

_SEEDS = 1 << 31
"""fastText's seed is a signed number of 32 bits"""


def train(
    positives: Iterable[str],
    negatives: Iterable[str],
    dimension: int,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> bytes:
    """Train a model that tells texts like `positives` from those like `negatives` and return the bytes of its file.

    It sees bags of words and has a softmax. Its bytes depend on the texts and the seed, not on the texts' order. Holds
    all texts in memory, and one copy on disk. Raises UserError if there is nothing to learn from, or the learning rate
    is too high to learn."""
    lines = [*_lines(CITED, positives), *_lines(OTHER, negatives)]
    for label in (CITED, OTHER):
        if not any(line.startswith(f"{label} ".encode()) for line in lines):
            raise UserError(f"there is no text of the class {label} to train on: give more input")
    lines.sort(key=lambda line: (xxhash.xxh3_64_intdigest(line, seed % (1 << 64)), line))
    counts = Counter(word for line in lines for word in line.split(b" ")[1:])
    fewest = fewest_occurrences(counts.values(), MAX_WORDS)
    with tempfile.TemporaryDirectory() as folder:
        texts, model = Path(folder) / "texts", Path(folder) / "model"
        with texts.open("wb") as file:
            file.writelines(line + b"\n" for line in lines)
        try:
            fasttext.train_supervised(
                input=str(texts),
                dim=dimension,
                epoch=epochs,
                lr=learning_rate,
                minCount=fewest,
                wordNgrams=1,
                minn=0,
                maxn=0,
                thread=1,
                seed=seed % _SEEDS,
                verbose=0,
            ).save_model(str(model))
        except RuntimeError as error:  # "Encountered NaN."
            raise UserError(f"the reference model does not learn ({error}): lower the learning rate") from error
        return model.read_bytes()


def fewest_occurrences(counts: Iterable[int], most_words: int) -> int:
    """Return how often a word must occur so that no more than `most_words` are left."""
    ordered = sorted(counts, reverse=True)
    return 1 if len(ordered) <= most_words else ordered[most_words] + 1


def _lines(label: str, texts: Iterable[str]) -> Iterable[bytes]:
    prepared = map(prepare, texts)
    return (f"{label} {text}".encode() for text in prepared if text)
