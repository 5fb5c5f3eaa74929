"""Progress of a job: a bar or lines for people, the tasks that take far longer than others, and the run's status file.

Counts come from the local engine's own (`pipeline.beam.counters`) or, on other engines, from the receipts that tasks
leave; the tasks at work from the marks that last as long as they do.
"""

import contextlib
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TextIO

from manifests.ledger import tally_from
from pipeline.beam.counters import RECORDS, TASKS, counts_of
from pipeline.beam.status import RunStatus

POLL_SECONDS = 0.5
POLL_SHARE = 0.05  # of the time that may go into looking for receipts and marks
LINE_SECONDS = 15.0  # between the lines of progress in a log, where there is no terminal
SLOW_SECONDS = 60.0  # a task is slow from here on, if it also takes
SLOW_TIMES = 10  # times as long as the median of the others

Poll = Callable[[], Counter[str]]


class ReceiptCounts:
    """The counts of the receipts that have appeared, each read once."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.waiting, self.counts = set(paths), Counter[str]()

    def __call__(self) -> Counter[str]:
        """Return the counts so far. Raises OSError or ValueError."""
        for path in [path for path in self.waiting if path.exists()]:
            tallies = json.loads(path.read_bytes())["tallies"]
            self.waiting.discard(path)
            self.counts.update(counts_of({source: tally_from(tally) for source, tally in tallies.items()}))
        return self.counts


@dataclass(frozen=True)
class RunningTask:
    """A task at work, by its mark, and how long it has been seen there by this process's clock."""

    name: str
    seconds: float


class Marks:
    """The marks of tasks at work in a folder, and how long those stayed that have gone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[str, tuple[str, float]] = {}  # by file: task, first seen
        self.durations: list[float] = []

    def poll(self) -> None:
        """Look at the folder. Raises OSError or ValueError."""
        now, present = time.monotonic(), {path.name for path in self.folder.glob("*.json")}
        for name in self.seen.keys() - present:
            self.durations.append(now - self.seen.pop(name)[1])
        for name in present - self.seen.keys():
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                self.seen[name] = json.loads((self.folder / name).read_bytes())["task"], now

    def running(self) -> list[RunningTask]:
        """Return the tasks at work, the longest first."""
        now = time.monotonic()
        found = [RunningTask(task, now - since) for task, since in self.seen.values()]
        return sorted(found, key=lambda one: -one.seconds)

    def slow(self) -> list[RunningTask]:
        """Return the tasks at work that take far longer than others did, the longest first."""
        typical = statistics.median(self.durations) if self.durations else 0.0
        return [one for one in self.running() if one.seconds > max(SLOW_SECONDS, SLOW_TIMES * typical)]


class Progress:
    """Progress while a `with` block runs.

    In a terminal it is a live bar with documents per second and the time left; elsewhere a line now and then.
    """

    def __init__(
        self, step: str, done: int, waiting: int, poll: Poll, marks: Path, status: RunStatus, terminal: TextIO,
        quiet: bool,
    ) -> None:  # fmt: skip
        """Begin with the tasks taken over from earlier runs and those to come.

        Args:
            step: the job's first step.
            done: tasks taken over.
            waiting: tasks to come.
            poll: returns the counts of those that are finished so far.
            marks: the folder with marks of tasks at work.
            status: gets all that people see, and more.
            terminal: where to write.
            quiet: write nothing.
        """
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.step, self.done, self.total, self.poll = step, done, done + waiting, poll
        self.marks, self.status, self.terminal, self.quiet = Marks(marks), status, terminal, quiet
        self.counts = Counter[str]()
        self.started = self.said = time.monotonic()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        rate = TextColumn("{task.fields[rate]}")
        columns = (TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        hidden = quiet or not terminal.isatty()
        self.bar = Bar(*columns, console=Console(file=terminal), transient=True, disable=hidden)

    def __enter__(self) -> "Progress":
        self.task = self.bar.add_task(self.step, total=self.total, completed=self.done, rate="")
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
        with contextlib.suppress(OSError, ValueError):
            self.counts = self.poll()
        self.status.update(self.total, self.counts, [], [])
        if not self.quiet:
            seconds = time.monotonic() - self.started
            self._say(f"{self.total} parts, {seconds:.1f} s{self._rate(', ')}")

    def _say(self, text: str) -> None:
        print(f"{self.step:10} {text}", file=self.terminal, flush=True)

    def _watch(self) -> None:
        pause = POLL_SECONDS
        while not self.stop.wait(pause):
            began = time.monotonic()
            with contextlib.suppress(OSError, ValueError):  # progress may fail where storage does
                self.counts = self.poll()
                self.marks.poll()
            pause = max(POLL_SECONDS, (time.monotonic() - began) / POLL_SHARE)
            done, slow = self.done + self.counts[TASKS], self.marks.slow()
            self.status.update(done, self.counts, self.marks.running(), slow)
            self.bar.update(self.task, completed=done, rate=self._rate() + _slow(slow[:1]))
            if self.bar.disable and not self.quiet and time.monotonic() - self.said >= LINE_SECONDS:
                self.said = time.monotonic()
                self._say(f"{done}/{self.total} parts{self._rate(', ')}{self._left(done)}{_slow(slow)}")

    def _rate(self, before: str = "") -> str:
        seconds = max(time.monotonic() - self.started, 1e-9)
        return f"{before}{self.counts[RECORDS] / seconds:,.0f} documents/s" if self.counts[RECORDS] else ""

    def _left(self, done: int) -> str:
        ran = done - self.done
        if not ran:
            return ""
        return f", about {(time.monotonic() - self.started) / ran * (self.total - done):,.0f} s left"


def _slow(tasks: list[RunningTask]) -> str:
    return "".join(f"; {one.name} runs for {one.seconds:,.0f} s, far longer than others" for one in tasks)
