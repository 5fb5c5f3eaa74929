"""After many kills at random moments, the final weights on two ranks equal those of an uninterrupted run."""

import csv
import os
import random
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from processes import join_ranks, start_ranks
from trainer_corpus import write_corpus

from trainer import checkpoint
from trainer.__main__ import main
from trainer.metrics import CLOCK

OPTIONS = ["--model", "dim=32,layers=2,heads=2", "--sequence-length", "32"]
OPTIONS += ["--batch-tokens", "128", "--micro-batch", "1", "--checkpoint-every", "2"]


def start(corpus: Path, run: Path, steps: int) -> list[ForkServerProcess]:
    words = ["train", str(corpus), "--output", str(run), "--steps", str(steps), *OPTIONS]
    return start_ranks(2, run.with_suffix(".stderr"), main, words)


def rows(run: Path) -> list[dict[str, str]]:
    if not (run / "metrics.csv").exists():
        return []
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key not in CLOCK} for row in csv.DictReader(file)]


def finish(corpus: Path, run: Path, steps: int) -> Path:
    assert join_ranks(start(corpus, run, steps)) == 0
    return checkpoint.list_checkpoints(run)[-1][1]


@pytest.mark.parametrize(("kills", "steps"), [(2, 20), pytest.param(20, 80, marks=pytest.mark.slow)])
def test_killed_again_and_again_the_final_weights_are_those_of_a_run_never_stopped(
    tmp_path: Path, kills: int, steps: int
) -> None:
    corpus, run, chance = write_corpus(tmp_path / "corpus"), tmp_path / "run", random.Random(0)
    whole = finish(corpus, tmp_path / "whole", steps)
    reached = []
    for number in range(kills):
        ranks = start(corpus, run, steps)
        until, patience = steps * (number + 1) // (kills + 1), time.monotonic() + 600
        while len(rows(run)) < until:
            assert all(process.is_alive() for process in ranks) and time.monotonic() < patience
            time.sleep(0.002)
        time.sleep(0.03 * chance.random())  # A step takes about 10 ms, and so does writing a checkpoint.
        for process in ranks:
            os.kill(process.pid, signal.SIGKILL)
        for process in ranks:
            process.join()
        reached.append(len(rows(run)))
    assert reached == sorted(set(reached)) and reached[-1] < steps, "killed while it ran, and further each time"
    last = finish(corpus, run, steps)
    assert last.name == whole.name == f"step-{steps:08d}"
    for path in whole.glob("rank-*"):
        assert path.read_bytes() == (last / path.name).read_bytes()
    assert rows(run) == rows(tmp_path / "whole")
