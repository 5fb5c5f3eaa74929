"""Writing a language model as an ARPA file, the text format that kenlm, SRILM and others read."""

from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.models.kneser_ney import Ids, Model

BLOCK = 1 << 18
"""n-grams turned into text at once: about 100 MB"""
_TAB, _BLANK, _NOTHING, _LINE_FEED = (pa.scalar(mark, pa.large_string()) for mark in ("\t", " ", "", "\n"))


def write_arpa(model: Model, file: BinaryIO) -> None:
    """Write a model: base-10 logarithms with as many digits as tell 32-bit floats apart, n-grams sorted by context.

    The same model gives the same bytes. Of the highest order no back-off is written.
    """
    words = pa.array(model.words, pa.large_string())
    counts = [f"ngram {n}={len(table.word)}\n" for n, table in enumerate(model.orders, 1)]
    file.write("".join(["\\data\\\n", *counts, "\n"]).encode())
    for n, table in enumerate(model.orders, 1):
        file.write(f"\\{n}-grams:\n".encode())
        for begin in range(0, len(table.word), BLOCK):
            rows = slice(begin, begin + BLOCK)
            columns = [_text(table.log_probability[rows]), _TAB, _ngrams(model, words, n, rows)]
            if n < len(model.orders):
                columns += [_TAB, _text(table.log_backoff[rows])]
            file.write(pc.binary_join_element_wise(*columns, _LINE_FEED, _NOTHING).buffers()[2])
        file.write(b"\n")
    file.write(b"\\end\\\n")


def _ngrams(model: Model, words: pa.Array, n: int, rows: slice) -> pa.Array:
    """The words of n-grams, joined by blanks: from the last word back along the contexts."""
    columns = []
    row: Ids | slice = rows
    for table in reversed(model.orders[:n]):
        columns.append(words.take(pa.array(table.word[row])))
        row = table.context[row]
    return pc.binary_join_element_wise(*reversed(columns), _BLANK)


def _text(logs: np.ndarray) -> pa.Array:
    return pc.cast(pa.array(logs + np.float32(0)), pa.large_string())  # + 0: no "-0"
