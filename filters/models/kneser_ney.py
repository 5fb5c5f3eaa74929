"""N-gram language models: interpolated modified Kneser-Ney estimation on whole arrays, ARPA files, kenlm's lmplz.

Definitions are those of Chen & Goodman 1999, section 3, and of Heafield et al. 2013, "Scalable Modified Kneser-Ney
Language Model Estimation", and so of kenlm's lmplz without pruning: adjusted counts, three discounts per order from its
counts of counts, unigrams interpolated with the uniform distribution, `<unk>` in the vocabulary, `<s>` a context but
never predicted.

An n-gram is a row: the row of its first n-1 words one order below, its last word, and the row of its last n-1 words one
order below. Rows are numbered by sorting (context row, word) as one 64-bit key, so keys stay 64 bits wide at any order,
and everything else is counting and indexing by row. The memory is about 100 bytes a token at order 5, everything
included; for a corpus that needs more than the machine has, there is lmplz, which sorts on disk.
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
FALLBACK = (0.5, 1.0, 1.5)  # discounts of counts 1, 2, more, where the closed form fails (lmplz --discount_fallback)
MAX_POSITIONS = 2**31 - 1  # tokens and sentence marks, so that positions and rows are 32-bit
LOG_ZERO = -99.0  # ARPA's logarithm of 0, the probability of unseen words after a discount of 0
BLOCK = 1 << 18  # n-grams turned into text at once: about 100 MB


@dataclass(frozen=True, slots=True)
class Order:
    """The n-grams of one order, sorted by (context, word).

    Attributes:
        context: (n,) row one order below; 0 for unigrams.
        word: (n,) index into the model's words.
        log_probability: (n,) float32, log10.
        log_backoff: (n,) float32, log10 of the back-off weight; 0 for an n-gram that is no context.
        discounts: the discounts of adjusted counts 1, 2, and 3 or more.
    """

    context: Ids
    word: Ids
    log_probability: Logs
    log_backoff: Logs
    discounts: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Model:
    """Words (the special ones first, then those that occur, by id) and one table per order, unigrams first."""

    words: tuple[str, ...]
    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Distinct n-grams of one order.

    Attributes:
        context: row of the first n-1 words, one order below.
        word: the last word.
        suffix: row of the last n-1 words, one order below.
        count: raw.
        begins: True for an n-gram that begins with `<s>`.
        at: the row of the n-gram that ends at each position.
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
        tokens: int32 ids into `pieces`, all sentences one after the other, without marks.
        offsets: int64; sentence i is tokens[offsets[i]:offsets[i + 1]].
        pieces: pieces by id; those that never occur are no words of the model.
        order: length of the longest n-grams, at least 2.

    Raises:
        UserError: there is no token, or there are more than 2^31 - 1 tokens and marks.
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
    lower: Floats = np.array([1 / (size - 1)])  # uniform over all that can be predicted: all words but <s>
    for n in range(1, order + 1):
        longer = _extend(rows, stream, depth, n + 1, size, n + 1 == order) if n < order else None
        counts = rows.count if longer is None else _adjust_counts(rows, longer)
        discounts = discounts_of(counts if depth[last] < n - 1 or longer is None else _recount_last(counts, rows, last))
        probability, backoff = _interpolate(rows, counts, discounts, lower)
        if n == 1:
            probability[BEGIN] = 1.0  # never asked for; log 0 is what ARPA files have
        else:
            tables[-1].log_backoff[:] = _log10(backoff)
        logs = np.minimum(_log10(probability), 0).astype(np.float32)
        tables.append(Order(rows.context, rows.word, logs, np.zeros_like(logs), discounts))
        if longer is None:
            break
        rows, lower = longer, probability
    return Model(words, tuple(tables))


def _number_words(marked: Ids, pieces: Sequence[str]) -> tuple[Ids, tuple[str, ...], Counts]:
    """Return marked sentences as numbers of words; the words, special ones first; and how often each is predicted."""
    seen = np.bincount(marked, minlength=len(pieces) + len(SPECIAL))
    seen[UNKNOWN] = seen[BEGIN] = 0  # never predicted from a count
    kept = np.flatnonzero((seen > 0) | (np.arange(len(seen)) < len(SPECIAL)))
    words = SPECIAL + tuple(pieces[i - len(SPECIAL)] for i in kept[len(SPECIAL) :].tolist())
    number = np.zeros(len(seen), np.int32)
    number[kept] = np.arange(len(kept))
    return number[marked], words, seen[kept]


def _interpolate(
    rows: _Rows, counts: Counts, discounts: tuple[float, float, float], lower: Floats
) -> tuple[Floats, Floats]:
    """Return the probability of each row, with the lower order's mixed in, and the backoff weight of each context."""
    taken = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    total = np.bincount(rows.context, counts, len(lower))
    with np.errstate(invalid="ignore"):  # 0 / 0 in what is no context
        left_over = np.bincount(rows.context, taken, len(lower)) / total
    probability = (counts - taken) / total[rows.context] + left_over[rows.context] * lower[rows.suffix]
    return probability, np.where(total > 0, left_over, 1.0)


