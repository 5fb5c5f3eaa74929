"""The tasks of a job, in a file that workers read: a job graph stays small, whatever the number of tasks.

The graph holds at most `GROUPS` elements for each turn of the job, each the place of a group of tasks in the file.
"""

import contextlib
import pickle
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from manifests.mirror import fetch, mirror_of, open_mirror
from pipeline.beam.receipts import count_tables

FOLDER = "runs/tasks"
GROUPS = 4_096  # at most: some 100 kB of a job graph, and as many workers as can be busy at once

Group = tuple[int, int]  # offset and length in the file


@dataclass(frozen=True)
class TaskList:
    """A file of tasks.

    Attributes:
        corpus: the corpus's folder.
        url: of a corpus in an object store; empty for one of this machine.
        path: of the file, below the corpus.
        shared: place of the value that all tasks share, behind all groups.
        tables: into which the receipts of the tasks are folded; 0 for a small job.
    """

    corpus: str
    url: str
    path: str
    shared: Group
    tables: int

    def table_of(self, group: Group) -> int:
        """Return the number of the table for the receipts of a group's tasks."""
        return group[0] * self.tables // self.shared[0]

    def read_shared(self) -> Any:
        """Return the value that all tasks share, read once a process."""
        return _read_shared(self.corpus, self.url, self.path, self.shared)

    def read(self, place: Group) -> Any:
        """Return a group of tasks, or the one task that lies there."""
        return pickle.loads(_read(self.corpus, self.url, self.path, place))


@dataclass
class TaskWriter:
    """A task list that is being written, group by group."""

    corpus: Path
    path: str
    file: BinaryIO
    is_stored: bool = False

    def add(
        self, tasks: Sequence[Any], complete: Callable[[Any], Any] = lambda task: task, most: int = GROUPS
    ) -> list[Group]:
        """Write tasks, dealt out to groups so that these take equally long, and return the groups.

        Args:
            tasks: in the order in which they are to begin. They can be pickled.
            complete: returns what stands in the file for a task; called when it is written, so that not all are held.
            most: groups.
        """
        count = min(most, len(tasks))
        return [self.write([complete(task) for task in tasks[number::count]]) for number in range(count)]

    def close(self, shared: Any, folded: int = 0) -> TaskList:
        """Write what all tasks share, which can be pickled, and return the list. `folded`: receipts that are folded."""
        place, mirror = self.write(shared), mirror_of(self.corpus)
        self.file.close()
        if mirror is not None:
            mirror.push([self.path])
            self.is_stored = True
        url = mirror.storage.url if mirror is not None else ""
        return TaskList(str(self.corpus), url, self.path, place, count_tables(folded))

    def write(self, value: Any) -> Group:
        """Write a value that can be pickled, such as one task, and return its place."""
        start = self.file.tell()
        pickle.dump(value, self.file)
        return start, self.file.tell() - start


@contextlib.contextmanager
def task_list(corpus: Path) -> Iterator[TaskWriter]:
    """Open a task list for writing; its file lasts as long as the block."""
    relative, mirror = f"{FOLDER}/{uuid.uuid4().hex}", mirror_of(corpus)
    path = corpus / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = TaskWriter(corpus, relative, path.open("wb"))
    try:
        with writer.file:
            yield writer
    finally:
        path.unlink(missing_ok=True)
        if mirror is not None and writer.is_stored:
            mirror.storage.remove(relative)


@lru_cache(maxsize=2)
def _read_shared(corpus: str, url: str, path: str, place: Group) -> Any:
    return pickle.loads(_read(corpus, url, path, place))


def _read(corpus: str, url: str, path: str, place: Group) -> bytes:
    if url:
        open_mirror(Path(corpus), url)
    with fetch(Path(corpus), path).open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


def read_all(corpus: Path) -> Iterator[Any]:
    """Yield the groups of the one task list that lies in a corpus, then what all its tasks share."""
    (path,) = (corpus / FOLDER).iterdir()
    with path.open("rb") as file, contextlib.suppress(EOFError):
        while True:
            yield pickle.load(file)


def remove_task_lists(corpus: Path) -> None:
    """Remove the files of a killed run."""
    shutil.rmtree(corpus / FOLDER, ignore_errors=True)
    mirror = mirror_of(corpus)
    if mirror is not None:
        for entry in mirror.storage.list_files(FOLDER):
            mirror.storage.remove(entry.path)
