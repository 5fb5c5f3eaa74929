"""Checkpoints: whole or absent, read by any number of ranks; the state of the data is the plan and the step."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from manifests.errors import UserError
from manifests.files import canonical_json, write_atomic

FOLDER = "checkpoints"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{8})")


def save(
    run: Path, step: int, state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, keep: int
) -> None:
    """Save after step `step`: all ranks write, the first one renames. Only the newest `keep` stay."""
    target = run / FOLDER / f"step-{step:08d}"
    temporary = target.with_name(f".{target.name}.tmp")
    first = dist.get_rank() == 0
    if first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    dist.barrier()
    weights, moments = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": moments}, checkpoint_id=str(temporary))
    if first:
        write_atomic(temporary / STATE, canonical_json({**state, "step": step}))
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        for _, old in found(run)[:-keep]:
            shutil.rmtree(old)
    dist.barrier()


def found(run: Path) -> list[tuple[int, Path]]:
    """The complete checkpoints of a run, oldest first: (step, folder)."""
    folders = (run / FOLDER).iterdir() if (run / FOLDER).is_dir() else ()
    named = [(match, folder) for folder in folders if (match := _NAME.fullmatch(folder.name))]
    return sorted((int(match[1]), folder) for match, folder in named if (folder / STATE).is_file())


def read_state(folder: Path) -> dict[str, Any]:
    """The small part of a checkpoint: plan, configuration, step."""
    try:
        return dict(json.loads((folder / STATE).read_bytes()))
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {folder} cannot be read: remove it to go on from the one before") from error


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load weights and moments in place, whatever number of ranks wrote them."""
    weights, moments = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=str(folder))
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)


def check_same(saved: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    """Refuse to go on with a run under another plan or model. Raises UserError naming what differs."""
    for part in ("plan", "training"):
        for key in sorted({*saved[part], *now[part]}):
            if saved[part].get(key) != now[part].get(key):
                shown = "" if key == "sources" else f" ({saved[part].get(key)} before, {now[part].get(key)} now)"
                raise UserError(
                    f"{run} holds a run with another {key.replace('_', ' ')}{shown}: "
                    "give the same options to go on with it, or another --output"
                )
