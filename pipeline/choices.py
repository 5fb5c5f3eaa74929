"""Engines by name: the Beam runner of each engine, its default options, and a check of what it needs."""

import contextlib
import importlib.util
import logging
import shutil
import socket
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filters.errors import UserError
from manifests.mirror import mirror_of
from manifests.storage import connect
from pipeline.beam.engines import LOCAL, Engine

DASK = "pipeline.dask_runner.ClosingDaskRunner"
FLINK = "2.2"  # Beam's default version of Flink.
JAR_SOURCE = "https://repo.maven.apache.org/maven2/org/apache/beam"  # Beam downloads the jars of job servers from here.
JAR_CACHE = Path("~/.apache_beam/cache/jars")
TESTED = 64  # Elements of the self-test. There are enough for every worker to process some.
SELF_TEST = "selftest"
OTHER_SERVERS = {"--job_endpoint", "--flink_submit_uber_jar"}  # With one of these options, Beam starts no job server.
DATAFLOW_OPTIONS = {  # Required options, with descriptions.
    "project": "the project that pays",
    "region": "where workers run: that of the bucket",
    "temp_location": "a folder in a bucket for the service's own files",
    "sdk_container_image": "the image that workers run, which `docker build` makes of this tree's Dockerfile",
}
POOL_COMMAND = "python -m apache_beam.runners.worker.worker_pool_main --service_port=50000"


@dataclass(frozen=True)
class Choice:
    """An engine that `--engine` can name.

    Attributes:
        runner: Name of the Beam runner.
        about: Description of where it runs, for users.
        missing: Function that takes the Beam options, and returns what is missing to use the engine and how to get it.
            The text is empty if nothing is missing.
        defaults: Beam options that are added if they are not given, by name. An option with an empty value is a flag.
    """

    runner: str
    about: str
    missing: Callable[[Sequence[str]], str]
    defaults: Mapping[str, str] = field(default_factory=dict)


def _missing_for_dask(arguments: Sequence[str]) -> str:
    if importlib.util.find_spec("distributed") is None:
        return "the package distributed: pip install dask distributed"
    return ""


def _missing_for_portable(arguments: Sequence[str]) -> str:
    endpoint = option(arguments, "job_endpoint")
    if not endpoint:
        return "the address of a job service: -- --job_endpoint=HOST:PORT"
    if not _accepts_connections(endpoint):
        return f"an answer from the job service at {endpoint}: start it, or correct the address"
    return _missing_workers(arguments) if option(arguments, "environment_type") else ""


def _missing_for_flink(arguments: Sequence[str]) -> str:
    version = option(arguments, "flink_version") or FLINK
    missing = _missing_for_cluster(arguments, "flink", "flink_master", "HOST:PORT, or [local]", f"flink-{version}")
    if missing or is_embedded(option(arguments, "flink_master")) or option(arguments, "parallelism"):
        return missing
    return "the number of tasks that run at once, 1 by default: -- --parallelism=N, such as the cluster's slots"


def _missing_for_spark(arguments: Sequence[str]) -> str:
    return _missing_for_cluster(arguments, "spark", "spark_master_url", "spark://HOST:PORT, or local[2]", "spark-3")


def _missing_for_cluster(arguments: Sequence[str], engine: str, name: str, example: str, artifact: str) -> str:
    """Return what is missing to use a Flink or Spark cluster through a job server on this machine.

    Args:
        arguments: Beam options.
        engine: `flink` or `spark`.
        name: Name of the option with the address of the cluster.
        example: Example of an address, for the message.
        artifact: The part of the job server's Maven artifact that names the engine and its version.
    """
    address = option(arguments, name)
    if missing := _missing_java(arguments):
        return missing
    if not address:
        return f"the address of the cluster: -- --{name}={example}"
    if not is_embedded(address) and not _accepts_connections(address):
        return f"an answer from {address}: start the cluster, or correct the address"
    missing = _missing_jar(arguments, f"{engine}_job_server_jar", f"beam-runners-{artifact}-job-server")
    return missing or ("" if is_embedded(address) else _missing_workers(arguments))


def _missing_for_dataflow(arguments: Sequence[str]) -> str:
    if importlib.util.find_spec("apitools") is None:
        return "Beam's client for Google Cloud: pip install 'apache-beam[gcp]'"
    for name, why in DATAFLOW_OPTIONS.items():
        if not option(arguments, name):
            return f"the option -- --{name}=…, {why} (docs/dataflow.md)"
    return _missing_credentials()


