"""The report: one static HTML file on the content of a corpus and the records it lost, from the corpus alone."""

from manifests.report.page import write_report

__all__ = ["write_report"]
