"""Checkpoints: complete or absent, written while training continues, damage seen, read by any number of ranks.

`RUN/checkpoints/step-K/` holds a file `rank-R.safetensors` for each rank of one copy of the model: its rows of every
weight (`model.NAME`) and of AdamW's state (`exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`); the rows of a tensor are
those of all files in order of rank. `state.json` holds the step, the plan, the configuration, the size and SHA-256 of
each file, and its own SHA-256. The state of the data is the plan and the step.
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
WAIT_SECONDS = 5.0  # between two calls of `note_wait`
DAMAGED = ".damaged"  # end of the name of a checkpoint that was found damaged
_NAME = re.compile(r"step-(\d{8})")
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write tensors of the host into a safetensors file, synced to the disk, and return its size and SHA-256."""
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
    """Write a run's checkpoints and keep only the newest `keep`; every rank has one.

    `save` copies weights and moments to host memory and returns; one thread per rank writes the copy, and talks to the
    other ranks through its own process group. All is synced to the disk before a folder is renamed to its final name,
    so that a kill at any moment, of the machine too, leaves the previous checkpoint or the new one.

    Args:
        run: The run's folder.
        keep: Checkpoints to keep.
        writes: True for the ranks of the first copy of the model.
        note_wait: Called again and again while `wait` waits for the disk.
    """

    def __init__(
        self, run: Path, keep: int, writes: bool = True, note_wait: Callable[[], object] = lambda: None
    ) -> None:
        self.run, self.keep, self.writes, self.note_wait = run, keep, writes, note_wait
        self.group = dist.new_group(backend="gloo", timeout=datetime.timedelta(days=1))  # a slow disk is no dead rank
        self.thread = futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.writing: futures.Future[None] | None = None
        self.saved = time.monotonic()
        dist.barrier()

    def is_due(self, minutes: float) -> bool:
        """Return True if the last save, or the start, is longer ago; 0 minutes are never."""
        return 0 < 60 * minutes <= time.monotonic() - self.saved

    def save(self, step: int, state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Start to save after step `step`, once the checkpoint before it is written. All ranks must call it."""
        self.wait()
        copy = _copy_to_host(_collect_tensors(model, optimizer)) if self.writes else {}
        self.writing = self.thread.submit(self._write, step, {**state, "step": step}, copy)
        self.saved = time.monotonic()

    def wait(self) -> None:
        """Wait for the last checkpoint and raise its errors, which are the same on every rank."""
        writing, self.writing = self.writing, None
        while writing and not futures.wait([writing], WAIT_SECONDS).done:
            self.note_wait()
        if writing:
            writing.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self.thread.shutdown()

    def _write(self, step: int, state: dict[str, Any], copy: dict[str, Tensor]) -> None:
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
            for path in (*self.run.glob("*.csv"), temporary):  # the tables hold all steps of the checkpoint, or more
                sync_path(path)
            temporary.rename(target)
            sync_path(target.parent)
            for _, old in list_checkpoints(self.run)[: -self.keep]:
                renamed = old.rename(old.with_name(f".{old.name}.{uuid.uuid4().hex}.tmp"))  # whole, or not by its name
                shutil.rmtree(
                    renamed, ignore_errors=True
                )  # a file that is being read may stay; the next start removes it

        self._run_together(prepare if first else None, step)
        files = self._run_together(
            (lambda: (name, write_tensors(temporary / name, copy))) if self.writes else None, step
        )
        self._run_together(finish if first else None, step)

    def _run_together(self, work: Callable[[], Any] | None, step: int) -> list[Any]:
        """Return the results of all ranks' work. Raise UserError on every rank if the disk of one fails."""
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
                "make room there, and the same command continues from the checkpoint before"
            )
        return [result for _, result in found]


def _collect_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return this rank's rows of all weights and moments by their names in a file, without empty ones."""
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
    """Return (step, folder) of a run's checkpoints, oldest first."""
    folders = (run / FOLDER).iterdir() if (run / FOLDER).is_dir() else ()
    return sorted((int(match[1]), folder) for folder in folders if (match := _NAME.fullmatch(folder.name)))


def find_newest(run: Path, share: Callable[[str], str], part: tuple[int, int] = (0, 1)) -> tuple[int, Path] | None:
    """Return (step, folder) of the newest whole checkpoint of a run, or None if it has no checkpoint at all.

    Newer ones that are damaged are renamed, half-written ones removed, and both are named in the terminal.

    Args:
        run: The run's folder.
        share: A function from a rank's finding to one that all ranks share.
        part: See `find_damage`; the first rank renames, removes and prints.

    Raises:
        UserError: There are checkpoints, and none of them is whole; or the ranks do not see the same folder.
    """
    _check_shared(run, share, part)
    found = list_checkpoints(run)
    half = sorted(filter(is_temporary, (run / FOLDER).iterdir())) if (run / FOLDER).is_dir() else []
    share("")  # all ranks have listed the folder
    for folder in half if part[0] == 0 else ():
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
            print(f"{other} is damaged ({what}): renamed to {aside.name}, {folder.name} is taken", file=sys.stderr)
        return step, folder
    if damaged:
        told = "; ".join(f"{folder.name}: {what}" for folder, what in damaged)
        raise UserError(
            f"{run} has no complete checkpoint ({told}): give another --output, or remove it to train from the start"
        )
    return None


