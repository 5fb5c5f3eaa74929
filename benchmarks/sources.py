"""Measure the reader of each source beside a plain parse of the same bytes, on one core.

Each function in `CASES` returns the `Case` of one source, or None if the data of the source is missing. The plain parse
is a lower bound: it decompresses and parses the same bytes with standard libraries, and does nothing else.
"""

import bz2
import gzip
import io
import json
import statistics
import tarfile
import xml.etree.ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from resiliparse.extract.html2text import extract_plain_text

from benchmarks.data import ABSENT, SHARED, table
from benchmarks.measure import alternate, format_ratios
from filters.formats.posts_xml import Post, parse_post, scan_rows
from filters.posts.html import render_post
from filters.quality.c4 import C4, clean
from filters.rule_list import parse_rules
from manifests.ledger import Tally
from manifests.source import Columns, Source
from pipeline.sources import arxiv, books, c4, stackexchange, wikipedia
from pipeline.sources import github as repositories
from pipeline.stages.join import combine_groups, pack_rows

ROUNDS = 7


class Case(NamedTuple):
    """The measurement of one source.

    Attributes:
        what: A description of the data.
        size: The number of decoded bytes.
        ours: Runs our reader and returns the number of documents.
        bare: Runs the plain parse and returns the number of records.
        bare_name: The name of the plain parse.
    """

    what: str
    size: int
    ours: Callable[[], int]
    bare: Callable[[], int]
    bare_name: str


def stack_exchange() -> Case | None:
    """Return the case of the uncompressed tables of two sites.

    Our reader counts, packs and joins all rows in memory and renders their text. The plain parse is expat.
    """
    paths = sorted((SHARED / "stackexchange").glob("*.xml.gz"))
    stored = {path.name: gzip.decompress(path.read_bytes()) for path in paths}
    recipe = Source(weight=1.0, kind="stackexchange")

    def ours() -> int:
        surveys = {name: stackexchange.survey(data, name, recipe, 1 << 30) for name, data in stored.items()}
        counts = {name: found.counts for name, found in surveys.items()}
        shared = stackexchange.collect_shared("stackexchange", recipe, counts)
        blocks = []
        for name, data in stored.items():
            keyed = stackexchange.read_rows(data, name, recipe, shared, 0, len(data), 0)
            blocks += [block for _, block in pack_rows(keyed, Tally(), 1)]
        found = combine_groups(blocks, "stackexchange", recipe, 0)
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
    """Return the case of rendering the HTML of these posts as text, beside resiliparse's plain-text extraction."""
    stored = [gzip.decompress(path.read_bytes()) for path in sorted((SHARED / "stackexchange").glob("*.xml.gz"))]
    found = [parse_post(raw.data) for data in stored for raw in scan_rows([data], len(data)) if raw.problem is None]
    bodies = [item.body for item in found if isinstance(item, Post)]

    def ours() -> int:
        return sum(render_post(body) is not None for body in bodies)

    def bare() -> int:
        return sum(extract_plain_text(body, preserve_formatting=True) is not None for body in bodies)

    size = sum(len(body.encode()) for body in bodies)
    return Case("HTML of all posts of these", size, ours, bare, "resiliparse's plain text") if stored else None


def c4_rows() -> Case | None:
    """Return the case of C4's gzipped rows, read with a mapping of columns, beside gzip and `json.loads`."""
    paths = sorted((SHARED / "c4_redpajama").glob("*c4-rp1.jsonl.gz"))
    stored = [path.read_bytes() for path in paths]
    recipe = Source(weight=1.0, kind="c4", columns=Columns(url="meta.url", timestamp="meta.timestamp"))

    def ours() -> int:
        return sum(outcome.document is not None for data in stored for outcome in c4.read(data, "c4", "c4", recipe))

    def bare() -> int:
        return sum("text" in json.loads(line) for data in stored for line in gzip.decompress(data).splitlines())

    size = sum(len(gzip.decompress(data)) for data in stored)
    return Case("1,000 rows, gzipped", size, ours, bare, "gzip and json") if stored else None


def c4_rules() -> Case | None:
    """Return the case of C4's page rules on the text of the same rows.

    All rows pass the rules, so every rule runs on every row.
    """
    paths = sorted((SHARED / "c4_redpajama").glob("*c4-rp1.jsonl.gz"))
    texts = [json.loads(line)["text"] for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()]

    def ours() -> int:
        return sum(clean(text, C4()).reason is None for text in texts)

    def bare() -> int:
        return sum(bool(line.split()) for text in texts for line in text.split("\n"))

    size = sum(len(text.encode()) for text in texts)
    return Case("text of these rows", size, ours, bare, "lines and words split") if texts else None


