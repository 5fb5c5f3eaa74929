"""The training loop (section 2.3 of LLaMA's paper).

A run can be resumed from its checkpoints. On the same number of ranks, a resumed run computes exactly the same as a run
that was not interrupted.
"""

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
    estimate_rank_memory,
    first_error_across_ranks,
    reshard,
)
from trainer.schedule import rate_at
from trainer.step import SAVE, SKIP_REASONS, STOP, OutlierDetector, StepMetrics, Stepper, build_optimizer
from trainer.watchdog import watch

COLLECT_STEPS = 500  # steps between two garbage collections, the same on every rank
LOSS_FOLLOW = 0.3  # argument `follow` of the OutlierDetector for losses
VALIDATION_WINDOWS = 64  # maximum number of windows per source

# A function that takes the model, a step and `TrainingLoop.broadcast_working`, and returns the model's scores. All
# ranks must call it.
Evaluate = Callable[[nn.Module, int, Callable[[bool], bool]], dict[str, float]]


@dataclass
class RunSetup:
    """The inputs of a training run.

    Attributes:
        corpus: The corpus's folder.
        run: The run's folder.
        manifest: The corpus's manifest.
        plan: The order of the data.
        config: Settings that must stay the same when the run is resumed.
        options: Settings that may change.
        ranks: This process among all.
        given: All options of the command, which are saved with the run.
        evaluate: A function that returns the scores of the model, or None. It is called every
            `options.evaluate_every` steps.
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
    """Train, or resume training. Return one line that describes the end of the run.

    Raises:
        UserError: The folder contains a run with another plan, another command uses the folder, or the initial weights
            belong to another model.
    """
    with events.lock_run(setup.run) if setup.ranks.is_first else nullcontext("") as refusal:
        if error := first_error_across_ranks(refusal, setup.ranks.world):
            raise UserError(error)
        return _train(setup)


def _train(setup: RunSetup) -> str:
    """Train, or resume training, in a folder that is already locked."""
    run, plan, ranks = setup.run, setup.plan, setup.ranks
    share = functools.partial(first_error_across_ranks, world=ranks.world)
    saved = checkpoint.find_newest(run, share, (ranks.rank, ranks.world))
    resumed, folder = saved or (0, run)
    before = checkpoint.read_state(folder) if saved else {}
    config = _set_norm_epsilon(setup.config, before, setup.manifest)
    state = json.loads(canonical_json({"plan": plan.as_dict(), "training": asdict(config)}))
    if saved:
        checkpoint.check_same_settings(before, state, run)
    missing = (
        tuple(bool(share(reason)) for reason in _find_missing_results(setup, resumed)) if saved else (False, False)
    )
    if resumed >= plan.steps and not any(missing):
        return f"{run} is finished: {plan.steps} steps"
    skips = events.resolve_skips(run, list(setup.options.skip_steps), resumed, ranks.is_first)
    loop = TrainingLoop(**{**vars(setup), "config": config}, fresh=not saved)
    if saved:
        loop.restore(folder, before)
    elif config.init_from:
        load_hf_weights(loop.stepper.model, Path(config.init_from))
    last = min(plan.steps, setup.options.stop_after or plan.steps)
    if ranks.is_first:
        loop.start_metrics(state, resumed, last)
        save_config(run, setup.given)
    step, stop = loop.train(state, resumed, last, skips, missing)
    if ranks.is_first:
        events.log(run, "end", step=step, told_to_stop=stop)
        if stop and step < plan.steps:
            write_atomic(run / STOPPED, canonical_json({"step": step}))
    return f"{run}: " + ("finished" if step == plan.steps else f"stopped after step {step} of {plan.steps}")


def _find_missing_results(setup: RunSetup, step: int) -> tuple[str, str]:
    """Return why validation and evaluation of a checkpoint must be done now, or "" for each that is not needed.

    They are missing if a run was killed after the checkpoint was written and before validation and evaluation were
    done. A resumed run then does them first.

    Returns:
        (reason to validate, reason to evaluate).
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
    """Return the configuration with the norm epsilon of the checkpoint or of the published weights, if there are any.

    Args:
        config: The configuration.
        before: `state.json` of the checkpoint, or {} for a new run.
        manifest: The corpus's manifest.
    """
    if before:
        return replace(config, norm_epsilon=before["training"]["norm_epsilon"])
    if not config.init_from:
        return config
    return replace(config, norm_epsilon=read_norm_epsilon(Path(config.init_from), config.size, manifest.tokenizer))


