"""A rank that died or hangs is named by its neighbour, after the time limit and not earlier."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from evaluation_files import write_benchmarks
from processes import join_ranks, start_ranks
from trainer_corpus import write_corpus, write_text_corpus

from trainer import train
from trainer.__main__ import main
from trainer.data import Batch, BatchReader
from trainer.evaluation.engine import Engine
from trainer.watchdog import Watchdog


class Quiet(Watchdog):
    """A watchdog that stores its message instead of ending the process."""

    message = ""

    def exit_process(self, message: str) -> None:
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
            one.note_progress()
            two.note_progress()
    assert one.message == two.message == "" and not one.thread.is_alive()
    assert one.check_neighbor() == "", "the other has ended well"


def test_a_rank_that_hangs_is_named_by_the_one_that_waits_for_it() -> None:
    one, two = pair(0.3, 60)
    with one, two:
        two.note_progress()  # the first rank is behind
        until(lambda: two.message)
    assert two.message.startswith("rank 0 on ") and "hangs: the other ranks have waited" in two.message


def test_ranks_that_all_wait_are_ended_too() -> None:
    one, two = pair(0.2, 60)
    with one, two:
        until(lambda: one.message or two.message)
    assert "no rank has made progress" in one.message + two.message


def test_a_rank_that_died_is_named() -> None:
    one, two = pair(60, 0.5)
    with one:
        two.store.set("watch/1", "1 0 machine")
        until(lambda: one.message)
    assert one.message == "rank 1 on machine has not responded for 0 s: its process has ended"
    one, two = pair(60, 0.5)
    with two:
        until(lambda: two.message)
    assert two.message.startswith("rank 0 has not responded"), "it never gave any"


def test_what_was_loaded_before_the_block_for_long_is_no_silence() -> None:
    one, _ = pair(60, 60)
    loaded = time.monotonic()  # As if a checkpoint had been loaded for longer than the time limit.
    with one:
        assert one.last_heard_at >= loaded and one.last_progress_at >= loaded


def test_a_rank_says_where_it_runs_before_its_first_step() -> None:
    store = dist.HashStore()
    with Watchdog(store, 1, 2, hang_seconds=60, dead_seconds=60, beat_seconds=0.5):
        assert store.check(["watch/1"]), "a rank that dies at once would be named without its machine"


def test_an_error_of_the_network_waits_for_the_name_of_the_rank() -> None:
    one, _ = pair(60, 0.3)
    with pytest.raises(RuntimeError), one:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert "has not responded" in one.message


def train_impatiently(words: list[str], hangs: bool = False, question_seconds: float = 0.0) -> int:
    """Train with a watchdog whose limits are seconds and not minutes.

    Args:
        words: The command.
        hangs: True if the second rank hangs when it reads the batch of step 6.
        question_seconds: Delay of each scored batch of questions.
    """

    def watch(rank: int, world: int, _: float) -> Watchdog:
        store = dist.distributed_c10d._get_default_store().clone()
        # The limit is long in other cases, so that a dead rank is not reported as a hanging rank.
        patience = 3.0 if hangs or question_seconds else 60.0
        return Watchdog(store, rank, world, patience, dead_seconds=3.0, beat_seconds=0.2)

    train.watch, read = watch, BatchReader.batch

    def slow(self: BatchReader, step: int, rank: int, world: int) -> Batch:
        time.sleep(600 if hangs and rank == 1 and step == 5 else 0)
        return read(self, step, rank, world)

    BatchReader.batch = slow
    rank_batch, Engine._score_batch = (
        Engine._score_batch,
        lambda *given: time.sleep(question_seconds) or rank_batch(*given),
    )
    return main(words)


@pytest.mark.slow
def test_an_evaluation_may_take_longer_than_a_rank_may_hang(tmp_path: Path) -> None:
    corpus, run, errors = write_text_corpus(tmp_path / "corpus"), tmp_path / "run", tmp_path / "errors"
    data, tasks = write_benchmarks(tmp_path / "data"), "boolq,piqa,siqa,arc_easy,openbookqa"
    words = ["train", str(corpus), "--output", str(run), "--model", "dim=32,layers=1,heads=2", "--steps", "4"]
    words += ["--sequence-length", "64", "--batch-tokens", "128", "--evaluate-every", "2", "--evaluate-tasks", tasks]
    ranks = start_ranks(2, errors, train_impatiently, [*words, "--evaluate-data", str(data)], False, 1.0)
    assert join_ranks(ranks) == 0, errors.read_text(encoding="utf-8")
    assert (run / "evaluation.csv").read_text(encoding="utf-8").count("\n4,") == 10


@pytest.mark.parametrize("kind", ["killed", "hangs", pytest.param("stopped", marks=pytest.mark.slow)])
def test_a_rank_that_is_killed_or_hangs_or_is_stopped_ends_the_run_by_name(tmp_path: Path, kind: str) -> None:
    corpus, run, errors = write_corpus(tmp_path / "corpus", documents=300), tmp_path / "run", tmp_path / "errors"
    options = [
        "--model",
        "dim=32,layers=1,heads=2",
        "--steps",
        "3000",
        "--sequence-length",
        "16",
        "--batch-tokens",
        "64",
    ]
    words = ["train", str(corpus), "--output", str(run), *options]
    ranks = start_ranks(2, errors, train_impatiently, words, kind == "hangs")
    until(lambda: (run / "metrics.csv").exists() and (run / "metrics.csv").read_bytes().count(b"\n") > 4)
    victim = ranks[1].pid
    assert victim is not None
    if kind != "hangs":
        os.kill(victim, signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
    ranks[0].join(60)
    assert ranks[0].exitcode == 1
    said = errors.read_text(encoding="utf-8")
    assert "error: rank 1 on " in said and "the same command resumes from the last checkpoint" in said
    assert ("hangs: the other ranks" if kind == "hangs" else "has not responded for 3 s") in said
    if kind == "stopped":
        ranks[1].kill()
    ranks[1].join(60)
    assert ranks[1].exitcode != 0
