"""`remove`: a corpus without the documents that a list names, from one that has them.

Only the shards and index files that hold such a document are written again, under the same names; all others are the
parent's files, linked, or copied where they cannot be. Text outside the shards (`documents/`, `clean/`, `dropped/`) is
not carried over, since it holds what is to go.
"""

import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import sentencepiece

from filters.errors import UserError
from filters.reasons import Reason
from manifests.files import canonical_json, relative_files, sha256_file, write_atomic
from manifests.index import FOLDER, Entries, Index, Part, entries, open_index, parse_name, write_part
from manifests.ledger import tally_from
from manifests.manifest import (
    FILE,
    HISTORY,
    SHA_FILE,
    IndexEntry,
    Manifest,
    Removal,
    ShardEntry,
    SourceEntry,
    generation_folder,
    keep_manifest,
    load_manifest,
    write_manifest,
)
from manifests.shard import open_shard, write_shard
from manifests.tools.removal import Removed, Rows, find
from manifests.tools.removal_list import RemovalList, read_removal_list
from manifests.tools.sample import open_tokenizer

CARRIED = (
    *("recipe.yaml", "models", "verdicts", "duplicates", "deadletters", "inputs", "inherited", "canaries.json"),
    *("receipts/extract", "receipts/filter", "blocks/signatures"),
)
"""beside shards and index: what `pipeline trace` reads, and then what `pipeline append` compares new dumps with. None
holds text but `inputs`, the dumps that the run itself fetched"""
DECODED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a removal takes out, or would. `shards`: (touched, all); `manifest_sha` is empty after a dry run."""

    removed: Removed
    listed: int
    list_sha256: str
    shards: tuple[int, int]
    manifest_sha: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "documents": sum(self.removed.documents.values()),
            "tokens": sum(self.removed.tokens.values()),
            "shards": self.shards[0],
            "sources": {
                source: {"documents": count, "tokens": self.removed.tokens[source]}
                for source, count in self.removed.documents.items()
            },
            "lines": self.listed,
            "lines_without_a_match": self.removed.idle,
            "list_sha256": self.list_sha256,
            "manifest_sha": self.manifest_sha,
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        for source, count in sorted(self.removed.documents.items()):
            yield f"{source}: {count:,} documents, {self.removed.tokens[source]:,} tokens"
        plain = self.as_dict()
        total = f"{plain['documents']:,} documents, {plain['tokens']:,} tokens"
        yield f"in all: {total}, in {self.shards[0]:,} of {self.shards[1]:,} shards"
        if idle := self.removed.idle:
            some = ", ".join(map(str, idle[:10])) + (", …" if len(idle) > 10 else "")
            yield f"{len(idle):,} of {self.listed:,} entries match nothing (lines {some})"


def remove(corpus: Path, list_path: Path, output: Path | None) -> Outcome:
    """Remove what a list names; without `output` only say what that would be. Raises UserError for a list that is
    malformed or matches nothing, and for an output that holds something."""
    manifest, listed = load_manifest(corpus), read_removal_list(list_path)
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} is there already: give a new or empty folder")
    index = open_index(corpus)
    removed = find(corpus, manifest, index, listed)
    if not removed.rows:
        raise UserError(f"none of the {len(listed):,} entries of {list_path} is in {corpus}: nothing to remove")
    shards = len(removed.rows), len(manifest.shards())
    if output is None:
        return Outcome(removed, len(listed), listed.sha256, shards)
    with _folder(output) as new:
        made = _write(corpus, new, manifest, index, removed, listed)
    return Outcome(removed, len(listed), listed.sha256, shards, made.manifest_sha)


def _write(
    corpus: Path, new: Path, manifest: Manifest, index: Index, removed: Removed, listed: RemovalList
) -> Manifest:
    for folder in (generation_folder(Path(), number) for number in range(len(manifest.generations) + 1)):
        for name in (*CARRIED, *((FILE, SHA_FILE) if folder.parts else ())):
            _carry(corpus, new, folder / name)
    _carry(corpus, new, Path(HISTORY))
    keep_manifest(new, manifest)
    (new / "runs").mkdir()
    model, characters = open_tokenizer(corpus, manifest), Counter[str]()
    sources: dict[str, SourceEntry] = {}
    for name, source in manifest.sources.items():
        train, validation = (
            [_shard(corpus, new, entry, removed.rows.get(entry.path)) for entry in side]
            for side in (source.train, source.validation)
        )
        update = {
            "train": train,
            "validation": validation,
            "documents": sum(shard.documents for shard in (*train, *validation)),
            "unique_tokens": sum(shard.tokens for shard in train),
        }
        sources[name] = source.model_copy(update=update)
    for path, rows in removed.rows.items():
        characters[path.partition("/")[0]] += _characters(corpus / "shards" / path, model, rows)
    ledger = _ledger(manifest, removed, characters)
    write_atomic(new / "ledger.json", canonical_json(ledger))
    documents, tokens = sum(removed.documents.values()), sum(removed.tokens.values())
    changed = {
        "parent": manifest.manifest_sha,
        "removal": Removal(list_sha256=listed.sha256, documents=documents, tokens=tokens),
        "sources": sources,
        "ledger": ledger,
        "index": [_index(corpus, new, index, entry, removed) for entry in manifest.index],
    }
    return write_manifest(new, manifest.model_copy(update=changed))


def _shard(corpus: Path, new: Path, entry: ShardEntry, rows: Rows | None) -> ShardEntry:
    """A shard without some rows; the parent's own where there are none to go."""
    path = new / "shards" / entry.path
    if rows is None:
        _link(corpus / "shards" / entry.path, path)
        return entry
    shard = open_shard(corpus / "shards" / entry.path)
    stays = np.ones(shard.batch.num_rows, bool)
    stays[rows] = False
    write_shard(path, shard.batch.filter(pa.array(stays)), shard.metadata)
    return ShardEntry(
        path=entry.path,
        sha256=sha256_file(path),
        bytes=path.stat().st_size,
        tokens=entry.tokens - int((shard.offsets[rows + 1] - shard.offsets[rows]).sum()),
        documents=entry.documents - len(rows),
    )


