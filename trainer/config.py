"""The configuration of a training run, and its YAML file.

Some settings must stay the same when a run is resumed (`TrainConfig`), others may change (`RunOptions`).
"""

import argparse
import dataclasses
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from filters.errors import UserError
from manifests.files import write_atomic
from manifests.manifest import Manifest, load_manifest
from manifests.order import Plan, plan_for
from manifests.sizes import Preset, get_preset
from trainer.schedule import SCHEDULES, StageRate

FILE = "config.yaml"
RUN_FILES = {FILE, "run.json", "log.jsonl", "checkpoints"}  # A folder that contains one of these names is a run.


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_mixture(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_positive, value.values()))


# Key of a stage -> (function that checks the value, description of the allowed values for an error message).
STAGE_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "steps": (lambda value: _is_whole(value, 1), "a whole number above 0"),
    "tokens": (_is_positive, "a number above 0"),
    "mixture": (_is_mixture, "weights above 0 by source"),
    "schedule": (lambda value: value in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    "learning_rate": (_is_positive, "a number above 0"),
    "warmup": (lambda value: _is_whole(value, 0), "a whole number of at least 0"),
}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings that, like the plan, must stay the same when a run is resumed.

    Attributes:
        model: Name of a preset, or its numbers (see `get_preset`).
        learning_rate: Learning-rate schedule of each stage.
        seed: Seed of the initial weights.
        init_from: Folder of published weights to start from, or "".
        precision: "bf16" or "fp32".
        document_masks: True if tokens attend to their own document only.
        outlier_sigmas: Standard deviations above the mean from which a value is an outlier (see OutlierDetector). A
            step whose gradient norm is an outlier is skipped; a step whose loss is an outlier is recorded.
        outlier_window: Number of steps from which the mean and the standard deviation are computed.
        norm_epsilon: Epsilon of the RMSNorm layers. It is that of the published weights if the run starts from
            published weights, else that of the preset.
    """

    model: str
    learning_rate: tuple[StageRate, ...]
    seed: int
    init_from: str
    precision: str
    document_masks: bool
    outlier_sigmas: float
    outlier_window: int
    norm_epsilon: float

    @property
    def size(self) -> Preset:
        """Return the preset `model`, with `norm_epsilon`."""
        return replace(get_preset(self.model), norm_epsilon=self.norm_epsilon)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Settings that may change when a run is resumed.

    Attributes:
        micro_batch: Number of sequences that a rank processes at once, or None to choose it by size and memory.
        checkpoint_minutes: Minutes between checkpoints, or 0 to save none by time.
        checkpoint_every: Steps between checkpoints, or 0 to save none by steps. The last step is always saved.
        validate_every: Steps between validations, or 0 to validate only at the end.
        evaluate_every: Steps between evaluations, or 0 for no evaluation. The last step is evaluated too.
        keep: Number of checkpoints to keep.
        non_finite_limit: Number of consecutive steps with non-finite gradients after which the run ends.
        hang_seconds: Seconds without progress after which the run ends. The message names the rank that hangs.
        stop_after: Step after which to stop early, or 0.
        skip_steps: Ranges (first, last) of steps to skip, counted from 1, both ends included.
        activation: Activation checkpointing: "none", "selective" or "full".
        compile: True to compile each block with torch.compile.
        tensorboard: True to write RUN/tensorboard.
        wandb: True to report to Weights & Biases.
        peak_tflops: Peak TFLOP/s of one device, or None to use its data sheet.
    """

    micro_batch: int | None
    checkpoint_minutes: float
    checkpoint_every: int
    validate_every: int
    evaluate_every: int
    keep: int
    non_finite_limit: int
    hang_seconds: float
    stop_after: int
    skip_steps: Sequence[tuple[int, int]]
    activation: str
    compile: bool
    tensorboard: bool
    wandb: bool
    peak_tflops: float | None


