"""The one reader of a finished corpus: manifest, index, shards, tokenizer, and the Parquet files beside the shards."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from filters.errors import UserError
from manifests import tokenizer
from manifests.display import safe_line, shorten
from manifests.document import ID_BYTES, Locator, locator_from
from manifests.files import unreadable
from manifests.index import Index
from manifests.manifest import Manifest, advise_repair, generation_folder, load_manifest
from manifests.mirror import fetch, fetch_files, place_of
from manifests.shard import Shard, open_shard_of

if TYPE_CHECKING:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import sentencepiece

AGAIN = "remove it and give the run again"  # which writes it anew
LETTER = {"file", "offset", "length", "reason", "detail"}  # keys of every line of `skipped` and `deadletters`

_ID = re.compile(f"[0-9a-f]{{1,{2 * ID_BYTES}}}")


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

    def decode(self, shard: Shard, spans: Sequence[tuple[int, int]]) -> list[str]:
        """Return the texts of ranges of a shard's tokens, start to stop."""
        try:
            texts: list[str] = self.tokenizer.decode([shard.tokens[slice(*span)].tolist() for span in spans])
            return texts
        except IndexError as error:
            raise unreadable(shard.path, "a token id outside the vocabulary", advise_repair(self.folder)) from error

    def run_files(self, kind: str, suffix: str, source: str = "") -> list[tuple[str, Path]]:
        """Return (source, file) of a kind of files, such as `dropped`, of all runs, by generation and name."""
        return [
            (path.relative_to(folder / kind).parts[0], path)
            for folder in self.run_folders
            for path in fetch_files(folder, f"{kind}/{source}".rstrip("/"), suffix)
        ]

    def letters(self, kind: str, holding: bytes, source: str = "") -> Iterator[tuple[str, bytes, dict[str, Any]]]:
        """Yield (source, line, its values) of the lines of `skipped` or `deadletters` of all runs that hold some bytes.

        A line's values are the place of a record, and why it is no document.
        """
        for name, path in self.run_files(kind, ".jsonl", source):
            try:
                with path.open("rb") as file:
                    for line in file:
                        if holding in line:
                            values = json.loads(line)
                            if not isinstance(values, dict) or not values.keys() >= LETTER:
                                raise ValueError("a line that names no record")
                            yield name, line, values
            except (OSError, ValueError) as error:
                raise unreadable(path, error, AGAIN) from error


def parse_digits(query: str) -> str:
    """Return an id, or the beginning of one, in lower case; "" for a URL. Raises UserError for what is neither."""
    if _ID.fullmatch(query.lower()):
        return query.lower()
    if not query or query != query.encode(errors="replace").decode():
        raise UserError(f"{safe_line(shorten(query, 60))!r} is neither an id nor a URL in UTF-8: give one of them")
    return ""


def parquet_files(folder: Path, kind: str) -> list[Path]:
    """Return the Parquet files below `kind` (`clean`, `duplicates`) of one run's folder, by name.

    Raises:
        UserError: The corpus has no such file.
    """
    found = fetch_files(folder, kind, ".parquet")
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
        raise unreadable(path, error, AGAIN) from error
