"""What each document of a corpus stands for, by source, beside clean documents, in shards, and after an append."""

import json
import shutil
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from manifests.__main__ import main as inspect
from manifests.ledger import tally_from
from manifests.manifest import load_manifest
from manifests.recipe import load_recipe
from manifests.shard import open_shard
from manifests.tools.sample import SampleQuery, sample
from manifests.tools.verify import verify
from pipeline.__main__ import main

WORDS = np.array("the keeper walked down to harbour and counted boats that had come home bells".split())
RECIPE = """
name: x
seed: 1
goal_tokens: 1000
sources:
  code: {{kind: books, weight: 1.0, inputs: ["{dumps}/code/*"], deduplication: {{minhash: off}}}}
  pages: {{kind: books, weight: 2.0, inputs: ["{dumps}/pages/*"], containment: {{threshold: 0.9}}}}
  wiki: {{kind: books, weight: 1.0, inputs: ["{dumps}/wiki/*"], deduplication: {{minhash: {{bands: 20}}}}}}
deduplication: {{scope: source, source_priority: [wiki, code, pages], canaries: 20}}
tokenizer: {{vocabulary: 300}}
shards: {{validation: 0.2}}
"""


def prose(seed: int, length: int = 200) -> str:
    chance = np.random.default_rng(seed)
    numbers = chance.integers(0, 9, length).tolist()
    return " ".join(f"{word}{n}" for word, n in zip(chance.choice(WORDS, length).tolist(), numbers, strict=True))


