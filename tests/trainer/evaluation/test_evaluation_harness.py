"""The scores of single questions equal lm-evaluation-harness's, where it asks the same."""

from pathlib import Path

import pytest
from evaluation_files import write_benchmarks
from small_tokenizers import small_model

from benchmarks.evaluation import write_random_model
from trainer.evaluation.evaluate import Options, evaluate, prepare
from trainer.evaluation.models import find_model, open_engine
from trainer.evaluation.tasks import TASKS
from trainer.sizes import Preset

pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra eval)")
pytest.importorskip("accelerate", reason="lm-eval's adapter of transformers needs accelerate (extra eval)")
pytest.importorskip("transformers", reason="transformers is not installed (extra dev)")
AGREEING = [task for task in TASKS.values() if task.harness]


@pytest.mark.slow
def test_every_question_has_the_harness_scores(tmp_path: Path) -> None:
    from trainer.evaluation.harness import DEFINITIONS, compare_run, open_harness_model

    assert {task.harness for task in AGREEING} == set(DEFINITIONS)
    data, folder = write_benchmarks(tmp_path / "data"), tmp_path / "llama"
    write_random_model(folder, Preset(64, 2, 2, 1e-3, multiple=64), small_model(), 2_048)
    source, model = find_model(folder), open_harness_model(folder, "cpu")
    for shots in (0, 1):
        options = Options(shots=(shots,))
        tasks = [task for task in AGREEING if shots == 0 or task.data.by_group]
        runs, refused = prepare(tasks, data, options)
        assert not refused
        records = evaluate(source, lambda: open_engine(source, "cpu", "fp32"), runs, tmp_path / "out", options)
        for run in runs:
            found = compare_run(model, run, data, records)
            assert found.questions == len(run.items)
            assert "acc" in found.different and not any(found.different.values()), run.name
            assert found.largest < 1e-3, run.name
