"""`python -m pipeline append`: a new generation beside untouched files, the same bytes however it was interrupted."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest.mock
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpus import FIRST, ROOT, build, ccnet_recipe, digests, first_recipe, rule_named, under

from filters.errors import UserError
from filters.quality.perplexity import Perplexity, load_cutoffs
from manifests.__main__ import main as inspect
from manifests.document import locator_from
from manifests.ledger import imbalances, tally_from
from manifests.manifest import Manifest, generation_folder, generation_of, is_unfinished, load_manifest
from manifests.order import plan_for, samples
from manifests.recipe import load_recipe
from manifests.shard import open_shard
from manifests.tools.find import find
from manifests.tools.trace import trace as lineage_of
from manifests.tools.verify import check_shards, verify
from pipeline import append as module
from pipeline.__main__ import main
from pipeline.append import append
from pipeline.beam.engines import Engine
from pipeline.beam.progress import read_status
from pipeline.run import run
from pipeline.trace import Rederiver, trace

SECOND = {
    "common_crawl": ["web/manual-00000.warc.gz", "web/plain.warc"],
    "books": ["books/*edition.txt", "books/le*.txt"],
}
THIRD = {"common_crawl": ["web/manual-00001.warc.gz"]}


@pytest.fixture(scope="module")
def first(first_corpus: Path) -> Path:
    return first_corpus


@pytest.fixture(scope="module")
def both(first: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first corpus with two dumps appended, one after the other."""
    out = Path(shutil.copytree(first, tmp_path_factory.mktemp("both") / "corpus"))
    for inputs in (SECOND, THIRD):
        appended(out, sample, inputs)
    return out


def appended(corpus: Path, sample: Path, inputs: dict[str, list[str]], workers: int = 1) -> Manifest:
    made = append(corpus, under(sample, inputs), Engine(workers, (), corpus / "runs", quiet=True)).manifest
    assert made is not None
    return made


def kept(corpus: Path) -> dict[str, str]:
    """Digests of all that does not say when and where it ran."""
    left_out = ("recipe.yaml", "report.html")
    return {n: sha for n, sha in digests(corpus).items() if "/runs/" not in n and not n.endswith(left_out)}


def test_what_was_there_keeps_its_names_and_bytes(first: Path, both: Path) -> None:
    changed = {"ledger.json", "manifest.json", "manifest.json.sha256"}
    before, after = kept(first), kept(both)
    assert {name for name in before if after.get(name) != before[name]} == changed
    assert verify(both) == [] == verify(first)


def test_the_status_is_that_of_the_last_append(first: Path, both: Path) -> None:
    runs = [
        read_status(folder)["started"] for folder in (first, generation_folder(both, 1), generation_folder(both, 2))
    ]
    assert runs == sorted(runs) and read_status(both)["started"] == runs[-1]


def test_the_manifest_names_parents_and_holds_all_generations(first: Path, both: Path) -> None:
    old, new = load_manifest(first), load_manifest(both)
    middle = Manifest.model_validate_json((both / f"history/{new.parent}.json").read_bytes())
    assert middle.sha() == middle.manifest_sha == new.parent and middle.parent == old.manifest_sha
    assert json.loads((both / f"history/{middle.parent}.json").read_bytes()) == old.model_dump()
    assert (both / f"history/{new.parent}.json.sha256").read_text(encoding="utf-8") == f"{new.parent}\n"
    assert [generation.number for generation in new.generations] == [1, 2]
    assert [generation.parent for generation in new.generations] == [old.manifest_sha, middle.manifest_sha]
    assert (new.recipe, new.tokenizer, new.seed) == (old.recipe, old.tokenizer, old.seed)
    web = new.sources["common_crawl"]
    assert {generation_of(entry.path) for entry in web.train} == {0, 1, 2}
    assert {generation_of(entry.path) for entry in new.sources["books"].train} == {0, 1}
    assert any(entry.path == "common_crawl/train-g1-00000-of-00001.arrow" for entry in web.train)
    assert {generation_of(entry.path) for entry in new.index} == {0, 1, 2}
    assert web.unique_tokens == sum(entry.tokens for entry in web.train)
    assert web.documents == sum(entry.documents for entry in (*web.train, *web.validation))


def test_the_ledger_is_that_of_all_and_balances(first: Path, both: Path, sample: Path) -> None:
    ledger = load_manifest(both).ledger
    assert imbalances(ledger) == [] and json.loads((both / "ledger.json").read_bytes()) == ledger
    names = [*FIRST["common_crawl"], *SECOND["common_crawl"], *THIRD["common_crawl"]]
    size = sum((sample / name).stat().st_size for name in names)
    assert tally_from(ledger["extract"]["common_crawl"]).entered["bytes"] == size
    assert tally_from(load_manifest(first).ledger["extract"]["common_crawl"]).entered["bytes"] < size


