"""Marks of tasks at work: files that last as long as their tasks, and beyond them if the interpreter dies.

Each worker writes its marks to its machine. The mark of a task that takes long goes to the object store of its corpus
as well, where the driver finds it and `python -m pipeline status` on any machine shows it.
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

BEGUN = "begun"  # folder of the marks, below that of a run's times
PUBLISH_SECONDS = 30.0  # at work until a mark goes to an object store: two requests, which short tasks are spared
SLOW_SECONDS = 60.0  # a task is slow from here on, if it also takes
SLOW_TIMES = 10  # times as long as the median of the others


def start_mark_path(timings: Path, task: Task) -> Path:
    """Return the path of the mark of a task that has begun."""
    return timings / BEGUN / f"{hash_key([task.step, task.name])[:32]}.json"


@contextlib.contextmanager
def mark_running(timings: Path, task: Task, mirror: Mirror | None) -> Iterator[None]:
    """Hold a task's mark while the block runs.

    Args:
        timings: folder of the run's times.
        task: at work.
        mirror: of a corpus in an object store; None for one of this machine.
    """
    path, published = start_mark_path(timings, task), threading.Event()
    write_atomic(path, canonical_json({"step": task.step, "task": task.name, "at": time.time()}))

    def publish(to: Mirror) -> None:
        published.set()
        with contextlib.suppress(StorageError, OSError):  # a mark is no reason to fail
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
    """Remove the marks that killed workers left in an object store. Raises StorageError."""
    for entry in mirror.storage.list_files("runs"):
        if f"/{BEGUN}/" in entry.path:
            mirror.storage.remove(entry.path)


@dataclass(frozen=True)
class RunningTask:
    """A task at work, by its mark, and how long it has been seen there by this process's clock."""

    name: str
    seconds: float


class Marks:
    """The marks of tasks at work in a folder, and how long those stayed that have gone."""

    def __init__(self, folder: Path, mirror: Mirror | None = None) -> None:
        """Take the folder; with a mirror, that of the same path in its object store, which workers elsewhere write."""
        self.folder, self.mirror = folder, mirror
        self.seen: dict[str, tuple[str, float]] = {}  # by file: task, when it began or was first seen
        self.durations: list[float] = []

    def poll(self) -> None:
        """Look at the folder. Raises OSError, ValueError or StorageError."""
        now, present = time.monotonic(), self._list()
        began = now if self.mirror is None else now - PUBLISH_SECONDS
        for name in self.seen.keys() - present:
            self.durations.append(now - self.seen.pop(name)[1])
        for name in present - self.seen.keys():
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                self.seen[name] = json.loads(self._read(name))["task"], began

    def running(self) -> list[RunningTask]:
        """Return the tasks at work, the longest first."""
        now = time.monotonic()
        found = [RunningTask(task, now - since) for task, since in self.seen.values()]
        return sorted(found, key=lambda one: -one.seconds)

    def slow(self) -> list[RunningTask]:
        """Return the tasks at work that take far longer than others did, the longest first."""
        typical = statistics.median(self.durations) if self.durations else 0.0
        return [one for one in self.running() if one.seconds > max(SLOW_SECONDS, SLOW_TIMES * typical)]

    def _list(self) -> set[str]:
        if self.mirror is None:
            return {path.name for path in self.folder.glob("*.json")}
        below = self.folder.relative_to(self.mirror.folder).as_posix()
        names = {entry.path.rpartition("/")[2] for entry in self.mirror.storage.list_files(below)}
        return {name for name in names if name.endswith(".json")}  # a store that is a folder may hold half a file

    def _read(self, name: str) -> bytes:
        if self.mirror is None:
            return (self.folder / name).read_bytes()
        return self.mirror.storage.read((self.folder / name).relative_to(self.mirror.folder).as_posix())
