"""Training on a corpus in an object store gives the same losses as on a local disk."""

import csv
from pathlib import Path

import object_stores
from trainer_corpus import write_corpus

from manifests.storage import connect
from trainer.__main__ import main
from trainer.metrics import CLOCK

OPTIONS = ["--model", "demo", "--steps", "3", "--sequence-length", "32", "--batch-tokens", "128", "--micro-batch", "4"]


def train(corpus: str, run: Path, cache: Path) -> list[dict[str, str]]:
    """Train a few steps. Return the rows of metrics.csv without the columns that depend on the clock."""
    assert main(["train", corpus, "--output", str(run), "--cache", str(cache), *OPTIONS]) == 0
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key not in CLOCK} for row in csv.DictReader(file)]


def test_losses_on_a_corpus_in_s3_are_those_on_disk(tmp_path: Path) -> None:
    corpus, cache = write_corpus(tmp_path / "corpus", documents=8), tmp_path / "cache"
    with object_stores.s3() as bucket:
        store = connect(f"{bucket}/trained")
        for path in filter(Path.is_file, corpus.rglob("*")):
            store.publish(path, path.relative_to(corpus).as_posix())
        stored = train(store.url, tmp_path / "stored", cache)
    assert len(stored) >= 3
    assert stored == train(str(corpus), tmp_path / "local", cache)
    assert list(cache.glob("*/shards/*/*.arrow")), "the shards came from the store"
