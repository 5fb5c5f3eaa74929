"""A dry run: build the Beam graph of every job for a given number of splits, and measure its size. No task runs.

Steps are planned from the receipts of earlier steps. A dry run invents these receipts, with round numbers and hashes of
zeros. The units, settings and functions are those of a real run. Only the recipe is read, and no engine is contacted.
"""

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.files import canonical_json, write_atomic
from manifests.ledger import Tally
from manifests.recipe import Recipe
from pipeline.beam.engines import Engine
from pipeline.beam.job import run_job
from pipeline.beam.receipts import receipt_name
from pipeline.beam.step import Output, Task, source_of
from pipeline.beam.tasklist import read_all
from pipeline.beam.work import Part, PartReceipts, Turns, Work, together
from pipeline.dedup.clusters import one_worker_steps
from pipeline.dedup.signatures import signature_path
from pipeline.graph import StageGraph
from pipeline.preflight import RunInputs
from pipeline.sources.inputs import Input
from pipeline.stages.filter import PASSES
from pipeline.stages.models import given_files

if TYPE_CHECKING:
    import apache_beam as beam

NO_HASH = "0" * 64
IMAGE = "teratoken"  # Name of the container image. A graph contains only this name.
DOCUMENTS, CHARACTERS = 30_000, 4_500  # Documents per split, about as in a WARC file, and characters per document.
NAMES = {  # Names of inputs by source kind. Readers derive sites, tables and languages from these names.
    "stackexchange": ("site-{:06d}.example/Posts.xml",),
    "wikipedia": ("enwiki-20240101-pages-articles{:06d}.xml.bz2",),
    "github": ("licenses/{:06d}.json.gz", "files/{:06d}.json.gz", "contents/{:06d}.json.gz"),
}
OTHER_NAMES = ("{:06d}.gz",)


@dataclass(frozen=True)
class GraphSize:
    """The size of the graph of one job.

    Attributes:
        steps: Names of the steps.
        units: Number of tasks of all steps.
        bytes: Size of the graph in Beam's portable format.
    """

    steps: tuple[str, ...]
    units: int
    bytes: int


@dataclass(frozen=True)
class DryEngine(Engine):
    """An engine that builds the graph of a job as for a remote engine, and writes invented receipts for its tasks."""

    recipe: Recipe = field(kw_only=True)
    splits: int = field(kw_only=True)  # number of splits per source
    graphs: list[GraphSize] = field(default_factory=list, compare=False)

    @property
    def in_memory(self) -> bool:
        """False, because engines with a shuffle group the blocks themselves, not their locations."""
        return False

    def here(self) -> "DryEngine":
        """Return an engine for local jobs. Its graphs are not counted, because no remote engine receives them."""
        return replace(self, graphs=[])

    def pool_for(self, tasks: int, size: int) -> None:
        """Do nothing, because a dry run needs no worker processes."""

    def pipeline(self) -> "beam.Pipeline":
        """Return a pipeline that calls `end_job` at the end of its `with` block, instead of running."""
        import apache_beam as beam

        end_job = self.end_job

        class Measured(beam.Pipeline):  # type: ignore[misc]
            def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
                if error is None:
                    end_job(self)

        return Measured()

    def end_job(self, pipeline: "beam.Pipeline") -> None:
        """Measure the graph of a job, and write invented receipts for its tasks."""
        corpus = self.timings.parents[1]
        tasks = read_tasks_to_run(corpus)
        steps = tuple(dict.fromkeys(task.step for task in tasks))
        self.graphs.append(GraphSize(steps, len(tasks), self.measure(pipeline)))
        write_receipts(corpus, tasks, self.recipe, self.splits)

    def measure(self, pipeline: "beam.Pipeline") -> int:
        """Return the size of a pipeline in Beam's portable format, in bytes."""
        from apache_beam.transforms.environments import DockerEnvironment

        image = DockerEnvironment.from_container_image(IMAGE)
        return int(pipeline.to_runner_api(default_environment=image).ByteSize())


class DryGraph(StageGraph):
    """The stages of a dry run."""

    engine: DryEngine

    def build_graphs(self) -> list[GraphSize]:
        """Build the graphs of all jobs in the order of a run."""
        for _, works in self.stages():
            self.finish(together(*(work() for work in works)))
        self.finish(self.statistics(NO_HASH))
        return self.engine.graphs

    def run_turns(self, turns: Turns) -> list[list[PartReceipts]]:
        """Build the graph of a job."""
        return run_job(self.corpus, turns, self.engine_for(turns))[0]

    def connect(self) -> Work[Part]:
        """Return the steps with which one worker joins duplicates to clusters.

        The algorithm for several workers is not used, because its number of rounds depends on the data.
        """
        yield from ()
        return one_worker_steps(self.edges)


