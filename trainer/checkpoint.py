"""Checkpoints: complete or absent, written while training continues, read by any number of ranks.

The state of the data is the plan and the step.
"""

import json
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from filters.errors import UserError
from manifests.files import canonical_json, is_temporary, write_atomic

FOLDER = "checkpoints"
STATE = "state.json"
_NAME = re.compile(r"step-(\d{8})")


class CheckpointWriter:
    """Write a run's checkpoints and keep only the newest `keep`; every rank has one.

    `save` copies weights and moments to host memory and returns; one thread per rank writes the copy, and talks to the
    other ranks through its own process group. A folder is renamed to its final name last, so that a kill at any
    moment leaves the previous checkpoint or the new one; the next writer removes partial folders.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self.run, self.keep = run, keep
        self.group = dist.new_group(backend="gloo")
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.writing: Future[None] | None = None
        self.stager = DefaultStager(StagingOptions(False, False, False, False))
        if dist.get_rank() == 0 and (run / FOLDER).is_dir():
            for partial in filter(is_temporary, (run / FOLDER).iterdir()):
                shutil.rmtree(partial)
        dist.barrier()

    def save(self, step: int, state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Start to save after step `step`, once the checkpoint before it is written. All ranks must call it."""
        self.wait()
        weights, moments = get_state_dict(model, optimizer)
        copy = self.stager.stage({"model": weights, "optimizer": moments})
        self.writing = self.thread.submit(self._write, step, {**state, "step": step}, copy)

    def wait(self) -> None:
        """Wait for this rank's part of the last checkpoint, on the first rank for all of it, and raise its errors."""
        writing, self.writing = self.writing, None
        if writing:
            writing.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self.thread.shutdown()
            self.stager.close()

    def _write(self, step: int, state: dict[str, Any], copy: Any) -> None:
        folder = self.run / FOLDER
        target = folder / f"step-{step:08d}"
        temporary = folder / f".{target.name}.tmp"
        first = dist.get_rank() == 0
        if first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        dist.barrier(self.group)
        dcp.save(copy, checkpoint_id=str(temporary), process_group=self.group)
        if first:
            write_atomic(temporary / STATE, canonical_json(state))
            _remove(target)
            temporary.rename(target)
            for _, old in list_checkpoints(self.run)[: -self.keep]:
                _remove(old)


def _remove(folder: Path) -> None:
    """Remove a checkpoint; a kill during the removal leaves nothing under its name."""
    if folder.exists():
        renamed = folder.with_name(f".{folder.name}.old.tmp")
        shutil.rmtree(renamed, ignore_errors=True)
        shutil.rmtree(folder.rename(renamed))


def list_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of the complete checkpoints of a run, oldest first."""
    folders = (run / FOLDER).iterdir() if (run / FOLDER).is_dir() else ()
    named = [(match, folder) for folder in folders if (match := _NAME.fullmatch(folder.name))]
    return sorted((int(match[1]), folder) for match, folder in named if (folder / STATE).is_file())


def read_state(folder: Path) -> dict[str, Any]:
    """Read the plan, the configuration and the step of a checkpoint."""
    try:
        return dict(json.loads((folder / STATE).read_bytes()))
    except (OSError, ValueError) as error:
        raise UserError(f"checkpoint {folder} cannot be read: remove it to resume from the one before") from error


def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load weights and moments in place, written by any number of ranks."""
    weights, moments = get_state_dict(model, optimizer)
    dcp.load({"model": weights, "optimizer": moments}, checkpoint_id=str(folder))
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)


def check_same(saved: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    """Raise UserError naming the first setting of plan or training that differs from the saved state."""
    for part in ("plan", "training"):
        for key in sorted({*saved[part], *now[part]}):
            before, after = saved[part].get(key), now[part].get(key)
            if before != after:
                shown = "" if key == "sources" else f" ({before} before, {after} now)"
                raise UserError(
                    f"{run} holds a run with a different {key.replace('_', ' ')}{shown}: "
                    "give the same options to resume it, or another --output"
                )
