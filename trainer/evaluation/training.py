"""Evaluate a model during training. The scores are written to `RUN/evaluation.csv`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import xxhash
from torch import nn
from torch.distributed.tensor import DTensor

from filters.errors import UserError
from manifests import tokenizer
from trainer.evaluation.engine import Engine
from trainer.evaluation.evaluate import BITS, Options, Records, TaskRun, evaluate, prepare
from trainer.evaluation.models import EvaluatedModel, read_vocabulary
from trainer.evaluation.score import Mean, mean
from trainer.evaluation.tasks import select_tasks
from trainer.events import EVALUATION, write_rows
from trainer.model import Llama, allocate
from trainer.parallel import reshard

HEAD = "step,task,metric,mean,low,high,questions"


def prepare_runs(tasks: Sequence[str], data: Path, limit: int) -> list[TaskRun]:
    """Prepare the named tasks, without examples in the prompt.

    Args:
        tasks: Names of tasks.
        data: Folder of the task files.
        limit: Maximum number of questions per task.

    Raises:
        UserError: A task cannot be scored, or there is no task.
    """
    runs, refused = prepare(select_tasks(tasks), data, Options(limit, (0,)))
    if refused or not runs:
        raise UserError(
            "; ".join(dict.fromkeys(refused.values()))
            or "--evaluate-every needs --evaluate-tasks: give names that `evaluate --list` shows"
        )
    return runs


def hash_weights(model: nn.Module) -> str:
    """Return a hash of all weights as 32 hexadecimal digits."""
    total = xxhash.xxh3_128()
    for parameter in model.parameters():
        total.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


@torch.no_grad()
def gather_model(model: nn.Module, is_first: bool) -> Llama | None:
    """Return an unsharded copy of a model on the first rank, and None on other ranks. All ranks must call this."""
    reshard(model)
    whole = allocate(model.size, model.vocabulary, next(model.parameters()).device) if is_first else None
    mine = dict(whole.named_parameters()) if whole else {}
    for name, parameter in model.named_parameters():
        full = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        if whole:
            mine[name].copy_(full)
    return whole


def evaluate_step(
    model: nn.Module,
    step: int,
    broadcast_working: Callable[[bool], bool],
    *,
    run: Path,
    corpus: Path,
    length: int,
    runs: Sequence[TaskRun],
    is_first: bool,
) -> dict[str, float]:
    """Evaluate a model on the first rank, and append the scores to RUN/evaluation.csv. The other ranks wait.

    Args:
        model: The model, sharded over the ranks.
        step: The training step after which the model is evaluated.
        broadcast_working: See `TrainingLoop.broadcast_working`. The first rank calls it with True after each question,
            and with False at the end.
        run: The run's folder.
        corpus: The corpus's folder, which contains the tokenizer.
        length: Maximum number of tokens in the model's context.
        runs: The tasks to evaluate.
        is_first: True on the first rank.

    Returns:
        On the first rank, a dict from "TASK METRIC" to the mean score. On other ranks, {}.
    """
    whole = gather_model(model, is_first)
    if whole is None:
        while broadcast_working(True):
            pass
        return {}
    engine = Engine(whole, read_vocabulary(corpus / tokenizer.FILE), length)
    # Records are identified by the hash of the weights and not by the step. If a run is resumed from an older
    # checkpoint, the weights after a step may differ from the weights that were evaluated before.
    source = EvaluatedModel(run, hash_weights(whole), "", step, lambda: (whole, engine.vocabulary, length))
    records = evaluate(source, lambda: engine, runs, run / "evaluation", Options(), lambda: broadcast_working(True))
    broadcast_working(False)
    found = {(one.name, metric): each for one in runs for metric, each in _average(one, records).items()}
    lines = [
        f"{step},{name},{metric},{one.value:.6f},{one.low:.6f},{one.high:.6f},{one.count}"
        for (name, metric), one in found.items()
    ]
    write_rows(run / EVALUATION, step - 1, HEAD, lines)
    return {f"{name} {metric}": one.value for (name, metric), one in found.items()}


def _average(run: TaskRun, records: Records) -> dict[str, Mean]:
    scores = [records[key]["scores"] for key in run.keys]
    wanted = (run.task.metric, BITS)
    return {metric: mean([one[metric] for one in scores]) for metric in wanted if metric in scores[0]}
