"""Ranks, devices and shards of parameters: the only module that knows about parallelism.

It uses one mesh, and FSDP2 per block and for the whole model; the same code runs on one CPU, several CPU ranks (gloo)
and GPUs (nccl). With replicas the mesh has two dimensions: parameters are sharded inside a replica, and gradients are
averaged over all ranks.
"""

import functools
import hashlib
import math
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from filters.errors import UserError
from trainer.model import Llama
from trainer.sizes import Preset

INIT_DEVIATION = 0.02  # standard deviation of initial weights (GPT-2); the paper states none
_aten = torch.ops.aten
# Outputs that selective checkpointing keeps: matrix products and attention. Norms, rotations and the gate cost little
# to compute again and hold almost half of the memory.
KEPT_OUTPUTS = [
    _aten.mm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
]


@dataclass(frozen=True)
class Ranks:
    """This process among all processes of the run."""

    rank: int
    world: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def first(self) -> bool:
        """Return True for the process that writes and prints."""
        return self.rank == 0

    @property
    def shards(self) -> int:
        """Return the number of ranks over which one copy of the model is sharded."""
        return int(self.mesh["shard"].size())


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "cpu", "cuda" or "auto". Raise UserError for "cuda" without a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here, give --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def start(device: str, threads: int, replicas: int = 1) -> Ranks:
    """Join the other ranks as torchrun's environment names them, or start alone without such an environment.

    Args:
        device: "cpu", "cuda" or "auto".
        threads: Threads of each rank on a CPU; another number sums in another order and so changes the last digits.
        replicas: Whole copies of the model, each sharded over world / replicas ranks.

    Raises:
        UserError: The number of ranks is no multiple of the number of replicas, or there is no GPU.
    """
    device = resolve_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world % replicas:
        raise UserError(f"--replicas {replicas} does not divide {world} ranks")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    alone = {} if "RANK" in os.environ else {"rank": 0, "world_size": 1, "store": dist.HashStore()}
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", **alone)
    if device == "cpu":
        torch.set_num_threads(threads)
    shape, names = ((replicas, world // replicas), ("replicate", "shard")) if replicas > 1 else ((world,), ("shard",))
    return Ranks(dist.get_rank(), world, torch.device(device), init_device_mesh(device, shape, mesh_dim_names=names))


def stop() -> None:
    """Leave the process group, so that the other ranks can end."""
    if dist.is_initialized():
        dist.destroy_process_group()


def build(
    size: Preset,
    vocabulary: int,
    seed: int | None,
    ranks: Ranks,
    precision: str = "fp32",
    activation: str = "none",
    compiled: bool = False,
) -> Llama:
    """Return a model sharded over the ranks, with initial weights that do not depend on the number of ranks.

    Args:
        size: The model's size.
        vocabulary: Rows of the embedding and of the head.
        seed: Seed of the initial weights; None leaves them undefined, for a checkpoint to fill.
        ranks: This process among all.
        precision: "fp32", or "bf16" to compute in bfloat16 with weights and sums of gradients in float32.
        activation: See `wrap_blocks`.
        compiled: See `wrap_blocks`.
    """
    with torch.device("meta"):
        model = Llama(size, vocabulary)
    wrap_blocks(model, activation, compiled)
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    policy = half if precision == "bf16" else MixedPrecisionPolicy()
    for block in model.blocks:  # an unsharded model has nothing to free, and gathering it again would only copy
        fully_shard(block, mesh=ranks.mesh, mp_policy=policy, reshard_after_forward=ranks.shards > 1)
    fully_shard(model, mesh=ranks.mesh, mp_policy=policy, reshard_after_forward=False)
    model.to_empty(device=ranks.device)
    if seed is not None:
        initialize(model, seed)
    return model


def wrap_blocks(model: Llama, activation: str, compiled: bool) -> None:
    """Wrap each block's `forward` in activation checkpointing and compilation; names of parameters do not change.

    Args:
        model: The model to change.
        activation: Outputs kept for the backward pass: "none" checkpoints nothing and keeps all, "selective" keeps
            `KEPT_OUTPUTS`, "full" keeps only the input of each block.
        compiled: Compile each block with torch.compile.
    """
    contexts = functools.partial(create_selective_checkpoint_contexts, KEPT_OUTPUTS)
    for block in model.blocks:
        forward = block.forward
        if activation != "none":
            kept = {"context_fn": contexts} if activation == "selective" else {}
            forward = functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False, **kept)
        block.forward = torch.compile(forward) if compiled else forward


@torch.no_grad()
def initialize(model: Llama, seed: int) -> None:
    """Draw each parameter whole from a generator seeded by its name, and keep this rank's part.

    Projections into the residual stream are scaled by 1/sqrt(2 x layers), as in GPT-2. Drawing the parts themselves
    would give every rank of a CPU mesh the same numbers.
    """
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            whole = torch.ones(parameter.shape)
        else:
            scale = 1 / math.sqrt(2 * model.size.layers) if name.endswith(("out.weight", "down.weight")) else 1.0
            key = int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "big") >> 1
            generator = torch.Generator().manual_seed(key)
            whole = torch.empty(parameter.shape).normal_(0.0, INIT_DEVIATION * scale, generator=generator)
        copy_shard(parameter, whole)


def copy_shard(parameter: Tensor, whole: Tensor) -> None:
    """Copy into a parameter this rank's part of a value that every rank holds whole."""
    if isinstance(parameter, DTensor):
        place = (parameter.device_mesh, parameter.placements)
        whole = distribute_tensor(whole.to(parameter.device), *place, src_data_rank=None)
    parameter.copy_(whole)


def reshard(model: Llama) -> None:
    """Shard the parameters again after a forward pass that no backward pass follows."""
    for module in (*model.blocks, model):
        module.reshard()


@torch.no_grad()
def gradient_norm(model: nn.Module, ranks: Ranks) -> Tensor:
    """Return the norm of all gradients, a float64 scalar on the device.

    Summing in float64 makes it independent of how the parameters are sharded.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    parts = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    squares = torch.stack([torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]).square().sum()
    dist.all_reduce(squares, group=ranks.mesh["shard"].get_group())
    return squares.sqrt()


def first_error_across_ranks(error: str, world: int) -> str:
    """Return one of the ranks' error messages, the same on every rank, or "" if no rank has any."""
    errors = [error] * world
    dist.all_gather_object(errors, error)
    return min(filter(None, errors), default="")


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks."""
    dist.all_reduce(values)
    return values


def gather_rows(values: Tensor, world: int) -> Tensor:
    """Gather (n, ...) of every rank into (n * world, ...), with rank r's rows at r :: world."""
    parts = [torch.empty_like(values) for _ in range(world)]
    dist.all_gather(parts, values)
    return torch.stack(parts, dim=1).flatten(0, 1)


def copy_to_host_async(values: Tensor) -> Callable[[], Tensor]:
    """Start to copy a tensor to the host.

    Returns:
        A function that waits for the copy, but not for work given to the device later, and returns the host's tensor.
    """
    if values.device.type != "cuda":
        return lambda: values
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def wait() -> Tensor:
        done.synchronize()
        return host

    return wait


def peak_memory(device: torch.device) -> float:
    """Return the most bytes that this process has held: on its GPU, or resident on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
