"""LLaMA (arXiv 2302.13971, section 2.2): pre-norm with RMSNorm, SwiGLU, rotary positions, no biases, an untied head.

Nothing here depends on devices, shards or ranks; `trainer.parallel` applies those. In shapes, B is the number of
sequences, T tokens, D the dimension, H heads and V the vocabulary.
"""

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, activate_flash_attention_impl, sdpa_kernel

from trainer.sizes import Preset

ROTARY_BASE = 10_000.0  # Su et al. 2021 (arXiv 2104.09864), section 3.2.2
LOSS_CHUNK = {"cpu": 1 << 22, "cuda": 1 << 27}  # logits at a time: they fit a CPU's cache, or fill a GPU's matrix units


class Rotary(nn.Module):
    """Rotary position embeddings that pair feature i with feature i + D/2H.

    With this layout of two halves, an export to other libraries only renames weights. The table is computed on first
    use, on the device of its input.
    """

    def __init__(self, head_dimension: int) -> None:
        super().__init__()
        self.head_dimension = head_dimension
        self.table: tuple[Tensor, Tensor] | None = None

    def forward(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines, each (T, D/H) float32 on the device of `like`."""
        if self.table is None or len(self.table[0]) < length or self.table[0].device != like.device:
            exponents = torch.arange(0, self.head_dimension, 2, device=like.device, dtype=torch.float32)
            rates = ROTARY_BASE ** (-exponents / self.head_dimension)
            angles = torch.outer(torch.arange(length, device=like.device, dtype=torch.float32), rates)
            angles = torch.cat([angles, angles], dim=-1)
            self.table = angles.cos(), angles.sin()
        cosines, sines = self.table
        return cosines[:length], sines[:length]


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate the feature pairs of (B, H, T, D/H) by the angles of their positions, in float32 for any type of `x`."""
    first, second = x.chunk(2, dim=-1)
    return (x * cosines + torch.cat([-second, first], dim=-1) * sines).type_as(x)


def attend(query: Tensor, key: Tensor, value: Tensor, documents: Tensor | None) -> Tensor:
    """Return causal attention of (B, H, T, D/H) queries, keys and values.

    Plain causal attention is PyTorch's fused kernel on every device. With document bounds a token attends to its own
    document only: by variable-length attention on a GPU, by the fused kernel with a mask on a CPU.

    Args:
        query: Like `key` and `value`, (B, H, T, D/H).
        key: See `query`.
        value: See `query`.
        documents: The result of `document_bounds`, or None to attend across documents.
    """
    if documents is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    if documents.dtype == torch.bool:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=documents)
    batch, heads, length, width = query.shape
    packed = [part.transpose(1, 2).reshape(batch * length, heads, width) for part in (query, key, value)]
    from torch.nn.attention.varlen import varlen_attn  # imports the compiler, in seconds

    mixed = varlen_attn(*packed, documents, documents, length, length, window_size=(-1, 0))
    return mixed.view(batch, length, heads, width).transpose(1, 2)


def document_bounds(tokens: Tensor, bos: int, device_type: str) -> Tensor:
    """Return the bounds of documents in (B, T) token ids on the host, for `attend` on a "cpu" or "cuda" device.

    Positions do not restart with a document: rotary scores depend on distances only, so it would change nothing.

    Returns:
        For a CPU a (B, 1, T, T) bool mask. Otherwise int32 cumulative lengths over all B·T tokens, padded by empty
        documents to a power of two: shapes that rarely change need no recompilation and no wait for the device.
    """
    begins = tokens == bos
    if device_type == "cpu":
        document = begins.cumsum(1)
        same = document[:, :, None] == document[:, None, :]
        return same.tril()[:, None]
    begins[:, 0] = True
    starts = begins.flatten().nonzero().flatten()
    padded = torch.full((1 << len(starts).bit_length(),), tokens.numel(), dtype=torch.int32)
    padded[: len(starts)] = starts
    return F.pad(padded, (0, 1), value=tokens.numel())


def prefer_fast_attention(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which a GPU prefers FlashAttention 3 where installed, else cuDNN, else FlashAttention 2."""
    if device.type != "cuda":
        return nullcontext()
    if importlib.util.find_spec("flash_attn_interface") and torch.cuda.get_device_capability(device)[0] == 9:
        activate_flash_attention_impl("FA3")
        return nullcontext()
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    context: AbstractContextManager[Any] = sdpa_kernel(order, set_priority=True)
    return context


class Attention(nn.Module):
    """Causal multi-head attention."""

    def __init__(self, size: Preset) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.dimension, 3 * size.dimension, bias=False)
        self.out = nn.Linear(size.dimension, size.dimension, bias=False)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, documents: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
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
        """Map (B, T, D) to (B, T, D)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """One layer: attention and feed-forward, each on a normalized input, each added to the residual stream."""

    def __init__(self, size: Preset) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(size.dimension, eps=size.norm_epsilon)
        self.attention = Attention(size)
        self.feed_forward_norm = nn.RMSNorm(size.dimension, eps=size.norm_epsilon)
        self.feed_forward = FeedForward(size)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, documents: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), cosines, sines, documents)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Llama(nn.Module):
    """The whole model, from token ids to logits or losses."""

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
        """Return logits, or the losses of targets.

        Args:
            tokens: (B, T) int64 ids.
            targets: (B, T) int64 ids, or None for logits.
            documents: The result of `document_bounds`, or None to attend across documents.

        Returns:
            (B, T, V) logits; with targets, the sum of losses and each loss, as `compute_head_loss` returns them.
        """
        x = self.embedding(tokens)
        cosines, sines = self.rotary(tokens.shape[1], x)
        for block in self.blocks:
            x = block(x, cosines, sines, documents)
        x = self.norm(x)
        return self.head(x) if targets is None else compute_head_loss(x, self.head.weight, targets)


def compute_head_loss(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of a linear head without holding all logits.

    At 32,000 pieces the logits of 16,384 tokens take 2 GiB in float32, and several times that with their gradients.
    Here the logits of a few rows exist at a time, and their gradient is computed at once, so nothing is computed twice.

    Args:
        x: (B, T, D).
        weight: (V, D).
        targets: (B, T) int64.

    Returns:
        The sum of losses in nats, a float32 scalar with gradients, and each loss, (B, T) float32 without gradients.
    """
    total, each = _HeadLoss.apply(x.flatten(0, 1), weight, targets.flatten(), torch.is_grad_enabled())
    return total, each.view(targets.shape)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        rows = max(1, LOSS_CHUNK[x.device.type] // len(weight))
        each = torch.empty(len(x), dtype=torch.float32, device=x.device)
        if training:
            to_x, to_weight = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(x), rows):
            part, target = x[start : start + rows], targets[start : start + rows, None]
            scores = F.log_softmax(part @ weight.T, dim=-1, dtype=torch.float32)
            each[start : start + rows] = -scores.gather(1, target)[:, 0]
            if training:
                slope = scores.exp_()
                slope.scatter_add_(1, target, slope.new_full((1, 1), -1.0).expand_as(target))
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
