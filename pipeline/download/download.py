"""A list of URLs in, files below a folder out: a few at a time, whole or absent, resumable (`pipeline/download/http.py`)."""

import concurrent.futures
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from filters.errors import UserError
from pipeline.download.http import Outcome, Session, State, Transfer, Wanted, fetch
from pipeline.download.request import Patience

PARALLEL = 4
POLL_SECONDS = 0.5
LINE_SECONDS = 15.0
"""how often a log without a terminal gets a line"""
NAME_BYTES = 200
"""the longest name in a target: file systems allow 255, and `.part.json` comes on top"""


def download(
    wanted: Sequence[Wanted],
    folder: Path,
    patience: Patience | None = None,
    parallel: int = PARALLEL,
    terminal: TextIO | None = None,
) -> list[Outcome]:
    """Fetch every URL to its target below `folder`; what became of each, in the order given.

    Progress and waits are told to `terminal` (None: to nobody). An interruption (KeyboardInterrupt) leaves partial
    files that the next call goes on with. Raises UserError for a target that does not lie below the folder, for two
    URLs of one target, and for a folder that cannot be written.
    """
    for item in wanted:
        check_target(item.target)
    twice = [target for target, count in Counter(item.target for item in wanted).items() if count > 1]
    if twice:
        raise UserError(f"two URLs would both become {twice[0]!r}: give them different names")
    _check_writable(folder)
    transfers = [Transfer(item) for item in wanted]
    with _Watch(transfers, terminal) as watch:
        session = Session(patience or Patience(), watch.say)
        pool = concurrent.futures.ThreadPoolExecutor(parallel)
        try:
            futures = [pool.submit(_fetch, transfer, folder, session, watch) for transfer in transfers]
            return [future.result() for future in futures]
        finally:
            session.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)  # a silent connection must not hold up an interruption


def report(outcomes: Sequence[Outcome]) -> str:
    """How many files there are now, then each that is missing with its reason."""
    counts = Counter(outcome.state for outcome in outcomes)
    lines = [f"{len(outcomes)} files: " + ", ".join(f"{counts[state]:,} {state}" for state in State if counts[state])]
    lines += [f"  {item.wanted.target}: {item.reason}" for item in outcomes if item.state is State.FAILED]
    return "\n".join(lines)


def check_target(target: str) -> None:
    """Raise UserError unless `target` is a relative path that stays below the folder it is joined to, on any system,
    and is no name of a partial file."""
    parts = target.split("/")
    if not target.isprintable() or "\\" in target or any(part in ("", ".", "..") for part in parts):
        raise UserError(f"{target!r} is no path below the output folder: only plain names joined by / are taken")
    if any(len(part.encode("utf-8", "surrogatepass")) > NAME_BYTES for part in parts):
        raise UserError(f"{target[:40]!r}… has a name of more than {NAME_BYTES} bytes: give it a shorter one")
    if target.endswith((".part", ".part.json")):
        raise UserError(f"{target!r} has the name of a partial file: give it another one")


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): give another --output") from error


def _fetch(transfer: Transfer, folder: Path, session: Session, watch: "_Watch") -> Outcome:
    outcome = fetch(transfer, folder, session)
    watch.ended(transfer, outcome)
    return outcome


class _Watch:
    """Shows progress while a `with` block runs: a bar in a terminal, elsewhere a line now and then."""

    def __init__(self, transfers: list[Transfer], terminal: TextIO | None) -> None:
        self.transfers = transfers
        self.over: set[str] = set()
        self.started = self.said = time.monotonic()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.console = Console(file=terminal, quiet=terminal is None)
        shown = terminal is not None and terminal.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"))
        self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True, disable=not shown)

    def __enter__(self) -> "_Watch":
        self.task = self.bar.add_task("", total=len(self.transfers), rate="")
        self.bar.start()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join()
        self.bar.stop()

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def ended(self, transfer: Transfer, outcome: Outcome) -> None:
        """Count a file as done with, whatever became of it."""
        self.over.add(transfer.wanted.target)
        if outcome.state is State.PRESENT:
            self.say(f"{transfer.wanted.target}: already there")

    def _run(self) -> None:
        while not self.stop.wait(POLL_SECONDS):
            seconds = time.monotonic() - self.started
            received = sum(transfer.received for transfer in self.transfers)
            files = f"{len(self.over)}/{len(self.transfers)} files"
            rate = f"{received / 1e6:,.1f} MB, {received / 1e6 / seconds:,.1f} MB/s"
            self.bar.update(self.task, completed=self._done(), description=files, rate=rate)
            if self.bar.disable and time.monotonic() - self.said >= LINE_SECONDS:
                self.said = time.monotonic()
                self.say(f"{files}, {rate}")

    def _done(self) -> float:
        """Files done with, and the shares there are of those under way."""
        under_way = [item for item in self.transfers if item.size and item.wanted.target not in self.over]
        return len(self.over) + sum(item.have / item.size for item in under_way if item.size)
