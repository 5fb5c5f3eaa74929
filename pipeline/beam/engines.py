"""Engines: Beam's options, with the defaults that this project needs.

The local default pins FnApiRunner: `DirectRunner` may try to fetch Prism from the network and wait for it without end.
It runs in this process, and hands tasks to the processes of `pipeline.beam.pool`.
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

if TYPE_CHECKING:  # Beam takes a second to load, and commands that only read a corpus do without it
    import apache_beam as beam

LOCAL = "FnApiRunner"
IN_MEMORY = {LOCAL, "DirectRunner", "BundleBasedDirectRunner", "DaskRunner", "ClosingDaskRunner"}
SMALL_JOB_BYTES = 4 << 20  # of input from which on a job starts the worker processes: what one reads while they start


@dataclass(frozen=True)
class Engine:
    """The way to run a job.

    Attributes:
        workers: local processes.
        arguments: Beam's options as the user gave them.
        timings: the run's folder for times.
        quiet: show no progress.
        check: raises StorageError if another run has taken the corpus over; called before a step and before its sweep.
        given: URLs of models that tasks find at the paths of local copies, each with its version.
        pool: the local worker processes, which start when there is work for them.
        status: the run's, for people who ask for it elsewhere.
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
        """The Beam runner's name, as given or the local default."""
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--runner", default=LOCAL)
        return str(parser.parse_known_args(list(self.arguments))[0].runner)

    @property
    def is_local(self) -> bool:
        """True if jobs run in this process and its pool."""
        return self.runner == LOCAL

    @property
    def in_memory(self) -> bool:
        """True if the runner groups in memory and never spills, so that blocks must stay in files."""
        return self.runner.rpartition(".")[2] in IN_MEMORY

    def here(self) -> "Engine":
        """Return the local engine, for work of this run that no remote worker is needed for."""
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
        return any(argument.startswith("--direct_") for argument in self.arguments)

    def pool_for(self, tasks: int, size: int) -> Pool | None:
        """Return the worker processes, running, for a job of so many tasks over so many bytes.

        None where the engine has its own workers, and for a run that has had too little work yet to start them.
        """
        if not self.is_local or self.workers == 1 or self._has_direct_options:
            return None
        if not self.pool.is_running and (tasks < 2 or size < SMALL_JOB_BYTES):
            return None
        self.pool.start(self.workers)
        return self.pool


@contextlib.contextmanager
def redirect_worker_stderr(log: Path) -> Iterator[TextIO]:
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


def check_options(arguments: Iterable[str]) -> None:
    """Raise UserError for the first Beam option that Beam would refuse, or silently ignore."""
    arguments = list(arguments)
    if not arguments:  # a finished corpus is looked through without Beam, whose import takes a second
        return
    from apache_beam.options.pipeline_options import PipelineOptions

    for argument in arguments:  # a runner of its own module has options of its own
        if argument.startswith("--runner=") and "." in argument:
            with contextlib.suppress(ImportError):
                importlib.import_module(argument.partition("=")[2].rpartition(".")[0])
    try:
        with contextlib.redirect_stderr(io.StringIO()) as said:
            with_values = PipelineOptions(arguments).get_all_options(drop_default=True, retain_unknown_options=True)
    except SystemExit:  # after Beam has printed the usage of all its options
        why = said.getvalue().rpartition("error: ")[2].strip()
        raise UserError(f"Beam refuses what stands after `--` ({why}): mend it") from None
    known = set(PipelineOptions([]).get_all_options())
    if with_values.get("direct_running_mode") == "multi_processing":
        raise UserError("--direct_running_mode=multi_processing is not used here: give the processes with --workers")
    for name in sorted(set(with_values) - known):
        raise UserError(f"Beam has no option --{name}: see `python -m pipeline run --help` for what stands before `--`")
