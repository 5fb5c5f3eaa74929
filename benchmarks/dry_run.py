"""Derive memory and time of a training step on GPUs: `python -m benchmarks train --device cuda --dry-run`.

The trainer's own model, optimizer and step run on fake tensors, which have shapes but no data, and over PyTorch's fake
process groups, which have any number of ranks in one process. The figures come from three calculations:

- Communicated bytes are counted in the collectives of one micro-batch.
- Bytes of weights, gradients and moments are the sizes of the shards that are built.
- Bytes of gathered weights and activations come from `trainer.parallel.estimate_rank_memory`, the function by which the
  trainer chooses its micro-batch.

Lower bounds of times are computed from data sheets. Nothing is measured on a GPU.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.data import table
from manifests.sizes import Preset, get_preset
from trainer import parallel
from trainer.data import Batch
from trainer.metrics import PEAKS, flops_per_token
from trainer.parallel import choose_micro_batch, estimate_rank_memory
from trainer.step import OutlierDetector, Stepper, build_optimizer

VOCABULARY = 32_000
# NVIDIA's data sheet of the H200: memory of 141 GB at 4.8 TB/s, NVLink with 450 GB/s in each direction. Assumed: nodes
# of 8 GPUs, and one network card of 400 Gbit/s per GPU between nodes. Sizes are in bytes, rates in bytes per second.
MEMORY, MEMORY_RATE, NODE_RATE, NETWORK_RATE, NODE = 141e9, 4.8e12, 450e9, 50e9, 8
# The columns of the table: preset, number of ranks, value of `--activation`.
RUNS = (("1b3", 1, "none"), ("7b", 8, "none"), ("65b", 64, "none"), ("65b", 64, "full"))


class CollectiveBytes(TorchDispatchMode):
    """A dispatch mode that counts the bytes of whole tensors that collectives gather or reduce.

    Attributes:
        bytes: Counted bytes by name of the collective.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """Run an operation. If it is a collective, add the bytes of its largest tensor to the count."""
        if function.namespace == "c10d":
            sizes = [leaf.nbytes for leaf in tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
            self.bytes[function.__name__.partition(".")[0].strip("_")] += max(sizes, default=0)
        return function(*arguments, **(keywords or {}))


@dataclass(frozen=True, slots=True)
class Need:
    """The requirements of a training step, per rank.

    Attributes:
        micro_batch: Sequences per micro-batch, as the trainer chooses the number.
        micro_batches: Micro-batches per step.
        memory: Bytes by kind of tensor, from `estimate_rank_memory`.
        built: Bytes of the weights, gradients and moments in the shards that were built.
        collectives: Bytes of whole tensors that are gathered or reduced in one micro-batch, by name of the collective.
    """

    micro_batch: int
    micro_batches: int
    memory: dict[str, float]
    built: dict[str, int]
    collectives: dict[str, int]


def measure(size: Preset, world: int, activation: str, vocabulary: int = VOCABULARY) -> Need:
    """Build a model over `world` fake ranks, run a step of one micro-batch, and return its requirements."""
    length, sequences = size.sequence_length, size.batch_tokens // size.sequence_length // world
    memory_of_one = estimate_rank_memory(size, vocabulary, length, 1, world, True, activation)
    micro_batch = choose_micro_batch(memory_of_one, length, sequences, int(MEMORY))
    dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("shard",))
        ranks = parallel.Ranks(0, world, torch.device("cpu"), mesh)
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = parallel.build(size, vocabulary, None, ranks, "bf16", activation)
            optimizer = build_optimizer(model, size.learning_rate)
            optimizer.register_step_pre_hook(lambda *_: built.update(gradients=_bytes(p.grad for p in weights)))
            weights, built = list(model.parameters()), {}
            norms = OutlierDetector(6.0, 128, ranks.device)
            tokens = micro_batch * world * length
            stepper = Stepper(model, optimizer, norms, ranks, tokens, micro_batch, None, None)
            rows = torch.zeros(micro_batch, length + 1, dtype=torch.int32)
            zeros = torch.zeros(micro_batch, dtype=torch.int64)
            with CollectiveBytes() as collectives:
                stepper.step(Batch(rows, zeros, zeros), size.learning_rate)
            states = [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq")]
            built |= {"weights": _bytes(weights), "moments": _bytes(states)}
    finally:
        dist.destroy_process_group()
    memory = estimate_rank_memory(size, vocabulary, length, micro_batch, world, True, activation)
    return Need(micro_batch, sequences // micro_batch, memory, built, dict(collectives.bytes))


def _bytes(tensors: Any) -> int:
    """Return the bytes of the rows of sharded tensors that this rank holds."""
    return sum(parallel.own_rows(tensor)[0].nbytes for tensor in tensors)


def run() -> str:
    """Return a table of the derived requirements of each run in RUNS."""
    columns, names = [], []
    for name, world, activation in RUNS:
        size = get_preset(name)
        columns.append(_describe(size, world, activation, measure(size, world, activation)))
        names.append(f"{name} on {world}")
    rows = [[part, *(column[part] for column in columns)] for part in columns[0]]
    return f"Derived, not measured: H200, bf16, 2,048 tokens per sequence\n\n{table(['per rank', *names], rows)}"


def _describe(size: Preset, world: int, activation: str, need: Need) -> dict[str, str]:
    """Return the column of one run, by row heading."""
    flops = flops_per_token(size, VOCABULARY, size.sequence_length)
    causal = (flops["mfu_attention"] - flops["mfu_6n"]) / 2  # The causal mask hides half of the attention scores.
    tokens = size.batch_tokens / world
    passes = 4 / 3 if activation == "full" else 1  # With "full", each block's forward pass is computed twice.
    arithmetic = passes * tokens * (flops["mfu_no_embedding"] + causal) / PEAKS["H200"]
    gathered, reduced = (need.collectives.get(key, 0) for key in ("allgather_base", "reduce_scatter_base"))
    moved = need.micro_batches * (gathered + reduced) * (world - 1) / world
    rate = NETWORK_RATE if world > NODE else NODE_RATE
    own = need.built["weights"]
    update = 7 * own / MEMORY_RATE  # 4 reads (weights, gradients, both moments) and 3 writes
    states = {part: f"{need.built.get(part, size) / 1e9:.1f} GB" for part, size in need.memory.items()}
    return {
        "--activation": activation,
        "sequences per micro-batch, micro-batches per step": f"{need.micro_batch}, {need.micro_batches}",
        **states,
        "in all": f"{sum(need.memory.values()) / 1e9:.1f} GB",
        "sent and received per step": f"{moved / 1e9:,.0f} GB",
        "time, lower bound by FLOP": f"{arithmetic:.2f} s",
        "time, lower bound by NVLink or network": f"{moved / rate:.2f} s",
        "time of the update, lower bound by memory": f"{update * 1e3:.0f} ms",
        "tokens/s at the lower bound by FLOP": f"{tokens / arithmetic:,.0f}",
    }
