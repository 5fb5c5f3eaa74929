"""Run one task in a worker: fetch its files, call the step's function, and write its receipt."""

import contextlib
import dataclasses
import itertools
import os
import pickle
import resource
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filters.errors import UserError
from manifests.files import canonical_json, sha256_file, sync_path, version_of, write_atomic
from manifests.ledger import total
from manifests.mirror import CHANGED, Mirror, fetch_url, is_url, open_mirror, trim_if_due
from manifests.recipe import add_user_code_path
from manifests.storage import Storage, StorageError, retry_storage
from pipeline.beam import counters
from pipeline.beam.marks import mark_running, start_mark_path
from pipeline.beam.pool import WorkerDiedError
from pipeline.beam.quarantine import RecordCrashedError, drop_quarantined, perform_alone
from pipeline.beam.receipts import read_finished, receipt_name
from pipeline.beam.step import Keyed, Output, Result, Task

# Files in which workers leave the message of an exception for the driver, because each engine wraps exceptions
# differently.
NOTICES: dict[type[Exception], str] = {
    UserError: "mistake.txt",
    StorageError: "failure.txt",
    RecordCrashedError: "crash.txt",
    WorkerDiedError: "death.txt",
}


@dataclass(frozen=True)
class Job:
    """The values that all tasks of a step share in a Beam job.

    Attributes:
        corpus: the corpus's folder.
        url: the corpus's URL in an object store; empty if the corpus is on this machine's disk.
        model_urls: pairs of the URL of a model and its version. Tasks fetch these models before they call the function.
        timings: the run's folder for times.
        function: the function of the step.
        settings: keyword arguments for all tasks.
        by_source: from source name to additional keyword arguments.
    """

    corpus: str
    url: str
    model_urls: tuple[tuple[str, str], ...]
    timings: str
    function: Callable[..., Any]
    settings: Mapping[str, Any]
    by_source: Mapping[str, Mapping[str, Any]]

    @property
    def mirror(self) -> Mirror | None:
        """The local mirror of a corpus in an object store; None if the corpus is on this machine's disk."""
        return open_mirror(Path(self.corpus), self.url) if self.url else None

    def __getstate__(self) -> tuple[str, str, bytes]:
        """Pickle the other values separately, so that a worker can import the user's modules before it reads them."""
        return (
            self.corpus,
            self.url,
            pickle.dumps((self.model_urls, self.timings, self.function, self.settings, self.by_source)),
        )

    def __setstate__(self, state: tuple[str, str, bytes]) -> None:
        """Find the user's modules in the corpus, and then unpickle the other values."""
        if state[1]:
            open_mirror(Path(state[0]), state[1])
        add_user_code_path(Path(state[0]))
        values = (*state[:2], *pickle.loads(state[2]))
        for one, value in zip(dataclasses.fields(self), values, strict=True):
            object.__setattr__(self, one.name, value)

    def call(self, task: Task, *blocks: Any) -> Any:
        """Call the step's function for one task."""
        with drop_quarantined(task.quarantine):
            return self.function(Path(self.corpus), task.name, *blocks, **self.arguments_of(task))

    def arguments_of(self, task: Task) -> dict[str, Any]:
        """Return the keyword arguments of the step's function for one task."""
        arguments = {**self.settings, **self.by_source.get(task.source, {}), **task.arguments}
        return {key: local_value(value, Path(self.corpus)) for key, value in arguments.items()}


def local_value(value: Any, corpus: Path) -> Any:
    """Return an argument as the step's function gets it: a `Keyed` as its value, and URLs as paths of local copies.

    Raises:
        OSError, StorageError: a file cannot be read, or has changed since the run began.
    """
    if not isinstance(value, Keyed):
        return value
    if not value.versions:
        return value.value
    places = [value.value] if isinstance(value.value, str) else value.value
    paths = [local_file(place, version, corpus) for place, version in zip(places, value.versions, strict=True)]
    return paths[0] if isinstance(value.value, str) else paths


def local_file(place: str, version: str, corpus: Path) -> str:
    """Return the path of a file, or of the local copy of a URL.

    Raises:
        OSError: the file cannot be read.
        StorageError: the file has another version, or the URL cannot be fetched.
    """
    if is_url(place):
        return str(fetch_url(place, version, corpus))
    if version_of(Path(place)) != version:
        raise StorageError(f"{place} {CHANGED}")
    return place


