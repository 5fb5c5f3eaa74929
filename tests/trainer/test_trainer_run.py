"""Training runs: the same on any number of ranks, exactly resumable, and refused for another plan or corpus."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import trainer_ranks
from processes import join_ranks, start_ranks
from trainer_corpus import VOCABULARY, write_corpus
from trainer_ranks import weights_sha

import trainer.train
from manifests.manifest import load_manifest
from manifests.order import plan_for, plan_from
from manifests.shard import open_shard
from manifests.sizes import PRESETS
from manifests.tools.verify import check_shards
from trainer import checkpoint, parallel
from trainer.__main__ import main
from trainer.data import BatchReader
from trainer.metrics import CLOCK
from trainer.model import Llama
from trainer.schedule import StageRate, rate_at
from trainer.step import build_optimizer

STEPS = 24
OPTIONS = ["--model", "demo", "--steps", str(STEPS), "--sequence-length", "32", "--batch-tokens", "256"]
OPTIONS += ["--micro-batch", "2"]
WHOLE_SHARE = ["--micro-batch", "8"]  # With several ranks, each rank processes its part of a batch at once.


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("trainer") / "corpus")


def alone(corpus: Path, run: Path, *more: str) -> int:
    """Train in this process."""
    return main(["train", str(corpus), "--output", str(run), *OPTIONS, *more])


def together(corpus: Path, run: Path, *more: str) -> tuple[int, str]:
    """Train on two ranks. Return the exit code and the text on stderr."""
    errors, command = run.with_suffix(".stderr"), ["train", str(corpus), "--output", str(run), *OPTIONS]
    code = join_ranks(start_ranks(2, errors, main, [*command, *WHOLE_SHARE, *more]))
    return code, errors.read_text(encoding="utf-8")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def exact(run: Path) -> list[tuple[str, ...]]:
    """Return the values of all columns that do not depend on the clock. They must be exactly equal."""
    return [tuple(value for key, value in row.items() if key not in CLOCK) for row in rows(run)]


def final_weights(run: Path) -> str:
    """Return the hash of the weights of a run's last checkpoint."""
    ranks = parallel.start("cpu", 1)
    try:
        model = parallel.build(PRESETS["demo"], VOCABULARY, 0, ranks)
        checkpoint.load(checkpoint.list_checkpoints(run)[-1][1], model, build_optimizer(model, 1e-3))
        return weights_sha(model)
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert alone(corpus, run) == 0
    return run


