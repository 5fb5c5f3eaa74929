"""Model sizes and their training settings. Recipes and the trainer select a size by name or by numbers."""

from dataclasses import dataclass, replace

from filters.errors import UserError


@dataclass(frozen=True, slots=True)
class Preset:
    """A model size and its training settings.

    Attributes:
        dimension: Width of the residual stream. Like `heads`, `layers` and `learning_rate`, it is given in Table 2 of
            the paper.
        learning_rate: The peak of the learning rate schedule.
        sequence_length: In tokens.
        batch_tokens: Tokens per optimizer step.
        warmup: Steps of linear warm-up.
        multiple: The SwiGLU width is 2/3 of 4 x dimension (section 2.2), rounded up to a multiple of this number.
        norm_epsilon: Epsilon of the RMS norms, as in the published 7B, 13B and 33B models. The paper does not state it.
    """

    dimension: int
    heads: int
    layers: int
    learning_rate: float
    sequence_length: int = 2048
    batch_tokens: int = 4_194_304
    warmup: int = 2_000
    multiple: int = 256
    norm_epsilon: float = 1e-6

    @property
    def width(self) -> int:
        """Return the hidden width of the feed-forward layers."""
        return -(-(2 * 4 * self.dimension // 3) // self.multiple) * self.multiple

    @property
    def block_parameters(self) -> int:
        """Return the number of parameters of all transformer blocks, without embedding, final norm and output head."""
        return self.layers * (4 * self.dimension**2 + 3 * self.dimension * self.width + 2 * self.dimension)

    def count_parameters(self, vocabulary: int) -> int:
        """Return the number of all parameters. Embedding and output head have `vocabulary` rows each."""
        return self.block_parameters + (2 * vocabulary + 1) * self.dimension


# 7b to 65b are the sizes of Table 2 of the paper. The other sizes are defined by this project: `2m` to `40m` are named
# after the number of parameters in their blocks. Their heads have 64 features, like those of GPT-2, and their peak
# learning rate decreases with the width.
PRESETS = {
    "demo": Preset(128, 4, 4, 2e-3, sequence_length=256, batch_tokens=4_096, warmup=10, multiple=32),
    "2m": Preset(192, 3, 4, 2e-3, sequence_length=512, batch_tokens=32_768, warmup=100, multiple=64),
    "5m": Preset(256, 4, 6, 2e-3, sequence_length=512, batch_tokens=32_768, warmup=100, multiple=64),
    "10m": Preset(320, 5, 8, 1.5e-3, sequence_length=512, batch_tokens=65_536, warmup=200, multiple=64),
    "20m": Preset(448, 7, 8, 1e-3, sequence_length=1024, batch_tokens=131_072, warmup=500, multiple=64),
    "40m": Preset(576, 9, 10, 8e-4, sequence_length=1024, batch_tokens=262_144, warmup=1_000, multiple=64),
    "125m": Preset(768, 12, 12, 6e-4, batch_tokens=524_288),
    "350m": Preset(1024, 16, 24, 4e-4, batch_tokens=524_288),
    "1b3": Preset(2048, 16, 24, 3e-4, batch_tokens=1_048_576),
    "7b": Preset(4096, 32, 32, 3e-4),
    "13b": Preset(5120, 40, 40, 3e-4),
    "33b": Preset(6656, 52, 60, 1.5e-4),
    "65b": Preset(8192, 64, 80, 1.5e-4, norm_epsilon=1e-5),  # The published 65B and later LLaMA models use 1e-5.
}


def get_preset(name: str) -> Preset:
    """Return the preset of a name, or a preset for a size given as `dim=D,layers=L,heads=H`.

    A size given in numbers takes its other settings from the largest preset that is not larger, where the size is
    measured by layers x dimension squared.

    Raises:
        UserError: The name is unknown, or the numbers do not define a model.
    """
    if "=" not in name:
        if name not in PRESETS:
            raise UserError(f"--model {name} is not known: give one of {', '.join(PRESETS)}, or dim=D,layers=L,heads=H")
        return PRESETS[name]
    given = [part.partition("=")[::2] for part in name.split(",")]
    parts = dict(given)
    known = len(given) == 3 and set(parts) == {"dim", "layers", "heads"}
    if not known or not all(value.isdecimal() and int(value) for value in parts.values()):
        raise UserError(f"--model {name} is not of the form dim=256,layers=4,heads=4: give these three whole numbers")
    dimension, layers, heads = (int(parts[key]) for key in ("dim", "layers", "heads"))
    if dimension % (2 * heads):
        raise UserError(f"--model {name}: dim must be an even multiple of heads, as rotary positions pair features")
    volumes = {each.layers * each.dimension**2: each for each in PRESETS.values()}
    base = volumes[max((volume for volume in volumes if volume <= layers * dimension**2), default=min(volumes))]
    return replace(base, dimension=dimension, heads=heads, layers=layers)
