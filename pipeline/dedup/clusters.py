"""Stage clusters, first part: join edges between duplicates to clusters.

The second part, pipeline/dedup/survivors.py, chooses the document of each cluster that stays.

There are two algorithms, and the number of edges decides which one is used: union-find on one worker, or rounds of
large-star and small-star (filters/dedup/clusters.py), where each of the two operations is an exchange. Both algorithms
write the same bytes. The tasks of a round contain the number of the round in their names and depend only on the edges.
So an interrupted run continues after the last finished round. The files of earlier rounds are removed as soon as they
are not needed.
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

# Largest number of edges for one worker. It takes about six minutes, and 2.7 GB for a hundred million nodes
# (docs/scale.md).
ONE_WORKER_EDGES = 200_000_000
# The number of rounds grows with the logarithm of the longest chain (Kiveris et al. 2014, section 3). 32 rounds are
# enough for 2^32 nodes.
MAX_ROUNDS = 32

LABEL_SCHEMA = pa.schema([("node", pa.int64()), ("label", pa.int64())])
EDGE_SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64())])


def connect(
    corpus: Path,
    edges: Receipts,
    ranges: int = 0,
    one_worker: int = ONE_WORKER_EDGES,
    max_rounds: int = MAX_ROUNDS,
) -> Work[Part]:
    """Find connected components of edges between row references: run the rounds, and return the remaining steps.

    Args:
        corpus: folder of the corpus.
        edges: receipts by name. Each has one output, an Arrow file whose first two columns are int64 nodes. The fact
            `edges` is the number of its rows. Edges from a node to itself are ignored.
        ranges: number of hash ranges of the nodes; 0 to choose it by the number of edges.
        one_worker: largest number of edges that one worker joins. More edges are joined in rounds.
        max_rounds: largest number of rounds.

    Returns:
        The steps that are still to run. The last step has one unit per hash range of the nodes, and `read_labels` reads
        its files. After these steps, the intermediate files are not needed, and `remove_intermediate_files` removes
        them.

    Raises:
        UserError: the components are not found after `max_rounds` rounds.
    """
    total = _count_edges(edges)
    ranges = ranges or ranges_for(16 * total, RANGE_BYTES)
    cut, labels = one_worker_steps(edges, ranges)
    if is_step_finished(corpus, labels):
        return (labels,)
    if total > one_worker:
        stars = yield from _run_rounds(corpus, edges, ranges, max_rounds)
        cut = _edge_step(CUT, stars, ranges, "labels")
    return cut, labels


def remove_intermediate_files(corpus: Path) -> None:
    """Remove the intermediate files of both algorithms."""
    for past in (CUT, ROUNDS):
        sweep(corpus, Step(past, map_components, []), {})


def one_worker_steps(edges: Receipts, ranges: int = 0) -> tuple[Step, Step]:
    """Return two steps: one worker joins all edges, and then workers write the labels, one hash range of nodes each."""
    total = _count_edges(edges)
    ranges = ranges or ranges_for(16 * total, RANGE_BYTES)
    paths = [receipt.outputs[0].path for _, receipt in sorted(edges.items())]
    unit = Unit("all", {"edges": paths}, list(edges.values()), 16 * total)
    cut = Step(CUT, map_components, [unit], {"ranges": ranges}, omits_code_version=True)
    return cut, label_step(edges, ranges)


def _count_edges(edges: Receipts) -> int:
    """Return the number of edges in all files. `edges`: see `connect`."""
    return sum(receipt.facts["edges"] for receipt in edges.values())


def label_step(edges: Receipts, ranges: int) -> Step:
    """Return the step that writes the clusters, with one reducer per range. Both algorithms end with this step."""
    ways = (map_components, map_edges, reduce_large, reduce_small)
    units, folder = _range_units(edges, ranges, ways), {"folder": f"blocks/{LABELS}"}
    return Step(LABELS, reduce_labels, units, folder, ignores_mappers=True, omits_code_version=True)


def _run_rounds(corpus: Path, edges: Receipts, ranges: int, max_rounds: int) -> Work[Receipts]:
    """Run rounds of large-star and small-star until each component is a star. Return the receipts of the edges."""
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
    """Return one unit of a reducer per hash range.

    Args:
        edges: the receipts of the edges from which the blocks of the ranges are made.
        ranges: number of hash ranges.
        calls: functions that make the blocks. Their code is part of the cache keys.
    """
    # Reducers read only their blocks. The hashes of the edges are part of the cache keys.
    reads = [[name, edges[name].sha] for name in sorted(edges)]
    return [Unit(f"{r:05d}", {}, [ranges, reads], calls=calls) for r in range(ranges)]


def _edge_step(name: str, found: Receipts, ranges: int, way: str) -> Step:
    """Return the mapping step, with one unit per file of edges. `way`: a key of `EDGES_TO_SEND`."""
    units = [
        Unit(name, {"edges": receipt.outputs[0].path}, [receipt], receipt.bytes)
        for name, receipt in sorted(found.items())
    ]
    return Step(name, map_edges, units, {"ranges": ranges, "way": way}, omits_code_version=True)


def map_components(corpus: Path, unit: str, *, edges: list[str], ranges: int) -> Mapped:
    """Find the components of all edges by union-find. Send each node with the smallest node of its component.

    The pairs are sent by the hash range of the node.
    """
    nodes, labels = connected_components(lambda: (_read_edges(corpus / path) for path in edges))
    return _send_by_range(nodes, labels, ranges)


def map_edges(corpus: Path, unit: str, *, edges: str, ranges: int, way: str) -> Mapped:
    """Send the edges of one file that the reducers need, by hash range. `way`: a key of `EDGES_TO_SEND`."""
    sent = EDGES_TO_SEND[way](_read_edges(corpus / edges))
    return _send_by_range(sent[:, 0], sent[:, 1], ranges)


# Functions from the edges of a file to the pairs (node, value) that are sent to reducers. Edges are contracted before
# the first round, because many bands find the same pairs.
EDGES_TO_SEND: dict[str, Callable[[Rows], Rows]] = {
    "first": lambda edges: edges_by_node(contract(edges)),
    "large": edges_by_node,
    "small": edges_by_larger,
    # (node, smallest node) for all nodes of finished stars, including the smallest nodes themselves
    "labels": lambda stars: np.concatenate([stars[:, ::-1], distinct_edges(stars[:, [0, 0]])]),
}


def reduce_large(corpus: Path, part: str, blocks: list[bytes], *, folder: str) -> Result:
    """Apply large-star to one range and write the edges.

    The fact `unsettled` is the result of `count_unsettled`. If it is 0 for all ranges, no more rounds are needed.
    """
    edges = distinct_edges(_join_pairs(blocks))
    found = large_star(edges)
    facts = {"unsettled": count_unsettled(edges), "edges": len(found)}
    return _write_pairs(corpus, f"{folder}/{part}.arrow", EDGE_SCHEMA, found, facts)


def reduce_small(corpus: Path, part: str, blocks: list[bytes], *, folder: str) -> Result:
    """Apply small-star to one range and write the edges."""
    found = small_star(_join_pairs(blocks))
    return _write_pairs(corpus, f"{folder}/{part}.arrow", EDGE_SCHEMA, found, {"edges": len(found)})


def reduce_labels(corpus: Path, part: str, blocks: list[bytes], *, folder: str) -> Result:
    """Write the nodes of one range with their labels, sorted by node."""
    pairs = distinct_edges(_join_pairs(blocks))
    facts = {"nodes": len(pairs), "clusters": int((pairs[:, 0] == pairs[:, 1]).sum())}
    return _write_pairs(corpus, f"{folder}/{part}.arrow", LABEL_SCHEMA, pairs, facts)


def _write_pairs(corpus: Path, path: str, schema: pa.Schema, pairs: Rows, facts: dict[str, int]) -> Result:
    """Write (n, 2) pairs as an Arrow file of two columns."""
    write_ipc(corpus / path, schema, [pa.array(np.ascontiguousarray(pairs[:, side])) for side in (0, 1)])
    return Result([path], {}, facts)


def read_labels(path: Path) -> tuple[Rows, Rows]:
    """Read the labels of one range.

    Returns:
        The nodes that have an edge to another node, sorted, and for each node the smallest node of its cluster.
    """
    batch = read_ipc(path)
    return batch.column(0).to_numpy(), batch.column(1).to_numpy()


def _send_by_range(nodes: Rows, values: Rows, ranges: int) -> Mapped:
    """Send pairs (node, value) by the hash range of the node.

    The pairs are divided into ranges one block at a time, so that the additional memory does not grow with their
    number.
    """

    def blocks() -> Iterator[tuple[int, bytes]]:
        for start in range(0, len(nodes), BLOCK):
            pairs = np.stack([side[start : start + BLOCK] for side in (nodes, values)], axis=1)
            yield from by_range(spread_keys(pairs[:, 0]), pairs, ranges)

    return Mapped(blocks())


def _join_pairs(blocks: list[bytes]) -> Rows:
    """Concatenate the blocks that a reducer received to (n, 2) int64 pairs."""
    return np.frombuffer(b"".join(blocks), np.int64).reshape(-1, 2)


def _read_edges(path: Path) -> Rows:
    """Return the edges of a file, (n, 2), without edges from a node to itself."""
    edges = np.stack(read_labels(path), axis=1)
    return np.asarray(edges[edges[:, 0] != edges[:, 1]], np.int64)
