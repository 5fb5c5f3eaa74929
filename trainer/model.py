"""LLaMA (arXiv 2302.13971, section 2.2): pre-norm with RMSNorm, SwiGLU, rotary positions, no biases, an untied head.

Nothing here depends on devices, shards or ranks; `trainer.parallel` applies those. In shapes, B is the number of
sequences, T tokens, D the dimension, H heads and V the vocabulary.
"""

import copy
import functools
import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, activate_flash_attention_impl, sdpa_kernel

from filters.errors import UserError
from manifests.sizes import Preset

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

    def forward(self, begin: int, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of positions, each (end - begin, D/H) float32 on the device of `like`."""
        if self.table is None or len(self.table[0]) < end or self.table[0].device != like.device:
            exponents = torch.arange(0, self.head_dimension, 2, device=like.device, dtype=torch.float32)
            rates = ROTARY_BASE ** (-exponents / self.head_dimension)
            longest = 1 << (end - 1).bit_length()  # so that a growing text seldom needs a new table
            angles = torch.outer(torch.arange(longest, device=like.device, dtype=torch.float32), rates)
            angles = torch.cat([angles, angles], dim=-1)
            self.table = angles.cos(), angles.sin()
        cosines, sines = self.table
        return cosines[begin:end], sines[begin:end]


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


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "cpu", "cuda" or "auto". Raise UserError for "cuda" without a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here, give --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def prefer_fast_attention(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which a GPU prefers FlashAttention 3 where installed, else cuDNN, else FlashAttention 2.

    Where algorithms must be deterministic it is FlashAttention 2, the only one whose gradients are.
    """
    if device.type != "cuda":
        return nullcontext()
    context: AbstractContextManager[Any]
    if torch.are_deterministic_algorithms_enabled():
        context = sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True)
        return context
    if importlib.util.find_spec("flash_attn_interface") and torch.cuda.get_device_capability(device)[0] == 9:
        activate_flash_attention_impl("FA3")
        return nullcontext()
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    context = sdpa_kernel(order, set_priority=True)
    return context


class LayerCache:
    """Keys and values of one layer for the tokens so far, (B, H, capacity, D/H) each."""

    def __init__(self, keys: Tensor, values: Tensor, length: int = 0) -> None:
        self.keys, self.values, self.length = keys, values, length

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add the (B, H, T, D/H) keys and values of T more tokens, and return those of all tokens."""
        begin, self.length = self.length, self.length + key.shape[2]
        self.keys[:, :, begin : self.length] = key
        self.values[:, :, begin : self.length] = value
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class KeyValueCache:
    """Keys and values of the tokens of B texts so far, so that each forward pass computes the new tokens only.

    Args:
        model: The model whose keys and values are kept, on its device and in the type of its weights.
        batch: Number of texts.
        capacity: The largest number of tokens of a text.
    """

    def __init__(self, model: "Llama", batch: int, capacity: int) -> None:
        size, weight = model.size, model.embedding.weight
        shape = batch, size.heads, capacity, size.dimension // size.heads
        empty = functools.partial(torch.zeros, shape, dtype=weight.dtype, device=weight.device)
        self.layers = [LayerCache(empty(), empty()) for _ in range(size.layers)]

    @property
    def length(self) -> int:
        """Return the number of tokens so far."""
        return self.layers[0].length

    def mask(self, tokens: int) -> Tensor | None:
        """Return the mask of `tokens` more tokens for `attend`: (1, 1, T, all tokens) bool, None if causal."""
        if self.length == 0:
            return None
        device = self.layers[0].keys.device
        queries = torch.arange(self.length, self.length + tokens, device=device)[:, None]
        mask: Tensor = torch.arange(self.length + tokens, device=device) <= queries
        return mask[None, None]

    def select(self, rows: Tensor) -> "KeyValueCache":
        """Return a cache of some of the texts, each as often as `rows`, (n,) int64, names it."""
        chosen = copy.copy(self)
        chosen.layers = [LayerCache(layer.keys[rows], layer.values[rows], layer.length) for layer in self.layers]
        return chosen


class Attention(nn.Module):
    """Causal multi-head attention."""

    def __init__(self, size: Preset) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.dimension, 3 * size.dimension, bias=False)
        self.out = nn.Linear(size.dimension, size.dimension, bias=False)

    def forward(
        self,
        x: Tensor,
        cosines: Tensor,
        sines: Tensor,
        documents: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        batch, length, dimension = x.shape
        parts = self.qkv(x).view(batch, length, 3, self.heads, dimension // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = rotate(query, cosines, sines), rotate(key, cosines, sines)
        if cache is not None:
            key, value = cache.append(key, value)
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

    def forward(
        self,
        x: Tensor,
        cosines: Tensor,
        sines: Tensor,
        documents: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        x = x + self.attention(self.attention_norm(x), cosines, sines, documents, cache)
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
        self.head = Head(size.dimension, vocabulary, bias=False)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KeyValueCache | None = None,
        last: int = 0,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits, or the losses of targets.

        Args:
            tokens: (B, T) int64 ids.
            targets: (B, T) int64 ids, or None for logits.
            documents: The result of `document_bounds`, or None to attend across documents.
            cache: Keys and values of the tokens before these, to which those of these are added.
            last: Return logits of this many last tokens only; 0 for all.

        Returns:
            (B, T, V) logits; with targets, the sum of losses and each loss, as `compute_head_loss` returns them.
        """
        x = self.embedding(tokens)
        begin = cache.length if cache else 0
        cosines, sines = self.rotary(begin, begin + tokens.shape[1], x)
        if cache:
            documents = cache.mask(tokens.shape[1])
        layers = cache.layers if cache else [None] * len(self.blocks)
        for block, layer in zip(self.blocks, layers, strict=True):
            x = block(x, cosines, sines, documents, layer)
        result: Tensor | tuple[Tensor, Tensor] = self.head(self.norm(x[:, -last:]), targets)
        return result


class Head(nn.Linear):
    """The map from the last norm to logits, or to the losses of targets."""

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Map (B, T, D) to (B, T, V), or to the result of `compute_head_loss`."""
        return F.linear(x, self.weight) if targets is None else compute_head_loss(x, self.weight, targets)


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


def allocate(
    size: Preset, vocabulary: int, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Llama:
    """Return a whole model on one device, whose weights are undefined: a checkpoint is to fill them."""
    with torch.device("meta"):
        model = Llama(size, vocabulary)
    model.to(dtype).to_empty(device=device)
    return model
