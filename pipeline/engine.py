"""Where jobs run: Beam's options, and what this project needs them to be.

The local default pins FnApiRunner with one process a core: `DirectRunner` may try to fetch Prism from the network and
wait for it without end. A job of little work runs inside this process, since starting workers takes seconds.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from manifests.errors import UserError

LOCAL = "FnApiRunner"
SMALL_JOB_BYTES = 4 << 20
"""below this much input a local job runs in-process: about what one process reads while workers start"""


@dataclass(frozen=True)
class Engine:
    """How to run a job. `workers`: local processes; `arguments`: what the user gave Beam; `timings`: the run's folder
    for times; `quiet`: no progress."""

    workers: int
    arguments: tuple[str, ...]
    timings: Path
    quiet: bool = False

    @property
    def runner(self) -> str:
        """The Beam runner's name, as given or ours."""
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("--runner", default=LOCAL)
        return str(parser.parse_known_args(list(self.arguments))[0].runner)

    @property
    def in_memory(self) -> bool:
        """Whether the runner groups in memory and never spills, so that blocks must stay in files."""
        return self.runner.rpartition(".")[2] in {
            "FnApiRunner",
            "DirectRunner",
            "BundleBasedDirectRunner",
            "DaskRunner",
        }

    def pipeline(self, tasks: Sequence[Any]) -> beam.Pipeline:
        """A Beam pipeline for a job over these tasks (with a `size` in bytes each)."""
        given = list(self.arguments)
        if self.runner == LOCAL and not any(argument.startswith("--direct_") for argument in given):
            workers = min(self.workers, len(tasks))
            alone = workers == 1 or sum(task.size for task in tasks) < SMALL_JOB_BYTES
            mode = "in_memory" if alone else "multi_processing"
            given += [f"--direct_running_mode={mode}", f"--direct_num_workers={1 if alone else workers}"]
        if self.runner == LOCAL:
            given += [f"--runner={LOCAL}"]
        return beam.Pipeline(options=PipelineOptions(given))


def check_options(arguments: Iterable[str]) -> None:
    """Refuse Beam options that Beam would silently ignore. Raises UserError naming the first."""
    options = PipelineOptions(list(arguments))
    with_values = options.get_all_options(drop_default=True, retain_unknown_options=True)
    known = set(PipelineOptions().get_all_options())
    for name in sorted(set(with_values) - known):
        raise UserError(f"Beam has no option --{name}: see `python -m pipeline run --help` for what stands before `--`")


def default_workers() -> int:
    """One worker a core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
