"""A run without work: every job's real graph is built, as for any number of splits, and measured.

Receipts of tasks are made up, so that each step finds what it plans by: the numbers are round and the hashes zeros, but
units, settings and functions are those of the recipe. Nothing is read but the recipe and no engine is asked.
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
IMAGE = "teratoken"  # of a container: only its name is in a graph
DOCUMENTS, CHARACTERS = 30_000, 4_500  # of a split, about as of a WARC file, and of a document
NAMES = {  # of a source's inputs, by its kind: readers tell sites, tables and languages by the name
    "stackexchange": ("site-{:06d}.example/Posts.xml",),
    "wikipedia": ("enwiki-20240101-pages-articles{:06d}.xml.bz2",),
    "github": ("licenses/{:06d}.json.gz", "files/{:06d}.json.gz", "contents/{:06d}.json.gz"),
}
OTHER_NAMES = ("{:06d}.gz",)


@dataclass(frozen=True)
class GraphSize:
    """The graph of one job: its steps, their units and the bytes of its portable form."""

    steps: tuple[str, ...]
    units: int
    bytes: int


@dataclass(frozen=True)
class DryEngine(Engine):
    """Builds a job's graph as for a remote engine, and leaves made-up receipts instead of running it."""

    recipe: Recipe = field(kw_only=True)
    splits: int = field(kw_only=True)  # of each source
    graphs: list[GraphSize] = field(default_factory=list, compare=False)

    @property
    def in_memory(self) -> bool:
        """False: blocks themselves are grouped, as on every engine with a shuffle."""
        return False

    def here(self) -> "DryEngine":
        """Return an engine whose graphs do not count: a remote engine never sees them."""
        return replace(self, graphs=[])

    def pool_for(self, tasks: int, size: int) -> None:
        """Return None: there are no processes here."""

    def pipeline(self) -> "beam.Pipeline":
        """Return a pipeline that is measured where others run."""
        import apache_beam as beam

        end_job = self.end_job

        class Measured(beam.Pipeline):  # type: ignore[misc]
            def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
                if error is None:
                    end_job(self)

        return Measured()

    def end_job(self, pipeline: "beam.Pipeline") -> None:
        """Measure a job's graph, and leave receipts as its tasks would."""
        corpus = self.timings.parents[1]
        tasks = listed_tasks(corpus)
        steps = tuple(dict.fromkeys(task.step for task in tasks))
        self.graphs.append(GraphSize(steps, len(tasks), self.measure(pipeline)))
        leave_receipts(corpus, tasks, self.recipe, self.splits)

    def measure(self, pipeline: "beam.Pipeline") -> int:
        """Return the bytes of a pipeline's portable form."""
        from apache_beam.transforms.environments import DockerEnvironment

        image = DockerEnvironment.from_container_image(IMAGE)
        return int(pipeline.to_runner_api(default_environment=image).ByteSize())


class DryGraph(StageGraph):
    """The steps of a run, each of which leaves made-up receipts."""

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
        """Return the steps by which one worker joins duplicates; the number of rounds otherwise is not known before."""
        yield from ()
        return one_worker_steps(self.edges)


def dry_run(recipe: Recipe, splits: int, kind: type[DryEngine] = DryEngine) -> list[GraphSize]:
    """Return the sizes of all jobs' graphs.

    Args:
        recipe: with any inputs or none, which are not read.
        splits: files of each source, each of one split; more if a source needs more.
        kind: of the engine.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder)
        engine = kind(1, (), corpus / "runs" / "dry.parts", quiet=True, recipe=recipe, splits=splits)
        return DryGraph(recipe, corpus, engine, made_up_inputs(recipe, splits)).build_graphs()


def made_up_inputs(recipe: Recipe, splits: int) -> RunInputs:
    """Return inputs of every source, and every model, list and training file that the recipe asks for."""
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


def listed_tasks(corpus: Path) -> list[Task]:
    """Return the tasks to run of the job whose task list lies in a corpus."""
    *listed, _ = read_all(corpus)
    groups = (one for one in listed if not isinstance(one, Task))
    mapped = [task for group in groups for task, is_waiting in group if is_waiting]
    return [*mapped, *(one for one in listed if isinstance(one, Task))]


def leave_receipts(corpus: Path, tasks: list[Task], recipe: Recipe, splits: int) -> None:
    """Write a made-up receipt for each task of a run over `splits` splits of each source."""
    for task in tasks:
        if task.step == "filter":
            write_atomic(corpus / signature_path(task.name), b"")  # a later step looks at its size
        plain = {"fingerprint": task.fingerprint, **make_up(task, recipe, splits)}
        write_atomic(corpus / receipt_name(task.step, task.name), canonical_json(plain))


def make_up(task: Task, recipe: Recipe, splits: int) -> dict[str, Any]:
    """Return outputs, tallies and facts that suit every step: each takes what it plans by."""
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
