"""CPU time of each engine over that of the bare functions, on the demo's sample.

Every run builds the same corpus in a session of its own, with the servers that the engine needs in others. All
processes of these sessions count: driver, workers, servers. The bare functions are the tasks of the run in one process,
by the CPU time that each has measured around its function.
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

POLL_SECONDS = 0.05  # a process that ends between two looks loses as much
Started = Callable[[Path], AbstractContextManager[list[str]]]  # starts servers, and yields what to add to the command


@dataclass
class CpuMeter:
    """CPU seconds of all processes of some sessions, those that have ended included."""

    seconds: dict[int, float] = field(default_factory=dict)  # by process
    sessions: set[int] = field(default_factory=set)

    def look(self) -> None:
        """Read /proc once."""
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_bytes().rpartition(b")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            if int(fields[3]) in self.sessions:
                ticks = int(fields[11]) + int(fields[12])
                self.seconds[int(path.parent.name)] = ticks / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again while the block runs."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(POLL_SECONDS):
                self.look()

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            self.look()

    @property
    def total(self) -> float:
        """Return the sum."""
        return sum(self.seconds.values())


@contextmanager
def _alone(folder: Path) -> Iterator[list[str]]:
    yield ["--engine=local", "--workers=1"]


@contextmanager
def _in_two(folder: Path) -> Iterator[list[str]]:
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


ENGINES: dict[str, tuple[Started, Callable[[], bool]]] = {  # by name: how it is started, and whether it is here
    "local, one process": (_alone, lambda: True),
    "local, two processes": (_in_two, lambda: True),
    "job service of Beam's Python package": (_job_service, lambda: True),
    "Prism": (_prism, lambda: prism_path() is not None),
    "Dask, two workers": (_dask, lambda: find_spec("distributed") is not None),
    "Flink in its job server": (_flink, lambda: servers.flink_jar() is not None),
}


def prism_path() -> Path | None:
    """Return Prism, from `make prism` or the PATH."""
    found = shutil.which("prism", path=os.pathsep.join([str(ROOT / "build/bin"), os.environ.get("PATH", "")]))
    return Path(found) if found else None


def run() -> str:
    """Return the table."""
    rows, hashes, bare = [], set(), 0.0
    with tempfile.TemporaryDirectory() as scratch:
        make = [sys.executable, ROOT / "samples/make.py", Path(scratch) / "build/samples"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        (Path(scratch) / "samples").symlink_to(ROOT / "samples")  # the recipe's paths begin in the current folder
        for name, (options, is_here) in ENGINES.items():
            if not is_here():
                rows.append([name, "not installed here", "", ""])
                continue
            folder = Path(scratch) / name.replace(" ", "-").replace(",", "")
            cpu, jobs, tasks = _measure(folder, Path(scratch), options)
            bare = bare or tasks
            if len(rows) == 0:
                rows.append(["bare functions", f"{bare:.1f}", "1.0", ""])
            rows.append([name, f"{cpu:.1f}", f"{cpu / bare:.1f}", jobs])
            hashes.add(load_manifest(folder / "corpus").manifest_sha)
    assert len(hashes) == 1, "engines differ"
    return table(["engine", "CPU s", "over bare functions", "jobs"], rows)


def _measure(folder: Path, scratch: Path, options: Started) -> tuple[float, int, float]:
    """Return the CPU seconds of a run, its number of jobs, and the CPU seconds of its tasks."""
    meter, corpus = CpuMeter(), folder / "corpus"
    with ExitStack() as stack:
        stack.enter_context(meter.watching())
        added = stack.enter_context(options(folder))
        meter.sessions |= {int(path.name) for path in Path("/proc").glob("[0-9]*") if _is_ours(path)}
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
        meter.look()
    (record,) = (json.loads(path.read_bytes()) for path in (corpus / "runs").glob("2*.json"))
    return meter.total, len(record["jobs"]), sum(task["cpu_seconds"] for task in record["tasks"])


def _is_ours(path: Path) -> bool:
    """Return True for a server: a child of this process that leads a session."""
    try:
        fields = (path / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return False
    return int(fields[1]) == os.getpid() and fields[3].decode() == path.name
