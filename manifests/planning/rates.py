"""Rates measured in runs: CPU seconds, bytes shuffled and written, and memory of each step, from `runs/*.json`.

Rates are computed from the CPU time of tasks, so the start-up of the Beam runner is not scaled with the data. The CPU
time is divided into a part proportional to the data, a fixed part per task, and a part that each process spends once,
such as loading models and compiling functions.
"""

import functools
import itertools
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from filters.errors import UserError
from manifests.mirror import fetch_files
from manifests.stages import SAMPLER, STAGES, STEPS, WorkUnit, kind_of, stage_of

TEXT_COUNTER = "clusters/survivors"  # The step that counts the bytes of kept text.
JOIN = "join/"  # The prefix of the steps that join the rows of a source.
COUNTERS = {  # For each unit of work: the step, the field of its tally, and the unit in this field.
    "stored bytes": ("extract", "entered", "bytes"),
    "extracted characters": ("extract", "out", "characters"),
    "kept characters": ("tokenize/parts", "entered", "characters"),
    "tokens": ("tokenize/parts", "out", "tokens"),
}
WARM_TASKS = 3  # Minimum number of tasks, without the first task of each process, for a fit of start-up and slope.

NO_RECORD = "{} is not a record of a run: give a corpus's runs/<start>.json"
Count = Annotated[float, Field(ge=0, lt=2**63, allow_inf_nan=False)]


class Task(BaseModel):
    """A task in the record of a run. Fields with a default may be missing in records of older versions."""

    stage: str
    task: str
    bytes: Count
    cpu_seconds: Count
    seconds: Count = 0.0
    at: Count = 0.0
    peak_rss_bytes: Count = 0.0
    process: Count = 0.0
    entered: dict[str, Count] = {}
    out: dict[str, Count] = {}
    text_bytes: dict[str, Count] = {}
    records: Count = 0.0
    written_bytes: Count | None = None
    shuffled_bytes: Count | None = None

    @property
    def source(self) -> str:
        """Return the source in the task's name."""
        return self.task.partition("/")[0]

    @property
    def counts_stored(self) -> bool:
        """Return True if `entered` counts stored bytes, as in `extract` and in joins of rows."""
        return self.stage == COUNTERS["stored bytes"][0] or self.stage.startswith(JOIN)


class Job(BaseModel):
    """A job of the engine in the record of a run."""

    job: str = ""
    seconds: Count


class RunRecord(BaseModel):
    """The record of a run, `runs/<start>.json`."""

    tasks: list[Task] = []
    jobs: list[Job] = []
    workers: Count = 1


@dataclass(frozen=True, slots=True)
class Rate:
    """The measured work of one step on one source, or on all sources if `source` is empty.

    Attributes:
        amount: The measured amount of work, in `unit`s.
        tasks: Number of tasks measured.
        per_unit: CPU seconds per unit.
        per_task: CPU seconds per task.
        start_up: CPU seconds per process.
        shuffled: Bytes shuffled in the measured runs; None if not recorded.
        written: Bytes written in the measured runs; None if not recorded.
    """

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
    """The rates of a set of runs.

    Attributes:
        sources: The sources of the measured runs.
        stored_bytes: Stored bytes of the measured runs.
        bytes_per_character: UTF-8 bytes per character of the kept text.
        engine_seconds: Overhead of the Beam runner per job. It is not scaled with the data.
    """

    steps: tuple[Rate, ...]
    sources: tuple[str, ...]
    stored_bytes: float
    bytes_per_character: float
    engine_seconds: float


def find_run_records(corpus: Path) -> list[Path]:
    """Return the paths of the run records of a corpus, including records of killed runs.

    Raises:
        UserError: There are no records.
    """
    paths = fetch_files(corpus, "runs", ".json")
    found = [path for path in paths if path.parent.name == "runs" and path.name.endswith("Z.json")]
    found += [path for path in paths if path.parent.name.endswith(".parts")]
    if not found:
        raise UserError(
            f"{corpus / 'runs'} holds no record of a run: give --rates FILE, the runs/<start>.json of another corpus"
        )
    return found


def read_rates(paths: Iterable[Path]) -> Rates:
    """Return the rates of run records. If a task ran more than once, its last record is used.

    Raises:
        UserError: A file is not a run record.
    """
    tasks: dict[tuple[str, str], Task] = {}
    engine: list[float] = []
    for path in paths:
        record = read_record(path)
        if any(stage_of(task.stage) not in STEPS for task in record.tasks):
            raise UserError(NO_RECORD.format(path))
        tasks |= {(task.stage, task.task): task for task in record.tasks}
        if record.jobs:
            inside = sum(task.seconds for task in record.tasks) / max(1, int(record.workers))
            engine.append(max(0.0, sum(job.seconds for job in record.jobs) - inside) / len(record.jobs))
    return fit_rates(list(tasks.values()), statistics.fmean(engine) if engine else 0.0)


