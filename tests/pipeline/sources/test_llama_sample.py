"""LLaMA's sources on real files, each alone and all in one run, and the way back from every document."""

from pathlib import Path

import pytest
from corpus import ROOT, SHARED

from manifests.ledger import imbalances, tally_from
from manifests.manifest import Manifest, load_manifest
from manifests.recipe import Recipe, load_recipe
from manifests.shard import open_shard
from manifests.tools.trace import trace
from manifests.tools.verify import verify
from pipeline.beam.engines import Engine
from pipeline.run import run
from pipeline.trace import Rederiver

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the real sample data (../shared/data) is not here"),
]


NAMES = ("arxiv", "books", "c4", "github", "stackexchange", "wikipedia", "llama-sample")


@pytest.fixture(scope="module", params=NAMES)
def recipe(request: pytest.FixtureRequest, sample: Path) -> Recipe:
    def place(path: str) -> str:
        ours = path.removeprefix("build/samples/")
        return str((ROOT if ours == path else sample) / ours)

    found = load_recipe(ROOT / f"recipes/{request.param}.yaml")
    sources = {
        name: source.model_copy(update={"filters": [rule.map_paths(place) for rule in source.filters]})
        for name, source in found.sources.items()
    }
    inputs = {name: list(map(place, source.inputs)) for name, source in found.sources.items()}
    return found.model_copy(update={"sources": sources}).with_inputs(inputs)


@pytest.fixture(scope="module")
def corpus(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama") / "corpus"
    run(recipe, folder, Engine(2, (), folder / "runs", True))
    return folder


@pytest.fixture(scope="module")
def manifest(corpus: Path) -> Manifest:
    return load_manifest(corpus)


def test_the_books_balance_and_every_source_has_tokens(corpus: Path, recipe: Recipe, manifest: Manifest) -> None:
    assert imbalances(manifest.ledger) == [] and verify(corpus) == []
    assert set(manifest.sources) == set(recipe.sources)
    for name, source in manifest.sources.items():
        assert source.unique_tokens > 500, name
        assert sum(shard.tokens for shard in source.train) == source.unique_tokens


def test_every_document_is_traced_to_the_same_tokens(corpus: Path, manifest: Manifest) -> None:
    rederiver, seen = Rederiver(corpus, {}), 0
    for entry in manifest.shards():
        for token in open_shard(corpus / "shards" / entry.path).offsets[:-1].tolist():
            lineage = trace(corpus, entry.path, token)
            same, finding = rederiver.check(entry.path, lineage)
            assert same, f"{entry.path} token {token}: {lineage.url or lineage.locator}: {finding}"
            seen += 1
    assert seen == sum(source.documents for source in manifest.sources.values())


def test_every_rule_of_common_crawl_takes_something_out_and_leaves_something(manifest: Manifest) -> None:
    if "common_crawl" in manifest.sources:
        found = tally_from(manifest.ledger["filter"]["common_crawl"])
        assert {"language", "perplexity", "not-reference-like", "only-duplicate-lines"} <= set(found.dropped)
        assert "duplicate-line" in found.removed and found.out["records"] > 50
