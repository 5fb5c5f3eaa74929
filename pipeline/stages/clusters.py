"""From edges to clusters, by whichever way the number of edges asks for: union-find on one worker, or rounds of
large-star and small-star (filters/dedup/clusters.py), each one exchange. Both give the same bytes.

A round's tasks are named by its number and rest on the edges alone, so a run goes on from the last round that was
finished; the rounds before it are removed as soon as they are not needed.
"""

from collections.abc import Iterator
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
from manifests.files import atomic_path, sha256_json
from pipeline.beam.engines import Engine
from pipeline.beam.exchange import Mapped, by_range, run_exchange
from pipeline.beam.fingerprint import code_version
from pipeline.beam.task import Receipt, Result, Task, finished, receipts, sweep

ONE_WORKER_EDGES = 200_000_000
"""edges that one worker joins: some six minutes, and 2.7 GB where they have a hundred million nodes (docs/scale.md)"""
MAX_ROUNDS = 32
"""large-star and small-star, each once, make a round. Rounds grow with the logarithm of the longest chain (Kiveris et
al. 2014, section 3), and chains among 2^32 nodes are joined in fewer than this"""

LABEL_SCHEMA = pa.schema([("node", pa.int64()), ("label", pa.int64())])
EDGE_SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64())])


def connected(
    corpus: Path,
    edges: dict[str, Receipt],
    ranges: int,
    engine: Engine,
    stage: str,
    one_worker: int = ONE_WORKER_EDGES,
    max_rounds: int = MAX_ROUNDS,
) -> tuple[list[Task], int]:
    """Connected components of edges between row references.

    `edges`: by name, receipts whose one output is an Arrow IPC file of two int64 columns and whose facts count its rows
    as `edges`; an edge from a node to itself says nothing. Up to `one_worker` edges are joined on one worker, more in
    rounds. Gives the finished tasks, one a hash range of the nodes (`read_labels` reads their files), and how many
    tasks were run. Stages used: `STAGE/labels`, and `STAGE/cut` and `STAGE/rounds/…`, which are empty when it ends.
    Raises UserError if `max_rounds` rounds leave edges to join.
    """
    tasks = label_tasks(edges, ranges, stage)
    ran = 0
    if not all(finished(corpus, task) for task in tasks):
        total = sum(receipt.facts["edges"] for receipt in edges.values())
        if total <= one_worker:
            paths = [receipt.outputs[0].path for _, receipt in sorted(edges.items())]
            maps = [Task(f"{stage}/cut", "all", tasks[0].fingerprint, 16 * total, {"edges": paths, "ranges": ranges})]
            mapper = join_on_one
        else:
            stars, ran = _rounds(corpus, edges, ranges, engine, stage, max_rounds)
            maps = _mappers(f"{stage}/cut", stars, tasks[0].fingerprint, ranges)
            mapper = cut_labels
        ran += run_exchange(corpus, {}, maps, mapper, tasks, gather_labels, engine)
    for folder, kept in ((f"{stage}/cut", []), (f"{stage}/rounds", []), (f"{stage}/labels", tasks)):
        sweep(corpus, folder, kept, (f"blocks/{folder}",))
    return tasks, ran


def label_tasks(edges: dict[str, Receipt], ranges: int, stage: str) -> list[Task]:
    """The tasks that hold the clusters in the end, one a range, whichever way they are found."""
    fingerprint = _fingerprint(edges, ranges)
    return [Task(f"{stage}/labels", f"{r:05d}", fingerprint) for r in range(ranges)]


def read_labels(corpus: Path, receipt: Receipt) -> tuple[Rows, Rows]:
    """Of one range: the nodes that some edge joins to another, sorted, and the smallest node of each one's cluster."""
    node, label = _read(corpus / receipt.outputs[0].path).T
    return node, label


