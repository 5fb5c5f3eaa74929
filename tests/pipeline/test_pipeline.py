"""The whole way on the bundled sample: one result however it runs, nothing lost, every token traced."""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpus import ROOT, build, build_in_two, demo_recipe, digests, file_times, first_recipe

from filters.errors import UserError
from filters.reasons import DEAD_LETTERS
from manifests.document import document_id, locator_from
from manifests.files import canonical_json
from manifests.ledger import STAGES, imbalances, tally_from
from manifests.manifest import ModelEntry, load_manifest
from manifests.shard import open_shard
from manifests.tools.trace import trace as lineage_of
from manifests.tools.verify import verify
from pipeline.beam.engines import Engine
from pipeline.run import run
from pipeline.trace import Rederiver


@pytest.fixture(scope="module")
def corpus(demo_corpus: Path) -> Path:
    return demo_corpus


def test_the_corpus_verifies_and_its_ledger_balances(corpus: Path) -> None:
    assert verify(corpus) == []
    ledger = json.loads((corpus / "ledger.json").read_bytes())
    assert set(ledger) == set(STAGES) and imbalances(ledger) == []


def test_every_byte_of_every_input_is_accounted_for(corpus: Path, sample: Path) -> None:
    ledger = load_manifest(corpus).ledger
    for source, folder in (("common_crawl", "web"), ("books", "books")):
        size = sum(path.stat().st_size for path in (sample / folder).iterdir())
        assert tally_from(ledger["extract"][source]).entered["bytes"] == size


def test_every_stage_keeps_something_and_drops_something(corpus: Path) -> None:
    ledger = load_manifest(corpus).ledger
    for stage in ("extract", "filter", "neardup"):
        tally = tally_from(ledger[stage]["common_crawl"])
        assert tally.out["records"] > 0 and tally.dropped


def test_the_sample_meets_its_own_list_of_what_becomes_of_each_record(corpus: Path, sample: Path) -> None:
    """samples/planted.json says for each record of the hand-made archives what must become of it."""
    sides = {
        folder: {(row["url"], row.get("reason", "")) for path in (corpus / folder).rglob("*.parquet")
                 for row in read(path, *columns)}
        for folder, columns in (("clean", ["url"]), ("dropped", ["url", "reason"]))
    }  # fmt: skip
    clean, survivors = {url for url, _ in sides["clean"]}, urls(corpus)
    letters = [
        json.loads(line) for path in (corpus / "deadletters").rglob("*.jsonl") for line in path.open(encoding="utf-8")
    ]
    checked = 0
    for row in json.loads((sample / "planted.json").read_text("utf-8")):
        url, expect = row["url"], row["expect"]
        if not url or expect == "any" or row["record"] != "response":
            continue
        checked += 1
        if expect == "kept":
            assert url in clean, row
        elif expect in {"near-duplicate", "exact-duplicate", "duplicate"}:
            slug = url.partition("?")[0].removesuffix(".html").rpartition("/")[2]
            copies = [other for other in survivors if f"/{slug}" in other and "quotes.example" not in other]
            assert url in clean and len(copies) == 1, (row, copies)
        else:
            assert url not in clean, row
            if expect.startswith(("c4-", "language")):
                reasons = {reason for u, reason in sides["dropped"] if u == url}
                assert reasons <= {expect, "language", "language-unsure"}, row
    assert checked > 100
    assert {letter["reason"] for letter in letters} <= {reason.value for reason in DEAD_LETTERS}
    assert all(letter["length"] > 0 and letter["file"] for letter in letters)


def urls(corpus: Path) -> set[str]:
    """The URLs of the documents that the shards hold."""
    return {row["url"] for shard in shards(corpus) for row in shard.batch.select(["url"]).to_pylist()}


def read(path: Path, *columns: str) -> list[dict]:
    return pq.read_table(path, columns=list(columns)).to_pylist()


def shards(corpus: Path) -> list:
    return [open_shard(corpus / "shards" / entry.path) for entry in load_manifest(corpus).shards()]


