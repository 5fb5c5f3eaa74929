"""One stage = one Beam job over tasks; a task = one split or bucket, with its files and its receipt.

A task's outputs are taken over from an earlier run only if its receipt records the same fingerprint: the stage's code,
the part of the recipe it depends on, and the checksums of what it reads. So a run killed at any moment and started
again redoes at most the tasks in flight, and gives the same bytes.
"""

import contextlib
import json
import os
import resource
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam

from filters.errors import UserError
from manifests.files import canonical_json, is_temporary, relative_files, sha256_file, sha256_json, write_atomic
from manifests.ledger import Tally, tally_from, total
from pipeline.beam.engines import Engine, WorkerDiedError, ending_with_its_workers, workers_apart
from pipeline.beam.progress import Progress

RECEIPTS = "receipts"
MISTAKE = "mistake.txt"
"""where a worker leaves a user's mistake for the command line, since engines wrap exceptions each in their own way"""


LOG = "workers.log"
"""where worker processes write what they have to say"""
BEGUN = ".begun"
"""the ending of a file that lasts as long as its task, so that a death can be blamed on the right one"""


@dataclass(frozen=True)
class Output:
    """A file that a task wrote: its path below the corpus, and what it must be to be taken over."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Result:
    """What a stage's function hands back: the paths it wrote (below the corpus), what it counted, by source, and facts
    for later stages (plain values, part of the result). `shuffled`: bytes on their way to reducers, for the record."""

    paths: list[str]
    tallies: dict[str, Tally] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    shuffled: int = 0


@dataclass(frozen=True)
class Receipt:
    """What a finished task leaves: the fingerprint it ran under, its outputs, tallies and facts. No times: a receipt is
    the same in every run."""

    fingerprint: str
    outputs: list[Output]
    tallies: dict[str, Tally]
    facts: dict[str, Any]

    def sha(self) -> str:
        """Stands for the task's outputs in the fingerprint of a task that reads them."""
        return sha256_json([[[o.path, o.sha256] for o in self.outputs], self.facts])


@dataclass(frozen=True)
class Task:
    """One element of a Beam job. `name` is unique in its stage and gives its receipt's path; `size` is the bytes it
    reads, by which work is shared out; `arguments` are plain values."""

    stage: str
    name: str
    fingerprint: str
    size: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)


Work = Callable[[Path, dict[str, Any], Task], Result]
"""A stage's function: corpus folder, the stage's settings (plain values), the task -> result. It must depend on nothing
else, and write through `atomic_path`."""


def receipt_path(corpus: Path, stage: str, name: str) -> Path:
    """Where a task's receipt lies."""
    return corpus / RECEIPTS / stage / f"{name}.json"


