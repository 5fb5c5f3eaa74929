"""Test the planner with a corpus (measured numbers beside estimates, and rates) and with a training run (mixture)."""

import json
from pathlib import Path

import pytest
from corpus import ROOT, SHARED, demo_recipe

from manifests.display import WIDTH
from manifests.manifest import load_manifest
from manifests.planning import supply
from manifests.planning.plan import read_training_run
from pipeline.__main__ import main

LLAMA = str(ROOT / "recipes/llama.yaml")


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["plan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_folder_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("{", "[]", '{"plan": {"sources": 3}}', '{"plan": {"sources": []}}'):
        (tmp_path / "run.json").write_text(text, encoding="utf-8")
        (tmp_path / "metrics.csv").write_text("step\n", encoding="utf-8")
        assert main(["plan", LLAMA, f"--run={tmp_path}"]) == 2, text
        assert "is not the folder of a training run" in capsys.readouterr().err


def test_what_a_training_run_mixed(tmp_path: Path) -> None:
    sources = [
        {"name": "a", "weight": 0.5, "max_epochs": 1.0, "shards": [["a", 60], ["b", 40]]},
        {"name": "b", "weight": 0.5, "max_epochs": 9.0, "shards": [["c", 100]]},
    ]
    plan = {"sources": sources, "steps": 100, "global_batch": 4, "sequence_length": 8, "manifest_sha": "", "seed": 1}
    (tmp_path / "run.json").write_text(json.dumps({"plan": plan}), encoding="utf-8")
    (tmp_path / "metrics.csv").write_text("step,loss\n1,2.0\n50,1.0\n", encoding="utf-8")
    run = read_training_run(tmp_path)
    assert (run.step, run.steps) == (50, 100)
    assert [(one.source, one.asked, one.planned_tokens, one.epochs) for one in run.sources] == [
        ("a", 0.5, 800, 0.5),
        ("b", 0.5, 2400, 1.5),
    ]


@pytest.fixture(scope="module")
def built(sample: Path, demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Return the paths of a sample, of its recipe and of its corpus."""
    path = tmp_path_factory.mktemp("plan") / "recipe.yaml"
    path.write_text(json.dumps(demo_recipe(sample).model_dump()), encoding="utf-8")
    return sample, path, demo_corpus


def test_planned_against_actual(built: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, recipe, corpus = built
    manifest = load_manifest(corpus)
    found = planned(capsys, str(recipe), f"--corpus={corpus}")
    for source in found["plan"]["sources"]:
        entry = manifest.sources[source["source"]]
        assert source["unique_tokens"] == entry.unique_tokens and source["origin"] == "measured"
    for actual in found["actual"]:
        entry = manifest.sources[actual["source"]]
        assert actual["documents"] == entry.documents
        assert actual["tokens"] == sum(shard.tokens for shard in (*entry.train, *entry.validation))
        assert actual["ratio"] == pytest.approx(actual["tokens"] / actual["estimated_tokens"])
        factors = {name: both["actual"] for name, both in actual["factors"].items()}
        derived = actual["stored_bytes"] * factors["text"] * factors["kept"] / factors["bytes_per_token"]
        assert derived == pytest.approx(actual["tokens"]), "the factors lead from its bytes to its tokens"
    assert found["notes"] == []
    assert main(["plan", str(recipe), f"--corpus={corpus}"]) == 0
    said = capsys.readouterr().out
    assert "estimated from bytes → actual" in said and max(map(len, said.splitlines())) <= WIDTH


def test_a_corpus_measures_the_factors_of_more_files(
    built: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sample, recipe, corpus = built
    manifest = load_manifest(corpus)
    again = planned(capsys, str(recipe), f"--corpus={corpus}", f"--input=common_crawl={sample}/web/**")
    (crawl,) = [source for source in again["plan"]["sources"] if source["source"] == "common_crawl"]
    assert crawl["origin"] == "estimated" and crawl["factors"]["kept"]["origin"].startswith("measured")
    shards = manifest.sources["common_crawl"]
    tokens = sum(shard.tokens for shard in (*shards.train, *shards.validation))
    assert crawl["unique_tokens"] == pytest.approx(tokens * (1 - 0.02)), "the same files, all their tokens"


def test_a_corpus_has_rates(built: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, recipe, corpus = built
    cost = planned(capsys, str(recipe), f"--corpus={corpus}", "--workers=1", "--core-hour-price=2")["cost"]
    measured = sum(
        task["cpu_seconds"]
        for path in (corpus / "runs").glob("2*.json")
        for task in json.loads(path.read_bytes())["tasks"]
    )
    assert cost["core_hours"] * 3600 == pytest.approx(measured, rel=0.25), "the plan of the same again"
    assert cost["price"] == pytest.approx(cost["core_hours"] * 2)
    assert cost["times_the_measured"] == pytest.approx(1) and cost["uncounted_sources"] == []
    steps = {step["stage"]: step for step in cost["steps"]}
    assert {"extract", "filter", "tokenizer/train", "tokenize/parts"} <= set(steps)
    bands = [step["shuffled"] for name, step in steps.items() if name.startswith("neardup/bands")]
    shuffled = (corpus / "blocks/neardup/bands").rglob("*")
    assert sum(bands) == pytest.approx(sum(path.stat().st_size for path in shuffled if path.is_file()), rel=0.05)
    assert steps["extract"]["shuffled"] == 0 and steps["extract"]["peak_bytes"] > 0
    shards = sum(path.stat().st_size for path in (corpus / "shards").rglob("*.arrow"))
    assert steps["tokenize/shards"]["written"] == pytest.approx(shards, rel=0.05)


def test_another_tokenizer_is_pointed_out(built: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, _, corpus = built
    (note,) = planned(capsys, LLAMA, f"--corpus={corpus}")["notes"]
    assert "tokenizer of 512 pieces" in note and "32,000" in note


def test_default_factors_are_those_of_real_dumps() -> None:
    from filters.formats import mediawiki as wiki_dump
    from filters.formats.stored import open_stored
    from filters.rule_list import parse_rules
    from filters.wikitext.render import render_text
    from manifests.source import Source
    from pipeline.sources import books, common_crawl

    if not SHARED.is_dir():
        pytest.skip("no ../shared/data here")
    source = Source(weight=1.0, kind="common_crawl", filters=parse_rules(["http_status"]))
    stored = text = 0
    for path in sorted((SHARED / "html_extraction").glob("*.warc.gz")):
        stored += path.stat().st_size
        with open_stored(path) as file:
            for outcome in common_crawl.read(file, path.name, "common_crawl", source):
                text += len(outcome.document.text.encode()) if outcome.document else 0
    assert text / stored == pytest.approx(0.23, abs=0.02)
    stored = text = 0
    for path in sorted((SHARED / "gutenberg").glob("*.txt.gz")):
        with open_stored(path) as file:
            for outcome in books.read(file, path.name, "books", Source(weight=1.0, kind="books"), 0, 1 << 40, 0):
                stored += path.stat().st_size
                text += len(outcome.document.text.encode()) if outcome.document else 0
    assert text / stored == pytest.approx(supply.default_factors("books", "x.txt.gz").text.value, abs=0.1)
    path = next((SHARED / "wikipedia").glob("enwiki*.bz2"))
    pages = [page for page in wiki_dump.read_dump(path) if isinstance(page, wiki_dump.Page)]
    articles = [page for page in pages if page.namespace == 0 and not page.redirect]
    text = sum(len(render_text(page.wikitext).encode()) for page in articles)
    wanted = supply.default_factors("wikipedia").text.value
    assert text / path.stat().st_size == pytest.approx(wanted, abs=0.1)
