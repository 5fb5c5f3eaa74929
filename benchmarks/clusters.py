"""Measure the steps from band keys to clusters: star edges of each hash range, then connected components.

The keys are synthetic. The peer is `datasketch.MinHashLSH` (insert and query). It gets fewer documents, because its
tables must fit into memory. Each side runs in its own process.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.data import table
from benchmarks.measure import HAS_ANONYMOUS, NO_ANONYMOUS, PeakAnonymous, anonymous_bytes, run_module, timed
from filters.dedup.clusters import (
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
    star_edges,
)
from filters.dedup.minhash import MinHash, band_hashes
from filters.hashing import mix
from pipeline.beam.exchange import by_range
from pipeline.dedup.neardup import KEY, RANGE_BYTES

DOCUMENTS, PEER_DOCUMENTS, ROUNDS_DOCUMENTS = 20_000_000, 50_000, 2_000_000
EDGES, PART = 30_000_000, 1_000_000  # edges for the measurement of union-find, in all and per array
SCHEME = MinHash()
DUPLICATES = 0.05  # share of documents that are near duplicates of an earlier document
SHARED_BAND = 0.8  # probability that a duplicate has a band of its original, as for a similarity of 0.97 and 8 rows
BUCKET = 1 / 20  # share of documents that have one key in common, as boilerplate causes: a million in twenty million

Keys = npt.NDArray[np.uint64]


def count_ranges(documents: int) -> int:
    """Return the number of hash ranges into which the stage `neardup` partitions the keys of so many documents."""
    return max(1, -(-documents * SCHEME.bands * KEY.itemsize // RANGE_BYTES))


def make_keys(documents: int, ranges: int, number: int) -> tuple[Keys, npt.NDArray[np.int64]]:
    """Generate the keys that the reducer of one range receives, and the row of each key's document.

    Keys are generated and not read from files, because the keys of 20 million documents have 4.5 GB. Each range can be
    generated alone: band b of document d is in range (d * bands + b) modulo `ranges`, and a duplicate comes a multiple
    of `ranges` documents after its original.

    Args:
        documents: The number of documents.
        ranges: The number of ranges.
        number: The number of the range, from 0.
    """
    place = np.arange(number, documents * SCHEME.bands, ranges, np.uint64)
    document = place // np.uint64(SCHEME.bands)
    steps = document // np.uint64(ranges)
    duplicate = (_chance(document) < DUPLICATES) & (_chance(~place) < SHARED_BAND) & (steps > 0)
    back = mix(document[duplicate] ^ np.uint64(0x5BD1E995)) % steps[duplicate] + np.uint64(1)
    place[duplicate] -= back * np.uint64(ranges * SCHEME.bands)
    keys = mix(place + np.uint64(1)) // np.uint64(ranges) + np.uint64(number * (1 << 64) // ranges)
    if number == 0:
        keys[: int(documents * BUCKET)] = keys[0]
    return keys, document.astype(np.int64)


def ours(documents: int) -> dict[str, float]:
    """Measure our steps. Return CPU seconds of each step, peak anonymous memory, and numbers of edges and clusters."""
    ranges = count_ranges(documents)
    found: dict[str, float] = {"ranges": ranges, "edges": 0, "star": 0.0}
    with tempfile.TemporaryDirectory() as folder, PeakAnonymous() as peak:
        paths = [Path(folder, f"{number}.npy") for number in range(ranges)]
        for number, path in enumerate(paths):
            keys, rows = make_keys(documents, ranges, number)
            edges, seconds = timed(lambda k=keys, r=rows: star_edges(k, r))
            np.save(path, edges)
            found["edges"] += len(edges)
            found["star"] += seconds
            del keys, rows, edges
        (nodes, labels), found["components"] = timed(
            lambda: connected_components(lambda: (np.load(path, mmap_mode="r") for path in paths))
        )
    found |= {"nodes": len(nodes), "clusters": int((nodes == labels).sum()), "peak": peak.bytes}
    return {**found, "cut": _cut_seconds(min(documents, PEER_DOCUMENTS), ranges)}


def peer(documents: int) -> dict[str, float]:
    """Measure datasketch: CPU seconds to insert and to query given signatures, candidates, and memory in bytes."""
    import datasketch

    shape = datasketch.MinHash(num_perm=SCHEME.permutations, scheme="affine32")
    given = {"permutations": shape.permutations, "scheme": shape.scheme}
    made = [datasketch.MinHash(hashvalues=values, **given) for values in signatures(documents)]
    before = anonymous_bytes()
    index = datasketch.MinHashLSH(num_perm=SCHEME.permutations, params=(SCHEME.bands, SCHEME.rows))

    def insert() -> None:
        for row, sketch in enumerate(made):
            index.insert(row, sketch)

    _, inserting = timed(insert)
    candidates, querying = timed(lambda: sum(len(index.query(sketch)) - 1 for sketch in made))
    return {
        "insert": inserting,
        "query": querying,
        "candidates": candidates,
        "memory": anonymous_bytes() - before,
    }


def measure_union_find(edges: int) -> dict[str, float]:
    """Measure union-find alone on random edges, which are generated in arrays of a million.

    Each edge joins one of `edges` nodes with one of the 16 nodes after it.

    Returns:
        The number of nodes, the CPU seconds (including the time to generate the edges twice), and the additional memory
        in bytes.
    """

    def parts() -> Iterator[Rows]:
        for start in range(0, edges, PART):
            random = np.random.default_rng(start)
            low = random.integers(0, edges, min(PART, edges - start))
            yield np.stack([low, low + random.integers(1, 17, len(low))], axis=1)

    before = anonymous_bytes()
    with PeakAnonymous() as peak:
        (nodes, _), seconds = timed(lambda: connected_components(parts))
    return {"edges": edges, "nodes": len(nodes), "seconds": seconds, "memory": peak.bytes - before}


def measure_rounds(documents: int, ranges: int = 16) -> dict[str, float]:
    """Measure rounds of large-star and small-star, as in `pipeline/dedup/clusters.py` but without files.

    Returns:
        The numbers of edges, of exchanges, and of rows (16 bytes each) that were exchanged, and the CPU seconds.

    Raises:
        RuntimeError: If the rounds and union-find found different clusters.
    """
    parts = [star_edges(*make_keys(documents, ranges, number)) for number in range(ranges)]
    measured = {"edges": sum(map(len, parts)), "rows": 0, "exchanges": 0, "ranges": ranges}
    expected = connected_components(lambda: parts)

    def exchanged(sent: list[Rows]) -> list[Rows]:
        measured["rows"] += sum(map(len, sent))
        measured["exchanges"] += 1
        pieces = [dict(by_range(spread_keys(rows[:, 0]), rows, ranges)) for rows in sent]
        return [
            distinct_edges(np.frombuffer(b"".join(piece.get(r, b"") for piece in pieces), np.int64).reshape(-1, 2))
            for r in range(ranges)
        ]

    begun = time.process_time()
    parts = [contract(edges) for edges in parts]
    while sum(map(count_unsettled, held := exchanged([edges_by_node(edges) for edges in parts]))):
        parts = [large_star(edges) for edges in held]
        parts = [small_star(edges) for edges in exchanged([edges_by_larger(edges) for edges in parts])]
    measured["seconds"] = time.process_time() - begun
    stars = distinct_edges(np.concatenate(parts))
    rays = expected[0] != expected[1]
    if not np.array_equal(stars, distinct_edges(np.stack([expected[1][rays], expected[0][rays]], axis=1))):
        raise RuntimeError("rounds and union-find gave different clusters")
    return measured


def signatures(documents: int) -> npt.NDArray[np.uint32]:
    """Return random signatures, (documents, permutations) uint32. A share `DUPLICATES` are near duplicates."""
    random = np.random.default_rng(1)
    made = random.integers(0, 1 << 32, (documents, SCHEME.permutations), np.uint32)
    copies = np.flatnonzero(random.random(documents) < DUPLICATES)
    copies = copies[copies > 0]
    kept = random.random((len(copies), SCHEME.permutations)) < SHARED_BAND ** (1 / SCHEME.rows)
    originals = made[(random.random(len(copies)) * copies).astype(np.int64)]
    made[copies] = np.where(kept, originals, made[copies])
    return made


def report(
    documents: int,
    peer_documents: int,
    measured: dict[str, float],
    other: dict[str, float],
    one: dict[str, float],
    rounds: dict[str, float],
) -> str:
    """Return three tables: both sides, union-find on one worker, and rounds.

    Args:
        documents: The number of documents of our side.
        peer_documents: The number of documents of datasketch.
        measured: The result of `ours`.
        other: The result of `peer`.
        one: The result of `measure_union_find`.
        rounds: The result of `measure_rounds`.
    """
    cut = measured["cut"] / min(documents, PEER_DOCUMENTS) * documents
    rate = documents / (cut + measured["star"] + measured["components"])
    insert, both = peer_documents / other["insert"], peer_documents / (other["insert"] + other["query"])
    rows: list[list[Any]] = [
        ["documents, bands", f"{documents:,}, {SCHEME.bands}"],
        ["keys, in ranges", f"{documents * SCHEME.bands:,}, {measured['ranges']:,}"],
        ["star edges", f"{measured['edges']:,}"],
        ["documents in clusters, clusters", f"{measured['nodes']:,}, {measured['clusters']:,}"],
        [
            "CPU s: cut bands (from a sample), star edges, components",
            _seconds(cut, measured["star"], measured["components"]),
        ],
        ["peak anonymous memory", f"{measured['peak'] / 2**20:,.0f} MiB"],
        ["documents per CPU second", f"{rate:,.0f}"],
        [f"datasketch, {peer_documents:,} documents: insert; insert and query", f"{insert:,.0f}; {both:,.0f}"],
        ["datasketch, anonymous memory per document", f"{other['memory'] / peer_documents:,.0f} B"],
        ["ours over datasketch: insert; insert and query", f"{rate / insert:.1f}; {rate / both:.1f}"],
    ]
    steps: list[list[Any]] = [
        ["star edges, in ranges", f"{rounds['edges']:,}, {rounds['ranges']}"],
        ["exchanges, including the one that detects the end", rounds["exchanges"]],
        ["bytes shuffled per edge, all rounds", f"{16 * rounds['rows'] / rounds['edges']:.0f}"],
        ["CPU s per million edges, all rounds", f"{rounds['seconds'] / rounds['edges'] * 1e6:.1f}"],
    ]
    alone: list[list[Any]] = [
        ["edges, nodes", f"{one['edges']:,}, {one['nodes']:,}"],
        ["anonymous memory per node", f"{one['memory'] / one['nodes']:.0f} B"],
        ["CPU s per million edges", f"{one['seconds'] / one['edges'] * 1e6:.1f}"],
    ]
    return "\n\n".join([table(["", ""], rows), table(["on one worker", ""], alone), table(["in rounds", ""], steps)])


def run(
    documents: int = DOCUMENTS,
    peer_documents: int = PEER_DOCUMENTS,
    edges: int = EDGES,
    rounds_documents: int = ROUNDS_DOCUMENTS,
) -> str:
    """Run each side in a separate process, so that only its memory is measured, and return the tables."""
    if not HAS_ANONYMOUS:
        return NO_ANONYMOUS
    counts = {"ours": documents, "peer": peer_documents, "one": edges, "rounds": rounds_documents}
    measured = [run_module("clusters", side, count) for side, count in counts.items()]
    return report(documents, peer_documents, *measured)


def _cut_seconds(documents: int, ranges: int) -> float:
    """Return the CPU seconds in which the mapper of `neardup` packs band keys and partitions them by range."""
    made = signatures(documents)

    def cut() -> None:
        keys = band_hashes(made, SCHEME).ravel()
        packed = np.empty(len(keys), KEY)
        packed["key"], packed["row"] = keys, np.repeat(np.arange(documents), SCHEME.bands)
        for _ in by_range(keys, packed, ranges):
            pass

    return statistics.median(timed(cut)[1] for _ in range(5))


def _chance(values: Keys) -> npt.NDArray[np.float64]:
    """Return a pseudorandom number from 0 to 1 for each value. The same value always gives the same number."""
    return mix(values + np.uint64(0x632BE59BD9B4E019)) / 2.0**64


def _seconds(*values: float) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


if __name__ == "__main__":
    side, count = sys.argv[1:]
    print(
        json.dumps({"ours": ours, "peer": peer, "one": measure_union_find, "rounds": measure_rounds}[side](int(count)))
    )
