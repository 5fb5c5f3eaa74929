"""One file a source: its reader and the list of its cleaners."""

from manifests.errors import UserError
from manifests.source import Source
from pipeline.sources import books, common_crawl
from pipeline.sources.reader import Outcome, Reader

READERS: dict[str, Reader] = {"books": books, "common_crawl": common_crawl}


def reader_for(name: str, source: Source) -> Reader:
    """The reader of a source. Raises UserError for a kind that this version has none for."""
    reader = READERS.get(source.kind or "")
    if reader is None:
        raise UserError(
            f"source {name}: this version reads no {source.kind} yet, only {', '.join(sorted(READERS))}: "
            "leave its inputs empty"
        )
    return reader


__all__ = ["READERS", "Outcome", "Reader", "reader_for"]
