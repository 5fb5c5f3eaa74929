"""`find`: the shard and row that hold a document, given its id, the beginning of one, or its URL."""

import itertools
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.corpus import CorpusReader, StoredDocument
from manifests.display import MOST_SHOWN
from manifests.document import ID_BYTES

if TYPE_CHECKING:
    from manifests.tools.duplicates import Removed

_ID = re.compile(f"[0-9a-f]{{1,{2 * ID_BYTES}}}")


@dataclass(frozen=True, slots=True)
class FoundDocuments:
    """The documents that match a query, and those that were removed as duplicates; True if there are any."""

    query: str
    held: list[StoredDocument]
    more: bool  # more documents match than `held` lists
    removed: "list[Removed]"

    def __bool__(self) -> bool:
        return bool(self.held or self.removed)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "what": self.query,
            "held": [one.as_dict() for one in self.held],
            "more": self.more,
            "removed": [asdict(one) for one in self.removed],
        }

    def lines(self, corpus: Path) -> list[str]:
        """Return lines for people."""
        told: list[str] = []
        for one in self.held:
            told += [
                *([""] if told else []),
                f"document  {one.document}",
                f"source    {one.source}",
                f"url       {one.url or 'none'}",
                f"shard     {one.shard}, row {one.row:,}",
                f"tokens    {one.start:,} to {one.stop - 1:,} ({one.stop - one.start:,})",
                *([f"cluster   stands for {one.cluster_size:,} documents"] if one.cluster_size > 1 else []),
                *one.origin(),
            ]
        if self.more:
            told += ["", f"and more: give --most N above {len(self.held)}"]
        told += [
            f"document {one.document} was removed ({one.reason}), a duplicate of {one.kept}: "
            f"find that one with `python -m manifests find {corpus} {one.kept}`"
            for one in self.removed
        ]
        return told or [f"no shard of {corpus} holds it, and it was not removed as a duplicate"]


def find(corpus: Path, query: str, most: int = MOST_SHOWN) -> FoundDocuments:
    """Return up to `most` documents that match a query.

    Args:
        corpus: folder of the corpus.
        query: 1 to 32 hexadecimal digits are an id or its beginning; anything else is a URL, exactly as in the dump.
        most: documents that are returned, at least one. Clean documents are read only when no shard holds a match.

    Raises:
        UserError: the corpus has no manifest or no index.
    """
    reader, most = CorpusReader(corpus), max(1, most)
    digits = query.lower()
    places = reader.index.find_prefix(digits) if _ID.fullmatch(digits) else reader.index.find_url(query)
    held = [reader.document(place.shard, place.row) for place in itertools.islice(places, most + 1)]
    return FoundDocuments(query, held[:most], len(held) > most, [] if held else _find_removed(reader, query, most))


def _find_removed(reader: CorpusReader, query: str, most: int) -> "list[Removed]":
    from manifests.tools.duplicates import find_removed

    found: list[Removed] = []
    for folder in reader.run_folders:
        if any((folder / "clean").rglob("*.parquet")) and any((folder / "duplicates").rglob("*.parquet")):
            found += find_removed(folder, query, most - len(found))
    return found
