"""Find and quarantine records that crash the Python interpreter when they are read.

An exception handler cannot skip such a record. So a task in whose process the interpreter died runs again alone, in a
new process that writes the position of each record to a file before it reads the record (`perform_alone`). If the
process dies at the same record twice, the record is added to the quarantine file of the corpus. Then the run continues,
and readers drop the record without reading it, under the reason `quarantined`. The quarantined records of a unit count
in its fingerprint, so a corpus is a function of dumps, recipe and quarantine file.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filters.errors import UserError
from manifests.document import Locator
from manifests.files import canonical_json, write_atomic
from pipeline.beam.pool import CRASHES, WorkerCrashedError, WorkerDiedError

FILE = "quarantine.jsonl"  # name of the quarantine file in the corpus's folder
# Files in the temporary folder of a task that runs alone: the call, its result, and the record that is being read.
CALL, ENDED, RECORD = "call.pickle", "ended.pickle", "record.json"
TRIES = 2  # A record is quarantined only after two crashes at this record, because an interpreter may die by chance.
MOST_CRASHES = 20  # Crashes per run. If there are more, the machine or a library is faulty, and not the records.


@dataclass(frozen=True, order=True)
class Place:
    """The position of a quarantined record, with the same fields as its locator.

    `member` may be longer than the member of the locator with which the reader asks for the record; the locator's
    member is then a prefix of `member`.
    """

    source: str
    file: str
    offset: int
    length: int
    member: str = ""
    inner_offset: int = 0


class RecordCrashedError(Exception):
    """A record killed the interpreter. The only argument is the record's line in the quarantine file."""

    @property
    def place(self) -> Place:
        """The position of the record."""
        return Place(**json.loads(self.args[0]))


def line_of(place: Place) -> str:
    """Return a record's line in the quarantine file, without a newline."""
    return canonical_json(asdict(place)).decode().rstrip("\n")


def read_quarantine(path: Path) -> frozenset[Place]:
    """Return the positions in a quarantine file. The result is empty if the file does not exist.

    Raises:
        UserError: the file cannot be read, or is no quarantine file.
    """
    try:
        return frozenset(Place(**json.loads(line)) for line in path.read_text("utf-8").splitlines())
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a quarantine file ({error}): give {FILE} of a corpus") from error


def write_quarantine(path: Path, places: Iterable[Place]) -> None:
    """Write a quarantine file."""
    write_atomic(path, "".join(f"{line_of(place)}\n" for place in sorted(places)).encode())


def record_crash(path: Path, held: frozenset[Place], error: Exception, crashes: int) -> frozenset[Place]:
    """Return the quarantined records for the next attempt of a run after a crash.

    Args:
        path: the corpus's quarantine file. If the error names a record, the record is added to this file.
        held: the quarantined records so far.
        error: a WorkerCrashedError, after which the task will run alone, or a RecordCrashedError, which names a record.
        crashes: number of earlier crashes of this run.

    Raises:
        WorkerDiedError: another attempt would not help.
    """
    if isinstance(error, WorkerCrashedError):
        if crashes >= MOST_CRASHES:
            raise error
        return held
    assert isinstance(error, RecordCrashedError)
    if error.place in held or crashes >= MOST_CRASHES:
        why = "although it is quarantined" if error.place in held else f"as {crashes} others did before it"
        raise WorkerDiedError(
            f"{error.place.source}/{error.place.file}: the record at byte {error.place.offset} kills the interpreter, "
            f"{why}: check this machine and its libraries, then run the same command again"
        )
    write_quarantine(path, held | {error.place})
    return held | {error.place}


def places_within(places: Iterable[Place], source: str, file: str, start: int, end: int) -> tuple[Place, ...]:
    """Return the quarantined records of a split, sorted.

    Args:
        places: all quarantined records.
        source: name of the split's source.
        file: the split's file.
        start: offset of the split's first stored byte.
        end: offset after the split's last stored byte.
    """
    return tuple(sorted(p for p in places if (p.source, p.file) == (source, file) and start <= p.offset < end))


Key = tuple[str, int, int, int]  # file, offset, length and inner offset of a record
_members: ContextVar[Mapping[Key, tuple[str, ...]]] = ContextVar("_members")  # members of the quarantined records
_note: ContextVar[int] = ContextVar("_note")  # descriptor of the file that contains the position of the current record


@contextlib.contextmanager
def drop_quarantined(places: Iterable[Place]) -> Iterator[None]:
    """Make `is_quarantined` return True for these records while the `with` block runs, so that readers drop them."""
    members: dict[Key, tuple[str, ...]] = {}
    for place in places:
        key = (place.file, place.offset, place.length, place.inner_offset)
        members[key] = (*members.get(key, ()), place.member)
    token = _members.set(members)
    try:
        yield
    finally:
        _members.reset(token)


