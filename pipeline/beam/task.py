"""Steps, declared: their units, settings and functions; and how one is run, as a Beam job with a receipt for each unit.

A unit's outputs are taken over from an earlier run only if its receipt records the same fingerprint: the code that its
function reaches, the settings, the unit's arguments and the hashes of what it reads. So a run killed at any moment and
started again redoes at most the units in flight, and gives the same bytes.
"""

import contextlib
import dataclasses
import json
import os
import pickle
import re
import resource
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from filters.errors import UserError
from manifests.files import canonical_json, is_temporary, relative_files, sha256_bytes, sha256_file, write_atomic
from manifests.ledger import Tally, tally_from, total
from manifests.mirror import Mirror, fetch_folder, fetch_url, mirror_of, open_mirror, trim_if_due
from manifests.storage import StorageError, is_url, retry_storage
from pipeline.beam import counters
from pipeline.beam.alone import perform_alone
from pipeline.beam.engines import Engine, workers_apart
from pipeline.beam.fingerprint import code_version
from pipeline.beam.pool import WorkerDiedError
from pipeline.beam.progress import Progress, ReceiptCounts
from pipeline.beam.quarantine import Place, RecordCrashedError, holding
from pipeline.beam.tasklist import Group, TaskList, task_list

RECEIPTS = "receipts"
BLOCKS = "blocks"
CODE = "code"  # copies of the modules that hold a user's own rules and readers
LOG = "workers.log"  # what worker processes write to their standard error
BEGUN = "begun"  # folder of marks that last as long as their tasks, and beyond them if the interpreter dies


# Files by which workers tell the driver what ended a task: engines wrap exceptions differently.
NOTICES: dict[type[Exception], str] = {
    UserError: "mistake.txt",
    StorageError: "failure.txt",
    RecordCrashedError: "crash.txt",
    WorkerDiedError: "death.txt",
}


@dataclass(frozen=True)
class Output:
    """A file that a task wrote: its path below the corpus, and what it must be to be taken over."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Result:
    """A step function's result.

    Attributes:
        paths: files that it wrote, below the corpus.
        tallies: counts by source.
        facts: plain values for later steps; part of the result.
        shuffled: bytes sent to reducers, for the record only.
    """

    paths: Iterable[str]
    tallies: dict[str, Tally] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    shuffled: int = 0


@dataclass(frozen=True)
class Receipt:
    """The record of a finished task: fingerprint, outputs, tallies and facts. No times: it is the same in every run."""

    fingerprint: str
    outputs: list[Output]
    tallies: dict[str, Tally]
    facts: dict[str, Any]

    @cached_property
    def sha(self) -> str:
        """The hash of the outputs and facts, for fingerprints of tasks that read them."""
        return hash_key([[[o.path, o.sha256] for o in self.outputs], self.facts])

    @property
    def bytes(self) -> int:
        """The size of all outputs."""
        return sum(output.bytes for output in self.outputs)

    def below(self, folder: str) -> list[Output]:
        """Return the outputs below a folder of the corpus."""
        return [output for output in self.outputs if output.path.startswith(f"{folder}/")]


Receipts = dict[str, Receipt]


@dataclass(frozen=True)
class Keyed:
    """An argument of which only `key` counts in fingerprints: a path by the hash of its file, say, or not at all.

    A value that is a URL, or a list of them, reaches the function as paths of local copies. Then the key, or the last
    item of each file's, is the file's version, as `Input.sha256` holds it.
    """

    value: Any
    key: Any = None


@dataclass(frozen=True)
class Unit:
    """One piece of a step's work, done and repeated as a whole.

    Attributes:
        name: unique in the step; gives the receipt's path.
        arguments: keyword arguments for the step's function.
        reads: receipts, outputs or hashes of what the function reads: of a corpus in an object store, it finds there
            the outputs that these, or the keys of its arguments, name, and no other file.
        size: bytes to read, by which work is shared out.
        source: the source whose entry of `Step.by_source` the function gets as well.
        calls: functions that the step's function looks up at run time, part of its code.
        quarantine: records that the function's readers drop unread.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reads: Sequence[Any] = ()
    size: int = 0
    source: str = ""
    calls: tuple[Callable[..., Any], ...] = ()
    quarantine: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Task:
    """A unit as it is handed to an engine."""

    step: str
    name: str
    fingerprint: str
    size: int = 0
    source: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    quarantine: tuple[Place, ...] = ()
    files: tuple[Output, ...] = ()


