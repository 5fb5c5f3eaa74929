"""The status of a run: a small file that the driver keeps up to date, and how `python -m pipeline status` shows it."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import UserError
from manifests.display import format_bytes
from manifests.files import canonical_json, write_atomic
from manifests.ledger import Tally
from manifests.mirror import place_of
from pipeline.beam.counters import BYTES, DROPPED, RECORDS, counts_of

if TYPE_CHECKING:
    from pipeline.beam.progress import RunningTask

FILE = "status.json"  # below runs/
WRITE_SECONDS = 2.0  # at least, between two writes while a job runs
RUNNING, FINISHED, FAILED = "running", "finished", "failed"
SHOWN = 3  # tasks at work, and reasons


class RunStatus:
    """The status of the run of this process, written to `place` as soon as that is set."""

    def __init__(self) -> None:
        self.place: Path | None = None
        self.written = 0.0
        self.steps: dict[str, dict[str, Any]] = {}  # by name, in the order of the run
        self.plain: dict[str, Any] = {}

    def open(self, place: Path) -> None:
        """Begin a run, whose status is kept in a file."""
        self.place, self.steps = place, {}
        self.plain = {"state": RUNNING, "started": time.time()}
        self._write()

    def begin(self, step: str, done: int, total: int) -> None:
        """Begin a job."""
        self.plain |= {"step": step, "running": [], "slow": []}
        self.steps[step] = {"done": done, "total": total, "began": time.time(), "seconds": 0.0, "counts": {}}
        self._write()

    def update(
        self, done: int, counts: Mapping[str, int], running: Sequence["RunningTask"], slow: Sequence["RunningTask"]
    ) -> None:
        """Take the job's tasks done, the counts of those of this run, the tasks at work, and the slow ones of them."""
        step = self.steps[self.plain["step"]]
        step |= {"done": done, "counts": dict(counts), "seconds": time.time() - step["began"]}
        self.plain |= {"running": [asdict(one) for one in running[:SHOWN]], "slow": [asdict(one) for one in slow]}
        if time.monotonic() - self.written >= WRITE_SECONDS:
            self._write()

    def end_step(self, name: str, tallies: Iterable[Mapping[str, Tally]]) -> None:
        """Take the tallies of all tasks of a finished step, also of those taken over from earlier runs."""
        whole, tasks = Tally(), 0
        for one in tallies:
            tasks += 1
            for tally in one.values():
                whole.add(tally)
        counts = counts_of({"": whole})
        step = self.steps.setdefault(name, {"began": time.time(), "seconds": 0.0})
        step |= {"done": tasks, "total": tasks, "counts": dict(counts)}
        if self.plain.get("step") == name:
            step["seconds"] = time.time() - step["began"]
            self.plain |= {"step": "", "running": [], "slow": []}

    def close(self, error: BaseException | None) -> None:
        """End the run: finished, or failed by an error."""
        said = f"{type(error).__name__}: {error}".strip(": ").splitlines() if error is not None else []
        self.plain |= {"state": FAILED if error is not None else FINISHED, "error": said[0] if said else ""}
        self._write()

    def _write(self) -> None:
        if self.place is not None:
            self.written = time.monotonic()
            try:
                steps = [{"name": name, **step} for name, step in self.steps.items() if step["total"]]
                write_atomic(self.place, canonical_json({**self.plain, "steps": steps, "updated": time.time()}))
            except OSError:  # a status is no reason to fail, or to hide one
                return


def read_status(corpus: Path) -> dict[str, Any]:
    """Return the status that the last run on a corpus left. Raises UserError if there is none."""
    path = corpus / "runs" / FILE
    try:
        plain: dict[str, Any] = json.loads(path.read_bytes())
        return plain
    except FileNotFoundError:
        raise UserError(f"{corpus} has no {path.relative_to(corpus)}: no run has begun there") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): try again") from error


def status_text(corpus: Path, plain: Mapping[str, Any], is_held: bool) -> str:
    """Return a status for people. `is_held`: a process holds the corpus."""
    now = time.time()
    state = plain["state"]
    if state == RUNNING and not is_held:
        state = "ended without a word: give the same command again, which continues"
    elif state == RUNNING:
        state = f"running for {now - plain['started']:,.0f} s, last heard of {now - plain['updated']:,.0f} s ago"
    elif state == FAILED:
        state = f"failed ({plain['error']})"
    lines = [f"{place_of(corpus)}: {state}"]
    width = max((len(step["name"]) for step in plain["steps"]), default=0)
    for step in plain["steps"]:
        parts, seconds = f"{step['done']}/{step['total']} parts", f"{step['seconds']:,.0f} s"
        lines.append(f"{step['name']:{width}}  {parts}  {seconds}{_counted(step)}")
    if plain["state"] == RUNNING:
        slow = {one["name"] for one in plain.get("slow", ())}
        for one in plain.get("running", ()):
            far = ", far longer than others" if one["name"] in slow else ""
            lines.append(f"{plain['step']}: {one['name']} runs for {one['seconds']:,.0f} s{far}")
    return "\n".join(lines)


def _counted(step: Mapping[str, Any]) -> str:
    counts = step["counts"]
    dropped = Counter({name.removeprefix(DROPPED): n for name, n in counts.items() if name.startswith(DROPPED)})
    text = f"  {counts[RECORDS]:,} records" if counts.get(RECORDS) else ""
    text += f", {format_bytes(counts[BYTES])}" if counts.get(BYTES) else ""
    if dropped:
        shown = ", ".join(f"{name} {count:,}" for name, count in dropped.most_common(SHOWN))
        more = f", and {len(dropped) - SHOWN} other reasons" if len(dropped) > SHOWN else ""
        text += f", {dropped.total():,} dropped: {shown}{more}"
    return text
