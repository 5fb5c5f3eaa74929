"""The configuration of a run: what must stay the same when it is resumed, what may change, and its YAML file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from filters.errors import UserError
from manifests.files import write_atomic
from manifests.manifest import Manifest, load_manifest
from manifests.order import Plan, plan_for
from trainer.sizes import NORM_EPSILON, get_preset

FILE = "config.yaml"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings that, like the plan, must stay the same when a run is resumed.

    Attributes:
        model: Name of a preset, or its numbers (see `get_preset`).
        learning_rate: The peak.
        warmup: Steps of linear warm-up.
        seed: Seed of the initial weights.
        init_from: Folder of published weights to start from, or "".
        precision: "bf16" or "fp32".
        document_masks: Tokens attend to their own document only.
        outlier_sigmas: Steps are skipped by their gradient norm, and recorded by their loss (see OutlierDetector).
        outlier_window: Number of steps behind the mean and the deviation.
        norm_epsilon: Of the published weights, if the run starts from such, else of the preset.
    """

    model: str
    learning_rate: float
    warmup: int
    seed: int
    init_from: str = ""
    precision: str = "fp32"
    document_masks: bool = False
    outlier_sigmas: float = 6.0
    outlier_window: int = 128
    norm_epsilon: float = NORM_EPSILON


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Settings that may change when a run is resumed.

    Attributes:
        micro_batch: Sequences that a rank holds at once; None to choose by size and memory.
        checkpoint_every: Steps; 0 saves at the end only.
        validate_every: Steps; 0 validates at the end only.
        keep: Number of checkpoints to keep.
        stop_after: Step after which to stop early, or 0.
        skip_steps: Ranges of steps to skip, counted from 1, both ends included.
        activation: Activation checkpointing: "none", "selective" or "full".
        compile: Compile each block.
        tensorboard: Write RUN/tensorboard.
        wandb: Report to Weights & Biases.
        peak_tflops: Of one device, None for that of its data sheet.
    """

    micro_batch: int | None = None
    checkpoint_every: int = 0
    validate_every: int = 0
    keep: int = 2
    stop_after: int = 0
    skip_steps: Sequence[tuple[int, int]] = ()
    activation: str = "none"
    compile: bool = False
    tensorboard: bool = False
    wandb: bool = False
    peak_tflops: float | None = None


def prepare(corpus: Path, options: dict[str, Any], world: int) -> tuple[Manifest, Plan, TrainConfig]:
    """Fix the plan and the configuration of a run.

    Args:
        corpus: The corpus's folder.
        options: Fields of TrainConfig and `steps`, `sequence_length`, `batch_tokens`; None takes the value of the
            preset or the corpus.
        world: Number of ranks.

    Raises:
        UserError: The options do not fit each other or the corpus.
    """
    size = get_preset(options["model"])
    manifest = load_manifest(corpus)
    length = options.pop("sequence_length") or size.sequence_length
    tokens, steps = options.pop("batch_tokens") or size.batch_tokens, options.pop("steps")
    if tokens < length:
        raise UserError(f"--batch-tokens {tokens} is less than one sequence of {length} tokens: raise it")
    if tokens % length:
        below = tokens - tokens % length
        raise UserError(
            f"--batch-tokens {tokens} is no multiple of a sequence of {length} tokens: give {below} or {below + length}"
        )
    batch = tokens // length
    if batch % world:
        raise UserError(
            f"a batch of {batch} sequences does not divide by {world} ranks: "
            f"give --batch-tokens a multiple of {world * length}"
        )
    seed = manifest.seed if options["seed"] is None else options["seed"]
    plan = plan_for(manifest, seed, length, batch, steps)
    warmup = min(size.warmup if options["warmup"] is None else options["warmup"], max(1, plan.steps // 2))
    rate = options["learning_rate"] or size.learning_rate
    return manifest, plan, TrainConfig(**{**options, "seed": seed, "warmup": warmup, "learning_rate": rate})


def expand_config(arguments: list[str]) -> list[str]:
    """Return the words of a `train` command with `--config FILE` replaced by the options in the file.

    They come first, so that the command line overrides them. The file maps option names to values: true and false
    become --name and --no-name, lists of mappings JSON, other lists an option each, mappings `key=value,…`.

    Raises:
        UserError: The file cannot be read or holds no mapping.
    """
    words, rest = list(arguments), list[str]()
    while words:
        word = words.pop(0)
        name, _, value = word.partition("=")
        if name == "--config" and (value or words):
            rest = [*_config_words(Path(value or words.pop(0))), *rest]
        else:
            rest.append(word)
    return rest


def _config_words(path: Path) -> list[str]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--config {path} cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(settings, dict):
        raise UserError(f"--config {path} holds no mapping of options: give lines such as `steps: 1000`")
    words: list[str] = []
    for key, value in settings.items():
        option = "--" + str(key).replace("_", "-")
        if key == "corpus":
            words.insert(0, str(value))
        elif isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif isinstance(value, dict):
            words += [option, ",".join(f"{name}={part}" for name, part in value.items())]
        elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
            words += [option, json.dumps(value)]
        else:
            for part in value if isinstance(value, list) else [value]:
                words += [option, str(part)]
    return words


def save_config(run: Path, values: dict[str, Any]) -> None:
    """Write all options of a run to RUN/config.yaml, from which `--config` reads them again."""
    plain = {key: _plain(value) for key, value in values.items() if value is not None and value != []}
    run.mkdir(parents=True, exist_ok=True)
    write_atomic(run / FILE, yaml.safe_dump(plain, sort_keys=False).encode())


def _plain(value: Any) -> Any:
    """Return an option's value as the command line writes it."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    return str(value) if isinstance(value, Path) else value