def perform(task: Task, *blocks: Any, job: Job) -> None:
    """Run one task, write its receipt, and write its times to the run's folder.

    If an earlier attempt started the task and did not end it, the task runs alone in a separate process.

    Args:
        task: the task.
        blocks: the blocks of a reducer, or the locations for a merge.
        job: the values that all tasks of the step share.

    Raises:
        UserError: the function found a mistake of the user.
        StorageError: a read or write failed repeatedly.
        RecordCrashedError: a record kills the interpreter.
        WorkerDiedError: the separate process died for another reason.
    """
    place = f"stage {task.step}, {task.name}"
    try:
        run = perform_alone if retry_storage(start_mark_path(Path(job.timings), task).exists, place) else attempt
        counters.add(retry_storage(partial(run, task, blocks, job), place))
    except tuple(NOTICES) as error:
        notice = next(name for kind, name in NOTICES.items() if isinstance(error, kind))
        with contextlib.suppress(OSError):  # if the disk is full, the exception still has the message
            write_atomic(Path(job.timings) / notice, str(error).encode())
        raise


def attempt(task: Task, blocks: tuple[Any, ...], job: Job) -> Mapping[str, int]:
    """Run one task in this process, write its receipt and return its counts. Raises OSError if storage fails."""
    root, timings, mirror = Path(job.corpus), Path(job.timings), job.mirror
    requests, fetched = Counter(Storage.requests), Storage.fetched_bytes
    with mark_running(timings, task, mirror):
        at, wall, processor = time.time(), time.perf_counter(), time.process_time()
        if mirror is not None:
            awaited = (output for one, path in task.awaited for output in read_finished(root, one).outputs_below(path))
            for path, sha256 in itertools.chain(task.files, ((one.path, one.sha256) for one in awaited)):
                mirror.fetch(path, sha256)
        for model, version in job.model_urls:
            fetch_url(model, version, root)
        try:
            result: Result = job.call(task, *blocks)
        except UserError as error:
            # A file that the driver could read, such as a model, cannot be read here. That is no mistake of the user.
            if isinstance(error.__cause__, OSError) and error.__cause__.errno:
                raise error.__cause__ from None
            raise
        written = write_receipt(root, task, result, mirror)
        whole = total(result.tallies.values())
        record = {
            "stage": task.step,
            "task": task.name,
            "at": at,
            "bytes": task.size,
            "seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - processor,
            "records": whole.entered["records"],
            "entered": dict(whole.entered),
            "out": dict(whole.out),
            "text_bytes": result.facts.get("text_bytes", {}),
            "written_bytes": written,
            "shuffled_bytes": result.shuffled,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "process": os.getpid(),
            "requests": dict(Storage.requests - requests),
            "fetched_bytes": Storage.fetched_bytes - fetched,
        }
        write_atomic(timings / f"{uuid.uuid4().hex}.json", canonical_json(record))
        return counters.counts_of(result.tallies)


def write_receipt(root: Path, task: Task, result: Result, mirror: Mirror | None) -> int:
    """Write the receipt of a task, and return the size of its outputs in bytes. Raises OSError, StorageError.

    The outputs are on the disk, or in the object store, before the receipt is. So all outputs of a receipt exist. A
    task without a receipt is run again.
    """
    outputs = [Output(path, (root / path).stat().st_size, sha256_file(root / path)) for path in sorted(result.paths)]
    plain = {
        "fingerprint": task.fingerprint,
        "outputs": [output._asdict() for output in outputs],
        "tallies": {source: tally.as_dict() for source, tally in result.tallies.items()},
        "facts": result.facts,
    }
    if mirror is None:
        for output in outputs:
            sync_path(root / output.path)
    receipt = receipt_name(task.step, task.name)
    write_atomic(root / receipt, canonical_json(plain))
    if mirror is not None:
        for output in outputs:
            mirror.publish(output.path, output.sha256)
        mirror.push([receipt])
        trim_if_due(root)
    return sum(output.bytes for output in outputs)
