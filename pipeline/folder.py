"""Manage the output folder of a run: create or refuse it, lock it, and write the times of tasks.

If the corpus is in an object store, the folder is its mirror. The files that the driver writes are downloaded when a
run begins and uploaded when it ends. Receipts are downloaded when their step begins. Tasks transfer all other files.
"""

import contextlib
import fcntl
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from filters.errors import UserError
from manifests.files import canonical_json, relative_files, write_atomic
from manifests.manifest import FILE, SHA_FILE
from manifests.mirror import Mirror, mirror_of
from manifests.recipe import CODE, RECIPE_FILE
from manifests.storage import Storage
from pipeline.beam import progress, quarantine
from pipeline.beam.engines import Engine
from pipeline.beam.job import LOG
from pipeline.beam.marks import BEGUN, remove_published
from pipeline.beam.receipts import RECEIPTS, remove_temporaries
from pipeline.beam.tasklist import remove_task_lists
from pipeline.lease import HEARTBEATS, LEASES, is_leased, leased

STATUS = f"runs/{progress.FILE}"
LOCK = "runs/lock"  # The first file of a corpus.
LOCK_SECONDS = 1.0  # Seconds to wait for the lock, because `is_held` may hold it for a moment.

# JSON files by which a corpus is recognised, and keys that they must have. The name of a folder `runs` is not enough.
MARKS = {
    LOCK: {"teratoken_corpus"},
    STATUS: {"started", "state", "steps"},
    FILE: {"manifest_sha", "ledger"},
}

# Files that the driver writes, not a task, in the order in which they are uploaded.
DRIVER_FILES = (
    *(RECIPE_FILE, quarantine.FILE, "ledger.json", "report.html"),
    *(SHA_FILE, FILE),
)


def prepare(corpus: Path) -> None:
    """Create the output folder and its lock file.

    Raises:
        UserError: The folder has files that are not a corpus, or cannot be written. A run removes files that do not
            belong to the corpus, so it must not use a folder with other files.
    """
    try:
        if corpus.exists() and not corpus.is_dir():
            raise UserError(f"--output {corpus} is a file: give a folder")
        is_known = mirror_of(corpus) is not None  # For a corpus in an object store, `_leased` checks the store.
        if not is_known and _holds_files(corpus) and not is_corpus(lambda name: (corpus / name).read_bytes()):
            raise UserError(f"--output {corpus} holds files that are not a corpus: give a new or empty folder")
        (corpus / RECEIPTS).mkdir(parents=True, exist_ok=True)
        (corpus / LOCK).parent.mkdir(exist_ok=True)
        (corpus / LOCK).touch()
        with (corpus / LOCK).open("r+b") as file:  # "r+b" does not truncate: another run may write it at the same time.
            file.write(canonical_json(dict.fromkeys(MARKS[LOCK], 1)))
    except OSError as error:
        raise UserError(f"--output {corpus} cannot be written ({error.strerror}): give another folder") from error


def is_corpus(read: Callable[[str], bytes]) -> bool:
    """Return True if a folder has a file of a corpus. `read` returns the content of a file, or raises OSError."""
    for name, keys in MARKS.items():
        with contextlib.suppress(OSError, ValueError):
            plain = json.loads(read(name))
            if isinstance(plain, dict) and keys <= plain.keys():
                return True
    return False


def _holds_files(corpus: Path) -> bool:
    """Return True if a folder has a file other than the lock file; empty folders do not count. Raises OSError."""

    def fail(error: OSError) -> None:
        raise error

    paths = (Path(folder, name) for folder, _, names in os.walk(corpus, onerror=fail) for name in names)
    return corpus.is_dir() and any(path != corpus / LOCK for path in paths)


def refuse_changed(corpus: Path) -> None:
    """Raise UserError if the corpus was changed by `append` or `remove`, because a run would undo the change."""
    try:
        parent = json.loads((corpus / FILE).read_bytes()).get("parent")
    except (FileNotFoundError, ValueError, AttributeError):
        return
    if parent:
        raise UserError(
            f"{corpus} was changed after its run (by `append` or `remove`), which a new run would undo: append to it "
            "with `python -m pipeline append`, or give another --output"
        )


@contextlib.contextmanager
def locked(corpus: Path) -> Iterator[Callable[[], None]]:
    """Lock the output folder while the block runs, so that no second run can write it.

    The operating system releases the lock when the process ends, also after a crash.

    Yields:
        A function that raises StorageError if another run has taken the lease of a corpus in an object store.

    Raises:
        UserError: Another run is writing the corpus, or the folder cannot be used.
    """
    prepare(corpus)
    with (corpus / LOCK).open("r+b") as file:
        _lock(corpus, file)
        try:
            mirror = mirror_of(corpus)
            lock = _leased(corpus, mirror) if mirror is not None else contextlib.nullcontext(lambda: None)
            with lock as check_lock:  # A lock on a local folder cannot be lost, so there the function does nothing.
                yield check_lock
        except UserError:
            if not _holds_files(corpus):  # The run was refused before it wrote a file, so the folder is not a corpus.
                file.truncate(0)
            raise


