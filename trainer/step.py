"""One optimizer step: AdamW (section 2.3 of the paper), micro-batches, and steps to skip."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from manifests.tokenizer import PieceBytes
from trainer.data import Batch
from trainer.model import Llama, document_bounds
from trainer.parallel import Ranks, copy_to_host_async, gather_rows, gradient_norm

BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP = 1.0
STOP, SAVE = 1, 2  # requests of a rank to all: save and end the run, save a checkpoint
SKIP_REASONS = ("", "non-finite", "outlier")  # indexed by the verdicts of OutlierDetector.classify


def build_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """Return AdamW over all parameters, with weight decay on matrices only.

    Norms have no decay, as is usual; the paper does not say.
    """
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=1e-8, fused=True)


class OutlierDetector:
    """Find values far above those before them (the rule of OLMo-core's SkipStepAdamW).

    A value is an outlier if it is more than `sigmas` standard deviations above the mean of the last `window` accepted
    values, once the window is full. An outlier enters the window as the limit itself: a single one hardly raises the
    limit, yet a lasting change of level is accepted after a few steps. A value that is not finite never enters. All
    is computed on the device, so that no step waits.

    Args:
        sigmas: Standard deviations above the mean; with 0 only values that are not finite are rejected.
        window: Number of values kept.
        device: The device of the values.
        follow: For falling values, such as a loss: the share of the way that a trend goes to each value. Values enter
            as differences from the trend, because the fall itself would otherwise be most of the deviation.
    """

    def __init__(self, sigmas: float, window: int, device: torch.device, follow: float = 0.0) -> None:
        self.sigmas, self.follow = sigmas, follow
        self.values = torch.zeros(window, dtype=torch.float64, device=device)
        self.trend = torch.zeros((), dtype=torch.float64, device=device)
        self.seen = torch.zeros((), dtype=torch.int64, device=device)

    def limit(self) -> Tensor:
        """Return the largest next value to be accepted; infinite until the window is full."""
        deviation, mean = torch.std_mean(self.values, correction=0)
        above = self.trend + mean + self.sigmas * deviation if self.sigmas else torch.inf
        return torch.where(self.seen < len(self.values), torch.inf, above)

    def classify(self, value: Tensor) -> Tensor:
        """Return 0 for a float64 scalar to accept, 1 for one that is not finite, 2 for an outlier."""
        limit, finite = self.limit(), torch.isfinite(value)
        place = (self.seen % len(self.values))[None]
        if self.follow:
            self.trend = torch.where(finite & (self.seen == 0), value, self.trend)
        beyond = torch.minimum(value, limit) - self.trend
        self.values.index_copy_(0, place, torch.where(finite, beyond, self.values[place]).reshape(1))
        self.trend = self.trend + torch.where(finite, self.follow * beyond, 0.0)
        self.seen += finite
        return torch.where(finite, 2 * (value > limit), 1)

    def state(self) -> dict[str, Any]:
        """Return plain values from which `restore` continues exactly."""
        return {"values": self.values.tolist(), "trend": float(self.trend), "seen": int(self.seen)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self.values.copy_(torch.tensor(state["values"], dtype=torch.float64))
        self.trend.fill_(state["trend"])
        self.seen.fill_(state["seen"])


def update(optimizer: torch.optim.Optimizer, rate: float, norm: Tensor, verdict: Tensor) -> None:
    """Clip by the gradients' norm and step, or change nothing where `verdict` is not 0.

    The fused kernel does all of it: its arguments for loss scaling divide the gradients and skip the update.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.grad_scale = (norm / CLIP).clamp(min=1.0).float()
    optimizer.found_inf = (verdict != 0).float()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """The results of a step over the whole batch; arrays have shape (G,), in sample order.

    Attributes:
        digests: Hash of each sequence.
        sources: Index of each sequence's source in the plan.
        bytes: UTF-8 bytes of text of each sequence, 0 where the tokenizer is not known.
        losses: Loss in nats, summed over each sequence.
        norm: Norm of the gradients before clipping.
        skipped: One of SKIP_REASONS.
        requests: STOP and SAVE of all ranks.
    """

    digests: npt.NDArray[np.int64]
    sources: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]
    norm: float
    skipped: str
    requests: int


