"""Write the tasks of a job to a file, from which workers read them, so that the job graph is small.

The graph has at most `GROUPS` elements for each turn of the job. An element is the location of a group of tasks in the
file.
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
# Most groups per turn of a job. They take about 100 kB of the job graph. At most this many workers are busy at a time.
GROUPS = 4_096

Group = tuple[int, int]  # the location of a group of tasks: offset and length in the file, in bytes


@dataclass(frozen=True)
class TaskList:
    """A file of tasks.

    Attributes:
        corpus: the corpus's folder.
        url: the corpus's URL in an object store; empty if the corpus is on this machine's disk.
        path: path of the file, below the corpus.
        shared: location of the value that all tasks share. It is at the end of the file, after all groups.
        tables: number of tables into which the receipts of the tasks are folded; 0 for a small job.
    """

    corpus: str
    url: str
    path: str
    shared: Group
    tables: int

    def table_of(self, group: Group) -> int:
        """Return the number of the table that gets the receipts of a group's tasks."""
        return group[0] * self.tables // self.shared[0]

    def read_shared(self) -> Any:
        """Return the value that all tasks share. It is read once per process."""
        return _read_shared(self.corpus, self.url, self.path, self.shared)

    def read(self, place: Group) -> Any:
        """Return the group of tasks, or the single task, at a location in the file."""
        return pickle.loads(_read(self.corpus, self.url, self.path, place))


@dataclass
class TaskWriter:
    """The writer of a task list.

    Attributes:
        corpus: the corpus's folder.
        path: path of the file, below the corpus.
        file: the open file.
        is_stored: True after the file has been copied to the corpus's object store.
    """

    corpus: Path
    path: str
    file: BinaryIO
    is_stored: bool = False

    def add(
        self, tasks: Sequence[Any], complete: Callable[[Any], Any] = lambda task: task, most: int = GROUPS
    ) -> list[Group]:
        """Distribute tasks over groups round robin, so that groups take similar times, and write the groups.

        Args:
            tasks: tasks in the order in which they should begin.
            complete: returns the object that is pickled for a task. It is called when the group is written, so that
                not all objects are in memory.
            most: the largest number of groups.

        Returns:
            The locations of the groups.
        """
        count = min(most, len(tasks))
        return [self.write([complete(task) for task in tasks[number::count]]) for number in range(count)]

    def close(self, shared: Any, folded: int = 0) -> TaskList:
        """Write the value that all tasks share, close the file, and return the task list.

        Args:
            shared: the value, which can be pickled.
            folded: number of tasks in groups that have not finished. Their receipts are folded if there are many.
        """
        place, mirror = self.write(shared), mirror_of(self.corpus)
        self.file.close()
        if mirror is not None:
            mirror.push([self.path])
            self.is_stored = True
        url = mirror.storage.url if mirror is not None else ""
        return TaskList(str(self.corpus), url, self.path, place, count_tables(folded))

    def write(self, value: Any) -> Group:
        """Pickle a value, such as a task, at the end of the file, and return its location."""
        start = self.file.tell()
        pickle.dump(value, self.file)
        return start, self.file.tell() - start


@contextlib.contextmanager
def task_list(corpus: Path) -> Iterator[TaskWriter]:
    """Open a task list for writing. Its file is removed when the `with` block ends."""
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
    """Return the shared value of a task list. The cache keeps the values of the last two task lists."""
    return pickle.loads(_read(corpus, url, path, place))


def _read(corpus: str, url: str, path: str, place: Group) -> bytes:
    """Read bytes of a task list. If the corpus is in an object store, the file is fetched first."""
    if url:
        open_mirror(Path(corpus), url)
    with fetch(Path(corpus), path).open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


def read_all(corpus: Path) -> Iterator[Any]:
    """Yield the groups of the only task list in a corpus, and then the value that all its tasks share."""
    (path,) = (corpus / FOLDER).iterdir()
    with path.open("rb") as file, contextlib.suppress(EOFError):
        while True:
            yield pickle.load(file)


def remove_task_lists(corpus: Path) -> None:
    """Remove the task lists that a killed run has left, here and in the object store."""
    shutil.rmtree(corpus / FOLDER, ignore_errors=True)
    mirror = mirror_of(corpus)
    if mirror is not None:
        for entry in mirror.storage.list_files(FOLDER):
            mirror.storage.remove(entry.path)