def test_no_document_is_held_twice_and_copies_of_earlier_ones_are_not_held_at_all(both: Path) -> None:
    ids = [shard.batch.column("document").to_pylist() for shard in map(open_shard, (both / "shards").rglob("*.arrow"))]
    held = [identity for some in ids for identity in some]
    assert len(held) == len(set(held)) == sum(source.documents for source in load_manifest(both).sources.values())
    removed = pq.read_table(generation_folder(both, 1) / "duplicates/clusters-00000-of-00001.parquet").to_pylist()
    of_first = {row["id"] for path in (both / "clean").rglob("*.parquet") for row in pq.read_table(path).to_pylist()}
    across = [row for row in removed if row["kept"] in of_first]
    assert across and not {row["removed"] for row in removed} & set(held)
    (told,) = find(both, across[0]["removed"].hex()).removed
    assert told.kept == across[0]["kept"].hex() and find(both, told.kept).held


def test_no_cluster_lies_on_both_sides(both: Path) -> None:
    """A cluster of any generation, over all sources, is wholly in train or wholly in validation."""
    sides: dict[bytes, set[str]] = {}
    side_of = {
        identity: path.name.partition("-")[0]
        for path in (both / "shards").rglob("*.arrow")
        for identity in open_shard(path).batch.column("document").to_pylist()
    }
    for folder in (generation_folder(both, number) for number in range(3)):
        for row in pq.read_table(folder / "duplicates").to_pylist():
            sides.setdefault(row["cluster"], set()).update(
                side_of[identity] for identity in (row["kept"], row["removed"]) if identity in side_of
            )
    assert sides and all(len(found) <= 1 for found in sides.values())


def test_every_token_of_every_generation_is_traced(both: Path) -> None:
    rederivers = [Rederiver(both, {}, number) for number in range(3)]
    traced = 0
    for entry in load_manifest(both).shards():
        shard = open_shard(both / "shards" / entry.path)
        for row in range(shard.batch.num_rows):
            token = int(shard.offsets[row])
            lineage = lineage_of(both, entry.path, token)
            same, finding = rederivers[generation_of(entry.path)].check(entry.path, lineage)
            assert same, f"{entry.path} row {row}: {finding}"
            (held,) = find(both, lineage.document).held
            assert (held.shard, held.row, held.start) == (entry.path, row, token)
            traced += 1
    assert traced > 50


def test_a_moved_corpus_traces_and_verifies(both: Path, tmp_path: Path) -> None:
    """Without the folder that the recipes of its generations name."""
    other = Path(shutil.copytree(both, tmp_path / "elsewhere"))
    hidden = both.rename(both.with_name("hidden"))
    try:
        assert verify(other) == []
        for name in ("common_crawl/train-g1-00000-of-00001.arrow", "common_crawl/train-g2-00000-of-00001.arrow"):
            assert trace(other, name, 5, {}).same
    finally:
        hidden.rename(both)


def test_the_trainer_takes_an_appended_corpus(both: Path) -> None:
    manifest = load_manifest(both)
    assert check_shards(both, manifest, "full") == ""
    plan = plan_for(manifest, 1, 64, 2, 40)
    names = [path for source in plan.sources for path, _ in source.shards]
    assert {generation_of(path) for path in names} == {0, 1, 2}
    drawn = samples(plan, 0, plan.samples)
    web = next(number for number, source in enumerate(plan.sources) if source.name == "common_crawl")
    assert len(set(drawn.shard[drawn.source == web].tolist())) == len(plan.sources[web].shards)


@pytest.mark.slow
def test_the_same_bytes_with_two_workers(first: Path, reference: dict[str, str], sample: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(first, tmp_path / "two"))
    with unittest.mock.patch("pipeline.beam.engines.SMALL_JOB_BYTES", 20_000):
        appended(other, sample, SECOND, workers=2)
    assert kept(other) == reference


class Killed(BaseException):
    """As if the process had died there."""


