"""Test `statistics.json` by comparison with numbers computed from the whole corpus at once."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from filters.errors import UserError
from filters.quality.urls import domain
from filters.reasons import DEAD_LETTERS
from manifests.ledger import tally_from
from manifests.manifest import load_manifest
from manifests.report.data import Bins, Statistics, load_statistics
from manifests.shard import open_shard
from pipeline.dedup.signatures import verdict_path
from pipeline.dedup.survivors import read_verdicts
from pipeline.sources.base import JOINED
from pipeline.stages.statistics import EXAMPLE_CHARACTERS, EXAMPLES


@pytest.fixture(scope="module")
def corpus(demo_corpus: Path) -> Path:
    return demo_corpus


@pytest.fixture(scope="module")
def found(corpus: Path) -> Statistics:
    return load_statistics(corpus)


def survivors(corpus: Path, source: str) -> list[dict]:
    rows = []
    for path in sorted((corpus / "clean" / source).rglob("*.parquet")):
        split = path.relative_to(corpus / "clean").as_posix().removesuffix(".parquet")
        verdicts = verdict_path(split) if (corpus / verdict_path(split)).exists() else ""
        gone = {row for row, verdict in read_verdicts(corpus, verdicts).items() if verdict.reason}
        rows += [row for number, row in enumerate(pq.read_table(path).to_pylist()) if number not in gone]
    return rows


def check(bins: Bins, values: list[int]) -> None:
    counts, _ = np.histogram(values, [*bins.edges[:-1], np.nextafter(bins.edges[-1], 0)])
    assert counts.tolist() == bins.counts and bins.total() == len(values)


def test_it_sums_up_the_documents_in_shards_and_no_others(corpus: Path, found: Statistics) -> None:
    manifest = load_manifest(corpus)
    assert found.manifest_sha == manifest.manifest_sha and set(found.sources) == set(manifest.sources)
    for name, entry in manifest.sources.items():
        source, rows = found.sources[name], survivors(corpus, name)
        assert source.documents == entry.documents == len(rows)
        check(source.characters, [len(row["text"]) for row in rows])
        shards = [open_shard(corpus / "shards" / shard.path) for shard in (*entry.train, *entry.validation)]
        check(source.tokens, [length for shard in shards for length in np.diff(shard.offsets).tolist()])


def test_names_are_counted(corpus: Path, found: Statistics) -> None:
    names, rows = found.sources["common_crawl"].names, survivors(corpus, "common_crawl")
    wanted = {
        "domains": Counter(domain(row["url"]) for row in rows),
        "language": Counter(row["language"] for row in rows),
        "year": Counter(row["timestamp"][:4] for row in rows if row["timestamp"]),
        "licence": Counter(row["licence"] for row in rows if row["licence"]),
    }
    for kind, counted in wanted.items():
        assert dict(names[kind].top) == dict(counted) and names[kind].total == counted.total()
        assert (
            names[kind].top == sorted(names[kind].top, key=lambda item: (-item[1], item[0])) and not names[kind].error
        )


def test_clusters_have_the_sizes_that_their_members_say(corpus: Path, found: Statistics) -> None:
    rows = pq.read_table(corpus / "duplicates/clusters-00000-of-00001.parquet").to_pylist()
    check(found.clusters, [removed + 1 for removed in Counter(row["cluster"] for row in rows).values()])


def test_every_reason_for_which_something_was_dropped_has_examples(corpus: Path, found: Statistics) -> None:
    ledger, shown = load_manifest(corpus).ledger, 0
    for source, known in found.sources.items():
        for stage in ("extract", "filter", "neardup"):
            for reason, units in tally_from(ledger[stage][source]).dropped.items():
                if source in JOINED and reason not in DEAD_LETTERS:
                    continue  # Rows that are not joined are only counted, so there are no examples.
                examples = known.examples[reason]
                assert min(EXAMPLES, units["records"]) == len(examples)
                assert all(len(one.text) <= EXAMPLE_CHARACTERS for one in examples)
                assert all(one.file if stage == "extract" else one.id and one.text for one in examples)
                shown += len(examples)
    assert shown > 30


def test_examples_are_real(corpus: Path, found: Statistics) -> None:
    rows = {
        row["id"].hex(): row
        for path in (corpus / "documents").rglob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    clean = {
        row["id"].hex(): row
        for path in (corpus / "clean").rglob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    for known in found.sources.values():
        for reason, examples in known.examples.items():
            for one in examples:
                if one.id:
                    row = (clean if reason.endswith("duplicate") else rows)[one.id]
                    assert row["text"].startswith(one.text) and row["url"] == one.url


def test_without_kept_documents_there_are_fewer_examples_and_the_same_corpus(
    corpus: Path, demo_without_dropped: Path
) -> None:
    assert load_manifest(demo_without_dropped).manifest_sha == load_manifest(corpus).manifest_sha
    examples = load_statistics(demo_without_dropped).sources["common_crawl"].examples
    assert "language" not in examples and {"near-duplicate", "corrupt-gzip"} <= set(examples)


def test_the_bands_and_planted_copies_are_in_it(corpus: Path, found: Statistics) -> None:
    (measured,) = json.loads((corpus / "canaries.json").read_bytes())["settings"]
    levels = {one["level"]: one for one in measured["levels"]}
    (bands,) = found.bands
    assert bands.bands == 14 and bands.sources == sorted(found.sources)
    assert bands.curve[-1] == (1.0, 1.0) and bands.planted
    for one in bands.planted:
        assert one.found == levels[one.level]["found"]
        assert one.interval[0] <= one.found / one.planted <= one.interval[1]


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    assert load_statistics(tmp_path) == Statistics()
    one_edge, no_number = (
        b'{"clusters": {"edges": [1], "counts": [1]}}',
        b'{"clusters": {"edges": [1, NaN], "counts": [1]}}',
    )
    for broken in (b"{", b"[]", b'{"sources": 3}', b'{"unknown": 1}', one_edge, no_number):
        (tmp_path / "statistics.json").write_bytes(broken)
        with pytest.raises(UserError, match=r"statistics\.json cannot be read .*: remove it and give the run again"):
            load_statistics(tmp_path)
