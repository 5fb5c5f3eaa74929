"""`find`: which shard and row hold a document, by its id, the beginning of one, or its URL; or what became of it."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.document import ID_BYTES
from manifests.index import Index, Place, open_index
from manifests.manifest import generation_folder, load_manifest
from manifests.tools.duplicates import Removed, removals

MOST = 10
"""documents that are shown: a short beginning of an id is that of millions"""
_ID = re.compile(f"[0-9a-f]{{1,{2 * ID_BYTES}}}")


@dataclass(frozen=True, slots=True)
class Held:
    """A document in a shard. `start`, `stop`: its tokens in the shard's flat token column, the last one excluded;
    `locator`: where its bytes lie in the raw dump, as plain values."""

    document: str
    source: str
    url: str
    shard: str
    row: int
    start: int
    stop: int
    locator: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {name: getattr(self, name) for name in self.__slots__}

    def lines(self) -> list[str]:
        """For people."""
        place = self.locator
        member = f", member {place['member']}" if place["member"] else ""
        return [
            f"document  {self.document}",
            f"source    {self.source}",
            f"url       {self.url or 'none'}",
            f"shard     {self.shard}, row {self.row:,}",
            f"tokens    {self.start:,} to {self.stop - 1:,} ({self.stop - self.start:,})",
            f"file      {place['file']}, {place['length']:,} stored bytes from {place['offset']:,}{member}",
            f"record    {place['inner_length']:,} decoded bytes from {place['inner_offset']:,}",
        ]


@dataclass(frozen=True, slots=True)
class Found:
    """What `find` found for `what`: documents in shards, whether there are `more` than shown, and where none is, those
    that were removed as duplicates."""

    what: str
    held: list[Held]
    more: bool
    removed: list[Removed]

    def __bool__(self) -> bool:
        return bool(self.held or self.removed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        removed = [{"document": one.document, "kept": one.kept, "reason": one.reason} for one in self.removed]
        return {
            "what": self.what,
            "held": [one.as_dict() for one in self.held],
            "more": self.more,
            "removed": removed,
        }

    def lines(self, corpus: Path) -> list[str]:
        """For people."""
        if self.held:
            told = [line for one in self.held for line in ["", *one.lines()]][1:]
            return [*told, "", f"and more: give --most N above {len(self.held)}"] if self.more else told
        told = [
            f"document {one.document} was removed ({one.reason}): {one.kept} stayed for it; "
            f"`python -m manifests find {corpus} {one.kept}` says where"
            for one in self.removed
        ]
        return told or [f"no shard of {corpus} holds it, and it was not removed as a duplicate"]


def find(corpus: Path, what: str, most: int = MOST) -> Found:
    """Up to `most` documents that are meant by `what`: 1 to 32 hexadecimal digits are an id or its beginning, all else
    is a URL, exactly as the dump has it. The index finds them; only for one that is in no shard are the clean documents
    read. Raises UserError for a corpus without manifest or index."""
    index, most = open_index(corpus), max(1, most)
    by_id = _ID.fullmatch(what.lower())
    places = index.find_prefix(what.lower()) if by_id else index.find_url(what)
    found = [_held(index, place) for place in itertools.islice(places, most + 1)]
    removed = [] if found else _removed(corpus, what, most)
    return Found(what, found[:most], len(found) > most, removed)


def _held(index: Index, place: Place) -> Held:
    shard = index.shard(place.shard)
    row = shard.row(place.row)
    return Held(
        document=row["document"].hex(),
        source=row["source"],
        url=row["url"] or "",
        shard=place.shard,
        row=place.row,
        start=int(shard.offsets[place.row]),
        stop=int(shard.offsets[place.row + 1]),
        locator=shard.locator(place.row).as_dict(),
    )


def _removed(corpus: Path, what: str, most: int) -> list[Removed]:
    """The documents that are meant and that the first run or a later one removed as duplicates."""
    found: list[Removed] = []
    for number in range(len(load_manifest(corpus).generations) + 1):
        folder = generation_folder(corpus, number)
        if any((folder / "clean").rglob("*.parquet")) and any((folder / "duplicates").rglob("*.parquet")):
            found += removals(folder, what, most - len(found))
    return found
