"""Measure CPU time and memory, run functions in alternation, and format the results of several rounds."""

import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

HAS_ANONYMOUS = Path("/proc/self/status").exists()
NO_ANONYMOUS = "skipped: this system does not report anonymous memory (RssAnon)"
SAMPLE_SECONDS = 0.02  # time between two samples of memory


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its child processes that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """Call a function. Return its result and the CPU seconds that the call took."""
    begun = cpu_seconds()
    done = work()
    return done, cpu_seconds() - begun


def alternate(functions: Mapping[str, Callable[[], T]], rounds: int) -> tuple[dict[str, list[float]], dict[str, T]]:
    """Call several functions in turn, each once per round, so that other load on the machine affects all equally.

    Returns:
        Two dicts by name of the function: the CPU seconds of each round, and the result of the last round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    results = {}
    for _ in range(rounds):
        for name, function in functions.items():
            results[name], spent = timed(function)
            seconds[name].append(spent)
    return seconds, results


def format_spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median and the range of values in the form `2.00 (1.50 to 2.50)`."""
    middle, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def format_ratios(values: Sequence[float], others: Sequence[float], digits: int = 2) -> str:
    """Return the median and the range of the ratios `value / other` of each round, as `format_spread` formats them."""
    return format_spread([value / other for value, other in zip(values, others, strict=True)], digits)


def run_module(name: str, *arguments: object) -> Any:
    """Run a module of this folder as a script and return its JSON output.

    The module runs in a separate process, so that its memory is measured without the memory of this process.
    """
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout)


def anonymous_bytes(process: int | str = "self") -> int:
    """Return the anonymous resident memory (RssAnon) of a process, in bytes.

    Raises:
        OSError: If the process has ended, or the system has no /proc.
    """
    return parse_anonymous(Path(f"/proc/{process}/status").read_text(encoding="utf-8"))


def parse_anonymous(status: str) -> int:
    """Return the bytes of the RssAnon line of /proc/PID/status (proc(5)), or 0 if it has none."""
    lines = [line.split() for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0][1]) << 10 if lines else 0


class PeakAnonymous:
    """A context manager that samples the anonymous memory of this process while the `with` block runs.

    Attributes:
        bytes: The largest sample, in bytes.
    """

    def __enter__(self) -> "PeakAnonymous":
        """Start the thread that takes samples."""
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take a last sample and stop the thread."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.wait(SAMPLE_SECONDS)
            self.bytes = max(self.bytes, anonymous_bytes())
