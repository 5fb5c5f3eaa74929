"""Write and read start marks: files that exist while a task is running.

A worker writes the mark of a task to its machine's disk when the task starts, and removes it when the task ends. If the
interpreter dies, the mark remains and names the task. If the corpus is in an object store, the mark of a long task is
also written there. The driver reads it, so `python -m pipeline status` shows the task on any machine.
"""

import contextlib
import json
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from manifests.files import canonical_json, write_atomic
from manifests.mirror import Mirror
from manifests.storage import StorageError
from pipeline.beam.step import Task, hash_key

BEGUN = "begun"  # name of the folder of marks, in the run's folder for times
# Seconds until the mark of a running task is written to an object store. Short tasks save the two requests for a mark.
PUBLISH_SECONDS = 30.0
# A task is slow if it runs for more than SLOW_SECONDS and for more than SLOW_TIMES the median time of finished tasks.
SLOW_SECONDS = 60.0
SLOW_TIMES = 10


def start_mark_path(timings: Path, task: Task) -> Path:
    """Return the path of a task's mark."""
    return timings / BEGUN / f"{hash_key([task.step, task.name])[:32]}.json"


@contextlib.contextmanager
def mark_running(timings: Path, task: Task, mirror: Mirror | None) -> Iterator[None]:
    """Write a task's mark, run the `with` block, and remove the mark. If the interpreter dies, the mark remains.

    Args:
        timings: the run's folder for times.
        task: the task that the `with` block runs.
        mirror: the mirror of a corpus in an object store; None if the corpus is on this machine's disk.
    """
    path, published = start_mark_path(timings, task), threading.Event()
    write_atomic(path, canonical_json({"step": task.step, "task": task.name, "at": time.time()}))

    def publish(to: Mirror) -> None:
        published.set()
        with contextlib.suppress(StorageError, OSError):  # a task must not fail because of its mark
            to.push([path.relative_to(to.folder).as_posix()])

    timer = threading.Timer(PUBLISH_SECONDS, publish, [mirror])
    timer.daemon = True
    if mirror is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if mirror is not None:
            timer.join()
            if published.is_set():
                with contextlib.suppress(StorageError):
                    mirror.storage.remove(path.relative_to(mirror.folder).as_posix())
        path.unlink(missing_ok=True)


def remove_published(mirror: Mirror) -> None:
    """Remove the marks of killed workers from an object store. Raises StorageError."""
    for entry in mirror.storage.list_files("runs"):
        if f"/{BEGUN}/" in entry.path:
            mirror.storage.remove(entry.path)


@dataclass(frozen=True)
class RunningTask:
    """A running task, according to its mark: its name, and the seconds since this process first saw the mark.

    A mark in an object store is written late, so `PUBLISH_SECONDS` are added.
    """

    name: str
    seconds: float


class Marks:
    """A monitor of the marks in a folder. It records running tasks and the durations of finished tasks."""

    def __init__(self, folder: Path, mirror: Mirror | None = None) -> None:
        """Begin without marks.

        Args:
            folder: the folder of the marks.
            mirror: if given, the marks are read from the folder with the same path in the mirror's object store, to
                which workers on other machines write.
        """
        self.folder, self.mirror = folder, mirror
        self.seen: dict[str, tuple[str, float]] = {}  # from file name to (task, time of its start)
        self.durations: list[float] = []  # seconds of each finished task

    def poll(self) -> None:
        """List the folder, and update the running and finished tasks. Raises OSError, ValueError or StorageError."""
        now, present = time.monotonic(), self._list()
        began = now if self.mirror is None else now - PUBLISH_SECONDS
        for name in self.seen.keys() - present:
            self.durations.append(now - self.seen.pop(name)[1])
        for name in present - self.seen.keys():
            with contextlib.suppress(FileNotFoundError):  # the task has ended since the folder was listed
                self.seen[name] = json.loads(self._read(name))["task"], began

    def running(self) -> list[RunningTask]:
        """Return the running tasks, those with the longest times first."""
        now = time.monotonic()
        found = [RunningTask(task, now - since) for task, since in self.seen.values()]
        return sorted(found, key=lambda one: -one.seconds)

    def slow(self) -> list[RunningTask]:
        """Return the running tasks that take far longer than finished tasks did, those with the longest times first."""
        typical = statistics.median(self.durations) if self.durations else 0.0
        return [one for one in self.running() if one.seconds > max(SLOW_SECONDS, SLOW_TIMES * typical)]

    def _list(self) -> set[str]:
        if self.mirror is None:
            return {path.name for path in self.folder.glob("*.json")}
        below = self.folder.relative_to(self.mirror.folder).as_posix()
        names = {entry.path.rpartition("/")[2] for entry in self.mirror.storage.list_files(below)}
        return {name for name in names if name.endswith(".json")}  # a folder as a store has temporary files, too

    def _read(self, name: str) -> bytes:
        if self.mirror is None:
            return (self.folder / name).read_bytes()
        return self.mirror.storage.read((self.folder / name).relative_to(self.mirror.folder).as_posix())
