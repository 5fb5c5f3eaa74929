"""One file a source: its reader and the list of its cleaners."""

from filters.errors import UserError
from manifests.source import Source
from pipeline.sources import arxiv, books, c4, common_crawl, github, stackexchange, wikipedia
from pipeline.sources import github_bigquery as github_tables
from pipeline.sources.base import Joined, Outcome, Reader, Row, Survey

READERS: dict[str, Reader] = {
    "arxiv": arxiv,
    "books": books,
    "c4": c4,
    "common_crawl": common_crawl,
    "wikipedia": wikipedia,
}
JOINED: dict[str, Joined] = {"github": github, "stackexchange": stackexchange}


def joined_for(source: Source) -> Joined | None:
    """The reader of a source whose documents are joined from rows; None for the others."""
    if source.kind == "github" and source.github.form == "tables":
        return github_tables
    return JOINED.get(source.kind or "")


def check_readable(name: str, source: Source) -> None:
    """Raise UserError for a kind that this version cannot read."""
    if joined_for(source) is None:
        reader_for(name, source)


def reader_for(name: str, source: Source) -> Reader:
    """The reader of a source. Raises UserError for a kind that this version has none for."""
    reader = READERS.get(source.kind or "")
    if reader is None:
        raise UserError(
            f"source {name}: this version reads no {source.kind} yet, only {', '.join(sorted([*READERS, *JOINED]))}: "
            "leave its inputs empty"
        )
    return reader


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
