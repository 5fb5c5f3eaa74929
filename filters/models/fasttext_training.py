"""Training a fastText classifier so that the same texts give the same bytes.

fastText fills its first matrix with random numbers by a tenth of its rows a thread, whatever the number of threads
(DenseMatrix::uniform): one thread leaves nine tenths to what the memory held, and several race with one another. So the
vectors of all words are given to it, made from the seed and the word, and one thread trains. There are no vectors for
n-grams of words or characters, so neither are used. Equal bytes need the same build of fastText on the same kind of
processor, as all sums of floating-point numbers do.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import fasttext
import xxhash

from filters.errors import UserError
from filters.models.reference_model import CITED, END_OF_LINE, OTHER, prepare

MAX_WORDS = 2_000_000
"""of the vocabulary: of a larger one the words at the bottom are left out, all that are equally rare. 100 dimensions of
so many words are 800 MB, and as much again while fastText reads them."""


def train(
    positives: Iterable[str],
    negatives: Iterable[str],
    dimension: int,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> bytes:
    """A fastText model file that tells texts like `positives` from those like `negatives`: bags of words, softmax. Its
    bytes depend on the texts, not on their order. Holds all texts in memory, and one copy on disk. Raises UserError if
    there is nothing to learn from, or the learning rate is too high to learn."""
    lines = [*_lines(CITED, positives), *_lines(OTHER, negatives)]
    for label in (CITED, OTHER):
        if not any(line.startswith(f"{label} ".encode()) for line in lines):
            raise UserError(f"there is no text of the class {label} to train on: give more input")
    lines.sort(key=lambda line: (xxhash.xxh3_64_intdigest(line, seed % (1 << 64)), line))
    counts = Counter(word for line in lines for word in line.split(b" ")[1:])
    fewest = fewest_occurrences(counts.values(), MAX_WORDS)
    with tempfile.TemporaryDirectory() as folder:
        texts, vectors, model = (Path(folder) / name for name in ("texts", "vectors", "model"))
        with texts.open("wb") as file:
            file.writelines(line + b"\n" for line in lines)
        words = sorted(word.decode() for word, count in counts.items() if count >= fewest)
        with vectors.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(vector_lines([END_OF_LINE, *words], dimension, seed))
        try:
            fasttext.train_supervised(
                input=str(texts),
                pretrainedVectors=str(vectors),
                dim=dimension,
                epoch=epochs,
                lr=learning_rate,
                minCount=fewest,
                wordNgrams=1,
                minn=0,
                maxn=0,
                thread=1,
                verbose=0,
            ).save_model(str(model))
        except RuntimeError as error:  # "Encountered NaN."
            raise UserError(f"the reference model does not learn ({error}): lower the learning rate") from error
        return model.read_bytes()


def fewest_occurrences(counts: Iterable[int], most_words: int) -> int:
    """How often a word must occur so that no more than `most_words` are left."""
    ordered = sorted(counts, reverse=True)
    return 1 if len(ordered) <= most_words else ordered[most_words] + 1


def vector_lines(words: Sequence[str], dimension: int, seed: int) -> Iterable[str]:
    """The lines of a file of first vectors, as fastText reads it: their number and dimension, then word by word. The
    values are 256 steps from -1/dimension to 1/dimension (the range that fastText draws from), chosen by SHAKE-128 of
    seed and word."""
    yield f"{len(words)} {dimension}\n"
    steps = [f"{(step - 127.5) / 127.5 / dimension:.6g}" for step in range(256)]
    for word in words:
        draws = hashlib.shake_128(f"{seed} {word}".encode()).digest(dimension)
        yield f"{word} {' '.join([steps[draw] for draw in draws])}\n"


def _lines(label: str, texts: Iterable[str]) -> Iterable[bytes]:
    prepared = map(prepare, texts)
    return (f"{label} {text}".encode() for text in prepared if text)
