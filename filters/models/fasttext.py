"""fastText models: open a file, predict labels of a line, and train so that the same texts give the same bytes."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from filters.errors import UserError

LABEL_PREFIX = "__label__"  # Args::label: a word that begins so is read as a label
END_OF_LINE = "</s>"  # Dictionary::EOS: ends a text that holds it
MAX_WORDS = 2_000_000  # of the vocabulary: with 100 dimensions, 800 MB
_SEEDS = 1 << 31  # fastText's seed is a signed number of 32 bits


class Classifier:
    """A fastText model.

    Args:
        path: path of the file.
        role: name of the model in error messages ("language model").

    Raises:
        UserError: the file cannot be read, or is no fastText model.
    """

    def __init__(self, path: str, role: str) -> None:
        import fasttext

        try:
            self._model: Any = fasttext.load_model(path)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise UserError(
                f"{role} {path} is not a readable fastText model ({error}): give the path of a complete one"
            ) from error

    @property
    def labels(self) -> list[str]:
        """Return the labels of the model's classes."""
        return list(self._model.get_labels())

    def predict(self, line: str, most: int) -> list[tuple[str, float]]:
        """Return the `most` likeliest labels of a line with their probabilities in [0, 1]; all labels for -1."""
        labels, probabilities = self._model.predict(line, most)
        return [(label, min(1.0, max(0.0, float(p)))) for label, p in zip(labels, probabilities, strict=True)]


def train(texts: Mapping[str, Iterable[str]], dimension: int, epochs: int, learning_rate: float, seed: int) -> bytes:
    """Return the file of a model that tells classes of texts apart: bags of words and a softmax.

    The bytes depend on the texts and the seed, not on the texts' order. fastText-community fills its first matrix from
    the seed alone; fastText 0.9.3 took uninitialised memory. One thread trains, since several threads race with each
    other. Equal bytes need the same build of fastText on the same kind of processor, as all floating-point sums do. All
    texts are held in memory, and one copy on disk. Of a vocabulary larger than `MAX_WORDS` the rarest words are left
    out, equally rare ones together.

    Args:
        texts: lines without line breaks, by label; empty lines are left out.
        dimension: dimension of the word vectors.
        epochs: number of passes over the texts.
        learning_rate: learning rate of the first step.
        seed: seed of the initial weights and of the order of the texts.

    Raises:
        UserError: a class has no text, or the learning rate is too high.
    """
    import fasttext

    lines: list[bytes] = []
    for label, of_class in texts.items():
        before = len(lines)
        lines += [f"{label} {text}".encode() for text in of_class if text]
        if len(lines) == before:
            raise UserError(f"there is no text of the class {label} to train on: give more input")
    lines.sort(key=lambda line: (xxhash.xxh3_64_intdigest(line, seed % (1 << 64)), line))
    counts = Counter(word for line in lines for word in line.split(b" ")[1:])
    with tempfile.TemporaryDirectory() as folder:
        input_path, model_path = Path(folder) / "texts", Path(folder) / "model"
        with input_path.open("wb") as file:
            file.writelines(line + b"\n" for line in lines)
        try:
            fasttext.train_supervised(
                input=str(input_path),
                dim=dimension,
                epoch=epochs,
                lr=learning_rate,
                minCount=minimum_count(counts.values(), MAX_WORDS),
                wordNgrams=1,
                minn=0,
                maxn=0,
                thread=1,
                seed=seed % _SEEDS,
                verbose=0,
            ).save_model(str(model_path))
        except RuntimeError as error:  # "Encountered NaN."
            raise UserError(f"the reference model does not learn ({error}): lower the learning rate") from error
        return model_path.read_bytes()


def minimum_count(counts: Iterable[int], most_words: int) -> int:
    """Return the least number of occurrences of a word that leaves at most `most_words` words."""
    ordered = sorted(counts, reverse=True)
    return 1 if len(ordered) <= most_words else ordered[most_words] + 1
