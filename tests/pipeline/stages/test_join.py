"""The join: rows by range whatever the splits, ranges, workers and rounds; conservation; tokens back to their rows."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from corpus import ROOT, SHARED, build, digests
from hypothesis import given
from hypothesis import strategies as st
from toy import run_step

from filters.reasons import DEAD_LETTERS, Reason
from manifests.document import Locator
from manifests.ledger import Tally, imbalances, tally_from, total
from manifests.manifest import load_manifest
from manifests.recipe import Recipe, parse_recipe
from manifests.shard import open_shard
from manifests.storage import StorageError
from manifests.tools.trace import trace
from pipeline.beam.engines import Engine
from pipeline.beam.job import run_job
from pipeline.beam.step import Receipt
from pipeline.beam.tables import read_rows
from pipeline.beam.work import finish
from pipeline.sources.base import JOINED, Row
from pipeline.sources.inputs import Input, resolve
from pipeline.stages import join
from pipeline.stages.split_offsets import offset_step
from pipeline.trace import Rederiver

REAL = sorted((SHARED / "stackexchange").glob("*.xml.gz"))


def recipe(inputs: str, **source: Any) -> Recipe:
    plain = {
        "name": "joined", "seed": 7, "goal_tokens": 10_000,
        "sources": {"stackexchange": {"weight": 1.0, "inputs": [inputs], **source}},
        "tokenizer": {"vocabulary": 600}, "deduplication": {"canaries": 0}, "shards": {"validation": 0.1},
    }  # fmt: skip
    return parse_recipe(plain, "recipe")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled sample's tables of posts, and what is planted in them."""
    with mock.patch.object(sys, "path", [str(ROOT / "samples"), *sys.path]):
        from gazetteer import entries
        from posts import make
    out = tmp_path_factory.mktemp("sample")
    planted = make(out / "stackexchange", entries(12))
    (out / "planted-posts.json").write_text(json.dumps(planted), "utf-8")
    return out


