"""N-gram language models: interpolated modified Kneser-Ney estimation in NumPy, ARPA files, and kenlm's lmplz.

The definitions are those of Chen & Goodman 1999, section 3, and of Heafield et al. 2013, "Scalable Modified Kneser-Ney
Language Model Estimation". They are the same as in kenlm's lmplz without pruning: adjusted counts, three discounts per
order from the counts of counts, unigrams interpolated with the uniform distribution. `<unk>` is in the vocabulary.
`<s>` occurs in contexts but is never predicted.

The n-grams of each order are rows of a table. A row contains the row of the first n-1 words in the table one order
below (the context), the last word, and the row of the last n-1 words in the table one order below (the suffix). Rows
are numbered by sorting (context row, word) as one 64-bit key, so keys have 64 bits for any order. All other
computations are counting and indexing by row. The memory is about 100 bytes per token at order 5. If this is too much,
use lmplz, which sorts on disk.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.errors import UserError
from filters.hashing import run_starts

Ids = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Logs = npt.NDArray[np.float32]

SPECIAL = ("<unk>", "<s>", "</s>")
UNKNOWN, BEGIN, END = range(3)
# Discounts for counts of 1, 2 and more, if the formula has no valid result (as with lmplz --discount_fallback).
FALLBACK = (0.5, 1.0, 1.5)
MAX_POSITIONS = 2**31 - 1  # Largest number of tokens and sentence marks, so that positions and rows fit in 32 bits.
LOG_ZERO = -99.0  # ARPA's logarithm of 0. Unseen words have the probability 0 if the discount is 0.
BLOCK = 1 << 18  # N-grams that are converted to text at once, in about 100 MB of memory.


@dataclass(frozen=True, slots=True)
class Order:
    """The n-grams of one order, sorted by (context, word).

    Attributes:
        context: (n,) row of the first words in the table one order below; 0 for unigrams.
        word: (n,) index of the last word in the model's words.
        log_probability: (n,) float32, log10 of the probability.
        log_backoff: (n,) float32, log10 of the back-off weight; 0 for an n-gram that is not a context.
        discounts: the discounts of adjusted counts 1, 2, and 3 or more.
    """

    context: Ids
    word: Ids
    log_probability: Logs
    log_backoff: Logs
    discounts: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Model:
    """An n-gram model.

    Attributes:
        words: the special words, and then the words that occur in the text, in the order of their ids.
        orders: one table per order, unigrams first.
    """

    words: tuple[str, ...]
    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The distinct n-grams of one order, during estimation.

    Attributes:
        context: (n,) row of the first n-1 words in the table one order below.
        word: (n,) the last word.
        suffix: (n,) row of the last n-1 words in the table one order below.
        count: (n,) number of occurrences.
        begins: (n,) True for an n-gram that begins with `<s>`.
        at: (positions,) row of the n-gram that ends at each position of the text.
    """

    context: Ids
    word: Ids
    suffix: Ids
    count: Counts
    begins: npt.NDArray[np.bool_]
    at: Ids


def estimate(tokens: Ids, offsets: Offsets, pieces: Sequence[str], order: int) -> Model:
    """Estimate a model from sentences.

    Args:
        tokens: int32, ids of pieces. All sentences are concatenated, without sentence marks.
        offsets: int64. Sentence i is tokens[offsets[i]:offsets[i + 1]].
        pieces: pieces by id. Pieces that do not occur in the text are not in the model.
        order: length of the longest n-grams, at least 2.

    Raises:
        UserError: there is no token, or there are more than 2^31 - 1 tokens and sentence marks.
    """
    if order < 2:
        raise ValueError(f"order {order}: adjusted counts need at least bigrams")
    if len(tokens) == 0:
        raise UserError("The language model has no text to learn from: give it texts with at least one word.")
    if len(tokens) + 2 * (len(offsets) - 1) > MAX_POSITIONS:
        raise UserError("The language model's text has more than 2^31 tokens: lower max_bytes.")
    stream, depth = _add_marks(tokens, offsets)
    stream, words, seen = _number_words(stream, pieces)
    size = len(words)
    last = _find_last_ngram(stream, depth, size, order)

    rows = _Rows(
        np.zeros(size, np.int32),
        np.arange(size, dtype=np.int32),
        np.zeros(size, np.int32),
        seen,
        np.zeros(size, np.bool_),
        stream,
    )
    tables: list[Order] = []
    lower: Floats = np.array([1 / (size - 1)])  # the uniform distribution over all words except <s>
    for n in range(1, order + 1):
        longer = _extend(rows, stream, depth, n + 1, size, n + 1 == order) if n < order else None
        counts = rows.count if longer is None else _adjust_counts(rows, longer)
        discounts = discounts_of(counts if depth[last] < n - 1 or longer is None else _recount_last(counts, rows, last))
        probability, backoff = _interpolate(rows, counts, discounts, lower)
        if n == 1:
            probability[BEGIN] = 1.0  # This value is never used. ARPA files contain its logarithm, 0.
        else:
            tables[-1].log_backoff[:] = _log10(backoff)
        logs = np.minimum(_log10(probability), 0).astype(np.float32)
        tables.append(Order(rows.context, rows.word, logs, np.zeros_like(logs), discounts))
        if longer is None:
            break
        rows, lower = longer, probability
    return Model(words, tuple(tables))