def _lock(corpus: Path, file: BinaryIO) -> None:
    """Lock the lock file of a corpus exclusively. Try for `LOCK_SECONDS`, because `is_held` locks it for a moment.

    Raises:
        UserError: Another run holds the lock, or the file system has no locks.
    """
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise UserError(f"another run is writing {corpus}: wait for it, or give another --output") from error
            time.sleep(LOCK_SECONDS / 20)
        except OSError as error:
            raise UserError(
                f"--output {corpus} cannot be locked ({error.strerror}): give a folder of a file system with locks"
            ) from error


@contextlib.contextmanager
def _leased(corpus: Path, mirror: Mirror) -> Iterator[Callable[[], None]]:
    """Hold the lease on a corpus in an object store, and download the driver's files.

    Yields:
        A function that raises StorageError if another run has taken the lease.
    """
    store = mirror.storage
    if not is_corpus(store.read) and _holds_objects(store):
        raise UserError(f"--output {store.url} holds files that are not a corpus: give an empty one")
    with leased(store, partial(mirror.push, [STATUS])) as lease:
        shutil.rmtree(corpus / RECEIPTS, ignore_errors=True)  # Receipts are downloaded when their step begins.
        mirror.pull(CODE)
        for name in DRIVER_FILES:
            (corpus / name).unlink(missing_ok=True)
        mirror.fetch_all(DRIVER_FILES)
        yield lease.check


def _holds_objects(store: Storage) -> bool:
    """Return True if a store has files other than the ones that a refused run may have written."""
    if not store.list_files(LEASES):
        return not store.is_empty()  # This needs one request. Listing all files may take long.
    return not all(entry.path.startswith((LEASES, HEARTBEATS, "inputs/")) for entry in store.list_files())


def publish(corpus: Path, started: str) -> None:
    """Upload the driver's files of a run, the manifest last. Do nothing for a local corpus."""
    mirror = mirror_of(corpus)
    if mirror is not None:
        mirror.push([f"runs/{started}.json", f"runs/{started}.log", STATUS, *DRIVER_FILES])


def publish_code(corpus: Path) -> None:
    """Upload the lock file and the user's own modules, which workers import. Do nothing for a local corpus."""
    mirror = mirror_of(corpus)
    if mirror is not None:
        mirror.push([LOCK])
        mirror.push(f"{CODE}/{name}" for name in relative_files(corpus / CODE) if name.endswith(".py"))


def is_held(corpus: Path) -> bool:
    """Return True if a run on this machine holds the lock, or a run on any machine has the lease of an object store."""
    mirror = mirror_of(corpus)
    try:
        with (corpus / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except OSError:
        return True
    return mirror is not None and is_leased(mirror.storage)


def refresh_status(corpus: Path) -> None:
    """Download the status of the last run, if the corpus is in an object store."""
    mirror = mirror_of(corpus)
    if mirror is not None:
        with contextlib.suppress(FileNotFoundError):
            mirror.storage.download(STATUS, corpus / STATUS)


def write_timings(corpus: Path, started: str, engine: Engine) -> None:
    """Write the times of the jobs and tasks to `runs/<start>.json`, and move the log to `runs/<start>.log`.

    No hash covers these files.
    """
    parts = sorted(engine.timings.glob("*.json")) if engine.timings.is_dir() else []
    records = [json.loads(part.read_bytes()) for part in parts]
    record = {
        "started": started,
        "ended": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "workers": engine.workers,
        "runner": engine.runner,
        "jobs": [record for record in records if "job" in record],
        "tasks": [record for record in records if "task" in record],
    }
    if parts:
        write_atomic(corpus / "runs" / f"{started}.json", canonical_json(record))
    log = engine.timings / LOG
    if log.exists() and log.stat().st_size:
        log.replace(corpus / "runs" / f"{started}.log")
    shutil.rmtree(engine.timings, ignore_errors=True)


def clear_killed_run(corpus: Path, engine: Engine) -> None:
    """Remove temporary files and task lists of a killed run, and move its start marks to this run.

    A start mark names a task that was running. The task may be the reason why the run was killed.
    """
    remove_temporaries(corpus)
    remove_task_lists(corpus)
    for mark in sorted((corpus / "runs").glob(f"*.parts/{BEGUN}/*.json")):
        (engine.timings / BEGUN).mkdir(parents=True, exist_ok=True)
        mark.replace(engine.timings / BEGUN / mark.name)
    mirror = mirror_of(corpus)
    if mirror is not None:
        remove_published(mirror)
