"""Star edges, their verification, connected components: against brute force and networkx."""

from collections import defaultdict

import networkx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from filters.dedup.clusters import components, star_edges, verify_stars

graphs = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60)
keyed = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30)), max_size=60)


def as_edges(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


@given(graphs)
@settings(max_examples=300, deadline=None)
def test_components_are_networkxs(pairs: list[tuple[int, int]]) -> None:
    nodes, labels = components(as_edges(pairs))
    graph = networkx.Graph(pairs)
    expected = {node: min(part) for part in networkx.connected_components(graph) for node in part}
    assert dict(zip(nodes.tolist(), labels.tolist(), strict=True)) == expected
    assert (np.diff(nodes) > 0).all()


def test_long_chains_and_great_stars_are_joined() -> None:
    chain = np.arange(100_000)
    for order in (np.arange(99_999), np.random.default_rng(0).permutation(99_999)):
        edges = np.stack([chain[:-1], chain[1:]], axis=1)[order]
        assert (components(edges)[1] == 0).all()
    star = np.stack([np.zeros(1_000_000, np.int64), np.arange(1, 1_000_001)], axis=1)
    assert (components(star)[1] == 0).all()


def packed(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([k for k, _ in pairs], np.uint64), np.array([r for _, r in pairs], np.int64)


@given(keyed)
@settings(max_examples=300, deadline=None)
def test_stars_are_the_smallest_row_with_each_other(pairs: list[tuple[int, int]]) -> None:
    groups = defaultdict(set)
    for key, row in pairs:
        groups[key].add(row)
    expected = sorted({(min(rows), row) for rows in groups.values() for row in rows if row != min(rows)})
    assert [tuple(edge) for edge in star_edges(*packed(pairs)).tolist()] == expected


@given(keyed, st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_verified_stars_join_what_is_alike_and_nothing_else(pairs: list[tuple[int, int]], kinds: int) -> None:
    """Rows are alike when equal modulo `kinds`: a transitive relation, so all alike pairs of a group must be joined."""
    asked: list[tuple[int, int]] = []

    def similar(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        asked.extend(zip(a.tolist(), b.tolist(), strict=True))
        return (a % kinds == b % kinds).astype(np.float64)

    edges, values, rejected, capped = verify_stars(*packed(pairs), similar, 0.5, 10)
    assert all(a < b and a % kinds == b % kinds for a, b in edges.tolist()) and (values == 1).all()
    assert capped == 0 and rejected == sum(a % kinds != b % kinds for a, b in asked)
    joined = networkx.Graph([tuple(edge) for edge in edges.tolist()])
    groups = defaultdict(set)
    for key, row in pairs:
        groups[(key, row % kinds)].add(row)
    for rows in groups.values():
        assert len(rows) < 2 or networkx.has_path(joined, min(rows), max(rows))
    shuffled = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]
    again = verify_stars(*packed(shuffled), similar, 0.5, 10)
    assert np.array_equal(edges, again[0])


def test_rounds_are_capped_and_the_rest_is_counted() -> None:
    rows = np.arange(50, dtype=np.int64)
    keys = np.zeros(50, np.uint64)
    edges, _, rejected, capped = verify_stars(keys, rows, lambda a, b: np.zeros(len(a)), 0.5, 3)
    assert len(edges) == 0 and rejected == 49 + 48 + 47 and capped == 47


@given(keyed, st.integers(1, 9), st.integers(0, 6))
@settings(max_examples=300, deadline=None)
def test_stars_and_what_the_rounds_leave_are_those_of_plain_loops(
    pairs: list[tuple[int, int]], kinds: int, rounds: int
) -> None:
    groups = defaultdict(set)
    for key, row in pairs:
        groups[key].add(row)
    joined, rejected, left = set(), set(), set()
    for rows in groups.values():
        members = sorted(rows)
        for number in range(rounds):
            if len(members) > 1:
                centre, *others = members
                alike = [row for row in others if row % kinds == centre % kinds]
                joined |= {(centre, row) for row in alike}
                members = [row for row in others if row not in alike]
                rejected |= {(number, centre, row) for row in members}
        left |= set(members) if len(members) > 1 else set()

    def similar(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a % kinds == b % kinds).astype(np.float64)

    edges, values, refused, capped = verify_stars(*packed(pairs), similar, 0.5, rounds)
    assert [tuple(edge) for edge in edges.tolist()] == sorted(joined) and (values == 1).all()
    assert (refused, capped) == (len(rejected), len(left))


def test_a_great_bucket_gives_a_star_and_not_its_pairs() -> None:
    rows = np.arange(500_000, dtype=np.int64)
    edges, _, _, _ = verify_stars(np.zeros(len(rows), np.uint64), rows, lambda a, b: np.ones(len(a)), 0.5, 3)
    assert len(edges) == len(rows) - 1
