"""Worker processes of the local engine: one pool for a whole run.

Beam's own local processes take seconds to start for every job, and one that dies can hang it. Here Beam runs in the
driver, and `pipeline.beam.spread` hands each element to a pool of processes that live as long as the run. A worker that
dies raises an error within a second.
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
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGABRT)  # faults of the interpreter; never SIGKILL
BUSY_SECONDS = 0.2  # of each worker's first call
TERMINATED = -signal.SIGTERM  # how the pool ends the other workers when one has died

# The pools of this process by key: Beam pickles a function before it calls it, and a pool cannot be pickled.
POOLS: "weakref.WeakValueDictionary[int, Pool]" = weakref.WeakValueDictionary()


class Called(NamedTuple):
    """What a call in a worker returned, and the counts of tasks that it finished."""

    values: list[Any]
    counts: Mapping[str, int]


class WorkerDiedError(RunError):
    """A worker process was killed from outside or crashed."""


class WorkerCrashedError(WorkerDiedError):
    """The interpreter of a worker process crashed, possibly of a record."""


class Pool:
    """Worker processes that start with the first work, and are started anew after `stop`."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None
        self._workers: list[BaseProcess] = []
        POOLS[id(self)] = self

    @property
    def is_running(self) -> bool:
        """True between `start` and `stop`."""
        return self._executor is not None

    def start(self, workers: int) -> None:
        """Start that many processes, unless they run already."""
        if self._executor is None:
            method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
            context = multiprocessing.get_context(method)
            context.set_forkserver_preload(PRELOADED)
            if method == "forkserver":
                forkserver.ensure_running()
                import apache_beam  # noqa: F401  # the driver needs it next: both processes import at the same time

            before = set(multiprocessing.active_children())
            self._executor = ProcessPoolExecutor(workers, context, initializer=_follow_driver)
            # The executor starts a process only if none is idle: all of them are busy until the last has started.
            for waiting in [self._executor.submit(time.sleep, BUSY_SECONDS) for _ in range(workers)]:
                waiting.result()
            self._workers = [process for process in multiprocessing.active_children() if process not in before]

    def submit(self, function: Callable[[Any], Iterable[Any] | None], element: Any) -> "Future[Called]":
        """Call a function on an element in a worker."""
        assert self._executor is not None, "started by the engine"
        return self._executor.submit(_call, function, element)

    def stop(self) -> None:
        """Kill the workers, whatever they do."""
        if self._executor is not None:
            for process in self._workers:
                process.kill()
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor, self._workers = None, []

    def died(self) -> WorkerDiedError:
        """Return the error that names the exit code of a worker that has died."""
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
    with collect_counts() as counts:
        return Called(list(function(element) or ()), counts)


def _follow_driver() -> None:
    """Ignore the keyboard, which the driver answers, and end when the driver has ended, however it did."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    driver = parent_process()

    def wait() -> None:
        if driver is not None:
            driver.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
