"""The report: one static HTML file on the content of a corpus and the records it lost, from the corpus alone."""

from pathlib import Path

from manifests.files import write_atomic
from manifests.report.data import read_report_data
from manifests.report.page import render_page

FILE = "report.html"


def write_report(corpus: Path, output: Path | None = None) -> Path:
    """Write a corpus's report.

    Args:
        corpus: The corpus's folder.
        output: The file to write; None for report.html in the corpus.

    Returns:
        The path of the file.

    Raises:
        UserError: The folder is not a corpus, or a file of it cannot be read.
    """
    path = output or corpus / FILE
    write_atomic(path, render_page(read_report_data(corpus)).encode("utf-8"))
    return path