CHOICES = {
    "local": Choice(LOCAL, "worker processes on this machine", lambda arguments: ""),
    "dask": Choice(DASK, "a Dask cluster: -- --dask_client_address=HOST:PORT, or processes here", _missing_for_dask),
    "portable": Choice(
        "PortableRunner",
        "any job service of Beam, such as Prism",
        _missing_for_portable,
        {"environment_type": "LOOPBACK"},
    ),
    "flink": Choice("FlinkRunner", "a Flink cluster, by the job server that Beam fetches", _missing_for_flink),
    "spark": Choice("SparkRunner", "a Spark 3 cluster, by the job server that Beam fetches", _missing_for_spark),
    "dataflow": Choice(
        "DataflowRunner",
        "Google Cloud Dataflow",
        _missing_for_dataflow,
        {"sdk_location": "container", "no_save_main_session": ""},
    ),
}


def list_engines() -> str:
    """Return a text with one line per engine: `ready`, or what is missing to use it."""
    width = max(map(len, CHOICES))
    lines = []
    for name, choice in CHOICES.items():
        missing = choice.missing(())
        lines.append(f"{name:{width}}  {f'needs {missing}' if missing else 'ready'}  ({choice.about})")
    return "\n".join(lines)


def choose(name: str, engine: Engine) -> Engine:
    """Return a copy of the engine with the runner and the default options of the engine `name`.

    Raises:
        UserError: Something is missing to use the engine, or the Beam options also name a runner.
    """
    choice = CHOICES[name]
    given = option(engine.arguments, "runner")
    if given:
        raise UserError(f"--engine {name} and --runner={given} are both given: give one of them")
    if missing := choice.missing(engine.arguments):
        raise UserError(f"engine {name} needs {missing}")
    if name == "local":
        return engine
    defaults = dict(choice.defaults)
    if name == "flink" and is_embedded(option(engine.arguments, "flink_master")):
        defaults["parallelism"] = str(engine.workers)  # Flink runs inside the job server, with a thread per worker.
    elif name in ("flink", "spark") and option(engine.arguments, "environment_type"):
        defaults["sdk_worker_parallelism"] = "0"  # Python processes per machine: 0 means cores - 1; the default is 1.
    added = [f"--{key}={value}" if value else f"--{key}" for key, value in defaults.items()
             if not option(engine.arguments, key)]  # fmt: skip
    return replace(engine, arguments=(*engine.arguments, f"--runner={choice.runner}", *added))


@contextlib.contextmanager
def running(engine: Engine) -> Iterator[Engine]:
    """Start the services that an engine needs for a whole run, and yield the engine that uses them.

    Dask without an address gets a cluster of local processes. Flink gets one job server.
    """
    with contextlib.ExitStack() as stack:
        if engine.runner == DASK and not option(engine.arguments, "dask_client_address"):
            from distributed import LocalCluster

            logging.getLogger("distributed").setLevel(logging.ERROR)  # Dask logs every step of its start and end.
            made: Any = LocalCluster  # The class has no type hints.
            cluster = stack.enter_context(
                made(n_workers=engine.workers, threads_per_worker=1, dashboard_address=None, processes=True)
            )
            address = f"--dask_client_address={cluster.scheduler_address}"
            engine = replace(engine, arguments=(*engine.arguments, address))
        given = {argument.partition("=")[0] for argument in engine.arguments}
        if engine.runner == "FlinkRunner" and given.isdisjoint(OTHER_SERVERS):
            engine = stack.enter_context(_with_job_server(engine))
        yield engine


@contextlib.contextmanager
def _with_job_server(engine: Engine) -> Iterator[Engine]:
    """Start one Flink job server for all jobs, and yield the engine that uses it.

    Without this, Beam would start a server for each job, and would stop them only when this process ends.

    Raises:
        UserError: The job server does not start.
    """
    from apache_beam.options.pipeline_options import JobServerOptions, PipelineOptions
    from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
    from apache_beam.utils.subprocess_server import pick_port

    options = PipelineOptions(list(engine.arguments))
    (port,) = pick_port(options.view_as(JobServerOptions).job_port)
    options.view_as(JobServerOptions).job_port = port
    server = FlinkJarJobServer(options)
    # It does not start if Java is too old, or if the jar has another version or cannot be downloaded.
    with _raise_user_errors(engine, "does not start its job server"):
        server.start()
    try:
        yield replace(engine, arguments=(*engine.arguments, f"--job_endpoint=localhost:{port}"))
    finally:
        server.stop()