@dataclass(frozen=True)
class Step:
    """A step: one function over units that do not depend on each other.

    The function is called as `function(corpus, name, **settings, **by_source[unit.source], **unit.arguments)`; a
    reducer of an exchange gets its blocks after the name. It must depend on nothing else, and write through
    `atomic_path`.

    Attributes:
        name: gives the place of receipts, and the row of `manifests.stages`.
        function: a module-level function.
        units: what is to be done.
        settings: keyword arguments for all units: the part of the recipe that the step depends on.
        by_source: further keyword arguments for the units of a source.
        owns: folders below the corpus that hold this step's outputs alone; by default `blocks/NAME`.
        shared: another step of the same name owns the same folders, so that only both together can be swept.
        any_way: of a reducing step: its outputs do not depend on the way that its blocks were made, so mappers do not
            count in its fingerprints, and the units name what they depend on.
    """

    name: str
    function: Callable[..., Any]
    units: Sequence[Unit]
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_source: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    owns: tuple[str, ...] | None = None
    shared: bool = False
    any_way: bool = False

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that the step owns."""
        return (f"{BLOCKS}/{self.name}",) if self.owns is None else self.owns

    def tasks(self, upstream: Sequence[Task] = ()) -> list[Task]:
        """Return a task for each unit, with its fingerprint. `upstream`: mappers, whose blocks every unit may get."""
        mappers = [] if self.any_way else [[task.name, task.fingerprint] for task in upstream]
        common = hash_key([self.settings, mappers])
        of_source = {name: hash_key(values) for name, values in self.by_source.items()}
        made = []
        for unit in self.units:
            code = code_version(self.function, *unit.calls)
            parts = [code, common, of_source.get(unit.source, ""), unit.name, unit.arguments, unit.reads]
            key = hash_key([*parts, unit.quarantine])
            made.append(Task(self.name, unit.name, key, unit.size, unit.source, unit.arguments, unit.quarantine))
        return made

    def with_files(self, tasks: Iterable[Task]) -> list[Task]:
        """Return tasks of this step with the files that each reads."""
        units = {unit.name: unit for unit in self.units}
        common = list(outputs_in(self.settings))
        of_source = {name: list(outputs_in(values)) for name, values in self.by_source.items()}
        made = []
        for task in tasks:
            unit = units[task.name]
            files = {*common, *of_source.get(unit.source, ()), *outputs_in([unit.reads, unit.arguments])}
            made.append(replace(task, files=tuple(sorted(files, key=lambda output: output.path))))
        return made

    def code(self) -> str:
        """Return the version of the step's code over all units."""
        versions = sorted({code_version(self.function, *unit.calls) for unit in self.units})
        return versions[0] if len(versions) == 1 else hash_key(versions)


