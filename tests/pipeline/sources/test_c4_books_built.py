"""C4 and books, each alone and rebuilt, through all stages: a ledger that balances, and every document traced."""

import json
from pathlib import Path
from typing import Any

import pytest
from corpus import build
from test_c4_rebuilt import BAD, BUILDER, pages, wet

from manifests.ledger import imbalances
from manifests.manifest import Manifest
from manifests.recipe import parse_recipe
from manifests.shard import open_shard
from manifests.tools.trace import trace as lineage_of
from manifests.tools.verify import verify
from pipeline.trace import Rederiver

SHARED = Path(__file__).parents[4] / "shared/data"


def recipe(sources: dict[str, Any]) -> Any:
    plain = {"name": "x", "seed": 1, "goal_tokens": 10, "sources": sources, "split_bytes": 20_000}
    plain |= {
        "tokenizer": {"vocabulary": 600, "sample_bytes": 400_000, "character_coverage": 0.98},
        "shards": {"validation": 0.1},
    }
    return parse_recipe(plain, "r")


def check(manifest: Manifest, corpus: Path) -> int:
    """Verify the corpus, its ledger, and trace one token of every document; gives how many there are."""
    assert not verify(corpus)
    assert imbalances(json.loads((corpus / "ledger.json").read_bytes())) == []
    rederiver, traced = Rederiver(corpus, {}), 0
    for entry in manifest.shards():
        for token in open_shard(corpus / "shards" / entry.path).offsets[:-1].tolist():
            same, finding = rederiver.check(entry.path, lineage_of(corpus, entry.path, token))
            assert same, f"{entry.path} token {token}: {finding}"
            traced += 1
    assert traced == sum(source.documents for source in manifest.sources.values())
    return traced


def test_samples_and_a_rebuilt_c4(sample: Path, tmp_path: Path) -> None:
    for number, some in enumerate(pages()):
        (tmp_path / f"{number}.warc.wet.gz").write_bytes(wet(some))
    (tmp_path / "bad-words.txt").write_text(BAD, encoding="utf-8")
    filters = [*BUILDER, {"language": {"keep": ["en"]}}, {"bad_words": str(tmp_path / "bad-words.txt")}]
    sources = {
        "c4": {"weight": 0.4, "inputs": [str(sample / "c4/*")]},
        "books": {"weight": 0.3, "inputs": [str(sample / "books/*")], "containment": {"threshold": 0.9}},
        "rebuilt": {"weight": 0.3, "kind": "c4", "inputs": [str(tmp_path / "*.wet.gz")], "filters": filters},
    }
    manifest = build(recipe(sources), tmp_path / "corpus")
    assert check(manifest, tmp_path / "corpus") > 60
    assert min(source.unique_tokens for source in manifest.sources.values()) > 1_000
    letters = [
        json.loads(line)
        for path in (tmp_path / "corpus/deadletters/c4").glob("*")
        for line in path.open(encoding="utf-8")
    ]
    assert [letter["reason"] for letter in letters] == ["corrupt-record"] * 3


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the real sample data (../shared/data) is not here")
def test_the_real_samples(tmp_path: Path) -> None:
    columns = {"url": "meta.url", "timestamp": "meta.timestamp"}
    sources = {
        "c4": {"weight": 0.5, "columns": columns, "inputs": [str(SHARED / "c4_redpajama/*c4*")]},
        "books": {"weight": 0.5, "inputs": [str(SHARED / "gutenberg/*")], "containment": {"threshold": 0.9}},
    }
    manifest = build(recipe(sources), tmp_path / "corpus")
    assert check(manifest, tmp_path / "corpus") > 1_000
