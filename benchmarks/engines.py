"""Measure the CPU time of a run with each engine, relative to the bare functions of its tasks, on the demo's sample.

Each run builds the same corpus in a new process session. Each server that the engine needs has another session. The CPU
time of all processes in these sessions is counted: driver, workers and servers. The time of the bare functions is
the CPU time that the tasks of the run in one process have measured around their functions.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from benchmarks import servers
from benchmarks.data import ROOT, table
from manifests.manifest import load_manifest

POLL_SECONDS = 0.05  # Time between two readings of /proc. The CPU time of a process after its last reading is lost.
# A function that takes a folder for logs, starts the servers of an engine, and yields arguments for the command line.
EngineStarter = Callable[[Path], AbstractContextManager[list[str]]]


@dataclass
class CpuMeter:
    """A meter of the CPU time of all processes of some sessions, including processes that have ended.

    Attributes:
        seconds: CPU seconds by process id.
        sessions: The ids of the measured sessions.
    """

    seconds: dict[int, float] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)

    def read_processes(self) -> None:
        """Read the CPU time of all processes from /proc once."""
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_bytes().rpartition(b")")[2].split()
            except OSError:  # The process has ended in the meantime.
                continue
            if int(fields[3]) in self.sessions:
                ticks = int(fields[11]) + int(fields[12])
                self.seconds[int(path.parent.name)] = ticks / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Read /proc every `POLL_SECONDS` while the `with` block runs, and once after it."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(POLL_SECONDS):
                self.read_processes()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.read_processes()

    @property
    def total(self) -> float:
        """Return the CPU seconds of all processes together."""
        return sum(self.seconds.values())


@contextmanager
def _one_process(folder: Path) -> Iterator[list[str]]:
    yield ["--engine=local", "--workers=1"]


@contextmanager
def _two_processes(folder: Path) -> Iterator[list[str]]:
    yield ["--engine=local", "--workers=2"]


@contextmanager
def _job_service(folder: Path) -> Iterator[list[str]]:
    with servers.job_service(folder / "service") as service, servers.worker_pool(folder / "pool") as pool:
        yield ["--engine=portable", "--", *service, *pool]


@contextmanager
def _prism(folder: Path) -> Iterator[list[str]]:
    with servers.prism(str(prism_path()), folder / "prism") as service, servers.worker_pool(folder / "pool") as pool:
        yield ["--engine=portable", "--", *service, *pool]


@contextmanager
def _dask(folder: Path) -> Iterator[list[str]]:
    with servers.dask_cluster(folder / "dask") as (options, _):
        yield ["--engine=dask", "--", *options]


@contextmanager
def _flink(folder: Path) -> Iterator[list[str]]:
    jar = f"--flink_job_server_jar={servers.flink_jar()}"
    yield ["--engine=flink", "--workers=2", "--", "--flink_master=[local]", jar]


# By name of the engine: the function that starts it, and a function that returns True if it is installed.
ENGINES: dict[str, tuple[EngineStarter, Callable[[], bool]]] = {
    "local, one process": (_one_process, lambda: True),
    "local, two processes": (_two_processes, lambda: True),
    "job service of Beam's Python package": (_job_service, lambda: True),
    "Prism": (_prism, lambda: prism_path() is not None),
    "Dask, two workers": (_dask, lambda: find_spec("distributed") is not None),
    "Flink in its job server": (_flink, lambda: servers.flink_jar() is not None),
}


def prism_path() -> Path | None:
    """Return the path of Beam's Prism, from `make prism` or the PATH; None if it is not installed."""
    found = shutil.which("prism", path=os.pathsep.join([str(ROOT / "build/bin"), os.environ.get("PATH", "")]))
    return Path(found) if found else None


def run() -> str:
    """Return the table of all engines."""
    rows, hashes, bare = [], set(), 0.0
    with tempfile.TemporaryDirectory() as scratch:
        make = [sys.executable, ROOT / "samples/make.py", Path(scratch) / "build/samples"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        (Path(scratch) / "samples").symlink_to(
            ROOT / "samples"
        )  # The recipe's paths are relative to the current folder.
        for name, (start, is_installed) in ENGINES.items():
            if not is_installed():
                rows.append([name, "not installed", "", ""])
                continue
            folder = Path(scratch) / name.replace(" ", "-").replace(",", "")
            cpu, jobs, tasks = _measure(folder, Path(scratch), start)
            bare = bare or tasks  # The first engine is one local process.
            if len(rows) == 0:
                rows.append(["bare functions", f"{bare:.1f}", "1.0", ""])
            rows.append([name, f"{cpu:.1f}", f"{cpu / bare:.1f}", jobs])
            hashes.add(load_manifest(folder / "corpus").manifest_sha)
    assert len(hashes) == 1, "the engines built different corpora"
    return table(["engine", "CPU s", "relative to bare functions", "jobs"], rows)


def _measure(folder: Path, scratch: Path, start: EngineStarter) -> tuple[float, int, float]:
    """Return the CPU seconds of a run, its number of jobs, and the CPU seconds of its tasks."""
    meter, corpus = CpuMeter(), folder / "corpus"
    with ExitStack() as stack:
        stack.enter_context(meter.watching())
        added = stack.enter_context(start(folder))
        meter.sessions |= {int(path.name) for path in Path("/proc").glob("[0-9]*") if _is_server(path)}
        command = [sys.executable, "-m", "pipeline", "run", ROOT / "recipes/demo.yaml", "--output", corpus, "--quiet"]
        process = subprocess.Popen(
            [*command, *added],
            cwd=scratch,
            env=servers.environment(),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        meter.sessions.add(process.pid)
        assert process.wait() == 0, f"{command} failed"
        meter.read_processes()
    (record,) = (json.loads(path.read_bytes()) for path in (corpus / "runs").glob("2*.json"))
    return meter.total, len(record["jobs"]), sum(task["cpu_seconds"] for task in record["tasks"])


def _is_server(path: Path) -> bool:
    """Return True if /proc/PID belongs to a server: a child of this process that is the leader of a session."""
    try:
        fields = (path / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    return int(fields[1]) == os.getpid() and fields[3].decode() == path.name
