"""Workers killed at random: each death ends the run with a sentence, and the corpus is the same in the end."""

import contextlib
import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
from corpus import build, digests
from toy import PoolEngine

from manifests.recipe import Recipe, parse_recipe
from pipeline.beam.engines import Engine
from pipeline.beam.pool import Pool, WorkerDiedError
from pipeline.run import run


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("dumps")
    for number in range(6):
        draw = random.Random(number)
        words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(3000)]
        rows = [{"text": f"{' '.join(words[n : n + 50])}.", "url": f"http://x.example/{n}"} for n in range(0, 3000, 50)]
        (folder / f"{number}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    source = {"weight": 1.0, "inputs": [f"{folder}/*.jsonl"], "filters": ["duplicate_lines"]}
    plain = {"name": "x", "seed": 1, "goal_tokens": 9, "sources": {"c4": source}, "deduplication": {"canaries": 0}}
    return parse_recipe({**plain, "tokenizer": {"vocabulary": 300}}, "r")


@pytest.fixture(scope="module")
def built(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("built") / "corpus"
    build(recipe, corpus)
    return corpus


def kill_one(pool: Pool, chance: random.Random, ended: threading.Event) -> None:
    """Kill a worker at a random moment after they have started."""
    while not pool._workers and not ended.wait(0.005):
        pass
    ended.wait(chance.random() ** 3 * 3.0)
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(chance.choice(pool._workers).pid or 0, signal.SIGKILL)


def run_through_kills(recipe: Recipe, corpus: Path, kills: int) -> int:
    """Run until nothing is left to do, a worker being killed in each of the first runs; return how many ended of it."""
    chance, deaths = random.Random(kills), 0
    with mock.patch.object(Engine, "pool_for", PoolEngine.pool_for):
        for number in range(kills + 1):
            running, ended = Engine(2, (), corpus / "runs", quiet=True), threading.Event()
            killer = threading.Thread(target=kill_one, args=(running.pool, chance, ended))
            if number < kills:
                killer.start()
            began = time.monotonic()
            try:
                run(recipe, corpus, running, 0)
            except WorkerDiedError as error:
                deaths += 1
                assert "code 137" in str(error) and "what is finished is kept" in str(error), error
                assert time.monotonic() - began < 120, "it hung"
            finally:
                ended.set()
                if number < kills:
                    killer.join()
    return deaths


def test_a_run_whose_workers_are_killed_at_random_gives_the_same_corpus(
    recipe: Recipe, built: Path, tmp_path: Path
) -> None:
    assert run_through_kills(recipe, tmp_path / "corpus", 2)
    assert digests(tmp_path / "corpus") == digests(built)


@pytest.mark.slow
def test_a_run_of_which_twenty_workers_are_killed_gives_the_same_corpus(
    recipe: Recipe, built: Path, tmp_path: Path
) -> None:
    deaths = run_through_kills(recipe, tmp_path / "corpus", 20)
    print(f"{deaths} of 20 kills ended a run")
    assert deaths >= 5
    assert digests(tmp_path / "corpus") == digests(built)
