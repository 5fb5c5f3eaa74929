"""One optimiser step: micro-batches, the gradient norm's verdict, the update; and what it tells of every sequence."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manifests.tokenizer import PieceBytes
from trainer.attention import bounds
from trainer.data import Batch
from trainer.model import Llama
from trainer.optimizer import Outliers, update
from trainer.parallel import Ranks, gathered, gradient_norm, on_its_way, shards

VERDICTS = ("", "non-finite", "outlier")
"""why a step was left out, by what `Outliers.judge` gives"""


@dataclass(frozen=True, slots=True)
class Told:
    """What a step told. (G,) arrays of the whole batch in sample order: `digests`, `sources` (indexes into the plan's),
    `bytes` of text (0 where the tokenizer is not known), `losses` in nats, summed over each sequence. `norm` is the
    gradients', before clipping; `skipped` one of VERDICTS; `stop` whether any rank was asked to stop."""

    digests: npt.NDArray[np.int64]
    sources: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]
    norm: float
    skipped: str
    stop: bool


@dataclass(frozen=True)
class Stepper:
    """What stays the same from step to step. `tokens`: of a global batch; `micro_batch` in sequences; `masks`: the BOS
    id where tokens see only their own document, else None."""

    model: Llama
    optimizer: torch.optim.Optimizer
    norms: Outliers
    ranks: Ranks
    tokens: int
    micro_batch: int
    pieces: PieceBytes | None
    masks: int | None

    def step(self, batch: Batch, rate: float, stop: bool) -> Callable[[], Told]:
        """Train on this rank's part of a batch. Gives a function that waits for what the step told; until it is called
        nothing here waits for a GPU."""
        # Every so many-th sequence, not neighbours: so micro-batches hold the same sequences on any number of ranks,
        # and gradients differ by the order of a few additions at most.
        tokens = batch.tokens.to(self.ranks.device, non_blocking=True).to(torch.int64)
        groups = -(-len(tokens) // self.micro_batch)
        losses = torch.empty(len(tokens), dtype=torch.float64, device=self.ranks.device)
        for turn in range(groups):
            part = slice(turn, None, groups)
            self.model.set_requires_gradient_sync(turn == groups - 1)
            self.model.set_reshard_after_backward(turn == groups - 1 or shards(self.ranks) > 1)
            total, each = self.losses(tokens[part], batch.tokens[part])
            # FSDP averages gradients over ranks; times the ranks, over all tokens, that is the mean over the batch
            (total * (self.ranks.world / self.tokens)).backward()
            losses[part] = each.sum(1, dtype=torch.float64)
        norm = gradient_norm(self.model, self.ranks)
        verdict = self.norms.judge(norm)
        update(self.optimizer, rate, norm, verdict)
        text = torch.from_numpy(self.text_bytes(batch.tokens))
        facts = torch.stack([batch.digests, batch.sources, text, torch.full_like(text, stop)], dim=1)
        facts = facts.to(self.ranks.device, non_blocking=True)
        table = gathered(torch.cat([facts, losses.view(torch.int64)[:, None]], dim=1), self.ranks.world)
        end = torch.stack([norm.view(torch.int64), verdict.reshape(())])
        wait = on_its_way(torch.cat([table.flatten(), end]))
        return lambda: _told(wait())

    def losses(self, tokens: Tensor, host: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of some sequences' losses and each of them, (n, L), from (n, L + 1) int64 ids on the device, and the
        same of any type on the host, where documents are told apart."""
        documents = None
        if self.masks is not None:
            documents = bounds(host[:, :-1].to(torch.int64), self.masks, tokens.device.type)
            documents = documents.to(tokens.device, non_blocking=True)
        total, each = self.model(tokens[:, :-1], tokens[:, 1:], documents)
        return total, each

    def text_bytes(self, tokens: Tensor) -> npt.NDArray[np.int64]:
        """(n, L + 1) ids on the host -> (n,) bytes of the text of each sequence, 0 where the tokenizer is not known."""
        return self.pieces.of(tokens.numpy()) if self.pieces else np.zeros(len(tokens), np.int64)


def _told(values: Tensor) -> Told:
    flat = values.numpy()
    table, (norm, verdict) = flat[:-2].reshape(-1, 5), flat[-2:]
    digests, sources, text, stop, losses = (np.ascontiguousarray(column) for column in table.T)
    number = float(norm.reshape(1).view(np.float64)[0])
    return Told(digests, sources, text, losses.view(np.float64), number, VERDICTS[verdict], bool(stop.any()))
