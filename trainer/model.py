"""LLaMA (arXiv 2302.13971, section 2.2): pre-norm with RMSNorm, SwiGLU, rotary positions, no biases, an untied head.

The page knows nothing of devices, shards or ranks; `trainer.parallel` applies those. Shapes: B sequences, T tokens, D
dimension, H heads, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.attention import attend
from trainer.loss import head_loss
from trainer.presets import Preset

ROTARY_BASE = 10_000.0
"""Su et al. 2021 (arXiv 2104.09864), section 3.2.2"""


class Rotary(nn.Module):
    """Rotary position embeddings in the layout of two halves (feature i is paired with i + D/2), which makes the export
    to other libraries a renaming. The table is made on first use, on the device of its input."""

    def __init__(self, head_dimension: int) -> None:
        super().__init__()
        self.head_dimension = head_dimension
        self.table: tuple[Tensor, Tensor] | None = None

    def forward(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of shape (T, D/H), float32, on the device of `like`."""
        if self.table is None or len(self.table[0]) < length or self.table[0].device != like.device:
            exponents = torch.arange(0, self.head_dimension, 2, device=like.device, dtype=torch.float32)
            rates = ROTARY_BASE ** (-exponents / self.head_dimension)
            angles = torch.outer(torch.arange(length, device=like.device, dtype=torch.float32), rates)
            angles = torch.cat([angles, angles], dim=-1)
            self.table = angles.cos(), angles.sin()
        cosines, sines = self.table
        return cosines[:length], sines[:length]


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate the feature pairs of (B, H, T, D/H) by their positions' angles, in float32 whatever the type of `x`."""
    first, second = x.chunk(2, dim=-1)
    return (x * cosines + torch.cat([-second, first], dim=-1) * sines).type_as(x)


class Attention(nn.Module):
    """Causal multi-head attention."""

    def __init__(self, size: Preset) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.dimension, 3 * size.dimension, bias=False)
        self.out = nn.Linear(size.dimension, size.dimension, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, documents: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        batch, length, dimension = x.shape
        parts = self.qkv(x).view(batch, length, 3, self.heads, dimension // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, cosines, sines), rotate(key, cosines, sines)
        mixed = attend(query, key, value, documents)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, dimension))


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv 2002.05202): down(silu(gate(x)) * up(x))."""

    def __init__(self, size: Preset) -> None:
        super().__init__()
        self.gate_up = nn.Linear(size.dimension, 2 * size.width, bias=False)
        self.down = nn.Linear(size.width, size.dimension, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """One layer: attention and feed-forward, each on a normalised input, each added to the stream."""

    def __init__(self, size: Preset) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(size.dimension, eps=size.norm_epsilon)
        self.attention = Attention(size)
        self.feed_forward_norm = nn.RMSNorm(size.dimension, eps=size.norm_epsilon)
        self.feed_forward = FeedForward(size)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, documents: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), cosines, sines, documents)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Llama(nn.Module):
    """The whole model: token ids to logits, or to losses."""

    def __init__(self, size: Preset, vocabulary: int) -> None:
        super().__init__()
        self.size, self.vocabulary = size, vocabulary
        self.embedding = nn.Embedding(vocabulary, size.dimension)
        self.rotary = Rotary(size.dimension // size.heads)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.dimension, eps=size.norm_epsilon)
        self.head = nn.Linear(size.dimension, vocabulary, bias=False)

    def forward(
        self, tokens: Tensor, targets: Tensor | None = None, documents: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(B, T) int64 ids -> (B, T, V) logits; with `targets`, (B, T) too, the sum of losses and each of them, as
        `head_loss` gives them. `documents`: their bounds, where tokens see only their own (`trainer.attention`)."""
        x = self.embedding(tokens)
        cosines, sines = self.rotary(tokens.shape[1], x)
        for block in self.blocks:
            x = block(x, cosines, sines, documents)
        x = self.norm(x)
        return self.head(x) if targets is None else head_loss(x, self.head.weight, targets)


def parameter_count(model: nn.Module) -> int:
    """How many parameters a model has."""
    return sum(parameter.numel() for parameter in model.parameters())
