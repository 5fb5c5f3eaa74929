"""Toy stage functions for tests of the engine, in a module of its own so that worker processes can import them."""

import os
import signal
import struct
from pathlib import Path
from typing import Any

from filters.errors import UserError
from manifests.files import write_atomic
from manifests.ledger import Tally
from pipeline.beam.exchange import Mapped
from pipeline.beam.task import Result, Task

RANGES = 4


def square(corpus: Path, settings: dict[str, Any], task: Task) -> Result:
    """Write the square of a number."""
    number = task.arguments["number"]
    if number == settings.get("mistake"):
        raise UserError("this number is a mistake: give another")
    if number == settings.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    tally = Tally()
    tally.enter(records=1)
    tally.keep(records=1)
    write_atomic(corpus / f"squares/{task.name}", str(number * number + settings.get("add", 0)).encode())
    with (corpus / "calls").open("a", encoding="utf-8") as file:
        file.write(f"{task.name}\n")
    return Result([f"squares/{task.name}"], {"toy": tally}, {"number": number})


def scatter(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """Send the numbers below a bound, partitioned by their remainder."""
    bound = task.arguments["bound"]
    blocks = [(r, b"".join(struct.pack("<q", n) for n in range(bound) if n % RANGES == r)) for r in range(RANGES - 1)]
    return Mapped([(r, block) for r, block in blocks if block], {}, {"bound": bound})


def gather(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """Write all numbers of a range, block after block in the mappers' order."""
    write_atomic(corpus / f"ranges/{task.name}", b"|".join(blocks))
    return Result([f"ranges/{task.name}"], {}, {"blocks": len(blocks)})
