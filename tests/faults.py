"""Inject failures of storage into reads and writes of tasks that run in this process.

A module of its own, so that engines which pickle functions find this very state by its name.
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
EVENTS = {"open", "os.rename", "os.mkdir"}  # audited reads and writes; `Path.replace` is a rename


class Plan:
    """When accesses fail: the number of the first, how many from there on fail, and with which error."""

    def __init__(self, first: int, times: int, code: int) -> None:
        self.first, self.times, self.code, self.seen = first, times, code, 0

    def check(self, path: Any) -> None:
        """Count one access, and raise if it is to fail."""
        if isinstance(path, int) or os.fsdecode(path).endswith((".py", ".pyc", ".so")):
            return
        self.seen += 1
        if self.first < self.seen <= self.first + self.times:
            raise OSError(self.code, os.strerror(self.code), os.fsdecode(path))


class RandomPlan(Plan):
    """Accesses take a moment, and a share of them fails with any of the errors."""

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
pending: list[Plan] = []  # the plan that is active while tasks run
performed: list[tuple[Any, tuple[Any, ...], Any]] = []  # task, blocks and job of all tasks, if they are recorded
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
    """See accesses while the block runs; libraries in C++ are reached by replacing what opens their files."""
    global _hooked
    if not _hooked:  # an audit hook cannot be taken out again
        sys.addaudithook(_audit)
        _hooked = True
    places = ((pa, "memory_map"), (pq, "ParquetFile"), (pq, "ParquetWriter"), (np, "fromfile"))
    with contextlib.ExitStack() as patches:
        for module, name in places:
            patches.enter_context(mock.patch.object(module, name, _checked(getattr(module, name))))
        yield


@contextlib.contextmanager
def failing(plan: Plan) -> Iterator[Plan]:
    """Let accesses fail while the block runs."""
    global active
    with _watched():
        active = plan
        try:
            yield plan
        finally:
            active = None


@contextlib.contextmanager
def failing_in_tasks(plan: Plan) -> Iterator[Plan]:
    """Let accesses fail while the block runs, but only those of tasks."""
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
    """Run a task as ever and keep it."""
    performed.append((one, blocks, job))
    _perform(one, *blocks, job=job)


def elsewhere(one: Any, *blocks: Any, job: Any) -> None:
    """Run a task in the folder that the environment names."""
    before = Path.cwd()
    os.chdir(os.environ["TASKS_RUN_IN"])
    try:
        _perform(one, *blocks, job=job)
    finally:
        os.chdir(before)


@contextlib.contextmanager
def performing(function: Any) -> Iterator[None]:
    """Run all tasks through a function of this module."""
    with mock.patch.object(jobs, "perform", function):
        yield
