"""Read batches from memory-mapped shards, in the order that the plan defines."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from manifests.manifest import Manifest, load_manifest
from manifests.order import Plan, Samples, count_windows, hash_text, permute, samples
from manifests.shard import Shard, Store

# Number of samples whose order is computed in one call. A call has a fixed cost, equal to a few hundred samples.
BLOCK_SAMPLES = 1 << 15
OPEN_SHARDS = 1 << 14  # Maximum number of open memory maps. Linux allows 65,530 per process.


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's part of a step's batch.

    Attributes:
        tokens: (n, L + 1) token ids, uint16 or uint32 as in the shards. L is the sequence length.
        sources: (n,) int64 indexes into `plan.sources`.
        digests: (n,) int64, the first 63 bits of XXH3 of each row's bytes.
    """

    tokens: Tensor
    sources: Tensor
    digests: Tensor

    def pin(self) -> "Batch":
        """Return the batch with its tokens in page-locked memory, from which a GPU copies asynchronously.

        PyTorch reuses the memory only after the copy.
        """
        return Batch(self.tokens.pin_memory(), self.sources, self.digests)


class BatchReader:
    """A reader of the batches of a plan.

    Shards are opened on first use. Token arrays are views of the memory-mapped files.
    """

    def __init__(self, corpus: Path, plan: Plan) -> None:
        self.plan, self.store = plan, Store(corpus)
        self.dtype = np.dtype(load_manifest(corpus).tokenizer.dtype)
        self.tokens: dict[tuple[int, int], memoryview] = {}
        self.block: tuple[int, int, Samples] | None = None

    def batch(self, step: int, rank: int, world: int) -> Batch:
        """Read one rank's part of the batch of a step.

        These are the samples `step * G + rank`, `step * G + rank + world`, and so on, where G is the size of the batch.

        Args:
            step: The step, counted from 0.
            rank: The rank.
            world: Number of ranks.
        """
        order = self._order(step)
        mine = slice(rank, None, world)
        sources, shards, windows = order.source[mine], order.shard[mine], order.window[mine]
        length = self.plan.sequence_length
        wide = length + 1
        rows = np.empty((len(sources), wide), self.dtype)
        flat, digests = rows.reshape(-1).data, np.empty(len(sources), np.int64)
        # Rows are read in order of shard, so that a shard is downloaded at most once per batch.
        by_shard = np.lexsort([windows, shards, sources])
        parts = (column[by_shard].tolist() for column in (sources, shards, windows))
        for row, source, shard, window in zip(by_shard.tolist(), *parts, strict=True):
            tokens = self.tokens.get((source, shard))
            if tokens is None or (self.store.url and not self.store.touch(self._path(source, shard))):
                tokens = self._open(source, shard)
            # Slices of memory views take half the time of slices of arrays.
            part = tokens[window * length : window * length + wide]
            flat[row * wide : (row + 1) * wide] = part
            digests[row] = hash_row(part)
        return Batch(torch.from_numpy(rows), torch.from_numpy(sources.copy()), torch.from_numpy(digests))

    def _path(self, source: int, shard: int) -> str:
        return self.plan.sources[source].shards[shard][0]

    def _order(self, step: int) -> Samples:
        """Return source, epoch, shard and window of each sample of a step.

        The order is computed for a block of steps at once, and the last block is kept.
        """
        batch, block = self.plan.global_batch, self.block
        if block is None or not block[0] <= step < block[1]:
            steps = max(1, BLOCK_SAMPLES // batch)
            begin = step - step % steps
            end = min(begin + steps, self.plan.steps)
            block = self.block = begin, end, samples(self.plan, begin * batch, end * batch)
        begin, _, order = block
        part = slice((step - begin) * batch, (step - begin + 1) * batch)
        return Samples(order.source[part], order.epoch[part], order.shard[part], order.window[part])

    def _open(self, source: int, shard: int) -> memoryview:
        if len(self.tokens) >= OPEN_SHARDS:
            self.tokens.clear()
        tokens = self.tokens[source, shard] = self.store.open(self._path(source, shard)).tokens.data
        if self.store.url:
            # Drop the maps of shards that the cache has evicted. An open map would keep their disk space in use.
            for key in [key for key in self.tokens if not self.store.file(self._path(*key)).exists()]:
                del self.tokens[key]
        return tokens

    def trace(self, step: int) -> list[dict[str, Any]]:
        """Return a dict for each sample of a step, which is counted from 0.

        The keys are "sample" (its number), "source", "epoch", "shard", "token" (the first token) and "documents".
        """
        begin, length, order = step * self.plan.global_batch, self.plan.sequence_length, self._order(step)
        samples = []
        columns = (column.tolist() for column in (order.source, order.epoch, order.shard, order.window))
        for number, (source, epoch, index, window) in enumerate(zip(*columns, strict=True), start=begin):
            path, start = self._path(source, index), window * length
            shard = self.store.open(path)
            rows = range(shard.row_of(start), shard.row_of(start + length) + 1)
            place = {"source": self.plan.sources[source].name, "epoch": epoch, "shard": path, "token": start}
            samples.append({"sample": number, **place, "documents": [_describe_document(shard, row) for row in rows]})
        return samples


def _describe_document(shard: Shard, row: int) -> dict[str, str]:
    columns = shard.row(row)
    return {"document": columns["document"].hex(), "url": columns["url"], "file": columns["file"]}


@contextmanager
def prefetch(
    reader: BatchReader, steps: Iterable[int], rank: int, world: int, pin: bool = False, ahead: int = 2
) -> Iterator[Iterator[Batch]]:
    """Return a context manager whose value is an iterator over batches that a thread reads in advance.

    An error in the thread is raised by the iterator at the step of the error. The thread ends with the context.

    Args:
        reader: Reader of the batches.
        steps: Steps counted from 0.
        rank: This rank.
        world: Number of ranks.
        pin: True to put tokens into page-locked memory, for a GPU.
        ahead: Number of batches that are read in advance.
    """

    def read(step: int) -> Batch:
        batch = reader.batch(step, rank, world)
        return batch.pin() if pin else batch

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


def hash_row(row: memoryview) -> int:
    """Return a 63-bit hash of a sequence's tokens."""
    return xxhash.xxh3_64_intdigest(row) >> 1


def hash_batch(digests: Sequence[int]) -> str:
    """Return the hash of a whole batch as 16 hexadecimal digits.

    Args:
        digests: Hashes of its sequences, in sample order.
    """
    return hashlib.sha256(b"".join(value.to_bytes(8, "big") for value in digests)).hexdigest()[:16]


def read_validation_windows(corpus: Path, manifest: Manifest, sequence_length: int, limit: int) -> dict[str, Tensor]:
    """Return a dict from source name to windows of its validation shards, (n, L + 1) int64 token ids.

    At most `limit` windows of each source are drawn, by a permutation with the source's name as key. So every run over
    a corpus uses the same windows. Sources without a whole window are left out.
    """
    windows_by_source: dict[str, Tensor] = {}
    store = Store(corpus)
    for name, source in sorted(manifest.sources.items()):
        counts = [count_windows(entry.tokens, sequence_length) for entry in source.validation]
        if not sum(counts):
            continue
        key = hash_text(f"validation\0{name}")
        drawn = np.sort(permute(np.arange(min(limit, sum(counts))), sum(counts), key))
        begins = np.cumsum([0, *counts])
        rows = []
        for window in drawn.tolist():
            shard = int(np.searchsorted(begins, window, side="right")) - 1
            start = (window - int(begins[shard])) * sequence_length
            rows.append(store.open(source.validation[shard].path).tokens[start : start + sequence_length + 1])
        windows_by_source[name] = torch.from_numpy(np.stack(rows).astype(np.int64))
    return windows_by_source
