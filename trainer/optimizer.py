"""AdamW and its schedule, as section 2.3 of the paper has them."""

import math

import torch
from torch import nn

BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP = 1.0
FINAL_SHARE = 0.1
"""the cosine ends at this share of the peak"""


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
