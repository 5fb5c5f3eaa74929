"""Dataflow without Google Cloud: graphs of all jobs, the price of a run, options, and the image of workers."""

import re
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import apache_beam as beam
import pytest
import toy
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from corpus import ROOT
from toy import run_step

from filters.errors import UserError
from manifests.planning.cost import Cost, StepCost
from manifests.recipe import load_recipe, parse_recipe
from manifests.stages import STAGES, stage_of
from pipeline import choices
from pipeline.__main__ import main
from pipeline.beam.engines import Engine, check_options
from pipeline.beam.step import Step, Unit
from pipeline.choices import choose
from pipeline.dataflow import check_price, price_of
from pipeline.dryrun import DryEngine, dry_run
from pipeline.plan import PlanRequest

LIMIT = 1 << 20  # bytes of a graph; Dataflow refuses requests of more than 10 MB
CLOUD = ("--project=p", "--region=r", "--temp_location=gs://bucket/t", "--sdk_container_image=image")


def test_the_graph_of_every_job_of_the_papers_recipe_is_small() -> None:
    graphs = dry_run(load_recipe(ROOT / "recipes/llama.yaml"), 2)
    assert max(graph.bytes for graph in graphs) < LIMIT // 10
    never = {"url_dedup", "neardup", "recall"}  # what the paper does not have, but for exact duplicates
    assert {stage_of(step) for graph in graphs for step in graph.steps} >= set(STAGES) - never
    assert len(graphs) == 10, "steps share jobs as turns or side by side, and what does not grow is done by the driver"


@pytest.mark.parametrize(("recipe", "jobs"), [("ccnet", 10), ("demo", 7)])
def test_steps_of_other_recipes_share_jobs_as_well(recipe: str, jobs: int, tmp_path: Path) -> None:
    text = (ROOT / f"recipes/{recipe}.yaml").read_text("utf-8").replace("build/samples", str(tmp_path))
    (tmp_path / "blocklist.txt").write_text("example.org\n", "utf-8")  # ccnet's rule reads it before work begins
    (tmp_path / "recipe.yaml").write_text(text, "utf-8")
    assert len(dry_run(load_recipe(tmp_path / "recipe.yaml"), 1)) == jobs


