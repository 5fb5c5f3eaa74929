"""LLaMA's recipes agree: llama-sample and ccnet have llama's rules, and llama runs whole on the bundled samples."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from corpus import ROOT, build, rule_named, with_few_macros, with_rule

from filters.quality.perplexity import Perplexity
from filters.rule_list import name_of
from manifests.ledger import imbalances, tally_from
from manifests.manifest import Manifest, load_manifest
from manifests.recipe import Recipe, load_recipe
from manifests.shard import open_shard
from manifests.tools.trace import trace
from manifests.tools.verify import verify
from pipeline.download.layouts import c4_paths, gutenberg_paths
from pipeline.sources.inputs import match
from pipeline.trace import Rederiver

# Settings that may differ from llama.yaml: inputs, and what small data demands.
SMALL = {
    "perplexity": {"train.en.text", "train.en.vocabulary"},
    "references": {"wiki", "positives", "min_positives", "min_characters", "dimension", "epochs"},
}
LIST = ["http_status", "min_characters", "duplicate_lines", "language", "perplexity", "references"]


def recipe_named(name: str) -> Recipe:
    return load_recipe(ROOT / f"recipes/{name}.yaml")


def differences(one: Any, other: Any, path: str = "") -> set[str]:
    """The paths of the settings that are not equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = {*one, *other}
        return {
            found for key in keys for found in differences(one.get(key), other.get(key), f"{path}.{key}".strip("."))
        }
    return set() if one == other else {path}


@pytest.mark.parametrize("name", sorted(recipe_named("llama").sources))
def test_the_sample_has_the_rules_of_llama_in_the_same_order(name: str) -> None:
    whole, small = (recipe_named(recipe).sources[name] for recipe in ("llama", "llama-sample"))
    assert [name_of(rule) for rule in whole.filters] == [name_of(rule) for rule in small.filters]
    for one, other in zip(whole.filters, small.filters, strict=True):
        assert differences(one.model_dump(), other.model_dump()) <= SMALL.get(name_of(one), set())
    assert differences(whole.model_dump(exclude={"filters"}), small.model_dump(exclude={"filters"})) <= {"inputs"}


def test_the_sample_has_the_de_duplication_of_llama() -> None:
    assert recipe_named("llama").deduplication == recipe_named("llama-sample").deduplication


def test_ccnet_is_the_list_of_llama_and_a_blocklist() -> None:
    whole, alone = (recipe_named(name).sources["common_crawl"].filters for name in ("llama", "ccnet"))
    listed = [rule for rule in alone if name_of(rule) != "blocklist"]
    assert [name_of(rule) for rule in whole] == [name_of(rule) for rule in listed] == LIST
    for one, other in zip(whole, listed, strict=True):
        assert differences(one.model_dump(), other.model_dump()) <= SMALL.get(name_of(one), set())


def test_every_setting_that_differs_is_said_in_the_recipe() -> None:
    lines = (ROOT / "recipes/llama-sample.yaml").read_text("utf-8").split("\n")
    for name in ("vocabulary", "min_positives", "min_characters", "dimension", "epochs"):
        assert any(line.strip().startswith(f"{name}:") and "# small" in line for line in lines), name


DUMPS = {  # where `download` puts a source's files, and the names that they have in the corpus
    "common_crawl": [
        (f"crawl-data/CC-MAIN-{crawl}/segments/1/wet/CC-MAIN-x-00000.warc.wet.gz", "crawl-data/")
        for crawl in ("2017-30", "2018-30", "2019-30", "2020-05", "2020-50")
    ],
    "c4": [(path, "en/") for path in c4_paths("en", "0:2")],
    "books": [(path, "cache/epub/") for path in gutenberg_paths("11,84")],
    "wikipedia": [
        ("enwiki/20220701/enwiki-20220701-pages-articles-multistream.xml.bz2", ""),
        ("dewiki/20220820/dewiki-20220820-pages-articles-multistream1.xml-p1p297012.bz2", ""),
    ],
    "arxiv": [("src/arXiv_src_0303_001.tar", "src/")],
    "stackexchange": [("stackexchange/beer.stackexchange.com.7z", "stackexchange/")],
}


