"""Ranks, devices and sharded parameters. All code for parallelism is in this module.

It uses one device mesh, and FSDP2 for the embedding, each block and the head. The same code runs on one CPU process, on
several CPU ranks (gloo) and on GPUs (nccl). With replicas, the mesh has two dimensions: parameters are sharded inside a
replica, and gradients are averaged over all ranks.
"""

import datetime
import functools
import itertools
import math
import os
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from filters.errors import UserError
from manifests.order import hash_text
from manifests.sizes import Preset
from trainer.model import Llama

INIT_BLOCK = 1 << 16  # number of random numbers that are drawn from one generator
INIT_DEVIATION = 0.02  # Standard deviation of initial weights, as in GPT-2. The paper of LLaMA does not state it.
_aten = torch.ops.aten
# Operations whose outputs selective checkpointing keeps: matrix products and attention. The outputs of norms, rotations
# and the gate take almost half of the memory and cost little to compute again.
KEPT_OUTPUTS = [
    _aten.mm.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
]

# Kind of activation checkpointing -> how many numbers a block keeps for its backward pass, per token and per unit of
# the model's dimension.
# - "none": the inputs and outputs of both norms; the product for queries, keys and values, with the rotations;
#   attention's output twice; 4 times the SwiGLU width, which is 8/3 of the dimension.
# - "selective": the block's input, the outputs of the four matrix products, and the output of attention.
# - "full": the block's input.
KEPT_NUMBERS = {"none": 23.0, "selective": 12.5, "full": 1.0}
# Bytes for the head's input and its gradient, per token of a micro-batch and per unit of the model's dimension.
LOSS_BYTES = 12
# Maximum number of tokens in a micro-batch on a CPU. More tokens do not fit into its caches and save no time.
CPU_TOKENS = 2_048
SPARE = 0.15  # share of a GPU's memory that is reserved for temporary buffers and fragmentation


@dataclass(frozen=True)
class Ranks:
    """This process among all processes of the run.

    Attributes:
        rank: Rank of this process.
        world: Number of ranks.
        device: The device of this rank.
        mesh: The device mesh. Its dimensions are "shard", or "replicate" and "shard".
    """

    rank: int
    world: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def is_first(self) -> bool:
        """Return True for rank 0, the process that writes files and prints."""
        return self.rank == 0

    @property
    def shards(self) -> int:
        """Return the number of ranks over which one copy of the model is sharded."""
        return int(self.mesh["shard"].size())