@pytest.fixture(scope="module")
def staged(first: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first corpus with a generation that is finished but not published."""
    corpus = Path(shutil.copytree(first, tmp_path_factory.mktemp("staged") / "corpus"))
    with unittest.mock.patch.object(module, "_publish", side_effect=Killed), pytest.raises(Killed):
        appended(corpus, sample, SECOND)
    return corpus


@pytest.fixture(scope="module")
def reference(staged: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the first corpus with one dump appended."""
    corpus = Path(shutil.copytree(staged, tmp_path_factory.mktemp("reference") / "corpus"))
    appended(corpus, sample, SECOND)
    return kept(corpus)


STEPS = [
    ("write_atomic", 1, "old"),
    ("archive_manifest", 1, "old"),
    ("link_or_copy", 1, "old"),
    ("link_or_copy", 4, "old"),
    ("write_manifest", 1, "old"),
    ("write_atomic", 2, "new"),
    ("write_atomic", 3, "new"),
    ("rmtree", 1, "new"),
    ("rmtree", 2, "new"),
]


@pytest.mark.parametrize(("name", "call", "state"), STEPS)
def test_an_append_that_ended_while_publishing_is_finished_by_the_same_command(
    staged: Path, first: Path, sample: Path, reference: dict[str, str], tmp_path: Path, name: str, call: int, state: str
) -> None:
    corpus = Path(shutil.copytree(staged, tmp_path / "corpus"))
    real, calls = getattr(module, name), 0

    def dies(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return real(*arguments)

    with unittest.mock.patch.object(module, name, dies), pytest.raises(Killed):
        appended(corpus, sample, SECOND)
    if state == "old":
        assert verify(corpus) == [] and load_manifest(corpus) == load_manifest(first)
    else:
        assert load_manifest(corpus).parent == load_manifest(first).manifest_sha
        assert all(problem.startswith("ledger.json: differs") for problem in verify(corpus))
    appended(corpus, sample, SECOND)
    assert kept(corpus) == reference
    assert verify(corpus) == []


def test_an_append_killed_at_work_is_finished_by_the_same_command(
    first: Path, sample: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    corpus = Path(shutil.copytree(first, tmp_path / "corpus"))
    inputs = [f"{name}={sample / pattern}" for name, patterns in SECOND.items() for pattern in patterns]
    command = [sys.executable, "-m", "pipeline", "append", str(corpus), "--workers", "1", "--quiet"]
    command += [part for given in inputs for part in ("--input", given)]
    for stage in ("filter", "corpus_index/files"):
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL)
        while process.poll() is None and not any((corpus / f"generations/1/receipts/{stage}").rglob("*.json")):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert verify(corpus) == [] and load_manifest(corpus) == load_manifest(first)
    appended(corpus, sample, SECOND)
    assert kept(corpus) == reference


def test_files_of_an_unfinished_generation_alone_are_no_finding(first: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(first, tmp_path / "corpus"))
    (corpus / "shards/books/train-g1-00000-of-00001.arrow").write_bytes(b"half")
    assert verify(corpus) == []
    (corpus / "shards/books/train-g2-00000-of-00001.arrow").write_bytes(b"half")
    assert verify(corpus) == ["shards/books/train-g2-00000-of-00001.arrow: not in the manifest"]
    manifest = load_manifest(corpus)
    assert is_unfinished(manifest, "index/ids-g1-00000-of-00001.arrow")
    assert not is_unfinished(manifest, "books/train-00000-of-00001.arrow")


def test_a_corpus_whose_last_run_was_not_finished_is_not_appended_to(first: Path, sample: Path, tmp_path: Path) -> None:
    """A run with other shards was broken off behind them: the old manifest names files that are gone."""
    corpus, recipe = Path(shutil.copytree(first, tmp_path / "corpus")), first_recipe(sample)
    smaller = recipe.model_copy(update={"shards": recipe.shards.model_copy(update={"tokens": 2_000})})
    engine = Engine(1, (), corpus / "runs", quiet=True)
    run(smaller, corpus, engine, 2, "tokenize")
    assert verify(corpus)
    with pytest.raises(UserError, match=r"was not finished, .*: give the same `python -m pipeline run` again"):
        appended(corpus, sample, SECOND)
    run(smaller, corpus, engine, 2)
    appended(corpus, sample, SECOND)
    appended(corpus, sample, THIRD)
    assert verify(corpus) == []


def test_the_same_text_under_another_name_adds_no_document(first: Path, sample: Path, tmp_path: Path) -> None:
    corpus = Path(shutil.copytree(first, tmp_path / "corpus"))
    shutil.copyfile(sample / FIRST["common_crawl"][0], tmp_path / "again.warc.gz")
    engine = Engine(1, (), corpus / "runs", True)
    made = append(corpus, {"common_crawl": [str(tmp_path / "again.warc.gz")]}, engine).manifest
    assert made is not None
    before = load_manifest(first).sources["common_crawl"].documents
    assert made.sources["common_crawl"].documents == before and len(made.generations) == 1
    assert verify(corpus) == []


def test_models_and_cut_offs_are_the_parents(sample: Path, tmp_path: Path) -> None:
    """CCNet's way: nothing is trained again, and new pages are put into the parent's buckets."""
    corpus = tmp_path / "corpus"
    old = build(ccnet_recipe(sample, "wet/CC-MAIN-2019-30/**"), corpus)
    new = appended(corpus, sample, {"common_crawl": ["wet/CC-MAIN-2020-05/**"]})
    assert verify(corpus) == [] and new.models == old.models
    used = load_manifest(generation_folder(corpus, 1)).models
    assert all(not model.path for model in used.values()), "something was trained"
    trained = {Path(model.path).name: model.sha256 for model in old.models.values() if model.path}
    for use, name in (("perplexity.en.pieces", "en.sp.model"), ("perplexity.en.ngrams", "en.arpa")):
        assert used[f"common_crawl.{use}"].sha256 == trained[name]
    assert used["common_crawl.references.model"].sha256 == trained["common_crawl.bin"]
    rule = rule_named(load_recipe(generation_folder(corpus, 1) / "recipe.yaml"), "common_crawl", "perplexity")
    assert isinstance(rule, Perplexity) and rule.cutoffs is not None
    cuts = json.loads((corpus / "models/cuts/common_crawl.json").read_bytes())["en"]
    assert load_cutoffs(Path(rule.cutoffs), rule.head, rule.tail) == {"en": (cuts["head"], cuts["tail"])}
    rederiver, rows = Rederiver(corpus, {}, 1), 0
    for entry in new.sources["common_crawl"].train:
        shard = open_shard(corpus / "shards" / entry.path)
        for row in range(shard.batch.num_rows if generation_of(entry.path) else 0):
            assert rederiver.check(entry.path, lineage_of(corpus, entry.path, int(shard.offsets[row])))[0]
            rows += 1
    assert rows > 5


def test_find_tells_where_a_document_is_or_what_became_of_it(both: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(what: str, *options: str) -> tuple[int, str]:
        return inspect(["find", str(both), what, *options]), capsys.readouterr().out

    entry = next(entry for entry in load_manifest(both).shards() if entry.path.startswith("common_crawl/train-g1"))
    shard = open_shard(both / "shards" / entry.path)
    row = shard.row(0)
    for what in (row["document"].hex(), row["document"].hex()[:12].upper(), row["url"]):
        code, told = said(what)
        assert code == 0 and f"shard     {entry.path}, row 0" in told and f"file      {row['file']}" in told
        assert f"tokens    0 to {int(shard.offsets[1]) - 1:,} ({int(shard.offsets[1]):,})" in told
    plain = json.loads(said(row["url"], "--json")[1])
    assert (
        plain["held"][0]["locator"] == locator_from(shard.row(0)).as_dict()
        and not plain["more"]
        and not plain["removed"]
    )
    for digit in "0123456789abcdef":
        assert len(json.loads(said(digit, "--json", "--most", "1")[1])["held"]) <= 1
    gone = pq.read_table(both / "duplicates").to_pylist()[0]
    code, told = said(gone["removed"].hex())
    assert code == 0 and f"was removed ({gone['reason']}), a duplicate of {gone['kept'].hex()}" in told
    code, told = said("http://nowhere.example/")
    assert code == 1 and told.startswith(f"no shard of {both} holds it, and no file of its run names it as a duplicate")


def test_mistakes_are_one_sentence(
    both: Path, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(corpus: Path, *inputs: str) -> str:
        given = [part for one in inputs for part in ("--input", one)]
        assert main(["append", str(corpus), *given, "--quiet", "--workers", "1"]) == 2
        return capsys.readouterr().err

    before = kept(both)
    for known in (FIRST["common_crawl"][0], SECOND["common_crawl"][0], THIRD["common_crawl"][0]):
        for place in (sample / known, (sample / known).as_uri()):  # by path, and in a store
            assert f"{Path(known).name} is already in" in said(both, f"common_crawl={place}")
    assert "no source 'arxive'" in said(both, f"arxive={sample / FIRST['common_crawl'][0]}")
    assert "no file matches" in said(both, "books=nowhere/*.txt")
    assert main(["run", str(ROOT / "recipes/demo.yaml"), "--output", str(both), "--quiet"]) == 2
    assert "which a new run would undo" in capsys.readouterr().err
    assert {name: sha for name, sha in kept(both).items() if not name.startswith("generations/3/")} == before
    assert "has no manifest.json" in said(tmp_path, f"books={sample / 'books/*.txt'}")
    (both / "manifest.json.sha256").write_text("0" * 64 + "\n", encoding="utf-8")
    try:
        assert "does not match its hash" in said(both, f"books={sample / 'books/not-found.txt'}")
    finally:
        (both / "manifest.json.sha256").write_text(f"{load_manifest(both).manifest_sha}\n", encoding="utf-8")
