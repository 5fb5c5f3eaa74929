"""The driver's bookkeeping at any number of splits, by its own code: `python -m benchmarks scale --splits 1000`.

All jobs of a Common Crawl recipe are planned, their graphs built and their receipts read, and then once more, as by a
run that finds everything finished. What workers do is made up by another process, which reads the task list as they
would and leaves receipts, tables of them and outputs of the sizes that they name; it does not count. In an object store
the outputs are pretended (`benchmarks.object_server`).
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
    listed_tasks,
    made_up_inputs,
    make_up,
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

OUTPUTS = {  # of a task, by step; of other steps one file below `blocks`
    "split_offsets/checksums": (),
    "extract": ("documents/{}.parquet", "deadletters/{}.jsonl", "skipped/{}.jsonl"),
    "url_dedup/verdicts": ("verdicts/url_dedup/{}.bin",),
    "line_dedup/verdicts": ("verdicts/line_dedup/{}.arrow",),
    "filter": ("clean/{}.parquet", "blocks/signatures/{}.arrow", "dropped/{}.parquet"),
    "clusters/tables": ("clusters/{}.parquet",),
    "tokenize/shards": ("shards/{}.arrow",),
    "corpus_index/files": ("index/{}",),
}
FACTS = {  # that steps with many tasks leave; others leave all that `make_up` knows
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
MAPPERS = ("url_dedup/keys", "url_dedup/places", "line_dedup/keys", "line_dedup/places", "neardup/texts",
           "neardup/bands", "neardup/wanted", "neardup/evidence", "tokenize/parts", "corpus_index/keys")  # fmt: skip
TALLIED = ("extract", "filter", "clusters/survivors", "tokenize/parts")  # steps that count records
REASONS = (Reason.REDIRECT, Reason.CONTENT_TYPE, Reason.NO_TEXT, Reason.TOO_SHORT)  # of records that are dropped


@dataclass
class Clock:
    """CPU seconds of this process by what it is at, each second once: what is called within counts for itself."""

    seconds: Counter[str] = field(default_factory=Counter)
    stack: list[str] = field(default_factory=lambda: ["units of steps, findings"])
    last: float = field(default_factory=time.process_time)

    def turn(self) -> None:
        """Count the time since the last turn."""
        now = time.process_time()
        self.seconds[self.stack[-1]] += now - self.last
        self.last = now

    @contextlib.contextmanager
    def at(self, phase: str) -> Iterator[None]:
        """Count what the block does for a phase."""
        self.turn()
        self.stack.append(phase)
        try:
            yield
        finally:
            self.turn()
            self.stack.pop()

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts for a phase."""

        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            with self.at(phase):
                return function(*given, **named)

        return call

    def timed_entry(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a context manager whose beginning counts for a phase."""

        @contextlib.contextmanager
        def enter(*given: Any, **named: Any) -> Iterator[Any]:
            manager = function(*given, **named)
            with self.at(phase):
                value = manager.__enter__()
            with contextlib.ExitStack() as stack:
                stack.push(manager)
                yield value

        return enter


PHASES: tuple[tuple[Any, str, str], ...] = (
    (Step, "fingerprints", "fingerprints"),
    (job, "find_finished", "looking for finished tasks"),
    (job.PlannedStep, "finish", "reading receipts"),
    (neardup, "sweep", "sweeping together"),
    (stage_graph, "sweep", "sweeping together"),
    (TaskWriter, "add", "task lists"),
    (RunStatus, "end_step", "adding up counts"),
)
ENTRIES = ((job, "watched", "progress"),)


@dataclass(frozen=True)
class ScaleEngine(DryEngine):
    """A remote engine whose workers are one process that makes everything up."""

    outside: ProcessPoolExecutor = field(kw_only=True, compare=False)
    clock: Clock = field(kw_only=True, compare=False)

    @property
    def is_local(self) -> bool:
        """False: counts come from receipts."""
        return False

    def here(self) -> "ScaleEngine":
        """Return this engine."""
        return self

    def end_job(self, pipeline: "beam.Pipeline") -> None:
        """Measure a job's graph, and wait for what stands for the workers."""
        corpus = self.timings.parents[1]
        mirror = mirror_of(corpus)
        with self.clock.at("job graphs"):
            size = self.measure(pipeline)
        url = mirror.storage.url if mirror is not None else ""
        tasks, steps = self.outside.submit(work, corpus, url, self.recipe, self.splits).result()
        self.graphs.append(GraphSize(steps, tasks, size))


class ScaleGraph(DryGraph):
    """All that the driver does in a run, but for reading inputs and writing the manifest."""

    run_turns = StageGraph.run_turns

    def build_graphs(self) -> list[GraphSize]:
        """Run all jobs."""
        found = super().build_graphs()
        with contextlib.suppress(LedgerError):  # the sum over all receipts; made-up counts do not balance
            self.manifest()
        return found


def work(corpus: Path, url: str, recipe: Recipe, splits: int) -> tuple[int, tuple[str, ...]]:
    """Leave what the tasks of the job leave whose list lies in a corpus, and return their number and their steps."""
    if url:
        open_mirror(corpus, url)
    *_, parts = read_all(corpus)
    named = [split.name for part in parts if is_choice(part) for split in part.mapping.settings["splits"].value]
    tasks: dict[str, list[Task]] = {}
    for task in listed_tasks(corpus):
        tasks.setdefault(task.step, []).append(task)
    for step, some in tasks.items():
        for start in range(0, len(some), receipts.ROWS):
            leave(
                corpus, step, some[start : start + receipts.ROWS], recipe, splits, named, receipts.tables_for(len(some))
            )
    return sum(map(len, tasks.values())), tuple(tasks)


def is_choice(part: SharedPart) -> bool:
    """Return True for the step that chooses survivors, which writes a file for each split."""
    return part.mapping.function is choose_survivors


def leave(
    corpus: Path, step: str, tasks: Sequence[Task], recipe: Recipe, splits: int, named: Sequence[str], tables: int
) -> None:
    """Leave the outputs and receipts of tasks of one step, and a table of them if the step has tables."""
    made = {task.name: receipt_of(task, recipe, splits, named) for task in tasks}
    mirror, sizes, left = mirror_of(corpus), Counter[str](), dict[str, bytes]()
    for name, receipt in made.items():
        sizes.update({output.path: output.bytes for output in receipt.outputs})
        plain = {"fingerprint": receipt.fingerprint, "outputs": [output._asdict() for output in receipt.outputs]}
        plain |= {"tallies": receipt.counts, "facts": receipt.facts}
        left[f"{RECEIPTS}/{step}/{name}.json"] = canonical_json(plain)
    if mirror is None:
        for path, size in sizes.items():
            (corpus / path).parent.mkdir(parents=True, exist_ok=True)
            with (corpus / path).open("wb") as file:
                file.truncate(size)
        for path, data in left.items():  # after the outputs: one that is newer than its receipt is hashed
            write_atomic(corpus / path, data)
    else:
        pretend(mirror.storage.root, {**sizes, **dict.fromkeys(left, 1_000)} if tables else sizes)
        for path, data in left.items() if not tables else ():
            mirror.storage.write(path, data)
    if tables:
        receipts.write_table(corpus, step, made)


def pretend(root: str, sizes: Mapping[str, int]) -> None:
    """Let the object server hold files of these sizes."""
    body = "".join(f"{size} {root}/{path}\n" for path, size in sizes.items()).encode()
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{PRETEND}"
    urllib.request.urlopen(urllib.request.Request(url, body, method="POST")).close()


def receipt_of(task: Task, recipe: Recipe, splits: int, named: Sequence[str]) -> Receipt:
    """Return a made-up receipt, about as large as a real one."""
    made = make_up(task, recipe, splits)
    paths = [place.format(task.name) for place in OUTPUTS.get(task.step, (f"blocks/{task.step}/{{}}",))]
    paths += [verdict_path(split) for split in named] if task.step == SURVIVORS else []
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
    """What one pass over all jobs took.

    Attributes:
        seconds: CPU time of the driver, by what it was at.
        tasks: that ran.
        requests: of the driver to the object store, by kind.
        graphs: of the jobs.
        peak: resident memory of the driver so far, in bytes.
    """

    seconds: Counter[str]
    tasks: int
    requests: Counter[str]
    graphs: list[GraphSize]
    peak: int


def measure(splits: int, in_store: bool, scratch: Path) -> list[Figures]:
    """Return the figures of a run of one split, of one of many, and of one that finds everything finished."""
    recipe = parse_recipe(read_yaml(RECIPE.encode()), "scale")
    with contextlib.ExitStack() as stack:
        if in_store:
            stack.enter_context(object_server(scratch / "server"))
        outside = stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        found = []
        for name, count in (("small", 1), ("corpus", splits), ("corpus", splits)):
            (scratch / name).mkdir(exist_ok=True)
            if in_store:
                open_mirror(scratch / name, f"s3://bucket/{name}")
            found.append(one_pass(recipe, scratch / name, count, outside))
        return found


def one_pass(recipe: Recipe, corpus: Path, splits: int, outside: ProcessPoolExecutor) -> Figures:
    """Run the driver once."""
    clock, mirror = Clock(), mirror_of(corpus)
    before = Counter(mirror.storage.requests) if mirror is not None else Counter[str]()
    engine = ScaleEngine(
        1, (), corpus / "runs/now.parts", quiet=True, recipe=recipe, splits=splits, outside=outside, clock=clock
    )
    with contextlib.ExitStack() as stack:
        for owner, name, phase in PHASES:
            stack.enter_context(mock.patch.object(owner, name, clock.timed(phase, getattr(owner, name))))
        for owner, name, phase in ENTRIES:
            stack.enter_context(mock.patch.object(owner, name, clock.timed_entry(phase, getattr(owner, name))))
        graphs = ScaleGraph(recipe, corpus, engine, made_up_inputs(recipe, splits)).build_graphs()
    clock.turn()
    requests = Counter(mirror.storage.requests) - before if mirror is not None else Counter[str]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Figures(clock.seconds, sum(graph.units for graph in graphs), requests, list(graphs), peak)


@contextlib.contextmanager
def object_server(folder: Path) -> Iterator[None]:
    """Run the object server, and let S3 clients find it."""
    port = servers.free_port()
    command = [sys.executable, "-m", "benchmarks.object_server", str(port)]
    with (
        servers.serving(command, port, folder),
        mock.patch.dict(os.environ, {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}),
    ):
        yield


def report(splits: int, one: Figures, first: Figures, again: Figures) -> str:
    """Return the tables."""
    thousands = splits / 1_000
    phases = sorted({*first.seconds, *again.seconds}, key=lambda phase: -first.seconds[phase])
    rows = [[phase, *(f"{part.seconds[phase] / thousands:.3f}" for part in (first, again))] for phase in phases]
    rows.append(["in all", *(f"{part.seconds.total() / thousands:.3f}" for part in (first, again))])
    graph = max(first.graphs, key=lambda graph: graph.bytes)
    requests = ", ".join(f"{count:,} {kind}" for kind, count in sorted(first.requests.items())) or "none"
    most = max(first.graphs, key=lambda graph: graph.units)
    return "\n".join(
        [
            f"{splits:,} splits, {first.tasks:,} tasks in {len(first.graphs)} jobs, at most {most.units:,} in one",
            "",
            table(["CPU seconds of the driver a thousand splits", "first run", "all finished"], rows),
            "",
            f"a run of one split, imports included: {one.seconds.total():.1f} s",
            f"peak of the driver: {again.peak / 1e6:,.0f} MB",
            f"largest graph: {graph.bytes:,} bytes ({', '.join(graph.steps)})",
            f"requests of the driver: {requests}; {first.requests.total() / first.tasks:.4f} a task",
        ]
    )


def main(arguments: list[str]) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.add_argument("--splits", type=int, default=1_000)
    parser.add_argument("--store", action="store_true", help="keep the corpus on an S3 server on loopback")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        print(report(options.splits, *measure(options.splits, options.store, Path(scratch))))
    return 0
