"""The size of a model by name or numbers, and the memory it takes on a device; this module needs no torch."""

import math
from collections.abc import Mapping
from dataclasses import replace

from filters.errors import UserError
from manifests.sizes import NORM_EPSILON, PRESETS, Preset


def get_preset(name: str, norm_epsilon: float = NORM_EPSILON) -> Preset:
    """Return the size of a preset's name, or of `dim=D,layers=L,heads=H`.

    A size given in numbers has the other settings of the preset next below it in layers x dimension squared.

    Raises:
        UserError: The name is no preset's, or the numbers make no model.
    """
    if "=" not in name:
        if name not in PRESETS:
            raise UserError(f"--model {name} is not known: give one of {', '.join(PRESETS)}, or dim=D,layers=L,heads=H")
        return replace(PRESETS[name], norm_epsilon=norm_epsilon)
    parts = dict(part.partition("=")[::2] for part in name.split(","))
    if set(parts) != {"dim", "layers", "heads"} or not all(value.isdigit() and int(value) for value in parts.values()):
        raise UserError(f"--model {name} is not of the form dim=256,layers=4,heads=4: give these three whole numbers")
    dimension, layers, heads = (int(parts[key]) for key in ("dim", "layers", "heads"))
    if dimension % (2 * heads):
        raise UserError(f"--model {name}: dim must be an even multiple of heads, as rotary positions pair features")
    volumes = {each.layers * each.dimension**2: each for each in PRESETS.values()}
    base = volumes[max((volume for volume in volumes if volume <= layers * dimension**2), default=min(volumes))]
    return replace(base, dimension=dimension, heads=heads, layers=layers, norm_epsilon=norm_epsilon)


# Numbers that a block keeps for its backward pass, for each token and each unit of dimension, by activation
# checkpointing: "none" keeps inputs of both norms and their outputs, the product of queries, keys and values with
# their rotations, attention's output twice, and 4 times the SwiGLU width of 8/3; "selective" the block's input, the
# outputs of the four products and attention's.
KEPT_NUMBERS = {"none": 23.0, "selective": 12.5, "full": 1.0}
LOSS_BYTES = 12  # for each token of a micro-batch and unit of dimension, of the head's input and its gradient
CPU_TOKENS = 2_048  # of a micro-batch: more fills the caches and saves nothing
SPARE = 0.15  # share of a GPU's memory left to temporary buffers and fragments


def memory_of_rank(
    size: Preset, vocabulary: int, length: int, micro_batch: int, shards: int, half: bool, activation: str
) -> dict[str, float]:
    """Return the bytes that a rank holds on its device at the end of a forward pass, by part.

    Args:
        size: The model's size.
        vocabulary: Rows of the embedding and of the head.
        length: Tokens of a sequence.
        micro_batch: Sequences that the rank holds at once.
        shards: Ranks over which one copy of the model is sharded.
        half: Compute in bfloat16.
        activation: Activation checkpointing, a key of KEPT_NUMBERS.
    """
    item, own = 2 if half else 4, size.count_parameters(vocabulary) / shards
    group = max(size.block_parameters // size.layers, vocabulary * size.dimension)
    kept = KEPT_NUMBERS[activation] * size.layers + KEPT_NUMBERS["none"]  # of all blocks, and of one computed again
    return {
        "weights": 4 * own,
        "gradients": 4 * own,
        "moments": 8 * own,
        "gathered": item * (2 * group + vocabulary * size.dimension) + 4 * group,  # two groups, the head; a reduction
        "activations": micro_batch * length * size.dimension * (item * kept + LOSS_BYTES),
    }


def choose_micro_batch(memory: Mapping[str, float], length: int, sequences: int, bytes_of_device: int) -> int:
    """Return the number of sequences that a rank holds at once: the largest divisor of `sequences` that fits.

    Args:
        memory: Result of `memory_of_rank` for a micro-batch of one sequence.
        length: Tokens of a sequence.
        sequences: Sequences of a rank in a step.
        bytes_of_device: Memory of a GPU, 0 for a CPU.
    """
    fits = CPU_TOKENS // length
    if bytes_of_device:
        fixed = sum(memory.values()) - memory["activations"]
        fits = math.floor((bytes_of_device * (1 - SPARE) - fixed) / memory["activations"])
    return max((d for d in range(1, sequences + 1) if sequences % d == 0 and d <= fits), default=1)
