"""Ranks, devices and shards of parameters: everything about parallelism, in the one place that knows of it.

One mesh, FSDP2 per block and for the whole; the same code runs on one CPU, several CPU ranks (gloo), and GPUs (nccl).
"""

import hashlib
import math
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from trainer.model import Llama
from trainer.optimizer import CLIP
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


def start(device: str, threads: int) -> Ranks:
    """Join the other ranks, as torchrun's environment names them; alone without one. `device`: auto, cpu or cuda.
    `threads`: of each rank on a CPU; another number gives sums of another order, and so other last digits."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, rank=0, world_size=1, store=dist.HashStore())
    if kind == "cpu":
        torch.set_num_threads(threads)
    world = dist.get_world_size()
    return Ranks(dist.get_rank(), world, torch.device(kind), init_device_mesh(kind, (world,)))


def build(size: Preset, vocabulary: int, seed: int, ranks: Ranks) -> Llama:
    """A model whose parameters are spread over the ranks, with initial weights that do not depend on their number."""
    with torch.device("meta"):
        model = Llama(size, vocabulary)
    policy = MixedPrecisionPolicy()
    if ranks.device.type == "cuda":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, mesh=ranks.mesh, mp_policy=policy)
    fully_shard(model, mesh=ranks.mesh, mp_policy=policy)
    model.to_empty(device=ranks.device)
    initialise(model, seed)
    return model


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
        if isinstance(parameter, DTensor):
            parameter.copy_(distribute_tensor(whole.to(parameter.device), parameter.device_mesh, parameter.placements))
        else:
            parameter.copy_(whole)


@torch.no_grad()
def clip_gradients(model: nn.Module) -> float:
    """Scale all gradients so that their norm is at most `CLIP`, and give the norm before. It is summed in float64, so
    that it does not depend on how the parameters are spread over the ranks."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    parts = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    squares = [torch.linalg.vector_norm(part, dtype=torch.float64) ** 2 for part in parts]
    norm = float(summed(torch.stack(squares).sum()).sqrt())
    if norm > CLIP:
        torch._foreach_mul_(parts, CLIP / norm)
    return norm


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all ranks."""
    dist.all_reduce(values)
    return values


def gathered(values: Tensor, world: int) -> Tensor:
    """(n,) of every rank -> (n * world,), interleaved: rank r's values at r :: world."""
    parts = [torch.empty_like(values) for _ in range(world)]
    dist.all_gather(parts, values)
    return torch.stack(parts, dim=1).reshape(-1)


def weights_sha(model: nn.Module) -> str:
    """SHA-256 over all parameters, whole, in order of name: equal for equal weights, whatever the number of ranks."""
    total = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        total.update(name.encode() + whole.detach().float().cpu().numpy().tobytes())
    return total.hexdigest()
