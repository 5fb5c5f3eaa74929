"""Records that kill the interpreter: the file that lists them, and the record that a task is reading.

No code can drop a record whose reading kills the interpreter. So a task in whose process the interpreter died runs
again alone, in a fresh process that notes each record before it is read (`perform_alone`). If that process dies
at the same record twice, the record goes into the quarantine file of the corpus, readers drop it unread under the
reason `quarantined`, and the run goes on. The entries that concern a unit count in its fingerprint, so that a corpus is
a function of dumps, recipe and quarantine file.
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

FILE = "quarantine.jsonl"  # below the corpus
CALL, ENDED, RECORD = "call.pickle", "ended.pickle", "record.json"  # in the folder of a task that runs alone
TRIES = 2  # an interpreter may die by chance: a record is blamed only if it dies at the same one again
MOST_CRASHES = 20  # of one run: more are no fault of records, but of this machine or of a library


@dataclass(frozen=True, order=True)
class Place:
    """The place of a quarantined record, as in its locator; `member` may be longer than that of the reader."""

    source: str
    file: str
    offset: int
    length: int
    member: str = ""
    inner_offset: int = 0


class RecordCrashedError(Exception):
    """A record killed the interpreter; the only argument is its line for the quarantine file."""

    @property
    def place(self) -> Place:
        """The record's place."""
        return Place(**json.loads(self.args[0]))


def line_of(place: Place) -> str:
    """Return a record's line of the quarantine file."""
    return canonical_json(asdict(place)).decode().rstrip("\n")


def read_quarantine(path: Path) -> frozenset[Place]:
    """Return the records of a quarantine file, none if there is no such file. Raises UserError for another file."""
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
    """Return the quarantined records after a crash, which is to be followed by another attempt.

    Args:
        path: the corpus's quarantine file, which gets the record that is to blame, if there is one yet.
        held: the quarantined records so far.
        error: a WorkerCrashedError, whose task will run alone now, or a RecordCrashedError.
        crashes: earlier crashes of this run.

    Raises:
        WorkerDiedError: another attempt is of no use.
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
    """Return the quarantined records of a split: stored bytes from `start` to `end` of a file."""
    return tuple(sorted(p for p in places if (p.source, p.file) == (source, file) and start <= p.offset < end))


Key = tuple[str, int, int, int]
_members: ContextVar[Mapping[Key, tuple[str, ...]]] = ContextVar("_members")  # of the task's quarantined records
_note: ContextVar[int] = ContextVar("_note")  # descriptor of the file for the record at hand


@contextlib.contextmanager
def drop_quarantined(places: Iterable[Place]) -> Iterator[None]:
    """Let readers drop these records while the block runs."""
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
    """Keep the place of the record that is being read in a file while the block runs."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    token = _note.set(descriptor)
    try:
        yield
    finally:
        _note.reset(token)
        os.close(descriptor)


def is_quarantined(locator: Locator) -> bool:
    """Note the record that is about to be read, and return True if it must be dropped unread."""
    if is_noting():
        note_record(locator)
    held = _members.get({})
    if not held:
        return False
    key = (locator.file, locator.offset, locator.length, locator.inner_offset)
    return any(member.startswith(locator.member) for member in held.get(key, ()))


def is_noting() -> bool:
    """Return True in a task that runs alone to find the record that kills the interpreter."""
    return _note.get(-1) >= 0


def note_record(locator: Locator) -> None:
    """Note the record that is about to be read."""
    place = Place("", locator.file, locator.offset, locator.length, locator.member, locator.inner_offset)
    _write(canonical_json(asdict(place)))


def forget_record() -> None:
    """Note that no record is being read: a death from here on cannot be blamed on one."""
    if is_noting():
        _write(b"")


def _write(data: bytes) -> None:
    descriptor = _note.get()
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)


def perform_alone(task: Any, blocks: tuple[Any, ...], job: Any) -> Mapping[str, int]:
    """Run a task in a process of its own, find the record that kills it, else return the task's counts.

    It works inside any engine's worker, daemons included.

    Args:
        task: a `pipeline.beam.step.Task`.
        blocks: of a reducer.
        job: a `pipeline.beam.task.Job`.

    Raises:
        RecordCrashedError: the process died at the same record in all tries.
        WorkerDiedError: it was killed from outside, or died at no record that can be named.
        OSError: it died of a mapped file that cannot be read, which says nothing about the record.
        Exception: what the task raised.
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
    assert place is not None, "else it was raised above"
    raise RecordCrashedError(line_of(replace(place, source=task.source or task.name.partition("/")[0])))


def _run(
    task: Any, blocks: tuple[Any, ...], job: Any
) -> tuple[int, Place | None, Mapping[str, int] | Exception | None]:
    """Return the exit code of a process that runs the task, the record that it was at, and what came of the task."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / CALL).write_bytes(pickle.dumps((task, blocks, job)))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", f"from {__name__} import run_call; run_call()", scratch]
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:  # a pipe to follow us by
            try:
                code = process.wait()
            finally:
                process.kill()
        noted, ended = (path.read_bytes() if path.exists() else b"" for path in (folder / RECORD, folder / ENDED))
    return code, Place(**json.loads(noted)) if noted else None, pickle.loads(ended) if code == 0 and ended else None


def _check_mapped(path: Any) -> None:
    """Raise OSError if a file cannot be read: reading it through a map of memory would end in SIGBUS."""
    if isinstance(path, str):
        with Path(path).open("rb") as file:
            while file.read(1 << 20):
                pass


def _sentence(task: Any, code: int, place: Place | None) -> str:
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    where = f" at {place.file}, byte {place.offset}" if place is not None else ", at no record that can be named"
    return (
        f"stage {task.step}, {task.name}: the interpreter died twice, the second time alone in a fresh process "
        f"({how}{where}): see runs/ of the corpus for what workers said; with SIGKILL give more memory. The same "
        "command goes on from here"
    )


def run_call() -> None:
    """Run the task that `perform_alone` has written to the folder of the command line, and write what it returns."""
    from pipeline.beam.task import attempt  # here: that module imports this one

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
    """End when the process that started this one has ended: nobody would know of what is written later."""
    os.read(0, 1)  # without Python's buffer, whose lock would abort this process at its end
    os._exit(1)
