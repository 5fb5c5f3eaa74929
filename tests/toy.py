"""Define toy step functions and engines for tests of jobs and engines.

They are in a separate module so that worker processes can import them.
"""

import errno
import hashlib
import os
import signal
import struct
import time
from pathlib import Path

from filters.errors import UserError
from filters.reasons import Reason
from manifests.files import relative_files, write_atomic
from manifests.ledger import Tally
from pipeline.beam.engines import Engine
from pipeline.beam.exchange import Mapped
from pipeline.beam.job import run_job
from pipeline.beam.pool import Pool
from pipeline.beam.step import Receipts, Result, Step, Task

RANGES = 4


class ShuffleEngine(Engine):
    """A local engine that is treated like an engine with a shuffle, so that blocks are grouped by the runner."""

    in_memory = False


class PoolEngine(Engine):
    """A local engine with two worker processes for every job, even for small jobs."""

    def pool_for(self, tasks: int, size: int) -> Pool:
        self.pool.start(2)
        return self.pool


def run_step(corpus: Path, step: Step, engine: Engine) -> tuple[Receipts, int]:
    """Run one step. Return its receipts and the number of tasks that ran."""
    [[(found,)]], ran = run_job(corpus, [[(step,)]], engine)
    return found, ran


def run_exchange(corpus: Path, mapping: Step, reducing: Step, engine: Engine) -> tuple[Receipts, Receipts, int]:
    """Run one exchange. Return the receipts of both steps and the number of tasks that ran."""
    [[(mapped, reduced)]], ran = run_job(corpus, [[(mapping, reducing)]], engine)
    return mapped, reduced, ran


def tasks_of(step: Step) -> list[Task]:
    """Return a task for each unit of a step whose units wait for no other tasks."""
    keys = step.fingerprints()
    return [step.task(unit, keys[unit.name]) for unit in step.units]


def engine(corpus: Path, *arguments: str, kind: type[Engine] = Engine) -> Engine:
    """Return a quiet engine with one worker."""
    return kind(1, arguments, corpus / "runs/now.parts", quiet=True)


def digest(corpus: Path, *folders: str) -> dict[str, str]:
    """Return the SHA-256 of each file in some folders of a corpus, by path."""
    names = [f"{folder}/{name}" for folder in folders for name in relative_files(corpus / folder)]
    return {name: hashlib.sha256((corpus / name).read_bytes()).hexdigest() for name in names}


def square(
    corpus: Path,
    name: str,
    *,
    number: int,
    add: int = 0,
    mistake: int = -1,
    die: int = -1,
    fail: int = -1,
    times: int = 0,
    seconds: float = 0.0,
) -> Result:
    """Write the square of a number plus `add`, or fail for a certain number.

    Args:
        corpus: The corpus folder.
        name: The name of the task.
        number: The number.
        add: The number that is added to the square.
        mistake: The number for which UserError is raised.
        die: The number for which the process is killed.
        fail: The number for which OSError is raised.
        times: The number of calls for which OSError is raised. Later calls succeed.
        seconds: The time that the task takes.
    """
    if number == mistake:
        raise UserError("this number is a mistake: give another")
    time.sleep(seconds)
    if number == die:
        os.kill(os.getpid(), signal.SIGKILL)
    with (corpus / "calls").open("a", encoding="utf-8") as file:
        file.write(f"{name}\n")
    if number == fail and (corpus / "calls").read_text("utf-8").split().count(name) <= times:
        raise OSError(errno.EIO, "Input/output error", str(corpus / "the-disk"))
    tally = Tally()
    tally.enter(records=1)
    tally.keep(records=1)
    write_atomic(corpus / f"squares/{name}", str(number * number + add).encode())
    return Result([f"squares/{name}"], {"toy": tally}, {"number": number})


def add_files(corpus: Path, name: str, *, of: list[str]) -> Result:
    """Write the sum of the numbers in the given files."""
    write_atomic(corpus / f"sums/{name}", str(sum(int((corpus / path).read_bytes()) for path in of)).encode())
    return Result([f"sums/{name}"])


def wait(corpus: Path, name: str) -> Result:
    """Sleep for longer than any test waits."""
    time.sleep(600)
    return Result([])


def hold(seconds: float) -> None:
    """Keep a worker busy for some seconds."""
    time.sleep(seconds)


def scatter(corpus: Path, name: str, *, bound: int) -> Mapped:
    """Map: send each number below a bound to the range of its remainder."""
    blocks = [(r, b"".join(struct.pack("<q", n) for n in range(bound) if n % RANGES == r)) for r in range(RANGES - 1)]
    return Mapped([(r, block) for r, block in blocks if block], {}, {"bound": bound})


def gather(corpus: Path, name: str, blocks: list[bytes]) -> Result:
    """Reduce: write all blocks of a range in the order of the mappers."""
    write_atomic(corpus / f"ranges/{name}", b"|".join(blocks))
    return Result([f"ranges/{name}"], {}, {"blocks": len(blocks)})


def tally(corpus: Path, name: str) -> Result:
    """Count seven records, of which three are dropped for two reasons."""
    counted = Tally()
    counted.enter(records=7, bytes=70)
    counted.keep(records=4, bytes=40)
    counted.drop(Reason.NO_TEXT, records=2, bytes=20)
    counted.drop(Reason.TOO_SHORT, records=1, bytes=10)
    write_atomic(corpus / f"tallied/{name}", b"")
    return Result([f"tallied/{name}"], {"toy": counted})
