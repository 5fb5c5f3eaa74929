"""Measure the reading of gzipped WARC files on one core, beside FastWARC and warcio on the same files.

Each reader finds every record, verifies gzip's checksums, parses the HTTP header of each response and reads its body.
Our reader also decodes transfer and content codings, and accounts for every byte of the file.

The sample data has no whole file of Common Crawl. Its layout is therefore rebuilt: each saved page (about 28 kB
compressed, as in Common Crawl) is put between the request record and the metadata record of a real page.
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
LIMIT = 32 << 20  # largest record and body, in bytes


def ours(path: Path) -> int:
    """Read all responses of a WARC file with our reader and return their number."""
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
    """Read all responses of a WARC file with FastWARC, including bodies, and return their number."""
    count = 0
    with path.open("rb") as file:
        for record in FastIterator(file, record_types=WarcRecordType.response, parse_http=True):
            if record.http_headers is not None:
                count += len(record.reader.read()) >= 0
    return count


def warcio(path: Path) -> int:
    """Read all responses of a WARC file with warcio, including bodies, and return their number."""
    count = 0
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "response" and record.http_headers is not None:
                count += len(record.raw_stream.read()) >= 0
    return count


READERS: dict[str, Callable[[Path], int]] = {"ours": ours, "FastWARC": fastwarc, "warcio": warcio}


def members(paths: list[Path], kind: str) -> list[bytes]:
    """Return the gzip members of WARC files that contain a record of the given type."""
    found = []
    for path in paths:
        stored = path.read_bytes()
        for frame in read_frames(stored, Limits(LIMIT)):
            if frame.headers.get("WARC-Type") == kind:
                found.append(stored[frame.offset : frame.offset + frame.length])
    return found


def as_common_crawl(out: Path) -> Path:
    """Write the saved pages to a WARC file in the layout of Common Crawl, and return its path."""
    real = [SHARED / COMMON_CRAWL]
    around = zip(itertools.cycle(members(real, "request")), itertools.cycle(members(real, "metadata")), strict=False)
    pages = zip(around, members(archives(), "response"), strict=False)
    out.write_bytes(b"".join(request + page + metadata for (request, metadata), page in pages))
    return out


def run() -> str:
    """Return a table of each reader's median responses per CPU second and CPU time relative to FastWARC."""
    crawls = sorted(SHARED.glob(CRAWLS))
    if not (archives() and crawls):
        return ABSENT
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            "saved pages in Common Crawl's layout": [as_common_crawl(Path(folder) / "pages.warc.gz")],
            "saved pages, only responses": archives(),
            "crawls of 2008 to 2024, mostly of small records": [*crawls, SHARED / COMMON_CRAWL],
        }
        for title, paths in sets.items():
            rows += _compare(title, paths)
    return table(["files", "reader", "responses", "responses per CPU second", "CPU time relative to FastWARC"], rows)


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
