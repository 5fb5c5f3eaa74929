"""What a block keeps of its forward pass for the backward pass, and whether it is compiled: both wrap its `forward`,
so that names of parameters and checkpoints stay as they are."""

import functools

import torch
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from trainer.model import Llama

_aten = torch.ops.aten
KEPT = [
    _aten.mm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
]
"""what `selective` does not compute twice: the products of matrices and attention. Norms, rotations and the gate cost
little and hold almost half of the memory."""


def wrap_blocks(model: Llama, mode: str, compiled: bool) -> None:
    """Wrap each block. `mode`: none keeps everything, selective the outputs of `KEPT`, full the block's input alone."""
    for block in model.blocks:
        forward = block.forward
        if mode != "none":
            how = {"context_fn": _selective} if mode == "selective" else {}
            forward = functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False, **how)
        block.forward = torch.compile(forward) if compiled else forward


def _selective() -> object:
    return create_selective_checkpoint_contexts(KEPT)