def check_engine(engine: Engine) -> None:
    """Run a small test job, in which the workers write one file per element. The local engine is not tested.

    Raises:
        UserError: The job fails, or files are missing, for example because the workers write into another folder.
    """
    if engine.runner == LOCAL:
        return
    corpus = engine.timings.parents[1]
    mirror = mirror_of(corpus)
    place = f"{mirror.storage.url if mirror is not None else corpus.absolute().as_uri()}/runs/{SELF_TEST}"
    _remove_test_files(place)  # A killed run may have left files.
    with _raise_user_errors(engine, "does not run a test job"), engine.pipeline() as pipeline:
        import apache_beam as beam

        elements = pipeline | beam.Create([(number % 7, number) for number in range(TESTED)])
        _ = elements | beam.GroupByKey() | SELF_TEST >> beam.Map(partial(_write_elements, place))
    delivered = _remove_test_files(place)
    shutil.rmtree(corpus / "runs" / SELF_TEST, ignore_errors=True)
    if delivered < TESTED:
        raise UserError(
            f"{engine.runner} delivered {delivered} of {TESTED} elements of a test to {place}: its workers "
            "must run this version and write to this folder"
        )


@contextlib.contextmanager
def _raise_user_errors(engine: Engine, what: str) -> Iterator[None]:
    """Raise UserError for every exception that an engine raises in the block, and suppress Beam's log messages.

    Each engine raises other exceptions, for example if a jar or a credential is missing or a server does not answer.
    """
    logging.disable(logging.ERROR)
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = textwrap.shorten(f"{type(error).__name__}: {lines[-1] if lines else ''}", 200, placeholder=" …")
        name = engine.runner.rpartition(".")[2]
        raise UserError(f"{name} {what} ({reason}): see docs/engines.md for what it needs") from error
    finally:
        logging.disable(logging.NOTSET)


def _remove_test_files(place: str) -> int:
    """Remove the files that a test job wrote, and return their number."""
    found = connect(place).list_files()
    connect(place).remove_all(entry.path for entry in found)
    return len(found)


def _write_elements(place: str, group: tuple[int, Iterable[int]]) -> None:
    for number in group[1]:
        connect(place).write(str(number), b"")


def option(arguments: Sequence[str], name: str) -> str:
    """Return the value of a Beam option that is given as `--NAME=VALUE` or `--NAME VALUE`; empty if it is missing."""
    for number, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag == f"--{name}":
            return value if equals else next(iter(arguments[number + 1 : number + 2]), "")
    return ""


def _accepts_connections(address: str) -> bool:
    try:
        place = urlsplit(address if "//" in address else f"//{address}")
        port = place.port or {"https": 443, "http": 80}.get(place.scheme, 0)
        with socket.create_connection((place.hostname or "", port), timeout=3):
            return True
    except (OSError, ValueError):  # ValueError: the text is not an address, for example if the port exceeds 65535.
        return False


def _missing_credentials() -> str:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError:
        return "credentials of Google Cloud: run gcloud auth application-default login, or start on a machine with one"
    return ""


def _missing_java(arguments: Sequence[str]) -> str:
    """Return what is missing to start a job server. Beam uses `java` from the PATH, and ignores JAVA_HOME."""
    found = shutil.which(option(arguments, "job_server_java_launcher") or "java")
    return "" if found else "Java 11 or newer on the PATH, or given as -- --job_server_java_launcher=FILE"


def is_embedded(address: str) -> bool:
    """Return True if the address means a cluster inside the job server. Beam starts the workers of such a cluster."""
    return address.startswith(("[", "local[")) or address == "local"


def _missing_jar(arguments: Sequence[str], name: str, artifact: str) -> str:
    """Return what is missing to get the jar of a job server.

    The jar is given by path or URL in the option `name`, or it is in Beam's cache, or Beam downloads it from Maven.
    """
    from importlib.metadata import version

    given, file = option(arguments, name), f"{artifact}-{version('apache-beam')}.jar"
    if given:
        found = "://" in given or Path(given).is_file()
        return "" if found else f"the jar {given}, which does not exist: correct the path of --{name}"
    if (JAR_CACHE.expanduser() / file).is_file() or _accepts_connections(JAR_SOURCE):
        return ""
    return (
        f"{file}, and {urlsplit(JAR_SOURCE).hostname} does not answer: fetch it elsewhere, and put it into {JAR_CACHE} "
        f"or give it as -- --{name}=FILE"
    )


def _missing_workers(arguments: Sequence[str]) -> str:
    """Return what is missing to use Python workers on the machines of a cluster."""
    kind, address = option(arguments, "environment_type"), option(arguments, "environment_config")
    if not kind:
        return (
            f"Python workers: start `{POOL_COMMAND}` on each machine of the cluster and give "
            "-- --environment_type=EXTERNAL --environment_config=localhost:50000"
        )
    if kind == "EXTERNAL" and not address:
        return "the address of the worker pool: -- --environment_config=HOST:PORT"
    local = urlsplit(f"//{address}").hostname in ("localhost", "127.0.0.1")  # on the machines of the cluster
    if kind == "EXTERNAL" and local and not _accepts_connections(address):
        return f"an answer from the worker pool at {address}: start `{POOL_COMMAND}`, or correct the address"
    return ""