def test_a_dry_run_prints_every_job_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x\nseed: 1\ngoal_tokens: 9\nsources: {books: {weight: 1.0}}\n", "utf-8")
    assert main(["run", str(recipe), "--output", str(tmp_path / "corpus"), "--dry-run", "5"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ +5 tasks +[\d,]+ bytes of graph  extract$", said, re.MULTILINE)
    assert "jobs over 5 splits of each source" in said and not (tmp_path / "corpus").exists()


class DataflowDryEngine(DryEngine):
    """Gives each job to Beam's runner for Dataflow, which makes of it what it would send."""

    def measure(self, pipeline: beam.Pipeline) -> int:
        from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

        options = [*CLOUD, "--staging_location=gs://bucket/s", "--sdk_location=container", "--no_save_main_session"]
        result = DataflowRunner().run_pipeline(pipeline, PipelineOptions([*options, "--dry_run=True"]))
        assert all(one.container_image == "image" for one in images(result.job.proto_pipeline))
        return int(result.job.proto_pipeline.ByteSize())


def images(proto: Any) -> list[Any]:
    """Return the container images of a portable job."""
    found = [one for one in proto.components.environments.values() if one.urn == common_urns.environments.DOCKER.urn]
    return [beam_runner_api_pb2.DockerPayload.FromString(one.payload) for one in found]


def test_beams_runner_for_dataflow_takes_every_job() -> None:
    pytest.importorskip("apitools", reason="Beam's client for Google Cloud is not installed: apache-beam[gcp]")
    graphs = dry_run(load_recipe(ROOT / "recipes/demo.yaml"), 1, DataflowDryEngine)
    assert len(graphs) == 7 and max(graph.bytes for graph in graphs) < LIMIT


class MeasuringEngine(Engine):
    """Measures the graphs of its jobs and runs none."""

    sizes: ClassVar[list[int]] = []

    def pipeline(self) -> beam.Pipeline:
        sizes = self.sizes

        class Measured(beam.Pipeline):
            def __exit__(self, *_: object) -> None:
                sizes.append(self.to_runner_api().ByteSize())
                raise NothingRunError

        return Measured()


class NothingRunError(Exception):
    """A graph was measured."""


def graph_bytes(folder: Path, tasks: int) -> int:
    """Return the size of the graph of a job over so many tasks."""
    pytest.importorskip("pipeline.beam.tasklist", reason="tasks are in the graph, not in a file")
    step = Step("toy", toy.square, [Unit(f"{'long/' * 20}{n:06d}", {"number": n}) for n in range(tasks)])
    with pytest.raises(NothingRunError):
        run_step(folder, step, MeasuringEngine(1, (), folder / "runs/now.parts", quiet=True))
    return MeasuringEngine.sizes.pop()


def test_a_graph_is_small_at_any_number_of_tasks(tmp_path: Path) -> None:
    few, many = graph_bytes(tmp_path / "few", 5_000), graph_bytes(tmp_path / "many", 10_000)
    assert many < few * 1.3 and many < LIMIT // 10


@pytest.mark.slow
def test_a_graph_is_small_at_a_hundred_thousand_tasks(tmp_path: Path) -> None:
    size = graph_bytes(tmp_path, 100_000)
    print(f"{size:,} bytes of graph over 100,000 tasks")
    assert size < LIMIT // 10


def cost_of(core_hours: float, shuffled: float, uncounted: tuple[str, ...] = ()) -> Cost:
    step = StepCost("extract", "", "stored bytes", 1.0, core_hours * 3600, 0.0, 1.0, shuffled, None, 0)
    return Cost(10, (step,), uncounted, 1.0, 1.0)


def test_a_price_is_work_starting_workers_and_shuffled_bytes() -> None:
    price = price_of(cost_of(1000.0, 2e12), 29)
    assert (price.core_hours, price.shuffled) == (1000.0, 2e12)
    assert price.idle_core_hours == pytest.approx(29 * 180 * 10 / 3600)
    assert price.dollars == pytest.approx(1014.5 * (0.056 + 4 * 0.003557) + 2000 * 0.011)
    assert price_of(cost_of(2000.0, 2e12), 29).dollars > price.dollars > price_of(cost_of(1000.0, 0.0), 29).dollars


def test_a_run_that_costs_more_than_allowed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = parse_recipe({"name": "x", "seed": 1, "goal_tokens": 9, "sources": {"books": {"weight": 1.0}}}, "r")
    with pytest.raises(UserError, match="--max-cost needs the rates of a run: give --rates"):
        check_price(recipe, PlanRequest({}, {}), 100.0)
    monkeypatch.setattr("pipeline.dataflow.plan", lambda recipe, request: SimpleNamespace(cost=cost_of(1000.0, 0.0)))
    monkeypatch.setattr("pipeline.dataflow.dry_run", lambda recipe, splits: [None] * 29)
    assert check_price(recipe, PlanRequest({}, {}), 100.0).startswith("about 71.25 US dollars at list prices")
    with pytest.raises(UserError, match=r"would cost about 71\.25 US dollars .* over --max-cost 50: raise it"):
        check_price(recipe, PlanRequest({}, {}), 50.0)
    uncounted = SimpleNamespace(cost=cost_of(1000.0, 0.0, ("books",)))
    monkeypatch.setattr("pipeline.dataflow.plan", lambda recipe, request: uncounted)
    with pytest.raises(UserError, match="cannot count books"):
        check_price(recipe, PlanRequest({}, {}), 100.0)


def test_only_dataflow_has_a_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x\nseed: 1\ngoal_tokens: 9\nsources: {books: {weight: 1.0}}\n", "utf-8")
    assert main(["run", str(recipe), "--output", str(tmp_path / "corpus"), "--max-cost", "5"]) == 2
    assert "--max-cost needs --engine dataflow" in capsys.readouterr().err


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that Beam's client for Google Cloud and credentials are here."""
    monkeypatch.setattr(choices.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(choices, "_missing_credentials", lambda: "")


@pytest.mark.usefixtures("cloud")
def test_each_option_that_dataflow_needs_is_asked_for(tmp_path: Path) -> None:
    for number, argument in enumerate(CLOUD):
        given = CLOUD[:number]
        with pytest.raises(UserError, match=f"needs the option -- {argument.partition('=')[0]}=…, [^\n]+dataflow.md"):
            choose("dataflow", Engine(1, given, tmp_path / "runs"))


@pytest.mark.usefixtures("cloud")
def test_dataflows_options_are_set_well_and_known_to_beam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "_missing_credentials", lambda: "credentials")
    with pytest.raises(UserError, match="engine dataflow needs credentials"):
        choose("dataflow", Engine(1, CLOUD, tmp_path / "runs"))
    monkeypatch.setattr(choices, "_missing_credentials", lambda: "")
    arguments = choose("dataflow", Engine(1, (*CLOUD, "--max_num_workers=9"), tmp_path / "runs")).arguments
    assert {"--runner=DataflowRunner", "--sdk_location=container", "--no_save_main_session"} < set(arguments)
    check_options([*arguments, "--service_account_email=a@b", "--machine_type=e2-standard-4"])


def test_the_image_has_the_packages_of_this_tree_and_its_version_of_beam() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert f"_sdk:{version('apache-beam')}\n" in text
    for room in ("filters", "manifests", "pipeline"):
        assert f"\nCOPY {room} {room}\n" in text