def select_fields(settings: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `values` whose names are fields of the dataclass `settings`."""
    return {field.name: values[field.name] for field in dataclasses.fields(settings) if field.name in values}


def prepare(corpus: Path, options: Mapping[str, Any], world: int) -> tuple[Manifest, Plan, TrainConfig]:
    """Fix the plan and the configuration of a run.

    Args:
        corpus: The corpus's folder.
        options: Options of `train`. If a value is None, the value of the preset or the corpus is used.
        world: Number of ranks.

    Returns:
        The corpus's manifest, the plan, and the settings that must stay the same.

    Raises:
        UserError: The options do not fit each other or the corpus.
    """
    size = get_preset(options["model"])
    manifest = load_manifest(corpus)
    length = options["sequence_length"] or size.sequence_length
    tokens = options["batch_tokens"] or size.batch_tokens
    if tokens < length:
        raise UserError(f"--batch-tokens {tokens} is less than one sequence of {length} tokens: raise it")
    if tokens % length:
        below = tokens - tokens % length
        raise UserError(
            f"--batch-tokens {tokens} is not a multiple of the sequence of {length}: give {below} or {below + length}"
        )
    batch = tokens // length
    if batch % world:
        raise UserError(
            f"a batch of {batch} sequences does not divide by {world} ranks: "
            f"give --batch-tokens a multiple of {world * length}"
        )
    seed = manifest.seed if options["seed"] is None else options["seed"]
    rate, warmup, schedule = (options[name] for name in ("learning_rate", "warmup", "schedule"))
    usual = {"learning_rate": rate or size.learning_rate, "schedule": schedule}
    steps, stages = options["steps"], options["stages"] or [{}]
    lengths = [_count_steps({"steps": steps, **stage}, tokens) for stage in stages]
    if steps not in (None, sum(lengths)):
        raise UserError(f"--steps is {steps}, and the --stages have {sum(lengths)} steps: leave --steps out")
    if beyond := [end for _, end in options["skip_steps"] if end > sum(lengths)]:
        raise UserError(f"--skip-steps: the run has no step {beyond[0]}, give steps from 1 to {sum(lengths)}")
    mixtures = [(count, stage.get("mixture", {})) for count, stage in zip(lengths, stages, strict=True)]
    plan = plan_for(manifest, seed, length, batch, sum(lengths), mixtures if stages != [{}] else ())
    rates: list[StageRate] = []
    for count, stage in zip(lengths, stages, strict=True):
        # Only the first stage has a warm-up by default, because the others continue a trained model.
        rising = (size.warmup if warmup is None else warmup) if not rates else 0
        own = {**usual, "warmup": min(rising, max(1, count // 2)), **stage}
        rates.append(StageRate(count, *(own[name] for name in ("schedule", "learning_rate", "warmup"))))
    fixed = {"seed": seed, "learning_rate": tuple(rates), "norm_epsilon": size.norm_epsilon}
    return manifest, plan, TrainConfig(**{**select_fields(TrainConfig, options), **fixed})


def _count_steps(stage: dict[str, Any], batch_tokens: int) -> int:
    """Return the number of steps of a stage, which has either "steps" or "tokens"."""
    if "tokens" in stage:
        return max(1, round(float(stage["tokens"]) / batch_tokens))
    if stage["steps"] is None:
        raise UserError("give --steps, or a list of --stages, each with its steps or tokens")
    return int(stage["steps"])


def parse_stages(text: str) -> list[dict[str, Any]]:
    """Parse the value of `--stages`, a JSON list of stages with keys of STAGE_KEYS.

    Raises:
        argparse.ArgumentTypeError: The text is not a list of stages.
    """
    try:
        stages = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a JSON list of stages ({error})") from error
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        raise argparse.ArgumentTypeError('must be a list of stages, as in [{"steps": 100}]')
    for stage in stages:
        for key, value in stage.items():
            if key not in STAGE_KEYS:
                raise argparse.ArgumentTypeError(f"a stage has no key {key!r}: give some of {', '.join(STAGE_KEYS)}")
            allowed, expected = STAGE_KEYS[key]
            if not allowed(value):
                raise argparse.ArgumentTypeError(f"{key} of a stage must be {expected}, not {json.dumps(value)}")
        if ("steps" in stage) == ("tokens" in stage):
            raise argparse.ArgumentTypeError("each stage must have either steps or tokens")
    return stages


class _OptionLoader(yaml.SafeLoader):
    """A YAML loader that reads 5:7 as a string. YAML 1.1 would read it as a number to the base of 60, which is 307."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        text = ("tag:yaml.org,2002:str", re.compile(r"[0-9]+:[0-9]+$"))
        self.yaml_implicit_resolvers = {
            first: [text, *resolvers] for first, resolvers in self.yaml_implicit_resolvers.items()
        }


def expand_config(arguments: list[str]) -> list[str]:
    """Return the words of a `train` command with `--config FILE` replaced by the options in the file.

    The options of the file come first, so that the command line overrides them. The file maps option names to values.
    The values are converted to words as follows:

    - true and false become `--name` and `--no-name`.
    - A mapping becomes `key=value,…`.
    - A list of mappings becomes JSON.
    - For `skip_steps`, each range becomes an option.
    - Any other list is joined with commas.

    Raises:
        UserError: The file cannot be read or does not contain a mapping.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", type=Path, action="append", default=[])
    try:
        options, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError:  # --config has no value. The parser of the command reports this.
        return arguments
    return [word for path in reversed(options.config) for word in _read_config_words(path)] + rest


def _read_config_words(path: Path) -> list[str]:
    """Return the words of the command line for the options in a YAML file. See `expand_config`."""
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), _OptionLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--config {path} cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(settings, dict):
        raise UserError(f"--config {path} holds no mapping of options: give lines such as `steps: 1000`")
    words: list[str] = []
    for key, value in settings.items():
        option = "--" + str(key).replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif isinstance(value, dict):
            words += [option, ",".join(f"{name}={part}" for name, part in value.items())]
        elif isinstance(value, list) and any(isinstance(part, dict) for part in value):
            words += [option, json.dumps(value)]
        elif isinstance(value, list) and key == "skip_steps":
            words += [word for part in value for word in (option, str(part))]
        else:
            words += [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return words


def save_config(run: Path, values: dict[str, Any]) -> None:
    """Write the options of a run to RUN/config.yaml, a file for `--config`. Values that are None or [] are left out."""
    plain = {key: _plain(value) for key, value in values.items() if value is not None and value != []}
    run.mkdir(parents=True, exist_ok=True)
    write_atomic(run / FILE, yaml.safe_dump(plain, sort_keys=False).encode())


def _plain(value: Any) -> Any:
    """Convert an option's value to a type of YAML. A tuple becomes `A:B`, a path becomes a string."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, tuple):
        return ":".join(map(str, value))
    return str(value) if isinstance(value, Path) else value


def check_output(run: Path) -> None:
    """Check that the output folder does not exist, is empty, or contains a run.

    Files `*.log` and the folder of torchrun's `--log-dir` are allowed, because the output of the command is often
    written there.

    Raises:
        UserError: The folder contains other files.
    """
    errors = os.environ.get("TORCHELASTIC_ERROR_FILE")  # The path is below torchrun's --log-dir.
    logs = Path(errors).resolve().parents if errors else ()
    inside = run.resolve().iterdir() if run.is_dir() else ()
    held = {path.name for path in inside if path.suffix != ".log" and path not in logs}
    if held and not held & RUN_FILES:
        some = ", ".join(sorted(held)[:3]) + (", …" if len(held) > 3 else "")
        raise UserError(
            f"--output {run} contains other files than a run ({some}): give a new or empty folder, or a run to resume"
        )
