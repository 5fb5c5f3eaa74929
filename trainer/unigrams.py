"""What a model that knows nothing but frequencies would lose: a floor to hold losses against."""

from pathlib import Path

import numpy as np

from manifests.manifest import Manifest
from manifests.shard import open_shard

COUNT_AT_ONCE = 1 << 22
"""tokens"""


def unigram_entropy(corpus: Path, manifest: Manifest) -> dict[str, float]:
    """Entropy of each source's pieces in nats a token, over its train shards, BOS and EOS included: the loss of a model
    that knows frequencies and nothing else, so what a trained one must come below."""
    found = {}
    for name, source in sorted(manifest.sources.items()):
        counts = np.zeros(manifest.tokenizer.vocabulary, np.int64)
        for entry in source.train:
            tokens = open_shard(corpus / "shards" / entry.path).tokens
            for start in range(0, len(tokens), COUNT_AT_ONCE):
                counts += np.bincount(tokens[start : start + COUNT_AT_ONCE], minlength=len(counts))
        shares = counts[counts > 0] / max(1, counts.sum())
        found[name] = float(-(shares * np.log(shares)).sum())
    return found
