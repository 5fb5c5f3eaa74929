"""The training loop (section 2.3 of the paper), from a verified corpus to a checkpoint, exactly resumable."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from manifests.files import canonical_json, write_atomic
from manifests.manifest import Manifest
from manifests.order import Plan
from manifests.tokenizer import piece_bytes
from trainer import checkpoint, events
from trainer.config import RunOptions, TrainConfig, save_config
from trainer.data import BatchReader, prefetch, read_validation_windows
from trainer.hf import load_hf_weights, read_norm_epsilon
from trainer.launch import STOPPED
from trainer.metrics import MetricsWriter, flops_per_token, format_bits_per_byte, open_loggers, peak_flops
from trainer.model import prefer_fast_attention
from trainer.parallel import Ranks, build, reshard, sum_over_ranks
from trainer.sizes import Preset, choose_micro_batch, get_preset
from trainer.step import OutlierDetector, StepMetrics, Stepper, build_optimizer, learning_rate

LOSS_FOLLOW = 0.3  # of the trend against which losses are judged, see OutlierDetector
VALIDATION_FILE = "validation.csv"
VALIDATION_WINDOWS = 64  # of each source


def train(
    corpus: Path,
    run: Path,
    manifest: Manifest,
    plan: Plan,
    config: TrainConfig,
    options: RunOptions,
    ranks: Ranks,
    given: dict[str, Any],
) -> str:
    """Train, or resume training, and return one line about the end of the run.

    Args:
        corpus: The corpus's folder.
        run: The run's folder.
        manifest: The corpus's manifest.
        plan: The order of the data.
        config: Settings that stay the same.
        options: Settings that may change.
        ranks: This process among all.
        given: All options of the command, saved with the run.

    Raises:
        UserError: The folder holds a run of another plan, or the initial weights are those of another model.
    """
    saved = checkpoint.list_checkpoints(run)
    resumed, folder = saved[-1] if saved else (0, run)
    before = checkpoint.read_state(folder) if saved else {}
    epsilon = config.norm_epsilon
    if saved:
        epsilon = before["training"].get("norm_epsilon", epsilon)
    elif config.init_from:
        epsilon = read_norm_epsilon(Path(config.init_from), get_preset(config.model), manifest.tokenizer)
    config = replace(config, norm_epsilon=epsilon)
    state = {"plan": json.loads(canonical_json(plan.as_dict())), "training": asdict(config)}
    if saved:
        checkpoint.check_same(before, state, run)
    if resumed >= plan.steps:
        return f"{run} is finished: {plan.steps} steps"
    run.mkdir(parents=True, exist_ok=True)
    skips = events.resolve_skips(run, list(options.skip_steps), resumed, ranks.first)
    loop = TrainingLoop(corpus, run, manifest, plan, config, options, ranks, fresh=not saved)
    if saved:
        loop.restore(folder, before)
    elif config.init_from:
        load_hf_weights(loop.stepper.model, Path(config.init_from))
    last = min(plan.steps, options.stop_after or plan.steps)
    if ranks.first:
        loop.start_metrics(state, resumed, last)
        save_config(run, given)
    step, stop = loop.train(state, resumed, last, skips)
    if ranks.first:
        events.log(run, "end", step=step, told_to_stop=stop)
        if stop and step < plan.steps:
            write_atomic(run / STOPPED, canonical_json({"step": step}))
    return f"{run}: " + ("finished" if step == plan.steps else f"stopped after step {step} of {plan.steps}")


@dataclass
class TrainingLoop:
    """The model, the data and the metrics of a run, and the loop over its steps.

    Attributes:
        corpus: The corpus's folder.
        run: The run's folder.
        fresh: Draw initial weights; else a checkpoint fills them.
    """

    corpus: Path
    run: Path
    manifest: Manifest
    plan: Plan
    config: TrainConfig
    options: RunOptions
    ranks: Ranks
    fresh: bool

    def __post_init__(self) -> None:
        plan, config, options, ranks, entry = self.plan, self.config, self.options, self.ranks, self.manifest.tokenizer
        self.tokens = plan.global_batch * plan.sequence_length
        size, seed = get_preset(config.model, config.norm_epsilon), config.seed if self.fresh else None
        wrapping = config.precision, options.activation, options.compile
        model = build(size, entry.vocabulary, seed, ranks, *wrapping)
        rule = config.outlier_sigmas, config.outlier_window
        self.losses = OutlierDetector(*rule, torch.device("cpu"), LOSS_FOLLOW)
        self.stepper = Stepper(
            model,
            build_optimizer(model, config.learning_rate),
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

    def _choose_micro_batch(self, size: Preset) -> int:
        gpu, ranks = self.ranks.device.type == "cuda", self.ranks
        memory = torch.cuda.mem_get_info(ranks.device)[1] if gpu else 0
        shape = self.plan.sequence_length, self.plan.global_batch // ranks.world, ranks.shards, memory
        half = self.config.precision == "bf16"
        return choose_micro_batch(size, self.manifest.tokenizer.vocabulary, *shape, half, self.options.activation)

    def restore(self, folder: Path, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        checkpoint.load(folder, self.stepper.model, self.stepper.optimizer)
        self.stepper.norms.restore(state["gradient_norms"])
        self.losses.restore(state["losses"])

    def start_metrics(self, state: dict[str, Any], resumed: int, last: int) -> None:
        """Log the start, write run.json, and write the metrics of steps from here on."""
        (self.run / STOPPED).unlink(missing_ok=True)
        device, options = self.ranks.device, self.options
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        micro_batch = self.stepper.micro_batch
        facts = {"ranks": self.ranks.world, "device": name or "cpu", "torch": torch.__version__}
        facts["micro_batch"] = micro_batch
        events.log(self.run, "start", step=resumed, **facts)
        peak = peak_flops(name, self.config.precision == "bf16", options.peak_tflops)
        parameters = self.stepper.model.size.count_parameters(self.manifest.tokenizer.vocabulary)
        flops = flops_per_token(parameters, self.stepper.model.size, self.plan.sequence_length)
        print(f"{self.run}: {parameters:,} parameters, micro-batches of {micro_batch} sequences", file=sys.stderr)
        loggers = open_loggers(self.run, options.tensorboard, options.wandb)
        self.metrics = MetricsWriter(self.run, self.reader, self.ranks, flops, peak, resumed, last, loggers)
        record = {**state, "corpus": str(self.corpus.resolve()), "parameters": parameters, "peak_flops": peak}
        write_atomic(self.run / "run.json", canonical_json(record))

    def train(self, state: dict[str, Any], step: int, last: int, skips: list[events.Range]) -> tuple[int, bool]:
        """Train from after `step` to `last`, or until a rank receives SIGTERM.

        Args:
            state: Plan and configuration, saved with each checkpoint.
            step: The step resumed from.
            last: The last step.
            skips: Ranges of steps to skip, counted from 1.

        Returns:
            The step reached, and True if a rank was asked to stop.
        """

        def is_skipped(number: int) -> bool:
            return any(begin <= number + 1 <= end for begin, end in skips)

        plan, config, options, ranks = self.plan, self.config, self.options, self.ranks
        gpu = ranks.device.type == "cuda"
        steps = (number for number in range(step, last) if not is_skipped(number))
        reading = prefetch(self.reader, steps, ranks.rank, ranks.world, pin=gpu)
        writer, stop = checkpoint.CheckpointWriter(self.run, options.keep), False
        attention = prefer_fast_attention(ranks.device)
        with _catch_sigterm() as requested, attention, reading as batches, closing(writer):
            while step < last and not stop:
                rate = learning_rate(step, plan.steps, config.learning_rate, config.warmup)
                if is_skipped(step):
                    stop = self.drain(0)
                    step += 1
                    if self.metrics:
                        self.metrics.write_skipped(step, rate)
                else:
                    step += 1
                    self.pending.append((step, rate, self.stepper.step(next(batches), rate, requested.is_set())))
                    stop = self.drain(1 if gpu else 0)  # a GPU gets its next step before this one is read
                saves = step == last or stop or _is_due(step, options.checkpoint_every)
                validates = step == plan.steps or _is_due(step, options.validate_every)
                if saves or validates:
                    stop |= self.drain(0)
                if saves or stop:
                    windows = {"gradient_norms": self.stepper.norms.state(), "losses": self.losses.state()}
                    writer.save(step, {**state, **windows}, self.stepper.model, self.stepper.optimizer)
                if validates:
                    validate(self.corpus, self.manifest, plan.sequence_length, self.run, step, self.stepper)
        return step, stop

    def drain(self, limit: int) -> bool:
        """Read and write the metrics of steps until `limit` are pending; return True if a rank was asked to stop."""
        stop = False
        while len(self.pending) > limit:
            step, rate, wait = self.pending.pop(0)
            metrics = wait()
            mean = torch.tensor(metrics.losses.sum() / self.tokens, dtype=torch.float64)
            loss_limit = float(self.losses.limit())
            outlier = int(self.losses.classify(mean)) != 0
            stop |= metrics.stop
            if self.metrics:
                self.metrics.write_step(step, rate, metrics, loss_limit if outlier else None)
        return stop


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
        loss = float(sum_over_ranks(total))
        bits = format_bits_per_byte(loss, int(stepper.text_bytes(rows).sum()))
        lines.append(f"{step},{source},{loss / (len(rows) * length):.6f},{bits},{len(rows)}")
    reshard(stepper.model)
    path = run / VALIDATION_FILE
    if ranks.first and lines:
        before = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
        kept = [line for line in before if int(line.partition(",")[0]) < step]
        write_atomic(path, ("\n".join(["step,source,loss,bits_per_byte,windows", *kept, *lines]) + "\n").encode())


@contextmanager
def _catch_sigterm() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM sets: all ranks then end the step under way, save and stop."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return
    before = signal.signal(signal.SIGTERM, lambda *_: requested.set())
    try:
        yield requested
    finally:
        signal.signal(signal.SIGTERM, before)
