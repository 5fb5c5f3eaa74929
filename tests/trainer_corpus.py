"""A synthetic corpus for the trainer's tests: learnable tokens, two sources, written through `manifests`."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from manifests.document import Locator, document_id
from manifests.files import sha256_file
from manifests.manifest import Manifest, ShardEntry, SourceEntry, TokenizerEntry, write_manifest
from manifests.shard import shard_schema, write_shard

VOCABULARY = 64


def write_corpus(corpus: Path, vocabulary: int = VOCABULARY, documents: int = 30) -> Path:
    """Two sources of three train shards each, and one validation shard."""
    sources = {}
    for number, (name, weight) in enumerate((("books", 0.25), ("web", 0.75))):
        train = [_shard(corpus, name, f"train-{i}", documents, 10 * number + i, vocabulary) for i in range(3)]
        sources[name] = SourceEntry(
            weight=weight,
            max_epochs=50.0,
            documents=4 * documents,
            unique_tokens=sum(entry.tokens for entry in train),
            train=train,
            validation=[_shard(corpus, name, "validation-0", documents, 10 * number + 5, vocabulary)],
        )
    write_manifest(
        corpus,
        Manifest(
            seed=3,
            goal_tokens=1000,
            recipe={},
            recipe_sha="",
            tokenizer=TokenizerEntry(sha256="", vocabulary=vocabulary, bos=1, eos=2, dtype="uint16"),
            models={},
            signatures="",
            sources=sources,
            ledger={},
            code={},
        ),
    )
    return corpus


def _shard(corpus: Path, source: str, name: str, documents: int, seed: int, vocabulary: int) -> ShardEntry:
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(documents):
        locator = Locator(f"{source}.warc.gz", seed * 10_000 + number, 1)
        start, stride = chance.integers(3, 40), chance.integers(1, 4)
        body = (start + stride * np.arange(chance.integers(20, 90))) % (VOCABULARY - 3) + 3
        rows.append(
            {
                "tokens": [1, *body.tolist(), 2],
                "document": document_id(source, locator),
                "source": source,
                "url": f"http://{source}.example/{seed}/{number}",
                **locator.as_dict(),
            }
        )
    batch = pa.RecordBatch.from_pylist(rows, schema=shard_schema(vocabulary))
    path = corpus / "shards" / source / f"{name}.arrow"
    write_shard(path, batch, {})
    return ShardEntry(
        path=f"{source}/{name}.arrow",
        sha256=sha256_file(path),
        bytes=path.stat().st_size,
        tokens=len(batch.column("tokens").values),
        documents=documents,
    )
