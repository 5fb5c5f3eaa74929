"""The check of the shards before training begins: whole, or a sample of them, by any number of processes."""

from pathlib import Path

import pyarrow as pa

from manifests.files import sha256_bytes, sha256_file
from manifests.manifest import Manifest, ShardEntry
from manifests.shard import open_shard
from manifests.store import Store

FULL_CHECK_BYTES = 1 << 30
"""corpora up to this size are hashed in full, and of larger ones a sample of this size"""


def check_shards(corpus: Path, manifest: Manifest, mode: str, part: int = 0, parts: int = 1) -> str:
    """Hold part `part` of `parts` of the shards against the manifest; gives a sentence that names one that differs, or
    nothing.

    `full`: every byte. `sampled`: every byte of shards drawn by hash of manifest and name, 1 GiB or one shard at least,
    and of the others the size, that they open, and their counts. `fast`: sizes. `auto`: full up to 1 GiB, else sampled.
    Shards of a corpus elsewhere are checked when they are fetched; a copy here that differs is fetched anew."""
    entries = manifest.shards()
    whole = _sample(manifest, entries) if mode in ("auto", "sampled") else {entry.path for entry in entries}
    remote = bool(Store(corpus).url)
    for entry in sorted(entries, key=lambda entry: entry.path not in whole)[part::parts]:
        path = corpus / "shards" / entry.path
        if remote and not path.exists():
            continue
        problem = _differs(path, entry, mode != "fast" and entry.path in whole, mode != "fast")
        if problem and remote:
            path.unlink(missing_ok=True)
        elif problem:
            return f"shards/{entry.path} is not the manifest's ({problem}): run `python -m manifests verify {corpus}`"
    return ""


def _sample(manifest: Manifest, entries: list[ShardEntry]) -> set[str]:
    """Paths in the order of a keyed hash, until their shards make up `FULL_CHECK_BYTES`."""
    drawn: set[str] = set()
    size = 0
    for entry in sorted(entries, key=lambda entry: sha256_bytes(f"{manifest.manifest_sha}\0{entry.path}".encode())):
        if drawn and size + entry.bytes > FULL_CHECK_BYTES:
            break
        drawn.add(entry.path)
        size += entry.bytes
    return drawn


def _differs(path: Path, entry: ShardEntry, whole: bool, opened: bool) -> str:
    try:
        if path.stat().st_size != entry.bytes:
            return "another size"
        if whole:
            return "another sha256" if sha256_file(path) != entry.sha256 else ""
        if opened:
            shard = open_shard(path)
            if (len(shard.tokens), shard.batch.num_rows) != (entry.tokens, entry.documents):
                return "other counts"
        return ""
    except OSError as error:
        return str(error.strerror)
    except pa.ArrowException as error:
        return str(error)
