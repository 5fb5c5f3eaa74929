"""Engines: Beam's options, with the defaults that this project needs, and local worker processes.

The local default pins FnApiRunner with one process a core: `DirectRunner` may try to fetch Prism from the network and
wait for it without end. A job of little work runs inside this process, since starting workers takes seconds.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from filters.errors import UserError

if TYPE_CHECKING:  # Beam takes a second to load, and commands that only read a corpus do without it
    import apache_beam as beam

LOCAL = "FnApiRunner"
IN_MEMORY = {LOCAL, "DirectRunner", "BundleBasedDirectRunner", "DaskRunner"}
SMALL_JOB_BYTES = (
    4 << 20
)  # of input below which a local job runs in-process: what one process reads while workers start


@dataclass(frozen=True)
class Engine:
    """The way to run a job.

    Attributes:
        workers: local processes.
        arguments: Beam's options as the user gave them.
        timings: the run's folder for times.
        quiet: show no progress.
    """

    workers: int
    arguments: tuple[str, ...]
    timings: Path
    quiet: bool = False

    @property
    def runner(self) -> str:
        """The Beam runner's name, as given or the local default."""
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--runner", default=LOCAL)
        return str(parser.parse_known_args(list(self.arguments))[0].runner)

    @property
    def in_memory(self) -> bool:
        """True if the runner groups in memory and never spills, so that blocks must stay in files."""
        return self.runner.rpartition(".")[2] in IN_MEMORY

    def pipeline(self, tasks: Sequence[Any]) -> "beam.Pipeline":
        """Return a Beam pipeline for a job over these tasks (with a `size` in bytes each)."""
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        given = list(self.arguments)
        if self.runner == LOCAL and not any(argument.startswith("--direct_") for argument in given):
            workers = min(self.workers, len(tasks))
            alone = workers == 1 or sum(task.size for task in tasks) < SMALL_JOB_BYTES
            mode = "in_memory" if alone else "multi_processing"
            given += [f"--direct_running_mode={mode}", f"--direct_num_workers={1 if alone else workers}"]
        if self.runner == LOCAL:
            given += [f"--runner={LOCAL}"]
        return beam.Pipeline(options=PipelineOptions(given))


@contextlib.contextmanager
def workers_apart(log: Path) -> Iterator[TextIO]:
    """Send what worker processes write to their standard error, many lines a job, to a file.

    Yields:
        The terminal, to which this process continues to write.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace") as terminal, log.open("ab") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield terminal
        finally:
            terminal.flush()
            os.dup2(terminal.fileno(), 2)


class WorkerDiedError(Exception):
    """A local worker process was killed from outside or crashed."""


@contextlib.contextmanager
def ending_with_its_workers() -> Iterator[None]:
    """Raise WorkerDiedError when a local worker process dies, where Beam itself would wait for it without end.

    Beam notices in a thread of its own and only prints it: that thread's exception is taken here, and the main thread,
    which waits inside Beam, is woken by a signal. Not by the keyboard's, which a process started in the background of a
    script ignores. The other workers are killed first: Beam waits for each of them, and one that was still starting
    when its connections were closed would never end.
    """
    from apache_beam.runners.portability import local_job_service

    deaths: list[str] = []
    started: list[subprocess.Popen[bytes]] = []
    lock = threading.Lock()  # a worker that starts while another dies is killed by either of the two threads
    before = threading.excepthook

    def start(command: str, **options: Any) -> subprocess.Popen[bytes]:
        worker = subprocess.Popen(f"exec {command}", **options)  # no shell between: it would be killed in its place
        with lock:
            started.append(worker)
            if deaths:
                worker.kill()
        return worker

    def hook(what: threading.ExceptHookArgs) -> None:
        if isinstance(what.exc_value, RuntimeError) and "Worker subprocess exited" in str(what.exc_value):
            with lock:
                first = not deaths
                code = int(str(what.exc_value).rpartition(" ")[2])
                deaths.append(str(code if code >= 0 else 128 - code))
                for worker in started:
                    worker.kill()
            if first:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)  # wakes it inside a lock, too
        elif not deaths:
            before(what)

    def woken(_number: int, _frame: object) -> None:
        raise WorkerDiedError(
            f"a worker process ended with code {deaths[0]} (137: killed, most often for want of memory; 139: crashed)"
        )

    threading.excepthook = hook
    handler = signal.signal(signal.SIGUSR1, woken)
    local_job_service.subprocess = types.SimpleNamespace(Popen=start)
    try:
        yield
    finally:
        local_job_service.subprocess = subprocess
        threading.excepthook = before
        signal.signal(signal.SIGUSR1, handler)


def check_options(arguments: Iterable[str]) -> None:
    """Refuse Beam options that Beam would silently ignore. Raises UserError naming the first."""
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(list(arguments))
    with_values = options.get_all_options(drop_default=True, retain_unknown_options=True)
    known = set(PipelineOptions([]).get_all_options())
    for name in sorted(set(with_values) - known):
        raise UserError(f"Beam has no option --{name}: see `python -m pipeline run --help` for what stands before `--`")
