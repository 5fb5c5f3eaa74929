"""One manifest hash on every engine: real job services, worker pools and clusters on loopback."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import PipelineRunner
from apache_beam.transforms.environments import DockerEnvironment, EmbeddedPythonEnvironment
from corpus import ROOT, demo_recipe

from benchmarks import servers
from filters.errors import RunError, UserError
from manifests.manifest import load_manifest
from manifests.recipe import Recipe
from manifests.storage import StorageError
from pipeline.beam.engines import Engine
from pipeline.choices import check_engine, choose, running
from pipeline.run import run

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def recipe(sample: Path) -> Recipe:
    return demo_recipe(sample)


def build(recipe: Recipe, corpus: Path, name: str, *arguments: str) -> str:
    """Build a corpus on an engine by name and return the manifest's hash."""
    done = run(recipe, corpus, choose(name, Engine(2, tuple(arguments), corpus / "runs", quiet=True)), 0)
    assert done.manifest is not None
    return done.manifest.manifest_sha


@pytest.fixture(scope="module")
def expected(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(recipe, tmp_path_factory.mktemp("local") / "corpus", "local")


def test_a_job_service_with_an_external_worker_pool(recipe: Recipe, expected: str, tmp_path: Path) -> None:
    with servers.job_service(tmp_path / "service") as service, servers.worker_pool(tmp_path / "pool") as pool:
        assert build(recipe, tmp_path / "corpus", "portable", *service, *pool) == expected


def test_prism_with_an_external_worker_pool(recipe: Recipe, expected: str, tmp_path: Path) -> None:
    program = shutil.which("prism", path=os.pathsep.join([str(ROOT / "build/bin"), os.environ.get("PATH", "")]))
    if program is None:
        pytest.skip("prism is neither on the PATH nor in build/bin: `make prism` builds it, with Go")
    with servers.prism(program, tmp_path / "prism") as service, servers.worker_pool(tmp_path / "pool") as pool:
        assert build(recipe, tmp_path / "corpus", "portable", *service, *pool) == expected


@pytest.fixture
def flink_jar() -> Path:
    jar = servers.flink_jar()
    if jar is None:
        pytest.skip("Flink needs Java, and the jar of Beam's job server in ~/.apache_beam/cache/jars")
    return jar


def test_flink_in_its_job_server(recipe: Recipe, expected: str, flink_jar: Path, tmp_path: Path) -> None:
    arguments = ["--flink_master=[local]", f"--flink_job_server_jar={flink_jar}"]
    assert build(recipe, tmp_path / "corpus", "flink", *arguments) == expected


def test_a_flink_cluster_with_an_external_worker_pool(
    recipe: Recipe, expected: str, flink_jar: Path, tmp_path: Path
) -> None:
    with servers.flink_cluster(flink_jar, tmp_path / "flink") as flink, servers.worker_pool(tmp_path / "pool") as pool:
        assert build(recipe, tmp_path / "corpus", "flink", *flink, *pool, "--parallelism=2") == expected


def java_that(does: str, folder: Path) -> tuple[str, ...]:
    """Return Beam options for a job server of Flink whose Java is a shell command."""
    launcher, jar = folder / "java", folder / "server.jar"
    launcher.write_text(f"#!/bin/sh\necho $$ >> {folder}/started\n{does}\n")
    launcher.chmod(0o755)
    jar.touch()
    return "--flink_master=[local]", f"--flink_job_server_jar={jar}", f"--job_server_java_launcher={launcher}"


def test_one_job_server_serves_a_whole_run(tmp_path: Path) -> None:
    service = f"exec {sys.executable} -m apache_beam.runners.portability.local_job_service_main"
    arguments = java_that(f'while [ "$1" != --job-port ]; do shift; done; {service} --port=$2', tmp_path)
    with running(choose("flink", Engine(1, arguments, tmp_path / "runs/now.parts", quiet=True))) as started:
        for _ in range(2):
            check_engine(started)
        (process,) = (tmp_path / "started").read_text().split()
        os.kill(int(process), 0)
    patience = time.monotonic() + 60
    while not has_ended(int(process)):
        assert time.monotonic() < patience, "the job server was left behind"
        time.sleep(0.1)


def has_ended(process: int) -> bool:
    """Return True if a process that this one started has ended, whether Beam has waited for it or not."""
    try:
        return os.waitpid(process, os.WNOHANG)[0] == process
    except ChildProcessError:
        return True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # gRPC's, of a closed channel
def test_a_job_server_that_does_not_start_is_told_in_a_sentence(tmp_path: Path) -> None:
    engine = choose("flink", Engine(1, java_that("exit 3", tmp_path), tmp_path / "runs", quiet=True))
    said = r"FlinkRunner does not start its job server \(RuntimeError: .* error 3\): see"
    with pytest.raises(UserError, match=said), running(engine):
        pass


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[tuple[list[str], list["subprocess.Popen[bytes]"]]]:
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    with servers.dask_cluster(tmp_path / "dask") as found:
        yield found


def test_dask_with_a_schedulers_address_and_workers_in_other_folders(
    recipe: Recipe, expected: str, dask: tuple[list[str], list["subprocess.Popen[bytes]"]], tmp_path: Path
) -> None:
    assert build(recipe, tmp_path / "corpus", "dask", *dask[0]) == expected


def test_dask_started_and_closed_by_the_run(
    recipe: Recipe, expected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    with caplog.at_level(logging.INFO):
        assert build(recipe, tmp_path / "corpus", "dask") == expected
    assert [record for record in caplog.records if record.name.startswith("distributed")] == []


class ProtoEngine(Engine):
    """Runs each job from the portable form that is made for Dataflow: shuffled blocks, and workers in an image."""

    in_memory = False

    def pool_for(self, tasks: int, size: int) -> None:
        return None

    def pipeline(self) -> beam.Pipeline:
        return beam.Pipeline(runner=ProtoRunner())


class ProtoRunner(PipelineRunner):
    """Runs a job's serialized portable form, with its image replaced by this process."""

    def run_pipeline(self, pipeline: beam.Pipeline, options: Any) -> Any:
        image = DockerEnvironment.from_container_image("image")
        sent = pipeline.to_runner_api(default_environment=image).SerializeToString()
        proto = beam_runner_api_pb2.Pipeline.FromString(sent)
        here = EmbeddedPythonEnvironment.default().to_runner_api(PipelineContext())
        for found in proto.components.environments.values():
            found.CopyFrom(here)
        return FnApiRunner().run_via_runner_api(proto, PipelineOptions())


def test_the_graphs_that_are_sent_to_dataflow(recipe: Recipe, expected: str, tmp_path: Path) -> None:
    engine = ProtoEngine(1, (), tmp_path / "runs", quiet=True)
    done = run(recipe, tmp_path / "corpus", engine, 0)
    assert done.manifest is not None and done.manifest.manifest_sha == expected


def when_half_done(corpus: Path, process: "subprocess.Popen[bytes]") -> threading.Thread:
    """Return a started thread that kills a process with its group once the documents are being filtered."""

    def kill() -> None:
        until = time.monotonic() + 300
        while time.monotonic() < until and not any((corpus / "receipts/filter").rglob("*.json")):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_dask_goes_on_when_a_worker_dies(
    recipe: Recipe, expected: str, dask: tuple[list[str], list["subprocess.Popen[bytes]"]], tmp_path: Path
) -> None:
    killer = when_half_done(tmp_path / "corpus", dask[1][1])
    assert build(recipe, tmp_path / "corpus", "dask", *dask[0]) == expected
    killer.join()


def test_dask_whose_scheduler_is_restarted_ends_with_a_sentence_and_resumes(
    recipe: Recipe, expected: str, tmp_path: Path
) -> None:
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    with ExitStack() as stack:
        arguments, processes = stack.enter_context(servers.dask_cluster(tmp_path / "dask"))
        killer = when_half_done(tmp_path / "corpus", processes[0])
        with pytest.raises(StorageError, match="the same command again"):
            build(recipe, tmp_path / "corpus", "dask", *arguments)
        killer.join()
    with servers.dask_cluster(tmp_path / "again") as (arguments, _):
        assert build(recipe, tmp_path / "corpus", "dask", *arguments) == expected
        assert load_manifest(tmp_path / "corpus").manifest_sha == expected


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # gRPC's, of a closed channel
def test_a_job_service_that_is_killed_ends_the_run_with_a_sentence_and_it_resumes(
    recipe: Recipe, expected: str, tmp_path: Path
) -> None:
    port, corpus = servers.free_port(), tmp_path / "corpus"
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", f"--port={port}"]
    with servers.worker_pool(tmp_path / "pool") as pool:
        with servers.serving(command, port, tmp_path / "service") as service:
            killer = when_half_done(corpus, service)
            with pytest.raises(RunError, match=r"job service has gone \(.*\): .* the same command again"):
                build(recipe, corpus, "portable", f"--job_endpoint=localhost:{port}", *pool)
            killer.join()
        with servers.job_service(tmp_path / "again") as again:
            assert build(recipe, corpus, "portable", *again, *pool) == expected


def names_of_clients(dask_scheduler: Any) -> list[str]:
    return [name for name in dask_scheduler.clients if name != "fire-and-forget"]


def test_one_dask_cluster_serves_a_whole_run(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    engine = Engine(1, (), tmp_path / "runs", quiet=True)
    with running(choose("dask", engine)) as started:
        address = next(one for one in started.arguments if one.startswith("--dask_client_address="))
        with distributed.Client(address.partition("=")[2], timeout=30) as client:
            assert len(client.scheduler_info()["workers"]) == 1
            for _ in range(2):
                check_engine(started)
            until = time.monotonic() + 30
            while len(clients := client.run_on_scheduler(names_of_clients)) > 1 and time.monotonic() < until:
                time.sleep(0.1)
            assert len(clients) == 1, "those of jobs are closed"
    with pytest.raises(OSError):
        distributed.Client(address.partition("=")[2], timeout=1)
