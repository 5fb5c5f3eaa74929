"""Measure tokenizing on one core: encoding beside SentencePiece's batched call, long lines, and training.

The model is trained on the same texts that it then encodes. Times are CPU times. The methods of the first table are
measured in alternation.
"""

import base64
import gc
import gzip
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import sentencepiece

from benchmarks.data import ROOT, SHARED, table
from filters.errors import UserError
from filters.models.sentencepiece import encode_texts, open_model
from manifests.recipe import Tokenizer
from pipeline.stages.tokenizer import train_bpe

VOCABULARY, SMALL_VOCABULARY = 32_000, 2_048
ENCODED, BATCH = 6_000_000, 100_000  # characters encoded for the first table, and per batch
HALF, WHOLE = 500_000, 5_000_000  # characters of the two long lines whose times are compared

T = TypeVar("T")

# By kind of line: a function that returns a line with so many characters.
LINES: dict[str, Callable[[int], str]] = {
    "words": lambda size: ("the quick brown fox jumps over the lazy dog and " * (size // 40))[:size],
    "one letter": lambda size: "a" * size,
    "spaces": lambda size: " " * size,
    "base64": lambda size: base64.b64encode(random.Random(0).randbytes(size))[:size].decode(),
    "Han, no spaces": lambda size: "".join(map(chr, random.Random(0).choices(range(0x4E00, 0x9F00), k=size))),
}


def texts() -> tuple[str, list[str]]:
    """Return a description and the texts: real books and web pages, or the bundled pages if those are missing."""
    books = [gzip.decompress(path.read_bytes()) for path in sorted(SHARED.glob("gutenberg/*.gz"))]
    rows = [gzip.decompress(path.read_bytes()) for path in sorted(SHARED.glob("c4_redpajama/redpajama-*.gz"))]
    if books and rows:
        found = [book.decode("utf-8", "replace") for book in books]
        return "real books and web rows", found + [
            json.loads(line)["text"] for row in rows for line in row.splitlines()
        ]
    paths = sorted((ROOT / "samples/pages").rglob("*.txt"))
    return "the bundled pages", [path.read_text(encoding="utf-8") for path in paths]


def compare_encoders(given: list[str], model: sentencepiece.SentencePieceProcessor) -> str:
    """Return a table of each method's tokens and MB per CPU second, and its speed relative to SentencePiece's lists."""
    vocabulary = model.get_piece_size()
    ways: dict[str, Callable[[list[str]], object]] = {
        "SentencePiece, lists of int": lambda batch: model.encode(batch, num_threads=1),
        "SentencePiece, arrays of int32": lambda batch: model.encode(batch, num_threads=1, return_type="numpy"),
        "ours: BOS, ids, EOS in the shard's type": lambda batch: encode_texts(batch, model, vocabulary),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    tokens, size = 0, 0
    for number, batch in enumerate(batches(given)):
        bare = model.encode(batch, num_threads=1)
        for ours, ids in zip(encode_texts(batch, model, vocabulary), bare, strict=True):
            assert np.array_equal(ours[1:-1], ids), "our ids differ from SentencePiece's"
        tokens, size = tokens + sum(map(len, bare)), size + sum(len(text.encode()) for text in batch)
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begun = time.process_time()
            ways[name](batch)
            spent[name].append(time.process_time() - begun)
    base = spent["SentencePiece, lists of int"]
    rows = []
    for name, seconds in spent.items():
        ratios = statistics.quantiles([b / s for b, s in zip(base, seconds, strict=True)], n=4)
        rates = [f"{tokens / sum(seconds) / 1e6:.2f} M", f"{size / sum(seconds) / 1e6:.1f}"]
        rows.append([name, *rates, f"{ratios[1]:.2f} ({ratios[0]:.2f} to {ratios[2]:.2f})"])
    heads = ["encoding in batches", "tokens per CPU s", "MB per CPU s", "ratio to the first, median (quartiles)"]
    return table(heads, rows)


def batches(given: list[str]) -> Iterator[list[str]]:
    """Yield the texts in batches of at least `BATCH` characters."""
    batch: list[str] = []
    for text in given:
        batch.append(text)
        if sum(map(len, batch)) >= BATCH:
            yield batch
            batch = []


def measure_cost(work: Callable[[], T]) -> tuple[T, float, float]:
    """Call `work`. Return its result, its CPU seconds, and the MB by which its peak exceeds the memory before."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak (proc(5))
    before, begun = peak_memory(), time.process_time()
    done = work()
    return done, time.process_time() - begun, (peak_memory() - before) / 1e6


def peak_memory() -> int:
    """Return the peak of this process's resident memory since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure_long_lines(model: sentencepiece.SentencePieceProcessor) -> str:
    """Return a table of CPU time and memory for a line of five million characters, beside a line of half a million."""
    ways: dict[str, Callable[[str], object]] = {
        "SentencePiece": lambda line: model.encode([line], num_threads=1, return_type="numpy"),
        "ours": lambda line: encode_texts([line], model, model.get_piece_size()),
    }
    rows = []
    for kind, line in LINES.items():
        few, many = line(HALF), line(WHOLE)
        for who, way in ways.items():
            tenth = statistics.median(measure_cost(partial(way, few))[1] for _ in range(3))
            _, seconds, memory = measure_cost(partial(way, many))
            rows.append([kind, who, f"{seconds:.2f}", f"{seconds / tenth:.1f}", f"{memory:.0f}"])
    return table(["5 million characters in one line", "", "CPU s", "relative to half a million", "MB"], rows)


def train(given: list[str]) -> bytes:
    """Train a SentencePiece model with 32,000 pieces, as LLaMA's, or with 2,048 pieces if there is too little text."""
    try:
        return train_bpe(given, Tokenizer(vocabulary=VOCABULARY))
    except UserError:
        return train_bpe(given, Tokenizer(vocabulary=SMALL_VOCABULARY))


def run() -> str:
    """Return the three tables."""
    what, given = texts()
    trained = []
    for part in (given[::4], given):
        proto, seconds, memory = measure_cost(partial(train, part))
        size = sum(len(text.encode()) for text in part)
        trained.append([f"{size / 1e6:.1f}", f"{seconds:.1f}", f"{memory:.0f}"])
    model = open_model(proto, "the benchmark's model")
    chosen, characters = [], 0
    for text in sorted(given, key=lambda text: hash_of(text)):
        if characters < ENCODED:
            chosen.append(text)
            characters += len(text)
    mean = characters / len(chosen)
    chosen *= -(-10 * BATCH // characters)  # Repeat the texts if there are too few for ten batches.
    return "\n\n".join(
        [
            f"{what}, {mean:,.0f} characters on average, {model.get_piece_size():,} pieces.",
            compare_encoders(chosen, model),
            measure_long_lines(model),
            table(["training on MB of text", "CPU s", "MB of memory"], trained),
        ]
    )


def hash_of(text: str) -> int:
    """Return the sort key of a text. The order is fixed, and mixes the kinds of texts."""
    return random.Random(text[:1_000]).getrandbits(64)
