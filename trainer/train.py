"""The training loop (section 2.3 of the paper), from a verified corpus to a checkpoint, exactly resumable."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from filters.errors import UserError
from manifests.files import canonical_json, write_atomic
from manifests.manifest import Manifest, load_manifest
from manifests.order import Plan, plan_for
from manifests.tokenizer import piece_bytes
from trainer import checkpoint
from trainer import events as spikes
from trainer.adopt import adopt, norm_epsilon_of
from trainer.attention import kernels
from trainer.data import Corpus, batch_sha, prefetched
from trainer.launch import STOPPED
from trainer.metrics import Metrics, flops_per_token, loggers, peak_flops
from trainer.model import Llama, parameter_count
from trainer.optimizer import LOSS_FOLLOW, Outliers, build_optimizer, learning_rate
from trainer.parallel import Ranks, build, peak_memory
from trainer.presets import NORM_EPSILON, preset
from trainer.step import Stepper, Told
from trainer.validation import bits_per_byte, validate


@dataclass(frozen=True, slots=True)
class Training:
    """How to train: what, with the plan, must stay the same when a run goes on. `precision`: bf16 or fp32. Steps
    are left out by their gradient norm, and named by their loss, as `Outliers` finds them. `norm_epsilon`: of published
    weights that the run began with, else the preset's."""

    model: str
    learning_rate: float
    warmup: int
    seed: int
    initial: str = ""
    precision: str = "fp32"
    document_masks: bool = False
    outlier_sigmas: float = 6.0
    outlier_window: int = 128
    norm_epsilon: float = NORM_EPSILON


@dataclass(frozen=True, slots=True)
class Habits:
    """What may change when a run goes on. `micro_batch`: sequences a rank holds at once; zero steps mean never.
    `skip_steps`: ranges to leave out, both ends included, counted from 1. `peak_tflops`: of one device."""

    micro_batch: int = 8
    checkpoint_every: int = 0
    validate_every: int = 0
    keep: int = 2
    stop_after: int = 0
    skip_steps: Sequence[spikes.Range] = ()
    activation: str = "none"
    compile: bool = False
    tensorboard: bool = False
    wandb: bool = False
    peak_tflops: float | None = None


