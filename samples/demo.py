"""Run `make demo`: build a corpus from the bundled sample, train a small model, and print every command.

Usage: `python samples/demo.py build/demo`.
"""

import csv
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = Path("build/samples")
RECIPE = "recipes/demo.yaml"
STEPS = 250


def main(out: Path) -> int:
    """Run every command and write results to `out`. Return the exit code of the first command that fails, or 0."""
    os.chdir(ROOT)
    started = time.monotonic()
    corpus, model = out / "corpus", out / "run"
    ranks = min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    train = f"-m trainer train {corpus} --model demo --steps {STEPS} --output {model}"
    launch = f"-m torch.distributed.run --standalone --nproc-per-node {ranks} {train}" if ranks > 1 else train
    for title, command in (
        ("Write the sample dumps", f"samples/make.py {SAMPLES}"),
        ("Build the corpus", f"-m pipeline run {RECIPE} --output {corpus}"),
        ("Verify every byte of the corpus", f"-m manifests verify {corpus}"),
        ("Trace one token back to its bytes", f"-m pipeline trace {corpus} {{shard}} 1000"),
        ("Train a small LLaMA on the corpus", launch),
        ("Show the corpus", f"-m manifests show {corpus}"),
    ):
        if "{shard}" in command:
            command = command.format(shard=first_shard(corpus))
        print(f"\n== {title}\n$ python {command}", flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # one thread per rank, as in the trainer
        code = subprocess.run([sys.executable, *shlex.split(command)], check=False, env=environment).returncode
        if code:
            return code
    print(f"\n{loss_line(model / 'metrics.csv')}")
    print(f"all commands took {time.monotonic() - started:.0f} s")
    print(
        f"""
Where to look next
  {corpus}/manifest.json    the parts of the corpus by hash; {corpus}/ledger.json counts what was dropped
  {corpus}/deadletters/     every damaged record, with file, offset, length and reason
  {corpus}/duplicates/      every duplicate that was removed, and the document kept for it
  {model}/metrics.csv       the training run, step by step
  python -m pipeline run {RECIPE} --output {corpus}    again: finds everything finished, in seconds
  docs/                     documentation by task

The report: {corpus}/report.html"""
    )
    return 0


def first_shard(corpus: Path) -> str:
    """Return the path of the first training shard of the source common_crawl, relative to `shards/`."""
    shards = corpus / "shards"
    return sorted(path.relative_to(shards).as_posix() for path in shards.glob("common_crawl/train-*"))[0]


def loss_line(metrics: Path) -> str:
    """Return a line of text with the training loss of the first and the last step."""
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first, last = float(rows[0]["loss"]), float(rows[-1]["loss"])
    end = f"{last:.3f} at step {rows[-1]['step']}: {last - first:+.3f} nats per token"
    return f"training  loss {first:.3f} at step 1, {end}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python samples/demo.py OUTPUT")
    sys.exit(main(Path(sys.argv[1])))