def discounts_of(counts: Counts) -> tuple[float, float, float]:
    """Return the discounts of one order from its adjusted counts (Chen & Goodman 1999, equation 26).

    `FALLBACK` if one of the counts of counts that it divides by is 0, or a discount lies outside of [0, count].
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

    Logarithms are base 10, with the digits that tell 32-bit floats apart; n-grams are sorted by context. The highest
    order has no back-off. The same model gives the same bytes.
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
    """Estimate a model by kenlm's lmplz, which sorts on disk: without pruning, with fallback discounts, as in CCNet.

    Args:
        program: path of lmplz.
        sentences: file of a sentence per line, words between blanks.
        arpa: file to write; temporary files are put beside it.
        order: length of the longest n-grams.
        memory: as lmplz takes it.

    Raises:
        UserError: the program does not run, or fails.
    """
    command = [str(program), "--order", str(order), "--memory", memory, "--temp_prefix", f"{arpa.parent}/"]
    command += ["--skip_symbols", "--text", str(sentences), "--arpa", str(arpa)]
    command += ["--discount_fallback"]  # last: it takes values
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
    """Return the sentences with their marks, ids after the special words, and each position's distance from its `<s>`.

    The distance is at most 127.
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
    """Return n-grams from those one word shorter; an n-gram crosses no border of a sentence, and may hold its `<s>`."""
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
    one = ends[first]  # any end of the n-gram will do
    return _Rows(context.astype(np.int32), word.astype(np.int32), shorter.at[one], count, depth[one] == n - 1, at)


def _adjust_counts(rows: _Rows, longer: _Rows) -> Counts:
    """Return the number of words that an n-gram follows, `<s>` among them; its count if it begins with `<s>` itself."""
    follows = np.bincount(longer.suffix, minlength=len(rows.word))
    return np.where(rows.begins, rows.count, follows)


def _find_last_ngram(stream: Ids, depth: npt.NDArray[np.int8], words: int, order: int) -> int:
    """Return the end of the n-gram that lmplz visits last: by its words' first appearance, from the last word back.

    For that n-gram and its suffixes lmplz's counts of counts take the raw count in place of the adjusted one
    (kenlm 0.3.0, AdjustCounts::Run), and for a small text that alone moves a probability by more than 0.001.
    """
    first = np.zeros(words, np.int64)
    first[stream[::-1]] = np.arange(len(stream), 0, -1)  # of several values for one index the last one stays
    first[BEGIN] = first[END] = 0
    ends = np.flatnonzero(stream == np.argmax(first))
    for back in range(1, order):
        before = np.where(depth[ends] >= back, first[stream[np.maximum(ends - back, 0)]], 0)
        ends = ends[before == before.max()]
    return int(ends[0])


def _recount_last(counts: Counts, rows: _Rows, last: int) -> Counts:
    """Return adjusted counts with the raw count of the n-gram that ends at `last`."""
    counts = counts.copy()
    counts[rows.at[last]] = rows.count[rows.at[last]]
    return counts


def _join_words(model: Model, words: pa.Array, n: int, rows: slice) -> pa.Array:
    """Return the words of n-grams, joined by blanks, from the last word back along the contexts."""
    columns = []
    row: Ids | slice = rows
    for table in reversed(model.orders[:n]):
        columns.append(words.take(pa.array(table.word[row])))
        row = table.context[row]
    return pc.binary_join_element_wise(*reversed(columns), _make_scalar(" "))


@cache
def _make_scalar(text: str) -> pa.Scalar:
    """Return text as what stands between columns. It is made when needed: the first scalar imports pandas."""
    return pa.scalar(text, pa.large_string())


def _format_logs(logs: Logs) -> pa.Array:
    return pc.cast(pa.array(logs + np.float32(0)), pa.large_string())  # + 0: no "-0"
