"""lookup: shards -> `index/`, where each document and URL lies, sorted by hash and cut by key range.

A mapper reads two columns of a shard and sends fixed-width entries by range; a reducer sorts one range and writes one
file. No text and no URL crosses, and nothing grows with the corpus but the number of files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from manifests.files import sha256_json
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
from pipeline.beam.exchange import Mapped, by_range
from pipeline.beam.fingerprint import code_version
from pipeline.beam.task import Receipt, Result, Task

STAGE = "lookup"
KEYS, FILES = f"{STAGE}/keys", f"{STAGE}/files"
OWNED = {KEYS: (f"blocks/{KEYS}",), FILES: (FOLDER,)}

BATCH_ROWS = 1 << 16
"""URLs that are Python strings at a time"""


def map_tasks(shards: dict[str, Receipt], generation: int = 0) -> list[Task]:
    """One mapper a shard. How many files each kind has follows from the shards' documents and URLs."""
    rows = {"ids": "documents", "urls": "urls"}
    parts = {kind: count_parts(sum(r.facts[rows[kind]] for r in shards.values())) for kind in KINDS}
    made = []
    for number, (name, receipt) in enumerate(sorted(shards.items())):
        (output,) = receipt.outputs
        arguments = {"path": output.path, "number": number, "parts": parts, "generation": generation}
        fingerprint = sha256_json([code_version(__name__), arguments, output.sha256])
        made.append(Task(KEYS, name, fingerprint, output.bytes, arguments))
    return made


def reduce_tasks(maps: list[Task]) -> list[Task]:
    """One reducer a file of the index."""
    fingerprint = sha256_json([(task.name, task.fingerprint) for task in maps])
    parts, generation = maps[0].arguments["parts"], maps[0].arguments["generation"]
    names = [PartName(kind, generation, parts[kind], number) for kind in KINDS for number in range(parts[kind])]
    return [Task(FILES, str(name), fingerprint) for name in names]


def settings(maps: list[Task]) -> dict[str, Any]:
    """What the workers need to know."""
    return {"paths": [task.arguments["path"].removeprefix("shards/") for task in maps]}


def cut(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """The entries of one shard, by file of the index."""
    return Mapped(_blocks(corpus, task), {}, {})


def merge(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """One file of the index: all entries of its range."""
    name = parse_name(task.name)
    assert name is not None, "tasks are named after their files"
    packed = np.concatenate([np.empty(0, ENTRY), *(np.frombuffer(block, ENTRY) for block in blocks)])
    write_part(corpus / FOLDER, name, packed, settings["paths"])
    return Result([f"{FOLDER}/{task.name}"], {}, {"rows": len(packed)})


def index_entries(files: dict[str, Receipt]) -> list[IndexEntry]:
    """The files of the index, for the manifest."""
    found = []
    for name, receipt in sorted(files.items()):
        (output,) = receipt.outputs
        found.append(IndexEntry(path=name, sha256=output.sha256, bytes=output.bytes, rows=receipt.facts["rows"]))
    return found


def _blocks(corpus: Path, task: Task) -> Iterator[tuple[int, bytes]]:
    batch = open_shard(corpus / task.arguments["path"]).batch
    number, parts = task.arguments["number"], task.arguments["parts"]
    ids = id_keys(batch.column("document"))
    yield from by_range(ids, pack_entries(ids, number, np.arange(len(ids), dtype=np.uint32)), parts["ids"])
    column, found = batch.column("url"), [np.empty(0, ENTRY)]
    for start in range(0, batch.num_rows, BATCH_ROWS):
        keys, rows = url_keys(column.slice(start, BATCH_ROWS))
        found.append(pack_entries(keys, number, rows + np.uint32(start)))
    packed = np.concatenate(found)
    yield from by_range(packed["key"], packed, parts["urls"], parts["ids"])
