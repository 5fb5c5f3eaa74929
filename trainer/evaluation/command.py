"""`python -m trainer evaluate`: list and fetch benchmarks, and evaluate a model on those that are there."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from filters.errors import UserError
from manifests.files import canonical_json, write_atomic
from trainer.evaluation.layouts import Data, download, find_files
from trainer.evaluation.tasks import TASKS, Task, select_tasks

RESULTS = "results.json"


def list_tasks(root: Path, names: Sequence[str]) -> str:
    """Return the tasks, their files in `root`, and where those are published."""
    lines = []
    for task in select_tasks(names or list(TASKS)):
        data = task.data
        state = "present" if find_files(data, root, data.items) else "missing"
        wanted = ", ".join(pattern for pattern in (data.items, *data.beside, data.shots) if pattern)
        shots = "/".join(map(str, task.shots))
        lines.append(f"{task.name:32} {state}  {data.count:,} questions of {task.split}, {shots} shots, {task.rule}")
        lines.append(f"    {root / data.folder}: {wanted}")
        lines += [f"    {url}" for url in data.urls]
    return "\n".join(lines)


def download_tasks(root: Path, names: Sequence[str]) -> str:
    """Fetch the files of tasks that are not there yet, and return one line for each benchmark."""
    benchmarks: dict[tuple[str, str], Data] = {}
    for task in select_tasks(names or list(TASKS)):
        benchmarks.setdefault((task.data.folder, task.data.items), task.data)
    lines = []
    for data in benchmarks.values():
        written = download(data, root)
        lines.append(f"{root / data.folder}: " + (f"{len(written)} files fetched" if written else "already there"))
    return "\n".join(lines)


def choose_tasks(root: Path, names: Sequence[str]) -> list[Task]:
    """Return the tasks of the given names, else those in the paper's form whose files are in `root`.

    Raises:
        UserError: A name is unknown, or no file of a benchmark is there.
    """
    if names:
        return select_tasks(names)
    found = [task for task in TASKS.values() if ":" not in task.name and find_files(task.data, root, task.data.items)]
    if not found:
        raise UserError(f"{root} holds no benchmark: give --data, or fetch them with --download")
    return found


def evaluate_model(options: argparse.Namespace) -> str:
    """Evaluate a model; return a table of its scores beside the paper's.

    Raises:
        UserError: The model cannot be evaluated, or no task can be scored.
    """
    from trainer.evaluation.evaluate import Options, evaluate, prepare
    from trainer.evaluation.judges import open_judge
    from trainer.evaluation.models import find_model, open_engine
    from trainer.evaluation.results import format_table, summarize
    from trainer.parallel import resolve_device

    judges = {kind: open_judge(kind, path) for kind, path in options.judge}
    device = resolve_device(options.device)
    precision = options.precision or ("bf16" if device == "cuda" else "fp32")
    how = Options(options.limit, options.shots, options.samples, judges, options.run_code, precision)
    tasks = choose_tasks(options.data, options.tasks)
    runs, refused = prepare(tasks, options.data, how)
    if not runs or (options.tasks and refused):
        raise UserError("; ".join(dict.fromkeys(refused.values())))
    source = find_model(options.model, options.corpus)
    output = options.output or options.model / "evaluation"
    records = evaluate(source, lambda: open_engine(source, device, precision), runs, output, how)
    results = {**summarize(source, runs, records, refused), "precision": precision}
    text = format_table(results)
    if options.harness:
        from trainer.evaluation.harness import compare_with_harness
        from trainer.hf import export

        folder = options.model
        if not (folder / "config.json").is_file():
            folder = output / "exported"
            if not folder.exists():
                export(options.model, folder, options.corpus)
        results["harness"], lines = compare_with_harness(folder, runs, options.data, records, device)
        text += "\n\n" + lines
    write_atomic(output / RESULTS, canonical_json(results))
    return f"{text}\n{output / RESULTS}"
