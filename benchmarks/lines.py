"""Measure line de-duplication over a million synthetic pages, which consist of line hashes without text."""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.data import table
from benchmarks.measure import HAS_ANONYMOUS, NO_ANONYMOUS, PeakAnonymous, cpu_seconds, run_module
from manifests.ledger import Tally
from manifests.recipe import parse_recipe
from pipeline.beam.engines import Engine
from pipeline.beam.job import run_job
from pipeline.beam.step import Receipt
from pipeline.beam.tables import write_ipc
from pipeline.stages import line_dedup
from pipeline.stages.filter import send_verdicts

PAGES, SPLITS, LINES_A_PAGE, BOILERPLATE = 1_000_000, 50, 40, 0.4


def write_split(corpus: Path, number: int) -> Receipt:
    """Write the line hashes of one split. Two lines in five are drawn from 100,000 lines that all pages share.

    Returns:
        An invented receipt of the task that writes the file.
    """
    random = np.random.default_rng(number)
    pages = PAGES // SPLITS
    count = pages * LINES_A_PAGE
    values = random.integers(1, 2**63, count, np.uint64)
    shared = random.random(count) < BOILERPLATE
    values[shared] = random.integers(1, 100_000, int(shared.sum()), np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    column = pa.LargeListArray.from_arrays(pa.array(np.arange(pages + 1) * LINES_A_PAGE), pa.array(values))
    names = [random.bytes(16) for _ in range(pages)]
    ids = pa.array(names, pa.binary(16))
    identities = pa.array([int.from_bytes(name[:8], "big") for name in names], pa.uint64())
    path = corpus / line_dedup.line_hash_path(f"common_crawl/{number:03d}")
    write_ipc(path, line_dedup.HASH_SCHEMA, [ids, identities, column])
    tally = Tally()
    tally.keep(characters=count * line_dedup.LINE_CHARACTERS)
    return Receipt("made up", [], {"common_crawl": tally}, {"file": f"{number:03d}"})


def measure_stage(folder: Path) -> dict[str, float]:
    """Run the stage in this process. Return its peak of anonymous memory in bytes, CPU seconds and findings."""
    collected = {f"common_crawl/{number:03d}": write_split(folder, number) for number in range(SPLITS)}
    rules = {"weight": 1.0, "filters": [{"duplicate_lines": {"scope": "all", "keep": "first"}}]}
    recipe = parse_recipe({"name": "b", "seed": 1, "goal_tokens": 1, "sources": {"common_crawl": rules}}, "b")
    engine = Engine(1, ("--direct_running_mode=in_memory",), folder / "runs/now", quiet=True)
    begun = cpu_seconds()
    with PeakAnonymous() as peak:
        keys, duplicates = line_dedup.find_duplicates(recipe, collected)
        # The files that the units wait for exist already, so the units need not wait for tasks.
        keys = replace(keys, units=[unit._replace(awaits=()) for unit in keys.units])
        places, verdicts = send_verdicts(
            line_dedup.STAGE, keys, duplicates, line_dedup.LINE_BITS, line_dedup.reduce_verdicts
        )
        verdicts = replace(verdicts, units=[unit._replace(awaits=()) for unit in verdicts.units])
        [[(_, found)], _], _ = run_job(folder, [[(keys, duplicates)], [(places, verdicts)]], engine)
    seconds = cpu_seconds() - begun
    return {"peak": peak.bytes, "seconds": seconds, "ranges": len(found), **line_dedup.findings(found)}


def run() -> str:
    """Run the stage in a separate process, so that only its memory is measured, and return a table."""
    if not HAS_ANONYMOUS:
        return NO_ANONYMOUS
    with tempfile.TemporaryDirectory() as folder:
        result = run_module("lines", folder)
    rows = [
        ["pages", f"{PAGES:,}"],
        ["lines", f"{PAGES * LINES_A_PAGE:,}"],
        ["duplicates found", f"{result['duplicates']:,}"],
        ["hash ranges", result["ranges"]],
        ["peak anonymous memory", f"{result['peak'] / 2**20:,.0f} MiB"],
        ["lines per CPU second", f"{PAGES * LINES_A_PAGE / result['seconds']:,.0f}"],
    ]
    return table(["", ""], rows)


if __name__ == "__main__":
    print(json.dumps(measure_stage(Path(sys.argv[1]))))
