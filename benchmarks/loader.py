"""Measure our data loader beside mosaicml-streaming on the same windows: samples of 2,048 tokens per CPU second.

Our loader reads whole batches, as in the trainer, shuffled over all shards. It hashes every sequence, and it computes
the order during the run. mosaicml-streaming reads single shuffled samples, by iterating and by index. Both return
tensors of uint16.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.data import ROOT, table
from benchmarks.measure import anonymous_bytes, format_spread
from manifests.manifest import load_manifest
from manifests.order import plan_for
from manifests.shard import open_shard
from trainer.data import BatchReader, prefetch

PEER = ROOT / "build/peers-trainer/bin/python"
LENGTH, BATCH, DOCUMENTS, ROUNDS = 2048, 512, 8000, 3
TARGETS = {"iterating": 30, "indexing": 5}  # goals: our samples per CPU second divided by those of mosaicml-streaming


def run() -> str:
    """Return a table of medians, with ranges in parentheses."""
    sys.path.insert(0, str(ROOT / "tests"))
    from trainer_corpus import write_long_corpus

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_long_corpus(folder / "corpus", DOCUMENTS)
        results = [_run_script(sys.executable, "-m", "benchmarks.loader", corpus, ROUNDS)]
        if PEER.exists():
            np.save(folder / "windows.npy", windows(corpus))
            results.append(
                _run_script(
                    str(PEER), ROOT / "benchmarks/peer_streaming.py", folder / "windows.npy", folder / "mds", ROUNDS
                )
            )
            results.append(_run_script(sys.executable, "-m", "benchmarks.loader", corpus, ROUNDS))
    mine = results[0] + (results[2] if len(results) > 1 else [])
    rows = [
        ["ours", "batches", *_rates([each["batch"] for each in mine]), "", f"{mine[0]['anonymous'] / 2**20:,.0f} MiB"],
        ["ours", "batches read ahead by a thread", *_rates([each["ahead"] for each in mine]), "", ""],
        [
            "ours",
            "first batch of a new loader at step 4,321: ms",
            f"{statistics.median(each['resume'] for each in mine) * 1e3:.1f}",
            "",
            "",
            "",
        ],
    ]
    for method in TARGETS if len(results) > 1 else ():
        peer = [each[method] for each in results[1]]
        ratio = statistics.median(cpu for cpu, _ in peer) / statistics.median(each["batch"][0] for each in mine)
        memory = f"{max(each['anonymous'] for each in results[1]) / 2**20:,.0f} MiB"
        rows.append(
            ["mosaicml-streaming 0.13.0", method, *_rates(peer), f"{ratio:.0f} (goal {TARGETS[method]})", memory]
        )
    note = "" if len(results) > 1 else "\n\nmosaicml-streaming is not installed: run `make peers-trainer`"
    headings = [
        "loader",
        "method",
        "samples per CPU second",
        "samples per second",
        "ours faster by",
        "anonymous memory",
    ]
    return f"sequences of {LENGTH:,} tokens, batches of {BATCH}\n\n{table(headings, rows)}{note}"


def windows(corpus: Path) -> np.ndarray:
    """Return all windows of the corpus as an array of shape (n, L + 1), uint16."""
    rows = []
    for entry in load_manifest(corpus).sources["web"].train:
        tokens = open_shard(corpus / "shards" / entry.path).tokens
        rows += [tokens[n * LENGTH : (n + 1) * LENGTH + 1] for n in range((len(tokens) - 1) // LENGTH)]
    return np.stack(rows)


def _rates(pairs: list[list[float]]) -> list[str]:
    """Return samples per CPU second and per second of wall time, from (CPU, wall) seconds per sample of each round."""
    return [format_spread([1 / pair[part] for pair in pairs], 0) for part in (0, 1)]


def _run_script(*command: object) -> list[dict]:
    """Run a command and return the JSON list in the last line of its output.

    Raises:
        RuntimeError: If the command failed. The message is the end of its standard error.
    """
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main(corpus: Path, rounds: int) -> None:
    """Measure our loader in this process, with a new loader in each round, and print a JSON list of the rounds."""
    manifest = load_manifest(corpus)
    far = plan_for(manifest, 0, LENGTH, BATCH, 5_000)
    steps = int(manifest.sources["web"].unique_tokens / LENGTH / BATCH)
    plan = plan_for(manifest, 0, LENGTH, BATCH, steps)
    results = []
    for _ in range(rounds):
        data = BatchReader(corpus, plan)
        data.batch(0, 0, 1)
        data.block = None  # Discard the cached order, so that the time to compute it is measured too.
        cpu, wall = time.process_time(), time.perf_counter()
        for step in range(steps):
            data.batch(step, 0, 1)
        batch = [(time.process_time() - cpu) / steps / BATCH, (time.perf_counter() - wall) / steps / BATCH]
        data.block = None
        cpu, wall = time.process_time(), time.perf_counter()
        with prefetch(data, range(steps), 0, 1) as batches:
            for _ in batches:
                pass
        ahead = [(time.process_time() - cpu) / steps / BATCH, (time.perf_counter() - wall) / steps / BATCH]
        cpu = time.process_time()
        BatchReader(corpus, far).batch(4_321, 0, 1)
        results.append(
            {"batch": batch, "ahead": ahead, "resume": time.process_time() - cpu, "anonymous": anonymous_bytes()}
        )
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