def dry_run(recipe: Recipe, splits: int, kind: type[DryEngine] = DryEngine) -> list[GraphSize]:
    """Return the sizes of the graphs of all jobs.

    Args:
        recipe: Recipe of the run. Its inputs are not read, and may be missing.
        splits: Number of files per source, each of which is one split. Sources that need several kinds of files get at
            least one file of each kind.
        kind: Class of the engine.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder)
        engine = kind(1, (), corpus / "runs" / "dry.parts", quiet=True, recipe=recipe, splits=splits)
        return DryGraph(recipe, corpus, engine, invent_inputs(recipe, splits)).build_graphs()


def invent_inputs(recipe: Recipe, splits: int) -> RunInputs:
    """Return invented inputs for every source, and invented models, lists and training files for its rules."""
    dumps, models = list[Input](), dict[str, str]()
    training: dict[str, dict[str, list[Input]]] = {stage: {} for stage in PASSES}
    for name, source in recipe.sources.items():
        names = NAMES.get(source.kind or name, OTHER_NAMES)
        dumps += [
            _input(name, names[n % len(names)].format(n), recipe.split_bytes) for n in range(max(splits, len(names)))
        ]
        models |= dict.fromkeys(given_files(name, source), NO_HASH)
        for rule in source.filters:
            for use in rule.training_inputs():
                training[rule.needs][f"{name}/{use}"] = [_input(name, f"{use}.bz2", recipe.split_bytes)]
    return RunInputs(dumps, models, training, [], [])


def _input(source: str, name: str, size: int) -> Input:
    return Input(source, name, f"/dumps/{source}/{name}", size, NO_HASH, NO_HASH)


def read_tasks_to_run(corpus: Path) -> list[Task]:
    """Read the tasks that must run from the task lists of a job in a corpus."""
    *listed, _ = read_all(corpus)
    groups = (one for one in listed if not isinstance(one, Task))
    mapped = [task for group in groups for task, is_waiting in group if is_waiting]
    return [*mapped, *(one for one in listed if isinstance(one, Task))]


def write_receipts(corpus: Path, tasks: list[Task], recipe: Recipe, splits: int) -> None:
    """Write an invented receipt for each task of a run with `splits` splits per source."""
    for task in tasks:
        if task.step == "filter":
            write_atomic(corpus / signature_path(task.name), b"")  # A later step reads the size of this file.
        plain = {"fingerprint": task.fingerprint, **invent_result(task, recipe, splits)}
        write_atomic(corpus / receipt_name(task.step, task.name), canonical_json(plain))


def invent_result(task: Task, recipe: Recipe, splits: int) -> dict[str, Any]:
    """Return invented outputs, tallies and facts of a task. They contain all values with which any step is planned."""
    paths = [f"blocks/{task.step}/{task.name}"]
    if task.step == "filter":
        paths = [f"clean/{task.name}.parquet", signature_path(task.name)]
    source = source_of(task.name)
    tally = Tally()
    for count in (tally.enter, tally.keep):
        count(records=DOCUMENTS, characters=DOCUMENTS * CHARACTERS, bytes=task.size)
    facts = {
        "file": task.arguments.get("file", task.name),
        "pieces": [[0, task.size, 0]],
        "decoded": 4 * task.size,
        "counts": {"posts": DOCUMENTS},
        "documents": DOCUMENTS,
        "rows": DOCUMENTS,
        "urls": DOCUMENTS,
        "lines": 40 * DOCUMENTS,
        "tokens": recipe.shards.tokens,
        **dict.fromkeys(("edges", "pairs"), DOCUMENTS // 10),
        **dict.fromkeys(("older", "duplicates", "ccnet", "rejected", "capped", "divided_buckets", "wanted"), 0),
        "cuts": {},
        "dropped": {},
        "settings": [],
        "keys": [0],
        "copies": [],
        "source": source,
        "budget": recipe.tokenizer.sample_bytes,
        "sha256": NO_HASH,
        "vocabulary": recipe.tokenizer.vocabulary,
        "bytes_per_token": {},
        **dict.fromkeys(("clusters", "largest", "of_earlier"), DOCUMENTS),
        "text_bytes": dict.fromkeys(recipe.sources, splits * DOCUMENTS * CHARACTERS),
    }
    return {
        "outputs": [Output(path, task.size // 4, NO_HASH)._asdict() for path in paths],
        "tallies": dict.fromkeys([source] if source in recipe.sources else recipe.sources, tally.as_dict()),
        "facts": facts,
    }