@dataclass(frozen=True)
class Job:
    """The part of a Beam job that all its tasks share."""

    corpus: str
    url: str
    given: tuple[tuple[str, str], ...]
    timings: str
    function: Callable[..., Any]
    settings: Mapping[str, Any]
    by_source: Mapping[str, Mapping[str, Any]]

    @property
    def mirror(self) -> Mirror | None:
        """The folder here that stands for a corpus in an object store; None for a corpus of this machine."""
        return open_mirror(Path(self.corpus), self.url) if self.url else None

    def __getstate__(self) -> tuple[str, str, bytes]:
        """Pack everything behind the corpus, so that a worker finds the user's modules before it reads on."""
        return (
            self.corpus,
            self.url,
            pickle.dumps((self.given, self.timings, self.function, self.settings, self.by_source)),
        )

    def __setstate__(self, state: tuple[str, str, bytes]) -> None:
        """Read what `__getstate__` packed."""
        if state[1]:
            open_mirror(Path(state[0]), state[1])
        find_user_code(Path(state[0]))
        values = (*state[:2], *pickle.loads(state[2]))
        for one, value in zip(dataclasses.fields(self), values, strict=True):
            object.__setattr__(self, one.name, value)

    def call(self, task: Task, *blocks: Any) -> Any:
        """Call the step's function for one task."""
        with holding(task.quarantine):
            return self.function(Path(self.corpus), task.name, *blocks, **self.arguments_of(task))

    def arguments_of(self, task: Task) -> dict[str, Any]:
        """Return the keyword arguments of the step's function for one task."""
        arguments = {**self.settings, **self.by_source.get(task.source, {}), **task.arguments}
        return {key: local_value(value, Path(self.corpus)) for key, value in arguments.items()}


def local_value(value: Any, corpus: Path) -> Any:
    """Return an argument as the step's function gets it: without its key, and with local copies for URLs."""
    if not isinstance(value, Keyed):
        return value
    if isinstance(value.value, str) and is_url(value.value):
        version = value.key if isinstance(value.key, str) else value.key[-1]
        return str(fetch_url(value.value, version, corpus))
    if isinstance(value.value, list) and any(isinstance(one, str) and is_url(one) for one in value.value):
        return [local_value(Keyed(one, key), corpus) for one, key in zip(value.value, value.key, strict=True)]
    return value.value


def outputs_in(value: Any) -> Iterator[Output]:
    """Yield the outputs that receipts, keys and plain values name."""
    if isinstance(value, Output):
        yield value
    elif isinstance(value, Receipt):
        yield from value.outputs
    elif isinstance(value, Keyed):
        yield from outputs_in(value.key)
    elif isinstance(value, Mapping):
        yield from outputs_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from outputs_in(one)


def find_user_code(corpus: Path) -> None:
    """Let imports find the modules of a user's own rules and readers that a corpus keeps, after all others."""
    folder = str(corpus / CODE)
    if folder not in sys.path and fetch_folder(corpus, CODE).is_dir():
        sys.path.append(folder)


def source_of(split: str) -> str:
    """Return the source that a split, or another name that begins with one, belongs to."""
    return split.partition("/")[0]