def gutenberg_books() -> Case | None:
    """Return the case of gzipped books of Project Gutenberg, whose licence header and footer our reader removes."""
    stored = [path.read_bytes() for path in sorted((SHARED / "gutenberg").glob("*.txt.gz"))]
    recipe = Source(weight=1.0, kind="books")

    def ours() -> int:
        found = (next(books.read(data, "book", "books", recipe)) for data in stored)
        return sum(outcome.document is not None for outcome in found)

    def bare() -> int:
        return sum(bool(gzip.decompress(data).decode().split("\n")) for data in stored)

    size = sum(len(gzip.decompress(data)) for data in stored)
    return Case("34 texts, gzipped", size, ours, bare, "gzip, UTF-8, lines split") if stored else None


def wikipedia_dump() -> Case | None:
    """Return the case of a real, uncompressed English dump. Our reader finds and parses pages and renders text."""
    paths = sorted((SHARED / "wikipedia").glob("enwiki*.bz2"))
    stored = b"".join(bz2.decompress(path.read_bytes()) for path in paths)
    recipe = Source(weight=1.0, kind="wikipedia")

    def ours() -> int:
        return sum(item.document is not None for item in wikipedia.read(stored, "enwiki", "wikipedia", recipe))

    def bare() -> int:
        count = 0
        for _, element in xml.etree.ElementTree.iterparse(io.BytesIO(stored)):
            if element.tag.endswith("}page"):
                count += 1
                element.clear()
        return count

    return Case("pages-articles, uncompressed", len(stored), ours, bare, "expat, by iterparse") if stored else None


def github() -> Case | None:
    """Return the case of a tar with this project's code.

    Our reader filters files, removes licence texts, packs rows and makes documents.
    """
    root = Path(__file__).parents[1]
    folders = ("benchmarks", "filters", "manifests", "pipeline", "samples", "tests", "trainer")
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in [root / "LICENSE", *paths]:
            archive.add(path, str(path.relative_to(root)))
    stored, recipe = out.getvalue(), Source(weight=1.0, kind="github", filters=parse_rules(["code"]))

    def ours() -> int:
        survey = repositories.survey(stored, "own.tar", recipe, 1 << 30)
        shared = repositories.collect_shared("github", recipe, {"own.tar": survey.counts})
        keyed = repositories.read_rows(stored, "own.tar", recipe, shared, *survey.pieces[0])
        blocks = [block for _, block in pack_rows(keyed, Tally(), 1)]
        found = combine_groups(blocks, "github", recipe, 0)
        return sum(getattr(item, "document", None) is not None for item in found)

    def bare() -> int:
        with tarfile.open(fileobj=io.BytesIO(stored)) as archive:
            files = (archive.extractfile(entry) for entry in archive)
            return sum(len(file.read().decode()) > 0 for file in files if file is not None)

    return Case("this project's code, in a tar", len(stored), ours, bare, "tarfile, and UTF-8")


def papers() -> Case | None:
    """Return the case of arXiv's monthly tars and single submissions, which our reader converts to text.

    The size counts the TeX files, not the figures.
    """
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
    "books": gutenberg_books,
    "c4": c4_rows,
    "c4, page rules alone": c4_rules,
    "github": github,
    "stackexchange": stack_exchange,
    "stackexchange, text alone": posts_text,
    "wikipedia": wikipedia_dump,
}


def run() -> str:
    """Return a table of median rates of each source, and of our CPU time relative to the plain parse, per round."""
    cases = {name: case() for name, case in sorted(CASES.items())}
    lines = [_measure(name, case) for name, case in cases.items() if case is not None]
    absent = "".join(f"\n\n{name}: {ABSENT}" for name, case in cases.items() if case is None)
    headings = [
        "source",
        "read",
        "MB",
        "documents",
        "MB/s",
        "documents/s",
        "plain parse",
        "MB/s of the plain parse",
        "CPU time relative to the plain parse",
    ]
    return table(headings, lines) + absent


def _measure(name: str, case: Case) -> list[object]:
    """Measure one source and return its row of the table."""
    seconds, counts = alternate({"ours": case.ours, "bare": case.bare}, ROUNDS)
    ours, bare = (statistics.median(values) for values in seconds.values())
    documents, size = counts["ours"], case.size / 1e6
    return [
        name, case.what, f"{size:.2f}", documents, f"{size / ours:.1f}", f"{documents / ours:,.0f}",
        case.bare_name, f"{size / bare:.1f}", format_ratios(*seconds.values()),
    ]  # fmt: skip