@dataclass(frozen=True)
class Stepper:
    """The model with all that stays the same from step to step.

    Attributes:
        norms: Detector of outliers among the norms of gradients.
        tokens: Tokens of a global batch.
        micro_batch: Sequences that a rank holds at once.
        pieces: Sizes of the tokenizer's pieces, None where the tokenizer is not known.
        masks: The BOS id if tokens attend to their own document only, else None.
    """

    model: Llama
    optimizer: torch.optim.Optimizer
    norms: OutlierDetector
    ranks: Ranks
    tokens: int
    micro_batch: int
    pieces: PieceBytes | None
    masks: int | None

    def step(self, batch: Batch, rate: float, requests: int = 0) -> Callable[[], StepMetrics]:
        """Train on this rank's part of a batch, without waiting for a GPU.

        Args:
            batch: This rank's part.
            rate: The learning rate.
            requests: This rank's requests, STOP and SAVE, which all ranks learn with the metrics.

        Returns:
            A function that waits for the step's metrics.
        """
        # A micro-batch holds every `groups`-th sequence, not neighbors: so micro-batches hold the same sequences on any
        # number of ranks, and gradients differ by the order of a few additions at most.
        # A sharded model's gradients are scattered after each micro-batch, so that a rank holds only its own rows; the
        # sum over replicas waits for the last one. An unsharded model adds them up by itself.
        sharded = self.ranks.shards > 1
        defer = self.model.set_requires_all_reduce if sharded else self.model.set_requires_gradient_sync
        tokens = batch.tokens.to(self.ranks.device, non_blocking=True).to(torch.int64)
        groups = -(-len(tokens) // self.micro_batch)
        losses = torch.empty(len(tokens), dtype=torch.float64, device=self.ranks.device)
        for turn in range(groups):
            part = slice(turn, None, groups)
            defer(turn == groups - 1)
            self.model.set_reshard_after_backward(turn == groups - 1 or sharded)
            total, each = self.losses(tokens[part], batch.tokens[part])
            # FSDP averages gradients over ranks; times the ranks, over all tokens, that is the mean over the batch
            (total * (self.ranks.world / self.tokens)).backward()
            losses[part] = each.sum(1, dtype=torch.float64)
        norm = gradient_norm(self.model, self.ranks)
        verdict = self.norms.classify(norm)
        update(self.optimizer, rate, norm, verdict)
        text = torch.from_numpy(self.text_bytes(batch.tokens))
        facts = torch.stack([batch.digests, batch.sources, text, torch.full_like(text, requests)], dim=1)
        facts = facts.to(self.ranks.device, non_blocking=True)
        table = gather_rows(torch.cat([facts, losses.view(torch.int64)[:, None]], dim=1), self.ranks.world)
        end = torch.stack([norm.view(torch.int64), verdict.reshape(())])
        wait = copy_to_host_async(torch.cat([table.flatten(), end]))
        return lambda: _unpack(wait())

    def losses(self, tokens: Tensor, host: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of sequences' losses in nats, and each loss, (n, L).

        Args:
            tokens: (n, L + 1) int64 ids on the device.
            host: The same ids, of any integer type, on the host, where the bounds of documents are computed.
        """
        documents = None
        if self.masks is not None:
            documents = document_bounds(host[:, :-1].to(torch.int64), self.masks, tokens.device.type)
            documents = documents.to(tokens.device, non_blocking=True)
        total, each = self.model(tokens[:, :-1], tokens[:, 1:], documents)
        return total, each

    def text_bytes(self, tokens: Tensor) -> npt.NDArray[np.int64]:
        """Return the UTF-8 bytes of text, (n,), of (n, L + 1) ids on the host; 0 where the tokenizer is not known."""
        return self.pieces.count_targets(tokens.numpy()) if self.pieces else np.zeros(len(tokens), np.int64)


def _unpack(values: Tensor) -> StepMetrics:
    flat = values.numpy()
    table, (norm, verdict) = flat[:-2].reshape(-1, 5), flat[-2:]
    digests, sources, text, requests, losses = (np.ascontiguousarray(column) for column in table.T)
    number = float(norm.reshape(1).view(np.float64)[0])
    skipped = SKIP_REASONS[verdict]
    return StepMetrics(
        digests, sources, text, losses.view(np.float64), number, skipped, int(np.bitwise_or.reduce(requests))
    )
