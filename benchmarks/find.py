"""Measure the commands `find` and `trace` on ten million synthetic documents, and the writing of their index.

Each document has 8 to 20 random tokens and a URL. The pipeline's own stage writes the index. Each command runs in a
separate process, while the files are in the page cache.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.data import table
from benchmarks.measure import HAS_ANONYMOUS, NO_ANONYMOUS, PeakAnonymous, cpu_seconds, run_module
from benchmarks.shards import plain_columns
from manifests.files import sha256_file, write_atomic
from manifests.manifest import Manifest, ShardEntry, SourceEntry, TokenizerEntry, load_manifest, write_manifest
from manifests.recipe import Tokenizer
from manifests.shard import open_shard, shard_schema, write_shard
from pipeline.beam.engines import Engine
from pipeline.beam.job import run_job
from pipeline.beam.step import Output, Receipt, Step, Unit
from pipeline.stages import corpus_index, tokenize
from pipeline.stages.tokenizer import MODEL, train_bpe

DOCUMENTS, SHARD_DOCUMENTS, VOCABULARY, ROUNDS = 10_000_000, 1_000_000, 320, 5
SOURCE = "common_crawl"
WORDS = (
    "seven lamps were lit before the harbour master had written one line of 0123456789 entries, and no more than that "
)
# A program that runs a command of `python -m manifests`, then prints its exit code and its peak memory in bytes.
MEASURED = """
import sys
from benchmarks.measure import PeakAnonymous
from manifests.__main__ import main
with PeakAnonymous() as peak:
    code = main(sys.argv[1:])
