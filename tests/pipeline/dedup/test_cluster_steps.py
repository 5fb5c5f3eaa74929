"""Clusters in rounds: each operation on graphs made by hand, and both ways to the same bytes over the exchange."""

import sys
from pathlib import Path

import networkx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy import PoolEngine, ShuffleEngine, digest, engine

from filters.dedup.clusters import (
    components,
    contract,
    count_unsettled,
    distinct_edges,
    edges_by_larger,
    edges_by_node,
    large_star,
    small_star,
    spread_keys,
)
from filters.errors import UserError
from manifests.files import sha256_file
from pipeline.beam import job
from pipeline.beam.engines import Engine
from pipeline.beam.job import run_job
from pipeline.beam.step import Output, Receipt, Receipts
from pipeline.beam.work import PartReceipts, Turns, Work, finish
from pipeline.dedup import clusters as module
from pipeline.dedup.clusters import EDGE_SCHEMA, read_labels

graphs = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60)
chance = np.random.default_rng(0)


def as_edges(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


def proper(pairs: list[tuple[int, int]]) -> np.ndarray:
    """Distinct edges between two nodes, the smaller one first."""
    edges = np.sort(as_edges(pairs), axis=1)
    return distinct_edges(edges[edges[:, 0] != edges[:, 1]])


def labels_of(edges: np.ndarray) -> dict[int, int]:
    return dict(zip(*(column.tolist() for column in components(edges)), strict=True))


def settled(edges: np.ndarray) -> tuple[np.ndarray, int]:
    """Alternate until nothing changes: the edges, and how many rounds it took."""
    for rounds in range(64):
        if not count_unsettled(edges_by_node(edges)):
            return edges, rounds
        edges = small_star(edges_by_larger(large_star(edges_by_node(edges))))
    raise AssertionError("64 rounds")


def test_large_star_joins_larger_neighbours_to_the_smallest() -> None:
    """Kiveris et al. 2014, section 3: 3's neighbours are 1, 5 and 7, and 1 is the smallest."""
    edges = as_edges([(3, 1), (3, 5), (3, 7)])
    assert large_star(edges).tolist() == [[1, 5], [1, 7]]
    assert large_star(as_edges([(3, 5), (3, 7), (3, 5)])).tolist() == [[3, 5], [3, 7]]
    assert large_star(as_edges([(3, 1)])).tolist() == []


def test_small_star_joins_a_node_and_its_smaller_neighbours_to_the_smallest() -> None:
    assert small_star(as_edges([(5, 1), (5, 4), (5, 2)])).tolist() == [[1, 2], [1, 4], [1, 5]]
    assert small_star(as_edges([(5, 1)])).tolist() == [[1, 5]]


def test_a_chain_is_unsettled_and_a_star_is_not() -> None:
    assert count_unsettled(edges_by_node(as_edges([(1, 2), (2, 3)]))) == 1, "the node in the middle"
    assert count_unsettled(edges_by_node(as_edges([(1, 3), (2, 3)]))) == 1, "two smaller neighbours"
    assert count_unsettled(edges_by_node(as_edges([(1, 2), (1, 3), (4, 9)]))) == 0
    assert count_unsettled(np.empty((0, 2), np.int64)) == 0


@given(graphs)
@settings(max_examples=300, deadline=None)
def test_each_operation_keeps_components_together_and_apart(pairs: list[tuple[int, int]]) -> None:
    edges = proper(pairs)
    for changed in (large_star(edges_by_node(edges)), small_star(edges_by_larger(edges)), contract(edges)):
        assert labels_of(changed) == labels_of(edges)
        assert (changed[:, 0] < changed[:, 1]).all() and np.array_equal(distinct_edges(changed), changed)


@given(graphs)
@settings(max_examples=300, deadline=None)
def test_alternating_ends_in_stars_that_nothing_changes(pairs: list[tuple[int, int]]) -> None:
    edges = proper(pairs)
    stars, _ = settled(edges)
    expected = {
        (min(part), node) for part in networkx.connected_components(networkx.Graph(edges.tolist())) for node in part
    }
    assert {tuple(edge) for edge in stars.tolist()} == {(a, b) for a, b in expected if a != b}
    assert np.array_equal(large_star(edges_by_node(stars)), stars) and np.array_equal(
        small_star(edges_by_larger(stars)), stars
    )


@given(graphs)
@settings(max_examples=200, deadline=None)
def test_unsettled_is_none_exactly_where_nothing_changes(pairs: list[tuple[int, int]]) -> None:
    edges = proper(pairs)
    after = small_star(edges_by_larger(large_star(edges_by_node(edges))))
    assert np.array_equal(after, edges) == (count_unsettled(edges_by_node(edges)) == 0)


@given(graphs, st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_nodes_by_range_give_what_all_together_give(pairs: list[tuple[int, int]], ranges: int) -> None:
    edges = proper(pairs)
    for sent, operation in ((edges_by_node(edges), large_star), (edges_by_larger(edges), small_star)):
        parts = [operation(sent[spread_keys(sent[:, 0]) % np.uint64(ranges) == r]) for r in range(ranges)]
        assert np.array_equal(distinct_edges(np.concatenate(parts)), operation(sent))


@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_rounds_grow_slowly_with_the_length_of_a_chain(order: str) -> None:
    names = np.arange(1 << 12) if order == "ascending" else chance.permutation(1 << 12)
    stars, rounds = settled(np.sort(np.stack([names[:-1], names[1:]], axis=1), axis=1))
    assert len(stars) == (1 << 12) - 1 and (stars[:, 0] == 0).all() and rounds <= 12


def test_cliques_and_stars_take_a_round_or_two() -> None:
    clique = as_edges([(a, b) for a in range(30) for b in range(a + 1, 30)])
    assert settled(clique)[1] <= 2
    ray_is_smallest = as_edges([(a, 1000) for a in range(1000)])
    assert settled(ray_is_smallest)[1] <= 2


def given_edges(corpus: Path, parts: list[np.ndarray]) -> dict[str, Receipt]:
    """Files of edges and their receipts, as `neardup` hands them over."""
    found = {}
    for number, edges in enumerate(parts):
        path = f"given/{number}.arrow"
        module._write_pairs(corpus, path, EDGE_SCHEMA, edges, {})
        outputs = [Output(path, (corpus / path).stat().st_size, sha256_file(corpus / path))]
        found[f"near-{number:05d}"] = Receipt("f", outputs, {}, {"edges": len(edges)})
    return found


def connect(corpus: Path, edges: Receipts, running: Engine, **how: int) -> tuple[Receipts, int]:
    """Connect edges over three ranges, and return the receipts and how many tasks ran."""
    ran = []

    def run(turns: Turns) -> list[list[PartReceipts]]:
        made, count = run_job(corpus, turns, running)
        ran.append(count)
        return made

    def work() -> Work[Receipts]:
        [[made]] = yield [[(yield from module.connect(corpus, edges, 3, **how))]]
        module.remove_intermediate_files(corpus)
        return made[-1]

    return finish(work(), run), sum(ran)


def clusters(corpus: Path, parts: list[np.ndarray], running: Engine, **how: int) -> dict[int, int]:
    made, _ = connect(corpus, given_edges(corpus, parts), running, **how)
    found: dict[int, int] = {}
    for receipt in made.values():
        nodes, labels = read_labels(corpus / receipt.outputs[0].path)
        assert (np.diff(nodes) > 0).all()
        found |= dict(zip(nodes.tolist(), labels.tolist(), strict=True))
    return found


def chain(length: int) -> list[np.ndarray]:
    """A chain of row references in disorder, in four files, its ends within a file rarely joined."""
    names = chance.permutation(length) << 32 | chance.integers(0, 1 << 32, length)
    edges = np.stack([names[:-1], names[1:]], axis=1)
    return [edges[part::4] for part in range(4)]


@given(st.lists(graphs, min_size=1, max_size=3))
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_give_networkxs_clusters(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[int, int]]]
) -> None:
    expected = {
        node: min(part)
        for part in networkx.connected_components(networkx.Graph([pair for pairs in parts for pair in pairs]))
        if len(part) > 1
        for node in part
    }
    seen = []
    for limit in (1_000, -1):
        corpus = tmp_path_factory.mktemp("both")
        assert clusters(corpus, [as_edges(pairs) for pairs in parts], engine(corpus), one_worker=limit) == expected
        seen.append(digest(corpus, "blocks", "receipts"))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("kind", [ShuffleEngine, PoolEngine], ids=["shuffle", "two processes"])
