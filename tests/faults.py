"""Make reads and writes of tasks in this process fail, as if storage failed.

This is a separate module, so that engines that pickle functions by name find the same module and its state.
"""

import contextlib
import errno
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.beam import job as jobs
from pipeline.beam import task

ERRORS = (errno.EIO, errno.ENOSPC, errno.EACCES, errno.ESTALE, errno.ENOENT)
EVENTS = {"open", "os.rename", "os.mkdir"}  # audit events of reads and writes; `Path.replace` causes os.rename


class Plan:
    """A plan that determines which file accesses fail.

    Attributes:
        first: The number of accesses before the first failure.
        times: The number of consecutive accesses that fail.
        code: The errno of the failures.
        seen: The number of accesses so far.
    """

    def __init__(self, first: int, times: int, code: int) -> None:
        self.first, self.times, self.code, self.seen = first, times, code, 0

    def check(self, path: Any) -> None:
        """Count one access and raise OSError if it must fail. Accesses to code (.py, .pyc, .so) are ignored."""
        if isinstance(path, int) or os.fsdecode(path).endswith((".py", ".pyc", ".so")):
            return
        self.seen += 1
        if self.first < self.seen <= self.first + self.times:
            raise OSError(self.code, os.strerror(self.code), os.fsdecode(path))


class RandomPlan(Plan):
    """A plan in which each access takes some time, and a random share of accesses fails with random errors."""

    def __init__(self, share: float, seconds: float, chance: random.Random) -> None:
        super().__init__(0, 0, 0)
        self.share, self.seconds, self.chance, self.failed = share, seconds, chance, 0

    def check(self, path: Any) -> None:
        super().check(path)
        time.sleep(self.seconds)
        if self.chance.random() < self.share:
            self.failed += 1
            code = self.chance.choice(ERRORS)
            raise OSError(code, os.strerror(code), str(path))


active: Plan | None = None
pending: list[Plan] = []  # the plan that becomes active while a task runs
performed: list[tuple[Any, tuple[Any, ...], Any]] = []  # (task, blocks, job) of the tasks run by `record`
_perform = task.perform
_hooked = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if active is not None and event in EVENTS:
        active.check(arguments[0])


def _checked(call: Any) -> Any:
    def checked(path: Any, *arguments: Any, **options: Any) -> Any:
        if active is not None and isinstance(path, str | os.PathLike):
            active.check(path)
        return call(path, *arguments, **options)

    return checked


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Check all file accesses against the active plan during the `with` block.

    Libraries in C++ cause no audit events, so the functions that open their files are replaced.
    """
    global _hooked
    if not _hooked:  # An audit hook cannot be removed, so it is added only once.
        sys.addaudithook(_audit)
        _hooked = True
    places = ((pa, "memory_map"), (pq, "ParquetFile"), (pq, "ParquetWriter"), (np, "fromfile"))
    with contextlib.ExitStack() as patches:
        for module, name in places:
            patches.enter_context(mock.patch.object(module, name, _checked(getattr(module, name))))
        yield


@contextlib.contextmanager
def failing(plan: Plan) -> Iterator[Plan]:
    """Make accesses fail as planned during the `with` block."""
    global active
    with _watched():
        active = plan
        try:
            yield plan
        finally:
            active = None


@contextlib.contextmanager
def failing_in_tasks(plan: Plan) -> Iterator[Plan]:
    """Make accesses of tasks fail as planned during the `with` block. Accesses outside tasks do not fail."""
    pending[:] = [plan]
    with _watched(), performing(_fail):
        yield plan


def _fail(one: Any, *blocks: Any, job: Any) -> None:
    global active
    (active,) = pending
    try:
        _perform(one, *blocks, job=job)
    finally:
        active = None


def record(one: Any, *blocks: Any, job: Any) -> None:
    """Run a task and append it to `performed`."""
    performed.append((one, blocks, job))
    _perform(one, *blocks, job=job)


def perform_in_other_folder(one: Any, *blocks: Any, job: Any) -> None:
    """Run a task in the working directory that the environment variable TASKS_RUN_IN names."""
    before = Path.cwd()
    os.chdir(os.environ["TASKS_RUN_IN"])
    try:
        _perform(one, *blocks, job=job)
    finally:
        os.chdir(before)


@contextlib.contextmanager
def performing(function: Any) -> Iterator[None]:
    """Run all tasks by a function of this module during the `with` block."""
    with mock.patch.object(jobs, "perform", function):
        yield
