"""The reader of a finished corpus: manifest, index, shards, tokenizer, and the Parquet files beside the shards.

All corpus tools use this module.
"""

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

AGAIN = "remove it and give the run again"  # Advice for a damaged file. The run writes the file again.
LETTER_KEYS = {"file", "offset", "length", "reason", "detail"}  # The keys of each line of `skipped` and `deadletters`.

_ID = re.compile(f"[0-9a-f]{{1,{2 * ID_BYTES}}}")


@dataclass(frozen=True)
class StoredDocument:
    """A document in a shard.

    Attributes:
        document: the id in hexadecimal.
        shard: the path of the shard below `shards/`.
        row: the row in the shard.
        start: index of its first token in the shard's `tokens`.
        stop: end of its tokens, exclusive.
        cluster_size: number of documents of its run in its duplicate cluster, including this document.
        locator: the location of its record in the dump.
    """

    document: str
    source: str
    url: str
    shard: str
    row: int
    start: int
    stop: int
    cluster_size: int
    locator: Locator

    def origin(self) -> list[str]:
        """Return two lines of text that describe the location of the record in the dump."""
        place = self.locator
        member = f", member {place.member}" if place.member else ""
        return [
            f"file      {place.file}, {place.length:,} stored bytes from {place.offset:,}{member}",
            f"record    {place.inner_length:,} decoded bytes from {place.inner_offset:,}",
        ]


class CorpusReader:
    """Reads a corpus. Each file is opened when it is first needed.

    Args:
        folder: the folder of the corpus.

    Raises:
        UserError: a file cannot be read. All methods may raise it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = lru_cache(maxsize=8)(open_shard_of)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest."""
        return load_manifest(self.folder)

    @cached_property
    def index(self) -> Index:
        """The index of ids and URLs."""
        if not self.manifest.index:
            raise UserError(f"{self.folder} has no index: give the same `python -m pipeline run` again, which adds it")
        return Index(self.folder, [entry.path for entry in self.manifest.index])

    @cached_property
    def tokenizer(self) -> "sentencepiece.SentencePieceProcessor":
        """The tokenizer, whose vocabulary size is checked against the manifest."""
        model = tokenizer.load(self.folder)
        if model.get_piece_size() != self.manifest.tokenizer.vocabulary:
            path = self.folder / tokenizer.FILE
            raise UserError(f"{path} is not the manifest's: {advise_repair(self.folder)}")
        return model

    @cached_property
    def run_folders(self) -> list[Path]:
        """The folders of the first run and of every append, by generation."""
        return [generation_folder(self.folder, number) for number in range(len(self.manifest.generations) + 1)]

    def shard(self, path: str) -> Shard:
        """Open a shard, given its path below `shards/`, or return it from the cache."""
        if not fetch(self.folder, f"shards/{path}").is_file():
            known = [entry.path for entry in self.manifest.shards()]
            if path in known:
                raise UserError(f"{self.folder / 'shards' / path} is missing: {advise_repair(self.folder)}")
            known.sort(key=lambda entry: entry.partition("/")[0] not in path)  # Suggest shards of the same source.
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
        """Decode ranges of the tokens of a shard.

        Args:
            shard: the shard.
            spans: (start, stop) of each range, stop exclusive.

        Returns:
            One text per range.
        """
        try:
            texts: list[str] = self.tokenizer.decode([shard.tokens[slice(*span)].tolist() for span in spans])
            return texts
        except IndexError as error:
            raise unreadable(shard.path, "a token id outside the vocabulary", advise_repair(self.folder)) from error

    def run_files(self, kind: str, suffix: str, source: str = "") -> list[tuple[str, Path]]:
        """Return the files of one kind that the first run and all appends wrote.

        Args:
            kind: the folder, such as `dropped`.
            suffix: the end of the file names.
            source: the name of a source; empty for all sources.

        Returns:
            (source, local path) of each file, sorted by generation and name.
        """
        return [
            (path.relative_to(folder / kind).parts[0], path)
            for folder in self.run_folders
            for path in fetch_files(folder, f"{kind}/{source}".rstrip("/"), suffix)
        ]

    def read_letters(self, kind: str, content: bytes, source: str = "") -> Iterator[tuple[str, bytes, dict[str, Any]]]:
        """Read lines of `skipped` or `deadletters` of all runs.

        Args:
            kind: `skipped` or `deadletters`.
            content: bytes that a line must contain; empty for all lines.
            source: the name of a source; empty for all sources.

        Yields:
            (source, line, parsed line). A line contains the location of a record, and the reason why it became no
            document.
        """
        for name, path in self.run_files(kind, ".jsonl", source):
            try:
                with path.open("rb") as file:
                    for line in file:
                        if content in line:
                            values = json.loads(line)
                            if not isinstance(values, dict) or not values.keys() >= LETTER_KEYS:
                                raise ValueError("a line that names no record")
                            yield name, line, values
            except (OSError, ValueError) as error:
                raise unreadable(path, error, AGAIN) from error


def parse_id_prefix(query: str) -> str:
    """Return the lower-case digits if the query is an id or a prefix of an id, or "" if it is a URL.

    Raises:
        UserError: the query is empty or not valid UTF-8.
    """
    if _ID.fullmatch(query.lower()):
        return query.lower()
    if not query or query != query.encode(errors="replace").decode():
        raise UserError(f"{safe_line(shorten(query, 60))!r} is neither an id nor a URL in UTF-8: give one of them")
    return ""


def parquet_files(folder: Path, kind: str) -> list[Path]:
    """Return the sorted Parquet files of one kind of a run.

    Args:
        folder: the folder of the run.
        kind: the folder below it, such as `clean` or `duplicates`.

    Raises:
        UserError: there is no such file.
    """
    found = fetch_files(folder, kind, ".parquet")
    if not found:
        raise UserError(f"{folder} has no {kind}/: give the output folder of a finished `python -m pipeline run`")
    return found


def scan_parquet(
    paths: list[Path], columns: list[str], chosen: "pc.Expression"
) -> Iterator[tuple[Path, int, pa.Table]]:
    """Read the rows of Parquet files that fulfil a condition.

    Args:
        paths: the files.
        columns: the columns to read, including those of the condition.
        chosen: the condition.

    Yields:
        (file, number of the row group, table of the rows that fulfil the condition). Row groups without such rows are
        skipped.

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
    """Open a Parquet file. Read errors in the block are converted to UserError."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, KeyError, pa.ArrowException) as error:
        raise unreadable(path, error, AGAIN) from error
