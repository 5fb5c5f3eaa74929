"""clusters: from edges between duplicates to clusters; pipeline/dedup/survivors.py chooses the document that stays.

There are two ways, and the number of edges decides: union-find on one worker, or rounds of large-star and small-star
(filters/dedup/clusters.py), of which each is an exchange. Both give the same bytes. The tasks of a round are named by
its number and depend on the edges alone, so a run goes on from the last round that was finished. Earlier rounds are
removed as soon as they are not needed.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from filters.dedup.clusters import (
    BLOCK,
    Rows,
    connected_components,
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
from pipeline.beam.exchange import Mapped, by_range, ranges_for
from pipeline.beam.receipts import is_step_finished, receipts, sweep
from pipeline.beam.step import Receipts, Result, Step, Unit
from pipeline.beam.tables import read_ipc, write_ipc
from pipeline.beam.work import Part, Work, exchange
from pipeline.dedup.neardup import RANGE_BYTES

STAGE = "clusters"
LABELS, CUT, ROUNDS = (f"{STAGE}/{step}" for step in ("labels", "cut", "rounds"))

ONE_WORKER_EDGES = 200_000_000  # joined in some six minutes, and 2.7 GB with a hundred million nodes (docs/scale.md)
MAX_ROUNDS = 32  # rounds grow with the logarithm of the longest chain (Kiveris et al. 2014, section 3): for 2^32 nodes

LABEL_SCHEMA = pa.schema([("node", pa.int64()), ("label", pa.int64())])
EDGE_SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64())])


def connect(
    corpus: Path,
    edges: Receipts,
    ranges: int = 0,
    one_worker: int = ONE_WORKER_EDGES,
    max_rounds: int = MAX_ROUNDS,
) -> Work[Part]:
    """Plan how the connected components of edges between row references are found: rounds are run before it returns.

    Args:
        corpus: the corpus.
        edges: by name, receipts whose one output is an Arrow file that begins with two int64 columns and whose facts
            count its rows as `edges`; an edge from a node to itself says nothing.
        ranges: hash ranges of the nodes; by default as many as the edges ask for.
        one_worker: edges up to which one worker joins them; more are joined in rounds.
        max_rounds: after which it gives up.

    Returns:
        The steps that are left to run, of which the last has a unit per hash range of the nodes: `read_labels` reads
        its files. When they have ended, nothing but these is needed (`sweep_ways`).

    Raises:
        UserError: `max_rounds` rounds leave edges to join.
    """
    total = _count_edges(edges)
    ranges = ranges or ranges_for(16 * total, RANGE_BYTES)
    cut, labels = one_worker_steps(edges, ranges)
    if is_step_finished(corpus, labels):
        return (labels,)
    if total > one_worker:
        stars = yield from _rounds(corpus, edges, ranges, max_rounds)
        cut = _edge_step(CUT, stars, ranges, "labels")
    return cut, labels


def sweep_ways(corpus: Path) -> None:
    """Remove what the ways to the clusters have left."""
    for past in (CUT, ROUNDS):
        sweep(corpus, Step(past, map_components, []), {})


def one_worker_steps(edges: Receipts, ranges: int = 0) -> tuple[Step, Step]:
    """Return the steps by which one worker joins all edges and others write the labels, by ranges of the nodes."""
    total = _count_edges(edges)
    ranges = ranges or ranges_for(16 * total, RANGE_BYTES)
    paths = [receipt.outputs[0].path for _, receipt in sorted(edges.items())]
    unit = Unit("all", {"edges": paths}, list(edges.values()), 16 * total)
    cut = Step(CUT, map_components, [unit], {"ranges": ranges}, omits_code_version=True)
    return cut, label_step(edges, ranges)


def _count_edges(edges: Receipts) -> int:
    return sum(receipt.facts["edges"] for receipt in edges.values())


def label_step(edges: Receipts, ranges: int) -> Step:
    """Return the step that holds the clusters in the end, a reducer per range, whichever way they are found."""
    ways = (map_components, map_edges, reduce_large, reduce_small)
    units, folder = _range_units(edges, ranges, ways), {"folder": f"blocks/{LABELS}"}
    return Step(LABELS, reduce_labels, units, folder, ignores_mappers=True, omits_code_version=True)


def _rounds(corpus: Path, edges: Receipts, ranges: int, max_rounds: int) -> Work[Receipts]:
    """Return edges that are stars, after as many rounds as it takes."""
    reducing = []
    for number in range(2 * max_rounds):
        kind, reducer = (("large", reduce_large), ("small", reduce_small))[number % 2]
        name, units = f"{ROUNDS}/{number // 2:02d}-{kind}", _range_units(edges, ranges, (map_edges,))
        reducing.append(
            Step(name, reducer, units, {"folder": f"blocks/{name}"}, ignores_mappers=True, omits_code_version=True)
        )
    done = [number for number, step in enumerate(reducing) if is_step_finished(corpus, step)]
    found = edges
    for number in range(done[-1] if done else 0, len(reducing)):
        step, way = reducing[number], ("large" if number else "first", "small")[number % 2]
        mapping = _edge_step(f"{step.name}-cut", found, ranges, way)
        if number not in done:
            yield from exchange(mapping, step)
        found = receipts(corpus, step.name, step.fingerprints())
        for past in [mapping, *reducing[max(0, number - 1) : number]]:
            sweep(corpus, past, {})
        if number % 2 == 0 and not sum(receipt.facts["unsettled"] for receipt in found.values()):
            return found
    raise UserError(
        f"{STAGE}: {_count_edges(found):,} edges still changed after {max_rounds} rounds: allow more rounds, or "
        "more edges on one worker"
    )


def _range_units(edges: Receipts, ranges: int, calls: tuple[Any, ...]) -> list[Unit]:
    reads = [[name, edges[name].sha] for name in sorted(edges)]  # hashes: reducers read only their blocks
    return [Unit(f"{r:05d}", {}, [ranges, reads], calls=calls) for r in range(ranges)]


def _edge_step(name: str, found: Receipts, ranges: int, way: str) -> Step:
    """Return the mapping step with a unit per file of edges."""
    units = [
        Unit(name, {"edges": receipt.outputs[0].path}, [receipt], receipt.bytes)
        for name, receipt in sorted(found.items())
    ]
    return Step(name, map_edges, units, {"ranges": ranges, "way": way}, omits_code_version=True)


def map_components(corpus: Path, unit: str, *, edges: list[str], ranges: int) -> Mapped:
    """Send (node, smallest node of its component) by the node's range: union-find over all edges."""
    nodes, labels = connected_components(lambda: (_read_edges(corpus / path) for path in edges))
    return _send_by_range(nodes, labels, ranges)


