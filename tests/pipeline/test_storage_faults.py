"""Errors of storage are not data: a read or write that fails is repeated, or ends the run by name; nothing is lost."""

import errno
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import faults
import pytest
from corpus import digests

from manifests import storage
from manifests.manifest import load_manifest
from manifests.recipe import parse_recipe
from manifests.storage import StorageError
from pipeline.__main__ import main
from pipeline.beam import task
from pipeline.beam.engines import Engine
from pipeline.beam.receipts import receipt_name
from pipeline.beam.step import Task
from pipeline.run import run
from pipeline.sources import inputs
from pipeline.sources.inputs import Input

RECIPE = """
name: x
seed: 1
goal_tokens: 1000
sources:
  books: {{weight: 1.0, inputs: ["{folder}/books/*.txt"], containment: {{}}}}
  c4: {{weight: 1.0, inputs: ["{folder}/c4/*.jsonl"], filters: [duplicate_lines]}}
deduplication: {{canaries: 4}}
tokenizer: {{vocabulary: 320}}
"""
PROSE = "The keeper walked down to the harbour and counted the boats, as she did every evening of the year.\n"


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dumps")
    for name in ("books", "c4"):
        (folder / name).mkdir()
    for number in range(2):
        (folder / f"books/{number}.txt").write_text(f"Book number {number}.\n" + PROSE * (4 + number), "utf-8")
        rows = [{"text": f"Page {number}{row}. {PROSE.strip()}", "url": f"http://x.example/{row}"} for row in range(4)]
        (folder / f"c4/{number}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder), "utf-8")
    return folder


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WAITS", [0.0, 0.0, 0.0])


def command(dumps: Path, out: Path, *more: str) -> list[str]:
    return ["run", str(dumps / "recipe.yaml"), "--output", str(out), "--quiet", "--workers", "1", *more]


@pytest.fixture(scope="module")
def built(dumps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus without a failure; its tasks, with the blocks that reducers got, are in `faults.performed`."""
    out = tmp_path_factory.mktemp("built") / "corpus"
    faults.performed.clear()
    with faults.performing(faults.record):
        assert main(command(dumps, out)) == 0
    return out


def test_a_failure_anywhere_in_a_task_is_retried_or_ends_it_by_name(built: Path) -> None:
    """200 tasks, each with failures that begin at a random read or write of it, up to more of them than it is tried."""
    before, chance = digests(built), random.Random(1)
    kept = [found for found in faults.performed if (built / receipt_name(found[0].step, found[0].name)).exists()]
    retried = failed = 0
    for _ in range(200):
        one, blocks, job = chance.choice(kept)
        task.start_mark_path(Path(job.timings), one).parent.mkdir(parents=True)  # else the first run alone makes it
        with faults.failing(faults.Plan(0, 0, 0)) as counted:
            task.perform(one, *blocks, job=job)
        first, times = chance.randrange(counted.seen), chance.choice((1, 2, 3, 4, 99))
        (built / receipt_name(one.step, one.name)).unlink()
        with faults.failing(faults.Plan(first, times, chance.choice(faults.ERRORS))) as plan:
            try:
                task.perform(one, *blocks, job=job)
                retried += 1
            except StorageError as error:
                failed += 1
                assert str(error).startswith(f"stage {one.step}, {one.name}: "), error
                assert str(error).endswith("continues from here") and times > 3
        assert plan.seen > first, "nothing failed"
        if not (built / receipt_name(one.step, one.name)).exists():
            task.perform(one, *blocks, job=job)
        shutil.rmtree(job.timings)
    assert digests(built) == before
    assert retried > 50 and failed > 25


@pytest.mark.parametrize("seed", range(6))
def test_a_run_with_failing_storage_gives_the_same_corpus_or_fails_by_name_and_then_resumes(
    dumps: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    chance, out = random.Random(seed), tmp_path / "corpus"
    times = 2 if seed % 3 == 0 else 10_000
    with faults.failing_in_tasks(faults.Plan(chance.randrange(400), times, chance.choice(faults.ERRORS))) as plan:
        code = main(command(dumps, out))
    said = capsys.readouterr().err
    assert plan.seen > plan.first, "nothing failed"
    if times > 3:
        assert code == 1 and said.startswith("error: stage ") and said.count("\n") == 1, said
        assert "run the same command again" in said and not (out / "manifest.json").exists()
        assert main(command(dumps, out)) == 0
    else:
        assert code == 0, said
    assert digests(out) == digests(built) and not list((out / "deadletters").rglob("*"))


def test_a_run_on_slow_storage_of_which_a_twentieth_fails_gives_the_same_corpus(
    dumps: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plan, runs = tmp_path / "corpus", faults.RandomPlan(0.05, 0.001, random.Random(5)), 0
    with faults.failing_in_tasks(plan):
        while main(command(dumps, out)) != 0:
            runs += 1
            assert "run the same command again" in capsys.readouterr().err and runs < 50
    assert plan.failed > 20
    assert digests(out) == digests(built) and not list((out / "deadletters").rglob("*"))


def test_a_dump_that_vanishes_after_the_start_ends_the_run_by_name(
    dumps: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, out = Path(shutil.copytree(dumps, tmp_path / "dumps")), tmp_path / "corpus"
    (copy / "recipe.yaml").write_text(RECIPE.format(folder=copy), "utf-8")
    away, resolve = copy / "away", inputs.resolve

    def resolve_and_move(*given: Any) -> list[Input]:
        found = resolve(*given)
        if not away.exists():
            (copy / "books/1.txt").rename(away)
        return found

    monkeypatch.setattr(inputs, "resolve", resolve_and_move)
    assert main(command(copy, out)) == 1
    said = capsys.readouterr().err
    assert "stage split_offsets/checksums, books/1.txt: access to " in said and "No such file or directory" in said
    monkeypatch.undo()
    away.rename(copy / "books/1.txt")
    assert main(command(copy, out)) == 0
    assert load_manifest(out).manifest_sha == load_manifest(built).manifest_sha


def test_a_dump_that_changes_under_the_run_ends_it_by_name(
    dumps: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, out = Path(shutil.copytree(dumps, tmp_path / "dumps")), tmp_path / "corpus"
    (copy / "recipe.yaml").write_text(RECIPE.format(folder=copy), "utf-8")
    page, perform = copy / "books/1.txt", task.perform
    before = page.read_bytes()

    def change_and_perform(one: Task, *blocks: Any, job: task.Job) -> None:
        if one.step == "extract":
            page.write_bytes(before + b"More of it.")
        perform(one, *blocks, job=job)

    with faults.performing(change_and_perform):
        assert main(command(copy, out)) == 1
    assert f"{page} has changed or gone since the run began" in capsys.readouterr().err
    page.write_bytes(before)
    assert main(command(copy, out)) == 0
    assert load_manifest(out).manifest_sha == load_manifest(built).manifest_sha


def test_a_dump_that_cannot_be_opened_is_refused_or_skipped_by_name_and_tried_again(
    dumps: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look, out = inputs.version_of, tmp_path / "corpus"

    def broken(path: Path) -> str:
        if path.name == "1.txt":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return look(path)

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "version_of", broken)
        assert main(command(dumps, out)) == 2
        said = capsys.readouterr().err
        assert "books/1.txt cannot be read (Input/output error)" in said and "--skip-unreadable" in said
        assert not (out / "receipts/extract").exists(), "no work was begun"
        assert main(command(dumps, out, "--skip-unreadable")) == 0
        said = capsys.readouterr().out
        assert "skipped 1 input that could not be read: books/1.txt;" in said and "skipped   1 input that" in said
    skipped = load_manifest(out)
    assert skipped.findings["unreadable"] == {"files": 1, "names": ["books/1.txt"]}
    assert skipped.recipe["sources"]["books"]["inputs"] == ["0.txt"]
    assert main(command(dumps, out, "--skip-unreadable")) == 0
    assert digests(out) == digests(built), "the repeat tries it again"


def test_a_disk_that_is_full_from_the_start_is_a_sentence(
    dumps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with faults.failing(faults.Plan(40, 1 << 30, errno.ENOSPC)):
        assert main(command(dumps, tmp_path / "corpus")) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "No space left on device" in said and said.count("\n") == 1, said


def test_tasks_may_run_in_any_folder(dumps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are those of the command, whatever folder a worker was started in."""
    (dumps / "words.txt").write_text("zyzzyva\n", "utf-8")
    filters = [{"c4": {"min_sentences": 1}}, {"bad_words": "words.txt"}]
    source = {"weight": 1.0, "inputs": ["books/*.txt"], "filters": filters}
    plain = {"name": "x", "seed": 1, "goal_tokens": 9, "sources": {"books": source}, "tokenizer": {"vocabulary": 300}}
    monkeypatch.chdir(dumps)
    monkeypatch.setenv("TASKS_RUN_IN", str(tmp_path))
    out = Path(os.path.relpath(tmp_path / "corpus", dumps))
    with faults.performing(faults.perform_in_other_folder):
        assert run(parse_recipe(plain, "r"), out, Engine(1, (), out / "runs", quiet=True)).manifest is not None
