"""Rates that runs measured: CPU seconds, bytes shuffled and written, and memory of each step, from `runs/*.json`.

Only tasks' own CPU time counts, so the engine's start-up does not scale with the data. Inside it, what a process needs
once (models, compiled functions) and what a task needs whatever its size are kept apart from the slope.
"""

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from filters.errors import UserError
from manifests.stages import SAMPLE, STAGES, STEPS, kind_of, stage_of

WARM_TASKS = 3
"""so many tasks after a process's first are needed to tell start-up from slope"""

Task = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rate:
    """One step's measured work, of one source or (`source` empty) of all. `amount`: what it was measured on, in
    `unit`s; CPU seconds: `per_unit`, `per_task`, and `start_up` a process. `shuffled`, `written`: bytes in the measured
    runs."""

    stage: str
    source: str
    unit: str
    amount: float
    tasks: int
    cpu_seconds: float
    per_unit: float
    per_task: float
    start_up: float
    shuffled: float | None
    written: float | None
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Rates:
    """All rates of some runs. `sources`: those that were read; `engine_seconds`: what the engine took around the tasks
    of one job, which no plan scales."""

    steps: tuple[Rate, ...]
    sources: tuple[str, ...]
    stored_bytes: float
    bytes_per_character: float
    engine_seconds: float


def find_runs(corpus: Path) -> list[Path]:
    """The run records of a corpus, those of killed runs among them. Raises UserError when there is none."""
    runs = corpus / "runs"
    found = sorted(path for path in runs.glob("*.json") if path.name != "checksums.json")
    found += sorted(runs.glob("*.parts/*.json"))
    if not found:
        raise UserError(f"{runs} holds no record of a run: give --rates FILE, the runs/<start>.json of another corpus")
    return found


def read_rates(paths: Iterable[Path]) -> Rates:
    """Rates from run records; of a task that ran more than once the last counts. Raises UserError."""
    tasks: dict[tuple[str, str], Task] = {}
    engine: list[float] = []
    for path in paths:
        record = _read(path)
        run = record.get("tasks", [record] if "task" in record else [])
        jobs = record.get("jobs", [])
        try:
            tasks |= {(str(task["stage"]), str(task["task"])): _checked(task) for task in run}
            if jobs:
                inside = sum(float(task["seconds"]) for task in run) / max(1, int(record.get("workers", 1)))
                engine.append(max(0.0, sum(float(job["seconds"]) for job in jobs) - inside) / len(jobs))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"{path} is not a record of a run: give a corpus's runs/<start>.json") from error
    return rates_of(list(tasks.values()), statistics.fmean(engine) if engine else 0.0)


def rates_of(tasks: list[Task], engine_seconds: float = 0.0) -> Rates:
    """Rates of finished tasks, as `pipeline/beam/task.py` records them."""
    tasks = sorted(tasks, key=lambda task: (task["stage"], task["task"]))  # sums must not depend on the files' order
    sources = sorted({task["task"].partition("/")[0] for task in tasks if task["stage"] == "extract"})
    steps: list[Rate] = []
    for stage in sorted({task["stage"] for task in tasks}, key=_order):
        mine = [task for task in tasks if task["stage"] == stage]
        for source in sources if kind_of(stage).per_source else [_joined(stage)]:
            chosen = [task for task in mine if not source or task["task"].partition("/")[0] == source]
            amount = _amount(stage, source, tasks)
            if chosen and amount:
                steps.append(_rate(stage, source, chosen, amount))
    characters = sum(task["entered"].get("characters", 0) for task in tasks if task["stage"] == "tokenize/parts")
    text = sum(sum(task["text_bytes"].values()) for task in tasks if task["stage"] == "clusters/survivors")
    stored = sum(task["entered"].get("bytes", 0) for task in tasks if _counts_stored(task["stage"]))
    ratio = text / characters if text and characters else 1.0
    return Rates(tuple(steps), tuple(sources), stored, ratio, engine_seconds)


def _joined(stage: str) -> str:
    """The source whose rows a step joins; empty for the other steps."""
    return stage.split("/")[1] if stage.startswith("join/") else ""


def _counts_stored(stage: str) -> bool:
    """Whether a step's tally counts stored bytes: also that which brings rows together, of rows that end there."""
    return stage == "extract" or stage.startswith("join/")


def _amount(stage: str, source: str, tasks: list[Task]) -> float:
    """How much of its unit a step was measured on."""
    unit = kind_of(stage).unit
    if unit == "run":
        return 1.0
    if unit == "sample bytes":
        return float(sum(task["written_bytes"] or 0 for task in tasks if task["stage"] == SAMPLE))
    stages = {
        "stored bytes": ("extract", "entered", "bytes"),
        "extracted characters": ("extract", "out", "characters"),
        "kept characters": ("tokenize/parts", "entered", "characters"),
        "tokens": ("tokenize/parts", "out", "tokens"),
    }
    counted, side, name = stages[unit]
    return float(
        sum(
            task[side].get(name, 0)
            for task in tasks
            if (task["stage"] == counted or (unit == "stored bytes" and _counts_stored(task["stage"])))
            and (not source or task["task"].partition("/")[0] == source)
        )
    )