def _number_words(marked: Ids, pieces: Sequence[str]) -> tuple[Ids, tuple[str, ...], Counts]:
    """Replace ids by consecutive numbers of the words that occur in the text.

    Args:
        marked: ids of pieces plus `len(SPECIAL)`, and the ids of special words.
        pieces: pieces by id.

    Returns:
        The text as numbers of words; the words, special words first; the number of occurrences of each word, which is 0
        for `<unk>` and `<s>`.
    """
    seen = np.bincount(marked, minlength=len(pieces) + len(SPECIAL))
    seen[UNKNOWN] = seen[BEGIN] = 0  # Their probabilities do not come from counts.
    kept = np.flatnonzero((seen > 0) | (np.arange(len(seen)) < len(SPECIAL)))
    words = SPECIAL + tuple(pieces[i - len(SPECIAL)] for i in kept[len(SPECIAL) :].tolist())
    number = np.zeros(len(seen), np.int32)
    number[kept] = np.arange(len(kept))
    return number[marked], words, seen[kept]


def _interpolate(
    rows: _Rows, counts: Counts, discounts: tuple[float, float, float], lower: Floats
) -> tuple[Floats, Floats]:
    """Return the interpolated probability of each row, and the back-off weight of each context.

    Args:
        rows: the n-grams of one order.
        counts: their adjusted counts.
        discounts: the discounts of the order.
        lower: the probabilities of the next lower order.
    """
    taken = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    total = np.bincount(rows.context, counts, len(lower))
    with np.errstate(invalid="ignore"):  # The quotient is 0 / 0 for n-grams that are not contexts.
        left_over = np.bincount(rows.context, taken, len(lower)) / total
    probability = (counts - taken) / total[rows.context] + left_over[rows.context] * lower[rows.suffix]
    return probability, np.where(total > 0, left_over, 1.0)


def discounts_of(counts: Counts) -> tuple[float, float, float]:
    """Return the discounts of one order from its adjusted counts (Chen & Goodman 1999, equation 26).

    The result is `FALLBACK` if a count of counts in a denominator is 0, or if a discount lies outside [0, count].
    """
    n = np.bincount(np.minimum(counts, 5), minlength=6).astype(float)
    if not n[1:4].all():
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    one, two, three = (float(j - (j + 1) * y * n[j + 1] / n[j]) for j in (1, 2, 3))
    if not (0 <= one <= 1 and 0 <= two <= 2 and 0 <= three <= 3):
        return FALLBACK
    return one, two, three


def write_arpa(model: Model, file: BinaryIO) -> None:
    """Write a model as an ARPA file, the text format that kenlm, SRILM and others read.

    Logarithms are base 10, with enough digits to distinguish 32-bit floats. N-grams are sorted by context. The highest
    order has no back-off weights. The same model gives the same bytes.
    """
    words = pa.array(model.words, pa.large_string())
    counts = [f"ngram {n}={len(table.word)}\n" for n, table in enumerate(model.orders, 1)]
    file.write("".join(["\\data\\\n", *counts, "\n"]).encode())
    for n, table in enumerate(model.orders, 1):
        file.write(f"\\{n}-grams:\n".encode())
        for begin in range(0, len(table.word), BLOCK):
            rows = slice(begin, begin + BLOCK)
            columns = [
                _format_logs(table.log_probability[rows]),
                _make_scalar("\t"),
                _join_words(model, words, n, rows),
            ]
            if n < len(model.orders):
                columns += [_make_scalar("\t"), _format_logs(table.log_backoff[rows])]
            file.write(pc.binary_join_element_wise(*columns, _make_scalar("\n"), _make_scalar("")).buffers()[2])
        file.write(b"\n")
    file.write(b"\\end\\\n")


def run_lmplz(program: Path, sentences: Path, arpa: Path, order: int, memory: str = "1G") -> None:
    """Estimate a model with kenlm's lmplz, which sorts on disk. As in CCNet, use no pruning and fallback discounts.

    Args:
        program: path of lmplz.
        sentences: path of a file with one sentence per line, its words separated by spaces.
        arpa: path of the file to write. Temporary files are written in the same folder.
        order: length of the longest n-grams.
        memory: value of lmplz's option --memory, such as "1G".

    Raises:
        UserError: the program cannot be started, or fails.
    """
    command = [str(program), "--order", str(order), "--memory", memory, "--temp_prefix", f"{arpa.parent}/"]
    command += ["--skip_symbols", "--text", str(sentences), "--arpa", str(arpa)]
    command += ["--discount_fallback"]  # It must be last, because it would take following arguments as its values.
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise UserError(
            f"{program} does not run ({error.strerror}): build kenlm's programs with `make lmplz`."
        ) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise UserError(f"{program} failed with code {done.returncode}: {said or 'it did not say why'}")


