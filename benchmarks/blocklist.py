"""Measure the look-up of URLs in a short and a long blocklist: CPU time, and memory beside a Python set."""

import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.data import table
from filters.quality.blocklist import Blocklist, load

LENGTHS = (10_000, 5_000_000)  # patterns in each list
URLS = 100_000  # URLs that are looked up


def name(rng: random.Random) -> str:
    """Return a random domain name that is practically unique."""
    return f"{rng.getrandbits(64):x}.example"


def write(path: Path, length: int) -> None:
    """Write a blocklist of `length` patterns. One pattern in ten has a path."""
    rng = random.Random(length)
    with path.open("w", encoding="utf-8") as file:
        for number in range(length):
            file.write(f"{name(rng)}{'/forum/' if number % 10 == 9 else ''}\n")


def look_up(blocklist: Blocklist, urls: list[str]) -> float:
    """Look up all URLs and return the CPU seconds per URL."""
    begun = time.process_time()
    for url in urls:
        blocklist.blocks(url)
    return (time.process_time() - begun) / len(urls)


def run() -> str:
    """Return a table by length of the list: load time, memory, and microseconds per URL, not listed and listed."""
    rng = random.Random(0)
    absent = [f"https://www.{name(rng)}/articles/2019/{number}.html?page=1" for number in range(URLS)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for length in LENGTHS:
            path = Path(folder) / "list"
            write(path, length)
            rng = random.Random(length)
            listed = [f"https://www.{name(rng)}/forum/2019/{number}.html?page=1" for number in range(min(length, URLS))]
            begun = time.process_time()
            blocklist = load((str(path),))
            loading = time.process_time() - begun
            size = sys.getsizeof(blocklist.keys)
            as_set = frozenset(blocklist.keys)
            beside = sys.getsizeof(as_set) + sum(map(sys.getsizeof, as_set))
            del as_set
            times = [f"{look_up(blocklist, urls) * 1e6:.1f}" for urls in (absent, listed)]
            sizes = [f"{size / 1e6:.1f}", f"{beside / 1e6:.1f}"]
            rows.append([f"{len(blocklist):,}", f"{loading:.1f}", *sizes, *times])
    heads = ["patterns", "load, s", "MB", "MB as a frozenset", "µs, not listed", "µs, listed"]
    return table(heads, rows)
