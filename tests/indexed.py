"""Edit a finished corpus and recompute its hashes, so that it looks untouched, as a forger would."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manifests.files import canonical_json, sha256_file, sha256_json
from manifests.index import FOLDER
from manifests.manifest import FILE, SHA_FILE, IndexEntry, load_manifest


def index_entry(path: Path, rows: int) -> IndexEntry:
    """Return the manifest entry of an index file."""
    return IndexEntry(path=path.name, sha256=sha256_file(path), bytes=path.stat().st_size, rows=rows)


def reseal(corpus: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest and recompute its hash.

    Args:
        corpus: The corpus folder.
        change: A function that edits the manifest as plain JSON values in place.
    """
    manifest = load_manifest(corpus)
    plain = manifest.model_dump()
    change(plain)
    sha = sha256_json({key: value for key, value in plain.items() if key != "manifest_sha"})
    plain["manifest_sha"] = sha
    (corpus / FILE).write_bytes(canonical_json(plain))
    (corpus / SHA_FILE).write_bytes(f"{sha}\n".encode())


def reseal_files(corpus: Path) -> None:
    """Recompute the hashes and sizes of shards and index files in the manifest."""

    def change(plain: dict[str, Any]) -> None:
        shards = [entry for source in plain["sources"].values() for entry in (*source["train"], *source["validation"])]
        for folder, listed in (("shards", shards), (FOLDER, plain["index"])):
            for entry in listed:
                path = corpus / folder / entry["path"]
                entry |= {"sha256": sha256_file(path), "bytes": path.stat().st_size}

    reseal(corpus, change)


def copy_verified_files(corpus: Path, to: Path) -> Path:
    """Copy the files that `verify` reads to another folder and return that folder."""
    for name in ("shards", "index", "models"):
        shutil.copytree(corpus / name, to / name)
    for name in (FILE, SHA_FILE, "ledger.json", "recipe.yaml"):
        shutil.copy(corpus / name, to / name)
    return to