def _check_shared(run: Path, share: Callable[[str], str], part: tuple[int, int]) -> None:
    """Raise UserError on every rank if one does not see the folder that the first one makes: it is of its own disk."""
    rank, world = part
    if world == 1:
        return
    (run / FOLDER).mkdir(parents=True, exist_ok=True)  # on every rank: a network's file system forgets that it was not
    mark = run / FOLDER / share(f".{uuid.uuid4().hex}.tmp" if rank == 0 else "")
    if rank == 0:
        mark.mkdir()
    share("")  # the mark is there
    blind = share("" if mark.is_dir() else f"rank {rank} on {socket.gethostname()}")
    if rank == 0:
        mark.rmdir()
    if blind:
        raise UserError(f"--output {run} of {blind} is not that of rank 0: give a folder that all machines share")


def find_damage(folder: Path, part: tuple[int, int] = (0, 1), hashes: bool = True) -> str:
    """Return the first damage of a checkpoint, or "".

    Args:
        folder: The checkpoint's folder.
        part: (rank, world): the ranks divide the files.
        hashes: Hash every file; else compare their sizes.
    """
    try:
        state = json.loads((folder / STATE).read_bytes())
        if "files" not in state:
            return f"{STATE} names no files: it was cut, or an earlier version of the trainer wrote it"
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
    """Read the plan, the configuration and the step of a checkpoint in which `find_damage` found none."""
    return dict(json.loads((folder / STATE).read_bytes()))


class CheckpointReader:
    """Read rows of a checkpoint's tensors from the files of its state, whatever the number of ranks that wrote them."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.parts: dict[str, list[tuple[Any, tuple[int, ...]]]] = {}
        try:
            for name in sorted(names):
                file: Any = safe_open(folder / name, "pt")
                for key in file.offset_keys():
                    self.parts.setdefault(key, []).append((file, tuple(file.get_slice(key).get_shape())))
        except (OSError, SafetensorError) as error:
            raise UserError(f"checkpoint {folder} cannot be read ({error}): remove it to use the one before") from error

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a whole tensor."""
        shapes = [shape for _, shape in self.parts[key]]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()

    def rows(self, key: str, begin: int, end: int) -> Tensor:
        """Read rows `begin` to `end` of a tensor, which may be none, or a scalar whole."""
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
        shapes: Shapes of the weights by this project's names.
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
        """Return the tokens of a sequence that the model was trained on."""
        return int(self.state["plan"]["sequence_length"])

    def find_corpus(self, moved_to: Path | None = None) -> tuple[Path, Manifest]:
        """Return the corpus that the model was trained on, see `trainer.events.find_corpus`."""
        return find_corpus(self.folder.resolve().parents[1], self.state["plan"]["manifest_sha"], moved_to)

    def weight(self, name: str) -> Tensor:
        """Read one whole weight as float32."""
        return self.reader.rows(f"model.{name}", 0, self.shapes[name][0])

    def check(self) -> None:
        """Compare every byte with its hash, as a resume does; raise UserError if one has changed."""
        _refuse_damage(self.folder, find_damage(self.folder))


def open_checkpoint(path: Path) -> SavedModel:
    """Open the checkpoint at a path, or the newest of a run. Whoever reads its weights calls `check` first.

    Args:
        path: A run's folder, or one checkpoint's.

    Raises:
        UserError: There is no checkpoint, or it is damaged; which other one is whole is then named.
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
    """Raise UserError for a damaged checkpoint, naming the newest whole one of its run, if any."""
    if not damage:
        return
    advice = "no other checkpoint of its run is whole: train the run again"
    for _, folder in reversed(list_checkpoints(damaged.resolve().parents[1])):
        if folder.name != damaged.name and not find_damage(folder):
            advice = f"{folder} is whole: give that one, or the run's `train` command again, which continues from it"
            break
    raise UserError(f"{damaged} is damaged ({damage}): {advice}")


@torch.no_grad()
def load(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load this rank's rows of weights and moments in place, written by any number of ranks."""
    from trainer.parallel import own_rows  # imports DTensor, which reading one whole model does not need

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


def check_same(saved: dict[str, Any], now: dict[str, Any], run: Path) -> None:
    """Raise UserError naming the first option that differs from the saved plan and training, with both values."""
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
    """Return plan and training by the names of the command's options."""
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
    """Return the name and both values of the first setting that differs, inside lists and objects too."""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = [(key, before.get(key), now.get(key)) for key in dict.fromkeys((*before, *now))]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(f"{name}, stage {number}", *pair) for number, pair in enumerate(zip(before, now, strict=True), 1)]
    elif before != now:
        return name, before, now
    found = (_find_difference(old, new, f"{name} {key}".strip()) for key, old, new in pairs)
    return next(filter(None, found), None)
