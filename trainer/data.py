"""Batches from memory-mapped shards, in the order of the plan; and the check of the shards before the first one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from manifests.errors import UserError
from manifests.files import sha256_file
from manifests.manifest import Manifest, ShardEntry
from manifests.shard import Shard, open_shard
from trainer.order import Plan, samples, windows_of

FULL_CHECK_BYTES = 1 << 30
"""corpora up to this size are hashed in full before training"""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's part of a step's batch. `inputs`, `targets`: (n, L) int64; `sources`: (n,) int64 indexes into
    `plan.sources`; `digests`: (n,) int64, the first 63 bits of SHA-256 of each sequence's tokens."""

    inputs: Tensor
    targets: Tensor
    sources: Tensor
    digests: Tensor


class Corpus:
    """The shards of a plan, opened once, each token array a view of its file."""

    def __init__(self, corpus: Path, plan: Plan) -> None:
        self.plan = plan
        self.shards = [[_open(corpus, path) for path, _ in source.shards] for source in plan.sources]

    def batch(self, step: int, rank: int, world: int) -> Batch:
        """Rank `rank` of `world`'s part of step `step` (counted from 0): samples step·G + rank :: world."""
        begin = step * self.plan.global_batch
        where = samples(self.plan, begin, begin + self.plan.global_batch)
        mine = slice(rank, None, world)
        rows = [
            self.window(source, shard, window)
            for source, shard, window in zip(
                where.source[mine].tolist(), where.shard[mine].tolist(), where.window[mine].tolist(), strict=True
            )
        ]
        tokens = torch.from_numpy(np.stack(rows).astype(np.int64))
        digests = torch.tensor([digest(row) for row in rows], dtype=torch.int64)
        sources = torch.from_numpy(where.source[mine].copy())
        return Batch(tokens[:, :-1], tokens[:, 1:], sources, digests)

    def window(self, source: int, shard: int, window: int) -> npt.NDArray[Any]:
        """The L + 1 tokens of one window."""
        start = window * self.plan.sequence_length
        return self.shards[source][shard].tokens[start : start + self.plan.sequence_length + 1]

    def documents(self, step: int) -> list[dict[str, Any]]:
        """Every document that step `step` (counted from 0) trains on, sample by sample."""
        begin = step * self.plan.global_batch
        where = samples(self.plan, begin, begin + self.plan.global_batch)
        found = []
        for number in range(self.plan.global_batch):
            source, index, window = (int(part[number]) for part in (where.source, where.shard, where.window))
            shard = self.shards[source][index]
            start = window * self.plan.sequence_length
            rows = range(shard.row_of(start), shard.row_of(start + self.plan.sequence_length) + 1)
            found.append(
                {
                    "sample": begin + number,
                    "source": self.plan.sources[source].name,
                    "epoch": int(where.epoch[number]),
                    "shard": self.plan.sources[source].shards[index][0],
                    "token": start,
                    "documents": [_document(shard, row) for row in rows],
                }
            )
        return found


def digest(row: npt.NDArray[Any]) -> int:
    """63 bits that stand for a sequence's tokens."""
    return int.from_bytes(hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest()[:8], "big") >> 1


def batch_sha(digests: Sequence[int]) -> str:
    """The hash of a whole step's batch, from its sequences' digests in sample order, as 16 hexadecimal digits."""
    return hashlib.sha256(b"".join(value.to_bytes(8, "big") for value in digests)).hexdigest()[:16]


def validation_windows(corpus: Path, manifest: Manifest, sequence_length: int, most: int) -> dict[str, list[Tensor]]:
    """The first `most` windows of each source's validation shards, (L + 1,) int64 each; sources without one are left
    out."""
    found: dict[str, list[Tensor]] = {}
    for name, source in sorted(manifest.sources.items()):
        rows: list[Tensor] = []
        for entry in source.validation:
            for window in range(min(most - len(rows), windows_of(entry.tokens, sequence_length))):
                start = window * sequence_length
                tokens = _open(corpus, entry.path).tokens[start : start + sequence_length + 1]
                rows.append(torch.from_numpy(tokens.astype(np.int64)))
        if rows:
            found[name] = rows
    return found


def check_shards(corpus: Path, manifest: Manifest, mode: str) -> None:
    """Hold the shards against the manifest before training: their sizes, and with `full` every byte (`auto`: full up to
    1 GiB). Raises UserError naming the first shard that differs."""
    entries = manifest.shards()
    full = mode == "full" or (mode == "auto" and sum(entry.bytes for entry in entries) <= FULL_CHECK_BYTES)
    for entry in entries:
        problem = _differs(corpus / "shards" / entry.path, entry, full)
        if problem:
            raise UserError(
                f"shards/{entry.path} is not the manifest's ({problem}): run `python -m manifests verify {corpus}`"
            )


def _differs(path: Path, entry: ShardEntry, full: bool) -> str:
    try:
        if path.stat().st_size != entry.bytes:
            return "another size"
        return "another sha256" if full and sha256_file(path) != entry.sha256 else ""
    except OSError as error:
        return str(error.strerror)


def _open(corpus: Path, path: str) -> Shard:
    try:
        return open_shard(corpus / "shards" / path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"shards/{path} cannot be read: run `python -m manifests verify {corpus}`") from error


def _document(shard: Shard, row: int) -> dict[str, str]:
    columns = shard.row(row)
    return {"document": columns["document"].hex(), "url": columns["url"], "file": columns["file"]}
