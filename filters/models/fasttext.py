"""fastText models: load a model, predict the labels of a line, and train a model reproducibly."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from filters.errors import UserError

LABEL_PREFIX = "__label__"  # fastText (Args::label) reads a word with this prefix as a label.
END_OF_LINE = "</s>"  # fastText (Dictionary::EOS) ends the text at this word.
MAX_WORDS = 2_000_000  # Largest vocabulary. With 100 dimensions it takes 800 MB.
_SEEDS = 1 << 31  # The seed of fastText is a signed 32-bit integer.


class Classifier:
    """A fastText model.

    Args:
        path: path of the file.
        role: name of the model in error messages ("language model").

    Raises:
        UserError: the file cannot be read, or is not a fastText model.
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
        """The labels of the model's classes."""
        return list(self._model.get_labels())

    def predict(self, line: str, most: int) -> list[tuple[str, float]]:
        """Return the most likely labels of a line with their probabilities in [0, 1].

        Args:
            line: text without line breaks.
            most: largest number of labels; -1 for all labels.
        """
        labels, probabilities = self._model.predict(line, most)
        return [(label, min(1.0, max(0.0, float(p)))) for label, p in zip(labels, probabilities, strict=True)]


def train(texts: Mapping[str, Iterable[str]], dimension: int, epochs: int, learning_rate: float, seed: int) -> bytes:
    """Train a text classifier (bag of words and softmax). Return the bytes of the model file.

    The bytes depend on the texts and the seed, but not on the order of the texts. fastText-community initialises its
    first matrix from the seed, while fastText 0.9.3 used uninitialised memory. Only one thread is used, because several
    threads would race with each other. The bytes are equal only with the same build of fastText on the same kind of
    processor, because of floating-point sums. All texts are held in memory, with one copy on disk. If there are more
    than `MAX_WORDS` distinct words, the rarest words are left out; words that occur equally often are all kept or all
    left out.

    Args:
        texts: by label, texts without line breaks. Empty texts are ignored.
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
    """Return the smallest m such that at most `most_words` words occur at least m times.

    Args:
        counts: number of occurrences of each word.
        most_words: largest number of words.
    """
    ordered = sorted(counts, reverse=True)
    return 1 if len(ordered) <= most_words else ordered[most_words] + 1
