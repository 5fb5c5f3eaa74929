"""The one reader of a finished corpus: manifest, index, shards, tokenizer, and the Parquet files beside the shards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from filters.errors import UserError
from manifests import tokenizer
from manifests.document import Locator, locator_from
from manifests.files import unreadable
from manifests.index import Index
from manifests.manifest import Manifest, advise_repair, generation_folder, load_manifest
from manifests.mirror import fetch, fetch_folder, place_of
from manifests.shard import Shard, open_shard_of

if TYPE_CHECKING:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import sentencepiece


@dataclass(frozen=True)
class StoredDocument:
    """A document in a shard. Its tokens are `start` to `stop`, exclusive, of the shard's flat token column."""

    document: str  # the id in hexadecimal
    source: str
    url: str
    shard: str
    row: int
    start: int
    stop: int
    cluster_size: int  # documents of its run that it stands for, itself among them
    locator: Locator

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def origin(self) -> list[str]:
        """Return the two lines that tell people where the document's bytes lie."""
        place = self.locator
        member = f", member {place.member}" if place.member else ""
        return [
            f"file      {place.file}, {place.length:,} stored bytes from {place.offset:,}{member}",
            f"record    {place.inner_length:,} decoded bytes from {place.inner_offset:,}",
        ]


class CorpusReader:
    """Reads a corpus; each file is opened when it is first needed. Raises UserError for what cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = lru_cache(maxsize=8)(open_shard_of)

    @cached_property
    def manifest(self) -> Manifest:
        """Return the manifest."""
        return load_manifest(self.folder)

    @cached_property
    def index(self) -> Index:
        """Return the index of ids and URLs."""
        if not self.manifest.index:
            raise UserError(f"{self.folder} has no index: give the same `python -m pipeline run` again, which adds it")
        return Index(self.folder, [entry.path for entry in self.manifest.index])

    @cached_property
    def tokenizer(self) -> "sentencepiece.SentencePieceProcessor":
        """Return the tokenizer that the manifest names."""
        model = tokenizer.load(self.folder)
        if model.get_piece_size() != self.manifest.tokenizer.vocabulary:
            path = self.folder / tokenizer.FILE
            raise UserError(f"{path} is not the manifest's: {advise_repair(self.folder)}")
        return model

    @cached_property
    def run_folders(self) -> list[Path]:
        """Return the folders in which the first run and every append left their files, by generation."""
        return [generation_folder(self.folder, number) for number in range(len(self.manifest.generations) + 1)]

    def shard(self, path: str) -> Shard:
        """Return an open shard, given its path below `shards/`."""
        if not fetch(self.folder, f"shards/{path}").is_file():
            known = [entry.path for entry in self.manifest.shards()]
            if path in known:
                raise UserError(f"{self.folder / 'shards' / path} is missing: {advise_repair(self.folder)}")
            known.sort(key=lambda entry: entry.partition("/")[0] not in path)  # those of the same source first
            some = ", ".join(known[:6]) + ("…" if len(known) > 6 else "")
            raise UserError(f"no shard {path!r} in {place_of(self.folder)}: give a path below shards/, such as {some}")
        return self._open(self.folder, path)

    def document(self, path: str, row: int) -> StoredDocument:
        """Return the document in a row of a shard."""
        shard = self.shard(path)
        columns = shard.row(row)
        start, stop = shard.offsets[row : row + 2].tolist()
        identity, url = columns["document"].hex(), columns["url"] or ""
        size, locator = columns["cluster_size"], locator_from(columns)
        return StoredDocument(identity, columns["source"], url, path, row, start, stop, size, locator)

    def decode(self, found: StoredDocument) -> str:
        """Return the text of a document, decoded from its tokens."""
        return str(self.tokenizer.decode(self.shard(found.shard).tokens[found.start : found.stop].tolist()))

    def run_files(self, kind: str, pattern: str, source: str = "") -> list[tuple[str, Path]]:
        """Return (source, file) of a kind of files, such as `dropped`, of all runs, by generation and name."""
        for folder in self.run_folders:
            fetch_folder(folder, f"{kind}/{source}".rstrip("/"))
        roots = [folder / kind for folder in self.run_folders]
        found = [(root, path) for root in roots for path in sorted((root / source).rglob(pattern))]
        return [(path.relative_to(root).parts[0], path) for root, path in found]

    def letters(self, kind: str, source: str = "") -> Iterator[tuple[str, bytes]]:
        """Yield (source, line) of a kind of files of JSON lines, `skipped` or `deadletters`, of all runs."""
        for name, path in self.run_files(kind, "*.jsonl", source):
            with path.open("rb") as file:
                yield from ((name, line) for line in file)


def parquet_files(folder: Path, kind: str) -> list[Path]:
    """Return the Parquet files below `kind` (`clean`, `duplicates`) of one run's folder, by name.

    Raises:
        UserError: The corpus has no such file.
    """
    found = sorted(fetch_folder(folder, kind).rglob("*.parquet"))
    if not found:
        raise UserError(f"{folder} has no {kind}/: give the output folder of a finished `python -m pipeline run`")
    return found


def scan_parquet(
    paths: list[Path], columns: list[str], chosen: "pc.Expression"
) -> Iterator[tuple[Path, int, pa.Table]]:
    """Yield (file, row group, its chosen rows) of every row group that has some; only these columns are read.

    Raises:
        UserError: a file cannot be read.
    """
    for path in paths:
        with open_parquet(path) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, columns).filter(chosen)
                if table.num_rows:
                    yield path, number, table


@contextmanager
def open_parquet(path: Path) -> Iterator["pq.ParquetFile"]:
    """Open a Parquet file; errors inside the block that come from reading it are UserErrors."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, KeyError, pa.ArrowException) as error:
        raise unreadable(path, error, "remove it and give the run again") from error