def prepare(corpus: Path, options: dict[str, Any], world: int) -> tuple[Manifest, Plan, Training]:
    """Fix the plan. `options`: fields of Training and steps, sequence_length, batch_tokens; None where the preset or
    the corpus says. Raises UserError."""
    size = preset(options["model"])
    manifest = load_manifest(corpus)
    length = options.pop("sequence_length") or size.sequence_length
    tokens, steps = options.pop("batch_tokens") or size.batch_tokens, options.pop("steps")
    batch = tokens // length
    if batch < 1:
        raise UserError(f"--batch-tokens {tokens} is less than one sequence of {length} tokens: raise it")
    if batch % world:
        raise UserError(f"a batch of {batch} sequences does not divide by {world} ranks: change --batch-tokens")
    seed = manifest.seed if options["seed"] is None else options["seed"]
    plan = plan_for(manifest, seed, length, batch, steps)
    warmup = min(size.warmup if options["warmup"] is None else options["warmup"], max(1, plan.steps // 2))
    rate = options["learning_rate"] or size.learning_rate
    return manifest, plan, Training(**{**options, "seed": seed, "warmup": warmup, "learning_rate": rate})


def train(
    corpus: Path, run: Path, manifest: Manifest, plan: Plan, training: Training, habits: Habits, ranks: Ranks
) -> str:
    """Train, or go on training, and say how it ended. Raises UserError for a run folder of another plan."""
    saved = checkpoint.found(run)
    before = checkpoint.read_state(saved[-1][1]) if saved else {}
    initial = Path(training.initial) if training.initial and not saved else None
    if initial:
        epsilon = norm_epsilon_of(initial, preset(training.model), manifest.tokenizer)
        training = replace(training, norm_epsilon=epsilon)
    elif saved:
        training = replace(training, norm_epsilon=before["training"].get("norm_epsilon", training.norm_epsilon))
    state = {"plan": json.loads(canonical_json(plan.as_dict())), "training": asdict(training)}
    if saved:
        checkpoint.check_same(before, state, run)
    step = saved[-1][0] if saved else 0
    if step >= plan.steps:
        return f"{run} is finished: {plan.steps} steps"
    run.mkdir(parents=True, exist_ok=True)
    skips = spikes.left_out(run, list(habits.skip_steps), step, ranks.first)
    size = preset(training.model, training.norm_epsilon)
    masks = manifest.tokenizer.bos if training.document_masks else None
    seed = None if saved else training.seed
    how = (training.precision, habits.activation, habits.compile)
    model = build(size, manifest.tokenizer.vocabulary, seed, ranks, *how)
    if initial:
        adopt(model, initial)
    optimizer = build_optimizer(model, training.learning_rate)
    rule = training.outlier_sigmas, training.outlier_window
    norms, losses = Outliers(*rule, ranks.device), Outliers(*rule, torch.device("cpu"), LOSS_FOLLOW)
    if saved:
        checkpoint.load(saved[-1][1], model, optimizer)
        norms.restore(before["gradient_norms"])
        losses.restore(before["losses"])
    data = Corpus(corpus, plan)
    pieces, tokens = piece_bytes(corpus, manifest.tokenizer.bos), plan.global_batch * plan.sequence_length
    stepper = Stepper(model, optimizer, norms, ranks, tokens, habits.micro_batch, pieces, masks)
    last = min(plan.steps, habits.stop_after or plan.steps)
    report = _reporter(corpus, run, data, model, state, training, habits, ranks, last, step) if ranks.first else None
    waiting: list[tuple[int, float, Callable[[], Told]]] = []
    behind = 1 if ranks.device.type == "cuda" else 0  # so that a GPU has its next step before this one is read

    def settle(most: int) -> bool:
        """Read and report steps until so many are waiting; whether one of them was to be the last."""
        stop = False
        while len(waiting) > most:
            number, rate, wait = waiting.pop(0)
            told = wait()
            mean = torch.tensor(told.losses.sum() / tokens, dtype=torch.float64)
            limit = float(losses.limit())
            stands_out = int(losses.judge(mean)) != 0
            stop |= told.stop
            if report:
                report(number, rate, told, limit if stands_out else None)
        return stop

    def left_out(number: int) -> bool:
        return any(begin <= number + 1 <= end for begin, end in skips)

    stop, pin = False, ranks.device.type == "cuda"
    ahead = prefetched(data, (n for n in range(step, last) if not left_out(n)), ranks.rank, ranks.world, pin)
    saving = checkpoint.Saver(run, habits.keep)
    with _told_to_stop() as asked, kernels(ranks.device), ahead as batches, closing(saving):
        while step < last and not stop:
            rate = learning_rate(step, plan.steps, training.learning_rate, training.warmup)
            if left_out(step):
                stop = settle(0)
                step += 1
                if report:
                    report(step, rate, None, None)
            else:
                step += 1
                waiting.append((step, rate, stepper.step(next(batches), rate, asked.is_set())))
                stop = settle(behind)
            saves = step == last or stop or (habits.checkpoint_every and step % habits.checkpoint_every == 0)
            validates = step == plan.steps or (habits.validate_every and step % habits.validate_every == 0)
            if saves or validates:
                stop |= settle(0)
            if saves or stop:
                windows = {"gradient_norms": norms.state(), "losses": losses.state()}
                saving.save(step, {**state, **windows}, model, optimizer)
            if validates:
                validate(corpus, manifest, plan.sequence_length, run, step, stepper)
    ended = "finished" if step == plan.steps else f"stopped after step {step} of {plan.steps}"
    if report:
        spikes.log(run, "end", step=step, told_to_stop=stop)
        if stop and step < plan.steps:
            write_atomic(run / STOPPED, canonical_json({"step": step}))
    return f"{run}: {ended}"


def _reporter(
    corpus: Path,
    run: Path,
    data: Corpus,
    model: Llama,
    state: dict[str, Any],
    training: Training,
    habits: Habits,
    ranks: Ranks,
    last: int,
    resumed: int,
) -> Callable[[int, float, Told | None, float | None], None]:
    """A function that writes all that the first rank writes of a step; given the step's number, its rate, what it told
    (None for a step left out on request) and, where its loss stood out, what that might have been at most."""
    (run / STOPPED).unlink(missing_ok=True)
    plan, size, parameters = data.plan, preset(training.model), parameter_count(model)
    name = torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else ""
    spikes.log(run, "start", step=resumed, ranks=ranks.world, device=name or "cpu", torch=torch.__version__)
    sources = [source.name for source in plan.sources]
    metrics = Metrics(run, sources, last, resumed, loggers(run, habits.tensorboard, habits.wandb))
    peak = peak_flops(name, training.precision == "bf16", habits.peak_tflops)
    facts = {**state, "corpus": str(corpus.resolve()), "parameters": parameters, "peak_flops": peak}
    write_atomic(run / "run.json", canonical_json(facts))
    flops = flops_per_token(parameters, size, plan.sequence_length)
    tokens, clock = plan.global_batch * plan.sequence_length, time.monotonic()

    def report(step: int, rate: float, told: Told | None, loss_limit: float | None) -> None:
        nonlocal clock
        begun, clock = clock, time.monotonic()
        row: dict[str, object] = {"tokens": step * tokens, "learning_rate": f"{rate:.8g}"}
        if told is None:
            spikes.log(run, "left out", step=step)
            metrics.row(step, 0.0, skipped="asked", **row)
            return
        speed = tokens / (clock - begun)
        text = int(told.bytes.sum())
        row |= {
            "loss": repr(float(told.losses.sum() / tokens)),
            "bits_per_byte": bits_per_byte(told.losses.sum(), text),
            "gradient_norm": f"{told.norm:.6g}",
            "skipped": told.skipped,
            "batch": batch_sha(told.digests.tolist()),
            "memory_gb": f"{peak_memory(ranks.device) / 1e9:.3f}",
        }
        if peak:
            both = [speed * each / (peak * ranks.world) for each in flops]
            row |= {"mfu_6n": f"{both[0]:.4f}", "mfu_attention": f"{both[1]:.4f}"}
        for number, source in enumerate(sources):
            mine = told.sources == number
            if mine.any():
                nats = float(told.losses[mine].sum())
                row[f"loss_{source}"] = f"{nats / (mine.sum() * plan.sequence_length):.6f}"
                row[f"bits_per_byte_{source}"] = bits_per_byte(nats, int(told.bytes[mine].sum()))
        metrics.row(step, speed, **row)
        why = [] if loss_limit is None else ["loss"]
        why += ["gradient norm"] if told.skipped else []
        if why:
            spikes.spike(run, data, step, told, {"loss": np.inf if loss_limit is None else loss_limit}, why)

    return report


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM sets while this lasts: the step that is under way ends, all ranks save and stop."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def finish() -> None:
    """Leave the other ranks in good order."""
    if dist.is_initialized():
        dist.destroy_process_group()
