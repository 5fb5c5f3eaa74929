"""Batches from memory-mapped shards, in the order of the plan."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xxhash
from torch import Tensor

from manifests.manifest import Manifest, load_manifest
from manifests.order import Plan, Samples, samples, windows_of
from manifests.shard import Shard
from manifests.store import Store

BLOCK_SAMPLES = 1 << 15
"""the order is worked out for so many samples at a time: a call costs as much as a few hundred samples"""
OPEN_SHARDS = 1 << 14
"""memory maps held at once: Linux grants a process 65,530"""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's part of a step's batch. `tokens`: (n, L + 1) as the shards store them, uint16 or uint32; `sources`:
    (n,) int64 indexes into `plan.sources`; `digests`: (n,) int64, the first 63 bits of XXH3 of each row's bytes."""

    tokens: Tensor
    sources: Tensor
    digests: Tensor

    def pinned(self) -> "Batch":
        """The tokens in page-locked memory, from which a GPU copies while the host goes on. PyTorch gives such memory
        out again only after the copy."""
        return Batch(self.tokens.pin_memory(), self.sources, self.digests)


class Corpus:
    """The shards of a plan, opened when first needed, each token array a view of its file."""

    def __init__(self, corpus: Path, plan: Plan) -> None:
        self.plan, self.store = plan, Store(corpus)
        self.dtype = np.dtype(load_manifest(corpus).tokenizer.dtype)
        self.tokens: dict[tuple[int, int], memoryview] = {}
        self.block: tuple[int, int, Samples] | None = None

    def batch(self, step: int, rank: int, world: int) -> Batch:
        """Rank `rank` of `world`'s part of step `step` (counted from 0): samples step·G + rank :: world."""
        where = self._order(step)
        mine = slice(rank, None, world)
        sources, shards, windows = where.source[mine], where.shard[mine], where.window[mine]
        length = self.plan.sequence_length
        wide = length + 1
        rows = np.empty((len(sources), wide), self.dtype)
        flat, digests = rows.reshape(-1).data, np.empty(len(sources), np.int64)
        order = np.lexsort([windows, shards, sources])  # shard by shard: one that is fetched is fetched once a batch
        parts = (column[order].tolist() for column in (sources, shards, windows))
        for row, source, shard, window in zip(order.tolist(), *parts, strict=True):
            tokens = self.tokens.get((source, shard))
            if tokens is None or (self.store.url and not self.store.touch(self._path(source, shard))):
                tokens = self._open(source, shard)
            part = tokens[window * length : window * length + wide]  # memory views: half the time of array slices
            flat[row * wide : (row + 1) * wide] = part
            digests[row] = digest(part)
        return Batch(torch.from_numpy(rows), torch.from_numpy(sources.copy()), torch.from_numpy(digests))

    def _path(self, source: int, shard: int) -> str:
        return self.plan.sources[source].shards[shard][0]

    def _order(self, step: int) -> Samples:
        """Where the samples of a step lie, from the block of steps around it."""
        batch, block = self.plan.global_batch, self.block
        if block is None or not block[0] <= step < block[1]:
            steps = max(1, BLOCK_SAMPLES // batch)
            begin = step - step % steps
            end = min(begin + steps, self.plan.steps)
            block = self.block = begin, end, samples(self.plan, begin * batch, end * batch)
        begin, _, found = block
        part = slice((step - begin) * batch, (step - begin + 1) * batch)
        return Samples(found.source[part], found.epoch[part], found.shard[part], found.window[part])

    def _open(self, source: int, shard: int) -> memoryview:
        if len(self.tokens) >= OPEN_SHARDS:
            self.tokens.clear()
        tokens = self.tokens[source, shard] = self.store.open(self._path(source, shard)).tokens.data
        if self.store.url:  # a map keeps the disk space of a shard that made room for another
            for place in [place for place in self.tokens if not self.store.file(self._path(*place)).exists()]:
                del self.tokens[place]
        return tokens

    def documents(self, step: int) -> list[dict[str, Any]]:
        """Every document that step `step` (counted from 0) trains on, sample by sample."""
        begin = step * self.plan.global_batch
        where = self._order(step)
        found = []
        for number in range(self.plan.global_batch):
            source, index, window = (int(part[number]) for part in (where.source, where.shard, where.window))
            path = self._path(source, index)
            shard = self.store.open(path)
            start = window * self.plan.sequence_length
            rows = range(shard.row_of(start), shard.row_of(start + self.plan.sequence_length) + 1)
            found.append(
                {
                    "sample": begin + number,
                    "source": self.plan.sources[source].name,
                    "epoch": int(where.epoch[number]),
                    "shard": path,
                    "token": start,
                    "documents": [_document(shard, row) for row in rows],
                }
            )
        return found


@contextmanager
def prefetched(
    corpus: Corpus, steps: Iterable[int], rank: int, world: int, pin: bool = False, ahead: int = 2
) -> Iterator[Iterator[Batch]]:
    """The batches of some steps (counted from 0), read by one thread up to `ahead` steps before they are asked for.
    What goes wrong there is raised here, at its step; the thread is gone when the block ends. `pin`: for
    a GPU."""

    def read(step: int) -> Batch:
        batch = corpus.batch(step, rank, world)
        return batch.pinned() if pin else batch

    def batches() -> Iterator[Batch]:
        waiting: deque[Future[Batch]] = deque()
        for step in steps:
            waiting.append(thread.submit(read, step))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        yield batches()
    finally:
        thread.shutdown(cancel_futures=True)


def digest(row: memoryview) -> int:
    """63 bits that stand for a sequence's tokens."""
    return xxhash.xxh3_64_intdigest(row) >> 1


def batch_sha(digests: Sequence[int]) -> str:
    """The hash of a whole step's batch, from its sequences' digests in sample order, as 16 hexadecimal digits."""
    return hashlib.sha256(b"".join(value.to_bytes(8, "big") for value in digests)).hexdigest()[:16]


def validation_windows(corpus: Path, manifest: Manifest, sequence_length: int, most: int) -> dict[str, Tensor]:
    """The first `most` windows of each source's validation shards, (n, L + 1) int64; sources without one are left
    out."""
    found: dict[str, Tensor] = {}
    store = Store(corpus)
    for name, source in sorted(manifest.sources.items()):
        rows: list[npt.NDArray[Any]] = []
        for entry in source.validation:
            windows = min(most - len(rows), windows_of(entry.tokens, sequence_length))
            tokens = store.open(entry.path).tokens if windows else np.empty(0, np.uint16)
            for start in range(0, windows * sequence_length, sequence_length):
                rows.append(tokens[start : start + sequence_length + 1])
        if rows:
            found[name] = torch.from_numpy(np.stack(rows).astype(np.int64))
    return found


def _document(shard: Shard, row: int) -> dict[str, str]:
    columns = shard.row(row)
    return {"document": columns["document"].hex(), "url": columns["url"], "file": columns["file"]}
