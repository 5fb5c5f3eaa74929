"""The training loop (section 2.3 of the paper), from a verified corpus to a checkpoint, exactly resumable."""

import functools
import gc
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from filters.errors import UserError
from manifests.files import canonical_json, write_atomic
from manifests.manifest import Manifest
from manifests.order import Plan, count_windows
from manifests.sizes import Preset
from manifests.tokenizer import piece_bytes
from trainer import checkpoint, events
from trainer.config import RunOptions, TrainConfig, save_config
from trainer.data import BatchReader, prefetch, read_validation_windows
from trainer.hf import load_hf_weights, read_norm_epsilon
from trainer.launch import STOPPED
from trainer.metrics import MetricsWriter, flops_per_token, format_bits_per_byte, open_loggers, peak_flops
from trainer.model import prefer_fast_attention
from trainer.parallel import (
    Ranks,
    build,
    choose_micro_batch,
    first_error_across_ranks,
    memory_of_rank,
    reshard,
)
from trainer.schedule import rate_at
from trainer.step import SAVE, SKIP_REASONS, STOP, OutlierDetector, StepMetrics, Stepper, build_optimizer
from trainer.watchdog import watch

COLLECT_STEPS = 500  # steps between two garbage collections, the same on every rank
LOSS_FOLLOW = 0.3  # `follow` of the detector of outliers among losses
VALIDATION_WINDOWS = 64  # windows of each source


# Scores of the model after a step; every rank calls it, and gives it `TrainingLoop.advance`.
Evaluate = Callable[[nn.Module, int, Callable[[bool], bool]], dict[str, float]]


@dataclass
class RunSetup:
    """All that a training run is made of.

    Attributes:
        corpus: The corpus's folder.
        run: The run's folder.
        manifest: The corpus's manifest.
        plan: The order of the data.
        config: Settings that stay the same.
        options: Settings that may change.
        ranks: This process among all.
        given: All options of the command, saved with the run.
        evaluate: Returns the scores of the model after a step; called after every `options.evaluate_every` steps.
    """

    corpus: Path
    run: Path
    manifest: Manifest
    plan: Plan
    config: TrainConfig
    options: RunOptions
    ranks: Ranks
    given: dict[str, Any]
    evaluate: Evaluate | None


def train(setup: RunSetup) -> str:
    """Train, or resume training, and return one line about the end of the run.

    Raises:
        UserError: The folder holds a run of another plan or is in use, or the initial weights are of another model.
    """
    with events.locked(setup.run) if setup.ranks.first else nullcontext("") as refusal:
        if error := first_error_across_ranks(refusal, setup.ranks.world):
            raise UserError(error)
        return _train(setup)


def _train(setup: RunSetup) -> str:
    run, plan, ranks = setup.run, setup.plan, setup.ranks
    share = functools.partial(first_error_across_ranks, world=ranks.world)
    saved = checkpoint.find_newest(run, share, (ranks.rank, ranks.world))
    resumed, folder = saved or (0, run)
    before = checkpoint.read_state(folder) if saved else {}
    config = _set_norm_epsilon(setup.config, before, setup.manifest)
    state = json.loads(canonical_json({"plan": plan.as_dict(), "training": asdict(config)}))
    if saved:
        checkpoint.check_same(before, state, run)
    late = tuple(bool(share(reason)) for reason in _find_late(setup, resumed)) if saved else (False, False)
    if resumed >= plan.steps and not any(late):
        return f"{run} is finished: {plan.steps} steps"
    skips = events.resolve_skips(run, list(setup.options.skip_steps), resumed, ranks.first)
    loop = TrainingLoop(**{**vars(setup), "config": config}, fresh=not saved)
    if saved:
        loop.restore(folder, before)
    elif config.init_from:
        load_hf_weights(loop.stepper.model, Path(config.init_from))
    last = min(plan.steps, setup.options.stop_after or plan.steps)
    if ranks.first:
        loop.start_metrics(state, resumed, last)
        save_config(run, setup.given)
    step, stop = loop.train(state, resumed, last, skips, late)
    if ranks.first:
        events.log(run, "end", step=step, told_to_stop=stop)
        if stop and step < plan.steps:
            write_atomic(run / STOPPED, canonical_json({"step": step}))
    return f"{run}: " + ("finished" if step == plan.steps else f"stopped after step {step} of {plan.steps}")


