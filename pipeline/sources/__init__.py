"""The readers of all kinds of sources, each loaded when it is asked for."""

from importlib import import_module

from filters.errors import UserError
from manifests.source import Source
from pipeline.sources.base import Joined, Outcome, Reader, Row, Survey

READERS = {
    "arxiv": "pipeline.sources.arxiv",
    "books": "pipeline.sources.books",
    "c4": "pipeline.sources.c4",
    "common_crawl": "pipeline.sources.common_crawl",
    "wikipedia": "pipeline.sources.wikipedia",
}  # by name, so that a reader's code is no part of the version of another source's documents
JOINED = {"github": "pipeline.sources.github", "stackexchange": "pipeline.sources.stackexchange"}
GITHUB_TABLES = "pipeline.sources.github_bigquery"


def joined_for(source: Source) -> Joined | None:
    """Return the reader of a source whose documents are joined from rows; None for the others."""
    tables = source.kind == "github" and source.github.form == "tables"
    module = GITHUB_TABLES if tables else JOINED.get(source.kind or "")
    reader: Joined | None = import_module(module) if module else None
    return reader


def reader_for(name: str, source: Source) -> Reader:
    """Return the reader of a source. Raises UserError for a kind that this version cannot read."""
    module = READERS.get(source.kind or "")
    if module is None:
        raise UserError(
            f"source {name}: this version reads no {source.kind} yet, only {', '.join(sorted([*READERS, *JOINED]))}: "
            "leave its inputs empty"
        )
    reader: Reader = import_module(module)
    return reader


def check_readable(name: str, source: Source) -> None:
    """Raise UserError for a kind that this version cannot read."""
    if joined_for(source) is None:
        reader_for(name, source)


__all__ = [
    "JOINED",
    "READERS",
    "Joined",
    "Outcome",
    "Reader",
    "Row",
    "Survey",
    "check_readable",
    "joined_for",
    "reader_for",
]
