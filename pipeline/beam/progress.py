"""Show the progress of a job as a bar or as lines, report slow tasks, and write the status file of the run.

On the local engine, the counts come from `pipeline.beam.counters`; on other engines, from the receipts of finished
tasks. The names of running tasks come from their marks (`pipeline.beam.marks`). The driver updates the status file, and
`python -m pipeline status` shows it.
"""

import contextlib
import json
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from filters.errors import UserError
from manifests.display import format_bytes, format_quantity
from manifests.files import canonical_json, relative_files, write_atomic
from manifests.ledger import Tally, tally_from
from manifests.manifest import generation_folder
from manifests.mirror import mirror_of, place_of
from manifests.stages import stage_of
from manifests.storage import StorageError
from pipeline.beam.counters import BYTES, DROPPED, RECORDS, TASKS, counts_of
from pipeline.beam.marks import Marks, RunningTask
from pipeline.beam.receipts import RECEIPTS

POLL_SECONDS = 0.5  # shortest pause between two looks at receipts and marks
POLL_SHARE = 0.05  # largest share of the time for looking at receipts and marks
LINE_SECONDS = 15.0  # time between two lines of progress if the output is no terminal
FILE = "status.json"  # in the folder `runs`
WRITE_SECONDS = 2.0  # shortest time between two writes of the status file while a job runs
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
READ_RECEIPTS = 500  # a job with more unfinished tasks is large: its receipts are only counted, not read
TITLE = 26  # most characters in the title of a bar, so that the bar fits into 80 columns
SHOWN = 3  # most running tasks, and most reasons, that are shown
AND = " + "  # separator of the names of steps that share a job

Poll = Callable[[], Counter[str]]


class ReceiptCounts:
    """The counts of the receipts that have appeared in their folders since the job began.

    The receipts of a small job are read, each once. For a large job, only the number of tasks is counted, because
    reading the receipts would take more of the driver's time than all its other work.
    """

    def __init__(self, corpus: Path, steps: Iterable[str], waiting: int) -> None:
        """List the receipts that exist before the job begins.

        Args:
            corpus: the corpus's folder.
            steps: names of the steps that have tasks to run.
            waiting: number of tasks to run.
        """
        self.corpus, self.is_small = corpus, waiting <= READ_RECEIPTS
        self.older = {step: self._list(step) for step in steps}  # includes stale receipts, for example of other recipes
        self.counts = Counter[str]()

    def __call__(self) -> Counter[str]:
        """Return the counts so far. Raises OSError, ValueError or StorageError."""
        appeared = {step: self._list(step) - older for step, older in self.older.items()}
        if not self.is_small:
            return Counter({TASKS: sum(map(len, appeared.values()))})
        for step, names in appeared.items():
            for name in names:
                self.counts.update(self._read(step, name[0]))
                self.older[step].add(name)
        return self.counts

    def _list(self, step: str) -> set[tuple[str, int]]:
        """Return (name, time of change) of a step's receipt files. On this machine's disk, the time is given as 0."""
        mirror, folder = mirror_of(self.corpus), f"{RECEIPTS}/{step}"
        if mirror is None:
            return {(name, 0) for name in relative_files(self.corpus / folder)}
        return {(entry.path[len(folder) + 1 :], entry.changed) for entry in mirror.storage.list_files(folder)}

    def _read(self, step: str, name: str) -> Counter[str]:
        path, mirror = f"{RECEIPTS}/{step}/{name}", mirror_of(self.corpus)
        stored = mirror.storage.read(path) if mirror is not None else (self.corpus / path).read_bytes()
        return counts_of({source: tally_from(tally) for source, tally in json.loads(stored)["tallies"].items()})


