"""Scores of single questions equal those of lm-evaluation-harness if its requests are the same."""

import json
from pathlib import Path

import pytest
from evaluation_files import write_benchmarks
from small_tokenizers import small_model

from benchmarks.evaluation import write_random_model
from manifests.sizes import Preset
from trainer.__main__ import main
from trainer.evaluation.tasks import TASKS

pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra eval)")
pytest.importorskip("accelerate", reason="lm-eval's adapter of transformers needs accelerate (extra eval)")
pytest.importorskip("transformers", reason="transformers is not installed (extra dev)")
AGREEING = {task.name: task for task in TASKS.values() if task.harness}


@pytest.mark.slow
def test_every_question_has_the_harness_scores(tmp_path: Path) -> None:
    from trainer.evaluation.harness import DEFINITIONS

    assert {task.harness for task in AGREEING.values()} == set(DEFINITIONS)
    data, folder, out = write_benchmarks(tmp_path / "data"), tmp_path / "llama", tmp_path / "out"
    write_random_model(folder, Preset(64, 2, 2, 1e-3, multiple=64), small_model(), 2_048)
    options = ["evaluate", str(folder), "--data", str(data), "--output", str(out), "--harness"]
    for shots, names in (("0", list(AGREEING)), ("1", ["mmlu"])):
        assert main([*options, "--shots", shots, "--tasks", ",".join(names)]) == 0
        found = json.loads((out / "results.json").read_text(encoding="utf-8"))
        assert len(found["harness"]) == len(names)
        for theirs, ours in zip(found["harness"], found["runs"], strict=True):
            assert (theirs["name"], theirs["questions"]) == (ours["name"], ours["questions"])
            assert "acc" in theirs["different"] and not any(theirs["different"].values()), theirs
            assert theirs["largest"] < 1e-3, theirs
