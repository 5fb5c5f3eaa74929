"""Find the real pages that benchmarks read, and format tables."""

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT / "../shared/data"
PAGES = "html_extraction/*.warc.gz"
ABSENT = "skipped: the real sample pages (../shared/data) are not here"


def archives() -> list[Path]:
    """Return the packed real pages, sorted; an empty list if they are not there."""
    return sorted(SHARED.glob(PAGES))


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])