def _characters(path: Path, model: sentencepiece.SentencePieceProcessor, rows: Rows) -> int:
    """How many characters the removed documents have, which the ledger must account for: those of their tokens."""
    shard, total = open_shard(path), 0
    for start in range(0, len(rows), DECODED_AT_ONCE):
        spans = [slice(shard.offsets[row], shard.offsets[row + 1]) for row in rows[start : start + DECODED_AT_ONCE]]
        total += sum(map(len, model.decode([shard.tokens[span].tolist() for span in spans])))
    return total


def _ledger(manifest: Manifest, removed: Removed, characters: Counter[str]) -> dict[str, Any]:
    tokenize = {}
    for source, plain in manifest.ledger["tokenize"].items():
        tally = tally_from(plain)
        if source in removed.documents:
            units = {"records": removed.documents[source], "characters": characters[source]}
            units["tokens"] = removed.tokens[source]
            tally.drop(Reason.ON_REMOVAL_LIST, **units)
            tally.out.subtract(units)
        tokenize[source] = tally.as_dict()
    return {**manifest.ledger, "tokenize": tokenize}


def _index(corpus: Path, new: Path, index: Index, entry: IndexEntry, removed: Removed) -> IndexEntry:
    """An index file without entries of removed rows, the rows after them counted down; the parent's own where it has no
    entry of a touched shard."""
    name = parse_name(entry.path)
    assert name is not None, "an open index knows its files' names"
    part = index.part(name)
    kept = _without(part, removed)
    if kept is None:
        _link(corpus / FOLDER / entry.path, new / FOLDER / entry.path)
        return entry
    path = write_part(new / FOLDER, name, kept, part.paths)
    return IndexEntry(path=entry.path, sha256=sha256_file(path), bytes=path.stat().st_size, rows=len(kept))


def _without(part: Part, removed: Removed) -> Entries | None:
    touched = [number for number, path in enumerate(part.paths) if path in removed.rows]
    if not np.isin(part.shards, touched).any():
        return None
    gone = [(number << 32) + removed.rows[part.paths[number]] for number in touched]
    places = np.concatenate(gone).astype(np.uint64)
    shards = part.shards.astype(np.uint64) << np.uint64(32)
    above = np.searchsorted(places, shards + part.rows)
    stays = places[np.minimum(above, len(places) - 1)] != shards + part.rows
    earlier = above - np.searchsorted(places, shards)
    kept = entries(part.keys[stays], 0, (part.rows - earlier)[stays].astype(np.uint32))
    kept["shard"] = part.shards[stays]
    return kept


def _carry(corpus: Path, new: Path, name: Path) -> None:
    """Link a file, or all files of a folder, if it is there."""
    if (corpus / name).is_file():
        _link(corpus / name, new / name)
    for file in relative_files(corpus / name):
        _link(corpus / name / file, new / name / file)


def _link(old: Path, new: Path) -> None:
    """The same file under another name; a copy where the file system has no such links, or is another."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        new.hardlink_to(old)
    except OSError:
        shutil.copyfile(old, new)


@contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """A folder beside `output` that becomes it when the block ends well, and goes when it does not."""
    output = output.absolute()
    temporary = output.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(output)
    except OSError as error:
        raise UserError(f"--output {output} cannot be written ({error.strerror}): give another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
