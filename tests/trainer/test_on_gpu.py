"""Tests that need a GPU. `benchmarks/on_gpu.sh` runs them."""

import csv
from pathlib import Path

import pytest
import torch
from trainer_corpus import write_text_corpus

from manifests.sizes import get_preset
from trainer import checkpoint
from trainer.__main__ import main
from trainer.generate import continue_text, load_model
from trainer.parallel import estimate_rank_memory

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
MODEL, LENGTH, VOCABULARY = "dim=256,layers=4,heads=4", 128, 600


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_corpus(tmp_path_factory.mktemp("gpu") / "corpus", VOCABULARY)


def losses(corpus: Path, run: Path, *more: str) -> list[float]:
    words = [
        "--model",
        MODEL,
        "--steps",
        "12",
        "--sequence-length",
        str(LENGTH),
        "--batch-tokens",
        "4096",
        "--seed",
        "1",
    ]
    assert main(["train", str(corpus), "--output", str(run), *words, *more]) == 0
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_a_gpu_trains_as_a_cpu_does_compiled_or_not(corpus: Path, tmp_path: Path) -> None:
    cpu = losses(corpus, tmp_path / "cpu", "--device", "cpu")
    for name, more in (("eager", ["--no-compile"]), ("compiled", []), ("masked", ["--document-masks", "--no-compile"])):
        found = losses(corpus, tmp_path / name, "--device", "cuda", *more)
        assert found == pytest.approx(cpu, abs=0.2 if name == "masked" else 0.05), name
    exact = losses(corpus, tmp_path / "fp32", "--device", "cuda", "--precision", "fp32", "--no-compile")
    assert exact == pytest.approx(cpu, abs=2e-3)


def test_deterministic_runs_are_equal_to_the_last_bit(corpus: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        losses(corpus, tmp_path / name, "--device", "cuda", "--deterministic")
    one, two = (checkpoint.list_checkpoints(tmp_path / name)[-1][1] for name in ("one", "two"))
    assert (one / "rank-00000.safetensors").read_bytes() == (two / "rank-00000.safetensors").read_bytes()


def test_texts_continued_on_a_gpu_are_those_of_a_cpu(corpus: Path, tmp_path: Path) -> None:
    losses(corpus, tmp_path / "run", "--device", "cuda")
    saved = checkpoint.open_checkpoint(tmp_path / "run")
    models = [load_model(saved, device) for device in ("cpu", "cuda")]
    texts = [list(continue_text(model, [1, 7, 9], 20, LENGTH, 0.0, 1.0, 0)) for model in models]
    assert texts[0] == texts[1]


def test_the_memory_that_the_micro_batch_is_chosen_by_is_that_of_a_step(corpus: Path, tmp_path: Path) -> None:
    torch.cuda.reset_peak_memory_stats()
    losses(corpus, tmp_path / "run", "--device", "cuda", "--micro-batch", "32", "--no-compile")
    parts = estimate_rank_memory(get_preset(MODEL), VOCABULARY, LENGTH, 32, 1, True, "none")
    assert torch.cuda.max_memory_allocated() == pytest.approx(sum(parts.values()), rel=0.5)