def join_on_one(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """Union-find over all edges: (node, smallest node) by the node's range."""
    paths = task.arguments["edges"]
    nodes, labels = connected_components(lambda: (_edges(corpus / path) for path in paths))
    return _sent(nodes, labels, task)


def cut_large(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """What large-star needs of one file of edges. Before the first round it is contracted: bands find the same pairs
    over and over."""
    edges = _edges(corpus / task.arguments["edges"])
    sent = edges_by_node(contract(edges) if task.arguments["contract"] else edges)
    return _sent(sent[:, 0], sent[:, 1], task)


def cut_small(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """What small-star needs of one file of edges."""
    sent = edges_by_larger(_edges(corpus / task.arguments["edges"]))
    return _sent(sent[:, 0], sent[:, 1], task)


def cut_labels(corpus: Path, settings: dict[str, Any], task: Task) -> Mapped:
    """Of finished stars: (node, smallest node) of the rays and of the smallest themselves."""
    edges = _edges(corpus / task.arguments["edges"])
    sent = np.concatenate([edges[:, ::-1], distinct_edges(edges[:, [0, 0]])])
    return _sent(sent[:, 0], sent[:, 1], task)


def join_large(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """Large-star over one range; its facts say how many nodes were not yet of a star."""
    edges = distinct_edges(_joined(blocks))
    return _kept(corpus, task, large_star(edges), {"unsettled": count_unsettled(edges)})


def join_small(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """Small-star over one range."""
    return _kept(corpus, task, small_star(_joined(blocks)), {})


def gather_labels(corpus: Path, settings: dict[str, Any], task: Task, blocks: list[bytes]) -> Result:
    """One range's nodes with their labels, sorted."""
    pairs = distinct_edges(_joined(blocks))
    path = f"blocks/{task.stage}/{task.name}.arrow"
    _write(corpus / path, pairs, LABEL_SCHEMA)
    return Result([path], {}, {"nodes": len(pairs), "clusters": int((pairs[:, 0] == pairs[:, 1]).sum())})


def _rounds(
    corpus: Path, edges: dict[str, Receipt], ranges: int, engine: Engine, stage: str, max_rounds: int
) -> tuple[dict[str, Receipt], int]:
    """Edges that are stars, after as many rounds as it takes, and how many tasks ran."""
    fingerprint = _fingerprint(edges, ranges)
    steps = [(f"{stage}/rounds/{number // 2:02d}-{('large', 'small')[number % 2]}") for number in range(2 * max_rounds)]
    tasks = [[Task(step, f"{r:05d}", fingerprint) for r in range(ranges)] for step in steps]
    done = [number for number in range(len(steps)) if all(finished(corpus, task) for task in tasks[number])]
    found, ran = edges, 0
    for number in range(done[-1] if done else 0, len(steps)):
        large = number % 2 == 0
        if number not in done:
            maps = _mappers(f"{steps[number]}-cut", found, fingerprint, ranges, contract=number == 0)
            mapper, reducer = (cut_large, join_large) if large else (cut_small, join_small)
            ran += run_exchange(corpus, {}, maps, mapper, tasks[number], reducer, engine)
        found = receipts(corpus, tasks[number])
        for past in [f"{steps[number]}-cut", *steps[max(0, number - 1) : number]]:
            sweep(corpus, past, [], (f"blocks/{past}",))
        if large and not sum(receipt.facts["unsettled"] for receipt in found.values()):
            return found, ran
    left = sum(receipt.facts["edges"] for receipt in found.values())
    raise UserError(
        f"{stage}: {left:,} edges were still changing after {max_rounds} rounds: allow more rounds, or more edges on "
        "one worker"
    )


def _mappers(
    stage: str, found: dict[str, Receipt], fingerprint: str, ranges: int, contract: bool = False
) -> list[Task]:
    made = []
    for name, receipt in sorted(found.items()):
        arguments = {"edges": receipt.outputs[0].path, "ranges": ranges, "contract": contract}
        made.append(Task(stage, name, fingerprint, receipt.outputs[0].bytes, arguments))
    return made


def _fingerprint(edges: dict[str, Receipt], ranges: int) -> str:
    """Of every task here: the way to the clusters is not in it, since each gives the same."""
    return sha256_json([code_version(__name__), ranges, [(name, edges[name].sha()) for name in sorted(edges)]])


def _sent(nodes: Rows, values: Rows, task: Task) -> Mapped:
    """(node, value) by the node's range, some at a time, so that cutting costs no memory that grows."""

    def blocks() -> Iterator[tuple[int, bytes]]:
        for start in range(0, len(nodes), BLOCK):
            pairs = np.stack([side[start : start + BLOCK] for side in (nodes, values)], axis=1)
            yield from by_range(spread_keys(pairs[:, 0]), pairs, task.arguments["ranges"])

    return Mapped(blocks(), {}, {})


def _joined(blocks: list[bytes]) -> Rows:
    return np.frombuffer(b"".join(blocks), np.int64).reshape(-1, 2)


def _kept(corpus: Path, task: Task, edges: Rows, facts: dict[str, Any]) -> Result:
    path = f"blocks/{task.stage}/{task.name}.arrow"
    _write(corpus / path, edges, EDGE_SCHEMA)
    return Result([path], {}, {**facts, "edges": len(edges)})


def _edges(path: Path) -> Rows:
    """The edges of a file that join two nodes."""
    edges = _read(path)
    return np.asarray(edges[edges[:, 0] != edges[:, 1]], np.int64)


def _read(path: Path) -> Rows:
    with pa.memory_map(str(path)) as mapped:
        batch = pa.ipc.open_file(mapped).get_batch(0)
    return np.stack([batch.column(side).to_numpy() for side in (0, 1)], axis=1)


def _write(path: Path, pairs: Rows, schema: pa.Schema) -> None:
    columns = [pa.array(np.ascontiguousarray(pairs[:, side])) for side in (0, 1)]
    with atomic_path(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