def _find_late(setup: RunSetup, step: int) -> tuple[str, str]:
    """Return why validation and evaluation after a step are to be made now, each "" if it is not.

    A run that was killed when the step's checkpoint was written, and they were not, has them when it goes on.
    """
    options, length = setup.options, setup.plan.sequence_length
    held = [entry for source in setup.manifest.sources.values() for entry in source.validation]
    possible = any(count_windows(entry.tokens, length) for entry in held), setup.evaluate is not None
    due = (step == setup.plan.steps or _is_due(step, n) for n in (options.validate_every, options.evaluate_every))
    validates, evaluates = (
        "" if not can or not is_due or events.has_rows(setup.run / name, step) else f"{name} lacks step {step}"
        for name, can, is_due in zip((events.VALIDATION, events.EVALUATION), possible, due, strict=True)
    )
    return validates, evaluates


def _set_norm_epsilon(config: TrainConfig, before: dict[str, Any], manifest: Manifest) -> TrainConfig:
    """Return a configuration with the epsilon of the checkpoint `before`, or of the published weights to start from."""
    if before:
        return replace(config, norm_epsilon=before["training"]["norm_epsilon"])
    if not config.init_from:
        return config
    return replace(config, norm_epsilon=read_norm_epsilon(Path(config.init_from), config.size, manifest.tokenizer))


