"""Two ranks killed at any moment, again and again: the final weights are those of a run that was never stopped."""

import csv
import os
import random
import signal
import socket
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from processes import fork_server
from trainer_corpus import write_corpus

from trainer import checkpoint
from trainer.__main__ import main
from trainer.metrics import CLOCK

STEPS = 80
OPTIONS = ["--model", "dim=32,layers=2,heads=2", "--steps", str(STEPS), "--sequence-length", "32"]
OPTIONS += ["--batch-tokens", "128", "--micro-batch", "1", "--checkpoint-every", "2"]


def train_rank(rank: int, port: int, words: list[str]) -> None:
    """One of two ranks, as torchrun would start it."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    sys.exit(main(words))


def start(corpus: Path, run: Path) -> list[BaseProcess]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["train", str(corpus), "--output", str(run), *OPTIONS]
    ranks = [fork_server().Process(target=train_rank, args=(rank, port, words)) for rank in range(2)]
    for process in ranks:
        process.start()
    return ranks


def rows(run: Path) -> list[dict[str, str]]:
    if not (run / "metrics.csv").exists():
        return []
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key not in CLOCK} for row in csv.DictReader(file)]


def finish(corpus: Path, run: Path) -> Path:
    ranks = start(corpus, run)
    for process in ranks:
        process.join(600)
    assert [process.exitcode for process in ranks] == [0, 0]
    return checkpoint.list_checkpoints(run)[-1][1]


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_again_and_again_the_final_weights_are_those_of_a_run_never_stopped(tmp_path: Path, kills: int) -> None:
    corpus, run, chance = write_corpus(tmp_path / "corpus"), tmp_path / "run", random.Random(0)
    whole = finish(corpus, tmp_path / "whole")
    reached = []
    for number in range(kills):
        ranks = start(corpus, run)
        until, patience = STEPS * (number + 1) // (kills + 1), time.monotonic() + 600
        while len(rows(run)) < until:
            assert all(process.is_alive() for process in ranks) and time.monotonic() < patience
            time.sleep(0.002)
        time.sleep(0.03 * chance.random())  # a step takes some 10 ms, writing a checkpoint some 10 ms
        for process in ranks:
            os.kill(process.pid, signal.SIGKILL)
        for process in ranks:
            process.join()
        reached.append(len(rows(run)))
    assert reached == sorted(set(reached)) and reached[-1] < STEPS, "killed while it ran, and further each time"
    last = finish(corpus, run)
    assert last.name == whole.name == f"step-{STEPS:08d}"
    for path in whole.glob("rank-*"):
        assert path.read_bytes() == (last / path.name).read_bytes()
    assert rows(run) == rows(tmp_path / "whole")
