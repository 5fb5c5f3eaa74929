"""LLaMA (arXiv 2302.13971, section 2.2): pre-norm with RMSNorm, SwiGLU, rotary positions, no biases, an untied head.

The page knows nothing of devices, shards or ranks; `trainer.parallel` applies those. Shapes: B sequences, T tokens, D
dimension, H heads, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.presets import Preset

NORM_EPSILON = 1e-6
"""of the published 7B model; the paper names none"""
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
        """Cosines and sines of shape (T, D/H), in the type of `like`."""
        if self.table is None or len(self.table[0]) < length or self.table[0].device != like.device:
            exponents = torch.arange(0, self.head_dimension, 2, device=like.device, dtype=torch.float32)
            rates = ROTARY_BASE ** (-exponents / self.head_dimension)
            angles = torch.outer(torch.arange(length, device=like.device, dtype=torch.float32), rates)
            angles = torch.cat([angles, angles], dim=-1)
            self.table = angles.cos(), angles.sin()
        cosines, sines = self.table
        return cosines[:length].to(like.dtype), sines[:length].to(like.dtype)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate the feature pairs of (B, H, T, D/H) by their positions' angles."""
    first, second = x.chunk(2, dim=-1)
    return x * cosines + torch.cat([-second, first], dim=-1) * sines


class Attention(nn.Module):
    """Causal multi-head attention through PyTorch's fused kernel."""

    def __init__(self, size: Preset) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.dimension, 3 * size.dimension, bias=False)
        self.out = nn.Linear(size.dimension, size.dimension, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        batch, length, dimension = x.shape
        parts = self.qkv(x).view(batch, length, 3, self.heads, dimension // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, cosines, sines), rotate(key, cosines, sines)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
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
        self.attention_norm = nn.RMSNorm(size.dimension, eps=NORM_EPSILON)
        self.attention = Attention(size)
        self.feed_forward_norm = nn.RMSNorm(size.dimension, eps=NORM_EPSILON)
        self.feed_forward = FeedForward(size)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), cosines, sines)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Llama(nn.Module):
    """The whole model: token ids to logits."""

    def __init__(self, size: Preset, vocabulary: int) -> None:
        super().__init__()
        self.size, self.vocabulary = size, vocabulary
        self.embedding = nn.Embedding(vocabulary, size.dimension)
        self.rotary = Rotary(size.dimension // size.heads)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.RMSNorm(size.dimension, eps=NORM_EPSILON)
        self.head = nn.Linear(size.dimension, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 ids -> (B, T, V) logits."""
        x = self.embedding(tokens)
        cosines, sines = self.rotary(tokens.shape[1], x)
        for block in self.blocks:
            x = block(x, cosines, sines)
        return self.head(self.norm(x))


def parameter_count(model: nn.Module) -> int:
    """How many parameters a model has."""
    return sum(parameter.numel() for parameter in model.parameters())
