"""A small built corpus with its index, and helpers that edit it and compute its hashes again, as a forger would."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import build, demo_recipe, make_sample

from manifests.files import canonical_json, sha256_file, sha256_json
from manifests.index import FOLDER, KINDS, PartName, id_keys, pack_entries, url_keys, write_part
from manifests.manifest import FILE, SHA_FILE, IndexEntry, Manifest, load_manifest, write_manifest
from manifests.shard import open_shard


def index_of(corpus: Path, manifest: Manifest, parts: int = 2) -> list[IndexEntry]:
    """Write the index of all shards, each kind in `files` files."""
    paths = [entry.path for entry in manifest.shards()]
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for number, path in enumerate(paths):
        batch = open_shard(corpus / "shards" / path).batch
        found["ids"].append(
            pack_entries(id_keys(batch.column("document")), number, np.arange(batch.num_rows, dtype="u4"))
        )
        keys, rows = url_keys(batch.column("url"))
        found["urls"].append(pack_entries(keys, number, rows))
    made = []
    for kind in KINDS:
        packed = np.concatenate(found[kind])
        part = (packed["key"] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
        for number in range(parts):
            name = PartName(kind, 0, parts, number)
            path = write_part(corpus / FOLDER, name, packed[part == number], paths)
            made.append(index_entry(path, int((part == number).sum())))
    return made


def index_entry(path: Path, rows: int) -> IndexEntry:
    """Return the manifest's entry of an index file."""
    return IndexEntry(path=path.name, sha256=sha256_file(path), bytes=path.stat().st_size, rows=rows)


def with_index(corpus: Path) -> Manifest:
    """Add the index and seal the corpus, where the run did not."""
    manifest = load_manifest(corpus)
    if manifest.index:
        return manifest
    return write_manifest(corpus, manifest.model_copy(update={"index": index_of(corpus, manifest)}))


def reseal(corpus: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest's plain values and compute its hash again, as a forger would."""
    manifest = load_manifest(corpus)
    plain = manifest.model_dump()
    change(plain)
    sha = sha256_json({key: value for key, value in plain.items() if key != "manifest_sha"})
    plain["manifest_sha"] = sha
    (corpus / FILE).write_bytes(canonical_json(plain))
    (corpus / SHA_FILE).write_bytes(f"{sha}\n".encode())


def reseal_files(corpus: Path) -> None:
    """Compute the hashes and sizes of shards and index files again, as a forger would."""

    def change(plain: dict[str, Any]) -> None:
        shards = [entry for source in plain["sources"].values() for entry in (*source["train"], *source["validation"])]
        for folder, listed in (("shards", shards), (FOLDER, plain["index"])):
            for entry in listed:
                path = corpus / folder / entry["path"]
                entry |= {"sha256": sha256_file(path), "bytes": path.stat().st_size}

    reseal(corpus, change)


def shared_corpus(factory: pytest.TempPathFactory) -> Path:
    """Return a corpus of the small sample with dropped documents kept.

    It is built once for all test modules. Tests must not change it.
    """
    folder = factory.getbasetemp() / "indexed"
    corpus = folder / "corpus"
    if not (corpus / FILE).exists():
        build(demo_recipe(make_sample(folder / "sample")), corpus, keep_dropped=3)
        with_index(corpus)
    return corpus


def vouched_copy(corpus: Path, to: Path) -> Path:
    """Return a copy of the files that `verify` reads."""
    for name in ("shards", "index", "models"):
        shutil.copytree(corpus / name, to / name)
    for name in (FILE, SHA_FILE, "ledger.json", "recipe.yaml"):
        shutil.copy(corpus / name, to / name)
    return to
