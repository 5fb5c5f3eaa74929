"""Workers killed at random: each death ends the run with a sentence, and the corpus is the same in the end."""

import contextlib
import json
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import toy
from corpus import build, digests
from toy import PoolEngine, run_step

from manifests.recipe import Recipe, parse_recipe
from pipeline.beam.engines import Engine
from pipeline.beam.pool import Pool, WorkerDiedError
from pipeline.beam.step import Step, Unit
from pipeline.run import run


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    folder = tmp_path / "dumps"
    folder.mkdir()
    for number in range(6):
        draw = random.Random(number)
        words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(3000)]
        rows = [{"text": f"{' '.join(words[n : n + 50])}.", "url": f"http://x.example/{n}"} for n in range(0, 3000, 50)]
        (folder / f"{number}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    source = {"weight": 1.0, "inputs": [f"{folder}/*.jsonl"], "filters": ["duplicate_lines"]}
    plain = {"name": "x", "seed": 1, "goal_tokens": 9, "sources": {"c4": source}, "deduplication": {"canaries": 0}}
    return parse_recipe({**plain, "tokenizer": {"vocabulary": 300}}, "r")


def kill_one(pool: Pool, chance: random.Random, ended: threading.Event) -> None:
    """Kill a worker at a random moment after they have started."""
    while not pool._workers and not ended.wait(0.005):
        pass
    ended.wait(chance.random() ** 3 * 3.0)
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(chance.choice(pool._workers).pid or 0, signal.SIGKILL)


def through_kills(kills: int, corpus: Path, work: Callable[[Engine], object]) -> int:
    """Do work in two processes, of which one is killed in each of the first runs; return how many runs ended of it."""
    chance, deaths = random.Random(kills), 0
    with mock.patch.object(Engine, "pool_for", PoolEngine.pool_for):
        for number in range(kills + 1):
            running, ended = Engine(2, (), corpus / f"runs/{number}.parts", quiet=True), threading.Event()
            killer = threading.Thread(target=kill_one, args=(running.pool, chance, ended))
            if number < kills:
                killer.start()
            began = time.monotonic()
            try:
                work(running)
            except WorkerDiedError as error:
                deaths += 1
                assert "code 137" in str(error) and "finished work is kept" in str(error), error
                assert time.monotonic() - began < 120, "it hung"
            finally:
                ended.set()
                if number < kills:
                    killer.join()
                running.pool.stop()
    return deaths


def test_a_step_whose_workers_are_killed_at_random_gives_the_same_files(tmp_path: Path) -> None:
    units = [Unit(f"{n:02d}", {"number": n}, (), n) for n in range(20)]
    step = Step("toy", toy.square, units, {"seconds": 0.1}, owns=("squares",))
    deaths = through_kills(3, tmp_path / "killed", lambda running: run_step(tmp_path / "killed", step, running))
    assert deaths
    run_step(tmp_path / "whole", step, toy.engine(tmp_path / "whole"))
    assert toy.digest(tmp_path / "killed", "squares", "receipts") == toy.digest(
        tmp_path / "whole", "squares", "receipts"
    )


@pytest.mark.slow
def test_a_run_of_which_twenty_workers_are_killed_gives_the_same_corpus(recipe: Recipe, tmp_path: Path) -> None:
    build(recipe, tmp_path / "whole")
    corpus, expected = tmp_path / "killed", digests(tmp_path / "whole")

    def run_anew(running: Engine) -> None:
        """Finish the corpus, or start another: a kill has nothing to end where all is finished."""
        if (corpus / "manifest.json").exists():
            shutil.rmtree(corpus)
        run(recipe, corpus, running, 0)
        assert digests(corpus) == expected

    deaths = through_kills(20, corpus, run_anew)
    print(f"{deaths} of 20 kills ended a run")
    assert deaths >= 5