def hash_key(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, with settings as plain values and `Keyed` as its key."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)
    return sha256_bytes(text.encode("utf-8", "surrogatepass"))


def _plain(value: Any) -> Any:
    if isinstance(value, Keyed):
        return value.key
    if isinstance(value, Receipt):
        return value.sha
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    return value.model_dump()


def receipt_path(corpus: Path, step: str, name: str) -> Path:
    """Return the path of a task's receipt."""
    return corpus / RECEIPTS / step / f"{name}.json"


def read_receipt(corpus: Path, step: str, name: str) -> Receipt | None:
    """Return a task's receipt; None if it is missing or not one. Raises OSError if it cannot be read."""
    try:
        with open(f"{corpus}/{RECEIPTS}/{step}/{name}.json", "rb") as file:  # noqa: PTH123  # a third of the time
            plain = json.loads(file.read())
        tallies = {source: tally_from(tally) for source, tally in plain["tallies"].items()}
        return Receipt(plain["fingerprint"], [Output(**o) for o in plain["outputs"]], tallies, plain["facts"])
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def is_finished(corpus: Path, task: Task, size_of: Callable[[str], int | None] | None = None) -> bool:
    """Return True if a task's outputs exist in full, made under its fingerprint.

    Args:
        corpus: its folder.
        task: the task.
        size_of: from `sizes_for`; None to look at files of this machine.
    """
    receipt = read_receipt(corpus, task.step, task.name)
    return receipt is not None and is_whole(receipt, task, size_of or partial(_size, corpus))


def is_whole(receipt: Receipt, task: Task, size_of: Callable[[str], int | None]) -> bool:
    """Return True if a receipt is of a task's fingerprint, and its outputs have the sizes that it says."""
    return receipt.fingerprint == task.fingerprint and all(
        size_of(output.path) == output.bytes for output in receipt.outputs
    )


def is_step_finished(corpus: Path, step: Step) -> bool:
    """Return True if all tasks of a step are finished."""
    size_of = sizes_for(corpus, step)
    return all(is_finished(corpus, task, size_of) for task in step.tasks())


def sizes_for(corpus: Path, step: Step) -> Callable[[str], int | None]:
    """Return a function that returns the size of a step's output by its path below the corpus; None if it is missing.

    Of a corpus in an object store, the step's folders are listed once.
    """
    mirror = mirror_of(corpus)
    if mirror is None:
        return partial(_size, corpus)
    listed = {entry.path: entry.bytes for folder in step.folders for entry in mirror.storage.list_files(folder)}

    def size_of(path: str) -> int | None:
        entry = None if path in listed else mirror.storage.find(path)
        return entry.bytes if entry is not None else listed.get(path)

    return size_of


def _size(corpus: Path, path: str) -> int | None:
    try:
        return os.stat(f"{corpus}/{path}").st_size  # noqa: PTH116  # a third of the time
    except (FileNotFoundError, NotADirectoryError):
        return None


def perform(task: Task, *blocks: Any, job: Job) -> None:
    """Run one task and write its receipt, last of all; its times go into the run's own folder.

    A task that an earlier attempt has left begun runs alone, in a process of its own.

    Raises:
        UserError: the function found a mistake of the user.
        StorageError: a read or write kept failing.
        RecordCrashedError: a record kills the interpreter.
        WorkerDiedError: something else does.
    """
    place = f"stage {task.step}, {task.name}"
    try:
        run = perform_alone if retry_storage(begun_path(Path(job.timings), task).exists, place) else attempt
        counters.add(retry_storage(partial(run, task, blocks, job), place))
    except tuple(NOTICES) as error:
        notice = next(name for kind, name in NOTICES.items() if isinstance(error, kind))
        with contextlib.suppress(OSError):  # the disk may be full: the exception's own text says it, too
            write_atomic(Path(job.timings) / notice, str(error).encode())
        raise


def begun_path(timings: Path, task: Task) -> Path:
    """Return the path of the mark of a task that has begun."""
    return timings / BEGUN / f"{hash_key([task.step, task.name])[:32]}.json"


def attempt(task: Task, blocks: tuple[Any, ...], job: Job) -> Mapping[str, int]:
    """Run one task in this process, write its receipt and return its counts. Raises OSError if storage fails."""
    root, timings, mirror = Path(job.corpus), Path(job.timings), job.mirror
    requests = Counter(mirror.storage.requests) if mirror is not None else Counter[str]()
    begun = begun_path(timings, task)
    write_atomic(begun, canonical_json({"step": task.step, "task": task.name, "at": time.time()}))
    try:
        at, wall, processor = time.time(), time.perf_counter(), time.process_time()
        if mirror is not None:
            for needed in task.files:
                mirror.fetch(needed.path, needed.sha256)
        for model, version in job.given:
            fetch_url(model, version, root)
        try:
            result: Result = job.call(task, *blocks)
        except UserError as error:  # a model that the driver could read, say: no mistake of the user
            if isinstance(error.__cause__, OSError) and error.__cause__.errno:
                raise error.__cause__ from None
            raise
        outputs = [
            Output(path, (root / path).stat().st_size, sha256_file(root / path)) for path in sorted(result.paths)
        ]
        plain = {
            "fingerprint": task.fingerprint,
            "outputs": [asdict(output) for output in outputs],
            "tallies": {source: tally.as_dict() for source, tally in result.tallies.items()},
            "facts": result.facts,
        }
        receipt = receipt_path(root, task.step, task.name)
        write_atomic(receipt, canonical_json(plain))
        if mirror is not None:  # the receipt last: whoever sees it finds its outputs
            for output in outputs:
                mirror.publish(output.path, output.sha256)
            mirror.push([receipt.relative_to(root).as_posix()])
            trim_if_due(root)
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
            "written_bytes": sum(output.bytes for output in outputs),
            "shuffled_bytes": result.shuffled,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "process": os.getpid(),
            "requests": dict(mirror.storage.requests - requests) if mirror is not None else {},
        }
        write_atomic(timings / f"{uuid.uuid4().hex}.json", canonical_json(record))
        return counters.counts_of(result.tallies)
    finally:
        begun.unlink(missing_ok=True)


