"""Measure the driver's work for any number of splits: `python -m benchmarks scale --splits 1000`.

The driver's own code plans all jobs of a Common Crawl recipe, builds their graphs and reads their receipts. Then it
runs again over the same corpus, and finds all tasks finished. No worker runs. Instead another process reads the task
list, and writes invented receipts, tables of receipts, and outputs of the sizes that the receipts state. The CPU time
of this process is not counted. If the corpus is in an object store, the outputs are not written: the server pretends to
hold them (`benchmarks.object_server`).
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks import servers
from benchmarks.data import table
from benchmarks.object_server import PRETEND
from filters.reasons import Reason
from manifests.files import canonical_json, write_atomic
from manifests.ledger import Tally
from manifests.mirror import mirror_of, open_mirror
from manifests.recipe import Recipe, parse_recipe, read_yaml
from pipeline import graph as stage_graph
from pipeline.beam import job, receipts
from pipeline.beam.progress import RunStatus
from pipeline.beam.receipts import RECEIPTS
from pipeline.beam.step import Output, Receipt, Step, Task
from pipeline.beam.tasklist import TaskWriter, read_all
from pipeline.beam.waves import SharedPart
from pipeline.dedup import neardup
from pipeline.dedup.signatures import verdict_path
from pipeline.dedup.survivors import SURVIVORS, choose_survivors
from pipeline.dryrun import (
    CHARACTERS,
    DOCUMENTS,
    NO_HASH,
    DryEngine,
    DryGraph,
    GraphSize,
    invent_inputs,
    invent_result,
    read_tasks_to_run,
)
from pipeline.graph import StageGraph
from pipeline.stages.manifest import LedgerError

if TYPE_CHECKING:
    import apache_beam as beam

RECIPE = """
name: scale
seed: 1
goal_tokens: 1_000_000_000_000
sources:
  common_crawl:
    weight: 1.0
    inputs: [dumps/*.warc.gz]
    filters:
      - newest_url
      - duplicate_lines: {scope: dump, keep: first, normalise: ccnet}
      - language: {keep: [en], threshold: 0.65}
      - perplexity: {train: {en: {text: [dumps/en.bz2]}}, head: 30, tail: 60, keep: [head]}
      - references: {wiki: [dumps/en.bz2], positives: [dumps/cited.warc.gz], threshold: 0.25}
deduplication: {scope: all}
"""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}

# The paths of a task's outputs, by step; `{}` is the task's name. Tasks of other steps have one output below `blocks`.
OUTPUTS = {
    "split_offsets/checksums": (),
    "extract": ("documents/{}.parquet", "deadletters/{}.jsonl", "skipped/{}.jsonl"),
    "url_dedup/verdicts": ("verdicts/url_dedup/{}.bin",),
    "line_dedup/verdicts": ("verdicts/line_dedup/{}.arrow",),
    "filter": ("clean/{}.parquet", "blocks/signatures/{}.arrow", "dropped/{}.parquet"),
    "clusters/tables": ("clusters/{}.parquet",),
    "tokenize/shards": ("shards/{}.arrow",),
    "corpus_index/files": ("index/{}",),
}
# The names of the facts in a receipt, for steps with many tasks. Other receipts have all facts of `invent_result`.
FACTS = {
    "split_offsets/checksums": ("sha256",),
    "extract": ("file",),
    "url_dedup/collect": ("documents",),
    "url_dedup/duplicates": ("documents", "older"),
    "url_dedup/verdicts": ("older",),
    "line_dedup/collect": ("lines", "file"),
    "line_dedup/duplicates": ("lines", "duplicates", "ccnet"),
    "line_dedup/verdicts": ("older",),
    "perplexity/score": (),
    "references/sample": ("documents",),
    "filter": (),
    "neardup/exact": ("edges",),
    "neardup/candidates": ("pairs", "divided_buckets"),
    "neardup/fetch": ("wanted",),
    "neardup/edges": ("edges", "rejected", "capped"),
    "clusters/tables": (),
    "recall/draw": ("keys",),
    "tokenizer/sample": ("source", "budget"),
    "tokenize/shards": ("documents", "tokens", "urls"),
    "statistics/splits": (),
    "statistics/shards": (),
}
# Steps that map for an exchange.
MAPPERS = ("url_dedup/keys", "url_dedup/places", "line_dedup/keys", "line_dedup/places", "neardup/texts",
           "neardup/bands", "neardup/wanted", "neardup/evidence", "tokenize/parts", "corpus_index/keys")  # fmt: skip
TALLIED = ("extract", "filter", "clusters/survivors", "tokenize/parts")  # steps that count records
REASONS = (Reason.REDIRECT, Reason.CONTENT_TYPE, Reason.NO_TEXT, Reason.TOO_SHORT)  # why invented records are dropped


@dataclass
class Clock:
    """A clock that divides the CPU seconds of this process among phases.

    Each second counts once: the time of an inner phase does not count for the phase around it.

    Attributes:
        seconds: CPU seconds by phase.
        stack: The phases that have begun and not ended, the innermost last.
        last: The CPU time of the process, in seconds, up to which everything is counted.
    """

    seconds: Counter[str] = field(default_factory=Counter)
    stack: list[str] = field(default_factory=lambda: ["units of steps, findings"])
    last: float = field(default_factory=time.process_time)

    def add_elapsed(self) -> None:
        """Add the CPU time since the last call to the innermost phase."""
        now = time.process_time()
        self.seconds[self.stack[-1]] += now - self.last
        self.last = now

    @contextlib.contextmanager
    def in_phase(self, phase: str) -> Iterator[None]:
        """Count the CPU time of a `with` block for a phase."""
        self.add_elapsed()
        self.stack.append(phase)
        try:
            yield
        finally:
            self.add_elapsed()
            self.stack.pop()

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that calls the given function and counts its CPU time for a phase."""

        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            with self.in_phase(phase):
                return function(*given, **named)

        return call

    def timed_entry(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function that returns a context manager. Only the time to enter the context counts for the phase."""

        @contextlib.contextmanager
        def enter(*given: Any, **named: Any) -> Iterator[Any]:
            manager = function(*given, **named)
            with self.in_phase(phase):
                value = manager.__enter__()
            with contextlib.ExitStack() as stack:
                stack.push(manager)
                yield value

        return enter


# Functions whose time counts for a phase: (module or class, name of the function, phase).
PHASES: tuple[tuple[Any, str, str], ...] = (
    (Step, "fingerprints", "fingerprints"),
    (job, "find_finished", "looking for finished tasks"),
    (job.PlannedStep, "finish", "reading receipts"),
    (neardup, "sweep", "removing stale files"),
    (stage_graph, "sweep", "removing stale files"),
    (TaskWriter, "add", "task lists"),
    (RunStatus, "end_step", "adding up counts"),
)
# The same for functions that return a context manager: only the time to enter the context counts.
ENTRIES = ((job, "watch_progress", "progress"),)


@dataclass(frozen=True)
class ScaleEngine(DryEngine):
    """A remote engine in which one process, which invents results, takes the place of the workers.

    Attributes:
        worker: A pool of one process, which writes the invented results.
        clock: The clock that counts the driver's CPU time.
    """

    worker: ProcessPoolExecutor = field(kw_only=True, compare=False)
    clock: Clock = field(kw_only=True, compare=False)

    @property
    def is_local(self) -> bool:
        """Return False, so that the driver reads counts from receipts."""
        return False

    def here(self) -> "ScaleEngine":
        """Return this engine, so that jobs for the driver's machine are measured too."""
        return self

    def end_job(self, pipeline: "beam.Pipeline") -> None:
        """Measure a job's graph, and wait until the other process has written the results of its tasks."""
        corpus = self.timings.parents[1]
        mirror = mirror_of(corpus)
        with self.clock.in_phase("job graphs"):
            size = self.measure(pipeline)
        url = mirror.storage.url if mirror is not None else ""
        tasks, steps = self.worker.submit(invent_job_results, corpus, url, self.recipe, self.splits).result()
        self.graphs.append(GraphSize(steps, tasks, size))


class ScaleGraph(DryGraph):
    """The work of the driver in a run, except reading the inputs and writing the manifest."""

    run_turns = StageGraph.run_turns  # DryGraph only builds the graphs. This class also plans tasks and reads receipts.

    def build_graphs(self) -> list[GraphSize]:
        """Run all jobs and return the sizes of their graphs."""
        found = super().build_graphs()
        # This adds up the counts of all receipts. Invented counts do not balance, so the call ends with LedgerError.
        with contextlib.suppress(LedgerError):
            self.manifest()
        return found


def invent_job_results(corpus: Path, url: str, recipe: Recipe, splits: int) -> tuple[int, tuple[str, ...]]:
    """Write outputs and receipts of all tasks of the job whose task list is in the corpus folder.

    Args:
        corpus: The corpus folder of the driver.
        url: The corpus in the object store, or "" if the corpus is only on disk.
        recipe: The recipe of the run.
        splits: The number of splits of the run.

    Returns:
        The number of tasks, and the names of their steps.
    """
    if url:
        open_mirror(corpus, url)
    *_, parts = read_all(corpus)
    verdict_splits = [
        split.name for part in parts if chooses_survivors(part) for split in part.mapping.settings["splits"].value
    ]
    tasks: dict[str, list[Task]] = {}
    for task in read_tasks_to_run(corpus):
        tasks.setdefault(task.step, []).append(task)
    for step, some in tasks.items():
        for start in range(0, len(some), receipts.ROWS):
            few, tables = some[start : start + receipts.ROWS], receipts.count_tables(len(some))
            invent_step_results(corpus, step, few, recipe, splits, verdict_splits, tables)
    return sum(map(len, tasks.values())), tuple(tasks)


def chooses_survivors(part: SharedPart) -> bool:
    """Return True for the step that chooses survivors. This step writes a file of verdicts for each split."""
    return part.mapping.function is choose_survivors


def invent_step_results(
    corpus: Path,
    step: str,
    tasks: Sequence[Task],
    recipe: Recipe,
    splits: int,
    verdict_splits: Sequence[str],
    tables: int,
) -> None:
    """Write the outputs and receipts of some tasks of one step.

    Args:
        corpus: The corpus folder.
        step: The name of the step.
        tasks: Some tasks of the step.
        recipe: The recipe of the run.
        splits: The number of splits of the run.
        verdict_splits: The names of the splits for which the step that chooses survivors writes verdicts.
        tables: The number of tables of receipts of the step. If it is not 0, a table of the given tasks is written.
    """
    made = {task.name: invent_receipt(task, recipe, splits, verdict_splits) for task in tasks}
    mirror, sizes, receipt_files = mirror_of(corpus), Counter[str](), dict[str, bytes]()
    for name, receipt in made.items():
        sizes.update({output.path: output.bytes for output in receipt.outputs})
        plain = {"fingerprint": receipt.fingerprint, "outputs": [output._asdict() for output in receipt.outputs]}
        plain |= {"tallies": receipt.counts, "facts": receipt.facts}
        receipt_files[f"{RECEIPTS}/{step}/{name}.json"] = canonical_json(plain)
    if mirror is None:
        for path, size in sizes.items():
            (corpus / path).parent.mkdir(parents=True, exist_ok=True)
            with (corpus / path).open("wb") as file:
                file.truncate(size)
        # Receipts are written after the outputs, because the driver hashes outputs that are newer than their receipt.
        for path, data in receipt_files.items():
            write_atomic(corpus / path, data)
    else:
        pretend_objects(mirror.storage.root, {**sizes, **dict.fromkeys(receipt_files, 1_000)} if tables else sizes)
        for path, data in receipt_files.items() if not tables else ():
            mirror.storage.write(path, data)
    if tables:
        receipts.write_table(corpus, step, made)


def pretend_objects(root: str, sizes: Mapping[str, int]) -> None:
    """Make the object server pretend that it holds files of the given sizes below `root`."""
    body = "".join(f"{size} {root}/{path}\n" for path, size in sizes.items()).encode()
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{PRETEND}"
    urllib.request.urlopen(urllib.request.Request(url, body, method="POST")).close()


def invent_receipt(task: Task, recipe: Recipe, splits: int, verdict_splits: Sequence[str]) -> Receipt:
    """Return an invented receipt, about as large as a real receipt of the task."""
    made = invent_result(task, recipe, splits)
    paths = [place.format(task.name) for place in OUTPUTS.get(task.step, (f"blocks/{task.step}/{{}}",))]
    paths += [verdict_path(split) for split in verdict_splits] if task.step == SURVIVORS else []
    facts = {name: made["facts"][name] for name in FACTS.get(task.step, made["facts"])}
    if task.step in MAPPERS:
        facts = {"blocks": 4_000}
    tallies = {}
    if task.step in TALLIED:
        tally = Tally()
        tally.keep(records=DOCUMENTS, characters=DOCUMENTS * CHARACTERS, bytes=task.size)
        for reason in REASONS:
            tally.drop(reason, records=DOCUMENTS // 9, characters=DOCUMENTS, bytes=task.size // 9)
        tallies = {"common_crawl": tally}
    outputs = [Output(path, task.size // 4, NO_HASH) for path in paths]
    return Receipt(task.fingerprint, outputs, tallies, facts)


@dataclass(frozen=True)
class Figures:
    """The measurements of one run over all jobs.

    Attributes:
        seconds: CPU seconds of the driver, by phase.
        tasks: The number of tasks that ran.
        requests: The number of requests of the driver to the object store, by kind.
        graphs: The sizes of the jobs' graphs.
        peak: The peak of the driver's resident memory since it started, in bytes.
    """

    seconds: Counter[str]
    tasks: int
    requests: Counter[str]
    graphs: list[GraphSize]
    peak: int


def measure(splits: int, in_store: bool, scratch: Path) -> list[Figures]:
    """Run the driver three times: for one split, for `splits` splits, and for the same corpus, which is then finished.

    Args:
        splits: The number of splits of the second and third run.
        in_store: True keeps the corpus in an object store.
        scratch: An empty folder.

    Returns:
        The figures of the three runs.
    """
    recipe = parse_recipe(read_yaml(RECIPE.encode()), "scale")
    with contextlib.ExitStack() as stack:
        if in_store:
            stack.enter_context(object_server(scratch / "server"))
        worker = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        found = []
        for name, count in (("small", 1), ("corpus", splits), ("corpus", splits)):
            (scratch / name).mkdir(exist_ok=True)
            if in_store:
                open_mirror(scratch / name, f"s3://bucket/{name}")
            found.append(run_driver(recipe, scratch / name, count, worker))
        return found


def run_driver(recipe: Recipe, corpus: Path, splits: int, worker: ProcessPoolExecutor) -> Figures:
    """Run the driver once over all jobs and return its figures."""
    clock, mirror = Clock(), mirror_of(corpus)
    before = Counter(mirror.storage.requests) if mirror is not None else Counter[str]()
    engine = ScaleEngine(
        1, (), corpus / "runs/now.parts", quiet=True, recipe=recipe, splits=splits, worker=worker, clock=clock
    )
    with contextlib.ExitStack() as stack:
        for owner, name, phase in PHASES:
            stack.enter_context(mock.patch.object(owner, name, clock.timed(phase, getattr(owner, name))))
        for owner, name, phase in ENTRIES:
            stack.enter_context(mock.patch.object(owner, name, clock.timed_entry(phase, getattr(owner, name))))
        graphs = ScaleGraph(recipe, corpus, engine, invent_inputs(recipe, splits)).build_graphs()
    clock.add_elapsed()
    requests = Counter(mirror.storage.requests) - before if mirror is not None else Counter[str]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Figures(clock.seconds, sum(graph.units for graph in graphs), requests, list(graphs), peak)


@contextlib.contextmanager
def object_server(folder: Path) -> Iterator[None]:
    """Run the object server, and set the environment variables by which S3 clients find it."""
    port = servers.free_port()
    command = [sys.executable, "-m", "benchmarks.object_server", str(port)]
    with (
        servers.serving(command, port, folder),
        mock.patch.dict(os.environ, {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}),
    ):
        yield


def report(splits: int, small: Figures, first: Figures, again: Figures) -> str:
    """Return a summary and a table of the three runs that `measure` returns."""
    thousands = splits / 1_000
    phases = sorted({*first.seconds, *again.seconds}, key=lambda phase: -first.seconds[phase])
    rows = [[phase, *(f"{part.seconds[phase] / thousands:.3f}" for part in (first, again))] for phase in phases]
    rows.append(["in all", *(f"{part.seconds.total() / thousands:.3f}" for part in (first, again))])
    graph = max(first.graphs, key=lambda graph: graph.bytes)
    requests = ", ".join(f"{count:,} {kind}" for kind, count in sorted(first.requests.items())) or "none"
    most = max(first.graphs, key=lambda graph: graph.units)
    return "\n".join(
        [
            f"{splits:,} splits, {first.tasks:,} tasks in {len(first.graphs)} jobs, at most {most.units:,} in one job",
            "",
            table(["CPU seconds of the driver per thousand splits", "first run", "all finished"], rows),
            "",
            f"a run of one split, including imports: {small.seconds.total():.1f} s",
            f"peak memory of the driver: {again.peak / 1e6:,.0f} MB",
            f"largest graph: {graph.bytes:,} bytes ({', '.join(graph.steps)})",
            f"requests of the driver: {requests}; {first.requests.total() / first.tasks:.4f} per task",
        ]
    )


def main(arguments: list[str]) -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.add_argument("--splits", type=int, default=1_000, help="number of splits of the corpus (default: 1000)")
    parser.add_argument(
        "--store", action="store_true", help="keep the corpus in an object store: an S3 server on loopback"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        print(report(options.splits, *measure(options.splits, options.store, Path(scratch))))
    return 0