def test_the_inputs_of_llama_are_where_download_puts_dumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, _ in [*itertools.chain.from_iterable(DUMPS.values()), ("crawl-data/CC-MAIN-2019-35/x.warc.wet.gz", "")]:
        (tmp_path / "dumps" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dumps" / path).touch()
    for name, paths in DUMPS.items():
        found = match(name, recipe_named("llama").sources[name].inputs, tmp_path)
        assert sorted(found) == sorted(path.removeprefix(prefix) for path, prefix in paths), name


def llama_on(sample: Path, name: str = "llama", crawl: str = "wet") -> Recipe:
    """A recipe over the small form of the bundled samples, with models that so little text can train."""
    folders = {"common_crawl": crawl, "github": "github-tables"}
    recipe = recipe_named(name)
    recipe = recipe.with_inputs({name: [str(sample / folders.get(name, name) / "**")] for name in recipe.sources})
    wiki, cited = [str(sample / "wiki/*.bz2")], [str(sample / "cited/*.warc.gz")]
    rule = rule_named(recipe, "common_crawl", "perplexity")
    assert isinstance(rule, Perplexity)
    train = {"en": rule.train["en"].model_copy(update={"text": wiki, "vocabulary": 600})}
    recipe = with_rule(recipe, "common_crawl", "perplexity", train=train)
    small = {"min_positives": 20, "min_characters": 500, "dimension": 16, "epochs": 25}
    recipe = with_rule(recipe, "common_crawl", "references", wiki=wiki, positives=cited, **small)
    tokenizer = recipe.tokenizer.model_copy(update={"vocabulary": 512, "sample_bytes": 1_000_000, "threads": 1})
    return with_few_macros(recipe.model_copy(update={"tokenizer": tokenizer}))


@pytest.fixture(scope="module")
def llama_corpus(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("llama") / "corpus"
    build(llama_on(sample), out)
    return out


@pytest.fixture(scope="module")
def manifest(llama_corpus: Path) -> Manifest:
    return load_manifest(llama_corpus)


def test_llama_itself_builds_a_balanced_corpus_of_all_seven_sources(llama_corpus: Path, manifest: Manifest) -> None:
    assert imbalances(manifest.ledger) == [] and verify(llama_corpus) == []
    assert set(manifest.sources) == set(recipe_named("llama").sources)
    assert all(source.unique_tokens > 100 for source in manifest.sources.values())


def test_every_rule_of_common_crawl_takes_something_out_and_leaves_something(manifest: Manifest) -> None:
    read, filtered = (tally_from(manifest.ledger[step]["common_crawl"]) for step in ("extract", "filter"))
    assert "too-short" in read.dropped
    assert {"language", "perplexity", "not-reference-like", "only-duplicate-lines"} <= set(filtered.dropped)
    assert "duplicate-line" in filtered.removed and filtered.out["records"] > 10


def test_both_models_are_trained_in_the_run(llama_corpus: Path) -> None:
    assert len(list((llama_corpus / "models/perplexity/common_crawl").glob("en.*"))) >= 2  # pieces and n-grams
    card = json.loads((llama_corpus / "models/references/common_crawl.card.json").read_bytes())
    assert card["positives"]["given"] > 20 and card["positives"]["in_both"] > 0 and card["trained_on"]["negatives"] > 5


def test_only_exact_copies_of_code_and_contained_books_are_duplicates(manifest: Manifest) -> None:
    found = {name: set(tally_from(tally).dropped) for name, tally in manifest.ledger["neardup"].items()}
    assert {name: reasons for name, reasons in found.items() if reasons} == {
        "github": {"exact-duplicate"},
        "books": {"contained"},
    }


def test_a_token_of_every_source_is_traced(llama_corpus: Path, manifest: Manifest) -> None:
    rederiver, seen = Rederiver(llama_corpus, {}), set()
    for entry in manifest.shards():
        for token in open_shard(llama_corpus / "shards" / entry.path).offsets[:-1:7].tolist():
            same, finding = rederiver.check(entry.path, trace(llama_corpus, entry.path, token))
            assert same, finding
            seen.add(entry.path.partition("/")[0])
    assert seen == set(manifest.sources)


@pytest.mark.slow
def test_llama_plus_builds_a_balanced_corpus(sample: Path, tmp_path: Path) -> None:
    recipe = with_rule(
        llama_on(sample, "llama-plus", "web"), "common_crawl", "blocklist", paths=[str(sample / "blocklist.txt")]
    )
    manifest = build(recipe, tmp_path / "corpus")
    assert imbalances(manifest.ledger) == [] and verify(tmp_path / "corpus") == []
    filtered = tally_from(manifest.ledger["filter"]["common_crawl"]).dropped
    assert {"gopher-word-count", "not-reference-like"} <= set(filtered) and "perplexity" not in filtered
    assert "near-duplicate" in tally_from(manifest.ledger["neardup"]["books"]).dropped


def test_llama_plus_has_the_proportions_and_sources_of_llama() -> None:
    one, other = (
        {
            name: (source.weight, source.max_epochs, source.licence)
            for name, source in recipe_named(recipe).sources.items()
        }
        for recipe in ("llama", "llama-plus")
    )
    assert one == other
