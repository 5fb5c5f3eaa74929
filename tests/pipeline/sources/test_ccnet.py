"""CCNet's way, whole, on the bundled sample: planted lines, blocked pages, both models, buckets, every token traced."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpus import build, build_in_two, ccnet_recipe, digests, with_rule
from executed import covered_by_versions

from filters.quality.urls import normalise
from manifests.display import render_text
from manifests.ledger import tally_from
from manifests.manifest import load_manifest
from manifests.shard import open_shard
from manifests.tools.show import summary_parts
from manifests.tools.trace import trace as lineage_of
from manifests.tools.verify import verify
from pipeline.beam.engines import Engine
from pipeline.run import run
from pipeline.stages.filter import read_masks
from pipeline.trace import Rederiver


@pytest.fixture(scope="module")
def corpus(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "corpus"
    with covered_by_versions():
        build(ccnet_recipe(sample), out, keep_dropped=1000)
    return out


def rows(folder: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """(split, row) of every Parquet file below a folder of a corpus."""
    for path in sorted(folder.rglob("*.parquet")):
        split = path.relative_to(folder).as_posix().removesuffix(".parquet")
        for row in pq.read_table(path).to_pylist():
            yield split, row


def test_the_corpus_verifies_and_says_what_it_found(corpus: Path) -> None:
    assert verify(corpus) == []
    said = render_text(summary_parts(load_manifest(corpus)))
    for word in ("lines ", "pairs ", "lists ", "buckets ", "cited ", "balanced"):
        assert word in said


def test_every_filter_keeps_something_and_drops_something(corpus: Path) -> None:
    tally = tally_from(load_manifest(corpus).ledger["filter"]["common_crawl"])
    assert {"language", "perplexity", "not-reference-like", "only-duplicate-lines"} <= set(tally.dropped)
    assert tally.removed["duplicate-line"]["lines"] > 100 and tally.out["records"] > 20


@pytest.mark.parametrize("scope", ["dump", "all"])
@pytest.mark.parametrize("keep", ["none", "first"])
def test_planted_lines_stay_and_go_as_the_sample_says(
    sample: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, scope: str, keep: str
) -> None:
    recipe = with_rule(ccnet_recipe(sample), "common_crawl", "duplicate_lines", scope=scope, keep=keep)
    run(recipe, tmp_path, Engine(1, (), tmp_path / "runs", quiet=True), only="line_dedup")
    left: dict[tuple[str, str], str] = {}
    for path in sorted((tmp_path / "documents").rglob("*.parquet")):
        split = path.relative_to(tmp_path / "documents").as_posix().removesuffix(".parquet")
        table = pq.read_table(path).to_pylist()
        for row, mask in zip(table, read_masks(tmp_path, split), strict=True):
            kept = [line for line, gone in zip(row["text"].split("\n"), mask.tolist(), strict=True) if not gone]
            left[row["file"].rpartition("/")[2], row["url"]] = "\n".join(kept)
    planted = json.loads((sample / "planted-lines.json").read_text("utf-8"))
    assert len(planted["lines"]) > 10
    for group in planted["lines"]:
        places = Counter((copy["file"].rpartition("/")[2], copy["url"], copy["line"]) for copy in group["copies"])
        found = sum(left[file, url].split("\n").count(line) for file, url, line in places)
        assert found == group["left"][scope][keep], group["what"]
    for group in planted["documents"]:
        texts = [text for (_, url), text in left.items() if url in group["urls"]]
        assert sum(bool(text.strip()) for text in texts) == group["left"][scope][keep], group["what"]


def test_blocked_pages_are_dropped_before_they_are_read(corpus: Path, sample: Path) -> None:
    planted = json.loads((sample / "planted-blocked.json").read_text("utf-8"))
    blocked = [row["url"] for row in planted if row["expect"] == "blocked-url"]
    found = {row["url"] for _, row in rows(corpus / "documents")}
    assert blocked and found.isdisjoint(blocked)
    assert {row["url"] for row in planted if row["expect"] == "kept"} <= found
    dropped = tally_from(load_manifest(corpus).ledger["extract"]["common_crawl"]).dropped
    assert dropped["blocked-url"]["records"] == len(blocked)


def test_cited_pages_are_found_whatever_the_form_of_the_citation(corpus: Path, sample: Path) -> None:
    planted = json.loads((sample / "planted-references.json").read_text("utf-8"))
    cited = {normalise(row["url"]) for row in planted["cited"] if row["in_wet"]}
    sampled = [
        row
        for path in (corpus / "blocks/references/sample").rglob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    ]
    positives = [row["text"] for row in sampled if row["cited"]]
    clean = {str(row["text"]): normalise(str(row["url"])) for _, row in rows(corpus / "clean")}
    long = {text for text, url in clean.items() if url in cited and len(text) >= 1000}
    assert len(long) > 20 and long <= set(positives)
    assert {clean[text] for text in positives if text in clean} <= cited
    card = json.loads((corpus / "models/references/common_crawl.card.json").read_bytes())
    assert card["trained_on"]["positives"] + card["held_out"]["positives"] == len(positives)


def test_buckets_follow_the_percentiles_of_this_crawl(corpus: Path) -> None:
    cuts = json.loads((corpus / "models/cuts/common_crawl.json").read_bytes())["en"]
    kept = [row for _, row in rows(corpus / "clean")]
    assert kept and all(round(row["perplexity"], 1) < cuts["tail"] for row in kept)
    assert {row["bucket"] for row in kept} == {"head", "middle"}
    assert all((round(row["perplexity"], 1) < cuts["head"]) == (row["bucket"] == "head") for row in kept)
    dropped = tally_from(load_manifest(corpus).ledger["filter"]["common_crawl"]).dropped
    assert abs(dropped["perplexity"]["records"] / cuts["documents"] - 0.4) < 0.02


def test_every_document_is_derived_again_from_its_bytes(corpus: Path) -> None:
    manifest, rederive = load_manifest(corpus), Rederiver(corpus, {})
    checked = 0
    for entry in manifest.shards():
        shard = open_shard(corpus / "shards" / entry.path)
        for token in shard.offsets[:-1].tolist():
            same, finding = rederive.check(entry.path, lineage_of(corpus, entry.path, token))
            assert same, finding
            checked += 1
    assert checked == sum(entry.documents for entry in manifest.shards()) > 20


def test_two_processes_and_small_splits_leave_no_trace(corpus: Path, sample: Path, tmp_path: Path) -> None:
    """Models, verdicts and shards are byte for byte those of one process; with other splits documents stay the same."""
    build_in_two(ccnet_recipe(sample), tmp_path / "two", keep_dropped=1000)
    assert digests(tmp_path / "two") == digests(corpus)
    small = ccnet_recipe(sample).model_copy(update={"split_bytes": 10_000})
    run(small, tmp_path / "small", Engine(1, (), tmp_path / "small/runs", quiet=True), only="line_dedup")
    names = ("id", "text", "url", "file", "offset", "length", "inner_offset", "inner_length")
    found = [[{name: row[name] for name in names} for _, row in rows(out / "documents")]
             for out in (corpus, tmp_path / "small")]  # fmt: skip
    assert len(list((tmp_path / "small/documents").rglob("*@*.parquet"))) > 10
    key = lambda row: (row["file"], row["offset"], row["inner_offset"])  # noqa: E731
    assert sorted(found[0], key=key) == sorted(found[1], key=key)
    verdicts = [Counter(str(mask.tolist()) for path in sorted((out / "verdicts/line_dedup").rglob("*.arrow"))
                        for mask in read_masks(out, split_of(out, path)))
                for out in (corpus, tmp_path / "small")]  # fmt: skip
    assert verdicts[0] == verdicts[1]


def split_of(out: Path, path: Path) -> str:
    return path.relative_to(out / "verdicts/line_dedup").as_posix().removesuffix(".arrow")
