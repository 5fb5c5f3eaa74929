"""Each source's reader beside a bare parse of the same bytes, in turns, one core: decoded MB, documents a CPU second.

A source is one function in `CASES`, which gives a `Case`, or None where its data is not there.
"""

import gzip
import io
import statistics
import tarfile
import time
import xml.etree.ElementTree
from collections.abc import Callable
from typing import NamedTuple

from resiliparse.extract.html2text import extract_plain_text

from benchmarks.data import ABSENT, SHARED, table
from filters.post_text import text_of
from filters.posts import Post, post, rows
from manifests.ledger import Tally
from manifests.source import Source
from pipeline.sources import arxiv, stackexchange
from pipeline.stages.join import blocks_of, combined

ROUNDS = 7


class Case(NamedTuple):
    """One source: what is read, how many decoded bytes, our reader (gives documents), and the bare parse (gives
    records) with its name."""

    what: str
    size: int
    ours: Callable[[], int]
    bare: Callable[[], int]
    bare_name: str


def stack_exchange() -> Case | None:
    """Two sites' whole tables, uncompressed: counted, packed, joined and written out as text, without the disk."""
    paths = sorted((SHARED / "stackexchange").glob("*.xml.gz"))
    stored = {path.name: gzip.decompress(path.read_bytes()) for path in paths}
    recipe = Source(weight=1.0, kind="stackexchange")

    def ours() -> int:
        surveys = {name: stackexchange.survey(data, name, recipe, 1 << 30) for name, data in stored.items()}
        shared = stackexchange.shared("stackexchange", recipe, {name: found.counts for name, found in surveys.items()})
        blocks = []
        for name, data in stored.items():
            keyed = stackexchange.keyed(data, name, recipe, shared, 0, len(data), 0)
            blocks += [block for _, block in blocks_of(keyed, Tally(), 1)]
        found = combined(blocks, "stackexchange", recipe, stackexchange, 0)
        return sum(getattr(item, "document", None) is not None for item in found)

    def bare() -> int:
        count = 0
        for data in stored.values():
            for _, element in xml.etree.ElementTree.iterparse(io.BytesIO(data)):
                count += element.get("Body") is not None
                element.clear()
        return count

    size = sum(map(len, stored.values()))
    return Case("Posts.xml of two sites", size, ours, bare, "expat, by iterparse") if stored else None


def posts_text() -> Case | None:
    """The HTML of the same tables' posts to text, beside resiliparse's plain text of it."""
    stored = [gzip.decompress(path.read_bytes()) for path in sorted((SHARED / "stackexchange").glob("*.xml.gz"))]
    found = [post(raw.data) for data in stored for raw in rows([data], len(data)) if raw.problem is None]
    bodies = [item.body for item in found if isinstance(item, Post)]

    def ours() -> int:
        return sum(text_of(body) is not None for body in bodies)

    def bare() -> int:
        return sum(extract_plain_text(body, preserve_formatting=True) is not None for body in bodies)

    size = sum(len(body.encode()) for body in bodies)
    return Case("HTML of all posts of these", size, ours, bare, "resiliparse's plain text") if stored else None


def papers() -> Case | None:
    """Two months' tars and single submissions to papers; MB are of the TeX in them, not of the figures."""
    paths = sorted(path for path in (SHARED / "arxiv").rglob("*") if path.is_file())
    stored = {path.name: path.read_bytes() for path in paths}
    recipe = Source(weight=1.0, kind="arxiv")

    def ours() -> int:
        found = (item for name, data in stored.items() for item in arxiv.read(data, name, "arxiv", recipe))
        return sum(item.document is not None for item in found)

    def tex(data: bytes) -> list[str]:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        try:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                members = [(item.name, archive.extractfile(item)) for item in archive if item.isfile()]
                inner = [(name, file.read()) for name, file in members if file is not None]
        except tarfile.ReadError:
            return [data.decode("latin-1")] if b"\\" in data[:100] else []
        nested = [text for name, data in inner if name.endswith(".gz") for text in tex(data)]
        return nested + [data.decode("latin-1") for name, data in inner if name.endswith(".tex") and "._" not in name]

    def bare() -> int:
        return sum(len(tex(data)) for data in stored.values())

    size = sum(len(text) for data in stored.values() for text in tex(data))
    return Case("TeX of 10 submissions and months", size, ours, bare, "tarfile, gzip, decode") if stored else None


CASES: dict[str, Callable[[], Case | None]] = {
    "arxiv": papers,
    "stackexchange": stack_exchange,
    "stackexchange, text alone": posts_text,
}


def run() -> str:
    """Median rates of each source, and our CPU time over the bare parse's, round by round."""
    cases = {name: case() for name, case in sorted(CASES.items())}
    lines = [_measured(name, case) for name, case in cases.items() if case is not None]
    absent = "".join(f"\n\n{name}: {ABSENT}" for name, case in cases.items() if case is None)
    headings = ["source", "read", "MB", "documents", "MB/s", "documents/s", "bare parse", "MB/s", "CPU time over it"]
    return table(headings, lines) + absent


def _measured(name: str, case: Case) -> list[object]:
    times: tuple[list[float], list[float]] = ([], [])
    documents = 0
    for _ in range(ROUNDS):
        for spent, work in zip(times, (case.ours, case.bare), strict=True):
            begun = time.process_time()
            done = work()
            spent.append(time.process_time() - begun)
            documents = done if work is case.ours else documents
    ratios = [own / bare for own, bare in zip(*times, strict=True)]
    ours, bare = (statistics.median(spent) for spent in times)
    over = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    size = case.size / 1e6
    return [
        name, case.what, f"{size:.2f}", documents, f"{size / ours:.1f}", f"{documents / ours:,.0f}",
        case.bare_name, f"{size / bare:.1f}", over,
    ]  # fmt: skip
