"""Download a list of URLs to files below a folder, several at a time.

A file is either complete or absent. Interrupted downloads can be resumed.
"""

import concurrent.futures
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from filters.errors import UserError
from pipeline.download.http import DownloadResult, RemoteFile, RetryPolicy, Session, State, Transfer, fetch

PARALLEL = 4
POLL_SECONDS = 0.5
LINE_SECONDS = 15.0  # seconds between lines of progress if the output is no terminal
NAME_BYTES = 200  # longest name of a file or folder in a target. File systems allow 255, and `.part.json` is appended.


def download(
    files: Sequence[RemoteFile],
    folder: Path,
    policy: RetryPolicy | None = None,
    parallel: int = PARALLEL,
    terminal: TextIO | None = None,
) -> list[DownloadResult]:
    """Download every file to its target below `folder` and return the results in the order of `files`.

    If the call is interrupted (KeyboardInterrupt), partial files remain. The next call resumes them.

    Args:
        files: the files to download. Their targets must be different.
        folder: the output folder. It is created if necessary.
        policy: number of attempts, and the waits between them; None for the defaults.
        parallel: number of simultaneous transfers.
        terminal: receives progress and messages about waits; None for no output.

    Raises:
        UserError: a target is outside the folder, two URLs have the same target, or the folder cannot be written.
    """
    for file in files:
        check_target(file.target)
    twice = [target for target, count in Counter(file.target for file in files).items() if count > 1]
    if twice:
        raise UserError(f"two URLs have the same file name {twice[0]!r}: give them different names")
    _check_writable(folder)
    transfers = [Transfer(file) for file in files]
    display = _ProgressDisplay(transfers, terminal)
    session = Session(policy or RetryPolicy(), display.log)
    pool = concurrent.futures.ThreadPoolExecutor(parallel)

    def run(transfer: Transfer) -> DownloadResult:
        result = fetch(transfer, folder, session)
        display.finish(result)
        return result

    with display.bar:
        try:
            futures = [pool.submit(run, transfer) for transfer in transfers]
            while concurrent.futures.wait(futures, POLL_SECONDS).not_done:
                display.update()
            return [future.result() for future in futures]
        finally:
            session.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)  # does not wait for open connections


def format_results(results: Sequence[DownloadResult]) -> str:
    """Return a line with the number of files per state, and a line with the reason for each failed file."""
    counts = Counter(result.state for result in results)
    lines = [f"{len(results)} files: " + ", ".join(f"{counts[state]:,} {state}" for state in State if counts[state])]
    lines += [f"  {result.file.target}: {result.reason}" for result in results if result.state is State.FAILED]
    return "\n".join(lines)


def check_target(target: str) -> None:
    """Check that a relative path stays inside the folder to which it is joined, on any operating system.

    Raises:
        UserError: the path may leave the folder, a name is too long, or the path has the ending of partial files.
    """
    parts = target.split("/")
    if not target.isprintable() or "\\" in target or any(part in ("", ".", "..") for part in parts):
        raise UserError(f"{target!r} is not a path below the output folder: only plain names joined by / are allowed")
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


class _ProgressDisplay:
    """A display of progress: a bar in a terminal, or else a line every `LINE_SECONDS`."""

    def __init__(self, transfers: list[Transfer], terminal: TextIO | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.transfers = transfers
        self.finished: set[str] = set()
        self.started = self.last_line = time.monotonic()
        self.console = Console(file=terminal, quiet=terminal is None)
        shown = terminal is not None and terminal.isatty()
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"))
        self.bar = Progress(*columns, TimeRemainingColumn(), console=self.console, transient=True, disable=not shown)
        self.task = self.bar.add_task("", total=len(transfers), rate="")

    def log(self, line: str) -> None:
        """Print a line. If there is a bar, the line appears above it."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def finish(self, result: DownloadResult) -> None:
        """Count a file as finished, whatever its result."""
        self.finished.add(result.file.target)
        if result.state is State.PRESENT:
            self.log(f"{result.file.target}: {result.state}")

    def update(self) -> None:
        """Show the current progress of all files."""
        seconds = time.monotonic() - self.started
        received = sum(transfer.received for transfer in self.transfers)
        files = f"{len(self.finished)}/{len(self.transfers)} files"
        rate = f"{received / 1e6:,.1f} MB, {received / 1e6 / seconds:,.1f} MB/s"
        running = [item for item in self.transfers if item.size and item.file.target not in self.finished]
        completed = len(self.finished) + sum(item.written / item.size for item in running if item.size)
        self.bar.update(self.task, completed=completed, description=files, rate=rate)
        if self.bar.disable and time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            self.log(f"{files}, {rate}")
