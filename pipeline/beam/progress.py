"""Progress of a job, counted from the receipts that its tasks leave: works the same on every engine."""

import contextlib
import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

POLL_SECONDS = 0.5
LINE_SECONDS = 15.0  # between the lines of progress in a log, where there is no terminal


class Progress:
    """Progress while a `with` block runs.

    In a terminal it is a live bar with documents per second and the time left; elsewhere a line now and then.
    """

    def __init__(self, step: str, done: int, waiting: list[Path], terminal: TextIO, quiet: bool) -> None:
        """Take the tasks taken over from earlier runs (`done`) and the receipts to come (`waiting`)."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.step, self.done, self.waiting = step, done, set(waiting)
        self.total = done + len(waiting)
        self.terminal, self.quiet = terminal, quiet
        self.records = 0
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
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join()
        self.bar.stop()
        if not self.quiet and kind is None:
            self._count()
            seconds = time.monotonic() - self.started
            self._say(f"{self.total} parts, {seconds:.1f} s{self._rate(', ')}")

    def _say(self, text: str) -> None:
        print(f"{self.step:10} {text}", file=self.terminal, flush=True)

    def _watch(self) -> None:
        while not self.stop.wait(POLL_SECONDS):
            with contextlib.suppress(OSError, ValueError):  # progress may fail where storage does
                self._count()
            done = self.total - len(self.waiting)
            self.bar.update(self.task, completed=done, rate=self._rate())
            if self.bar.disable and not self.quiet and time.monotonic() - self.said >= LINE_SECONDS:
                self.said = time.monotonic()
                self._say(f"{done}/{self.total} parts{self._rate(', ')}{self._left()}")

    def _count(self) -> None:
        for path in [path for path in self.waiting if path.exists()]:
            self.waiting.discard(path)
            tallies = json.loads(path.read_bytes())["tallies"].values()
            self.records += sum(tally["in"].get("records", 0) for tally in tallies)

    def _rate(self, before: str = "") -> str:
        seconds = max(time.monotonic() - self.started, 1e-9)
        return f"{before}{self.records / seconds:,.0f} documents/s" if self.records else ""

    def _left(self) -> str:
        ran = self.total - self.done - len(self.waiting)
        if not ran:
            return ""
        return f", about {(time.monotonic() - self.started) / ran * len(self.waiting):,.0f} s left"