@pytest.fixture(scope="module")
def halved(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run on two ranks that was stopped after 12 steps."""
    run = tmp_path_factory.mktemp("halved") / "run"
    assert together(corpus, run, "--stop-after", "12")[0] == 0
    return run


def same_batches_and_near_losses(a: Path, b: Path) -> None:
    assert [row["batch"] for row in rows(a)] == [row["batch"] for row in rows(b)]
    assert [row["step"] for row in rows(a)] == [str(step) for step in range(1, len(rows(a)) + 1)]
    for one, two in zip(rows(a), rows(b), strict=True):
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), abs=1e-5), one["step"]


def test_the_loss_falls(whole: Path) -> None:
    losses = [float(row["loss"]) for row in rows(whole)]
    assert len(losses) == STEPS and losses[-1] < losses[0] - 1


def test_stopped_on_two_ranks_and_resumed_on_one_is_as_never_stopped(
    corpus: Path, whole: Path, halved: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(halved, tmp_path / "run"))
    assert len(rows(run)) == 12
    assert alone(corpus, run) == 0
    same_batches_and_near_losses(run, whole)


def test_stopped_on_two_ranks_and_resumed_on_two_is_identical_to_two_ranks_throughout(
    corpus: Path, whole: Path, halved: Path, tmp_path: Path
) -> None:
    resumed, through = Path(shutil.copytree(halved, tmp_path / "resumed")), tmp_path / "through"
    for run in (resumed, through):
        assert together(corpus, run)[0] == 0
    assert exact(resumed) == exact(through)
    assert final_weights(resumed) == final_weights(through)
    same_batches_and_near_losses(through, whole)


def test_stopped_and_resumed_alone_is_identical_to_never_stopped(corpus: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert alone(corpus, run, "--stop-after", "5") == 0
    assert alone(corpus, run, "--stop-after", "12", "--checkpoint-every", "4") == 0
    assert alone(corpus, run) == 0
    assert exact(run) == exact(whole)
    assert final_weights(run) == final_weights(whole)


def test_a_run_goes_on_on_ranks_of_which_the_last_hold_no_rows(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small = ["--model", "dim=4,layers=1,heads=1", "--sequence-length", "32", "--batch-tokens", "96"]
    command = ["train", str(corpus), "--output", str(run), "--steps", "3", *small]
    assert main([*command, "--stop-after", "1"]) == 0
    for more in (["--stop-after", "2"], []):  # The ranks hold 2, 2 and 0 of 4 rows.
        assert join_ranks(start_ranks(3, tmp_path / "stderr", main, [*command, *more])) == 0
    through = [*command[:3], str(tmp_path / "through"), *command[4:]]
    assert main(through) == 0
    same_batches_and_near_losses(run, tmp_path / "through")


def test_a_run_whose_last_checkpoint_is_damaged_goes_on_from_the_last_whole_one(
    corpus: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert alone(corpus, run, "--stop-after", "12", "--checkpoint-every", "6") == 0
    damaged = run / "checkpoints/step-00000012/rank-00000.safetensors"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    half = run / "checkpoints/.step-00000012.tmp"
    half.mkdir()
    (half / "state.json").write_text("{}", encoding="utf-8")
    assert alone(corpus, run) == 0
    assert exact(run) == exact(whole), "steps 7 to 12 stand once, as trained again"


def test_checkpoints_are_written_by_the_clock(corpus: Path, tmp_path: Path) -> None:
    options = ["--checkpoint-minutes", "1e-9", "--keep", "9", "--stop-after", "3"]
    assert alone(corpus, tmp_path / "run", *options) == 0
    assert [step for step, _ in checkpoint.list_checkpoints(tmp_path / "run")] == [1, 2, 3]


def test_a_naive_loop_gives_the_same_losses(corpus: Path, whole: Path) -> None:
    """The naive loop has one process, no FSDP and no micro-batches, and reads windows directly from the shards."""
    manifest = load_manifest(corpus)
    plan = plan_from(json.loads((whole / "run.json").read_text(encoding="utf-8"))["plan"])
    model = Llama(PRESETS["demo"], VOCABULARY)
    parallel.initialize(model, manifest.seed)
    optimizer = build_optimizer(model, PRESETS["demo"].learning_rate)
    data = BatchReader(corpus, plan)
    for step in range(10):
        tokens = []
        for sample in data.trace(step):
            flat = open_shard(corpus / "shards" / sample["shard"]).tokens
            tokens.append(torch.from_numpy(flat[sample["token"] : sample["token"] + 33].astype("int64")))
        batch = torch.stack(tokens)
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            rate = StageRate(STEPS, "cosine", PRESETS["demo"].learning_rate, PRESETS["demo"].warmup)
            group["lr"] = rate_at(step, [rate])
        optimizer.step()
        optimizer.zero_grad()
        assert float(rows(whole)[step]["loss"]) == pytest.approx(loss.item(), abs=2e-5)


def test_losses_by_source_make_up_the_loss(whole: Path) -> None:
    for row in rows(whole):
        found = [float(row[key]) for key in ("loss_books", "loss_web") if row[key]]
        assert min(found) - 1e-4 <= float(row["loss"]) <= max(found) + 1e-4
    assert any(row["loss_books"] for row in rows(whole))


def test_validation_is_written_for_each_source(whole: Path) -> None:
    with (whole / "validation.csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert {row["source"] for row in found} == {"books", "web"}
    assert all(row["step"] == str(STEPS) and 0 < float(row["loss"]) < 5 for row in found)


def test_a_run_killed_before_a_validation_has_it_when_it_goes_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, through = tmp_path / "run", tmp_path / "through"
    often, validate = ["--checkpoint-every", "12", "--validate-every", "12"], trainer.train.validate
    for kill in (12, STEPS):

        def killed(*given: Any, kill: int = kill) -> None:
            if given[4] == kill:
                raise RuntimeError("killed")
            validate(*given)

        monkeypatch.setattr(trainer.train, "validate", killed)
        with pytest.raises(RuntimeError, match="killed"):
            alone(corpus, run, *often)
        assert checkpoint.list_checkpoints(run)[-1][0] == kill
    monkeypatch.undo()
    capsys.readouterr()
    for said in ("run: finished", "is finished"):
        assert alone(corpus, run, *often) == 0 and said in capsys.readouterr().out
    assert alone(corpus, through, *often) == 0
    assert (run / "validation.csv").read_bytes() == (through / "validation.csv").read_bytes()


def test_trace_names_the_documents_of_a_step(corpus: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", str(whole), "--step", "3", "--json"]) == 0
    samples = json.loads(capsys.readouterr().out)
    assert len(samples) == 8 and samples[0]["sample"] == 16
    plan = plan_for(load_manifest(corpus), 3, 32, 8, STEPS)
    assert plan_from(json.loads((whole / "run.json").read_text(encoding="utf-8"))["plan"]) == plan
    for sample in samples:
        assert sample["documents"] and all(sample["source"] in d["url"] for d in sample["documents"])
    assert main(["trace", str(whole), "--step", "3"]) == 0
    assert samples[0]["documents"][0]["url"] in capsys.readouterr().out


def test_a_finished_run_says_so_and_does_nothing(corpus: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = exact(whole)
    assert alone(corpus, whole) == 0
    assert f"is finished: {STEPS} steps" in capsys.readouterr().out and exact(whole) == before


def refused(capsys: pytest.CaptureFixture[str], words: str) -> None:
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "Traceback" not in said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--steps", "80"], f"another --steps ({STEPS} before, 80 now)"),
        (["--seed", "9"], "another --seed ("),
        (["--batch-tokens", "512"], "another --batch-tokens ("),
        (["--learning-rate", "0.5"], "another --learning-rate ("),
    ],
)
def test_another_plan_is_refused(
    corpus: Path, whole: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert alone(corpus, whole, *more) == 2
    refused(capsys, words)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--model", "8b"], "--model 8b is not known"),
        (["--sequence-length", "100000"], "--batch-tokens 256 is less than one sequence"),
        (["--sequence-length", "100000", "--batch-tokens", "100000"], "no shard contains a window"),
        (["--steps", "1000000"], "within its epoch caps"),
    ],
)
def test_a_mistake_is_one_sentence(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert alone(corpus, tmp_path / "run", *more) == 2
    refused(capsys, words)
    assert not (tmp_path / "run").exists()


def test_a_corpus_without_a_manifest_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus").mkdir()
    assert alone(tmp_path / "corpus", tmp_path / "run") == 2
    refused(capsys, "has no manifest.json")


@pytest.mark.parametrize("damage", ["a byte", "a cut", "gone"])
def test_a_changed_shard_refuses_by_name(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    path = copy / "shards/web/train-1.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data if damage == "a byte" else data[:-1])
    assert alone(copy, tmp_path / "run") == 2
    refused(capsys, "shards/web/train-1.arrow: ")


def test_a_batch_that_does_not_divide_by_the_ranks_is_refused(corpus: Path, tmp_path: Path) -> None:
    code, said = together(corpus, tmp_path / "run", "--batch-tokens", "96")
    assert code == 2 and "does not divide by 2 ranks" in said


def test_one_two_and_four_ranks_are_as_one(corpus: Path, whole: Path, tmp_path: Path) -> None:
    """Compare 8 steps in fp32 on different numbers of ranks, and with two replicas of two ranks.

    Batches and initial weights have the same hashes. Losses agree within 1e-5.
    """
    shas = set()
    for world, replicas in (1, 1), (2, 1), (4, 1), (4, 2):
        run, sha = tmp_path / f"run-{world}-{replicas}", tmp_path / "sha"
        command = [str(corpus), *OPTIONS, "--output", str(run), "--replicas", str(replicas), "--precision", "fp32"]
        # Each rank has two micro-batches, so that gradients are accumulated.
        command += ["--stop-after", "8", "--micro-batch", str(4 // world)]
        assert join_ranks(start_ranks(world, tmp_path / "stderr", trainer_ranks.run, sha, command)) == 0
        shas.add(sha.read_text(encoding="utf-8"))
        sha.unlink()
        assert len(rows(run)) == 8
        for one, other in zip(rows(run), rows(whole)[:8], strict=True):
            assert one["batch"] == other["batch"]
            assert float(one["loss"]) == pytest.approx(float(other["loss"]), abs=1e-5)
    plain = Llama(PRESETS["demo"], VOCABULARY)
    parallel.initialize(plain, load_manifest(corpus).seed)
    assert shas == {weights_sha(plain)}


@pytest.mark.parametrize("replicas", ["1", "3"])
def test_three_ranks_with_uneven_micro_batches_and_document_masks_are_as_one(
    corpus: Path, tmp_path: Path, replicas: str
) -> None:
    """Three ranks have micro-batches of 2, 2 and 1 sequences each. One rank processes the whole batch at once."""
    command = ["train", str(corpus), *OPTIONS, "--batch-tokens", "480", "--document-masks", "--stop-after", "6"]
    assert main([*command, "--output", str(tmp_path / "one"), "--micro-batch", "15"]) == 0
    more = ["--output", str(tmp_path / "three"), "--micro-batch", "2", "--replicas", replicas]
    assert join_ranks(start_ranks(3, tmp_path / "stderr", main, [*command, *more])) == 0
    same_batches_and_near_losses(tmp_path / "three", tmp_path / "one")
    for one, three in zip(rows(tmp_path / "one"), rows(tmp_path / "three"), strict=True):
        assert float(one["gradient_norm"]) == pytest.approx(float(three["gradient_norm"]), rel=1e-4)


def test_a_byte_that_the_second_rank_finds_changed_refuses_by_name(corpus: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "corpus"))
    path = load_manifest(copy).shards()[1].path
    data = bytearray((copy / "shards" / path).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "shards" / path).write_bytes(data)
    for part, found in ((0, False), (1, True)):
        assert bool(check_shards(copy, load_manifest(copy), "full", part, 2)) == found
    code, said = together(copy, tmp_path / "run")
    assert code == 2 and not (tmp_path / "run").exists()
    assert f"error: shards/{path}: its bytes have changed (sha256)" in said


def train_elsewhere(words: list[str], run: str) -> int:
    """Train. The second rank gets another folder for the run, as if it were on the disk of another machine."""
    return main([word.replace(run, run + "-of-another-disk") if os.environ["RANK"] == "1" else word for word in words])


def test_a_folder_that_not_all_ranks_see_is_refused_before_the_first_step(corpus: Path, tmp_path: Path) -> None:
    run, errors = tmp_path / "run", tmp_path / "stderr"
    command = ["train", str(corpus), "--output", str(run), *OPTIONS, *WHOLE_SHARE]
    assert join_ranks(start_ranks(2, errors, train_elsewhere, command, str(run))) == 2
    said = errors.read_text(encoding="utf-8")
    assert f"error: --output {run} of rank 1 on " in said and "give a folder that all machines share" in said
    assert not (run / "metrics.csv").exists() and not list((run / "checkpoints").iterdir())


def test_replicas_that_do_not_divide_the_ranks_are_refused(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert alone(corpus, tmp_path / "run", "--replicas", "3") == 2
    refused(capsys, "--replicas 3 does not divide 1 ranks")


def test_options_for_speed_and_memory_change_no_loss(corpus: Path, whole: Path, tmp_path: Path) -> None:
    more = [
        "--deterministic",
        "--activation",
        "selective",
        "--tensorboard",
        "--peak-tflops",
        "0.1",
        "--stop-after",
        "4",
    ]
    assert alone(corpus, tmp_path / "run", *more) == 0
    assert [row["loss"] for row in rows(tmp_path / "run")] == [row["loss"] for row in rows(whole)[:4]]
    row = rows(tmp_path / "run")[-1]
    assert 0 < float(row["mfu_6n"]) < float(row["mfu_attention"]) and float(row["memory_gb"]) > 0
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


def test_steps_without_finite_gradients_end_the_run_and_are_not_saved(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    norm = parallel.gradient_norm
    calls: list[int] = []

    def broken(*given: object) -> torch.Tensor:
        calls.append(1)
        return norm(*given) * (float("nan") if len(calls) not in (1, 4) else 1.0)

    monkeypatch.setattr("trainer.step.gradient_norm", broken)
    assert alone(corpus, tmp_path / "run", "--non-finite-limit", "3", "--checkpoint-every", "1") == 2
    assert "the gradients of 3 steps up to step 7 were not finite" in capsys.readouterr().err
    assert [row["skipped"] for row in rows(tmp_path / "run")] == ["", *["non-finite"] * 2, "", *["non-finite"] * 3]
    assert checkpoint.list_checkpoints(tmp_path / "run")[-1][0] == 6


def test_document_masks_and_bf16_train_and_must_stay(
    corpus: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert alone(corpus, run, "--document-masks", "--precision", "bf16", "--stop-after", "4") == 0
    for one, other in zip(rows(run), rows(whole)[:4], strict=True):
        assert one["loss"] != other["loss"] and float(one["loss"]) == pytest.approx(float(other["loss"]), abs=0.1)
    capsys.readouterr()
    assert alone(corpus, run, "--precision", "bf16") == 2
    assert "another --document-masks (true before, false now)" in capsys.readouterr().err