TALE, STORY = prose(1), prose(2, 1000)
OF_EACH = {"a": TALE, "b": TALE, "c": TALE + " the end", "d": prose(3), "e": prose(4)}
TEXTS = {f"{source}/{name}.txt": text for source in ("code", "pages", "wiki") for name, text in OF_EACH.items()}
TEXTS |= {"pages/story.txt": STORY, "pages/again.txt": STORY + " again", "pages/all.txt": f"{STORY} {prose(5, 3000)}"}
SIZES = {"code": [1, 1, 1, 2], "pages": [1, 1, 3, 3], "wiki": [1, 1, 3]}  # all.txt stands for both forms of the story


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dumps")
    for name, text in TEXTS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def recipe(dumps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE.format(dumps=dumps), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def corpus(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "corpus"
    assert main(["run", str(recipe), "--output", str(out), "--workers", "1", "--quiet"]) == 0
    return out


def sizes_in_shards(corpus: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for entry in load_manifest(corpus).shards():
        column = open_shard(corpus / "shards" / entry.path).batch.column("cluster_size").to_pylist()
        found.setdefault(entry.path.partition("/")[0], []).extend(column)
    return {source: sorted(sizes) for source, sizes in found.items()}


def test_shards_say_what_each_document_stands_for(corpus: Path) -> None:
    assert sizes_in_shards(corpus) == SIZES
    manifest = load_manifest(corpus)
    entered = {name: tally_from(tally).entered["records"] for name, tally in manifest.ledger["neardup"].items()}
    assert entered == {name: sum(sizes) for name, sizes in SIZES.items()}
    assert manifest.findings["clusters"] == {"clusters": 4, "largest": 3, "of_earlier": 0}
    assert [len(scheme) > 0 for _, scheme in sorted(manifest.signatures.items())] == [False, True, True]
    assert verify(corpus) == []


def test_the_query_of_the_documentation_joins_clean_documents_with_their_clusters(corpus: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/duplicates.md").read_text(encoding="utf-8")
    query = next(line for line in text.splitlines() if line.startswith("SELECT text, url, cluster_size"))
    rows = duckdb.sql(query.replace("'corpus/", f"'{corpus}/")).fetchall()
    assert Counter(size for _, _, size in rows) == Counter(size for sizes in SIZES.values() for size in sizes)
    assert sorted({text for text, _, _ in rows}) == sorted({*TEXTS.values()} - {TALE, STORY, STORY + " again"} | {TALE})


def test_rows_beside_clean_documents_are_theirs(corpus: Path) -> None:
    for path in sorted((corpus / "clean").rglob("*.parquet")):
        beside = pq.read_table(corpus / "clusters" / path.relative_to(corpus / "clean"))
        assert beside["id"].to_pylist() == pq.read_table(path, columns=["id"])["id"].to_pylist()


def test_tools_show_the_sizes(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = sample(corpus, SampleQuery(number=5, source="wiki")).drawn
    assert sorted(one.facts["cluster_size"] for one in drawn) == SIZES["wiki"]
    largest = next(one.facts["document"] for one in drawn if one.facts["cluster_size"] == 3)
    assert inspect(["find", str(corpus), largest]) == 0 and inspect(["show", str(corpus)]) == 0
    said = capsys.readouterr().out
    assert "cluster   stands for 3 documents" in said and "clusters  4 of several documents" in said


def test_recall_is_measured_for_each_settings(corpus: Path) -> None:
    measured = json.loads((corpus / "canaries.json").read_bytes())["settings"]
    assert [(one["sources"], one["minhash"]["bands"]) for one in measured] == [(["pages"], 14), (["wiki"], 20)]
    report = (corpus / "report.html").read_text(encoding="utf-8")
    assert "pages: 14 bands of 8 rows" in report and "wiki: 20 bands of 8 rows" in report


def test_an_appended_generation_counts_its_own_documents(corpus: Path, tmp_path: Path) -> None:
    corpus, more = Path(shutil.copytree(corpus, tmp_path / "corpus")), tmp_path / "more"
    more.mkdir()
    for name, text in {"f": TALE + " once more", "g": prose(9), "h": prose(9) + " twice", "i": prose(10)}.items():
        (more / f"{name}.txt").write_text(text, encoding="utf-8")
    before = sizes_in_shards(corpus)
    assert main(["append", str(corpus), "--input", f"pages={more}/*", "--workers", "1", "--quiet"]) == 0
    manifest, after = load_manifest(corpus), sizes_in_shards(corpus)
    found = manifest.generations[-1].findings["clusters"]
    assert found == {"clusters": 1, "largest": 2, "of_earlier": 1}
    assert after == {**before, "pages": sorted([*before["pages"], 1, 2])}
    entered = sum(tally_from(tally).entered["records"] for tally in manifest.ledger["neardup"].values())
    assert sum(map(sum, after.values())) + found["of_earlier"] == entered


def test_an_earlier_corpus_may_have_other_settings_for_sources_that_are_not_compared(
    corpus: Path, dumps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/near.txt").write_text(TALE + " once more", encoding="utf-8")
    (tmp_path / "new/own.txt").write_text(prose(11), encoding="utf-8")
    path, block = tmp_path / "recipe.yaml", f"deduplication: {{against: [{corpus}], "
    text = RECIPE.format(dumps=dumps).replace("deduplication: {scope", f"{block}scope")
    command = ["run", str(path), f"--input=pages={tmp_path}/new/*", "--workers=1", "--quiet", "--only", "pages"]
    path.write_text(text.replace("scope: source", "scope: all"), encoding="utf-8")
    assert main([*command, "--output", str(tmp_path / "all")]) == 2
    said = capsys.readouterr().err
    assert "for wiki, this recipe's is" in said and said.count("\n") == 1, "wiki would be compared, and cannot be"
    path.write_text(text, encoding="utf-8")
    assert main([*command, "--output", str(tmp_path / "source")]) == 0
    assert sizes_in_shards(tmp_path / "source") == {"pages": [1]}
    assert load_manifest(tmp_path / "source").findings["clusters"]["of_earlier"] == 1


def test_only_and_without_build_the_recipe_of_fewer_sources(recipe: Path, tmp_path: Path) -> None:
    command = ["run", str(recipe), "--workers", "1", "--quiet", "--output"]
    assert main([*command, str(tmp_path / "only"), "--only", "wiki", "code"]) == 0
    assert main([*command, str(tmp_path / "without"), "--without", "pages"]) == 0
    found = [load_manifest(tmp_path / name) for name in ("only", "without")]
    assert found[0].manifest_sha == found[1].manifest_sha and sorted(found[0].sources) == ["code", "wiki"]
    assert sizes_in_shards(tmp_path / "only") == {name: SIZES[name] for name in ("code", "wiki")}
    ran = yaml.safe_load((tmp_path / "only/recipe.yaml").read_text(encoding="utf-8"))
    assert sorted(ran["sources"]) == ["code", "wiki"] and ran["deduplication"]["source_priority"] == ["wiki", "code"]
    assert ran["sources"]["code"]["deduplication"]["minhash"] is None
    assert load_recipe(tmp_path / "only/recipe.yaml").filled_in() == ran


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "wikki"], "--only wikki: the recipe has no source 'wikki', only code, pages, wiki"),
        (["--without", "code", "webb"], "--without webb: the recipe has no source 'webb', only code, pages, wiki"),
        (["--only", "wiki", "--without", "code"], "--only and --without are both given: give one of them"),
        (["--without", "code", "pages", "wiki"], "--without leaves no source: leave out fewer"),
        (["--only", "wiki", "--input", "code=x"], "--input code=…: the recipe has no source 'code', only wiki"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_sources_that_cannot_be_chosen_are_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, arguments: list[str], said: str
) -> None:
    output = ["--output", str(tmp_path / "out")] if command == "run" else []
    assert main([command, str(recipe), *output, *arguments]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"
    assert not (tmp_path / "out").exists()
