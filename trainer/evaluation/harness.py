"""Score the same questions with lm-evaluation-harness, and compare the scores of each question.

The task definitions of the harness are used, with its prompts, choices and metrics. Only the data are replaced by the
rows of the published files. `docs/evaluation.md` lists the tasks whose definitions agree, and the differences of the
other tasks.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filters.errors import UserError
from trainer.evaluation.evaluate import Records, TaskRun
from trainer.evaluation.items import LETTERS, Row
from trainer.evaluation.layouts import read_rows

# Name of a metric in the harness -> name in our records.
METRICS = {"acc": "accuracy raw", "acc_norm": "accuracy characters"}


def _boolq(row: Row) -> Row:
    return {"passage": row["passage"], "question": row["question"], "label": int(row["answer"])}


def _arc(row: Row) -> Row:
    choices = row["question"]["choices"]
    listed = {key: [choice[key] for choice in choices] for key in ("text", "label")}
    stem = row["question"]["stem"]
    return {"question": stem, "question_stem": stem, "choices": listed, "answerKey": row["answerKey"]}


# Name of a task in the harness -> (file of its definition, split that it scores, function that converts a published row
# to a row of the harness).
DEFINITIONS: Mapping[str, tuple[str, str, Callable[[Row], Row]]] = {
    "boolq": ("super_glue/boolq/default.yaml", "validation", _boolq),
    "piqa": ("piqa/piqa.yaml", "validation", lambda row: {**row, "label": int(row["label"])}),
    "social_iqa": ("siqa/siqa.yaml", "validation", dict),
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation", dict),
    "winogrande": ("winogrande/default.yaml", "validation", dict),
    "arc_easy": ("arc/arc_easy.yaml", "test", _arc),
    "arc_challenge": ("arc/arc_challenge.yaml", "test", _arc),
    "openbookqa": ("openbookqa/openbookqa.yaml", "test", _arc),
    "mmlu": ("mmlu/default/mmlu_{subject}.yaml", "test", lambda row: {**row, "answer": LETTERS.index(row["answer"])}),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of the harness's scores with our scores, for one run.

    Attributes:
        name: Name of the run.
        questions: Number of questions.
        different: A dict from a metric of the harness to the names of the questions that are scored differently.
        largest: The largest difference of a log-likelihood, in nats.
        cpu_seconds: CPU seconds of the harness, without its imports and the loading of the model.
    """

    name: str
    questions: int
    different: dict[str, list[str]]
    largest: float
    cpu_seconds: float


def can_compare(run: TaskRun) -> bool:
    """Return True if the harness sends the same requests to the model.

    This is so for some tasks without examples in the prompt, and for MMLU with its own examples.
    """
    return bool(run.task.harness) and (run.shots == 0 or run.task.data.by_group)


def open_harness_model(folder: Path, device: str) -> Any:
    """Open a model in Hugging Face's layout with the harness, and return the harness's model object.

    Raises:
        UserError: lm-evaluation-harness is not installed.
    """
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise UserError("--harness needs lm-evaluation-harness: pip install 'lm-eval[hf]>=0.4.13'") from error
    settings = {"dtype": "float32", "batch_size": 8, "device": device, "add_bos_token": True}
    return HFLM(pretrained=str(folder), **settings)


def compare_run(model: Any, run: TaskRun, data: Path, records: Records) -> Comparison:
    """Score a run's questions with the harness and compare them with our records."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as folder:
        names = _write_definitions(run, data, Path(folder))
        manager = TaskManager(include_path=folder, include_defaults=False)
        started = time.process_time()
        found = simple_evaluate(
            model, tasks=list(names), num_fewshot=run.shots or None, task_manager=manager, bootstrap_iters=0
        )
        seconds = time.process_time() - started
    different: dict[str, list[str]] = {}
    largest = 0.0
    for name, numbers in names.items():
        for sample in found["samples"][name]:
            key = run.keys[numbers[sample["doc_id"]]]
            theirs = [float(one[0][0] if isinstance(one[0], (list, tuple)) else one[0]) for one in sample["resps"]]
            largest = max(largest, *(abs(a - b) for a, b in zip(theirs, records[key]["nats"], strict=False)))
            for metric, ours in METRICS.items():
                if metric in sample:
                    differs = sample[metric] != records[key]["scores"][ours]
                    different.setdefault(metric, []).extend([records[key]["item"]] * differs)
    return Comparison(run.name, len(run.items), different, largest, seconds)


def _write_definitions(run: TaskRun, data: Path, folder: Path) -> dict[str, list[int]]:
    """Write task definitions for the harness that read the published rows.

    Returns:
        A dict from the name of a definition to the indexes of its questions in `run.items`.
    """
    import lm_eval.tasks

    file, split, convert = DEFINITIONS[run.task.harness]
    numbers = {item.name: number for number, item in enumerate(run.items)}
    found: dict[str, list[int]] = {}
    rows: dict[tuple[str, str], list[Row]] = {}
    for of, shown in ((split, False), ("dev", True)):
        for _, name, row in read_rows(run.task.data, data, shown) if run.shots or not shown else ():
            if shown or name in numbers:
                subject = f"_{row['subject']}" if run.task.data.by_group else ""
                rows.setdefault((subject, of), []).append(convert(row))
                if not shown:
                    found.setdefault(run.task.harness + subject, []).append(numbers[name])
    for subject in {subject for subject, _ in rows if run.task.harness + subject in found}:
        files = {of: folder / f"rows{subject}-{of}.json" for of in (split, "dev") if (subject, of) in rows}
        for of, path in files.items():
            path.write_text("\n".join(json.dumps(row) for row in rows[subject, of]), encoding="utf-8")
        definition = {
            "include": str(Path(lm_eval.tasks.__file__).parent / file.format(subject=subject[1:])),
            "task": run.task.harness + subject,
            "training_split": None,
            "validation_split": None,
            "test_split": None,
            f"{split}_split": split,
            "fewshot_split": "dev" if run.shots else None,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {of: str(path) for of, path in files.items()},
                "cache_dir": str(folder / "cache"),
            },
        }
        (folder / f"{run.task.harness}{subject}.yaml").write_text(json.dumps(definition), encoding="utf-8")
    return found


def compare_with_harness(
    folder: Path, runs: Sequence[TaskRun], data: Path, records: Records, device: str
) -> tuple[list[dict[str, Any]], str]:
    """Compare all runs for which the harness sends the same requests.

    Returns:
        The comparisons as dicts, and text lines that describe them.
    """
    model = open_harness_model(folder, device)
    found = [compare_run(model, run, data, records) for run in runs if can_compare(run)]
    lines = [
        f"{one.name}: of {one.questions} questions lm-evaluation-harness scores "
        + ", ".join(f"{len(names)} differently by {metric}" for metric, names in one.different.items())
        + f"; log-likelihoods differ by at most {one.largest:.1e} nats"
        for one in found
    ]
    return [asdict(one) for one in found], "\n".join(lines or ["lm-evaluation-harness asks none of these tasks alike"])
