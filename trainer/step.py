"""One optimizer step: AdamW (section 2.3 of LLaMA's paper), micro-batches, and the skipping of outliers."""

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
CLIP = 1.0  # maximum norm of the gradients
# Bits of a request that a rank sends to all ranks. STOP: save and end the run. SAVE: save a checkpoint.
STOP, SAVE = 1, 2
SKIP_REASONS = ("", "non-finite", "outlier")  # The index is a result of OutlierDetector.classify.


def build_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """Return AdamW over all parameters, with weight decay on matrices only.

    The weights of norms have no decay. This is usual; the paper does not state it.
    """
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=1e-8, fused=True)


class OutlierDetector:
    """A detector of values that are far above the previous values. The rule is that of OLMo-core's SkipStepAdamW.

    A value is an outlier if it is more than `sigmas` standard deviations above the mean of the last `window` accepted
    values. Before the window is full, no value is an outlier. In place of an outlier, the limit is added to the window.
    So a single outlier hardly raises the limit, but a lasting change of level is accepted after a few steps. A value
    that is not finite is never added. Everything is computed on the device, so that no step waits.

    Args:
        sigmas: Number of standard deviations above the mean. With 0, only non-finite values are rejected.
        window: Number of values in the window.
        device: The device of the values.
        follow: For values with a decreasing trend, such as a loss: smoothing factor of the trend, an exponential moving
            average. The window then contains differences from the trend, because otherwise most of the standard
            deviation would come from the decrease itself. 0 uses no trend.
    """

    def __init__(self, sigmas: float, window: int, device: torch.device, follow: float = 0.0) -> None:
        self.sigmas, self.follow = sigmas, follow
        self.values = torch.zeros(window, dtype=torch.float64, device=device)
        self.trend = torch.zeros((), dtype=torch.float64, device=device)
        self.seen = torch.zeros((), dtype=torch.int64, device=device)

    def limit(self) -> Tensor:
        """Return the largest value that would be accepted next. It is infinite until the window is full."""
        deviation, mean = torch.std_mean(self.values, correction=0)
        above = self.trend + mean + self.sigmas * deviation if self.sigmas else torch.inf
        return torch.where(self.seen < len(self.values), torch.inf, above)

    def classify(self, value: Tensor) -> Tensor:
        """Classify a float64 scalar and add it to the window. Return 0 to accept, 1 if not finite, 2 for an outlier."""
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
        """Return the state as plain values for `restore`."""
        return {"values": self.values.tolist(), "trend": float(self.trend), "seen": int(self.seen)}

    def restore(self, state: dict[str, Any]) -> None:
        """Set the state to a result of `state`."""
        self.values.copy_(torch.tensor(state["values"], dtype=torch.float64))
        self.trend.fill_(state["trend"])
        self.seen.fill_(state["seen"])


def update(optimizer: torch.optim.Optimizer, rate: float, norm: Tensor, verdict: Tensor) -> None:
    """Clip the gradients and update the weights, or leave the weights unchanged if `verdict` is not 0.

    One call of the fused kernel does both. Its arguments for loss scaling are used: `grad_scale` divides the gradients,
    and `found_inf` skips the update.

    Args:
        optimizer: The optimizer.
        rate: The learning rate.
        norm: Norm of the gradients.
        verdict: Result of `OutlierDetector.classify` for the norm.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.grad_scale = (norm / CLIP).clamp(min=1.0).float()
    optimizer.found_inf = (verdict != 0).float()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """The metrics of a step for the whole batch. Arrays have shape (G,), where G is the batch size, in sample order.

    Attributes:
        digests: Hash of each sequence.
        sources: Index of each sequence's source in the plan.
        bytes: UTF-8 bytes of text of each sequence, or 0 if the tokenizer is not known.
        losses: Loss in nats, summed over each sequence.
        norm: Norm of the gradients before clipping.
        skipped: Why the step was skipped, one of SKIP_REASONS.
        requests: Bits STOP and SAVE that any rank has set.
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
    """The model, the optimizer, and the settings that are used in every step.

    Attributes:
        model: The sharded model.
        optimizer: The optimizer of its parameters.
        norms: Detector of outliers among gradient norms.
        ranks: This process among all.
        tokens: Number of tokens in a global batch.
        micro_batch: Number of sequences that a rank processes at once.
        pieces: UTF-8 bytes of the tokenizer's pieces, or None if the tokenizer is not known.
        mask_bos: The BOS id if tokens attend to their own document only, else None.
    """

    model: Llama
    optimizer: torch.optim.Optimizer
    norms: OutlierDetector
    ranks: Ranks
    tokens: int
    micro_batch: int
    pieces: PieceBytes | None
    mask_bos: int | None

    def step(self, batch: Batch, rate: float, requests: int = 0) -> Callable[[], StepMetrics]:
        """Train on this rank's part of a batch. Do not wait for the GPU.

        Args:
            batch: This rank's part.
            rate: The learning rate.
            requests: Bits STOP and SAVE of this rank. All ranks receive them with the metrics.

        Returns:
            A function that waits for the step's metrics and returns them.
        """
        # A micro-batch consists of every `groups`-th sequence and not of neighbors. So micro-batches contain the same
        # sequences on any number of ranks, and gradients differ only by the order of a few additions.
        # The gradients of a sharded model are reduced and scattered after each micro-batch, so that a rank holds only
        # its own rows. The sum over replicas is delayed to the last micro-batch. An unsharded model accumulates its
        # gradients locally until the last micro-batch.
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
            # FSDP averages gradients over ranks. Multiplied by the number of ranks and divided by the number of tokens,
            # the result is the gradient of the mean loss of the batch.
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
        """Return the sum of all losses in nats, a scalar, and the loss of each token, (n, L).

        Args:
            tokens: (n, L + 1) int64 ids on the device.
            host: The same ids on the host, of any integer type. The bounds of documents are computed from them.
        """
        documents = None
        if self.mask_bos is not None:
            documents = document_bounds(host[:, :-1].to(torch.int64), self.mask_bos, tokens.device.type)
            documents = documents.to(tokens.device, non_blocking=True)
        total, each = self.model(tokens[:, :-1], tokens[:, 1:], documents)
        return total, each

    def text_bytes(self, tokens: Tensor) -> npt.NDArray[np.int64]:
        """Return (n,) UTF-8 bytes of text for (n, L + 1) ids on the host, or zeros if the tokenizer is not known."""
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