def _rate(stage: str, source: str, tasks: list[Task], amount: float) -> Rate:
    slope, fixed, start_up = _fit(tasks)
    sizes = sum(task["bytes"] for task in tasks)
    spent = sum(task["cpu_seconds"] for task in tasks)
    per_unit = slope * sizes / amount if sizes else max(0.0, spent - start_up * _processes(tasks)) / amount
    return Rate(
        stage,
        source,
        kind_of(stage).unit,
        amount,
        len(tasks),
        spent,
        per_unit,
        fixed if sizes else 0.0,
        start_up,
        _total(tasks, "shuffled_bytes"),
        _total(tasks, "written_bytes"),
        max(task["peak_rss_bytes"] for task in tasks),
    )


def _fit(tasks: list[Task]) -> tuple[float, float, float]:
    """CPU seconds a byte of a task's size, a task, and a process, in three parts: a line through the tasks that were
    not their process's first of this step, and how far above it the first ones lay. Of too few tasks all is slope."""
    first: dict[int, Task] = {}
    for task in sorted(tasks, key=lambda task: (task["at"], task["task"])):
        first.setdefault(task["process"], task)
    warm = [task for task in tasks if task is not first[task["process"]]]
    if len(warm) < WARM_TASKS:
        slope, fixed = _line(tasks)
        return slope, fixed, 0.0
    slope, fixed = _line(warm)
    above = [task["cpu_seconds"] - fixed - slope * task["bytes"] for task in first.values()]
    return slope, fixed, max(0.0, statistics.fmean(above))


def _line(tasks: list[Task]) -> tuple[float, float]:
    """Slope and intercept, both at least zero: least squares, or the plain ratio where the line would be falling, or
    would begin below zero, or has too few points."""
    sizes = np.array([task["bytes"] for task in tasks], np.float64)
    spent = np.array([task["cpu_seconds"] for task in tasks], np.float64)
    if not sizes.sum():
        return 0.0, float(spent.mean())
    ratio = float(spent.sum() / sizes.sum())
    spread = float(((sizes - sizes.mean()) ** 2).sum())
    if len(tasks) < WARM_TASKS or not spread:
        return ratio, 0.0
    slope = float(((sizes - sizes.mean()) * (spent - spent.mean())).sum()) / spread
    fixed = float(spent.mean()) - slope * float(sizes.mean())
    return (slope, fixed) if slope > 0 and fixed >= 0 else (ratio, 0.0)


def _processes(tasks: list[Task]) -> int:
    return len({task["process"] for task in tasks})


def _total(tasks: list[Task], name: str) -> float | None:
    """None where older records do not have it."""
    known = [task[name] for task in tasks if task[name] is not None]
    return float(sum(known)) if known else None


def _order(stage: str) -> tuple[int, str]:
    return STAGES.index(stage_of(stage)), stage


def _checked(task: Mapping[str, Any]) -> Task:
    """A task's record with what older versions did not write filled in; of a stage that is not known, ValueError."""
    if stage_of(str(task["stage"])) not in STEPS:
        raise ValueError(f"no stage {task['stage']!r}")
    written, shuffled = task.get("written_bytes"), task.get("shuffled_bytes")
    return {
        "stage": str(task["stage"]),
        "task": str(task["task"]),
        "at": _number(task.get("at", 0.0)),
        "bytes": _number(task["bytes"]),
        "cpu_seconds": _number(task["cpu_seconds"]),
        "peak_rss_bytes": int(_number(task.get("peak_rss_bytes", 0))),
        "process": int(_number(task.get("process", 0))),
        "entered": {str(unit): _number(count) for unit, count in task.get("entered", {}).items()},
        "out": {str(unit): _number(count) for unit, count in task.get("out", {}).items()},
        "text_bytes": {str(source): _number(size) for source, size in task.get("text_bytes", {}).items()},
        "written_bytes": None if written is None else _number(written),
        "shuffled_bytes": None if shuffled is None else _number(shuffled),
    }


def _number(value: Any) -> float:
    """A finite number of at least zero below 2 ** 63; else ValueError."""
    number = float(value)
    if not 0 <= number < 2**63:
        raise ValueError(f"{value!r} is no count")
    return number


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a corpus's runs/<start>.json") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: give a corpus's runs/<start>.json") from error
    if not isinstance(record, dict):
        raise UserError(f"{path} is not a record of a run: give a corpus's runs/<start>.json")
    return record
