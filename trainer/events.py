"""What went wrong in a run, by its documents; and which steps it was told to leave out.

`RUN/log.jsonl` is the run's log, one event a line, only ever added to. `RUN/spikes/step-K.json` names the batch of a
step whose loss or gradient norm stood out.
"""

import datetime
import json
from pathlib import Path
from typing import Any

from filters.errors import UserError
from manifests.files import canonical_json, write_atomic
from trainer.data import Corpus
from trainer.step import Told

LOG = "log.jsonl"
FOLDER = "spikes"
MOST_FILES = 100
"""spike files a run writes at most: one that diverges would write one a step"""

Range = tuple[int, int]


def log(run: Path, event: str, **facts: Any) -> None:
    """Add an event to the run's log."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with (run / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": event, "time": now, **facts}, ensure_ascii=False) + "\n")


def events(run: Path, event: str) -> list[dict[str, Any]]:
    """The log's events of one kind; a last line that was cut off is none."""
    found = []
    for line in (run / LOG).read_text(encoding="utf-8").splitlines() if (run / LOG).exists() else ():
        try:
            read = json.loads(line)
        except ValueError:
            continue
        if isinstance(read, dict) and read.get("event") == event:
            found.append(read)
    return found


def left_out(run: Path, asked: list[Range], trained: int, first: bool) -> list[Range]:
    """The ranges of steps (both ends included, counted from 1) to leave out: what was asked for now, which is logged,
    and what the log says was asked for before. `trained`: the steps behind the checkpoint; one of those cannot be left
    out any more. Raises UserError."""
    before = [(int(event["from"]), int(event["to"])) for event in events(run, "skip")]
    for begin, end in asked:
        if (begin, end) in before:
            continue
        if begin <= trained:
            raise UserError(
                f"--skip-steps {begin}:{end}: the checkpoint of step {trained} is already trained on step {begin}; "
                f"remove the checkpoints after step {begin - 1} from {run} to go on without it"
            )
        if first:
            log(run, "skip", **{"from": begin, "to": end})
    return [*before, *asked]


def spike(run: Path, corpus: Corpus, step: int, told: Told, limits: dict[str, float], why: list[str]) -> None:
    """Log a step that stood out, and name its batch: every sequence with its mean loss and documents, the worst first.
    `limits`: what loss and gradient norm might have been at most; `why`: which of them stood out."""
    length = corpus.plan.sequence_length
    facts = {
        "step": step,
        "why": why,
        "skipped": told.skipped,
        "loss": _finite(told.losses.sum() / (len(told.losses) * length)),
        "gradient_norm": _finite(told.norm),
        **{f"{name}_limit": _finite(limit) for name, limit in limits.items()},
    }
    log(run, "spike", **facts)
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step}.json"
    if not path.exists() and len(list(folder.iterdir())) >= MOST_FILES:
        return
    samples = corpus.documents(step - 1)
    rows = [{"loss": _finite(loss / length), **row} for loss, row in zip(told.losses, samples, strict=True)]
    rows.sort(key=lambda row: (row["loss"] is not None, -(row["loss"] or 0.0), row["sample"]))
    write_atomic(path, canonical_json({**facts, "samples": rows}))


def _finite(value: float) -> float | None:
    """JSON has no name for what is not finite."""
    return float(value) if abs(value) < float("inf") else None
