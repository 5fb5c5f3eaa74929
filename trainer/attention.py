"""Which attention kernel runs where: the model calls `attend` and knows of none of them.

Plain causal attention is PyTorch's fused kernel on every device. With document masks a token sees only its own
document: variable-length attention on a GPU, the same fused kernel with a mask on a CPU. Positions do not begin anew
with a document: rotary scores depend on distances alone, so that would change nothing.
"""

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, activate_flash_attention_impl, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn


def attend(query: Tensor, key: Tensor, value: Tensor, documents: Tensor | None) -> Tensor:
    """Causal attention of (B, H, T, D/H) queries, keys and values. `documents`: None, or what `bounds` made."""
    if documents is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)
    if documents.dtype == torch.bool:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=documents)
    batch, heads, length, width = query.shape
    packed = [part.transpose(1, 2).reshape(batch * length, heads, width) for part in (query, key, value)]
    mixed = varlen_attn(*packed, documents, documents, length, length, window_size=(-1, 0))
    return mixed.view(batch, length, heads, width).transpose(1, 2)


def bounds(tokens: Tensor, bos: int, kind: str) -> Tensor:
    """Where documents begin in (B, T) token ids on the host, for `attend` on a device of that kind ("cpu", "cuda").

    For a CPU a (B, 1, T, T) bool mask. Else int32 cumulative lengths over all B·T tokens, padded by empty documents to
    a power of two: shapes that hardly ever change need no new compilation and no look at the device.
    """
    begins = tokens == bos
    if kind == "cpu":
        document = begins.cumsum(1)
        same = document[:, :, None] == document[:, None, :]
        return same.tril()[:, None]
    begins[:, 0] = True
    starts = begins.flatten().nonzero().flatten()
    padded = torch.full((1 << len(starts).bit_length(),), tokens.numel(), dtype=torch.int32)
    padded[: len(starts)] = starts
    return F.pad(padded, (0, 1), value=tokens.numel())


def kernels(device: torch.device) -> AbstractContextManager[Any]:
    """While this lasts, a GPU prefers its fastest kernels: FlashAttention 3 where it is installed, else cuDNN's, then
    FlashAttention 2."""
    if device.type != "cuda":
        return nullcontext()
    if importlib.util.find_spec("flash_attn_interface") and torch.cuda.get_device_capability(device)[0] == 9:
        activate_flash_attention_impl("FA3")
        return nullcontext()
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    chosen: AbstractContextManager[Any] = sdpa_kernel(order, set_priority=True)
    return chosen
