"""Tasks run alone: a process of its own for a task in whose process the interpreter died before.

`perform_alone` starts `python -m pipeline.beam.alone FOLDER`, whose folder holds the pickled call and gets the place of
the record at hand, and what the task returned or raised. It works inside any engine's worker, daemons included.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.beam.pool import CRASHES, WorkerDiedError
from pipeline.beam.quarantine import Place, RecordCrashedError, line_of, noting

CALL, ENDED, RECORD = "call.pickle", "ended.pickle", "record.json"
TRIES = 2  # an interpreter may die by chance: a record is blamed only if it dies at the same one again


def perform_alone(task: Any, blocks: tuple[Any, ...], job: Any) -> Mapping[str, int]:
    """Run a task in a process of its own, find the record that kills it, else return the task's counts.

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
        command = [sys.executable, "-m", "pipeline.beam.alone", scratch]
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:  # a pipe to follow us by
            try:
                code = process.wait()
            finally:
                process.kill()
        noted, ended = (path.read_bytes() if path.exists() else b"" for path in (folder / RECORD, folder / ENDED))
    return code, Place(**json.loads(noted)) if noted else None, pickle.loads(ended) if code == 0 and ended else None


def _check_mapped(path: str | None) -> None:
    """Raise OSError if a file cannot be read: reading it through a map of memory would end in SIGBUS."""
    if path is not None:
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


def _main(folder: Path) -> None:
    from pipeline.beam.task import attempt  # here: that module imports this one

    threading.Thread(target=_follow_parent, daemon=True).start()
    task, blocks, job = pickle.loads((folder / CALL).read_bytes())
    ended: Mapping[str, int] | Exception
    try:
        with noting(folder / RECORD):
            ended = attempt(task, blocks, job)
    except Exception as error:
        ended = error
    (folder / ENDED).write_bytes(pickle.dumps(ended))


def _follow_parent() -> None:
    """End when the process that started this one has ended: nobody would know of what is written later."""
    os.read(0, 1)  # without Python's buffer, whose lock would abort this process at its end
    os._exit(1)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
