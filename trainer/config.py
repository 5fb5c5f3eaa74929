"""The configuration of a run: what must stay the same when it is resumed, what may change, and its YAML file."""

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
RUN_FILES = {FILE, "run.json", "log.jsonl", "checkpoints"}  # a folder with one of them is a run's


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_mixture(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(map(_is_positive, value.values()))


# What a stage may hold, each with a test of its value, in words too.
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
        learning_rate: Of each stage.
        seed: Seed of the initial weights.
        init_from: Folder of published weights to start from, or "".
        precision: "bf16" or "fp32".
        document_masks: Tokens attend to their own document only.
        outlier_sigmas: Steps are skipped by their gradient norm, and recorded by their loss (see OutlierDetector).
        outlier_window: Number of steps behind the mean and the deviation.
        norm_epsilon: Of the published weights, if the run starts from such, else of the preset.
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
        """Return the model's size."""
        return replace(get_preset(self.model), norm_epsilon=self.norm_epsilon)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Settings that may change when a run is resumed.

    Attributes:
        micro_batch: Sequences that a rank holds at once; None to choose by size and memory.
        checkpoint_minutes: Minutes between checkpoints, 0 for none by time.
        checkpoint_every: Steps between checkpoints, 0 for none by steps; the last step is always saved.
        validate_every: Steps; 0 validates at the end only.
        evaluate_every: Steps between evaluations, 0 for none; the last step is evaluated too.
        keep: Number of checkpoints to keep.
        non_finite_limit: Steps in a row with gradients that are not finite, after which the run ends.
        hang_seconds: Seconds without progress after which the rank that is behind ends the run by name.
        stop_after: Step after which to stop early, or 0.
        skip_steps: Ranges of steps to skip, counted from 1, both ends included.
        activation: Activation checkpointing: "none", "selective" or "full".
        compile: Compile each block.
        tensorboard: Write RUN/tensorboard.
        wandb: Report to Weights & Biases.
        peak_tflops: Of one device, None for that of its data sheet.
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
    """Return those of some values that are fields of a dataclass."""
    return {field.name: values[field.name] for field in dataclasses.fields(settings) if field.name in values}


def prepare(corpus: Path, options: Mapping[str, Any], world: int) -> tuple[Manifest, Plan, TrainConfig]:
    """Fix the plan and the configuration of a run.

    Args:
        corpus: The corpus's folder.
        options: Options of `train`; None takes the value of the preset or the corpus.
        world: Number of ranks.

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
        rising = (size.warmup if warmup is None else warmup) if not rates else 0  # only the first begins from nothing
        own = {**usual, "warmup": min(rising, max(1, count // 2)), **stage}
        rates.append(StageRate(count, *(own[name] for name in ("schedule", "learning_rate", "warmup"))))
    fixed = {"seed": seed, "learning_rate": tuple(rates), "norm_epsilon": size.norm_epsilon}
    return manifest, plan, TrainConfig(**{**select_fields(TrainConfig, options), **fixed})


def _count_steps(stage: dict[str, Any], batch_tokens: int) -> int:
    """Return the steps of a stage."""
    if "tokens" in stage:
        return max(1, round(float(stage["tokens"]) / batch_tokens))
    if stage["steps"] is None:
        raise UserError("give --steps, or a list of --stages, each with its steps or tokens")
    return int(stage["steps"])


def parse_stages(text: str) -> list[dict[str, Any]]:
    """Parse `--stages`, a JSON list of stages with the keys of STAGE_KEYS, or raise ArgumentTypeError."""
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
    """A loader for which 5:7 is a text: YAML 1.1 has numbers to the base of 60, among which it is 307."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        text = ("tag:yaml.org,2002:str", re.compile(r"[0-9]+:[0-9]+$"))
        self.yaml_implicit_resolvers = {
            first: [text, *resolvers] for first, resolvers in self.yaml_implicit_resolvers.items()
        }


def expand_config(arguments: list[str]) -> list[str]:
    """Return the words of a `train` command with `--config FILE` replaced by the options in the file.

    They come first, so that the command line overrides them. The file maps option names to values: true and false
    become --name and --no-name, lists of mappings JSON, mappings `key=value,…`, and other lists have commas between
    their parts, but ranges of steps to skip are an option each.

    Raises:
        UserError: The file cannot be read or holds no mapping.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", type=Path, action="append", default=[])
    try:
        options, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError:  # no file behind it, which the command's own parser says
        return arguments
    return [word for path in reversed(options.config) for word in _read_config_words(path)] + rest


def _read_config_words(path: Path) -> list[str]:
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


def check_output(run: Path) -> None:
    """Check that a run's folder is new, empty or a run's. Raise UserError for one that holds other files.

    Files `*.log` may be there, and the folder of torchrun's `--log-dir`: the command's own output is often sent there.
    """
    errors = os.environ.get("TORCHELASTIC_ERROR_FILE")  # a file below torchrun's --log-dir
    logs = Path(errors).resolve().parents if errors else ()
    inside = run.resolve().iterdir() if run.is_dir() else ()
    held = {path.name for path in inside if path.suffix != ".log" and path not in logs}
    if held and not held & RUN_FILES:
        some = ", ".join(sorted(held)[:3]) + (", …" if len(held) > 3 else "")
        raise UserError(
            f"--output {run} contains other files than a run ({some}): give a new or empty folder, or a run to resume"
        )