class RunStatus:
    """The status of this process's run. It is written to the file `place`, if `open` has set one."""

    def __init__(self) -> None:
        self.place: Path | None = None
        self.written = 0.0  # time of the last write
        self.steps: dict[str, dict[str, Any]] = {}  # from step name to its values, in the order of the run
        self.ended: dict[str, dict[str, Counter[str]]] = {}  # counts of finished steps by name and first task's name
        self.plain: dict[str, Any] = {}  # the other values of the file

    def open(self, place: Path) -> None:
        """Begin a run. `place` is the path of its status file."""
        self.place, self.steps, self.ended = place, {}, {}
        self.plain = {"state": RUNNING, "started": time.time(), "manifest": ""}
        self._write()

    def begin(self, step: str, done: int, total: int) -> None:
        """Begin a job.

        Args:
            step: the names of the job's steps, joined by `AND`.
            done: number of finished tasks.
            total: number of all tasks.
        """
        self.plain |= {"step": step, "running": [], "slow": []}
        self.steps[step] = {"done": done, "total": total, "began": time.time(), "seconds": 0.0, "counts": {}}
        self._write()

    def update(
        self, done: int, counts: Mapping[str, int], running: Sequence[RunningTask], slow: Sequence[RunningTask]
    ) -> None:
        """Record the progress of the job.

        Args:
            done: number of finished tasks, including tasks of earlier runs.
            counts: the counts of the tasks that this run has finished.
            running: the running tasks.
            slow: the running tasks that take far longer than other tasks.
        """
        step = self.steps[self.plain["step"]]
        step |= {"done": done, "counts": dict(counts), "seconds": time.time() - step["began"]}
        self.plain |= {"running": [asdict(one) for one in running[:SHOWN]], "slow": [asdict(one) for one in slow]}
        if time.monotonic() - self.written >= WRITE_SECONDS:
            self._write()

    def end_job(self) -> None:
        """End the current job, if there is one. Each of its steps is recorded with the time of the whole job."""
        if title := self.plain.get("step"):
            job = self.steps.pop(title)
            job["seconds"] = time.time() - job["began"]
            self.steps |= {name: dict(job) for name in title.split(AND)}
            self.plain |= {"step": "", "running": [], "slow": []}

    def end_step(self, name: str, first: str, tasks: int, whole: Tally) -> None:
        """Record the counts of a finished step, including tasks of earlier runs.

        Args:
            name: name of the step. Several steps can have the same name: each way to make documents from a source is
                a step `extract`.
            first: name of the step's first task, which distinguishes steps with the same name.
            tasks: number of tasks.
            whole: the sum of the tasks' tallies.
        """
        ended = self.ended.setdefault(name, {})
        ended[first] = Counter({**counts_of({"": whole}), TASKS: tasks})
        counts = sum(ended.values(), Counter[str]())
        step = self.steps.setdefault(name, {"began": time.time(), "seconds": 0.0})
        step |= {"done": counts[TASKS], "total": counts[TASKS], "counts": dict(counts)}

    def end_corpus(self, manifest_sha: str) -> None:
        """Record the hash of the manifest of the finished corpus."""
        self.plain["manifest"] = manifest_sha

    def close(self, error: BaseException | None) -> None:
        """End the run and write its final state.

        Args:
            error: None if the run finished; KeyboardInterrupt if it was stopped from the keyboard or by `kill`; else
                the error with which it failed.
        """
        state = FINISHED if error is None else STOPPED if isinstance(error, KeyboardInterrupt) else FAILED
        said = f"{type(error).__name__}: {error}".strip(": ").splitlines() if error is not None else []
        self.plain |= {"state": state, "error": said[0] if said else ""}
        self._write()

    def _write(self) -> None:
        if self.place is not None:
            self.written = time.monotonic()
            try:
                steps = [{"name": name, **step} for name, step in self.steps.items() if step["total"]]
                write_atomic(self.place, canonical_json({**self.plain, "steps": steps, "updated": time.time()}))
            except OSError:  # a run must not fail because of its status, and its own errors must stay visible
                return


