"""A rank that died or hangs is named by its neighbour, in the stated time and not before."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from processes import children
from trainer_corpus import write_corpus

from trainer.watchdog import Watchdog


class Quiet(Watchdog):
    """A watchdog that notes its sentence instead of ending the process."""

    message = ""

    def end(self, message: str) -> None:
        self.message = self.message or message
        self.ended.set()


def pair(hang_seconds: float, dead_seconds: float) -> tuple[Quiet, Quiet]:
    store = dist.HashStore()
    one, two = (Quiet(store, rank, 2, hang_seconds, dead_seconds, 0.01) for rank in range(2))
    return one, two


def until(condition) -> None:
    patience = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.01)


def test_ranks_that_come_further_or_end_are_not_named() -> None:
    one, two = pair(0.5, 0.5)
    with one, two:
        for _ in range(8):
            time.sleep(0.1)
            one.tick()
            two.tick()
    assert one.message == two.message == "" and not one.thread.is_alive()
    assert one.judge() == "", "the other has ended well"


def test_a_rank_that_hangs_is_named_by_the_one_that_waits_for_it() -> None:
    one, two = pair(0.3, 60)
    with one, two:
        two.tick()  # the first rank is behind
        until(lambda: two.message)
    assert two.message.startswith("rank 0 on ") and "hangs: the other ranks have waited" in two.message


def test_ranks_that_all_wait_are_ended_too() -> None:
    one, two = pair(0.2, 60)
    with one, two:
        until(lambda: one.message or two.message)
    assert "no rank has come further" in one.message + two.message


def test_a_rank_that_died_is_named() -> None:
    one, two = pair(60, 0.5)
    with one:
        two.store.set("watch/1", "1 0 machine")
        until(lambda: one.message)
    assert one.message == "rank 1 on machine has given no sign of life for 0 s: its process has ended"
    one, two = pair(60, 0.5)
    with two:
        until(lambda: two.message)
    assert two.message.startswith("rank 0 has given no sign of life"), "it never gave any"


def test_an_error_of_the_network_waits_for_the_name_of_the_rank() -> None:
    one, _ = pair(60, 0.3)
    with pytest.raises(RuntimeError), one:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert "no sign of life" in one.message


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_stopped_rank_ends_the_run_by_name(tmp_path: Path, number: int) -> None:
    """Slow: the name comes after half a minute."""
    corpus, run = write_corpus(tmp_path / "corpus", documents=300), tmp_path / "run"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trainer", "train"]
    options = ["--model", "demo", "--steps", "3000", "--sequence-length", "32", "--batch-tokens", "256"]
    environment = {**os.environ, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "120"}
    command = [sys.executable, *launch, str(corpus), "--output", str(run), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8", env=environment)
    until(lambda: (run / "metrics.csv").exists() and (run / "metrics.csv").read_bytes().count(b"\n") > 3)
    begun, victim = time.monotonic(), children(process.pid)[-1]
    os.kill(victim, number)
    until(lambda: time.monotonic() > begun + 34)
    if number == signal.SIGSTOP:
        os.kill(victim, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "rank 1 on" in said and "has given no sign of life for 30 s" in said