print(f"\\n{code} {peak.bytes}")
"""


def url_of(number: int) -> str:
    """Return the URL of the document with this number. All URLs have the same length."""
    return f"https://site-{number % 1_000_003:07d}.example/archive/page-{number:010d}.html"


def write_corpus(corpus: Path, documents: int, shard_documents: int) -> Manifest:
    """Write a corpus with an index, and return its manifest, which is complete enough for `find` and `trace`.

    Args:
        corpus: The folder to write.
        documents: The number of documents.
        shard_documents: The number of documents per shard.
    """
    write_atomic(corpus / MODEL, train_bpe([WORDS * 40], Tokenizer(vocabulary=VOCABULARY)))
    count = -(-documents // shard_documents)
    made: dict[str, Receipt] = {}
    for number in range(count):
        name = f"{SOURCE}/train-{number:05d}-of-{count:05d}"
        first, last = number * shard_documents, min(documents, (number + 1) * shard_documents)
        path = f"shards/{name}.arrow"
        batch = make_batch(first, last)
        write_shard(corpus / path, batch, {})
        facts = {"documents": last - first, "urls": last - first, "tokens": len(batch.column("tokens").values)}
        output = Output(path, (corpus / path).stat().st_size, sha256_file(corpus / path))
        made[name] = Receipt("made up", [output], {}, facts)
    engine = Engine(1, ("--direct_running_mode=in_memory",), corpus / "runs/now", quiet=True)
    shards = Step(tokenize.SHARDS, tokenize.write_documents, [Unit(name) for name in made])
    keys, files_step = corpus_index.index_steps(shards, documents, 0)
    # The files that the units wait for exist already, so the units need not wait for tasks.
    keys = replace(keys, units=[unit._replace(awaits=()) for unit in keys.units])
    [[(_, files)]], _ = run_job(corpus, [[(keys, files_step)]], engine)
    entries = [
        ShardEntry(
            path=receipt.outputs[0].path.removeprefix("shards/"),
            sha256=receipt.outputs[0].sha256,
            bytes=receipt.outputs[0].bytes,
            tokens=receipt.facts["tokens"],
            documents=receipt.facts["documents"],
        )
        for receipt in made.values()
    ]
    tokens = sum(entry.tokens for entry in entries)
    source = SourceEntry(
        weight=1.0, max_epochs=4.0, documents=documents, unique_tokens=tokens, train=entries, validation=[]
    )
    sha256 = sha256_file(corpus / MODEL)
    manifest = Manifest(
        seed=1,
        goal_tokens=1,
        recipe={},
        recipe_sha="",
        tokenizer=TokenizerEntry(sha256=sha256, vocabulary=VOCABULARY, bos=1, eos=2, dtype="uint16"),
        models={},
        signatures={},
        sources={SOURCE: source},
        index=corpus_index.index_entries(files),
        ledger={},
        code={},
    )
    return write_manifest(corpus, manifest)


def make_batch(first: int, last: int) -> pa.RecordBatch:
    """Return the documents with the numbers `first` to `last - 1` as rows of a shard."""
    chance, count = np.random.default_rng(first), last - first
    lengths = chance.integers(8, 21, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = chance.integers(3, VOCABULARY, int(offsets[-1]), dtype=np.uint16)
    tokens[offsets[:-1]], tokens[offsets[1:] - 1] = 1, 2
    urls = "".join(map(url_of, range(first, last))).encode()
    width = len(urls) // count
    edges = np.arange(count + 1, dtype=np.int32)
    schema = shard_schema(VOCABULARY)
    columns = {
        "tokens": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(tokens)),
        "document": pa.Array.from_buffers(pa.binary(16), count, [None, pa.py_buffer(chance.bytes(16 * count))]),
        "source": pa.repeat(SOURCE, count),
        "url": pa.StringArray.from_buffers(count, pa.py_buffer(edges * np.int32(width)), pa.py_buffer(urls)),
        **plain_columns(first, last, schema),
    }
    return pa.RecordBatch.from_pydict(columns, schema=schema)


def measure_command(corpus: Path, *arguments: str) -> tuple[float, float, int]:
    """Run a command of `python -m manifests` in a new process.

    Args:
        corpus: The corpus folder.
        *arguments: The name of the command and its arguments after the corpus.

    Returns:
        Wall seconds and CPU seconds, including start-up, and the peak of anonymous memory in bytes.

    Raises:
        RuntimeError: If the command failed.
    """
    before, begun = cpu_seconds(), time.perf_counter()
    command = [sys.executable, "-c", MEASURED, arguments[0], str(corpus), *arguments[1:]]
    output = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    processor, wall = cpu_seconds() - before, time.perf_counter() - begun
    code, peak = map(int, output.split()[-2:])
    if code != 0:
        raise RuntimeError(f"{arguments} ended with {code}: {output}")
    return wall, processor, peak


def measured_commands(corpus: Path) -> dict[str, Sequence[str]]:
    """Return the name and the arguments of each measured command, by the heading of its row."""
    entries = load_manifest(corpus).shards()
    entry = entries[len(entries) // 2]
    row = entry.documents // 3
    columns = open_shard(corpus / "shards" / entry.path).row(row)
    identity = columns["document"].hex()
    return {
        "find an id": ("find", identity),
        "find the beginning of an id (12 digits)": ("find", identity[:12]),
        "find the beginning of an id (1 digit)": ("find", identity[:1]),
        "find a URL": ("find", columns["url"]),
        "trace a token": ("trace", entry.path, str(entry.tokens // 2)),
    }


def run() -> str:
    """Return a table of the median times of each command and its peak memory."""
    if not HAS_ANONYMOUS:
        return NO_ANONYMOUS
    with tempfile.TemporaryDirectory() as folder:
        index = run_module("find", folder)
        rows = []
        for name, command in measured_commands(Path(folder)).items():
            found = [measure_command(Path(folder), *command) for _ in range(ROUNDS)]
            walls, processors, peaks = (sorted(column) for column in zip(*found, strict=True))
            middle = ROUNDS // 2
            rows.append([name, f"{walls[middle]:.2f} s", f"{processors[middle]:.2f} s", f"{peaks[-1] / 1e6:,.0f} MB"])
    written = f"{DOCUMENTS:,} documents in {index['shards']} shards, an index of {index['files']} files"
    size = f"{index['bytes'] / 1e6:,.0f} MB; peak of anonymous memory while writing: {index['peak'] / 1e6:,.0f} MB"
    headings = ["command, including start-up", "wall time, median", "CPU time, median", "peak anonymous memory"]
    return f"{written}, {size}.\n\n" + table(headings, rows)


if __name__ == "__main__":
    with PeakAnonymous() as memory:
        made = write_corpus(Path(sys.argv[1]), DOCUMENTS, SHARD_DOCUMENTS)
    size = sum(entry.bytes for entry in made.index)
    print(json.dumps({"shards": len(made.shards()), "files": len(made.index), "bytes": size, "peak": memory.bytes}))
