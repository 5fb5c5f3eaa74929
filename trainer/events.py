"""Read and write the records of a run: its log, its tables, its spikes, and the documents of a step.

`RUN/log.jsonl` contains one event per line and is only appended to. `RUN/spikes/step-K.json` describes the batch of a
step whose loss or gradient norm was an outlier. `RUN/run.json` contains the plan, by which the documents of a step are
found.
"""

import contextlib
import datetime
import fcntl
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from filters.errors import UserError
from manifests.files import canonical_json, write_atomic
from manifests.manifest import Manifest, load_manifest
from manifests.order import plan_from
from trainer.data import BatchReader

if TYPE_CHECKING:
    from trainer.step import StepMetrics

LOG = "log.jsonl"
VALIDATION, EVALUATION = "validation.csv", "evaluation.csv"  # files in a run's folder: held-out losses, task scores
FOLDER = "spikes"
SPIKE_FILES = 100  # Maximum number of files in RUN/spikes. A diverging run would otherwise write a file for every step.

Range = tuple[int, int]  # (first step, last step), counted from 1, both included


@contextlib.contextmanager
def lock_run(run: Path) -> Iterator[str]:
    """Create a run's folder and lock it, so that no second command trains the same run.

    The lock is released when the context exits or the process ends. On a file system without locks, as on some
    clusters, nothing is locked and no error is reported.

    Yields:
        The reason why the folder cannot be locked, or "".
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOG).open("a", encoding="utf-8") as file:
        refusal = ""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refusal = f"another command is training {run}: wait for it, or give another --output"
        except OSError:
            pass
        yield refusal


def log(run: Path, event: str, **facts: Any) -> None:
    """Append an event to the run's log."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with open_for_append(run / LOG) as file:
        file.write(json.dumps({"event": event, "time": now, **facts}, ensure_ascii=False) + "\n")


def open_for_append(path: Path) -> TextIO:
    """Open a text file to append lines. If its last line has no newline, a newline is written first."""
    file = path.open("a+", encoding="utf-8")
    if file.tell():
        with path.open("rb") as before:
            before.seek(-1, os.SEEK_END)
            if before.read() != b"\n":
                file.write("\n")
    return file


