"""Runs with bad documents, with SIGTERM and with kills: spikes are recorded, steps skipped, runs resumed."""

import csv
import json
import shutil
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from processes import join_ranks, start_ranks
from trainer_corpus import write_corpus

from manifests.files import sha256_file
from manifests.manifest import load_manifest, write_manifest
from manifests.order import plan_from
from manifests.shard import open_shard, shard_schema, write_shard
from trainer import checkpoint, events
from trainer.__main__ import main
from trainer.data import BatchReader
from trainer.metrics import CLOCK

STEPS = 90
OPTIONS = ["--model", "demo", "--steps", str(STEPS), "--sequence-length", "32", "--batch-tokens", "256"]
OPTIONS += ["--checkpoint-every", "15", "--keep", "9", "--outlier-window", "16", "--outlier-sigmas", "5"]
GARBAGE = "http://garbage.example/"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a corpus of documents that can be learned. One shard contains two documents of random tokens."""
    corpus = write_corpus(tmp_path_factory.mktemp("spikes") / "corpus", documents=60)
    path = corpus / "shards/web/train-1.arrow"
    rows = open_shard(path).batch.to_pylist()
    chance = np.random.default_rng(0)
    for number in (20, 21):
        tokens = [1, *chance.integers(3, 64, 90).tolist(), 2]
        rows[number] |= {"tokens": tokens, "url": f"{GARBAGE}{number}"}
    write_shard(path, pa.RecordBatch.from_pylist(rows, schema=shard_schema(64)), {})
    manifest = load_manifest(corpus)
    web = manifest.sources["web"]
    facts = {"sha256": sha256_file(path), "bytes": path.stat().st_size, "tokens": len(open_shard(path).tokens)}
    train = [e.model_copy(update=facts) if e.path == "web/train-1.arrow" else e for e in web.train]
    sources = {**manifest.sources, "web": web.model_copy(update={"train": train})}
    write_manifest(corpus, manifest.model_copy(update={"sources": sources}))
    return corpus


def command(corpus: Path, run: Path, *more: str) -> list[str]:
    return ["train", str(corpus), "--output", str(run), *OPTIONS, *more]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(command(corpus, run)) == 0
    return run


def share_of_garbage(documents: list[dict[str, Any]]) -> float:
    return sum(document["url"].startswith(GARBAGE) for document in documents) / len(documents)


def found_spikes(run: Path) -> list[dict[str, Any]]:
    files = sorted((run / "spikes").iterdir(), key=lambda path: int(path.stem.removeprefix("step-")))
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def poisoned(corpus: Path, run: Path) -> int:
    """Return the first step after step 60 whose batch contains random documents, computed from the plan."""
    plan = plan_from(json.loads((run / "run.json").read_text(encoding="utf-8"))["plan"])
    data = BatchReader(corpus, plan)
    shares = [sum(share_of_garbage(s["documents"]) for s in data.trace(step)) for step in range(60, STEPS)]
    return 61 + int(np.argmax(np.array(shares) > 0))


def test_garbage_is_caught_and_named_and_left_out(corpus: Path, whole: Path) -> None:
    step = poisoned(corpus, whole)
    named = {spike["step"]: spike for spike in found_spikes(whole)}
    assert step in named
    spike = named[step]
    assert "loss" in spike["why"] and spike["loss"] > spike["loss_limit"]
    first = spike["samples"][0]
    assert any(document["url"].startswith(GARBAGE) for document in first["documents"])
    losses = [sample["loss"] for sample in spike["samples"]]
    assert losses == sorted(losses, reverse=True) and len(losses) == 8
    assert np.mean(losses) == pytest.approx(spike["loss"], abs=1e-6)
    assert float(rows(whole)[step - 1]["loss"]) == pytest.approx(spike["loss"], abs=1e-6)
    assert [event["step"] for event in events.read_events(whole, "spike")] == sorted(named)
    by_loss = [spike for spike in named.values() if "loss" in spike["why"]]
    for spike in by_loss:
        assert any(share_of_garbage(sample["documents"]) for sample in spike["samples"]), "no false alarm"
    assert min(spike["step"] for spike in by_loss) < 40, "while the loss still falls, too"


def test_a_spike_is_skipped_on_request_and_the_next_resume_remembers(
    corpus: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = poisoned(corpus, whole)
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    asked = ["--skip-steps", f"{step}:{step}"]
    for later in [folder for number, folder in checkpoint.list_checkpoints(run) if number == STEPS]:
        shutil.rmtree(later)
    assert main(command(corpus, run, *asked)) == 2
    assert f"is already trained on step {step}; remove the checkpoints after step {step - 1}" in capsys.readouterr().err
    for number, later in checkpoint.list_checkpoints(run):
        if number >= step:
            shutil.rmtree(later)
    assert main(command(corpus, run, "--stop-after", str(step), *asked)) == 0
    for number, later in checkpoint.list_checkpoints(run):
        if number >= step:
            shutil.rmtree(later)  # This is the state after a kill before the checkpoint was saved.
    assert main(command(corpus, run)) == 0
    left, kept = rows(run), rows(whole)
    assert [row["step"] for row in left if row["skipped"] == "asked"] == [str(step)]
    assert left[step - 1]["loss"] == "" and left[: step - 1] == kept[: step - 1]
    assert left[step]["batch"] == kept[step]["batch"] and left[step]["loss"] != kept[step]["loss"]
    assert [(e["from"], e["to"]) for e in events.read_events(run, "skip")] == [(step, step)]


def test_an_event_behind_a_line_that_a_full_disk_has_cut_is_read(tmp_path: Path) -> None:
    events.log(tmp_path, "start", device="é")
    whole = (tmp_path / events.LOG).read_bytes()
    (tmp_path / events.LOG).write_bytes(whole + whole[: whole.index("é".encode()) + 1])
    assert events.resolve_skips(tmp_path, [(3, 4)], 0, is_first=True) == [(3, 4)]
    assert events.resolve_skips(tmp_path, [], 0, is_first=True) == [(3, 4)]
    assert len(events.read_events(tmp_path, "start")) == 1


def test_a_gradient_norm_that_stands_out_changes_nothing_but_its_row(corpus: Path, whole: Path) -> None:
    out = [row for row in rows(whole) if row["skipped"]]
    assert {row["skipped"] for row in out} == {"outlier"}
    for row in out:
        spike = json.loads((whole / f"spikes/step-{row['step']}.json").read_text(encoding="utf-8"))
        assert spike["skipped"] == "outlier" and "gradient norm" in spike["why"]


def test_a_last_line_of_the_log_that_was_cut_is_no_event(tmp_path: Path) -> None:
    events.log(tmp_path, "skip", **{"from": 3, "to": 4})
    with (tmp_path / events.LOG).open("a", encoding="utf-8") as file:
        file.write('{"event": "skip", "fr')
    assert events.resolve_skips(tmp_path, [], 10, True) == [(3, 4)]


def test_a_line_cut_anywhere_is_no_row_of_any_step(tmp_path: Path) -> None:
    """If a row of step 120 is truncated after "12", it must not be read as a row of step 12."""
    path, head = tmp_path / "metrics.csv", "step,loss"
    lines = [f"{step},{step / 8}" for step in range(1, 124)]
    whole = "\n".join([head, *lines]) + "\n"
    for cut in range(len(head) + 1, len(whole)):
        path.write_text(whole[:cut], encoding="utf-8")
        complete = whole[:cut].count("\n") - 1
        assert events.has_rows(path, 12) == (complete >= 12)
        events.write_rows(path, 121, head, ["122,0"])
        assert path.read_text(encoding="utf-8").splitlines() == [head, *lines[: min(complete, 121)], "122,0"]


def test_rows_of_a_course_that_was_given_up_do_not_stand_for_the_new_one(corpus: Path, tmp_path: Path) -> None:
    """Rows of validation after steps that are trained again must be removed when the run is resumed."""
    run, more = tmp_path / "run", ["--validate-every", "15"]
    assert main(command(corpus, run, *more, "--stop-after", "30")) == 0
    before = (run / "validation.csv").read_text(encoding="utf-8")
    for _, later in checkpoint.list_checkpoints(run)[1:]:
        shutil.rmtree(later)
    assert main(command(corpus, run, *more, "--skip-steps", "16:17", "--stop-after", "18")) == 0
    lines = (run / "validation.csv").read_text(encoding="utf-8").splitlines()
    assert lines == [line for line in before.splitlines() if not line.startswith("30,")] and len(lines) == 3


def started(corpus: Path, run: Path, *more: str, ranks: int = 1, steps: int = 2) -> list[ForkServerProcess]:
    """Start a run in new processes. Return the processes when its first steps are done."""
    processes = start_ranks(ranks, run.with_suffix(".stderr"), main, command(corpus, run, *more))
    until = time.monotonic() + 600
    while time.monotonic() < until and all(process.is_alive() for process in processes):
        if (run / "metrics.csv").exists() and len(rows(run)) >= steps:
            return processes
        time.sleep(0.005)
    for process in processes:
        process.kill()
    raise AssertionError("the run did not start")


def test_told_to_stop_all_ranks_save_at_one_step_and_exit_0(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = started(corpus, run, ranks=2)
    processes[-1].terminate()  # Only one rank receives SIGTERM.
    assert join_ranks(processes) == 0
    stopped = json.loads((run / "stopped").read_text(encoding="utf-8"))["step"]
    assert stopped == checkpoint.list_checkpoints(run)[-1][0] == len(rows(run)) < STEPS


def test_told_to_stop_and_resumed_it_is_as_never_stopped(corpus: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (process,) = started(corpus, run)
    process.terminate()
    assert join_ranks([process]) == 0 and (run / "stopped").exists()
    assert main(command(corpus, run)) == 0
    assert not (run / "stopped").exists() and rows(run) == rows(whole) and same_files(run, whole)


def test_a_second_command_for_a_run_that_is_being_trained_is_refused(
    corpus: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise both commands would write the same tables and checkpoints."""
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with events.lock_run(run) as refusal:
        assert refusal == "" and main(command(corpus, run)) == 2
    assert f"another command is training {run}: wait for it" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert main(command(corpus, run)) == 0


def same_files(one: Path, other: Path) -> bool:
    """Return True if the weight files of the last checkpoints are equal, byte for byte."""
    folders = [checkpoint.list_checkpoints(run)[-1][1] for run in (one, other)]
    named = [sorted(path.name for path in folder.glob("rank-*")) for folder in folders]
    return named[0] == named[1] != [] and all(
        (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in named[0]
    )