def run_step(corpus: Path, step: Step, engine: Engine) -> tuple[Receipts, int]:
    """Run the units of a step that are not finished, as one Beam job with one leaf.

    Returns:
        The receipts of all units by name, and how many units ran.

    Raises:
        UserError, StorageError, WorkerDiedError: with a sentence for the user.
    """
    tasks = step.tasks()
    waiting, found = unfinished(corpus, step, tasks)
    if waiting:
        import apache_beam as beam  # here, so that reading a receipt does not load it

        from pipeline.beam.spread import spread

        with (
            task_list(corpus, job_of(corpus, step, engine), waiting) as listed,
            watched(corpus, tasks, waiting, engine),
            engine.pipeline() as pipeline,
        ):
            work = spread(partial(_perform_group, listed, perform), engine.pool_for(waiting))
            _ = (
                pipeline
                | beam.Create(listed.groups).with_output_types(Group)
                | step.name >> work.with_output_types(type(None))
            )
    found |= receipts(corpus, waiting)
    engine.check()
    if not step.shared:
        sweep(corpus, step, found)
    return in_order(tasks, found), len(waiting)


def in_order(tasks: Iterable[Task], found: Receipts) -> Receipts:
    """Return receipts in the order of their tasks."""
    return {task.name: found[task.name] for task in tasks}


def _perform_group(listed: TaskList, perform: Callable[..., None], group: Group) -> None:
    for task in listed.read_group(group):
        perform(task, job=listed.read_shared())


def job_of(corpus: Path, step: Step, engine: Engine) -> Job:
    """Return what all tasks of a step share."""
    mirror = mirror_of(corpus)
    url = mirror.storage.url if mirror is not None else ""
    settings, by_source = dict(step.settings), dict(step.by_source)
    return Job(str(corpus), url, engine.given, str(engine.timings), step.function, settings, by_source)


def unfinished(corpus: Path, step: Step, tasks: Iterable[Task]) -> tuple[list[Task], Receipts]:
    """Return the tasks of a step still to run, largest first so that workers end together, and the others' receipts.

    Receipts of older fingerprints are removed, so that no reader takes them for new.
    """
    size_of, mirror = sizes_for(corpus, step), mirror_of(corpus)
    waiting: list[Task] = []
    found: Receipts = {}
    for task in tasks:
        receipt = read_receipt(corpus, task.step, task.name)
        if receipt is not None and is_whole(receipt, task, size_of):
            found[task.name] = receipt
            continue
        waiting.append(task)
        if receipt is not None:
            receipt_path(corpus, task.step, task.name).unlink()
    waiting.sort(key=lambda task: (-task.size, task.name))
    return step.with_files(waiting) if mirror is not None else waiting, found


