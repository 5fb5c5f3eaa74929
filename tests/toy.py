"""Toy step functions and engines for tests of the plumbing; of their own so that worker processes can import them."""

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
    """Pretends that its runner has a real shuffle, so that blocks themselves are grouped."""

    in_memory = False


class PoolEngine(Engine):
    """Two worker processes for every job, however small."""

    def pool_for(self, tasks: int, size: int) -> Pool:
        self.pool.start(2)
        return self.pool


def run_step(corpus: Path, step: Step, engine: Engine) -> tuple[Receipts, int]:
    """Run one step; see `run_job`."""
    [[(found,)]], ran = run_job(corpus, [[(step,)]], engine)
    return found, ran


def run_exchange(corpus: Path, mapping: Step, reducing: Step, engine: Engine) -> tuple[Receipts, Receipts, int]:
    """Run one exchange; see `run_job`."""
    [[(mapped, reduced)]], ran = run_job(corpus, [[(mapping, reducing)]], engine)
    return mapped, reduced, ran


def tasks_of(step: Step) -> list[Task]:
    """Return a task for each unit of a step that awaits nothing."""
    keys = step.fingerprints()
    return [step.task(unit, keys[unit.name]) for unit in step.units]


def engine(corpus: Path, *arguments: str, kind: type[Engine] = Engine) -> Engine:
    return kind(1, arguments, corpus / "runs/now.parts", quiet=True)


def digest(corpus: Path, *folders: str) -> dict[str, str]:
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
    """Write the square of a number; on request for one number fail in one of several ways (`times`: then no more)."""
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
    """Write the sum of the numbers in files."""
    write_atomic(corpus / f"sums/{name}", str(sum(int((corpus / path).read_bytes()) for path in of)).encode())
    return Result([f"sums/{name}"])


def wait(corpus: Path, name: str) -> Result:
    """Take longer than any test waits."""
    time.sleep(600)
    return Result([])


def hold(seconds: float) -> None:
    """Keep a worker busy."""
    time.sleep(seconds)


def scatter(corpus: Path, name: str, *, bound: int) -> Mapped:
    """Send the numbers below a bound, cut by their remainder."""
    blocks = [(r, b"".join(struct.pack("<q", n) for n in range(bound) if n % RANGES == r)) for r in range(RANGES - 1)]
    return Mapped([(r, block) for r, block in blocks if block], {}, {"bound": bound})


def gather(corpus: Path, name: str, blocks: list[bytes]) -> Result:
    """Write all numbers of a range, block after block in the mappers' order."""
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