def read_events(run: Path, event: str) -> list[dict[str, Any]]:
    """Return the events of one kind from the run's log."""
    return [one for one in read_lines(run / LOG) if one.get("event") == event]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file. Truncated lines are ignored. A missing file has no objects."""
    # The file is read as bytes, because a truncated line may end inside a UTF-8 character.
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError):
            one = json.loads(line)
            if isinstance(one, dict):
                yield one


def read_rows(path: Path) -> list[str]:
    """Return the lines of a CSV file with its header first, or [] if the file does not exist.

    A last line without a newline is left out. A kill or a full disk has truncated it, perhaps inside its first number.
    """
    return path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if path.exists() else []


def write_rows(path: Path, trained: int, head: str = "", rows: Sequence[str] = ()) -> None:
    """Rewrite a CSV file: keep its rows up to the step `trained`, and append new rows.

    After a run is resumed, this ensures that no step has two rows and that no row is truncated.

    Args:
        path: The file. Its first column is the step.
        trained: The last step whose rows are kept.
        head: The header line, or "" to keep the header of the file. With "", a missing file is not created.
        rows: Lines to append.
    """
    before = read_rows(path)
    steps = (line.partition(",")[0] for line in before)
    kept = [line for line, step in zip(before, steps, strict=True) if step.isdigit() and int(step) <= trained]
    if head or before:
        write_atomic(path, ("\n".join([head or before[0], *kept, *rows]) + "\n").encode(), durable=True)


def has_rows(path: Path, step: int) -> bool:
    """Return True if a CSV file has a row whose first column is `step`."""
    return any(line.startswith(f"{step},") for line in read_rows(path))


def resolve_skips(run: Path, requested: list[Range], trained: int, is_first: bool) -> list[Range]:
    """Return the ranges of steps to skip: those requested now, which are logged, and those logged before.

    Args:
        run: The run's folder.
        requested: Ranges requested now.
        trained: The step of the checkpoint. Steps up to it can no longer be skipped.
        is_first: True for the rank that writes the log.

    Raises:
        UserError: A requested range begins at a step that is already trained.
    """
    before = [(int(event["from"]), int(event["to"])) for event in read_events(run, "skip")]
    for begin, end in requested:
        if (begin, end) in before:
            continue
        if begin <= trained:
            raise UserError(
                f"--skip-steps {begin}:{end}: the checkpoint of step {trained} is already trained on step {begin}; "
                f"remove the checkpoints after step {begin - 1} from {run} to resume without it"
            )
        if is_first:
            log(run, "skip", **{"from": begin, "to": end})
    return [*before, *requested]


def record_spike(
    run: Path, reader: BatchReader, step: int, metrics: "StepMetrics", loss_limit: float, causes: list[str]
) -> None:
    """Log a step with an outlier, and write its sequences to RUN/spikes/step-K.json.

    Each sequence is written with its mean loss and its documents, the sequence with the highest loss first.

    Args:
        run: The run's folder.
        reader: Reader of the run's batches.
        step: The step, counted from 1.
        metrics: The step's metrics.
        loss_limit: The largest loss that would not have been an outlier.
        causes: Names of the values that were outliers.
    """
    length = reader.plan.sequence_length
    facts = {
        "step": step,
        "why": causes,
        "skipped": metrics.skipped,
        "loss": _finite(metrics.losses.sum() / (len(metrics.losses) * length)),
        "gradient_norm": _finite(metrics.norm),
        "loss_limit": _finite(loss_limit),
    }
    log(run, "spike", **facts)
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step}.json"
    if not path.exists() and len(list(folder.iterdir())) >= SPIKE_FILES:
        return
    samples = zip(metrics.losses, reader.trace(step - 1), strict=True)
    rows = [{"loss": _finite(loss / length), **sample} for loss, sample in samples]
    rows.sort(key=lambda row: (row["loss"] is not None, -(row["loss"] or 0.0), row["sample"]))
    write_atomic(path, canonical_json({**facts, "samples": rows}))


def _finite(value: float) -> float | None:
    """Return the value, or None if it is not finite, because JSON cannot represent it."""
    return float(value) if math.isfinite(value) else None


def read_run(run: Path) -> dict[str, Any]:
    """Read a run's `run.json`, or raise UserError."""
    try:
        return dict(json.loads((run / "run.json").read_bytes()))
    except (OSError, ValueError) as error:
        raise UserError(f"{run} holds no run: give the --output folder of `python -m trainer train`") from error


def find_corpus(run: Path, manifest_sha: str, moved_to: Path | None) -> tuple[Path, Manifest]:
    """Return the folder and the manifest of a run's corpus.

    Args:
        run: The run's folder.
        manifest_sha: Hash of the corpus's manifest.
        moved_to: The corpus's folder, or None to use the folder that `run.json` names.

    Raises:
        UserError: The folder contains another corpus.
    """
    folder = moved_to or Path(read_run(run)["corpus"])
    manifest = load_manifest(folder)
    if manifest.manifest_sha != manifest_sha:
        raise UserError(f"{folder} is not the corpus that {run} was trained on: give --corpus, or put it back")
    return folder, manifest


def trace_step(run: Path, step: int, corpus: Path | None) -> list[dict[str, Any]]:
    """Return the samples of a step with their documents.

    Args:
        run: The run's folder.
        step: The step, counted from 1 as in metrics.csv.
        corpus: The corpus's folder, if it was moved.

    Raises:
        UserError: The run or the step does not exist, or the folder contains another corpus.
    """
    plan = plan_from(read_run(run)["plan"])
    folder, _ = find_corpus(run, plan.manifest_sha, corpus)
    if step > plan.steps:
        raise UserError(f"{run} has {plan.steps} steps: give --step 1 to {plan.steps}")
    return BatchReader(folder, plan).trace(step - 1)
