"""Configure the engine that runs jobs: Beam's options, with the defaults that this project needs.

The local engine is FnApiRunner, because `DirectRunner` may try to download Prism and wait for it without end.
FnApiRunner runs in this process, and the tasks run in the processes of `pipeline.beam.pool`.
"""

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from filters.errors import UserError
from pipeline.beam.pool import Pool
from pipeline.beam.progress import RunStatus

if TYPE_CHECKING:  # importing Beam takes a second, and commands that only read a corpus do not need it
    import apache_beam as beam

LOCAL = "FnApiRunner"
IN_MEMORY = {LOCAL, "DirectRunner", "BundleBasedDirectRunner", "DaskRunner", "ClosingDaskRunner"}
# A job with less input, in bytes, does not start worker processes. One process reads this much while they would start.
SMALL_JOB_BYTES = 4 << 20


@dataclass(frozen=True)
class Engine:
    """The configuration of the engine that runs the jobs of a run.

    Attributes:
        workers: number of local worker processes.
        arguments: Beam's options as the user gave them.
        timings: the run's folder for times.
        quiet: show no progress.
        check: raises StorageError if another run has taken the corpus's lock. It is called before each job, and again
            before stale files are removed.
        model_urls: pairs of the URL of a model and its version. Tasks fetch these models before they start.
        pool: the local worker processes. They start when a job needs them.
        status: the status of the run, which `python -m pipeline status` shows.
    """

    workers: int
    arguments: tuple[str, ...]
    timings: Path
    quiet: bool = False
    check: Callable[[], None] = field(default=lambda: None, compare=False)
    model_urls: tuple[tuple[str, str], ...] = ()
    pool: Pool = field(default_factory=Pool, compare=False)
    status: RunStatus = field(default_factory=RunStatus, compare=False)

    @property
    def runner(self) -> str:
        """The name of the Beam runner: the value of `--runner`, or the local runner."""
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--runner", default=LOCAL)
        return str(parser.parse_known_args(list(self.arguments))[0].runner)

    @property
    def is_local(self) -> bool:
        """True if jobs run in this process and in its pool."""
        return self.runner == LOCAL

    @property
    def in_memory(self) -> bool:
        """True if the runner groups in memory without spilling to disk. Blocks are then kept in files."""
        return self.runner.rpartition(".")[2] in IN_MEMORY

    def here(self) -> "Engine":
        """Return the local engine with the same settings, for jobs that need no remote workers."""
        return self if self.is_local else replace(self, arguments=())

    def pipeline(self) -> "beam.Pipeline":
        """Return a Beam pipeline for a job."""
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        local = [f"--runner={LOCAL}"] if self.is_local else []
        local += [] if self._has_direct_options else ["--direct_running_mode=in_memory", "--direct_num_workers=1"]
        return beam.Pipeline(options=PipelineOptions([*self.arguments, *local]))

    @property
    def _has_direct_options(self) -> bool:
        """True if the user chose how FnApiRunner runs its workers, with an option such as `--direct_num_workers`."""
        return any(argument.startswith("--direct_") for argument in self.arguments)

    def pool_for(self, tasks: int, size: int) -> Pool | None:
        """Return the running pool of worker processes for a job, or None if the job runs without the pool.

        A job runs without the pool if the engine has its own workers, or if the job is small and the pool has not
        started yet.

        Args:
            tasks: number of tasks of the job.
            size: number of bytes that the tasks read.
        """
        if not self.is_local or self.workers == 1 or self._has_direct_options:
            return None
        if not self.pool.is_running and (tasks < 2 or size < SMALL_JOB_BYTES):
            return None
        self.pool.start(self.workers)
        return self.pool


@contextlib.contextmanager
def redirect_worker_stderr(log: Path) -> Iterator[TextIO]:
    """Redirect the standard error of worker processes, which has many lines per job, to a file.

    Args:
        log: path of the file, to which the lines are appended.

    Yields:
        The original standard error, for the messages of this process.
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


def check_options(arguments: Iterable[str]) -> None:
    """Check Beam options. Raises UserError for the first option that Beam would refuse, or ignore without a message."""
    arguments = list(arguments)
    if not arguments:  # importing Beam takes a second, and a run over a finished corpus does not need Beam
        return
    from apache_beam.options.pipeline_options import PipelineOptions

    for argument in arguments:  # a runner that is given as MODULE.CLASS may define options in its module
        if argument.startswith("--runner=") and "." in argument:
            with contextlib.suppress(ImportError):
                importlib.import_module(argument.partition("=")[2].rpartition(".")[0])
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            with_values = PipelineOptions(arguments).get_all_options(drop_default=True, retain_unknown_options=True)
    except SystemExit:  # Beam's parser has printed the usage of all options
        why = said.getvalue().rpartition("error: ")[2].strip()
        raise UserError(f"Beam refuses the options after `--` ({why}): correct them") from None
    known = set(PipelineOptions([]).get_all_options())
    if with_values.get("direct_running_mode") == "multi_processing":
        raise UserError("--direct_running_mode=multi_processing is not used here: give the processes with --workers")
    for name in sorted(set(with_values) - known):
        raise UserError(f"Beam has no option --{name}: see `python -m pipeline run --help` for the options before `--`")
