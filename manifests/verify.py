"""`verify`: whether a corpus is what its manifest says, to the byte. Every finding names the file."""

import concurrent.futures
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests.files import canonical_json, relative_files, sha256_file, sha256_json
from manifests.ledger import imbalances, tally_from
from manifests.manifest import FILE, SHA_FILE, Manifest, ShardEntry, is_unfinished, load_manifest
from manifests.shard import Shard, open_shard

IDS_AT_ONCE = 1 << 24
"""token ids that are compared at a time, so that memory stays flat"""


def verify(corpus: Path, fast: bool = False) -> list[str]:
    """What is wrong with a corpus, one sentence each; empty when nothing is. `fast` leaves out the hashes and the token
    ids of shards. Raises UserError where there is no manifest to check against."""
    manifest = load_manifest(corpus)
    problems = [*_manifest(corpus, manifest), *_ledger(corpus, manifest), *_models(corpus, manifest)]
    entries = manifest.shards()
    known = {entry.path for entry in entries}
    extras = set(relative_files(corpus / "shards")) - known
    for extra in sorted(name for name in extras if not is_unfinished(manifest, name)):
        problems.append(f"shards/{extra}: not in the manifest")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for found in pool.map(lambda entry: _shard(corpus, manifest, entry, fast), entries):
            problems += found
    return problems


def _manifest(corpus: Path, manifest: Manifest) -> list[str]:
    problems = []
    if (corpus / FILE).read_bytes() != canonical_json(manifest.model_dump()):
        problems.append(f"{FILE}: not the canonical bytes of what it says")
    if manifest.manifest_sha != manifest.sha():
        problems.append(f"{FILE}: its manifest_sha does not match its content")
    beside = corpus / SHA_FILE
    if not beside.is_file():
        problems.append(f"{SHA_FILE}: missing")
    elif beside.read_bytes() != f"{manifest.manifest_sha}\n".encode():
        problems.append(f"{SHA_FILE}: another hash than {FILE} holds")
    if sha256_json(manifest.recipe) != manifest.recipe_sha:
        problems.append(f"{FILE}: its recipe_sha does not match its recipe")
    return problems


def _ledger(corpus: Path, manifest: Manifest) -> list[str]:
    problems = [f"ledger: {problem}" for problem in imbalances(manifest.ledger)]
    try:
        if json.loads((corpus / "ledger.json").read_bytes()) != manifest.ledger:
            problems.append("ledger.json: differs from the manifest's ledger")
    except (OSError, ValueError):
        problems.append("ledger.json: missing or unreadable")
    for name, source in manifest.sources.items():
        counted = tally_from(manifest.ledger["tokenize"][name]).out
        shards = [*source.train, *source.validation]
        for unit, held in (("tokens", sum(s.tokens for s in shards)), ("records", sum(s.documents for s in shards))):
            if counted[unit] != held:
                problems.append(f"source {name}: the ledger counts {counted[unit]} {unit}, the shards hold {held}")
        if source.unique_tokens != sum(shard.tokens for shard in source.train):
            problems.append(f"source {name}: unique_tokens is not the sum of its train shards")
    return problems


def _models(corpus: Path, manifest: Manifest) -> list[str]:
    """The tokenizer and every model that the run trained, against their hashes."""
    trained = {model.path: model.sha256 for model in manifest.models.values() if model.path}
    problems = []
    for name, sha256 in {"models/tokenizer.model": manifest.tokenizer.sha256, **trained}.items():
        if not (corpus / name).is_file():
            problems.append(f"{name}: missing")
        elif sha256_file(corpus / name) != sha256:
            problems.append(f"{name}: its bytes have changed (sha256)")
    return problems


def _shard(corpus: Path, manifest: Manifest, entry: ShardEntry, fast: bool) -> list[str]:
    path, name = corpus / "shards" / entry.path, f"shards/{entry.path}"
    if not path.is_file():
        return [f"{name}: missing"]
    if path.stat().st_size != entry.bytes:
        return [f"{name}: {path.stat().st_size} bytes, the manifest says {entry.bytes}"]
    if not fast and sha256_file(path) != entry.sha256:
        return [f"{name}: its bytes have changed (sha256)"]
    try:
        shard = open_shard(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        return [f"{name}: not a readable shard ({' '.join(str(error).split())})"]
    problems = []
    if len(shard.tokens) != entry.tokens:
        problems.append(f"{name}: {len(shard.tokens)} tokens, the manifest says {entry.tokens}")
    if shard.batch.num_rows != entry.documents:
        problems.append(f"{name}: {shard.batch.num_rows} documents, the manifest says {entry.documents}")
    for key, expected in (
        ("tokenizer_sha256", manifest.tokenizer.sha256),
        ("seed", str(manifest.seed)),
    ):
        if shard.metadata.get(key) != expected:
            problems.append(f"{name}: its {key} is not the manifest's")
    if shard.metadata.get("recipe_sha256") not in manifest.recipe_shas():
        problems.append(f"{name}: its recipe_sha256 is not the manifest's")
    return problems if fast or problems else [f"{name}: {what}" for what in _tokens(shard, manifest)]


def _tokens(shard: Shard, manifest: Manifest) -> list[str]:
    """Ids in range, and every document framed by BOS and EOS."""
    tokens, offsets = shard.tokens, shard.offsets
    for start in range(0, len(tokens), IDS_AT_ONCE):
        if int(tokens[start : start + IDS_AT_ONCE].max()) >= manifest.tokenizer.vocabulary:
            return ["a token id outside the vocabulary"]
    if shard.batch.num_rows == 0:
        return []
    if (np.diff(offsets) < 2).any() or offsets[-1] != len(tokens):
        return ["a document without tokens"]
    framed = (tokens[offsets[:-1]] == manifest.tokenizer.bos) & (tokens[offsets[1:] - 1] == manifest.tokenizer.eos)
    return [] if framed.all() else ["a document that is not framed by BOS and EOS"]
