"""Manage the worker processes of the local engine: one pool for a whole run.

Beam's own local worker processes take seconds to start for each job, and a job can hang if one of them dies. Here, Beam
runs in the driver, and `pipeline.beam.spread` submits each element to a pool of processes that run until the run ends.
If a worker dies, an error is raised within a second.
"""

import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess, parent_process
from typing import Any, NamedTuple

from filters.errors import RunError
from pipeline.beam.counters import collect_counts

PRELOADED = ["pipeline.graph"]  # imported once by the fork server, so that a worker starts in milliseconds
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT)  # crashes of the interpreter, unlike SIGKILL
BUSY_SECONDS = 0.2  # duration of the first call in each worker
TERMINATED = -signal.SIGTERM  # exit code of workers that the executor ends when another worker has died

# The pools of this process by id. Beam pickles functions before it calls them, and a pool cannot be pickled.
POOLS: "weakref.WeakValueDictionary[int, Pool]" = weakref.WeakValueDictionary()


class Called(NamedTuple):
    """The values that a call in a worker returned, and the counts of the tasks that the call finished."""

    values: list[Any]
    counts: Mapping[str, int]


class WorkerDiedError(RunError):
    """A worker process was killed from outside or crashed."""


class WorkerCrashedError(WorkerDiedError):
    """The interpreter of a worker process crashed, possibly because of a record."""


class Pool:
    """Worker processes that are started with `start` and killed with `stop`, and can be started again."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None
        self._workers: list[BaseProcess] = []
        POOLS[id(self)] = self

    @property
    def is_running(self) -> bool:
        """True between `start` and `stop`."""
        return self._executor is not None

    def start(self, workers: int) -> None:
        """Start `workers` processes, unless the pool is running."""
        if self._executor is None:
            method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
            context = multiprocessing.get_context(method)
            context.set_forkserver_preload(PRELOADED)
            if method == "forkserver":
                forkserver.ensure_running()
                import apache_beam  # noqa: F401  # needed next; the fork server imports it at the same time

            before = set(multiprocessing.active_children())
            self._executor = ProcessPoolExecutor(workers, context, initializer=_follow_driver)
            # The executor starts a process only if no process is idle. So each process sleeps until all have started.
            for waiting in [self._executor.submit(time.sleep, BUSY_SECONDS) for _ in range(workers)]:
                waiting.result()
            self._workers = [process for process in multiprocessing.active_children() if process not in before]

    def submit(self, function: Callable[[Any], Iterable[Any] | None], element: Any) -> "Future[Called]":
        """Call a function with an element in a worker."""
        assert self._executor is not None, "`Engine.pool_for` has started the pool"
        return self._executor.submit(_call, function, element)

    def stop(self) -> None:
        """Kill the workers without waiting for their calls."""
        if self._executor is not None:
            for process in self._workers:
                process.kill()
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor, self._workers = None, []

    def died(self) -> WorkerDiedError:
        """Return an error with the exit code of the worker that died."""
        for process in self._workers:
            process.join(0.2)
        codes = [process.exitcode for process in self._workers if process.exitcode not in (None, 0)]
        if not codes:
            return WorkerDiedError("a worker process ended while it started")
        code = next((code for code in codes if code != TERMINATED), codes[0]) or 0
        kind = WorkerCrashedError if -code in CRASHES else WorkerDiedError
        return kind(
            f"a worker process ended with code {code if code >= 0 else 128 - code} (137: killed, most often for want "
            "of memory; 139: crashed)"
        )


def _call(function: Callable[[Any], Iterable[Any] | None], element: Any) -> Called:
    """Call a function with an element, in a worker. Return its results and the counts of the finished tasks."""
    with collect_counts() as counts:
        return Called(list(function(element) or ()), counts)


def _follow_driver() -> None:
    """Ignore SIGINT, which the driver handles, and end this process when the driver's process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    driver = parent_process()

    def wait() -> None:
        if driver is not None:
            driver.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
