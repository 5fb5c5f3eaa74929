"""How far a stage is, counted from the receipts its tasks leave: works the same on every engine.

In a terminal a live bar with documents a second and the time left; elsewhere a line now and then.
"""

import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

POLL_SECONDS = 0.5
LINE_SECONDS = 15.0
"""how often a log without a terminal gets a line"""


class Progress:
    """Shows progress while a `with` block runs. `done`: tasks taken over from earlier; `waiting`: receipts to come."""

    def __init__(self, stage: str, done: int, waiting: list[Path], terminal: TextIO, quiet: bool) -> None:
        self.stage, self.done, self.waiting = stage, done, set(waiting)
        self.total = done + len(waiting)
        self.terminal, self.quiet = terminal, quiet
        self.records = 0
        self.started = self.said = time.monotonic()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.bar = Bar(
            TextColumn("{task.description:10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(file=terminal),
            transient=True,
            disable=quiet or not terminal.isatty(),
        )

    def __enter__(self) -> "Progress":
        self.task = self.bar.add_task(self.stage, total=self.total, completed=self.done, rate="")
        self.bar.start()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join()
        self._count()
        self.bar.stop()
        if not self.quiet and kind is None:
            seconds = time.monotonic() - self.started
            print(
                f"{self.stage:10} {self.total} parts, {seconds:.1f} s{self._rate(', ')}", file=self.terminal, flush=True
            )

    def _watch(self) -> None:
        while not self.stop.wait(POLL_SECONDS):
            self._count()
            self.bar.update(self.task, completed=self.total - len(self.waiting), rate=self._rate())
            if self.bar.disable and not self.quiet and time.monotonic() - self.said >= LINE_SECONDS:
                self.said = time.monotonic()
                parts = f"{self.total - len(self.waiting)}/{self.total} parts"
                print(f"{self.stage:10} {parts}{self._rate(', ')}{self._left()}", file=self.terminal, flush=True)

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
        seconds = (time.monotonic() - self.started) / ran * len(self.waiting)
        return f", about {seconds:,.0f} s left"
