"""Bits per byte equal those of a naive loop, and `compare` works on small runs, from training to the decision."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from trainer_corpus import write_text_corpus

from filters.errors import UserError
from manifests.sizes import get_preset
from manifests.tools.held_out import freeze_held_out
from trainer.__main__ import main
from trainer.evaluation import compare as module
from trainer.evaluation.compare import FILE, measure_bits, read_held_out, score_run
from trainer.model import Llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a corpus, its held-out text, and two runs at each of two learning rates."""
    folder = tmp_path_factory.mktemp("compare")
    corpus = write_text_corpus(folder / "corpus")
    freeze_held_out(corpus, [corpus], folder / "held.jsonl", documents=6)
    for rate in ("0.01", "0.0001"):
        for seed in ("0", "1"):
            train(folder, f"{rate}-{seed}", "--learning-rate", rate, "--seed", seed)
    return folder


def train(folder: Path, name: str, *more: str, steps: int = 6) -> None:
    size = ["--model", "dim=16,layers=1,heads=1", "--sequence-length", "32", "--batch-tokens", "256"]
    output = ["--output", str(folder / name), "--steps", str(steps)]
    assert main(["train", str(folder / "corpus"), *output, *size, *more]) == 0


def compare(folder: Path, *names: str) -> list[str]:
    return ["compare", *(str(folder / name) for name in names), "--held-out", str(folder / "held.jsonl")]


def test_windows_cover_every_token_but_the_first() -> None:
    torch.manual_seed(1)
    model = Llama(get_preset("dim=16,layers=1,heads=1"), 50)
    documents = [torch.randint(50, (size,)).tolist() for size in (1, 2, 8, 9, 10, 17, 40)]
    found = measure_bits(model, documents, length=8)
    for ids, bits in zip(documents, found, strict=True):
        nats = 0.0
        for place in range(1, len(ids)):
            begin = (place - 1) // 8 * 8
            logits = model(torch.tensor([ids[begin:place]]))
            nats -= logits[0, -1].log_softmax(-1)[ids[place]].item()
        assert bits == pytest.approx(nats / math.log(2), rel=1e-5)


def test_a_run_is_scored_once_for_a_checkpoint_and_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out, run = read_held_out(folder / "held.jsonl"), folder / "0.01-0"
    first = score_run(run, held_out)
    assert (first / held_out.count_bytes() > 1).all()
    monkeypatch.setattr(module, "measure_bits", lambda model, documents, length: np.zeros(len(documents)))
    assert (score_run(run, held_out) == first).all()
    saved = json.loads((run / FILE).read_bytes())
    for name in ("held_out", "checkpoint"):
        (run / FILE).write_text(json.dumps({**saved, name: "another"}))
        assert (score_run(run, held_out) == 0).all()
    (run / FILE).unlink()


def test_runs_of_two_arms_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["0.01-0", "0.01-1", "0.0001-0", "0.0001-1"]
    for number, name in enumerate(names):
        write_answers(folder / name / "evaluation", number, questions=5 + number)
    words = compare(folder, *names)
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "corpus (0.0001-0) (seeds 0, 1) - corpus (seeds 0, 1)" in text
    assert main([*words, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert [row["group"] for row in result["differences"]] == ["docs", "answers: arc_easy", "mean of sources"]
    whole = result["differences"][-1]
    assert whole["arm"] > whole["baseline"], "it has hardly learnt"
    # With two seeds per arm, the last bits of a result, which depend on the machine, decide if it is within the noise.
    said = (
        "corpus (0.0001-0) is worse than corpus by"
        if whole["low"] > 0
        else "no difference seen between corpus (0.0001-0)"
    )
    assert said in text
    answers = result["differences"][1]
    assert (answers["baseline"], answers["arm"], answers["units"]) == (1.5, 3.5, 5)


def write_answers(folder: Path, bits: int, questions: int) -> None:
    """Write results as `evaluate` does. Add a record of another model, one of another kind of task, and a cut line."""
    folder.mkdir(exist_ok=True)
    records = [{"model": "old", "key": "0", "task": "arc_easy", "scores": {"bits per byte": 99.0}}]
    records += [{"model": "new", "key": "x", "task": "gsm8k", "scores": {"accuracy": 1.0}}]
    for key in range(questions):
        scores = {"accuracy": 0.0, "bits per byte": 1.0 + bits}
        records.append({"model": "new", "key": str(key), "task": "arc_easy", "scores": scores})
    lines = [json.dumps(record) for record in records]
    (folder / "results.json").write_text(json.dumps({"model": {"sha256": "new"}}), "utf-8")
    (folder / "items.jsonl").write_text("\n".join([*lines, lines[-1][:20]]), encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("0.01-0", "0.01-1"), "all runs are of corpus: give runs of two corpora"),
        (("0.01-0", "0.01-0"), "are of the same corpus, options and seed"),
        (("0.01-0", "short"), "compare runs of the same budget"),
        (("0.01-0", "stopped"), "stopped after step 1 of 6: finish it"),
        (("0.01-0", "missing"), "holds no run"),
    ],
)
def test_what_cannot_be_compared_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], message: str
) -> None:
    if names[1] == "short":
        train(folder, "short", steps=1)
    if names[1] == "stopped":
        train(folder, "stopped", "--stop-after", "1")
    capsys.readouterr()
    assert main(compare(folder, *names)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference": "1" * 64}, "was not compared with the corpus of"),
        ({}, "the reference corpus of the held-out text, which was not compared with this text: name it twice"),
    ],
)
def test_a_corpus_that_the_held_out_text_was_not_compared_with_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], message: str
) -> None:
    head, *rows = (folder / "held.jsonl").read_text("utf-8").split("\n")
    lines = [json.dumps({**json.loads(head), "compared": ["0" * 64], **changed}), *rows]
    (tmp_path / "held.jsonl").write_text("\n".join(lines), "utf-8")
    runs = [str(folder / name) for name in ("0.01-0", "0.0001-0")]
    assert main(["compare", *runs, "--held-out", str(tmp_path / "held.jsonl")]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_no_held_out_text_is_refused(tmp_path: Path) -> None:
    head = b'{"compared": [], "reference": ""}\n'
    rows = (b'{"source": "a"}\n', b'{"source": "a", "text": ""}\n', b"[]\n", b"\xff\n", b"{\n", b"")
    for data in (b"", b"[]\n", b"{}\n", *(head + row for row in rows)):
        path = tmp_path / "held.jsonl"
        path.write_bytes(data)
        with pytest.raises(UserError, match="manifests freeze"):
            read_held_out(path)
    with pytest.raises(UserError, match="manifests freeze"):
        read_held_out(tmp_path / "missing")
