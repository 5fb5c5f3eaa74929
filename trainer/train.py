"""The training loop (section 2.3 of the paper), from a verified corpus to a checkpoint, exactly resumable."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from manifests.errors import UserError
from manifests.files import canonical_json, write_atomic
from manifests.manifest import Manifest, load_manifest
from trainer import checkpoint
from trainer.data import Corpus, batch_sha, check_shards, validation_windows
from trainer.metrics import Metrics
from trainer.model import Llama, parameter_count
from trainer.optimizer import build_optimizer, learning_rate
from trainer.order import Plan, plan_for
from trainer.parallel import Ranks, build, clip_gradients, gathered, summed
from trainer.presets import preset

VALIDATION_WINDOWS = 64
"""windows of each source that validation reads"""


@dataclass(frozen=True, slots=True)
class Training:
    """How to train: what, with the plan, must stay the same when a run goes on."""

    model: str
    learning_rate: float
    warmup: int
    seed: int


@dataclass(frozen=True, slots=True)
class Habits:
    """What may change when a run goes on. `micro_batch`: sequences a rank holds at once; zero steps mean never."""

    micro_batch: int = 8
    checkpoint_every: int = 0
    validate_every: int = 0
    keep: int = 2
    stop_after: int = 0


def prepare(corpus: Path, options: dict[str, Any], verify: str, world: int) -> tuple[Manifest, Plan, Training]:
    """Check the corpus and fix the plan. `options`: model, steps, and where given seed, sequence_length, batch_tokens,
    learning_rate, warmup. Raises UserError."""
    size = preset(options["model"])
    manifest = load_manifest(corpus)
    check_shards(corpus, manifest, verify)
    length = options["sequence_length"] or size.sequence_length
    batch = (options["batch_tokens"] or size.batch_tokens) // length
    if batch < 1:
        raise UserError(
            f"--batch-tokens {options['batch_tokens']} is less than one sequence of {length} tokens: raise it"
        )
    if batch % world:
        raise UserError(f"a batch of {batch} sequences does not divide by {world} ranks: change --batch-tokens")
    seed = manifest.seed if options["seed"] is None else options["seed"]
    plan = plan_for(manifest, seed, length, batch, options["steps"])
    warmup = min(size.warmup if options["warmup"] is None else options["warmup"], max(1, plan.steps // 2))
    return manifest, plan, Training(options["model"], options["learning_rate"] or size.learning_rate, warmup, seed)


def train(
    corpus: Path, run: Path, manifest: Manifest, plan: Plan, training: Training, habits: Habits, ranks: Ranks
) -> str:
    """Train, or go on training, and say how it ended. Raises UserError for a run folder of another plan."""
    state = {"plan": _plain(plan.as_dict()), "training": asdict(training)}
    saved = checkpoint.found(run)
    if saved:
        checkpoint.check_same(checkpoint.read_state(saved[-1][1]), state, run)
    step = saved[-1][0] if saved else 0
    if step >= plan.steps:
        return f"{run} is finished: {plan.steps} steps"
    model = build(preset(training.model), manifest.tokenizer.vocabulary, training.seed, ranks)
    optimizer = build_optimizer(model, training.learning_rate)
    if saved:
        checkpoint.load(saved[-1][1], model, optimizer)
    data = Corpus(corpus, plan)
    last = min(plan.steps, habits.stop_after or plan.steps)
    metrics = None
    if ranks.first:
        run.mkdir(parents=True, exist_ok=True)
        facts = {**state, "corpus": str(corpus.resolve()), "parameters": parameter_count(model)}
        write_atomic(run / "run.json", canonical_json(facts))
        metrics = Metrics(run, [source.name for source in plan.sources], last, step)
    while step < last:
        began = time.monotonic()
        rate = learning_rate(step, plan.steps, training.learning_rate, training.warmup)
        losses, counts, batch, norm = _step(model, optimizer, data, step, rate, habits.micro_batch, ranks)
        step += 1
        if metrics:
            seconds = time.monotonic() - began
            metrics.row(**_row(plan, step, rate, losses, counts, batch, norm, seconds))
        if step == last or (habits.checkpoint_every and step % habits.checkpoint_every == 0):
            checkpoint.save(run, step, state, model, optimizer, habits.keep)
        if step == plan.steps or (habits.validate_every and step % habits.validate_every == 0):
            validate(model, corpus, manifest, plan, run, step, ranks)
    ended = "finished" if last == plan.steps else f"stopped after step {last} of {plan.steps}"
    return f"{run}: {ended}"


def _step(
    model: Llama, optimizer: torch.optim.Optimizer, data: Corpus, step: int, rate: float, micro: int, ranks: Ranks
) -> tuple[Tensor, Tensor, str, float]:
    """One optimiser step: summed loss and token count of each source over all ranks, the batch's hash, the gradient
    norm before clipping."""
    batch = data.batch(step, ranks.rank, ranks.world)
    plan = data.plan
    tokens = plan.global_batch * plan.sequence_length
    losses, counts = torch.zeros(len(plan.sources)), torch.zeros(len(plan.sources))
    # Every so many-th sequence, not neighbours: so micro-batches hold the same sequences on any number of ranks, and
    # gradients differ by the order of a few additions at most.
    groups = -(-len(batch.inputs) // micro)
    for turn in range(groups):
        part = slice(turn, None, groups)
        model.set_requires_gradient_sync(turn == groups - 1)
        logits = model(batch.inputs[part].to(ranks.device))
        each = token_losses(logits, batch.targets[part].to(ranks.device))
        # FSDP averages gradients over ranks; times the ranks, over all tokens, that is the mean over the batch
        (each.sum() * (ranks.world / tokens)).backward()
        losses.index_add_(0, batch.sources[part], each.detach().sum(dim=1).cpu())
        counts.index_add_(0, batch.sources[part], torch.full((len(each),), float(plan.sequence_length)))
    norm = clip_gradients(model)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    both = summed(torch.stack([losses, counts]))
    sha = batch_sha(gathered(batch.digests, ranks.world).tolist())
    return both[0], both[1], sha, norm


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each token in nats, (B, T) float32, from (B, T, V) logits."""
    flat = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return flat.view(targets.shape)