def _log10(values: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        logs: Floats = np.maximum(np.log10(values), LOG_ZERO)
    return logs


def _add_marks(tokens: Ids, offsets: Offsets) -> tuple[Ids, npt.NDArray[np.int8]]:
    """Put `<s>` and `</s>` around each sentence, and shift the ids of pieces by `len(SPECIAL)`.

    Returns:
        The ids of all sentences, int32; the distance of each position from its `<s>`, limited to 127, int8.
    """
    lengths = np.diff(offsets) + 2
    starts = np.cumsum(lengths) - lengths
    stream = np.empty(int(lengths.sum()), np.int32)
    inner = np.ones(len(stream), np.bool_)
    inner[starts] = inner[starts + lengths - 1] = False
    stream[starts] = BEGIN
    stream[starts + lengths - 1] = END
    stream[inner] = tokens[offsets[0] : offsets[-1]] + np.int32(len(SPECIAL))
    depth = np.arange(len(stream), dtype=np.int32)
    depth -= np.repeat(starts.astype(np.int32), lengths)
    return stream, np.minimum(depth, 127).astype(np.int8)


def _extend(shorter: _Rows, stream: Ids, depth: npt.NDArray[np.int8], n: int, words: int, highest: bool) -> _Rows:
    """Return the n-grams of one order, made from the n-grams that are one word shorter.

    An n-gram does not cross the border of a sentence, but it may contain the `<s>` of its sentence.

    Args:
        shorter: the n-grams of the next lower order.
        stream: the text with sentence marks.
        depth: distance of each position from its `<s>`, at most 127.
        n: the order.
        words: number of words in the vocabulary.
        highest: True if no longer n-grams follow. Then `at` is not computed.
    """
    ends = np.flatnonzero(depth >= n - 1).astype(np.int32)
    keys = shorter.at[ends - 1].astype(np.int64)
    keys *= words
    keys += stream[ends]
    by_key = np.argsort(keys)
    keys = keys[by_key]
    ends = ends[by_key]
    del by_key
    new = run_starts(keys)
    first = np.flatnonzero(new)
    context, word = np.divmod(keys[first], words)
    del keys
    at = np.empty(0 if highest else len(stream), np.int32)
    if not highest:
        at[ends] = np.cumsum(new, dtype=np.int32) - 1
    count = np.diff(first, append=len(new))
    one = ends[first]  # one occurrence of each n-gram
    return _Rows(context.astype(np.int32), word.astype(np.int32), shorter.at[one], count, depth[one] == n - 1, at)


def _adjust_counts(rows: _Rows, longer: _Rows) -> Counts:
    """Return the adjusted count of each n-gram: the number of distinct words (including `<s>`) before it.

    The adjusted count of an n-gram that begins with `<s>` is its raw count.
    """
    follows = np.bincount(longer.suffix, minlength=len(rows.word))
    return np.where(rows.begins, rows.count, follows)


def _find_last_ngram(stream: Ids, depth: npt.NDArray[np.int8], words: int, order: int) -> int:
    """Return the position at which an occurrence of the n-gram that lmplz visits last ends.

    lmplz visits n-grams in the order in which their words first occur in the text, compared from the last word of the
    n-gram back to the first. For the last n-gram and its suffixes, the counts of counts of lmplz use the raw count
    instead of the adjusted count (kenlm 0.3.0, AdjustCounts::Run). For a small text, this alone changes a probability
    by more than 0.001.
    """
    first = np.zeros(words, np.int64)
    first[stream[::-1]] = np.arange(len(stream), 0, -1)  # If an index occurs several times, the last value is stored.
    first[BEGIN] = first[END] = 0
    ends = np.flatnonzero(stream == np.argmax(first))
    for back in range(1, order):
        before = np.where(depth[ends] >= back, first[stream[np.maximum(ends - back, 0)]], 0)
        ends = ends[before == before.max()]
    return int(ends[0])


def _recount_last(counts: Counts, rows: _Rows, last: int) -> Counts:
    """Return a copy of adjusted counts, with the raw count for the n-gram that ends at position `last`."""
    counts = counts.copy()
    counts[rows.at[last]] = rows.count[rows.at[last]]
    return counts


def _join_words(model: Model, words: pa.Array, n: int, rows: slice) -> pa.Array:
    """Return n-grams as text, with spaces between the words. The words are found by following the contexts."""
    columns = []
    row: Ids | slice = rows
    for table in reversed(model.orders[:n]):
        columns.append(words.take(pa.array(table.word[row])))
        row = table.context[row]
    return pc.binary_join_element_wise(*reversed(columns), _make_scalar(" "))


@cache
def _make_scalar(text: str) -> pa.Scalar:
    """Return a text as an Arrow scalar. It is made only when it is needed, because the first scalar imports pandas."""
    return pa.scalar(text, pa.large_string())


def _format_logs(logs: Logs) -> pa.Array:
    return pc.cast(pa.array(logs + np.float32(0)), pa.large_string())  # Adding 0 changes -0 to 0.
