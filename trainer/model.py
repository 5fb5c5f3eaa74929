"""The LLaMA model (arXiv 2302.13971, section 2.2).

It has RMSNorm before each layer (pre-norm), SwiGLU, rotary positions, no biases, and an output head that is not tied to
the embedding. Nothing here depends on shards or ranks; `trainer.parallel` adds them.

In shapes, B is the number of sequences, T the number of tokens, D the dimension, H the number of heads, and V the size
of the vocabulary.
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
# Number of logits that are computed at a time. On a CPU they fit into the cache. On a GPU they are enough to use the
# matrix units fully.
LOSS_CHUNK = {"cpu": 1 << 22, "cuda": 1 << 27}


class Rotary(nn.Module):
    """Rotary position embeddings. Feature i of a head is paired with feature i + D/2H.

    With this layout of two halves, an export to other libraries only renames weights. The table of cosines and sines is
    computed on first use, on the device of the input.
    """

    def __init__(self, head_dimension: int) -> None:
        super().__init__()
        self.head_dimension = head_dimension
        self.table: tuple[Tensor, Tensor] | None = None

    def forward(self, begin: int, end: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines for positions `begin` to `end`.

        Args:
            begin: The first position.
            end: The position after the last one.
            like: A tensor on the device of the result.

        Returns:
            Two float32 tensors of shape (end - begin, D/H).
        """
        if self.table is None or len(self.table[0]) < end or self.table[0].device != like.device:
            exponents = torch.arange(0, self.head_dimension, 2, device=like.device, dtype=torch.float32)
            rates = ROTARY_BASE ** (-exponents / self.head_dimension)
            # Round up to a power of two, so that a growing text seldom needs a new table.
            longest = 1 << (end - 1).bit_length()
            angles = torch.outer(torch.arange(longest, device=like.device, dtype=torch.float32), rates)
            angles = torch.cat([angles, angles], dim=-1)
            self.table = angles.cos(), angles.sin()
        cosines, sines = self.table
        return cosines[begin:end], sines[begin:end]


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate the feature pairs of `x`, (B, H, T, D/H), by the angles of their positions. Compute in float32."""
    first, second = x.chunk(2, dim=-1)
    return (x * cosines + torch.cat([-second, first], dim=-1) * sines).type_as(x)


def attend(query: Tensor, key: Tensor, value: Tensor, documents: Tensor | None) -> Tensor:
    """Compute causal attention.

    Without document bounds, PyTorch's fused kernel is used on every device. With document bounds, a token attends to
    its own document only. A GPU then uses variable-length attention, a CPU the fused kernel with a mask.

    Args:
        query: (B, H, T, D/H).
        key: (B, H, T, D/H).
        value: (B, H, T, D/H).
        documents: A bool mask or the result of `document_bounds`, or None for plain causal attention.

    Returns:
        (B, H, T, D/H).
    """
    if documents is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    if documents.dtype == torch.bool:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=documents)
    batch, heads, length, width = query.shape
    packed = [part.transpose(1, 2).reshape(batch * length, heads, width) for part in (query, key, value)]
    # This import is local because it loads the compiler, which takes seconds.
    from torch.nn.attention.varlen import varlen_attn

    mixed = varlen_attn(*packed, documents, documents, length, length, window_size=(-1, 0))
    return mixed.view(batch, length, heads, width).transpose(1, 2)


def document_bounds(tokens: Tensor, bos: int, device_type: str) -> Tensor:
    """Find the bounds of documents in a batch of tokens, for `attend`.

    Positions do not restart at a document, because rotary scores depend only on distances between tokens.

    Args:
        tokens: (B, T) token ids on the host.
        bos: Id of the begin-of-sequence token, with which each document begins.
        device_type: "cpu" or "cuda", the device on which `attend` will run.

    Returns:
        For a CPU, a (B, 1, T, T) bool mask. For a GPU, int32 cumulative lengths over all B·T tokens. They are padded
        with empty documents to a power of two, so that the shape rarely changes. A change of shape would cause a
        recompilation and a wait for the device.
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
    """Return the device to use for the value of `--device`: "cpu" or "cuda".

    Args:
        device: "cpu", "cuda", or "auto" to use a GPU if there is one.

    Raises:
        UserError: The value is "cuda" and there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here, give --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def prefer_fast_attention(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context manager that selects the kernel of attention on a GPU. On a CPU it does nothing.

    The order of preference is FlashAttention 3 if it is installed, cuDNN, FlashAttention 2. If deterministic algorithms
    are enabled, FlashAttention 2 is used, because only its gradients are deterministic.
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
    """The cached keys and values of one layer.

    Args:
        keys: (B, H, capacity, D/H).
        values: (B, H, capacity, D/H).
        length: Number of tokens that are already in the cache.
    """

    def __init__(self, keys: Tensor, values: Tensor, length: int = 0) -> None:
        self.keys, self.values, self.length = keys, values, length

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of T tokens, each (B, H, T, D/H). Return the keys and values of all tokens so far."""
        begin, self.length = self.length, self.length + key.shape[2]
        self.keys[:, :, begin : self.length] = key
        self.values[:, :, begin : self.length] = value
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class KeyValueCache:
    """The cached keys and values of all layers for B texts. With it, a forward pass computes only the new tokens.

    Args:
        model: The model. The cache is on its device and has the dtype of its weights.
        batch: Number of texts.
        capacity: Maximum number of tokens of a text.
    """

    def __init__(self, model: "Llama", batch: int, capacity: int) -> None:
        size, weight = model.size, model.embedding.weight
        shape = batch, size.heads, capacity, size.dimension // size.heads
        empty = functools.partial(torch.zeros, shape, dtype=weight.dtype, device=weight.device)
        self.layers = [LayerCache(empty(), empty()) for _ in range(size.layers)]

    @property
    def length(self) -> int:
        """Return the number of tokens in the cache."""
        return self.layers[0].length

    def mask(self, tokens: int) -> Tensor | None:
        """Return the (1, 1, new, cached + new) bool mask for `tokens` new tokens, or None if the cache is empty."""
        if self.length == 0:
            return None
        device = self.layers[0].keys.device
        queries = torch.arange(self.length, self.length + tokens, device=device)[:, None]
        mask: Tensor = torch.arange(self.length + tokens, device=device) <= queries
        return mask[None, None]

    def select(self, rows: Tensor) -> "KeyValueCache":
        """Return a cache with the texts of the given rows, (n,) int64. A row may be repeated."""
        chosen = copy.copy(self)
        chosen.layers = [LayerCache(layer.keys[rows], layer.values[rows], layer.length) for layer in self.layers]
        return chosen


