"""corpus_index: write `index/`, which maps the hash of a document id or URL to its shard and row.

A mapper reads the columns `document` and `url` of a shard, and sends entries of fixed width by key range. A reducer
sorts the entries of one range and writes one file. No text and no URL is shuffled. The size of a file is bounded; only
the number of files grows with the corpus.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from manifests.index import (
    ENTRY,
    FOLDER,
    KINDS,
    PartName,
    count_parts,
    id_keys,
    pack_entries,
    parse_name,
    url_keys,
    write_part,
)
from manifests.manifest import IndexEntry
from manifests.shard import open_shard
from pipeline.beam.exchange import Mapped, by_range, join_blocks
from pipeline.beam.step import Awaited, Receipts, Result, Step, Unit

STAGE = "corpus_index"
KEYS, FILES = f"{STAGE}/keys", f"{STAGE}/files"
BATCH_ROWS = 1 << 16  # Number of URLs that are converted to Python strings at a time, to bound the memory.


def index_steps(shards: Step, documents: int, generation: int) -> tuple[Step, Step]:
    """Return the two steps that write the index: one with a mapper per shard, one with a reducer per file.

    The number of files per kind (ids and URLs) is computed from `documents`, since a document has at most one URL.

    Args:
        shards: Step that writes the shards.
        documents: Number of documents in all shards.
        generation: Number of the generation, which is part of the names of the files.
    """
    parts = count_parts(documents)
    found = {unit.name: f"{unit.name}.arrow" for unit in sorted(shards.units, key=lambda unit: unit.name)}
    maps = [
        Unit(name, {"path": f"shards/{path}", "number": number}, awaits=(Awaited(shards.name, name),))
        for number, (name, path) in enumerate(found.items())
    ]
    names = [PartName(kind, generation, parts, number) for kind in KINDS for number in range(parts)]
    reducing = Step(
        FILES, write_entries, [Unit(str(name)) for name in names], {"paths": list(found.values())}, owns=(FOLDER,)
    )
    return Step(KEYS, send_entries, maps, {"parts": parts}), reducing


def send_entries(corpus: Path, shard: str, *, path: str, number: int, parts: int) -> Mapped:
    """Send the index entries of one shard, by the number of their index file.

    Args:
        corpus: Folder of the corpus.
        shard: Name of the shard.
        path: Path of the shard, relative to the corpus.
        number: Number of the shard, which the entries contain.
        parts: Number of files per kind.
    """

    def blocks() -> Iterator[tuple[int, bytes]]:
        batch = open_shard(corpus / path).batch
        ids = id_keys(batch.column("document"))
        yield from by_range(ids, pack_entries(ids, number, np.arange(len(ids), dtype=np.uint32)), parts)
        column, found = batch.column("url"), [np.empty(0, ENTRY)]
        for start in range(0, batch.num_rows, BATCH_ROWS):
            keys, rows = url_keys(column.slice(start, BATCH_ROWS))
            found.append(pack_entries(keys, number, rows + np.uint32(start)))
        packed = np.concatenate(found)
        yield from by_range(packed["key"], packed, parts, parts)

    return Mapped(blocks())


def write_entries(corpus: Path, file: str, blocks: list[bytes], *, paths: list[str]) -> Result:
    """Write one index file with all entries of its key range, sorted. `paths` are the paths of all shards."""
    name = parse_name(file)
    assert name is not None, "units are named after their files"
    packed = join_blocks(blocks, ENTRY)
    write_part(corpus / FOLDER, name, packed, paths)
    return Result([f"{FOLDER}/{file}"], {}, {"rows": len(packed)})


def index_entries(files: Receipts) -> list[IndexEntry]:
    """Return the manifest entries of the index files."""
    return [
        IndexEntry(path=name, sha256=output.sha256, bytes=output.bytes, rows=receipt.facts["rows"])
        for name, receipt in sorted(files.items())
        for output in receipt.outputs
    ]