def test_rounds_give_the_same_bytes_by_shuffle_and_by_processes(tmp_path: Path, kind: type[Engine]) -> None:
    parts = [as_edges([(1, 2), (5, 6)]), as_edges([(2, 3), (9, 9), (2, 4)]), as_edges([])]
    for name, running in (
        ("plain", engine(tmp_path)),
        ("other", engine(tmp_path, kind=kind)),
    ):
        found = clusters(tmp_path / name, parts, running, one_worker=0)
        running.pool.stop()
        assert found == {1: 1, 2: 1, 3: 1, 4: 1, 5: 5, 6: 5}
    assert digest(tmp_path / "plain", "blocks", "receipts") == digest(tmp_path / "other", "blocks", "receipts")


def test_rounds_leave_nothing_but_the_clusters(tmp_path: Path) -> None:
    given_ = given_edges(tmp_path, chain(16))
    made, ran = connect(tmp_path, given_, engine(tmp_path), one_worker=10)
    assert ran > 0 and {path.split("/")[2] for path in digest(tmp_path, "blocks", "receipts")} == {"labels"}
    assert connect(tmp_path, given_, engine(tmp_path), one_worker=10) == (made, 0)
    assert connect(tmp_path, given_, engine(tmp_path)) == (made, 0), "the way does not matter"


def test_a_killed_run_goes_on_from_its_last_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = chain(16)
    expected = clusters(tmp_path / "whole", parts, engine(tmp_path), one_worker=10)
    begun: list[str] = []

    def dying(corpus: Path, turns: Turns, *rest: object) -> tuple:
        begun.append(turns[0][0][0].name)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return job.run_job(corpus, turns, *rest)

    monkeypatch.setattr(sys.modules[__name__], "run_job", dying)
    with pytest.raises(KeyboardInterrupt):
        clusters(tmp_path / "killed", parts, engine(tmp_path), one_worker=10)
    assert clusters(tmp_path / "killed", parts, engine(tmp_path), one_worker=10) == expected
    assert begun[2] == begun[3] == "clusters/rounds/01-large-cut", "the first round was not run again"
    assert digest(tmp_path / "whole", "blocks", "receipts") == digest(tmp_path / "killed", "blocks", "receipts")


def test_too_few_rounds_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="still changed after 1 rounds: allow more"):
        clusters(tmp_path, chain(16), engine(tmp_path), one_worker=10, max_rounds=1)


def test_no_edges_are_no_clusters(tmp_path: Path) -> None:
    assert clusters(tmp_path, [as_edges([])], engine(tmp_path)) == {}
    assert clusters(tmp_path, [], engine(tmp_path)) == {}