def start(
    device: str, threads: int, replicas: int = 1, deterministic: bool = False, hang_seconds: float = 1800.0
) -> Ranks:
    """Initialize the process group from torchrun's environment variables, or with one process if there are none.

    Args:
        device: "cpu" or "cuda".
        threads: Threads of each rank on a CPU. The number changes the order of additions, and so the last digits.
        replicas: Number of copies of the model. Each copy is sharded over world / replicas ranks.
        deterministic: True to use algorithms that give the same bits each time, if PyTorch has them.
        hang_seconds: Limit of `trainer.watchdog`. The time limit of collectives is twice this value plus a margin.

    Raises:
        UserError: The number of ranks is not a multiple of the number of replicas.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world % replicas:
        raise UserError(f"--replicas {replicas} does not divide {world} ranks")
    if deterministic:
        # cuBLAS needs this setting for deterministic products.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # This option is for debugging. It would cost time, because it writes all allocated memory.
        torch.utils.deterministic.fill_uninitialized_memory = False
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    alone = {} if "RANK" in os.environ else {"rank": 0, "world_size": 1, "store": dist.HashStore()}
    # The limit is longer than that of the watchdog, so that the watchdog ends the run first and names the rank.
    limit = datetime.timedelta(seconds=2 * hang_seconds + 60)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=limit, **alone)
    if device == "cpu":
        torch.set_num_threads(threads)
    shape, names = ((replicas, world // replicas), ("replicate", "shard")) if replicas > 1 else ((world,), ("shard",))
    return Ranks(dist.get_rank(), world, torch.device(device), init_device_mesh(device, shape, mesh_dim_names=names))


def stop() -> None:
    """Destroy the process group, so that the other ranks can end."""
    torch.use_deterministic_algorithms(False)
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
    """Return a model that is sharded over the ranks. Its initial weights do not depend on the number of ranks.

    Args:
        size: The model's size.
        vocabulary: Rows of the embedding and of the head.
        seed: Seed of the initial weights, or None to leave them uninitialized, if a checkpoint will be loaded.
        ranks: This process among all.
        precision: "fp32", or "bf16" for products in bfloat16, with weights and sums of gradients in float32.
        activation: See `wrap_blocks`.
        compiled: See `wrap_blocks`.
    """
    with torch.device("meta"):
        model = Llama(size, vocabulary)
    wrap_blocks(model, activation, compiled)
    half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    policy = half if precision == "bf16" else MixedPrecisionPolicy()
    shard = functools.partial(fully_shard, mesh=ranks.mesh, mp_policy=policy)
    # Resharding an unsharded model would free no memory, and gathering it again would only copy it.
    sharded = ranks.shards > 1
    for module in (model.embedding, *model.blocks):
        shard(module, reshard_after_forward=sharded)
    shard([model.norm, model.head], reshard_after_forward=False)  # The backward pass begins with these modules.
    shard(model, reshard_after_forward=False)
    if sharded:
        # While one module computes, gather the parameters of the next, in the forward and backward pass.
        for one, following in itertools.pairwise((model.embedding, *model.blocks, model.head)):
            one.set_modules_to_forward_prefetch([following])
            following.set_modules_to_backward_prefetch([one])
    model.to_empty(device=ranks.device)
    if seed is not None:
        initialize(model, seed)
    return model


def wrap_blocks(model: Llama, activation: str, compiled: bool) -> None:
    """Wrap each block's `forward` in activation checkpointing and torch.compile. Parameter names do not change.

    Args:
        model: The model to change.
        activation: Activation checkpointing. "none" keeps all outputs for the backward pass, "selective" keeps the
            outputs of `KEPT_OUTPUTS`, "full" keeps only the input of each block.
        compiled: True to compile each block with torch.compile.
    """
    contexts = functools.partial(create_selective_checkpoint_contexts, KEPT_OUTPUTS)
    for block in model.blocks:
        forward = block.forward
        if activation != "none":
            kept = {"context_fn": contexts} if activation == "selective" else {}
            forward = functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=False, **kept)
        block.forward = torch.compile(forward) if compiled else forward


def estimate_rank_memory(
    size: Preset, vocabulary: int, length: int, micro_batch: int, shards: int, half: bool, activation: str
) -> dict[str, float]:
    """Estimate the bytes that a rank holds on its device at the end of a forward pass.

    Args:
        size: The model's size.
        vocabulary: Rows of the embedding and of the head.
        length: Tokens of a sequence.
        micro_batch: Number of sequences that the rank processes at once.
        shards: Number of ranks over which one copy of the model is sharded.
        half: True if products are computed in bfloat16.
        activation: Activation checkpointing, a key of KEPT_NUMBERS.

    Returns:
        A dict from kind of tensor to bytes: "weights", "gradients", "moments", "gathered", "activations".
    """
    item, own = 2 if half else 4, size.count_parameters(vocabulary) / shards
    group = max(size.block_parameters // size.layers, vocabulary * size.dimension)
    # All blocks keep their outputs, and one block is computed again and then has all outputs.
    kept = KEPT_NUMBERS[activation] * size.layers + KEPT_NUMBERS["none"]
    return {
        "weights": 4 * own,
        "gradients": 4 * own,
        "moments": 8 * own,
        # Gathered weights of two groups and of the head, and the float32 gradients of one group during reduction.
        "gathered": item * (2 * group + vocabulary * size.dimension) + 4 * group,
        "activations": micro_batch * length * size.dimension * (item * kept + LOSS_BYTES),
    }


def choose_micro_batch(memory: Mapping[str, float], length: int, sequences: int, bytes_of_device: int) -> int:
    """Return the number of sequences that a rank processes at once: the largest divisor of `sequences` that fits.

    Args:
        memory: Result of `estimate_rank_memory` for a micro-batch of one sequence.
        length: Tokens of a sequence.
        sequences: Number of sequences of a rank in a step.
        bytes_of_device: Memory of the GPU in bytes, or 0 for a CPU.
    """
    fits = CPU_TOKENS // length
    if bytes_of_device:
        fixed = sum(memory.values()) - memory["activations"]
        fits = math.floor((bytes_of_device * (1 - SPARE) - fixed) / memory["activations"])
    return max((d for d in range(1, sequences + 1) if sequences % d == 0 and d <= fits), default=1)


@torch.no_grad()
def initialize(model: Llama, seed: int) -> None:
    """Draw the initial values of this rank's rows of each parameter.

    The values do not depend on the number of ranks. Projections into the residual stream are scaled by
    1/sqrt(2 x layers), as in GPT-2.
    """
    for name, parameter in model.named_parameters():
        local, begin = own_rows(parameter)
        if name.endswith("norm.weight"):
            local.fill_(1.0)
            continue
        scale = 1 / math.sqrt(2 * model.size.layers) if name.endswith(("out.weight", "down.weight")) else 1.0
        drawn = draw_rows(f"{seed}\0{name}", begin, begin + len(local), parameter.shape[1])
        local.copy_(drawn * (INIT_DEVIATION * scale))


def draw_rows(key: str, begin: int, end: int, columns: int) -> Tensor:
    """Return rows `begin` to `end` of a matrix of normally distributed random numbers.

    The matrix depends only on `key` and `columns`. Whole blocks of rows are drawn, each from a generator whose seed is
    a hash of the key and the block's number.

    Returns:
        (end - begin, columns) float32.
    """
    rows = max(1, INIT_BLOCK // columns)
    drawn = torch.empty(end - begin, columns)
    for block in range(begin // rows, -(-end // rows)):
        generator = torch.Generator().manual_seed(hash_text(f"{key}\0{block}") >> 1)
        whole = torch.empty(rows, columns).normal_(generator=generator)
        first, low, high = block * rows, max(block * rows, begin), min(block * rows + rows, end)
        drawn[low - begin : high - begin] = whole[low - first : high - first]
    return drawn


def own_rows(parameter: Tensor) -> tuple[Tensor, int]:
    """Return this rank's rows of a parameter, without a copy, and the index of its first row."""
    if not isinstance(parameter, DTensor):
        return parameter.detach(), 0
    mesh = parameter.device_mesh
    rows, shard = -(-len(parameter) // mesh.size(mesh.ndim - 1)), mesh.get_coordinate()[-1]
    return parameter.to_local().detach(), min(shard * rows, len(parameter))


def reshard(model: Llama) -> None:
    """Shard the parameters again, after a forward pass without a backward pass."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@torch.no_grad()
def gradient_norm(model: nn.Module, ranks: Ranks) -> Tensor:
    """Return the norm of all gradients as a float64 scalar on the device.

    The sum is computed in float64, so that it does not depend on how the parameters are sharded.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    parts = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    squares = torch.stack([torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]).square().sum()
    dist.all_reduce(squares, group=ranks.mesh["shard"].get_group())
    return squares.sqrt()


def first_error_across_ranks(error: str, world: int) -> str:
    """Return an error message of one of the ranks, the same on every rank, or "" if no rank has an error."""
    errors = [error] * world
    dist.all_gather_object(errors, error)
    return min(filter(None, errors), default="")


def gather_rows(values: Tensor, world: int) -> Tensor:
    """Gather tensors of shape (n, ...) from all ranks into (n * world, ...). The rows of rank r are at r :: world."""
    parts = [torch.empty_like(values) for _ in range(world)]
    dist.all_gather(parts, values)
    return torch.stack(parts, dim=1).flatten(0, 1)


def copy_to_host_async(values: Tensor) -> Callable[[], Tensor]:
    """Start to copy a tensor to host memory.

    Returns:
        A function that waits until the copy is complete and returns it. It does not wait for kernels that were launched
        after the copy.
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
    """Return the peak memory of this process in bytes: on its GPU, or for a CPU the resident set size."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