@dataclass
class TrainingLoop(RunSetup):
    """The model, the data and the metrics of a run, and the loop over its steps.

    Attributes:
        fresh: True to draw initial weights, False if a checkpoint will be loaded.
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
        self.non_finite = 0  # number of consecutive steps with non-finite gradients
        self.dog = watch(ranks.rank, ranks.world, options.hang_seconds)

    def _choose_micro_batch(self, size: Preset) -> int:
        ranks, length = self.ranks, self.plan.sequence_length
        settings = ranks.shards, self.config.precision == "bf16", self.options.activation
        memory = estimate_rank_memory(size, self.manifest.tokenizer.vocabulary, length, 1, *settings)
        available = torch.cuda.mem_get_info(ranks.device)[1] if ranks.device.type == "cuda" else 0
        return choose_micro_batch(memory, length, self.plan.global_batch // ranks.world, available)

    def restore(self, folder: Path, state: dict[str, Any]) -> None:
        """Load weights, moments and the windows of the outlier detectors from a checkpoint."""
        checkpoint.load(folder, self.stepper.model, self.stepper.optimizer)
        self.stepper.norms.restore(state["gradient_norms"])
        self.losses.restore(state["losses"])

    def start_metrics(self, state: dict[str, Any], resumed: int, last: int) -> None:
        """Log the start, write run.json, and open the writer of metrics.

        Args:
            state: Plan and configuration.
            resumed: The step of the checkpoint from which the run continues, or 0.
            last: The last step of this process.
        """
        (self.run / STOPPED).unlink(missing_ok=True)
        # Remove rows of later steps. They exist if the run continues from a checkpoint that is not the newest.
        for name in (events.VALIDATION, events.EVALUATION):
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
        self, state: dict[str, Any], step: int, last: int, skips: list[events.Range], missing: tuple[bool, ...]
    ) -> tuple[int, bool]:
        """Train the steps `step` + 1 to `last`. Stop earlier if a rank receives SIGTERM.

        Args:
            state: Plan and configuration, which are saved with each checkpoint.
            step: The step of the checkpoint from which the run continues, or 0.
            last: The last step.
            skips: Ranges of steps to skip, counted from 1.
            missing: (validate first, evaluate first), see `_find_missing_results`.

        Returns:
            The last step that was trained, and True if a rank received SIGTERM.
        """

        def is_skipped(number: int) -> bool:
            return any(begin <= number <= end for begin, end in skips)

        options, ranks = self.options, self.ranks
        gpu = ranks.device.type == "cuda"
        steps = (number for number in range(step, last) if not is_skipped(number + 1))
        reading = prefetch(self.reader, steps, ranks.rank, ranks.world, pin=gpu)
        writer = checkpoint.CheckpointWriter(self.run, options.keep, ranks.rank < ranks.shards, self.dog.note_wait)
        requests = 0
        attention = prefer_fast_attention(ranks.device)
        with (
            self.dog,
            _catch_sigterm() as requested,
            _disable_garbage_collection(),
            attention,
            reading as batches,
            closing(writer),
        ):
            self._validate_and_evaluate(step, *missing)
            while step < last and not requests & STOP:
                self.dog.note_progress()
                step += 1
                rate = rate_at(step - 1, self.config.learning_rate)
                if is_skipped(step):
                    requests = self.write_pending_metrics(0)
                    if self.metrics:
                        self.metrics.write_skipped(step, rate)
                else:
                    batch = next(batches)
                    self.dog.note_progress()
                    due = ranks.is_first and writer.is_due(options.checkpoint_minutes)
                    mine = STOP * requested.is_set() | SAVE * due
                    self.pending.append((step, rate, self.stepper.step(batch, rate, mine)))
                    # On a GPU, the metrics of a step are read only after the next step was launched.
                    requests = self.write_pending_metrics(1 if gpu else 0)
                requests = self._finish_step(step, step == last, requests, state, writer)
                if step % COLLECT_STEPS == 0:
                    gc.collect()
        return step, bool(requests & STOP)

    def _finish_step(
        self, step: int, is_last: bool, requests: int, state: dict[str, Any], writer: checkpoint.CheckpointWriter
    ) -> int:
        """After a step, save, validate and evaluate if they are due. Return the requests (STOP, SAVE) of all ranks."""
        options, ends = self.options, step == self.plan.steps
        saves = is_last or requests or _is_due(step, options.checkpoint_every)
        validates, evaluates = (ends or _is_due(step, n) for n in (options.validate_every, options.evaluate_every))
        if saves or validates or evaluates:
            requests |= self.write_pending_metrics(0)
        if saves or requests:
            windows = {"gradient_norms": self.stepper.norms.state(), "losses": self.losses.state()}
            writer.save(step, {**state, **windows}, self.stepper.model, self.stepper.optimizer)
        self._validate_and_evaluate(step, validates, evaluates)
        return requests

    def _validate_and_evaluate(self, step: int, validates: bool, evaluates: bool) -> None:
        """Validate and evaluate the model after a step, if `validates` and `evaluates` are true."""
        if validates:
            validate(self.corpus, self.manifest, self.plan.sequence_length, self.run, step, self.stepper)
            self.dog.note_progress()
        if self.evaluate and evaluates:
            scores = self.evaluate(self.stepper.model, step, self.broadcast_working)
            for logger in self.metrics.loggers if self.metrics else ():
                logger(step, scores)
            self.dog.note_progress()
        if self.metrics and (validates or evaluates):
            self.metrics.clock = time.monotonic()  # This time must not count for the next step.

    def broadcast_working(self, working: bool) -> bool:
        """Send `working` from the first rank to all ranks, and note progress for the watchdog.

        The first rank calls this regularly while it works alone, as in an evaluation. The other ranks call it while
        they wait. So neither the watchdog nor the time limit of collectives ends the run.

        Args:
            working: On the first rank, True if it continues to work. Ignored on other ranks.

        Returns:
            The argument of the first rank.
        """
        if not self.ranks.is_first:
            # The other ranks are one count ahead of the first rank. So if the first rank hangs, it is the one named.
            self.dog.note_progress()
        flag = torch.tensor(int(working))
        dist.broadcast(flag, 0)
        if self.ranks.is_first:
            self.dog.note_progress()
        return bool(flag)

    def write_pending_metrics(self, limit: int) -> int:
        """Write the metrics of pending steps until `limit` steps are pending. Return the requests of all ranks.

        Raises:
            UserError: Too many consecutive steps had gradients that are not finite.
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

    Every rank computes the same number of batches, because a forward pass of a sharded model needs all ranks.

    Args:
        corpus: The corpus's folder.
        manifest: The corpus's manifest.
        length: Tokens of a sequence.
        run: The run's folder.
        step: The step after which the model is validated.
        stepper: The model.
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
    if ranks.is_first and lines:
        events.write_rows(run / events.VALIDATION, step - 1, "step,source,loss,bits_per_byte,windows", lines)


@contextmanager
def _disable_garbage_collection() -> Iterator[None]:
    """Disable automatic garbage collection inside the context.

    Otherwise ranks would pause at different times, and all ranks would wait for each pause.
    """
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
    """Yield an event that is set by SIGTERM. The ranks then finish the current step, save and stop."""
    requested = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: requested.set())
    try:
        yield requested
    finally:
        signal.signal(signal.SIGTERM, before)
