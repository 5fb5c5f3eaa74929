"""Write and read checkpoints.

A checkpoint is either complete or absent. It is written while training continues. Damage is detected by hashes, and any
number of ranks can read it.

`RUN/checkpoints/step-K/` contains a file `rank-R.safetensors` for each rank of one copy of the model. The file holds
the rank's rows of every weight (`model.NAME`) and of AdamW's state (`exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`). To
get a whole tensor, concatenate its rows from all files in order of rank.

`state.json` holds the step, the plan, the configuration, the size and SHA-256 of each file, and its own SHA-256. The
position in the data follows from the plan and the step.
"""

import datetime
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import struct
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from filters.errors import UserError
from manifests.files import canonical_json, is_temporary, sha256_file, sha256_json, sync_path
from manifests.manifest import Manifest
from manifests.sizes import Preset, get_preset
from trainer.events import find_corpus

FOLDER = "checkpoints"
STATE = "state.json"
WAIT_SECONDS = 5.0  # seconds between two calls of `note_wait`
DAMAGED = ".damaged"  # suffix of the name of a damaged checkpoint
_NAME = re.compile(r"step-(\d{8})")
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write tensors in host memory to a safetensors file and sync it to the disk.

    Returns:
        {"bytes": size of the file, "sha256": its hash}.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    words = json.dumps(header).encode()
    words += b" " * (-len(words) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        data = (tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data for tensor in tensors.values())
        for part in itertools.chain([struct.pack("<Q", len(words)), words], data):
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": 8 + len(words) + end, "sha256": digest.hexdigest()}


class CheckpointWriter:
    """A writer of a run's checkpoints that keeps only the newest `keep` checkpoints. Every rank has a writer.

    `save` copies weights and moments to host memory and returns. One thread per rank writes the copy; the threads
    communicate through their own process group. All files are synced to the disk before a folder is renamed to its
    final name. So if the process or the machine stops at any moment, the previous or the new checkpoint is complete.

    Args:
        run: The run's folder.
        keep: Number of checkpoints to keep.
        writes: True for the ranks of the first copy of the model.
        note_wait: Called every WAIT_SECONDS while `wait` waits for the disk.
    """

    def __init__(
        self, run: Path, keep: int, writes: bool = True, note_wait: Callable[[], object] = lambda: None
    ) -> None:
        self.run, self.keep, self.writes, self.note_wait = run, keep, writes, note_wait
        # The timeout is long, because a rank with a slow disk is not dead.
        self.group = dist.new_group(backend="gloo", timeout=datetime.timedelta(days=1))
        self.thread = futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.writing: futures.Future[None] | None = None
        self.saved = time.monotonic()
        dist.barrier()

    def is_due(self, minutes: float) -> bool:
        """Return True if `minutes` have passed since the last save or the start. Return False for 0 minutes."""
        return 0 < 60 * minutes <= time.monotonic() - self.saved

    def save(self, step: int, state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Wait until the previous checkpoint is written, then start to save step `step`. All ranks must call this."""
        self.wait()
        copy = _copy_to_host(_collect_tensors(model, optimizer)) if self.writes else {}
        self.writing = self.thread.submit(self._write, step, {**state, "step": step}, copy)
        self.saved = time.monotonic()

    def wait(self) -> None:
        """Wait until the last checkpoint is written, and raise its error. The error is the same on every rank."""
        writing, self.writing = self.writing, None
        while writing and not futures.wait([writing], WAIT_SECONDS).done:
            self.note_wait()
        if writing:
            writing.result()

    def close(self) -> None:
        """Wait until the last checkpoint is written, and end the thread."""
        try:
            self.wait()
        finally:
            self.thread.shutdown()

    def _write(self, step: int, state: dict[str, Any], copy: dict[str, Tensor]) -> None:
        """Write a checkpoint to a temporary folder, rename the folder, and remove old checkpoints.

        This runs in the thread. The first rank creates and renames the folder, and every rank writes its own file.

        Args:
            step: The step.
            state: Content of `state.json` without the files and the hash.
            copy: This rank's rows of weights and moments, in host memory.
        """
        target = self.run / FOLDER / f"step-{step:08d}"
        temporary = target.with_name(f".{target.name}.tmp")
        first = dist.get_rank() == 0
        name = f"rank-{dist.get_rank():05d}.safetensors"

        def prepare() -> None:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)

        def finish() -> None:
            facts = {**state, "files": {file: found for file, found in files if found}}
            with (temporary / STATE).open("wb") as file:
                file.write(canonical_json({**facts, "sha256": sha256_json(facts)}))
                file.flush()
                os.fsync(file.fileno())
            # The tables are synced too, so that they contain all steps of the checkpoint.
            for path in (*self.run.glob("*.csv"), temporary):
                sync_path(path)
            temporary.rename(target)
            sync_path(target.parent)
            for _, old in list_checkpoints(self.run)[: -self.keep]:
                # Rename first, so that no incomplete folder has the name of a checkpoint. If a file cannot be removed
                # because a process reads it, the next start of the run removes it.
                renamed = old.rename(old.with_name(f".{old.name}.{uuid.uuid4().hex}.tmp"))
                shutil.rmtree(renamed, ignore_errors=True)

        self._run_together(prepare if first else None, step)
        files = self._run_together(
            (lambda: (name, write_tensors(temporary / name, copy))) if self.writes else None, step
        )
        self._run_together(finish if first else None, step)

    def _run_together(self, work: Callable[[], Any] | None, step: int) -> list[Any]:
        """Call `work` on this rank, and return the results of all ranks.

        Args:
            work: A function that writes to the disk; None if this rank does nothing.
            step: Step of the checkpoint, for the error message.

        Raises:
            UserError: On every rank, if `work` raised OSError on any rank.
        """
        error, result = "", None
        try:
            result = work() if work else ("", None)
        except OSError as failure:
            error = failure.strerror or str(failure)
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, (error, result), group=self.group)
        if error := min((error for error, _ in found if error), default=""):
            raise UserError(
                f"the checkpoint of step {step} cannot be written to {self.run / FOLDER} ({error}): "
                "make room there, and the same command continues from the previous checkpoint"
            )
        return [result for _, result in found]


def _collect_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return a dict from the name in the checkpoint file to this rank's rows of the tensor.

    The dict contains weights and moments. Tensors of which this rank has no rows are left out.
    """
    tensors: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter
        tensors |= {f"{key}.{name}": value for key, value in optimizer.state.get(parameter, {}).items()}
    own = {key: getattr(tensor, "to_local", lambda t=tensor: t)().detach() for key, tensor in tensors.items()}
    return {key: tensor for key, tensor in own.items() if tensor.numel()}


def _copy_to_host(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    gpu = any(tensor.is_cuda for tensor in tensors.values())
    copies = {key: torch.empty_like(tensor, device="cpu", pin_memory=gpu) for key, tensor in tensors.items()}
    for key, tensor in tensors.items():
        copies[key].copy_(tensor, non_blocking=True)
    if gpu:
        torch.cuda.current_stream().synchronize()
    return copies


def list_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of each checkpoint of a run, oldest first."""
    folders = (run / FOLDER).iterdir() if (run / FOLDER).is_dir() else ()
    return sorted((int(match[1]), folder) for folder in folders if (match := _NAME.fullmatch(folder.name)))


def find_newest(run: Path, share: Callable[[str], str], part: tuple[int, int] = (0, 1)) -> tuple[int, Path] | None:
    """Return (step, folder) of the newest complete checkpoint of a run, or None if it has no checkpoint at all.

    Damaged checkpoints that are newer are renamed. Checkpoints that were not written completely are removed. The first
    rank does this, and prints their names.

    Args:
        run: The run's folder.
        share: A collective function. Each rank passes a string. All ranks receive the same result: one of the nonempty
            strings, or "" if all are empty.
        part: (rank, world), see `find_damage`.

    Raises:
        UserError: There are checkpoints, and none of them is complete; or the ranks do not see the same folder.
    """
    _check_shared(run, share, part)
    found = list_checkpoints(run)
    incomplete = sorted(filter(is_temporary, (run / FOLDER).iterdir())) if (run / FOLDER).is_dir() else []
    share("")  # Wait until all ranks have listed the folder.
    for folder in incomplete if part[0] == 0 else ():
        print(f"removed {folder}, which was not written to its end", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
    damaged: list[tuple[Path, str]] = []
    for step, folder in reversed(found):
        damage = share(find_damage(folder, part))
        if damage:
            damaged.append((folder, damage))
            continue
        for other, what in damaged if part[0] == 0 else ():
            aside = other.with_name(other.name + DAMAGED)
            shutil.rmtree(aside, ignore_errors=True)
            other.rename(aside)
            print(f"{other} is damaged ({what}): renamed to {aside.name}, {folder.name} is used", file=sys.stderr)
        return step, folder
    if damaged:
        told = "; ".join(f"{folder.name}: {what}" for folder, what in damaged)
        raise UserError(
            f"{run} has no complete checkpoint ({told}): give another --output, or remove it to train from the start"
        )
    return None


def _check_shared(run: Path, share: Callable[[str], str], part: tuple[int, int]) -> None:
    """Check that all ranks use the same folder, and not folders of the same name on different disks.

    The first rank creates a subfolder, and the other ranks look for it.

    Raises:
        UserError: On every rank, if a rank does not see the subfolder.
    """
    rank, world = part
    if world == 1:
        return
    # Every rank creates the folder, because a network file system may cache the information that it did not exist.
    (run / FOLDER).mkdir(parents=True, exist_ok=True)
    mark = run / FOLDER / share(f".{uuid.uuid4().hex}.tmp" if rank == 0 else "")
    if rank == 0:
        mark.mkdir()
    share("")  # Wait until the subfolder exists.
    blind = share("" if mark.is_dir() else f"rank {rank} on {socket.gethostname()}")
    if rank == 0:
        mark.rmdir()
    if blind:
        raise UserError(
            f"--output {run} of {blind} is not the folder that rank 0 has: give a folder that all machines share"
        )


def find_damage(folder: Path, part: tuple[int, int] = (0, 1), hashes: bool = True) -> str:
    """Return a description of the first damage found in a checkpoint, or "" if there is none.

    Args:
        folder: The checkpoint's folder.
        part: (rank, world). The ranks divide the files among them.
        hashes: True to compare the hash of every file, False to compare only the sizes.
    """
    try:
        state = json.loads((folder / STATE).read_bytes())
        if "files" not in state:
            return f"{STATE} names no files: it was truncated, or an earlier version of the trainer wrote it"
        files = dict(state["files"])
        if state.pop("sha256") != sha256_json(state):
            return f"the bytes of {STATE} have changed"
    except FileNotFoundError:
        return f"{STATE} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{STATE} cannot be read"
    for name in sorted(files)[part[0] :: part[1]]:
        path = folder / name
        size = path.stat().st_size if path.is_file() else -1
        if size != files[name]["bytes"]:
            return f"{name} is missing" if size < 0 else f"{name} has {size} bytes of {files[name]['bytes']}"
        if hashes and sha256_file(path) != files[name]["sha256"]:
            return f"the bytes of {name} have changed"
    return ""


def read_state(folder: Path) -> dict[str, Any]:
    """Read `state.json` of a checkpoint: the plan, the configuration, the step. Call `find_damage` first."""
    return dict(json.loads((folder / STATE).read_bytes()))


class CheckpointReader:
    """A reader of rows of a checkpoint's tensors. Any number of ranks may have written the checkpoint.

    Args:
        folder: The checkpoint's folder.
        names: Names of the checkpoint's files, from its `state.json`.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.parts: dict[str, list[tuple[Any, tuple[int, ...]]]] = {}
        try:
            for name in sorted(names):
                file: Any = safe_open(folder / name, "pt")
                for key in file.offset_keys():
                    self.parts.setdefault(key, []).append((file, tuple(file.get_slice(key).get_shape())))
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"checkpoint {folder} cannot be read ({error}): remove it to use the previous one"
            ) from error

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a whole tensor."""
        shapes = [shape for _, shape in self.parts[key]]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()

    def rows(self, key: str, begin: int, end: int) -> Tensor:
        """Read rows `begin` to `end` of a tensor. The result may have no rows. A scalar is always read whole."""
        found, first = [], 0
        for file, shape in self.parts[key]:
            if not shape:
                return torch.as_tensor(file.get_tensor(key))
            low, high = max(begin - first, 0), min(end - first, shape[0])
            if low < high:
                found.append(file.get_slice(key)[low:high])
            first += shape[0]
        return torch.cat(found) if found else torch.empty(0, *self.shape(key)[1:])


@dataclass(frozen=True)
class SavedModel:
    """The model of a checkpoint on disk.

    Attributes:
        folder: The checkpoint's folder.
        size: The model's size.
        shapes: A dict from the weight's name in this project to its shape.
        state: The checkpoint's `state.json`.
        reader: Reader of the weights.
    """

    folder: Path
    size: Preset
    shapes: dict[str, tuple[int, ...]]
    state: dict[str, Any]
    reader: CheckpointReader

    @property
    def vocabulary(self) -> int:
        """Return the number of rows of the embedding."""
        return self.shapes["embedding.weight"][0]

    @property
    def length(self) -> int:
        """Return the number of tokens per sequence in the training of the model."""
        return int(self.state["plan"]["sequence_length"])

    def find_corpus(self, moved_to: Path | None = None) -> tuple[Path, Manifest]:
        """Return the folder and manifest of the model's training corpus. See `trainer.events.find_corpus`."""
        return find_corpus(self.folder.resolve().parents[1], self.state["plan"]["manifest_sha"], moved_to)

    def weight(self, name: str) -> Tensor:
        """Read one whole weight as float32."""
        return self.reader.rows(f"model.{name}", 0, self.shapes[name][0])

    def check(self) -> None:
        """Compare the hash of every file, as a resumed run does. Raise UserError if a byte has changed."""
        _refuse_damage(self.folder, find_damage(self.folder))


def open_checkpoint(path: Path) -> SavedModel:
    """Open a checkpoint. Only the sizes of its files are checked: call `check` on the result before reading weights.

    Args:
        path: The folder of a run, of which the newest checkpoint is opened, or the folder of a checkpoint.

    Raises:
        UserError: There is no checkpoint, or it is damaged. The message names another checkpoint that is complete.
    """
    found = list_checkpoints(path)
    folder = found[-1][1] if found else path
    if not ((_NAME.match(folder.name) and folder.is_dir()) or (folder / STATE).is_file()):
        raise UserError(f"{path} holds no checkpoint: give a run's folder or one of its checkpoints/step-…")
    _refuse_damage(folder, find_damage(folder, hashes=False))
    state = read_state(folder)
    reader = CheckpointReader(folder, state["files"])
    shapes = {key[6:]: reader.shape(key) for key in reader.parts if key.startswith("model.")}
    training = state["training"]
    size = replace(get_preset(training["model"]), norm_epsilon=training["norm_epsilon"])
    return SavedModel(folder, size, shapes, state, reader)


def _refuse_damage(damaged: Path, damage: str) -> None:
    """Raise UserError if a checkpoint is damaged. The message names the run's newest other complete checkpoint, if any.

    Args:
        damaged: The checkpoint's folder.
        damage: Result of `find_damage`.
    """
    if not damage:
        return
    advice = "no other checkpoint of its run is complete: train the run again"
    for _, folder in reversed(list_checkpoints(damaged.resolve().parents[1])):
        if folder.name != damaged.name and not find_damage(folder):
            advice = (
                f"{folder} is complete: give this checkpoint, or repeat the `train` command, which continues from it"
            )
            break
    raise UserError(f"{damaged} is damaged ({damage}): {advice}")


@torch.no_grad()
def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Read this rank's rows of a checkpoint's weights and moments into a model and an optimizer.

    Any number of ranks may have written the checkpoint.
    """
    from trainer.parallel import own_rows  # This import loads DTensor, which is not needed to read a whole model.

    reader = CheckpointReader(folder, read_state(folder)["files"])
    for name, parameter in model.named_parameters():
        local, begin = own_rows(parameter)
        end = begin + len(local)
        local.copy_(reader.rows(f"model.{name}", begin, end))
        if f"step.{name}" not in reader.parts:
            continue
        moments = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
        for key, tensor in moments.items():
            own_rows(tensor)[0].copy_(reader.rows(f"{key}.{name}", begin, end))
        step = reader.rows(f"step.{name}", 0, 1).to(parameter.device)
        optimizer.state[parameter] = {"step": step, **moments}


def check_same_settings(saved: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    """Check that a resumed run has the same plan and training settings as the saved run.

    Args:
        saved: "plan" and "training" of the checkpoint.
        now: "plan" and "training" of this command.
        run: The run's folder, for the message.

    Raises:
        UserError: They differ. The message gives the first option that differs and both values.
    """
    different = _find_difference(_name_options(saved), _name_options(now))
    if different is not None:
        name, before, after = different
        told = [
            "none" if value in (None, "", []) else json.dumps(value, ensure_ascii=False) for value in (before, after)
        ]
        raise UserError(
            f"{run} holds a run with another {name} ({told[0]} before, {told[1]} now): "
            "give the same options to resume it, or another --output"
        )


def _name_options(state: dict[str, Any]) -> dict[str, Any]:
    """Return a dict from the name of a command-line option to its value in a saved plan and training."""
    plan, training = dict(state["plan"]), dict(state["training"])
    rates, length = training.pop("learning_rate"), plan["sequence_length"]
    named = {
        "corpus": plan.pop("manifest_sha"),
        "--steps": plan.pop("steps"),
        "--sequence-length": length,
        "--batch-tokens": plan.pop("global_batch") * length,
        "--stages": rates if len(rates) > 1 else [],
        "mixture of --stages": plan.pop("stages", []),
    }
    alone = {name: value for name, value in rates[0].items() if name != "steps"} if len(rates) == 1 else {}
    rest = sorted({**alone, **plan, **training}.items())
    return {**named, **{f"--{name.replace('_', '-')}": value for name, value in rest}}


def _find_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Return (name, old value, new value) of the first difference, searching in nested dicts and lists, or None."""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = [(key, before.get(key), now.get(key)) for key in dict.fromkeys((*before, *now))]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(f"{name}, stage {number}", *pair) for number, pair in enumerate(zip(before, now, strict=True), 1)]
    elif before != now:
        return name, before, now
    found = (_find_difference(old, new, f"{name} {key}".strip()) for key, old, new in pairs)
    return next(filter(None, found), None)