@contextlib.contextmanager
def watched(corpus: Path, tasks: Sequence[Task], waiting: Sequence[Task], engine: Engine) -> Iterator[None]:
    """Show progress over the waiting tasks while the block runs, and turn what ends it into a sentence for the user.

    Raises:
        UserError, StorageError: a worker said so, whatever the engine wrapped it in.
        WorkerDiedError: a worker process died; it names the tasks in flight.
    """
    for notice in NOTICES.values():
        (engine.timings / notice).unlink(missing_ok=True)
    begun, done = time.perf_counter(), len(tasks) - len(waiting)
    counters.LIVE.clear()
    paths = (receipt_path(corpus, task.step, task.name) for task in waiting)
    poll = counters.LIVE.read if engine.is_local else ReceiptCounts(paths)
    marks, step = engine.timings / BEGUN, waiting[0].step
    try:
        with (
            workers_apart(engine.timings / LOG) as terminal,
            Progress(step, done, len(waiting), poll, marks, engine.status, terminal, engine.quiet),
        ):
            yield
        job = {"job": waiting[0].step, "tasks": len(waiting), "seconds": time.perf_counter() - begun}
        write_atomic(engine.timings / f"{uuid.uuid4().hex}.json", canonical_json(job))
    except BaseException as error:
        died = engine.pool.died() if "BrokenProcessPool" in repr(error) else None
        engine.pool.stop()
        if died is not None:
            left = [json.loads(path.read_bytes()) for path in (engine.timings / BEGUN).glob("*.json")]
            names = sorted(f"{mark['step']} {mark['task']}" for mark in left)
            raise type(died)(
                f"{died} while at work on {' and '.join(names) or waiting[0].step}: give the same command "
                "again, with fewer --workers if memory was short; what is finished is kept"
            ) from None
        if "KeyboardInterrupt" in str(error):  # Beam wraps even that
            raise KeyboardInterrupt from None
        if isinstance(error, Exception):
            _raise_from_worker(error, engine.timings)
        raise


def _raise_from_worker(error: Exception, timings: Path) -> None:
    """Raise what a worker left as a sentence for the user, if it did."""
    for kind, notice in NOTICES.items():
        if (timings / notice).exists():
            raise kind((timings / notice).read_text(encoding="utf-8")) from None
    said = re.search(r"(?:StorageError: |^)(stage [^\n]+? which continues from here)", str(error), re.MULTILINE)
    if said:  # on a full disk a worker cannot leave a file
        raise StorageError(said[1]) from None


def receipts(corpus: Path, tasks: Iterable[Task]) -> Receipts:
    """Return the receipts of finished tasks by name. Raises StorageError if one is missing after its job ended well."""
    found, mirror, tasks = {}, mirror_of(corpus), list(tasks)
    if mirror is not None:
        mirror.fetch_all(f"{RECEIPTS}/{task.step}/{task.name}.json" for task in tasks)
    for task in tasks:
        receipt = read_receipt(corpus, task.step, task.name)
        if receipt is None or receipt.fingerprint != task.fingerprint:
            raise StorageError(
                f"stage {task.step}: {task.name} left no receipt in {corpus}: see to it that the engine's workers run "
                "and write to that very folder, then run the same command again"
            )
        found[task.name] = receipt
    return found


def sweep(corpus: Path, step: Step, kept: Receipts) -> None:
    """Remove what a step's folders hold beyond the receipts and outputs of its finished units, by name.

    These are outputs of inputs that are gone, of an older recipe, or half-written by a killed run.
    """
    claimed = {output.path for receipt in kept.values() for output in receipt.outputs}
    claimed |= {f"{RECEIPTS}/{step.name}/{name}.json" for name in kept}
    mirror = mirror_of(corpus)
    for folder in (f"{RECEIPTS}/{step.name}", *step.folders):
        if mirror is not None:
            for entry in mirror.storage.list_files(folder):
                if entry.path not in claimed:
                    mirror.storage.remove(entry.path)
        for relative in relative_files(corpus / folder):
            if f"{folder}/{relative}" not in claimed:
                (corpus / folder / relative).unlink()
        for empty, _, _ in sorted(os.walk(corpus / folder), reverse=True):
            with contextlib.suppress(OSError):
                Path(empty).rmdir()


def remove_temporaries(corpus: Path) -> None:
    """Remove what a killed run left half-written. Only to be called under the corpus's lock."""
    for relative in relative_files(corpus):
        if is_temporary(Path(relative)):
            (corpus / relative).unlink()
