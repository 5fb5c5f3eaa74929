"""GitHub the whole way: the bundled sample's repositories and tables, balanced, and each token back to its bytes."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from corpus import ROOT, build

from filters.reasons import DEAD_LETTERS, Reason
from manifests.ledger import imbalances, tally_from
from manifests.manifest import load_manifest
from manifests.recipe import Recipe, parse_recipe
from manifests.shard import open_shard
from manifests.tools.trace import trace
from pipeline.beam.tables import read_rows
from pipeline.trace import Rederiver


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with mock.patch.object(sys, "path", [str(ROOT / "samples"), *sys.path]):
        from repositories import make
    out = tmp_path_factory.mktemp("sample")
    planted = make(out / "github", out / "github-tables")
    (out / "planted.json").write_text(json.dumps(planted), "utf-8")
    return out


def recipe(sample: Path) -> Recipe:
    plain = {
        "name": "code", "seed": 7, "goal_tokens": 10_000,
        "sources": {
            "github": {"weight": 1.0, "inputs": [str(sample / "github/**")]},
            "tables": {
                "kind": "github", "weight": 1.0, "inputs": [str(sample / "github-tables/**")],
                "github": {"form": "tables"},
            },
        },
        "tokenizer": {"vocabulary": 600}, "deduplication": {"canaries": 0, "minhash": None, "scope": "source"},
        "shards": {"validation": 0.1},
    }  # fmt: skip
    return parse_recipe(plain, "recipe")


@pytest.fixture(scope="module")
def built(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("built") / "corpus"
    build(recipe(sample), corpus)
    return corpus


def documents(corpus: Path, source: str) -> list[dict[str, Any]]:
    files = sorted((corpus / "documents" / source).glob("joined-*.parquet"))
    return [row for file in files for row in read_rows(file)]


def test_every_planted_file_becomes_what_it_should(sample: Path, built: Path) -> None:
    planted = json.loads((sample / "planted.json").read_text("utf-8"))
    made = {(f"github/{row['file']}", row["member"]) for row in documents(built, "github")}
    letters = [
        json.loads(line)
        for path in (built / "deadletters/github").rglob("*.jsonl")
        for line in path.read_text("utf-8").splitlines()
    ]
    dead = {(f"github/{letter['file']}", letter.get("member", "")): letter["reason"] for letter in letters}
    for item in planted:
        place = (item["file"], item["member"])
        assert (place in made) == (item["expect"] == "kept"), item
        assert dead.get(place, item["expect"]) == item["expect"], item
    torn = [letter["reason"] for letter in letters if letter["file"] == "torn.tar.gz"]
    assert torn == ["truncated-record"]


def test_files_and_bytes_balance(sample: Path, built: Path) -> None:
    ledger = load_manifest(built).ledger
    assert imbalances(ledger) == []
    expected = Counter(item["expect"] for item in json.loads((sample / "planted.json").read_text("utf-8")))
    for source, folder in (("github", "github"), ("tables", "github-tables")):
        tally = tally_from(ledger["extract"][source])
        files = [path for path in (sample / folder).rglob("*") if path.is_file()]
        assert tally.entered["bytes"] == sum(path.stat().st_size for path in files)
        assert tally.out["records"] == len(documents(built, source))
    dropped = tally_from(ledger["extract"]["github"]).dropped
    for reason in expected.keys() - {"kept"}:
        assert dropped[reason]["records"] >= expected[reason], reason


@pytest.mark.parametrize("source", ["github", "tables"])
def test_what_is_dropped_before_or_in_the_join_leaves_examples(built: Path, source: str) -> None:
    lines = [line for path in (built / "skipped" / source).rglob("*.jsonl") for line in path.read_text().splitlines()]
    dropped = load_manifest(built).ledger["extract"][source]["dropped"]
    expected = {reason for reason in dropped if Reason(reason) not in DEAD_LETTERS}
    assert {json.loads(line)["reason"] for line in lines} == expected != set()


def test_files_that_differ_in_their_licence_alone_are_exact_duplicates(built: Path) -> None:
    """RedPajama hashes before it strips. The keeper's lamp is there twice, with and without a licence."""
    lamps = [row for row in documents(built, "github") if row["text"].startswith("#include <stdio.h>\n#define PERIOD")]
    assert len(lamps) == 2 and len({row["text"] for row in lamps}) == 1
    tally = tally_from(load_manifest(built).ledger["neardup"]["github"])
    assert tally.dropped["exact-duplicate"]["records"] >= 1


def test_a_content_of_three_repositories_is_one_document(built: Path) -> None:
    (tides,) = [row for row in documents(built, "tables") if json.loads(row["metadata"])["path"] == "tides.py"]
    assert tides["url"] == "https://github.com/keepers/keeper/blob/main/tides.py" and tides["licence"] == "MIT"
    assert json.loads(tides["metadata"])["places"] == 2


def test_every_token_is_traced_to_its_file(built: Path) -> None:
    rederiver, forms = Rederiver(built, {}), set()
    for entry in load_manifest(built).shards():
        shard = open_shard(built / "shards" / entry.path)
        for start in shard.offsets[:-1].tolist():
            lineage = trace(built, entry.path, int(start))
            forms.add(lineage.locator.file.rpartition(".")[2])
            same, finding = rederiver.check(entry.path, lineage)
            assert same, finding
    assert forms >= {"gz", "tar", "py"}