def read_record(path: Path) -> RunRecord:
    """Read the record of a run, or the record of one task of a killed run.

    Raises:
        UserError: The file is not such a record.
    """
    try:
        plain = json.loads(path.read_bytes())
        killed = isinstance(plain, dict) and "task" in plain and "tasks" not in plain
        return RunRecord.model_validate({"tasks": [plain]} if killed else plain)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a corpus's runs/<start>.json") from error
    except (ValueError, RecursionError) as error:
        raise UserError(NO_RECORD.format(path)) from error


def fit_rates(tasks: list[Task], engine_seconds: float = 0.0) -> Rates:
    """Compute the rates of all steps from the records of finished tasks.

    Args:
        tasks: The records.
        engine_seconds: Overhead of the Beam runner per job, which is copied to the result.
    """
    # Tasks are sorted, so that floating-point sums do not depend on the order of the files.
    tasks = sorted(tasks, key=lambda task: (STAGES.index(stage_of(task.stage)), task.stage, task.task))
    sources = sorted({task.source for task in tasks if task.stage == "extract"})
    amount_of = functools.cache(functools.partial(_sum_amount, tasks))
    steps: list[Rate] = []
    for stage, group in itertools.groupby(tasks, key=lambda task: task.stage):
        of_stage, kind = list(group), kind_of(stage)
        joined = stage.split("/")[1] if stage.startswith(JOIN) else ""
        for source in sources if kind.per_source else [joined]:
            mine = [task for task in of_stage if source in ("", task.source)]
            amount = amount_of(kind.unit, source)
            if mine and amount:
                steps.append(_fit_rate(stage, source, mine, amount))
    characters = amount_of("kept characters", "")
    text = sum(sum(task.text_bytes.values()) for task in tasks if task.stage == TEXT_COUNTER)
    stored = sum(task.entered.get("bytes", 0) for task in tasks if task.counts_stored)
    ratio = text / characters if text and characters else 1.0
    return Rates(tuple(steps), tuple(sources), stored, ratio, engine_seconds)


def _sum_amount(tasks: list[Task], unit: WorkUnit, source: str) -> float:
    if unit == "run":
        return 1.0
    if unit == "sample bytes":
        return sum(task.written_bytes or 0.0 for task in tasks if task.stage == SAMPLER)
    counter, side, name = COUNTERS[unit]
    counting = [task for task in tasks if task.stage == counter or (unit == "stored bytes" and task.counts_stored)]
    return float(sum(getattr(task, side).get(name, 0) for task in counting if source in ("", task.source)))


def _fit_rate(stage: str, source: str, tasks: list[Task], amount: float) -> Rate:
    slope, fixed, start_up = _fit(tasks)
    sizes, spent = sum(task.bytes for task in tasks), sum(task.cpu_seconds for task in tasks)
    processes = len({task.process for task in tasks})
    per_unit = slope * sizes / amount if sizes else max(0.0, spent - start_up * processes) / amount
    per_task = fixed if sizes else 0.0
    shuffled, written = (
        sum(known) if (known := [size for size in column if size is not None]) else None
        for column in ([task.shuffled_bytes for task in tasks], [task.written_bytes for task in tasks])
    )
    peak = int(max(task.peak_rss_bytes for task in tasks))
    costs = (amount, len(tasks), spent, per_unit, per_task, start_up)
    return Rate(stage, source, kind_of(stage).unit, *costs, shuffled, written, peak)


def _fit(tasks: list[Task]) -> tuple[float, float, float]:
    """Fit the CPU seconds of tasks of one step: per byte of the task's size, per task, and per process.

    The first two numbers are the slope and the intercept of a line through all tasks except the first task of each
    process. The third is the mean excess of these first tasks over the line. With too few tasks, only the slope is
    fitted.
    """
    first: dict[float, Task] = {}
    for task in sorted(tasks, key=lambda task: (task.at, task.task)):
        first.setdefault(task.process, task)
    warm = [task for task in tasks if task is not first[task.process]]
    if len(warm) < WARM_TASKS:
        return *_fit_line(tasks), 0.0
    slope, fixed = _fit_line(warm)
    above = statistics.fmean(task.cpu_seconds - fixed - slope * task.bytes for task in first.values())
    return slope, fixed, max(0.0, above)


def _fit_line(tasks: list[Task]) -> tuple[float, float]:
    """Return slope and intercept by least squares.

    If one of them is negative or there are too few points, the slope is the ratio of the sums, and the intercept is 0.
    """
    sizes, spent = [task.bytes for task in tasks], [task.cpu_seconds for task in tasks]
    if not sum(sizes):
        return 0.0, statistics.fmean(spent)
    if len(tasks) >= WARM_TASKS:
        try:
            slope, fixed = statistics.linear_regression(sizes, spent)
        except statistics.StatisticsError:  # All sizes are equal.
            slope = fixed = 0.0
        if slope > 0 and fixed >= 0:
            return slope, fixed
    return sum(spent) / sum(sizes), 0.0