@dataclass
class TrainingLoop(RunSetup):
    """The model, the data and the metrics of a run, and the loop over its steps.

    Attributes:
        fresh: Draw initial weights; else a checkpoint fills them.
    """

    fresh: bool

    def __post_init__(self) -> None:
        plan, config, options, ranks, entry = self.plan, self.config, self.options, self.ranks, self.manifest.tokenizer
        self.tokens = plan.global_batch * plan.sequence_length
        size, seed = config.size, config.seed if self.fresh else None
        wrapping = config.precision, options.activation, options.compile
        model = build(size, entry.vocabulary, seed, ranks, *wrapping)
        rule = config.outlier_sigmas, config.outlier_window
        self.losses = OutlierDetector(*rule, torch.device("cpu"), LOSS_FOLLOW)
        self.stepper = Stepper(
            model,
            build_optimizer(model, config.learning_rate[0].learning_rate),
            OutlierDetector(*rule, ranks.device),
            ranks,
            self.tokens,
            options.micro_batch or self._choose_micro_batch(size),
            piece_bytes(self.corpus, entry.bos),
            entry.bos if config.document_masks else None,
        )
        self.reader = BatchReader(self.corpus, plan)
        self.metrics: MetricsWriter | None = None
        self.pending: list[tuple[int, float, Callable[[], StepMetrics]]] = []
        self.non_finite = 0  # steps in a row
        self.dog = watch(ranks.rank, ranks.world, options.hang_seconds)

    def _choose_micro_batch(self, size: Preset) -> int:
        ranks, length = self.ranks, self.plan.sequence_length
        settings = ranks.shards, self.config.precision == "bf16", self.options.activation
        memory = memory_of_rank(size, self.manifest.tokenizer.vocabulary, length, 1, *settings)
        available = torch.cuda.mem_get_info(ranks.device)[1] if ranks.device.type == "cuda" else 0
        return choose_micro_batch(memory, length, self.plan.global_batch // ranks.world, available)

    def restore(self, folder: Path, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        checkpoint.load(folder, self.stepper.model, self.stepper.optimizer)
        self.stepper.norms.restore(state["gradient_norms"])
        self.losses.restore(state["losses"])

    def start_metrics(self, state: dict[str, Any], resumed: int, last: int) -> None:
        """Log the start, write run.json, and write the metrics of steps from here on."""
        (self.run / STOPPED).unlink(missing_ok=True)
        for name in (events.VALIDATION, events.EVALUATION):  # rows of another course, if an older checkpoint was taken
            events.write_rows(self.run / name, resumed)
        device, options = self.ranks.device, self.options
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        micro_batch = self.stepper.micro_batch
        facts = {"ranks": self.ranks.world, "device": name or "cpu", "torch": torch.__version__}
        facts["micro_batch"] = micro_batch
        events.log(self.run, "start", step=resumed, **facts)
        peak = peak_flops(name, self.config.precision == "bf16", options.peak_tflops)
        size, vocabulary = self.stepper.model.size, self.manifest.tokenizer.vocabulary
        parameters = size.count_parameters(vocabulary)
        flops = flops_per_token(size, vocabulary, self.plan.sequence_length)
        print(f"{self.run}: {parameters:,} parameters, micro-batches of {micro_batch} sequences", file=sys.stderr)
        loggers = open_loggers(self.run, options.tensorboard, options.wandb)
        self.metrics = MetricsWriter(self.run, self.reader, self.ranks, flops, peak, resumed, last, loggers)
        record = {**state, "corpus": str(self.corpus.resolve()), "parameters": parameters, "peak_flops": peak}
        write_atomic(self.run / "run.json", canonical_json(record))

    def train(
        self, state: dict[str, Any], step: int, last: int, skips: list[events.Range], late: tuple[bool, ...]
    ) -> tuple[int, bool]:
        """Train from after `step` to `last`, or until a rank receives SIGTERM.

        Args:
            state: Plan and configuration, saved with each checkpoint.
            step: The step resumed from.
            last: The last step.
            skips: Ranges of steps to skip, counted from 1.
            late: Validate and evaluate after `step` first.

        Returns:
            The step reached, and True if a rank was asked to stop.
        """

        def is_skipped(number: int) -> bool:
            return any(begin <= number <= end for begin, end in skips)

        options, ranks = self.options, self.ranks
        gpu = ranks.device.type == "cuda"
        steps = (number for number in range(step, last) if not is_skipped(number + 1))
        reading = prefetch(self.reader, steps, ranks.rank, ranks.world, pin=gpu)
        writer = checkpoint.CheckpointWriter(self.run, options.keep, ranks.rank < ranks.shards, self.dog.rest)
        requests = 0
        attention = prefer_fast_attention(ranks.device)
        with self.dog, _catch_sigterm() as requested, _freeze_garbage(), attention, reading as batches, closing(writer):
            self._report(step, *late)
            while step < last and not requests & STOP:
                self.dog.tick()
                step += 1
                rate = rate_at(step - 1, self.config.learning_rate)
                if is_skipped(step):
                    requests = self.drain(0)
                    if self.metrics:
                        self.metrics.write_skipped(step, rate)
                else:
                    batch = next(batches)
                    self.dog.tick()
                    due = ranks.first and writer.is_due(options.checkpoint_minutes)
                    mine = STOP * requested.is_set() | SAVE * due
                    self.pending.append((step, rate, self.stepper.step(batch, rate, mine)))
                    requests = self.drain(1 if gpu else 0)  # a GPU gets its next step before this one is read
                requests = self._finish_step(step, step == last, requests, state, writer)
                if step % COLLECT_STEPS == 0:
                    gc.collect()
        return step, bool(requests & STOP)

    def _finish_step(
        self, step: int, is_last: bool, requests: int, state: dict[str, Any], writer: checkpoint.CheckpointWriter
    ) -> int:
        """Save, validate and evaluate after a step if it is time to; return the requests of all ranks."""
        options, ends = self.options, step == self.plan.steps
        saves = is_last or requests or _is_due(step, options.checkpoint_every)
        validates, evaluates = (ends or _is_due(step, n) for n in (options.validate_every, options.evaluate_every))
        if saves or validates or evaluates:
            requests |= self.drain(0)
        if saves or requests:
            windows = {"gradient_norms": self.stepper.norms.state(), "losses": self.losses.state()}
            writer.save(step, {**state, **windows}, self.stepper.model, self.stepper.optimizer)
        self._report(step, validates, evaluates)
        return requests

    def _report(self, step: int, validates: bool, evaluates: bool) -> None:
        """Validate and evaluate after a step."""
        if validates:
            validate(self.corpus, self.manifest, self.plan.sequence_length, self.run, step, self.stepper)
            self.dog.tick()
        if self.evaluate and evaluates:
            scores = self.evaluate(self.stepper.model, step, self.advance)
            for logger in self.metrics.loggers if self.metrics else ():
                logger(step, scores)
            self.dog.tick()
        if self.metrics and (validates or evaluates):
            self.metrics.clock = time.monotonic()  # it is no time of the next step

    def advance(self, working: bool) -> bool:
        """Return on every rank what the first rank gives: it still works, while the others wait for it.

        So neither the watchdog nor the time limit of collectives ends a run during work that comes further.
        """
        if not self.ranks.first:
            self.dog.tick()  # one ahead of the first rank, which is therefore named if it hangs
        flag = torch.tensor(int(working))
        dist.broadcast(flag, 0)
        if self.ranks.first:
            self.dog.tick()
        return bool(flag)

    def drain(self, limit: int) -> int:
        """Read and write the metrics of steps until `limit` are pending; return the requests of all ranks.

        Raises:
            UserError: Too many steps in a row had gradients that are not finite.
        """
        requests, most = 0, self.options.non_finite_limit
        while len(self.pending) > limit:
            step, rate, wait = self.pending.pop(0)
            metrics = wait()
            mean = torch.tensor(metrics.losses.sum() / self.tokens, dtype=torch.float64)
            loss_limit = float(self.losses.limit())
            outlier = int(self.losses.classify(mean)) != 0
            requests |= metrics.requests
            if self.metrics:
                self.metrics.write_step(step, rate, metrics, loss_limit if outlier else None)
            self.non_finite = self.non_finite + 1 if metrics.skipped == SKIP_REASONS[1] else 0
            if self.non_finite == most:
                raise UserError(
                    f"the gradients of {most} steps up to step {step} were not finite, so the run is ended: resume it "
                    "from an older checkpoint with --skip-steps, or start it again with a lower --learning-rate"
                )
        return requests


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@torch.no_grad()
def validate(corpus: Path, manifest: Manifest, length: int, run: Path, step: int, stepper: Stepper) -> None:
    """Write the mean loss per token and the bits per byte of each source's held-out windows to validation.csv.

    Every rank takes the same number of turns, since a forward pass needs all ranks.
    """
    ranks, lines = stepper.ranks, []
    for source, rows in read_validation_windows(corpus, manifest, length, VALIDATION_WINDOWS).items():
        total = torch.zeros((), dtype=torch.float64, device=ranks.device)
        turns = -(-len(rows) // (ranks.world * stepper.micro_batch))
        for turn in range(turns):
            mine = slice(turn * ranks.world + ranks.rank, None, turns * ranks.world)
            here = len(rows[mine]) > 0
            part = rows[mine if here else slice(0, 1)]
            total += stepper.losses(part.to(ranks.device), part)[0] * here
        dist.all_reduce(total)
        loss = float(total)
        bits = format_bits_per_byte(loss, int(stepper.text_bytes(rows).sum()))
        lines.append(f"{step},{source},{loss / (len(rows) * length):.6f},{bits},{len(rows)}")
    reshard(stepper.model)
    if ranks.first and lines:
        events.write_rows(run / events.VALIDATION, step - 1, "step,source,loss,bits_per_byte,windows", lines)


@contextmanager
def _freeze_garbage() -> Iterator[None]:
    """Take garbage collection out of the steps: ranks would pause at different times, and each waits for all."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def _catch_sigterm() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets: all ranks then end the step under way, save and stop."""
    requested = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: requested.set())
    try:
        yield requested
    finally:
        signal.signal(signal.SIGTERM, before)
