"""Check code versions: every function of this project that a step executes must be covered by the step's version."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

from corpus import ROOT

from pipeline.beam import step as step_module
from pipeline.beam import task
from pipeline.beam.fingerprint import NOT_COVERED, PACKAGES, reached_symbols

# Functions that need no version, because they only move bytes. Their modules also have functions that compute.
MOVING = {("pipeline.beam.exchange", "write_blocks"), ("filters.formats.stored", "open_stored")}
SAMPLES = 3  # number of tasks that are traced per step and source
Traced = dict[tuple[str, str], set[tuple[str, str]]]
# By (step, name of its function): the function, and the functions that its units name in `calls`.
functions: dict[tuple[str, str], set[Callable[..., Any]]] = {}
executed: Traced = {}  # by (step, name of its function): (module, name) of the functions and classes that ran
counts: dict[tuple[str, str], int] = {}  # tasks so far, by (step, source)


@contextlib.contextmanager
def covered_by_versions() -> Iterator[None]:
    """Trace the tasks that run in this process during the `with` block, and check at its end what they executed."""
    for found in (functions, executed, counts):
        found.clear()
    attempt, fingerprints = task.attempt, step_module.Step.fingerprints

    def declared(step: step_module.Step, *given: Any) -> dict[str, str]:
        known = functions.setdefault((step.name, step.function.__name__), {step.function})
        known |= {call for unit in step.units for call in unit.calls}
        return fingerprints(step, *given)

    tracing = mock.patch.object(task, "attempt", partial(traced, attempt))
    with mock.patch.object(step_module.Step, "fingerprints", declared), tracing:
        yield
    assert executed, "tasks ran in other processes, or none did"
    missed = [
        f"{step}: {module}.{name}"
        for (step, function), symbols in sorted(executed.items())
        for module, name in sorted(symbols - reached_symbols(*functions[step, function]))
        if module not in NOT_COVERED and (module, name) not in MOVING
    ]
    assert not missed, "executed, but in no code version: " + ", ".join(missed)


def traced(attempt: Callable[..., None], one: step_module.Task, blocks: Any, job: task.Job) -> None:
    """Run a task. If it is one of the first tasks of its step and source, record which of our functions it calls."""
    function = job.function.args[0] if isinstance(job.function, partial) else job.function
    key = (one.step, step_module.source_of(one.name))
    counts[key] = counts.get(key, 0) + 1
    if counts[key] > SAMPLES:
        return attempt(one, blocks, job)
    found = executed.setdefault((one.step, function.__name__), set())
    seen: set[int] = set()

    def profile(frame: FrameType, event: str, _argument: Any) -> None:
        code = frame.f_code
        if event != "call" or id(code) in seen:
            return
        seen.add(id(code))
        module, top = _module_of(code.co_filename), code.co_qualname.partition(".")[0]
        if module and not top.startswith("<") and not _is_importing(frame):
            found.add((module, top))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        return attempt(one, blocks, job)
    finally:
        sys.setprofile(before)


def _module_of(file: str) -> str:
    """Return the dotted name of a module of this project by its file, or "" for any other file."""
    path = Path(file)
    if not path.is_relative_to(ROOT) or path.relative_to(ROOT).parts[0] not in PACKAGES:
        return ""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _is_importing(frame: FrameType | None) -> bool:
    """Return True if a frame runs while a module of this project is imported."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and _module_of(frame.f_code.co_filename):
            return True
        frame = frame.f_back
    return False
