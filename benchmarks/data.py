"""Find the real web pages that benchmarks read, and format tables."""

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT / "../shared/data"
PAGES = "html_extraction/*.warc.gz"
ABSENT = "skipped: the real sample data (../shared/data) is missing"


def archives() -> list[Path]:
    """Return the sorted paths of the gzipped WARC files of real pages. The list is empty if the files are missing."""
    return sorted(SHARED.glob(PAGES))


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])