@torch.no_grad()
def validate(
    model: Llama, corpus: Path, manifest: Manifest, plan: Plan, run: Path, step: int, ranks: Ranks
) -> dict[str, float]:
    """Mean loss of each source on its held-out windows, written to `validation.csv`. Every rank takes the same number
    of turns, since a forward pass needs them all."""
    windows = validation_windows(corpus, manifest, plan.sequence_length, VALIDATION_WINDOWS)
    found: dict[str, float] = {}
    for source, rows in windows.items():
        total = torch.zeros(2)
        for start in range(0, len(rows), ranks.world):
            number = start + ranks.rank
            row = rows[min(number, len(rows) - 1)].to(ranks.device)
            loss = token_losses(model(row[None, :-1]), row[None, 1:]).mean().cpu()
            total += torch.tensor([float(loss), 1.0]) * (number < len(rows))
        summed(total)
        found[source] = float(total[0] / total[1])
    path = run / "validation.csv"
    if ranks.first and found:
        before = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
        kept = [line for line in before if int(line.partition(",")[0]) < step]
        lines = [f"{step},{source},{loss:.6f},{len(windows[source])}" for source, loss in found.items()]
        write_atomic(path, ("\n".join(["step,source,loss,windows", *kept, *lines]) + "\n").encode())
    return found


def _row(
    plan: Plan, step: int, rate: float, losses: Tensor, counts: Tensor, batch: str, norm: float, seconds: float
) -> dict[str, object]:
    tokens = plan.global_batch * plan.sequence_length
    row: dict[str, object] = {
        "step": step,
        "tokens": step * tokens,
        "loss": repr(float(losses.sum() / counts.sum())),
        "learning_rate": f"{rate:.8g}",
        "gradient_norm": f"{norm:.6g}",
        "tokens_per_second": f"{tokens / seconds:.1f}",
        "batch": batch,
    }
    for source, loss, count in zip(plan.sources, losses.tolist(), counts.tolist(), strict=True):
        row[f"loss_{source.name}"] = f"{loss / count:.6f}" if count else ""
    return row


def _plain(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan as JSON gives it back, with lists for tuples."""
    return dict(json.loads(canonical_json(plan)))


def finish() -> None:
    """Leave the other ranks in good order."""
    if dist.is_initialized():
        dist.destroy_process_group()
