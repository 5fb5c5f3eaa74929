"""The tasks of a job, in a file that workers read: a job graph stays small, whatever the number of tasks.

The graph holds at most `GROUPS` elements, each the place of a group of tasks in the file.
"""

import contextlib
import pickle
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from manifests.files import atomic_path
from manifests.mirror import fetch, mirror_of, open_mirror
from pipeline.beam.folded import tables_for

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
        first: offset of the first group: the value that all tasks share lies before.
        end: offset of the file's end.
        tables: into which the receipts of the tasks are folded; 0 for a small job.
        groups: of tasks, in the order in which they are to begin.
    """

    corpus: str
    url: str
    path: str
    first: int
    end: int
    tables: int
    groups: tuple[Group, ...]

    def __getstate__(self) -> tuple[Any, ...]:
        """Leave the groups out: workers get them one by one."""
        return self.corpus, self.url, self.path, self.first, self.end, self.tables

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Read what `__getstate__` packed."""
        for name, value in zip(("corpus", "url", "path", "first", "end", "tables"), state, strict=True):
            object.__setattr__(self, name, value)

    def table_of(self, group: Group) -> int:
        """Return the number of the table for the receipts of a group's tasks."""
        return (group[0] - self.first) * self.tables // (self.end - self.first)

    def read_shared(self) -> Any:
        """Return the value that all tasks share, read once a process."""
        return _read_shared(self.corpus, self.url, self.path, self.first)

    def read_group(self, group: Group) -> list[Any]:
        """Return the tasks of a group."""
        made: list[Any] = pickle.loads(_read(self.corpus, self.url, self.path, *group))
        return made


@contextlib.contextmanager
def task_list(
    corpus: Path, shared: Any, tasks: Sequence[Any], complete: Callable[[Any], Any] = lambda task: task, folded: int = 0
) -> Iterator[TaskList]:
    """Write tasks to a file that lasts as long as the block.

    Args:
        corpus: the corpus.
        shared: what all tasks share. It can be pickled.
        tasks: in the order in which they are to begin. They can be pickled.
        complete: returns what stands in the file for a task; called when it is written, so that not all are held.
        folded: the number of receipts that are folded.
    """
    mirror = mirror_of(corpus)
    relative = f"{FOLDER}/{uuid.uuid4().hex}"
    path = corpus / relative
    count = min(GROUPS, len(tasks))
    groups = []
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        first = file.write(pickle.dumps(shared))
        for number in range(count):
            packed = pickle.dumps([complete(task) for task in tasks[number::count]])  # so that groups take equally long
            groups.append((file.tell(), file.write(packed)))
        end = file.tell()
    if mirror is not None:
        mirror.push([relative])
    try:
        url = mirror.storage.url if mirror else ""
        yield TaskList(str(corpus), url, relative, first, end, tables_for(folded), tuple(groups))
    finally:
        path.unlink(missing_ok=True)
        if mirror is not None:
            mirror.storage.remove(relative)


@lru_cache(maxsize=2)
def _read_shared(corpus: str, url: str, path: str, length: int) -> Any:
    return pickle.loads(_read(corpus, url, path, 0, length))


def _read(corpus: str, url: str, path: str, offset: int, length: int) -> bytes:
    if url:
        open_mirror(Path(corpus), url)
    with fetch(Path(corpus), path).open("rb") as file:
        file.seek(offset)
        return file.read(length)


def remove_task_lists(corpus: Path) -> None:
    """Remove the files of a killed run."""
    shutil.rmtree(corpus / FOLDER, ignore_errors=True)
    mirror = mirror_of(corpus)
    if mirror is not None:
        for entry in mirror.storage.list_files(FOLDER):
            mirror.storage.remove(entry.path)