def test_documents_have_the_ids_of_their_locators_and_are_held_once(corpus: Path) -> None:
    seen = []
    for shard in shards(corpus):
        for row in range(shard.batch.num_rows):
            columns = shard.row(row)
            assert columns["document"] == document_id(columns["source"], locator_from(columns))
            seen.append(columns["document"])
    assert len(seen) == len(set(seen)) == sum(s.documents for s in load_manifest(corpus).sources.values())


def test_pipeline_trace_gives_the_same_tokens_for_every_document(corpus: Path) -> None:
    rederiver = Rederiver(corpus, {})
    traced = 0
    for entry in load_manifest(corpus).shards():
        shard = open_shard(corpus / "shards" / entry.path)
        for row in range(shard.batch.num_rows):
            token = int(shard.offsets[row]) + (row % 3)
            same, finding = rederiver.check(entry.path, lineage_of(corpus, entry.path, token))
            assert same, f"{entry.path} row {row}: {finding}"
            traced += 1
    assert traced == sum(source.documents for source in load_manifest(corpus).sources.values()) > 50


def test_trace_refuses_a_model_that_has_changed_and_looks_at_those_of_its_source_alone(corpus: Path) -> None:
    rederiver, manifest = Rederiver(corpus, {}), load_manifest(corpus)
    changed = {use: ModelEntry(sha256="0" * 64) for use in manifest.models if use.startswith("common_crawl.")}
    assert changed, "the demo gives a list of bad words"
    rederiver.manifest = manifest.model_copy(update={"models": manifest.models | changed})
    for source, is_refused in (("books", False), ("common_crawl", True)):
        path = manifest.sources[source].train[0].path
        with pytest.raises(UserError, match="of common_crawl") if is_refused else contextlib.nullcontext():
            assert rederiver.check(path, lineage_of(corpus, path, 5))[0]


def test_trace_finds_moved_dumps_and_says_when_they_changed(corpus: Path, sample: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(sample / "books", tmp_path / "elsewhere"))
    (entry,) = load_manifest(corpus).sources["books"].train
    lineage = lineage_of(corpus, entry.path, 5)
    rederiver = Rederiver(corpus, {"books": [str(moved)]})
    assert rederiver.check(entry.path, lineage)[0]
    path = moved / lineage.locator.file
    path.write_bytes(path.read_bytes().replace(b"e", b"i"))
    same, finding = rederiver.check(entry.path, lineage)
    assert not same and "differ" in finding


def test_one_result_however_it_runs(corpus: Path, sample: Path, tmp_path: Path) -> None:
    """Two processes, and the inputs listed backwards, give every file byte for byte as one process does."""
    build_in_two(demo_recipe(sample, reverse=True), tmp_path / "two", keep_dropped=3)
    assert digests(tmp_path / "two") == digests(corpus)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--runner=BundleBasedDirectRunner"],
        ["--direct_running_mode=multi_threading", "--direct_num_workers=2"],
        pytest.param(["--runner=apache_beam.runners.dask.dask_runner.DaskRunner"], marks=pytest.mark.cluster),
    ],
    ids=["bundle-based", "threads", "dask"],
)
def test_one_result_on_every_runner(first_corpus: Path, sample: Path, tmp_path: Path, arguments: list[str]) -> None:
    if "Dask" in arguments[0]:
        pytest.importorskip("dask.distributed")
    build(first_recipe(sample), tmp_path / "other", *arguments, keep_dropped=2)
    assert digests(tmp_path / "other") == digests(first_corpus)