def map_edges(corpus: Path, unit: str, *, edges: str, ranges: int, way: str) -> Mapped:
    """Send what a reducer needs of one file of edges."""
    sent = WAYS[way](_read_edges(corpus / edges))
    return _send_by_range(sent[:, 0], sent[:, 1], ranges)


# What is sent of edges. Bands find the same pairs over and over, so edges are contracted before the first round.
WAYS: dict[str, Callable[[Rows], Rows]] = {
    "first": lambda edges: edges_by_node(contract(edges)),
    "large": edges_by_node,
    "small": edges_by_larger,
    # (node, smallest node) of finished stars: of the rays and of the smallest themselves
    "labels": lambda stars: np.concatenate([stars[:, ::-1], distinct_edges(stars[:, [0, 0]])]),
}


def reduce_large(corpus: Path, part: str, blocks: list[bytes], *, folder: str) -> Result:
    """Write large-star over one range; facts count the nodes that were not yet of a star."""
    edges = distinct_edges(_join_pairs(blocks))
    found = large_star(edges)
    facts = {"unsettled": count_unsettled(edges), "edges": len(found)}
    return _write_pairs(corpus, f"{folder}/{part}.arrow", EDGE_SCHEMA, found, facts)


def reduce_small(corpus: Path, part: str, blocks: list[bytes], *, folder: str) -> Result:
    """Write small-star over one range."""
    found = small_star(_join_pairs(blocks))
    return _write_pairs(corpus, f"{folder}/{part}.arrow", EDGE_SCHEMA, found, {"edges": len(found)})


def reduce_labels(corpus: Path, part: str, blocks: list[bytes], *, folder: str) -> Result:
    """Write one range's nodes with their labels, sorted."""
    pairs = distinct_edges(_join_pairs(blocks))
    facts = {"nodes": len(pairs), "clusters": int((pairs[:, 0] == pairs[:, 1]).sum())}
    return _write_pairs(corpus, f"{folder}/{part}.arrow", LABEL_SCHEMA, pairs, facts)


def _write_pairs(corpus: Path, path: str, schema: pa.Schema, pairs: Rows, facts: dict[str, int]) -> Result:
    write_ipc(corpus / path, schema, [pa.array(np.ascontiguousarray(pairs[:, side])) for side in (0, 1)])
    return Result([path], {}, facts)


def read_labels(path: Path) -> tuple[Rows, Rows]:
    """Return, of one range, the nodes with an edge to another, sorted, and the smallest node of each one's cluster."""
    batch = read_ipc(path)
    return batch.column(0).to_numpy(), batch.column(1).to_numpy()


def _send_by_range(nodes: Rows, values: Rows, ranges: int) -> Mapped:
    """Return (node, value) by the node's range, a block at a time, so that cutting costs no memory that grows."""

    def blocks() -> Iterator[tuple[int, bytes]]:
        for start in range(0, len(nodes), BLOCK):
            pairs = np.stack([side[start : start + BLOCK] for side in (nodes, values)], axis=1)
            yield from by_range(spread_keys(pairs[:, 0]), pairs, ranges)

    return Mapped(blocks())


def _join_pairs(blocks: list[bytes]) -> Rows:
    return np.frombuffer(b"".join(blocks), np.int64).reshape(-1, 2)


def _read_edges(path: Path) -> Rows:
    """Return the edges of a file that join two nodes."""
    edges = np.stack(read_labels(path), axis=1)
    return np.asarray(edges[edges[:, 0] != edges[:, 1]], np.int64)
