"""Cross-entropy of a linear head without its logits: they are made for a few rows at a time and never whole.

At 32,000 pieces the logits of 16,384 tokens are 2 GiB in float32, several times over with their gradients. Here each
chunk's gradient is taken while its logits are there, so nothing is computed twice.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = {"cpu": 1 << 22, "cuda": 1 << 27}
"""logits at a time: what a processor's cache holds, and enough rows for a GPU's matrix units"""


def head_loss(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of cross-entropies in nats, which gradients flow from, and each of them, which none do.

    `x`: (B, T, D); `weight`: (V, D); `targets`: (B, T) int64. Gives a float32 scalar and (B, T) float32.
    """
    total, each = _HeadLoss.apply(x.flatten(0, 1), weight, targets.flatten(), torch.is_grad_enabled())
    return total, each.view(targets.shape)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        rows = max(1, CHUNK[x.device.type] // len(weight))
        each = torch.empty(len(x), dtype=torch.float32, device=x.device)
        if training:
            to_x, to_weight = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(x), rows):
            part, wanted = x[start : start + rows], targets[start : start + rows, None]
            scores = F.log_softmax(part @ weight.T, dim=-1, dtype=torch.float32)
            each[start : start + rows] = -scores.gather(1, wanted)[:, 0]
            if training:
                slope = scores.exp_()
                slope.scatter_add_(1, wanted, slope.new_full((1, 1), -1.0).expand_as(wanted))
                slope = slope.to(x.dtype)
                torch.mm(slope, weight, out=to_x[start : start + rows])
                if weight.dtype == torch.float32:
                    to_weight.addmm_(slope.T, part)
                else:
                    to_weight += slope.T @ part
        if training:
            ctx.save_for_backward(to_x, to_weight.to(weight.dtype))
        ctx.mark_non_differentiable(each)
        return each.sum(), each

    @staticmethod
    def backward(ctx: Any, total: Tensor, each: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_x, to_weight = ctx.saved_tensors
        return to_x * total, to_weight * total, None, None
