"""Tokens, one core: our encoding beside SentencePiece's own batched call, long lines, and training.

The model is trained here, on the texts it then encodes. Times are of the CPU; the ways of the first table take turns.
"""

import base64
import gc
import gzip
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import sentencepiece

from benchmarks.data import ROOT, SHARED, table
from filters.tokens import encode_texts, open_model
from manifests.errors import UserError
from manifests.recipe import Tokenizer
from pipeline.stages.tokenizer import train_bpe

VOCABULARY, SMALL_VOCABULARY, ROUNDS = 32_000, 2_048, 5
ENCODED = 4 << 20
"""characters of the first table"""
HALF, WHOLE = 500_000, 5_000_000
"""characters of the lines whose times are compared"""

LINES: dict[str, Callable[[int], str]] = {
    "words": lambda size: ("the quick brown fox jumps over the lazy dog and " * (size // 40))[:size],
    "one letter": lambda size: "a" * size,
    "spaces": lambda size: " " * size,
    "base64": lambda size: base64.b64encode(random.Random(0).randbytes(size))[:size].decode(),
    "Han, no spaces": lambda size: "".join(map(chr, random.Random(0).choices(range(0x4E00, 0x9F00), k=size))),
}


def texts() -> tuple[str, list[str]]:
    """What they are, and the texts: real books and rows where they are, else the bundled pages."""
    books = [gzip.decompress(path.read_bytes()) for path in sorted(SHARED.glob("gutenberg/*.gz"))]
    rows = [gzip.decompress(path.read_bytes()) for path in sorted(SHARED.glob("c4_redpajama/redpajama-*.gz"))]
    if books and rows:
        found = [book.decode("utf-8", "replace") for book in books]
        return "real books and web rows", found + [
            json.loads(line)["text"] for row in rows for line in row.splitlines()
        ]
    paths = sorted((ROOT / "samples/pages").rglob("*.txt"))
    return "the bundled pages", [path.read_text(encoding="utf-8") for path in paths]


def beside(given: list[str], model: sentencepiece.SentencePieceProcessor) -> str:
    """Tokens and MB a CPU second of each way, and their ratio to the library's batched call, in the same turns."""
    vocabulary = model.get_piece_size()
    ways: dict[str, Callable[[], object]] = {
        "SentencePiece, a batch (lists of int)": lambda: model.encode(given, num_threads=1),
        "SentencePiece, a batch (arrays of int32)": lambda: model.encode(given, num_threads=1, return_type="numpy"),
        "SentencePiece, a text at a time": lambda: [model.encode(text) for text in given],
        "ours: BOS, ids, EOS in the shard's type": lambda: encode_texts(given, model, vocabulary),
    }
    bare = model.encode(given, num_threads=1)
    for ours, ids in zip(encode_texts(given, model, vocabulary), bare, strict=True):
        assert np.array_equal(ours[1:-1], ids), "the ids are the library's"
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            spent[name].append(time.process_time() - begun)
    tokens, size = sum(map(len, bare)), sum(len(text.encode()) for text in given)
    base = spent["SentencePiece, a batch (lists of int)"]
    rows = []
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        ratios = sorted(b / s for b, s in zip(base, seconds, strict=True))
        ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        rows.append([name, f"{tokens / middle / 1e6:.2f} M", f"{size / middle / 1e6:.1f}", ratio])
    return table(["encoding", "tokens a CPU second", "MB", "ratio to the first"], rows)


def cost(work: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds, and MB at the peak above what was held before."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before, begun = peak(), time.process_time()
    work()
    return time.process_time() - begun, (peak() - before) / 1e6


def peak() -> int:
    """Bytes resident at this process's peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def long_lines(model: sentencepiece.SentencePieceProcessor) -> str:
    """One line of five million characters, beside one of half a million; the best of two."""
    ways: dict[str, Callable[[str], object]] = {
        "SentencePiece": lambda line: model.encode([line], num_threads=1, return_type="numpy"),
        "ours": lambda line: encode_texts([line], model, model.get_piece_size()),
    }
    rows = []
    for kind, line in LINES.items():
        few, many = line(HALF), line(WHOLE)
        for who, way in ways.items():
            small, large = (min(cost(partial(way, text)) for _ in range(2)) for text in (few, many))
            memory = cost(partial(way, many))[1]
            rows.append([kind, who, f"{large[0]:.2f}", f"{large[0] / small[0]:.1f}", f"{memory:.0f}"])
    return table(["5 million characters in one line", "", "CPU s", "over those of a tenth", "MB"], rows)


def train(given: list[str]) -> bytes:
    """A model of LLaMA's size, or a small one for small texts."""
    try:
        return train_bpe(given, Tokenizer(vocabulary=VOCABULARY))
    except UserError:
        return train_bpe(given, Tokenizer(vocabulary=SMALL_VOCABULARY))


def run() -> str:
    """Three tables."""
    what, given = texts()
    proto = train(given)
    model = open_model(proto, "the benchmark's model")
    chosen, characters = [], 0
    for text in sorted(given, key=lambda text: hash_of(text)):
        if characters < ENCODED:
            chosen.append(text)
            characters += len(text)
    trained = []
    for part in (given[::4], given):
        seconds, memory = cost(partial(train, part))
        size = sum(len(text.encode()) for text in part)
        trained.append([f"{size / 1e6:.1f}", f"{seconds:.1f}", f"{memory:.0f}"])
    mean = characters / len(chosen)
    return "\n\n".join(
        [
            f"{len(chosen)} texts of {mean:,.0f} characters ({what}), {model.get_piece_size():,} pieces.",
            beside(chosen, model),
            long_lines(model),
            table(["training on MB", "CPU s", "MB of memory"], trained),
        ]
    )


def hash_of(text: str) -> int:
    """A fixed order that mixes the kinds of texts."""
    return random.Random(text[:1_000]).getrandbits(64)