@pytest.fixture(scope="module")
def built(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    corpus = tmp_path_factory.mktemp("built") / "corpus"
    build(recipe(str(sample / "stackexchange/**")), corpus)
    return corpus


def dead_letters(corpus: Path) -> list[dict[str, Any]]:
    files = sorted((corpus / "deadletters").rglob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def documents(corpus: Path, source: str = "stackexchange") -> list[dict[str, Any]]:
    files = sorted((corpus / "documents" / source).glob("joined-*.parquet"))
    return sorted((row for file in files for row in read_rows(file)), key=lambda row: row["id"])


def test_every_planted_post_becomes_what_it_should(sample: Path, built: Path) -> None:
    made = {row["url"] for row in documents(built)}
    letters: dict[tuple[str, str], int] = {}
    for letter in dead_letters(built):
        key = (letter["file"].partition("/")[0], letter["reason"])
        letters[key] = letters.get(key, 0) + 1
    for item in json.loads((sample / "planted-posts.json").read_text("utf-8")):
        url = f"https://{item['site']}/questions/{item['post']}"
        assert (url in made) == (item["expect"] == "kept"), item
    places = {reason: count for (file, reason), count in letters.items() if file == "places.example"}
    assert places == {"orphan": 1, "corrupt-record": 2, "entity-expansion": 1}


def test_rows_and_bytes_balance(sample: Path, built: Path) -> None:
    ledger = load_manifest(built).ledger
    assert imbalances(ledger) == []
    tally = tally_from(ledger["extract"]["stackexchange"])
    files = [path for path in (sample / "stackexchange").rglob("*") if path.is_file()]
    assert tally.entered["bytes"] == sum(path.stat().st_size for path in files)
    answers = sum(len(row["parts"]) for row in documents(built))
    assert tally.removed == {"joined": {"records": answers, "bytes": 0}}
    assert tally.dropped["meta-site"]["records"] == 2 and tally.dropped["archive-metadata"]["records"] == 3
    assert tally.out["records"] == len(documents(built))


def test_rows_that_are_dropped_leave_examples(built: Path) -> None:
    """As the records of other sources do: a few places of each reason, which the ledger counts once."""
    lines = [
        line for path in (built / "skipped/stackexchange").iterdir() for line in path.read_text("utf-8").split("\n")
    ]
    places = [json.loads(line) for line in lines if line]
    dropped = load_manifest(built).ledger["extract"]["stackexchange"]["dropped"]
    expected = {reason for reason in dropped if Reason(reason) not in DEAD_LETTERS}
    assert {place["reason"] for place in places} == expected >= {"meta-site", "other-post", "archive-metadata"}
    assert all(place["file"] for place in places)


def test_every_token_is_traced_to_its_rows(sample: Path, built: Path) -> None:
    rederiver, joined = Rederiver(built, {}), 0
    for entry in load_manifest(built).shards():
        shard = open_shard(built / "shards" / entry.path)
        for start in shard.offsets[:-1].tolist():
            lineage = trace(built, entry.path, int(start))
            joined += len(lineage.locator.parts) > 0
            same, finding = rederiver.check(entry.path, lineage)
            assert same, finding
    assert joined > 10


def test_line_verdicts_of_joined_documents_are_found_again(sample: Path, tmp_path: Path) -> None:
    pattern = str(sample / "stackexchange/code*")
    build(recipe(pattern, filters=[{"min_characters": 10}, {"duplicate_lines": {"scope": "all"}}]), tmp_path / "corpus")
    (entry,) = [shard for shard in load_manifest(tmp_path / "corpus").shards() if "train" in shard.path]
    lineage = trace(tmp_path / "corpus", entry.path, 0)
    same, finding = Rederiver(tmp_path / "corpus", {}).check(entry.path, lineage)
    assert same, finding


@pytest.mark.parametrize("change", ["splits", "blocks", "workers"])
def test_splits_blocks_and_workers_leave_no_trace(sample: Path, built: Path, tmp_path: Path, change: str) -> None:
    given = recipe(str(sample / "stackexchange/**"))
    if change == "splits":
        given = given.model_copy(update={"split_bytes": 3_000})
    size, small = (2_000, 1 << 30) if change == "blocks" else (1 << 30, 1)
    small_job = mock.patch("pipeline.beam.engines.SMALL_JOB_BYTES", small)
    with mock.patch("pipeline.stages.join.PACK_BYTES", size), small_job:
        made, ended = joined(tmp_path, given, workers=2 if change == "workers" else 1)
    assert outputs(tmp_path) == outputs(built)
    assert (len(ended) > 5) == (change == "splits")
    assert tally_of(made, ended) == load_manifest(built).ledger["extract"]["stackexchange"]


def test_ranges_follow_from_the_data_and_change_no_document(sample: Path, built: Path, tmp_path: Path) -> None:
    given = recipe(str(sample / "stackexchange/**"))
    with mock.patch("pipeline.stages.join.RANGE_BYTES", 5_000):
        made, ended = joined(tmp_path, given)
    files = sorted(path.name for path in (tmp_path / "documents/stackexchange").iterdir())
    assert len(files) > 5 and files[0] == f"joined-00000-of-{len(files):05d}.parquet"
    assert documents(tmp_path) == documents(built)
    assert tally_of(made, ended) == load_manifest(built).ledger["extract"]["stackexchange"]


def outputs(corpus: Path) -> dict[str, str]:
    return {name: sha for name, sha in digests(corpus).items() if name.startswith(("documents/", "deadletters/"))}


def tally_of(*stages: dict[str, Receipt]) -> dict[str, Any]:
    return total(receipt.tallies["stackexchange"] for made in stages for receipt in made.values()).as_dict()


def test_nothing_is_done_twice(sample: Path, built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*") if "runs" not in path.parts and path.is_file()}
    build(recipe(str(sample / "stackexchange/**")), built)
    after = {path: path.stat().st_mtime_ns for path in built.rglob("*") if "runs" not in path.parts and path.is_file()}
    same = {path for path in before if before[path] == after.get(path)}
    assert {path.name for path in before.keys() - same} <= {
        "recipe.yaml",
        "manifest.json",
        "manifest.json.sha256",
        "ledger.json",
        "report.html",
    }


def test_a_file_that_can_no_longer_be_read_ends_the_run_by_name(sample: Path, tmp_path: Path) -> None:
    inputs = resolve(
        "stackexchange", [str(sample / "stackexchange/code*"), str(sample / "stackexchange/p*/**")], tmp_path
    )
    gone = [inputs[0], dataclasses.replace(inputs[1], path=str(tmp_path / "gone"), size=99)]
    given = recipe(str(sample / "stackexchange/**"))
    said = rf"{gone[1].name}: .*No such file"
    with mock.patch("manifests.storage.WAITS", []), pytest.raises(StorageError, match=said):
        joined(tmp_path, given, gone)
    assert dead_letters(tmp_path) == []


@pytest.mark.skipif(not REAL, reason="the real sample data (../shared/data) is not here")
def test_real_dumps_the_whole_way(tmp_path: Path) -> None:
    build(recipe(f"{REAL[0].parent}/**", stackexchange={"largest": 1}), tmp_path)
    tally = tally_from(load_manifest(tmp_path).ledger["extract"]["stackexchange"])
    assert tally.entered["bytes"] == sum(path.stat().st_size for path in REAL)
    assert (tally.out["records"], tally.removed["joined"]["records"]) == (663, 1572)
    assert tally.dropped["small-site"]["records"] == 592 and tally.dropped["other-post"]["records"] == 119
    rederiver = Rederiver(tmp_path, {})
    for entry in load_manifest(tmp_path).shards():
        shard = open_shard(tmp_path / "shards" / entry.path)
        for start in shard.offsets[:-1:20].tolist():
            same, finding = rederiver.check(entry.path, trace(tmp_path, entry.path, int(start)))
            assert same, finding


def joined(
    corpus: Path, given: Recipe, inputs: list[Input] | None = None, workers: int = 1
) -> tuple[dict[str, Receipt], dict[str, Receipt]]:
    """The receipts of documents and of rows, by the stages `split_offsets` and `join` alone."""
    if inputs is None:
        inputs = resolve("stackexchange", given.sources["stackexchange"].inputs, corpus)
    engine = Engine(workers, (), corpus / "runs", quiet=True)
    offsets, _ = run_step(corpus, offset_step(given, inputs), engine)
    work = join.join_sources(given, inputs, offsets, {})
    return finish(work, lambda turns: run_job(corpus, turns, engine)[0])


@contextlib.contextmanager
def library(folder: Path) -> Iterator[None]:
    (folder / "houses").write_text("house A yes\nhouse B no\nother x y\nhouse C yes\nbad\n", encoding="utf-8")
    (folder / "works").write_text(
        "".join(f"work {'ABC'[n % 3]} T{n % 7}\n" for n in range(60)) + "work Z T1\nwork A T9\n", encoding="utf-8"
    )
    (folder / "texts").write_text("".join(f"text T{n} words of {n}\n" for n in range(9)), encoding="utf-8")
    with mock.patch.dict(JOINED, {"github": "library_source"}):
        yield


def test_two_rounds_meet_without_multiplying_rows(tmp_path: Path) -> None:
    folder, results = tmp_path / "in", []
    folder.mkdir()
    for size in (1 << 30, 300):
        corpus = tmp_path / f"out{size}"
        with library(folder), mock.patch("pipeline.stages.join.RANGE_BYTES", size):
            plain = {"name": "n", "seed": 1, "goal_tokens": 1, "sources": {"github": {"weight": 1.0, "inputs": ["x"]}}}
            inputs = resolve("github", [f"{folder}/*"], corpus)
            made, ended = joined(corpus, parse_recipe(plain, "r"), inputs)
        tally = total(receipt.tallies["github"] for receipt in [*made.values(), *ended.values()])
        results.append((documents(corpus, "github"), tally.as_dict(), sorted(map(str, dead_letters(corpus)))))
        assert tally.imbalance() == [] and tally.entered["bytes"] == sum(item.size for item in inputs)
        assert len(made) == 1 or size == 300
    assert results[0][0] == results[1][0] and results[0][2] == results[1][2]
    texts = sorted(row["text"].strip() for row in results[0][0])
    assert texts == [f"words of {n}" for n in range(7)], "a text that many works share is one document"
    counts = {reason: units["records"] for reason, units in results[0][1]["dropped"].items()}
    assert counts == {"other-post": 1, "corrupt-record": 1, "unused-row": 3 + 2, "no-licence": 20 + 1, "orphan": 1}
    assert results[0][1]["removed"]["joined"]["records"] == 40 and len(results[0][2]) == 2


NUMBERS = st.integers(0, 2**63)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.just("\u00e9" * 40_000)


@given(
    st.lists(
        st.builds(
            Row,
            st.binary(min_size=1, max_size=9) | st.just(b"g" * 70_000),
            st.builds(Locator, NAMES, NUMBERS, NUMBERS, NAMES, NUMBERS, NUMBERS),
            NUMBERS,
            st.binary(max_size=9),
        ),
        max_size=5,
    ),
    st.integers(1, 4),
    st.integers(1, 200),
)
def test_rows_come_out_of_the_shuffle_as_they_went_in(rows: list[Row], ranges: int, size: int) -> None:
    with mock.patch.object(join, "PACK_BYTES", size):
        blocks = list(join.pack_rows(iter(rows), Tally(), ranges))
    found = [join._unpack(block, place) for _, block in blocks for place in join._find_places(block)]
    assert sorted(found, key=repr) == sorted(rows, key=repr)
    number_of = {
        join._read_group(block, place): number for number, block in blocks for place in join._find_places(block)
    }
    assert all(0 <= number_of[row.group] < ranges for row in rows)