@contextlib.contextmanager
def note_current_record(path: Path) -> Iterator[None]:
    """Keep the position of the record that is being read in a file while the `with` block runs."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    token = _note.set(descriptor)
    try:
        yield
    finally:
        _note.reset(token)
        os.close(descriptor)


def is_quarantined(locator: Locator) -> bool:
    """Return True if a record must be dropped without reading it. Readers call this before they read a record.

    In a task that runs alone, the position of the record is also written to the file of the current record.
    """
    if is_noting():
        note_record(locator)
    held = _members.get({})
    if not held:
        return False
    key = (locator.file, locator.offset, locator.length, locator.inner_offset)
    return any(member.startswith(locator.member) for member in held.get(key, ()))


def is_noting() -> bool:
    """Return True if positions of records are written to a file, because the task runs alone to find a bad record."""
    return _note.get(-1) >= 0


def note_record(locator: Locator) -> None:
    """Write the position of the record that is read next to the file of the current record."""
    place = Place("", locator.file, locator.offset, locator.length, locator.member, locator.inner_offset)
    _write(canonical_json(asdict(place)))


def forget_record() -> None:
    """Empty the file of the current record: no record is being read, so a later crash is not attributed to one."""
    if is_noting():
        _write(b"")


def _write(data: bytes) -> None:
    """Replace the content of the file of the current record."""
    descriptor = _note.get()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)


def perform_alone(task: Any, blocks: tuple[Any, ...], job: Any) -> Mapping[str, int]:
    """Run a task in a separate process and return its counts, or find the record that crashes the process.

    This works inside the workers of any engine, including daemon processes.

    Args:
        task: a `pipeline.beam.step.Task`.
        blocks: the blocks of a reducer; empty for other tasks.
        job: a `pipeline.beam.task.Job`.

    Raises:
        RecordCrashedError: the process died at the same record in all tries.
        WorkerDiedError: the process was killed from outside, or it died when it was not reading a record.
        OSError: the process died because a memory-mapped file cannot be read. The record is not the cause.
        Exception: the exception that the task raised.
    """
    found = set[Place | None]()
    for _ in range(TRIES):
        code, place, ended = _run(task, blocks, job)
        if isinstance(ended, Exception):
            raise ended
        if ended is not None:
            return ended
        found.add(place)
        if -code == signal.SIGBUS:
            _check_mapped(job.arguments_of(task).get("path"))
        if -code not in CRASHES or place is None or len(found) > 1:
            raise WorkerDiedError(_sentence(task, code, place))
    (place,) = found
    assert place is not None, "otherwise WorkerDiedError was raised above"
    raise RecordCrashedError(line_of(replace(place, source=task.source or task.name.partition("/")[0])))


def _run(
    task: Any, blocks: tuple[Any, ...], job: Any
) -> tuple[int, Place | None, Mapping[str, int] | Exception | None]:
    """Run a task in a new process.

    Returns:
        The exit code; the record that the process was reading, or None; and the counts of the task or the exception
        that it raised, or None if the process died.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / CALL).write_bytes(pickle.dumps((task, blocks, job)))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", f"from {__name__} import run_call; run_call()", scratch]
        # The new process reads its stdin, so that it notices when this process has ended (`_follow_parent`).
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
            try:
                code = process.wait()
            finally:
                process.kill()
        noted, ended = (path.read_bytes() if path.exists() else b"" for path in (folder / RECORD, folder / ENDED))
    return code, Place(**json.loads(noted)) if noted else None, pickle.loads(ended) if code == 0 and ended else None


def _check_mapped(path: Any) -> None:
    """Raise OSError if a file cannot be read. If such a file is memory-mapped, reading it causes SIGBUS."""
    if isinstance(path, str):
        with Path(path).open("rb") as file:
            while file.read(1 << 20):
                pass


def _sentence(task: Any, code: int, place: Place | None) -> str:
    """Return the message for a task whose process died for a reason that is not one record."""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    where = f" at {place.file}, byte {place.offset}" if place is not None else ", at no record that can be named"
    return (
        f"stage {task.step}, {task.name}: the interpreter died twice, the second time alone in a fresh process "
        f"({how}{where}): see runs/ of the corpus for the workers' output; after SIGKILL, give more memory. The same "
        "command continues"
    )


def run_call() -> None:
    """Run the task in the folder that the command line names, and write its counts or exception to the same folder."""
    from pipeline.beam.task import attempt  # imported here, because that module imports this one

    folder = Path(sys.argv[1])
    threading.Thread(target=_follow_parent, daemon=True).start()
    task, blocks, job = pickle.loads((folder / CALL).read_bytes())
    ended: Mapping[str, int] | Exception
    try:
        with note_current_record(folder / RECORD):
            ended = attempt(task, blocks, job)
    except Exception as error:
        ended = error
    (folder / ENDED).write_bytes(pickle.dumps(ended))


def _follow_parent() -> None:
    """End this process when its parent process has ended, because nothing would record its outputs any more."""
    os.read(0, 1)  # not sys.stdin: the lock of its buffer would abort this process at exit
    os._exit(1)
