"""Ranks, devices and shards of parameters: everything about parallelism, in the one place that knows of it.

One mesh, FSDP2 per block and for the whole; the same code runs on one CPU, several CPU ranks (gloo), and GPUs (nccl).
With replicas the mesh has two dimensions: parameters are spread inside a replica, gradients averaged over all.
"""

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

from filters.errors import UserError
from trainer.activation import wrap_blocks
from trainer.model import Llama
from trainer.presets import Preset

INIT_DEVIATION = 0.02
"""standard deviation of initial weights (GPT-2); the paper names none"""


@dataclass(frozen=True)
class Ranks:
    """This process among all."""

    rank: int
    world: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0


def kind_of(device: str) -> str:
    """ "cpu" or "cuda" for one of these or "auto". Raises UserError where there is no GPU."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no GPU here, give --device cpu")
    return kind


def start(device: str, threads: int, replicas: int = 1) -> Ranks:
    """Join the other ranks, as torchrun's environment names them; alone without one. `device`: as `kind_of` takes it.
    `threads`: of each rank on a CPU; another number gives sums of another order, and so other last digits. `replicas`:
    whole copies of the model, each spread over world / replicas ranks. Raises UserError."""
    kind = kind_of(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world % replicas:
        raise UserError(f"--replicas {replicas} does not divide {world} ranks")
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, rank=0, world_size=1, store=dist.HashStore())
    if kind == "cpu":
        torch.set_num_threads(threads)
    shape, names = ((replicas, world // replicas), ("replicate", "shard")) if replicas > 1 else ((world,), ("shard",))
    return Ranks(dist.get_rank(), world, torch.device(kind), init_device_mesh(kind, shape, mesh_dim_names=names))


def build(
    size: Preset,
    vocabulary: int,
    seed: int | None,
    ranks: Ranks,
    precision: str = "fp32",
    activation: str = "none",
    compiled: bool = False,
) -> Llama:
    """A model whose parameters are spread over the ranks, with initial weights that do not depend on their number;
    `seed` None leaves them undefined, for a checkpoint to fill. `precision`: bf16 computes in bfloat16, with weights
    and sums of gradients in float32. `activation`, `compiled`: see `trainer.activation`."""
    with torch.device("meta"):
        model = Llama(size, vocabulary)
    wrap_blocks(model, activation, compiled)
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    policy = half if precision == "bf16" else MixedPrecisionPolicy()
    reshard = shards(ranks) > 1  # alone there is nothing to free, and gathering again would be a copy for nothing
    for block in model.blocks:
        fully_shard(block, mesh=ranks.mesh, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(model, mesh=ranks.mesh, mp_policy=policy, reshard_after_forward=False)
    model.to_empty(device=ranks.device)
    if seed is not None:
        initialise(model, seed)
    return model


def shards(ranks: Ranks) -> int:
    """Over how many ranks one copy of the model is spread."""
    return int(ranks.mesh["shard"].size())


@torch.no_grad()
def initialise(model: Llama, seed: int) -> None:
    """Draw each parameter whole from a generator seeded by its name, and keep this rank's part. (Drawing the parts
    themselves gives every rank of a CPU mesh the same numbers.) Projections into the stream are scaled by
    1/sqrt(2 x layers), as GPT-2's are."""
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            whole = torch.ones(parameter.shape)
        else:
            scale = 1 / math.sqrt(2 * model.size.layers) if name.endswith(("out.weight", "down.weight")) else 1.0
            key = int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "big") >> 1
            generator = torch.Generator().manual_seed(key)
            whole = torch.empty(parameter.shape).normal_(0.0, INIT_DEVIATION * scale, generator=generator)
        fill(parameter, whole)


def fill(parameter: Tensor, whole: Tensor) -> None:
    """Copy into a parameter this rank's part of its value, which every rank has whole."""
    if isinstance(parameter, DTensor):
        place = (parameter.device_mesh, parameter.placements)
        whole = distribute_tensor(whole.to(parameter.device), *place, src_data_rank=None)
    parameter.copy_(whole)


@torch.no_grad()
def gradient_norm(model: nn.Module, ranks: Ranks) -> Tensor:
    """The norm of all gradients, a float64 scalar on the device. It is summed in float64, so that it does not depend on
    how the parameters are spread over the ranks."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    parts = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    squares = torch.stack([torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]).square().sum()
    dist.all_reduce(squares, group=ranks.mesh["shard"].get_group())
    return squares.sqrt()


def first_of_all(problem: str, world: int) -> str:
    """One of the sentences that ranks have to say, the same on every rank; empty where none has any."""
    said = [problem] * world
    dist.all_gather_object(said, problem)
    return min(filter(None, said), default="")


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all ranks."""
    dist.all_reduce(values)
    return values


def gathered(values: Tensor, world: int) -> Tensor:
    """(n, ...) of every rank -> (n * world, ...), interleaved: rank r's rows at r :: world."""
    parts = [torch.empty_like(values) for _ in range(world)]
    dist.all_gather(parts, values)
    return torch.stack(parts, dim=1).flatten(0, 1)


def on_its_way(values: Tensor) -> Callable[[], Tensor]:
    """Begin to copy a tensor to the host. The function it gives waits for that copy, and not for what the device was
    told to do after it."""
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


def reshard(model: Llama) -> None:
    """Spread the parameters again after a forward pass that no backward pass follows."""
    for module in (*model.blocks, model):
        module.reshard()


def peak_memory(device: torch.device) -> float:
    """The most bytes that this process has held: on its GPU, or resident on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