class Attention(nn.Module):
    """A causal multi-head attention layer."""

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
    """A SwiGLU layer (Shazeer 2020, arXiv 2002.05202): down(silu(gate(x)) * up(x))."""

    def __init__(self, size: Preset) -> None:
        super().__init__()
        self.gate_up = nn.Linear(size.dimension, 2 * size.width, bias=False)
        self.down = nn.Linear(size.width, size.dimension, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """A transformer block. Attention and feed-forward take a normalized input and are added to the residual."""

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
        """Compute logits, or the losses of targets.

        Args:
            tokens: (B, T) int64 ids.
            targets: (B, T) int64 ids, or None for logits.
            documents: The result of `document_bounds`, or None to attend across documents.
            cache: Keys and values of earlier tokens, or None. The keys and values of `tokens` are added to it.
            last: Number of last tokens for which logits are returned, or 0 for all tokens.

        Returns:
            Without targets, (B, T, V) logits. With targets, the result of `compute_head_loss`.
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
    """The linear output layer. It returns logits, or the losses of targets."""

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Map (B, T, D) to logits, (B, T, V), or with targets to the result of `compute_head_loss`."""
        return F.linear(x, self.weight) if targets is None else compute_head_loss(x, self.weight, targets)


def compute_head_loss(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of a linear head without keeping all logits in memory.

    With 32,000 pieces, the logits of 16,384 tokens take 2 GiB in float32, and several times as much with their
    gradients. Here only the logits of a few rows exist at a time. Their gradient is computed in the forward pass, while
    the logits exist, so nothing is computed twice.

    Args:
        x: (B, T, D).
        weight: (V, D).
        targets: (B, T) int64.

    Returns:
        The sum of the losses in nats, a float32 scalar with gradient, and the loss of each token, (B, T) float32
        without gradient.
    """
    total, each = _HeadLoss.apply(x.flatten(0, 1), weight, targets.flatten(), torch.is_grad_enabled())
    return total, each.view(targets.shape)


class _HeadLoss(torch.autograd.Function):
    """The autograd function of `compute_head_loss`. Its forward pass also computes the gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, training: bool) -> tuple[Tensor, Tensor]:
        rows = max(1, LOSS_CHUNK[x.device.type] // len(weight))
        each = torch.empty(len(x), dtype=torch.float32, device=x.device)
        if training:
            x_gradient, weight_gradient = torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(x), rows):
            part, target = x[start : start + rows], targets[start : start + rows, None]
            scores = F.log_softmax(part @ weight.T, dim=-1, dtype=torch.float32)
            each[start : start + rows] = -scores.gather(1, target)[:, 0]
            if training:
                logit_gradient = scores.exp_()
                logit_gradient.scatter_add_(1, target, logit_gradient.new_full((1, 1), -1.0).expand_as(target))
                logit_gradient = logit_gradient.to(x.dtype)
                torch.mm(logit_gradient, weight, out=x_gradient[start : start + rows])
                if weight.dtype == torch.float32:
                    weight_gradient.addmm_(logit_gradient.T, part)
                else:
                    weight_gradient += logit_gradient.T @ part
        if training:
            ctx.save_for_backward(x_gradient, weight_gradient.to(weight.dtype))
        ctx.mark_non_differentiable(each)
        return each.sum(), each

    @staticmethod
    def backward(ctx: Any, total: Tensor, each: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_gradient, weight_gradient = ctx.saved_tensors
        return x_gradient * total, weight_gradient * total, None, None


def allocate(
    size: Preset, vocabulary: int, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Llama:
    """Return a whole model on one device. Its weights are not initialized; the caller must copy weights into it."""
    with torch.device("meta"):
        model = Llama(size, vocabulary)
    model.to(dtype).to_empty(device=device)
    return model
