"""Where benchmarks find real pages, and how they print."""

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT / "../shared/data"
PAGES = "html_extraction/*.warc.gz"
ABSENT = "skipped: the real sample pages (../shared/data) are not here"


def archives() -> list[Path]:
    """The packed real pages, sorted; empty where they are not."""
    return sorted(SHARED.glob(PAGES))


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])
