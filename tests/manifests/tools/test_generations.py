"""Test all tools on a corpus after an append, a removal, another append, and moves of its folder."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpus import under
from indexed import reseal

from manifests.__main__ import main
from manifests.manifest import generation_of, load_manifest
from manifests.tools.diff import diff
from manifests.tools.duplicates import duplicates
from manifests.tools.find import find
from manifests.tools.remove import remove
from manifests.tools.sample import SampleQuery
from manifests.tools.sample import sample as draw
from manifests.tools.verify import verify
from pipeline.append import append
from pipeline.beam.engines import Engine
from pipeline.trace import trace

SECOND = {"common_crawl": ["web/manual-00000.warc.gz"]}
THIRD = {"common_crawl": ["web/manual-00001.warc.gz"]}
DOMAINS = "docs.example.org\npages.example\n"


@pytest.fixture(scope="module")
def steps(first_corpus: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the path of the corpus after each step. The folder is moved between the steps."""
    folder = tmp_path_factory.mktemp("steps")
    engine = Engine(1, (), folder, quiet=True)
    (folder / "list").write_text(DOMAINS, encoding="utf-8")
    shutil.copytree(first_corpus, folder / "moved/second")
    append(folder / "moved/second", under(sample, SECOND), engine)
    remove(folder / "moved/second", folder / "list", folder / "removed")
    shutil.copytree(folder / "removed", folder / "moved/third")
    append(folder / "moved/third", under(sample, THIRD), engine)
    names = {"second": "moved/second", "removed": "removed", "third": "moved/third"}
    return {"first": first_corpus, **{step: folder / name for step, name in names.items()}}


def documents(corpus: Path) -> dict[str, str]:
    return {one.facts["document"]: one.facts["url"] for one in draw(corpus, SampleQuery(number=1000)).drawn}


def test_every_step_verifies_and_is_traced(steps: dict[str, Path]) -> None:
    for corpus in steps.values():
        assert verify(corpus) == []
        for entry in load_manifest(corpus).shards():
            if entry.tokens:
                found = trace(corpus, entry.path, entry.tokens // 2, {})
                assert found.same, found.finding


def test_diff_after_an_added_dump(steps: dict[str, Path]) -> None:
    found = diff(steps["first"], steps["second"])
    new = set(documents(steps["second"])) - set(documents(steps["first"]))
    web = found.documents["common_crawl"]
    assert new and web["only_b"]["documents"] == len(new) and web["only_a"] == {"documents": 0, "tokens": 0}
    assert found.documents["books"]["only_b"]["documents"] == 0
    assert found.inputs == {"common_crawl": {"added": ["manual-00000.warc.gz"]}}
    assert found.parent == "B was made from A by appending to it" and found.other == {"generations": [0, 1]}
    assert found.recipe == found.models == {}


def test_a_cluster_of_a_generation_shows_what_was_kept_of_an_earlier_one(
    steps: dict[str, Path], sample: Path, tmp_path: Path
) -> None:
    corpus = Path(shutil.copytree(steps["first"], tmp_path / "corpus"))
    book = draw(corpus, SampleQuery(number=1, source="books")).drawn[0].facts["document"]
    (file,) = (sample / "books").glob(find(corpus, book).held[0].locator.file)
    (tmp_path / "again.txt").write_bytes(file.read_bytes())
    append(corpus, {"books": [str(tmp_path / "again.txt")]}, Engine(1, (), tmp_path, quiet=True))
    (path,) = (corpus / "generations/1/duplicates").glob("*.parquet")
    (row,) = pq.read_table(path).to_pylist()
    found = duplicates(corpus / "generations/1", row["removed"].hex())
    assert found.kept.id == row["kept"].hex() == book and found.kept.text == found.removed[0].text


def test_removal_reaches_every_generation(steps: dict[str, Path]) -> None:
    before, after = documents(steps["second"]), documents(steps["removed"])
    gone = {name: url for name, url in before.items() if "//docs.example.org/" in url or "//pages.example/" in url}
    shards = {generation_of(find(steps["second"], name).held[0].shard) for name in gone}
    assert shards == {0, 1} and set(after) == set(before) - set(gone)
    assert diff(steps["second"], steps["removed"]).documents["common_crawl"]["only_a"]["documents"] == len(gone)
    assert not any(find(steps["removed"], name).held for name in gone)


def test_a_removed_corpus_is_appended_to(steps: dict[str, Path]) -> None:
    manifest = load_manifest(steps["third"])
    assert manifest.parent == load_manifest(steps["removed"]).manifest_sha and len(manifest.generations) == 2
    found = diff(steps["removed"], steps["third"])
    assert found.documents["common_crawl"]["only_b"]["documents"] > 0
    assert set(documents(steps["removed"])) < set(documents(steps["third"]))


def test_signals_and_drops_of_every_generation_are_sampled(steps: dict[str, Path]) -> None:
    drawn = draw(steps["second"], SampleQuery(number=1000, source="common_crawl")).drawn
    assert {generation_of(one.facts["shard"]) for one in drawn} == {0, 1}
    assert all(one.facts["language"] == "en" for one in drawn)
    for reason in ("near-duplicate", "language"):
        assert draw(steps["second"], SampleQuery(number=50, reason=reason)).drawn


def test_an_edited_line_of_descent_is_found(steps: dict[str, Path], tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(steps["third"], tmp_path / "c"))
    parent = load_manifest(corpus).parent
    path = corpus / "history" / f"{parent}.json"
    good = path.read_bytes()
    plain = json.loads(good)
    plain["removal"]["documents"] += 1
    path.write_text(json.dumps(plain), encoding="utf-8")
    assert any(f"history/{parent}.json: not the manifest" in found for found in verify(corpus))
    path.write_bytes(good)
    reseal(corpus, lambda plain: plain.update(parent="0" * 64))
    assert any("history/" + "0" * 64 in found for found in verify(corpus))
    reseal(corpus, lambda plain: plain.update(parent=""))
    assert any("were removed, its ledger has" in found for found in verify(corpus))


def test_show_says_where_it_comes_from(steps: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(steps["removed"])]) == 0
    said = capsys.readouterr().out
    assert f"parent    {load_manifest(steps['second']).manifest_sha}" in said and "removed " in said
    assert main(["show", str(steps["third"]), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["summary"]["total"]
    entries = load_manifest(steps["third"]).shards()
    assert figures["tokens"] == sum(one.tokens for one in entries)
    assert figures["bytes"] == sum(one.bytes for one in entries)


def test_a_copy_of_a_removed_document_stays_out(steps: dict[str, Path], sample: Path, tmp_path: Path) -> None:
    book = draw(steps["removed"], SampleQuery(number=1, source="books")).drawn[0]
    (tmp_path / "list").write_text(book.facts["document"], encoding="utf-8")
    remove(steps["removed"], tmp_path / "list", tmp_path / "new")
    (file,) = (sample / "books").glob(find(steps["removed"], book.facts["document"]).held[0].locator.file)
    (tmp_path / "again.txt").write_bytes(file.read_bytes())
    append(tmp_path / "new", {"books": [str(tmp_path / "again.txt")]}, Engine(1, (), tmp_path, quiet=True))
    assert verify(tmp_path / "new") == []
    assert diff(steps["removed"], tmp_path / "new").documents["books"]["only_b"]["documents"] == 0
