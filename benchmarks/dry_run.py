"""Derive what a training step needs on GPUs: `python -m benchmarks train --device cuda --dry-run`.

The trainer's own model, optimizer and step run on fake tensors, which have shapes and no data, over process groups that
only claim to have ranks. Bytes communicated are counted at the collectives of one micro-batch; weights, gradients and
moments are those of the shards built; gathered weights and activations follow from `memory_of_rank` of
`trainer.parallel`, by which the trainer chooses its micro-batch. Floors follow from data sheets: nothing here is
measured on a GPU.
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
from trainer.parallel import choose_micro_batch, memory_of_rank
from trainer.step import OutlierDetector, Stepper, build_optimizer

VOCABULARY = 32_000
# NVIDIA's data sheet of the H200: 141 GB at 4.8 TB/s, NVLink with 450 GB/s in each direction. Between nodes of 8 GPUs
# each GPU is taken to have a network card of 400 Gbit/s.
MEMORY, MEMORY_RATE, NODE_RATE, NETWORK_RATE, NODE = 141e9, 4.8e12, 450e9, 50e9, 8
RUNS = (("1b3", 1, "none"), ("7b", 8, "none"), ("65b", 64, "none"), ("65b", 64, "full"))


class CollectiveBytes(TorchDispatchMode):
    """Count the bytes of whole tensors gathered or reduced, by collective."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        """Run an operation, and note its largest tensor if it is a collective."""
        if function.namespace == "c10d":
            sizes = [leaf.nbytes for leaf in tree_leaves(arguments) if isinstance(leaf, torch.Tensor)]
            self.bytes[function.__name__.partition(".")[0].strip("_")] += max(sizes, default=0)
        return function(*arguments, **(keywords or {}))


@dataclass(frozen=True, slots=True)
class Need:
    """What a step needs of each rank.

    Attributes:
        micro_batch: Sequences at once, as the trainer chooses them.
        micro_batches: Of a rank in a step.
        memory: Bytes by part.
        built: Bytes of weights, gradients and moments of the shards that were built.
        collectives: Bytes of whole tensors in one micro-batch, by collective.
    """

    micro_batch: int
    micro_batches: int
    memory: dict[str, float]
    built: dict[str, int]
    collectives: dict[str, int]


def measure(size: Preset, world: int, activation: str, vocabulary: int = VOCABULARY) -> Need:
    """Build a model over `world` ranks that are not there, run one micro-batch through a step, and return its needs."""
    length, sequences = size.sequence_length, size.batch_tokens // size.sequence_length // world
    of_one = memory_of_rank(size, vocabulary, length, 1, world, True, activation)
    micro_batch = choose_micro_batch(of_one, length, sequences, int(MEMORY))
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
    memory = memory_of_rank(size, vocabulary, length, micro_batch, world, True, activation)
    return Need(micro_batch, sequences // micro_batch, memory, built, dict(collectives.bytes))


def _bytes(tensors: Any) -> int:
    return sum(parallel.own_rows(tensor)[0].nbytes for tensor in tensors)


def run() -> str:
    """Return a table of what each run of RUNS needs, derived."""
    columns, names = [], []
    for name, world, activation in RUNS:
        size = get_preset(name)
        columns.append(_describe(size, world, activation, measure(size, world, activation)))
        names.append(f"{name} on {world}")
    rows = [[part, *(column[part] for column in columns)] for part in columns[0]]
    return f"Derived, not measured: H200, bf16, 2,048 tokens a sequence\n\n{table(['a rank', *names], rows)}"


def _describe(size: Preset, world: int, activation: str, need: Need) -> dict[str, str]:
    """Return the rows of one run."""
    flops = flops_per_token(size, VOCABULARY, size.sequence_length)
    causal = (flops["mfu_attention"] - flops["mfu_6n"]) / 2  # half of the scores are masked
    tokens = size.batch_tokens / world
    passes = 4 / 3 if activation == "full" else 1  # every block's forward pass is computed twice
    arithmetic = passes * tokens * (flops["mfu_no_embedding"] + causal) / PEAKS["H200"]
    gathered, reduced = (need.collectives.get(key, 0) for key in ("allgather_base", "reduce_scatter_base"))
    moved = need.micro_batches * (gathered + reduced) * (world - 1) / world
    rate = NETWORK_RATE if world > NODE else NODE_RATE
    own = need.built["weights"]
    update = 7 * own / MEMORY_RATE  # reads weights, gradients and both moments, writes weights and moments
    states = {part: f"{need.built.get(part, size) / 1e9:.1f} GB" for part, size in need.memory.items()}
    return {
        "--activation": activation,
        "sequences at once, micro-batches": f"{need.micro_batch}, {need.micro_batches}",
        **states,
        "in all": f"{sum(need.memory.values()) / 1e9:.1f} GB",
        "sent and received a step": f"{moved / 1e9:,.0f} GB",
        "floor by FLOP": f"{arithmetic:.2f} s",
        "floor by NVLink or network": f"{moved / rate:.2f} s",
        "floor of the update by memory": f"{update * 1e3:.0f} ms",
        "tokens/s at the FLOP floor": f"{tokens / arithmetic:,.0f}",
    }
