"""Measure the elapsed time of a run with two local worker processes, relative to a run with one.

The input is twenty copies of the real pages. Runs with one and with two processes alternate, and a ratio is the median
over pairs of runs. No other program should use the machine. The environment variables `PAIRS` and `COPIES` change the
number of pairs and of copies.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.data import ABSENT, ROOT, archives, table
from manifests.display import format_bytes

PAIRS, COPIES = (int(os.environ.get(name, default)) for name, default in (("PAIRS", "5"), ("COPIES", "20")))
JOB = "extract"  # The job whose ratio is a goal. This job also runs the stage `filter`.
WHOLE, SERIAL = "whole run", "outside jobs, or in jobs of one task"
RECIPE = """
name: local-workers
seed: 1
goal_tokens: 1_000_000
sources:
  common_crawl:
    weight: 1.0
    inputs: ["{folder}/*.warc.gz"]
    filters:
      - min_characters: 100
      - language: {{keep: [en], threshold: 0.5}}
      - c4: {{min_words_per_line: 5, min_sentences: 3}}
tokenizer: {{vocabulary: 2000}}
"""


def run() -> str:
    """Return the table, or a message if the real pages are missing."""
    if not archives():
        return ABSENT
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "dumps"
        folder.mkdir()
        for copy in range(COPIES):
            for path in archives():
                (folder / f"{copy:02d}-{path.name}").symlink_to(path.resolve())
        recipe = Path(scratch) / "recipe.yaml"
        recipe.write_text(RECIPE.format(folder=folder), encoding="utf-8")
        found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for pair in range(PAIRS):
            for workers in (1, 2) if pair % 2 else (2, 1):
                found[workers].append(_run(recipe, Path(scratch) / f"{pair}-{workers}", workers))
        size = COPIES * sum(path.stat().st_size for path in archives())
    rows = []
    for name in found[1][0]:
        one, two = ([run[name] for run in found[workers]] for workers in (1, 2))
        ratio = statistics.median(first / max(second, 1e-9) for first, second in zip(one, two, strict=True))
        rows.append([name, f"{statistics.median(one):.1f}", f"{statistics.median(two):.1f}", f"{ratio:.2f}"])
    heading = f"{format_bytes(size)} of WARC, {PAIRS} pairs"
    return table([heading, "one process, s", "two processes, s", "ratio of one to two, median of pairs"], rows)


def _run(recipe: Path, corpus: Path, workers: int) -> dict[str, float]:
    """Run the pipeline. Return the elapsed seconds of the job `JOB`, of the whole run, and of its serial part."""
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "run",
        recipe,
        "--output",
        corpus,
        "--quiet",
        "--workers",
        str(workers),
    ]
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - began
    (record,) = (json.loads(path.read_bytes()) for path in (corpus / "runs").glob("2*.json"))
    jobs = record["jobs"]
    found = {f"the job of `{JOB}`": sum(job["seconds"] for job in jobs if job["job"] == JOB)}
    parallel = sum(job["seconds"] for job in jobs if job["tasks"] > 1)
    return {**found, WHOLE: whole, SERIAL: whole - parallel}
