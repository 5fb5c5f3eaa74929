"""Model sizes. 7b to 65b are Table 2 of the paper; the others are ours, for one GPU and for a laptop."""

from dataclasses import dataclass, replace

from filters.errors import UserError

NORM_EPSILON = 1e-6
"""of the published 7B model; the paper names none. Later ones have 1e-5"""


@dataclass(frozen=True, slots=True)
class Preset:
    """One model size and how the paper trains it.

    `dimension`, `heads`, `layers`: Table 2. `multiple`: the SwiGLU width, 2/3 of 4 x dimension (section 2.2), is
    rounded up to a multiple of it. `learning_rate`: the peak. `sequence_length` in tokens, `batch_tokens` a step.
    """

    dimension: int
    heads: int
    layers: int
    learning_rate: float
    sequence_length: int = 2048
    batch_tokens: int = 4_194_304
    warmup: int = 2_000
    multiple: int = 256
    norm_epsilon: float = NORM_EPSILON

    @property
    def width(self) -> int:
        """The hidden width of the feed-forward layers."""
        return -(-(2 * 4 * self.dimension // 3) // self.multiple) * self.multiple


PRESETS = {
    "demo": Preset(128, 4, 4, 2e-3, sequence_length=256, batch_tokens=4_096, warmup=10, multiple=32),
    "125m": Preset(768, 12, 12, 6e-4, batch_tokens=524_288),
    "350m": Preset(1024, 16, 24, 4e-4, batch_tokens=524_288),
    "1b3": Preset(2048, 16, 24, 3e-4, batch_tokens=1_048_576),
    "7b": Preset(4096, 32, 32, 3e-4),
    "13b": Preset(5120, 40, 40, 3e-4),
    "33b": Preset(6656, 52, 60, 1.5e-4),
    "65b": Preset(8192, 64, 80, 1.5e-4),
}


def preset(name: str, norm_epsilon: float = NORM_EPSILON) -> Preset:
    """A preset by name. Raises UserError for an unknown one."""
    if name not in PRESETS:
        raise UserError(f"--model {name} is not known: give one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], norm_epsilon=norm_epsilon)
