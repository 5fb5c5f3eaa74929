"""LLaMA's sources on real files, each alone and all in one run, and the way back from every document."""

from pathlib import Path

import pytest
from corpus import ROOT, SHARED, rule_named, with_rule

from filters.quality.perplexity import Perplexity
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


ALONE = ("arxiv", "books", "c4", "stackexchange", "wikipedia")  # recipes of one source, which read real files
REAL_PAGES = ["../shared/data/common_crawl/warc/**", "../shared/data/html_extraction/*.warc.gz"]
REAL_ARTICLES = ["../shared/data/wikipedia/enwiki-*.bz2"]


def on_real_files(recipe: Recipe) -> Recipe:
    """The recipe llama-sample over real files, where there are any; no real page is cited by the real articles."""
    sources = dict(recipe.sources)
    for name in ALONE:
        real = load_recipe(ROOT / f"recipes/{name}.yaml").sources[name]
        sources[name] = sources[name].model_copy(update={"inputs": real.inputs, "columns": real.columns})
    recipe = recipe.model_copy(update={"sources": sources}).with_inputs({"common_crawl": REAL_PAGES})
    rule = rule_named(recipe, "common_crawl", "perplexity")
    assert isinstance(rule, Perplexity)
    train = {"en": rule.train["en"].model_copy(update={"text": REAL_ARTICLES, "vocabulary": 4_000})}
    recipe = with_rule(recipe, "common_crawl", "perplexity", train=train)
    return with_rule(recipe, "common_crawl", "references", wiki=REAL_ARTICLES)


@pytest.fixture(scope="module", params=(*ALONE, "github", "llama-sample"))
def recipe(request: pytest.FixtureRequest, sample: Path) -> Recipe:
    def place(path: str) -> str:
        ours = path.removeprefix("build/samples/")
        return str((ROOT if ours == path else sample) / ours)

    found = load_recipe(ROOT / f"recipes/{request.param}.yaml")
    if request.param == "llama-sample":
        found = on_real_files(found)
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