def test_a_finished_corpus_is_not_touched_again(corpus: Path, sample: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    before = file_times(copy / "shards")
    done = run(demo_recipe(sample), copy, Engine(1, (), copy / "runs", quiet=True), keep_dropped=3)
    assert done.ran == 0 and done.manifest == load_manifest(corpus)
    assert file_times(copy / "shards") == before


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_run_that_lost_any_of_its_files_gives_the_same_again(
    corpus: Path, sample: Path, tmp_path: Path, seed: int
) -> None:
    copy = Path(shutil.copytree(corpus, tmp_path / "copy"))
    before = digests(copy)
    chance = random.Random(seed)
    for name in chance.sample([name for name in before if not name.startswith("deadletters")], 12):
        (copy / name).unlink()
    (copy / "shards" / ".0123.tmp").write_bytes(b"half a shard")
    build(demo_recipe(sample), copy, keep_dropped=3)
    assert digests(copy) == before


def test_a_run_killed_with_its_whole_process_group_gives_the_same_when_started_again(
    first_corpus: Path, sample: Path, tmp_path: Path
) -> None:
    out, script = tmp_path / "killed", tmp_path / "build.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom corpus import build_in_two, first_recipe\n"
        f"build_in_two(first_recipe(Path({str(sample)!r})), Path({str(out)!r}), keep_dropped=2)\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)])}
    for stage in ("extract", "tokenizer/train"):
        process = subprocess.Popen(
            [sys.executable, str(script)], start_new_session=True, env=environment, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not any((out / "receipts" / stage).rglob("*.json")):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (out / "manifest.json").exists(), "killed too late to show anything"
    build(first_recipe(sample), out, keep_dropped=2)
    assert digests(out) == digests(first_corpus)


def test_another_recipe_or_input_changes_what_it_must_and_leaves_no_stray_file(
    first_corpus: Path, sample: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(first_corpus, tmp_path / "copy"))
    recipe = first_recipe(sample)
    fewer = recipe.with_inputs({"common_crawl": [str(sample / "web/pages.warc.gz")]})
    changed = build(fewer, copy, keep_dropped=2)
    assert changed.manifest_sha != load_manifest(first_corpus).manifest_sha
    assert verify(copy) == [] and len(list((copy / "documents/common_crawl").iterdir())) == 1
    build(recipe, copy, keep_dropped=2)
    assert digests(copy) == digests(first_corpus)


def test_dropped_documents_are_kept_when_asked_for_and_do_not_change_the_corpus(
    corpus: Path, demo_without_dropped: Path
) -> None:
    rows = [row for path in (corpus / "dropped").rglob("*.parquet") for row in read(path, "reason", "text")]
    assert 0 < sum(row["text"] is not None for row in rows) < len(rows)
    without = demo_without_dropped
    bare = [row for path in (without / "dropped").rglob("*.parquet") for row in read(path, "reason", "text")]
    assert [row["reason"] for row in bare] == [row["reason"] for row in rows] and not any(row["text"] for row in bare)
    assert load_manifest(without) == load_manifest(corpus)


def test_duplicates_name_removed_and_kept(corpus: Path) -> None:
    rows = pq.read_table(corpus / "duplicates/clusters-00000-of-00001.parquet").to_pylist()
    held = {identity for shard in shards(corpus) for identity in shard.batch.column("document").to_pylist()}
    assert {row["reason"] for row in rows} == {"exact-duplicate", "near-duplicate"}
    for row in rows:
        assert row["removed"] not in held and row["kept"] in held
        assert row["similarity"] == 1.0 or row["reason"] == "near-duplicate"


def test_shards_are_shuffled_within_their_source(corpus: Path) -> None:
    neighbours, expected = 0, 0.0
    for shard in shards(corpus):
        files = [row["file"] for row in shard.batch.select(["file"]).to_pylist()]
        neighbours += sum(a == b for a, b in itertools.pairwise(files))
        expected += sum((files.count(name) / len(files)) ** 2 for name in set(files)) * len(files)
    assert neighbours < 1.5 * expected, "documents of one file lie together"


def test_the_canonical_manifest_holds_no_path_clock_or_host(corpus: Path, sample: Path) -> None:
    text = (corpus / "manifest.json").read_text(encoding="utf-8")
    assert str(sample) not in text and str(ROOT) not in text and os.uname().nodename not in text
    assert (corpus / "manifest.json").read_bytes() == canonical_json(json.loads(text))
