"""Measure how a reducer writes one full shard from the blocks of its mappers, beside a plain write of the same bytes.

The shard and the copy are written to the same disk in turn, each with fsync, and the fastest round of each counts.
Other rounds are slower because a write takes several times as long if the system has to find new pages for its cache.
The measured memory is the memory of a reducer including its blocks. A second part measures the memory of a mapper,
which gets synthetic tokens instead of encoding its texts.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.data import table
from benchmarks.measure import HAS_ANONYMOUS, NO_ANONYMOUS, PeakAnonymous, run_module
from manifests.document import CLEAN_SCHEMA
from manifests.shard import write_shard
from pipeline.beam.tables import table_writer
from pipeline.stages import tokenize

TOKENS, DOCUMENT_TOKENS, BLOCKS, VOCABULARY, ROUNDS = 1 << 28, 1_000, 64, 32_000, 5
SPLIT_DOCUMENTS, WORDS = 100_000, 1_500  # a split of 1,200 MB of text: documents, and words of 8 bytes per document


def plain_columns(first: int, last: int, schema: pa.Schema) -> dict[str, pa.Array]:
    """Return the columns with the same kind of value in all documents: cluster sizes and locators.

    Args:
        first: The number of the first document.
        last: The number after the last document.
        schema: A schema with the column `parts`.
    """
    count = last - first
    numbers = pa.array(np.arange(first, last, dtype=np.int64))
    parts = pa.array([], schema.field("parts").type.value_type)
    return {
        "cluster_size": pa.array(np.ones(count, np.uint32)),
        "file": pa.repeat("CC-MAIN-20190715175205-00000.warc.gz", count),
        "member": pa.repeat("", count),
        **dict.fromkeys(("offset", "length", "inner_offset", "inner_length"), numbers),
        "parts": pa.ListArray.from_arrays(np.zeros(count + 1, np.int32), parts),
    }


def make_block(block: int) -> bytes:
    """Return the block that one mapper sends, as IPC bytes: documents of about `DOCUMENT_TOKENS` tokens."""
    chance = np.random.default_rng(block)
    count = TOKENS // BLOCKS // DOCUMENT_TOKENS
    lengths = chance.integers(DOCUMENT_TOKENS // 2, DOCUMENT_TOKENS * 3 // 2, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    schema = tokenize.part_schema(VOCABULARY)
    values = chance.integers(0, VOCABULARY, int(offsets[-1]), dtype=np.uint16)
    columns = {
        "key": pa.array(chance.integers(0, 1 << 64, count, np.uint64)),
        "tokens": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values)),
        "document": pa.array([chance.bytes(16) for _ in range(count)], pa.binary(16)),
        "source": pa.repeat("common_crawl", count),
        "url": pa.array([f"https://site-{block}.example/archive/page-{number}.html" for number in range(count)]),
        **plain_columns(0, count, schema),
    }
    block: bytes = pa.RecordBatch.from_pydict(columns, schema=schema).serialize().to_pybytes()
    return block


def measure_reducer(folder: Path) -> dict[str, Any]:
    """Measure sorting blocks into a shard, writing it and writing its bytes again, and the peak of anonymous memory."""
    blocks = [make_block(number) for number in range(BLOCKS)]
    held = sum(map(len, blocks))
    walls: dict[str, list[float]] = {"join": [], "write": [], "floor": []}
    processors: dict[str, list[float]] = {name: [] for name in walls}
    path, copy, peak = folder / "shard.arrow", folder / "copy", 0

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        wall, processor = time.perf_counter(), time.process_time()
        yield
        walls[name].append(time.perf_counter() - wall)
        processors[name].append(time.process_time() - processor)

    for _ in range(ROUNDS):
        with PeakAnonymous() as memory:
            with timed("join"):
                schema = tokenize.part_schema(VOCABULARY)
                parts = [pa.ipc.read_record_batch(pa.py_buffer(block), schema) for block in blocks]
                batch = tokenize.join_parts(parts, VOCABULARY)
            path.unlink(missing_ok=True)  # Free the old file's pages just before the write, as for the copy.
            with timed("write"):
                write_shard(path, batch, {})
                _sync(path)
            del batch
        peak, data = max(peak, memory.bytes), path.read_bytes()
        copy.unlink(missing_ok=True)
        with timed("floor"):
            copy.write_bytes(data)
            _sync(copy)
        size = len(data)
        del data
    return {"bytes": size, "blocks": held, "peak": peak, "walls": walls, "processors": processors}


def measure_mapper(folder: Path) -> dict[str, Any]:
    """Measure a mapper over a large split: the anonymous memory that it adds to the process, and its CPU time."""
    with table_writer(folder / "clean/web/split.parquet", CLEAN_SCHEMA) as writer:
        text = "harbour " * WORDS
        row = dict.fromkeys(CLEAN_SCHEMA.names) | dict.fromkeys(("file", "member", "url"), "x")
        row |= dict.fromkeys(("offset", "length", "inner_offset", "inner_length"), 1) | {"text": text, "parts": []}
        for number in range(SPLIT_DOCUMENTS):
            writer.append({**row, "id": number.to_bytes(16, "big")})
    settings = {
        "source": "web",
        "sides": {"train": (0, 1_000), "validation": (1_000, 1)},
        "held_out": 0.001,
        "sha256": "",
        "vocabulary": VOCABULARY,
        "seed": 1,
    }
    values = np.arange(2 * WORDS, dtype=np.uint16)

    def made_up_tokens(texts: list[str], *_: object) -> list[npt.NDArray[Any]]:
        return [values.copy() for _ in texts]

    patches = {"encode_texts": made_up_tokens, "tokenizer": lambda *_: None}
    with unittest.mock.patch.multiple(tokenize, **patches), PeakAnonymous() as before:
        time.sleep(0.1)
    begun = time.process_time()
    with unittest.mock.patch.multiple(tokenize, **patches), PeakAnonymous() as peak:
        sent = sum(len(block) for _, block in tokenize.encode_documents(folder, "web/split", **settings).blocks)
    seconds = time.process_time() - begun
    return {"text": SPLIT_DOCUMENTS * len(text), "sent": sent, "peak": peak.bytes - before.bytes, "seconds": seconds}


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def run() -> str:
    """Run each part in a separate process, so that only its memory is measured, and return the tables."""
    if not HAS_ANONYMOUS:
        return NO_ANONYMOUS
    results = {}
    for step in ("reducer", "mapper"):
        with tempfile.TemporaryDirectory() as folder:
            results[step] = run_module("shards", step, folder)
    shard, split = results["reducer"], results["mapper"]
    size = shard["bytes"]

    def rates(name: str) -> list[str]:
        return [f"{size / 1e6 / min(shard[clock][name]):,.0f} MB/s" for clock in ("walls", "processors")]

    rows = [
        [f"a shard of {size / 1e6:,.0f} MB: sort blocks into it", *rates("join")],
        ["write the shard, with fsync", *rates("write")],
        ["write the same bytes by one call, with fsync", *rates("floor")],
    ]
    facts = [
        [
            "reducer: peak anonymous memory, including blocks",
            f"{shard['peak'] / 1e6:,.0f} MB, {shard['peak'] / size:.1f} shards",
        ],
        ["mapper: text, blocks", f"{split['text'] / 1e6:,.0f} MB, {split['sent'] / 1e6:,.0f} MB"],
        ["mapper: peak anonymous memory above the memory at start-up", f"{split['peak'] / 1e6:,.0f} MB"],
        ["mapper: text per CPU second, without encoding", f"{split['text'] / 1e6 / split['seconds']:,.0f} MB"],
    ]
    return (
        table([f"best of {ROUNDS} rounds", "per second of wall time", "per CPU second"], rows)
        + "\n\n"
        + table(["", ""], facts)
    )


if __name__ == "__main__":
    print(json.dumps({"reducer": measure_reducer, "mapper": measure_mapper}[sys.argv[1]](Path(sys.argv[2]))))
