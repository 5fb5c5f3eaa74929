"""`find`: the shard and row of a document, given its id, a prefix of its id, or its URL.

If no shard contains the document, it is searched among the duplicates and the dropped records.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from manifests.display import MOST_SHOWN, safe_line
from manifests.files import canonical_json
from manifests.manifest import HISTORY, read_manifest
from manifests.mirror import fetch, list_folder, place_of
from manifests.tools.corpus import CorpusReader, StoredDocument, parse_id_prefix, scan_parquet

if TYPE_CHECKING:
    from manifests.tools.duplicates import Removed

DEFAULT_PORTS = {"http": 80, "https": 443}
PLACE = ("file", "offset", "length", "member")  # The columns of a dropped record that contain its location in the dump.


@dataclass(frozen=True, slots=True)
class DroppedRecord:
    """A record that a filter dropped, or that became no document.

    Attributes:
        document: the id; empty if it never became a document.
        file: name of the input. `offset` and `length` are the range of its stored bytes.
        member: path inside nested archives.
    """

    document: str
    source: str
    url: str
    reason: str
    detail: str
    file: str
    offset: int
    length: int
    member: str = ""

    def __str__(self) -> str:
        named = f"document {self.document}" if self.document else f"the record of {self.url}"
        place = f"{self.file}{'!' if self.member else ''}{self.member}"
        why = f"{self.reason}: {self.detail}" if self.detail else self.reason
        return f"{named} of {self.source} was dropped ({why}): {self.length:,} bytes from {self.offset:,} of {place}"


@dataclass(frozen=True, slots=True)
class FoundDocuments:
    """The result of a query. Its truth value is True if anything was found.

    Attributes:
        what: the query.
        held: matching documents in shards.
        more: True if more documents match than are in `held`.
        removed: documents that were removed as duplicates; searched if `held` is empty.
        dropped: dropped records; searched if `held` and `removed` are empty.
        unseen: if nothing was found, sentences about other possible causes.
    """

    what: str
    held: list[StoredDocument]
    more: bool
    removed: "list[Removed]"
    dropped: list[DroppedRecord]
    unseen: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.held or self.removed or self.dropped)

    def lines(self, corpus: Path) -> list[str]:
        """Return lines for display, escaped for the terminal."""
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
            f"find that one with `python -m manifests find {place_of(corpus)} {one.kept}`"
            for one in self.removed
        ]
        told += map(str, self.dropped)
        if not self:
            told = [
                f"no shard of {place_of(corpus)} holds it, and no file of its run names it as a duplicate or as dropped"
            ]
            if "://" not in self.what and not parse_id_prefix(self.what):
                told.append(f"{self.what!r} was looked up as a URL, which must be written as in the dump")
            told += self.unseen
        return [safe_line(line) for line in told]


def find(corpus: Path, query: str, most: int = MOST_SHOWN) -> FoundDocuments:
    """Return the documents that match a query.

    The files of duplicates and dropped records are read only if no document in a shard matches.

    Args:
        corpus: the folder of the corpus.
        query: 1 to 32 hexadecimal digits are an id or a prefix of an id. Anything else is a URL, which must be written
            as in the dump, except that the default port may be added or omitted.
        most: maximum number of documents to return, at least one.

    Raises:
        UserError: the query is empty or not UTF-8, or the corpus has no manifest or no index.
    """
    reader, most = CorpusReader(corpus), max(1, most)
    digits = parse_id_prefix(query)
    queries = [digits] if digits else vary_port(query)
    look_up = reader.index.find_prefix if digits else reader.index.find_url
    places = itertools.chain.from_iterable(map(look_up, queries))
    held = [reader.document(place.shard, place.row) for place in itertools.islice(places, most + 1)]
    removed = [] if held else _find_removed(reader, queries, most)
    gone = itertools.chain.from_iterable(
        read(reader, variant) for variant in queries for read in (_read_dropped, _read_skipped)
    )
    dropped = [] if held or removed else list(itertools.islice(gone, most))
    unseen = [] if held or removed or dropped else list(_explain_unseen(reader))
    return FoundDocuments(query, held[:most], len(held) > most, removed, dropped, unseen)


def _explain_unseen(reader: CorpusReader) -> Iterator[str]:
    """Yield sentences about possible causes why no file of the run names a document: removal, or a damaged record."""
    earlier = [f"{HISTORY}/{name}" for name in list_folder(reader.folder, HISTORY) if name.endswith(".json")]
    for manifest in [reader.manifest, *(read_manifest(fetch(reader.folder, name)) for name in earlier)]:
        if removal := manifest.removal:
            yield (
                f"the removal list of SHA-256 {removal.list_sha256} took {removal.documents:,} documents out of the "
                f"parent corpus, manifest_sha {manifest.parent}: `find` in that corpus shows whether it had this one"
            )
    if letters := sum(1 for _ in reader.read_letters("deadletters", b"")):
        yield (
            f"a corrupt or too large record may have no URL and no id: deadletters/ lists {letters:,} records that "
            "could not be read"
        )


def vary_port(url: str) -> list[str]:
    """Return a URL in two variants: unchanged, and with the default port of its scheme added or omitted.

    Only the unchanged URL is returned if it has another port, or a scheme other than http and https.
    """
    try:
        parts = urlsplit(url)
        host, port, default = parts.netloc, parts.port, DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return [url]
    if not host or default is None or port not in (None, default):
        return [url]
    other = f"{host.removesuffix(':')}:{default}" if port is None else host.rpartition(":")[0]
    return [url, url.replace(f"//{host}", f"//{other}", 1)]


def _find_removed(reader: CorpusReader, queries: list[str], most: int) -> "list[Removed]":
    from manifests.tools.duplicates import find_removed

    found: list[Removed] = []
    for folder, query in itertools.product(reader.run_folders, queries):
        if list_folder(folder, "clean") and list_folder(folder, "duplicates"):
            found += find_removed(folder, query, most - len(found))
    return found


def _read_dropped(reader: CorpusReader, query: str) -> Iterator[DroppedRecord]:
    """Yield the matching documents that filters dropped."""
    from manifests.tools.duplicates import match_document

    columns = ["id", "url", "reason", *PLACE]
    for source, path in reader.run_files("dropped", ".parquet"):
        for _, _, table in scan_parquet([path], columns, match_document(query)):
            for row in table.to_pylist():
                document, place = row.pop("id").hex(), {name: row[name] for name in PLACE}
                yield DroppedRecord(document, source, row["url"] or "", row["reason"], "", **place)


def _read_skipped(reader: CorpusReader, query: str) -> Iterator[DroppedRecord]:
    """Yield the records with a URL that became no document: skipped records and dead letters."""
    quoted = canonical_json({"url": query}).strip()[1:-1]
    for source, _, row in itertools.chain(*(reader.read_letters(kind, quoted) for kind in ("skipped", "deadletters"))):
        place = {name: row[name] for name in PLACE if name in row}
        yield DroppedRecord("", source, query, row["reason"], row["detail"], **place)
