"""Measure the reading of gzipped WARC files, beside FastWARC and warcio on the same files, on one core.

Each reader frames every record, verifies gzip's checksums, parses the HTTP header of each response and takes its body.
Ours also removes transfer and content codings, and accounts for every byte.

Whole files of Common Crawl are not available here, so their layout is rebuilt: each saved page (about 28 kB stored, as
in Common Crawl) between the request and the metadata record of a real page.
"""

import itertools
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastwarc.warc import ArchiveIterator as FastIterator
from fastwarc.warc import WarcRecordType
from warcio.archiveiterator import ArchiveIterator

from benchmarks.data import ABSENT, SHARED, archives, table
from benchmarks.measure import alternate, format_ratios
from filters.formats.http import HttpError, parse_response
from filters.formats.stored import open_stored
from filters.formats.warc import Limits, read_frames

ROUNDS = 7
CRAWLS = "common_crawl/warc/crawl/*.warc.gz"
COMMON_CRAWL = "common_crawl/warc/cc/resiliparse-warcfile.warc.gz"
LIMIT = 32 << 20


def ours(path: Path) -> int:
    """Frame a file and parse its responses; return their number."""
    count = 0
    with open_stored(path) as stored:
        for frame in read_frames(stored, Limits(LIMIT)):
            if frame.headers.get("WARC-Type") == "response" and frame.target_uri.startswith("http"):
                try:
                    count += parse_response(frame.block, LIMIT).status > 0
                except HttpError:
                    count += 1
    return count


def fastwarc(path: Path) -> int:
    """Iterate over responses with FastWARC, bodies read; return their number."""
    count = 0
    with path.open("rb") as file:
        for record in FastIterator(file, record_types=WarcRecordType.response, parse_http=True):
            if record.http_headers is not None:
                count += len(record.reader.read()) >= 0
    return count


def warcio(path: Path) -> int:
    """Iterate with warcio, bodies read; return the number of responses."""
    count = 0
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "response" and record.http_headers is not None:
                count += len(record.raw_stream.read()) >= 0
    return count


READERS: dict[str, Callable[[Path], int]] = {"ours": ours, "FastWARC": fastwarc, "warcio": warcio}


def members(paths: list[Path], kind: str) -> list[bytes]:
    """Return the gzip members that hold a record of a type."""
    found = []
    for path in paths:
        stored = path.read_bytes()
        for frame in read_frames(stored, Limits(LIMIT)):
            if frame.headers.get("WARC-Type") == kind:
                found.append(stored[frame.offset : frame.offset + frame.length])
    return found


def as_common_crawl(out: Path) -> Path:
    """Write the saved pages in the layout of Common Crawl."""
    real = [SHARED / COMMON_CRAWL]
    around = zip(itertools.cycle(members(real, "request")), itertools.cycle(members(real, "metadata")), strict=False)
    pages = zip(around, members(archives(), "response"), strict=False)
    out.write_bytes(b"".join(request + page + metadata for (request, metadata), page in pages))
    return out


def run() -> str:
    """Return a table: median responses per CPU second of each reader, and CPU time relative to FastWARC."""
    crawls = sorted(SHARED.glob(CRAWLS))
    if not (archives() and crawls):
        return ABSENT
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            "saved pages as Common Crawl lays them out": [as_common_crawl(Path(folder) / "pages.warc.gz")],
            "saved pages, responses alone": archives(),
            "crawls of 2008 to 2024, mostly of small records": [*crawls, SHARED / COMMON_CRAWL],
        }
        for title, paths in sets.items():
            rows += _compare(title, paths)
    return table(["files", "reader", "responses", "a CPU second", "CPU time relative to FastWARC"], rows)


def _compare(title: str, paths: list[Path]) -> list[list[object]]:
    ways = {name: partial(_count, reader, paths) for name, reader in READERS.items()}
    times, counts = alternate(ways, ROUNDS)
    return [
        [
            title, name, counts[name], f"{counts[name] / statistics.median(seconds):,.0f}",
            format_ratios(seconds, times["FastWARC"]),
        ]
        for name, seconds in times.items()
    ]  # fmt: skip


def _count(reader: Callable[[Path], int], paths: list[Path]) -> int:
    return sum(map(reader, paths))
