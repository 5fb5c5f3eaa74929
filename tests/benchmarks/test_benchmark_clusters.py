"""The benchmark `clusters`: its synthetic keys have the stated properties, and it runs with few documents."""

import networkx
import numpy as np
import pytest

from benchmarks import clusters

DOCUMENTS = 30_000


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[np.ndarray, np.ndarray]]:
    monkeypatch.setattr(clusters, "RANGE_BYTES", 3 << 20)
    ranges = clusters.count_ranges(DOCUMENTS)
    assert ranges == 4
    return [clusters.make_keys(DOCUMENTS, ranges, number) for number in range(ranges)]


def test_every_document_has_each_band_once_and_a_range_holds_its_own_keys(
    pairs: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    rows = np.concatenate([found for _, found in pairs])
    assert np.array_equal(np.bincount(rows), np.full(DOCUMENTS, clusters.SCHEME.bands))
    for number, (keys, _) in enumerate(pairs):
        assert ((keys >> np.uint64(62)) == number).all()


def test_as_many_duplicates_and_as_great_a_bucket_as_it_says(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    _, counts = np.unique(np.concatenate([keys for keys, _ in pairs]), return_counts=True)
    assert counts.max() == DOCUMENTS // 20
    met = (counts - 1)[counts < 100].sum() / (DOCUMENTS * clusters.SCHEME.bands)
    assert met == pytest.approx(clusters.DUPLICATES * clusters.SHARED_BAND, rel=0.1)


def test_its_clusters_are_networkxs(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    graph = networkx.Graph()
    for number, (keys, rows) in enumerate(pairs):
        graph.add_edges_from((("key", number, key), row) for key, row in zip(keys.tolist(), rows.tolist(), strict=True))
    parts = [len([node for node in part if isinstance(node, int)]) for part in networkx.connected_components(graph)]
    told = clusters.ours(DOCUMENTS)
    assert told["clusters"] == sum(size > 1 for size in parts)
    assert told["nodes"] == sum(size for size in parts if size > 1)


def test_the_peer_finds_the_copies_that_were_made() -> None:
    told = clusters.peer(2_000)
    assert told["candidates"] / 2 == pytest.approx(2_000 * clusters.DUPLICATES, rel=0.3)


def test_rates_are_over_all_that_is_timed() -> None:
    told = {"ranges": 1, "edges": 2, "nodes": 3, "clusters": 1, "star": 1.0, "components": 0.5, "cut": 0.25}
    other = {"insert": 5.0, "query": 5.0, "memory": 50_000}
    one = {"edges": 10, "nodes": 8, "seconds": 1e-5, "memory": 160}
    rounds = {"edges": 1000, "ranges": 16, "rows": 5000, "exchanges": 3, "seconds": 0.01}
    said = clusters.report(1000, 500, {**told, "peak": 1 << 20}, other, one, rounds)
    assert "| documents per CPU second | 571 |" in said
    assert "| ours over datasketch: insert; insert and query | 5.7; 11.4 |" in said and "| 100 B |" in said
    assert "| anonymous memory per node | 20 B |" in said and "| CPU s per million edges | 1.0 |" in said
    assert (
        "| bytes shuffled per edge, all rounds | 80 |" in said
        and "| CPU s per million edges, all rounds | 10.0 |" in said
    )


def test_rounds_end_where_union_find_does() -> None:
    told = clusters.measure_rounds(DOCUMENTS, 4)
    assert told["exchanges"] % 2 == 1 and told["rows"] > told["edges"]


def test_the_small_form_runs_in_processes_of_its_own() -> None:
    assert "| ours over datasketch" in clusters.run(20_000, 1_000, 20_000, 20_000)
