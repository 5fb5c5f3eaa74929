"""AdamW and its schedule, as section 2.3 of the paper has them, and which steps it leaves out."""

import math
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP = 1.0
FINAL_SHARE = 0.1
"""the cosine ends at this share of the peak"""
LOSS_FOLLOW = 0.3
"""of the trend that losses are judged against"""


def build_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW over all parameters; weight decay on matrices only (norms are left alone, as is usual; the paper does not
    say)."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=1e-8, fused=True)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """The rate of step `step`, counted from 0: linear up over `warmup` steps, then a cosine to a tenth of the peak at
    the last of `steps`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - 1 - warmup)
    return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


class Outliers:
    """Which values stand out from those before: more than `sigmas` standard deviations above the mean of the last
    `window` accepted ones, once there are so many (the rule of OLMo-core's SkipStepAdamW).

    One that stands out enters the window as the limit itself: a single one hardly raises it, yet a lasting change of
    level is accepted after a few steps. One that is not finite never enters. `sigmas` 0: none but those stand out.
    `follow`: for what falls, like a loss; values are taken as differences from a trend that goes this share of the way
    to each, since else the fall itself is most of the deviation. All is computed on the device, so that no step waits.
    """

    def __init__(self, sigmas: float, window: int, device: torch.device, follow: float = 0.0) -> None:
        self.sigmas, self.follow = sigmas, follow
        self.values = torch.zeros(window, dtype=torch.float64, device=device)
        self.trend = torch.zeros((), dtype=torch.float64, device=device)
        self.seen = torch.zeros((), dtype=torch.int64, device=device)

    def limit(self) -> Tensor:
        """What the next value may be at most; infinite while the window is not full."""
        deviation, mean = torch.std_mean(self.values, correction=0)
        above = self.trend + mean + self.sigmas * deviation if self.sigmas else torch.inf
        return torch.where(self.seen < len(self.values), torch.inf, above)

    def judge(self, value: Tensor) -> Tensor:
        """0 for a float64 scalar that is accepted, 1 for one that is not finite, 2 for one that stands out."""
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
        """Plain values that `restore` takes back, to the last bit."""
        return {"values": self.values.tolist(), "trend": float(self.trend), "seen": int(self.seen)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.values.copy_(torch.tensor(state["values"], dtype=torch.float64))
        self.trend.fill_(state["trend"])
        self.seen.fill_(state["seen"])


def update(optimizer: torch.optim.Optimizer, rate: float, norm: Tensor, verdict: Tensor) -> None:
    """Clip by the gradients' norm and step, or leave the step out where `verdict` is not 0: parameters and moments stay
    as they are. The fused kernel does all three (it was given them for loss scaling)."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.grad_scale = (norm / CLIP).clamp(min=1.0).float()
    optimizer.found_inf = (verdict != 0).float()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
