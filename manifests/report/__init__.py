"""The report: one static HTML file that says what a corpus holds and where the rest went, from the corpus alone."""

from pathlib import Path

from manifests.files import write_atomic
from manifests.report.data import gather
from manifests.report.page import page

FILE = "report.html"


def write_report(corpus: Path, output: Path | None = None) -> Path:
    """Write a corpus's report to `output`, or into the corpus; gives the path. Raises UserError for what is no corpus,
    or a file of it that cannot be read."""
    path = output or corpus / FILE
    write_atomic(path, page(gather(corpus)).encode("utf-8"))
    return path
