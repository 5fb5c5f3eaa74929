"""Start the servers that engines need as separate processes on loopback: job services, worker pools, a Dask cluster."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.data import ROOT
from pipeline.choices import JAR_CACHE

START_SECONDS = 120.0  # Time limit for a process to start listening. It is long, because the machine may be busy.


def free_port() -> int:
    """Return a port on loopback on which no process listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def environment() -> dict[str, str]:
    """Return environment variables with which workers find this project and this Python interpreter.

    Beam's worker pool starts the program `python` of the PATH.
    """
    found = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    modules = [str(ROOT), str(ROOT / "tests")]
    return {**os.environ, "PATH": os.pathsep.join(found), "PYTHONPATH": os.pathsep.join(modules)}


@contextlib.contextmanager
def serving(command: list[str], port: int, folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a server in a folder, wait until it listens on its port, and kill it after the `with` block."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        await_port(port, process)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a process listens on a port.

    Raises:
        AssertionError: If the process has ended, or does not listen within `START_SECONDS`.
    """
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, f"{process.args!r} has ended with code {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError(f"{process.args!r} does not listen on port {port}")


@contextlib.contextmanager
def worker_pool(folder: Path) -> Iterator[list[str]]:
    """Start a pool of external workers and yield the Beam options that select it."""
    port = free_port()
    command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    with serving(command, port, folder):
        yield ["--environment_type=EXTERNAL", f"--environment_config=localhost:{port}"]


@contextlib.contextmanager
def job_service(folder: Path) -> Iterator[list[str]]:
    """Start the job service in Beam's Python package and yield the Beam options that select it."""
    port = free_port()
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", f"--port={port}"]
    with serving(command, port, folder):
        yield [f"--job_endpoint=localhost:{port}"]


@contextlib.contextmanager
def prism(program: str, folder: Path) -> Iterator[list[str]]:
    """Start Beam's Prism runner and yield the Beam options that select it."""
    port = free_port()
    with serving([program, f"--job_port={port}", "--serve_http=false"], port, folder):
        yield [f"--job_endpoint=localhost:{port}"]


def flink_jar() -> Path | None:
    """Return the jar of Beam's job server for Flink in Beam's cache folder, or None if the jar or Java is missing."""
    jars = JAR_CACHE.expanduser().glob("beam-runners-flink-*-job-server-*.jar")
    return max(jars, default=None) if shutil.which("java") else None


@contextlib.contextmanager
def flink_cluster(jar: Path, folder: Path) -> Iterator[list[str]]:
    """Start a Flink cluster with two task slots; yield the Beam options that select it and its job server."""
    port = free_port()
    command = ["java", "-cp", str(jar), "org.apache.beam.runners.flink.FlinkMiniClusterEntryPoint"]
    options = [f"--rest-port={port}", "--rest-bind-address=localhost", "--num-task-slots-per-taskmanager=2"]
    with serving([*command, *options], port, folder):
        yield [f"--flink_master=localhost:{port}", f"--flink_job_server_jar={jar}"]


def dask_scheduler(port: int) -> list[str]:
    """Return the command line of a Dask scheduler."""
    return [sys.executable, "-m", "distributed.cli.dask_scheduler", f"--port={port}", "--no-dashboard"]


def dask_worker(port: int) -> list[str]:
    """Return the command line of a Dask worker: one process with one thread, and a nanny that restarts it."""
    options = ["--nthreads=1", "--no-dashboard", "--death-timeout=120"]
    return [sys.executable, "-m", "distributed.cli.dask_worker", f"tcp://127.0.0.1:{port}", *options]


@contextlib.contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[list[str], list["subprocess.Popen[bytes]"]]]:
    """Start a Dask cluster of a scheduler and two workers. Yield the Beam options that select it, and its processes."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(serving(dask_scheduler(port), port, folder / "scheduler"))]
        for name in ("one", "two"):
            processes.append(stack.enter_context(serving(dask_worker(port), port, folder / name)))
        yield [f"--dask_client_address=tcp://127.0.0.1:{port}"], processes