def read_receipt(corpus: Path, stage: str, name: str) -> Receipt | None:
    """A task's receipt; None when there is none, or what is there is none."""
    try:
        plain = json.loads(receipt_path(corpus, stage, name).read_bytes())
        tallies = {source: tally_from(tally) for source, tally in plain["tallies"].items()}
        return Receipt(plain["fingerprint"], [Output(**o) for o in plain["outputs"]], tallies, plain["facts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finished(corpus: Path, task: Task) -> bool:
    """Whether a task's outputs are there, made under its fingerprint."""
    receipt = read_receipt(corpus, task.stage, task.name)
    if receipt is None or receipt.fingerprint != task.fingerprint:
        return False
    try:
        return all((corpus / output.path).stat().st_size == output.bytes for output in receipt.outputs)
    except OSError:
        return False


def perform(task: Task, corpus: str, settings: dict[str, Any], work: Work, timings: str) -> None:
    """Run one task and leave its receipt, last of all; its times go apart, into the run's own folder."""
    root = Path(corpus)
    begun = Path(timings) / f"{uuid.uuid4().hex}{BEGUN}"
    write_atomic(begun, f"{task.stage} {task.name}".encode())
    at, wall, processor = time.time(), time.perf_counter(), time.process_time()
    try:
        result = work(root, settings, task)
    except UserError as error:
        write_atomic(Path(timings) / MISTAKE, str(error).encode())
        raise
    outputs = [Output(path, (root / path).stat().st_size, sha256_file(root / path)) for path in sorted(result.paths)]
    plain = {
        "fingerprint": task.fingerprint,
        "outputs": [asdict(output) for output in outputs],
        "tallies": {source: tally.as_dict() for source, tally in result.tallies.items()},
        "facts": result.facts,
    }
    write_atomic(receipt_path(root, task.stage, task.name), canonical_json(plain))
    record = {
        "stage": task.stage,
        "task": task.name,
        "at": at,
        "bytes": task.size,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - processor,
        "records": sum(tally.entered["records"] for tally in result.tallies.values()),
        "entered": dict(total(result.tallies.values()).entered),
        "out": dict(total(result.tallies.values()).out),
        "text_bytes": result.facts.get("text_bytes", {}),
        "written_bytes": sum(output.bytes for output in outputs),
        "shuffled_bytes": result.shuffled,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "process": os.getpid(),
    }
    write_atomic(Path(timings) / f"{uuid.uuid4().hex}.json", canonical_json(record))
    begun.unlink()


def run_tasks(corpus: Path, settings: dict[str, Any], tasks: list[Task], work: Work, engine: Engine) -> int:
    """Run the tasks of one stage that are not finished, as one Beam job with one leaf. Gives how many ran."""
    waiting = unfinished(corpus, tasks)
    if waiting:
        step = partial(perform, corpus=str(corpus), settings=settings, work=work, timings=str(engine.timings))
        with watched(corpus, tasks, waiting, engine), engine.pipeline(waiting) as pipeline:
            _ = pipeline | beam.Create(waiting).with_output_types(Task) | beam.Map(step).with_output_types(type(None))
    return len(waiting)


def unfinished(corpus: Path, tasks: Iterable[Task]) -> list[Task]:
    """The tasks still to run, largest first so that workers end together; receipts of older fingerprints are removed,
    so that no reader takes them for new."""
    waiting = [task for task in tasks if not finished(corpus, task)]
    for task in waiting:
        receipt_path(corpus, task.stage, task.name).unlink(missing_ok=True)
    return sorted(waiting, key=lambda task: (-task.size, task.name))


@contextlib.contextmanager
def watched(corpus: Path, tasks: list[Task], waiting: list[Task], engine: Engine) -> Iterator[None]:
    """A progress bar over the waiting tasks for as long as the block runs, counted from their receipts. Raises
    WorkerDiedError, naming the tasks in flight, when a worker process dies."""
    paths = [receipt_path(corpus, task.stage, task.name) for task in waiting]
    begun = time.perf_counter()
    try:
        with (
            workers_apart(engine.timings / LOG) as terminal,
            Progress(waiting[0].stage, len(tasks) - len(waiting), paths, terminal, engine.quiet),
            ending_with_its_workers(),
        ):
            yield
        job = {"job": waiting[0].stage, "tasks": len(waiting), "seconds": time.perf_counter() - begun}
        write_atomic(engine.timings / f"{uuid.uuid4().hex}.json", canonical_json(job))
    except WorkerDiedError as error:
        left = [path.read_text(encoding="utf-8") for path in sorted(engine.timings.glob(f"*{BEGUN}"))]
        raise WorkerDiedError(
            f"{error} while at work on {' and '.join(sorted(left)) or waiting[0].stage}: give the same command again, "
            "with fewer --workers if memory was short; what is finished is kept"
        ) from None


def receipts(corpus: Path, tasks: Iterable[Task]) -> dict[str, Receipt]:
    """The receipts of finished tasks, by name. Raises RuntimeError if one is missing after its job ended well."""
    found = {}
    for task in tasks:
        receipt = read_receipt(corpus, task.stage, task.name)
        if receipt is None or receipt.fingerprint != task.fingerprint:
            raise RuntimeError(f"stage {task.stage}: {task.name} left no receipt: run the same command again")
        found[task.name] = receipt
    return found


def sweep(corpus: Path, stage: str, tasks: Iterable[Task], owned: Iterable[str]) -> None:
    """Remove what the stage's folders hold beyond its finished tasks: outputs of inputs that are gone, of an older
    recipe, or half-written by a killed run."""
    done = receipts(corpus, tasks)
    claimed = {output.path for receipt in done.values() for output in receipt.outputs}
    expected = {receipt_path(corpus, stage, name).relative_to(corpus).as_posix() for name in done}
    for folder, keep in [(f"{RECEIPTS}/{stage}", expected), *((name, claimed) for name in owned)]:
        for relative in relative_files(corpus / folder):
            if f"{folder}/{relative}" not in keep:
                (corpus / folder / relative).unlink()
        _remove_empty_folders(corpus / folder)


def remove_temporaries(corpus: Path) -> None:
    """Remove what a killed run left half-written. Only to be called under the corpus's lock."""
    for relative in relative_files(corpus):
        if is_temporary(Path(relative)):
            (corpus / relative).unlink()


def _remove_empty_folders(root: Path) -> None:
    for folder, _, _ in sorted(os.walk(root), reverse=True):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
