"""Records a second from gzipped WARC: ours beside warcio, on the same files, alternating, one core."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from warcio.archiveiterator import ArchiveIterator

from benchmarks.data import ABSENT, archives, table
from filters.warc import Limits, frames
from pipeline.stages.extract import open_stored

ROUNDS = 5


def ours(path: Path) -> int:
    """Frame a file with its checksums verified, bodies held."""
    with open_stored(path) as stored:
        return sum(len(frame.block) >= 0 for frame in frames(stored, Limits(32 << 20)))


def warcio(path: Path) -> int:
    """Iterate with warcio, bodies read."""
    with path.open("rb") as file:
        return sum(len(record.raw_stream.read()) >= 0 for record in ArchiveIterator(file, no_record_parse=True))


def run() -> str:
    """Median records per CPU second of each, and the ratio round by round."""
    paths = archives()
    if not paths:
        return ABSENT
    rates: dict[str, list[float]] = {"ours": [], "warcio": []}
    readers: list[tuple[str, Callable[[Path], int]]] = [("ours", ours), ("warcio", warcio)]
    for _ in range(ROUNDS):
        for name, reader in readers:
            begun = time.process_time()
            count = sum(reader(path) for path in paths)
            rates[name].append(count / (time.process_time() - begun))
    ratios = [a / b for a, b in zip(rates["ours"], rates["warcio"], strict=True)]
    rows = [[name, f"{statistics.median(values):,.0f}"] for name, values in rates.items()]
    rows.append(["ratio", f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"])
    return table(["reader", "records a CPU second"], rows)
