"""corpus_index: shards -> `index/`, the place of each document and URL, sorted by hash and cut by key range.

A mapper reads two columns of a shard and sends fixed-width entries by range; a reducer sorts one range and writes one
file. No text and no URL crosses, and nothing grows with the corpus but the number of files.
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
BATCH_ROWS = 1 << 16  # URLs that are Python strings at a time


def index_steps(shards: Step, documents: int, generation: int) -> tuple[Step, Step]:
    """Return the steps that write the index: a mapper per shard, a reducer per file.

    The number of files of each kind follows from that of documents, of which each has at most one URL.
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
    """Send the entries of one shard, by file of the index."""

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
    """Write one file of the index: all entries of its range."""
    name = parse_name(file)
    assert name is not None, "units are named after their files"
    packed = join_blocks(blocks, ENTRY)
    write_part(corpus / FOLDER, name, packed, paths)
    return Result([f"{FOLDER}/{file}"], {}, {"rows": len(packed)})


def index_entries(files: Receipts) -> list[IndexEntry]:
    """Return the files of the index, for the manifest."""
    return [
        IndexEntry(path=name, sha256=output.sha256, bytes=output.bytes, rows=receipt.facts["rows"])
        for name, receipt in sorted(files.items())
        for output in receipt.outputs
    ]