class Progress:
    """A context manager that shows progress while its `with` block runs a job.

    In a terminal, it shows a bar with records per second and the remaining time. Otherwise it prints a line every
    `LINE_SECONDS`.
    """

    def __init__(
        self, step: str, done: int, waiting: int, poll: Poll, marks: Marks, status: RunStatus, terminal: TextIO,
        quiet: bool,
    ) -> None:  # fmt: skip
        """Prepare the bar and the thread that updates it.

        Args:
            step: the names of the job's steps, joined by `AND`.
            done: number of tasks that earlier runs have finished.
            waiting: number of tasks to run.
            poll: returns the counts of the tasks that this run has finished so far.
            marks: the marks of running tasks.
            status: the status of the run, which is also updated.
            terminal: the stream for bars and lines.
            quiet: write nothing.
        """
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.step, self.done, self.total, self.poll = step, done, done + waiting, poll
        self.marks, self.status, self.terminal, self.quiet = marks, status, terminal, quiet
        self.counts = Counter[str]()
        self.started = self.said = time.monotonic()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        rate = TextColumn("{task.fields[rate]}")
        title = TextColumn("{task.description:10}")
        columns = (title, BarColumn(20), MofNCompleteColumn(), rate, TimeRemainingColumn())
        hidden = quiet or not terminal.isatty()
        self.bar = Bar(*columns, console=Console(file=terminal), transient=True, disable=hidden)

    def __enter__(self) -> "Progress":
        stages = AND.join(dict.fromkeys(stage_of(name) for name in self.step.split(AND)))
        title = textwrap.shorten(stages, TITLE, placeholder=" …")
        self.task = self.bar.add_task(title, total=self.total, completed=self.done, rate="")
        self.bar.start()
        self.status.begin(self.step, self.done, self.total)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join()
        self.bar.stop()
        if kind is not None:
            return
        # For a large job, the counts would only be a number of tasks, for which all receipts would have to be listed.
        if not isinstance(self.poll, ReceiptCounts) or self.poll.is_small:
            with contextlib.suppress(OSError, ValueError, StorageError):
                self.counts = self.poll()
        self.status.update(self.total, self.counts, [], [])
        if not self.quiet:
            seconds = time.monotonic() - self.started
            self._say(f"{format_quantity(self.total, 'tasks')}, {seconds:.1f} s{self._rate(', ')}")

    def _say(self, text: str) -> None:
        print(f"{self.step:10} {text}", file=self.terminal, flush=True)

    def _watch(self) -> None:
        """Update the bar, the lines and the status until the job ends. This runs in a thread."""
        pause = POLL_SECONDS
        while not self.stop.wait(pause):
            began = time.monotonic()
            with contextlib.suppress(OSError, ValueError, StorageError):  # a job must not fail because of its progress
                self.counts = self.poll()
                self.marks.poll()
            pause = max(POLL_SECONDS, (time.monotonic() - began) / POLL_SHARE)
            done, slow = self.done + self.counts[TASKS], self.marks.slow()
            self.status.update(done, self.counts, self.marks.running(), slow)
            self.bar.update(self.task, completed=done, rate=self._rate() + _slow(slow[:1]))
            if self.bar.disable and not self.quiet and time.monotonic() - self.said >= LINE_SECONDS:
                self.said = time.monotonic()
                self._say(f"{done}/{self.total} tasks{self._rate(', ')}{self._left(done)}{_slow(slow)}")

    def _rate(self, before: str = "") -> str:
        """Return the records per second as text after `before`, or "" if no records were counted."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        return f"{before}{self.counts[RECORDS] / seconds:,.0f} records/s" if self.counts[RECORDS] else ""

    def _left(self, done: int) -> str:
        """Return the estimated remaining time as text, or "" if no task of this run has finished."""
        ran = done - self.done
        if not ran:
            return ""
        return f", about {(time.monotonic() - self.started) / ran * (self.total - done):,.0f} s left"


def _slow(tasks: list[RunningTask]) -> str:
    """Return the end of a progress line, which names the slow tasks."""
    return "".join(f"; {one.name} runs for {one.seconds:,.0f} s, far longer than others" for one in tasks)


def read_status(corpus: Path) -> dict[str, Any]:
    """Read the status of the last run or `append` of a corpus.

    Raises:
        UserError: no run has begun, or the status cannot be read.
    """
    first = corpus / "runs" / FILE
    appended = generation_folder(corpus, 1).parent.glob(f"*/runs/{FILE}")
    # A corpus with appended generations is not run again, so its newest status is that of an append.
    path = max(appended, key=lambda one: one.stat().st_mtime_ns, default=first)
    try:
        plain: dict[str, Any] = json.loads(path.read_bytes())
        if not {"state", "started", "steps", "updated"} <= plain.keys():
            raise ValueError("it is no status")
        return plain
    except FileNotFoundError:
        raise UserError(f"{corpus} has no {path.relative_to(corpus)}: no run has begun there") from None
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}): try again") from error


def status_text(corpus: Path, plain: Mapping[str, Any], is_held: bool) -> str:
    """Return a status as readable text. `is_held`: a running process holds the corpus's lock."""
    now = time.time()
    state = plain["state"]
    if state == RUNNING and not is_held:
        state = "was killed, or ended without a message: give the same command again, which continues"
    elif state == RUNNING:
        state = f"running for {now - plain['started']:,.0f} s, last heard of {now - plain['updated']:,.0f} s ago"
    elif state == STOPPED:
        state = "stopped: give the same command again, which continues"
    elif state == FAILED:
        state = f"failed ({plain['error']})"
    lines = [f"{place_of(corpus)}: {state}"]
    width = max((len(step["name"]) for step in plain["steps"]), default=0)
    for step in plain["steps"]:
        tasks, seconds = f"{step['done']}/{step['total']} tasks", f"{step['seconds']:,.0f} s"
        lines.append(f"{step['name']:{width}}  {tasks}  {seconds}{_counted(step)}")
    if plain["state"] == RUNNING:
        slow = {one["name"] for one in plain.get("slow", ())}
        for one in plain.get("running", ()):
            far = ", far longer than others" if one["name"] in slow else ""
            lines.append(f"{plain['step']}: {one['name']} runs for {one['seconds']:,.0f} s{far}")
    return "\n".join(lines)


def _counted(step: Mapping[str, Any]) -> str:
    """Return the counts of a step in the status as text."""
    counts = step["counts"]
    dropped = Counter({name.removeprefix(DROPPED): n for name, n in counts.items() if name.startswith(DROPPED)})
    text = f"  {counts[RECORDS]:,} records" if counts.get(RECORDS) else ""
    text += f", {format_bytes(counts[BYTES])}" if counts.get(BYTES) else ""
    if dropped:
        shown = ", ".join(f"{name} {count:,}" for name, count in dropped.most_common(SHOWN))
        more = f", and {len(dropped) - SHOWN} other reasons" if len(dropped) > SHOWN else ""
        text += f", {dropped.total():,} dropped: {shown}{more}"
    return text
