"""Loss of each source on its held-out windows."""

import math
from pathlib import Path

import torch

from manifests.files import write_atomic
from manifests.manifest import Manifest
from trainer.data import validation_windows
from trainer.parallel import reshard, summed
from trainer.step import Stepper

FILE = "validation.csv"
WINDOWS = 64
"""windows of each source that are read"""


@torch.no_grad()
def validate(corpus: Path, manifest: Manifest, length: int, run: Path, step: int, stepper: Stepper) -> None:
    """Write mean loss a token and bits per byte of each source to `validation.csv`. Every rank takes the same number of
    turns, since a forward pass needs them all."""
    ranks = stepper.ranks
    windows = validation_windows(corpus, manifest, length, WINDOWS)
    lines = []
    for source, rows in windows.items():
        total = torch.zeros((), dtype=torch.float64, device=ranks.device)
        turns = -(-len(rows) // (ranks.world * stepper.micro_batch))
        for turn in range(turns):
            mine = slice(turn * ranks.world + ranks.rank, None, turns * ranks.world)
            here = len(rows[mine]) > 0
            part = rows[mine if here else slice(0, 1)]
            total += stepper.losses(part.to(ranks.device), part)[0] * here
        loss = float(summed(total))
        text = int(stepper.text_bytes(rows).sum())
        mean = loss / (len(rows) * length)
        lines.append(f"{step},{source},{mean:.6f},{bits_per_byte(loss, text)},{len(rows)}")
    reshard(stepper.model)
    path = run / FILE
    if ranks.first and lines:
        before = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
        kept = [line for line in before if int(line.partition(",")[0]) < step]
        write_atomic(path, ("\n".join(["step,source,loss,bits_per_byte,windows", *kept, *lines]) + "\n").encode())


def bits_per_byte(nats: float, text: int) -> str:
    """A sum of losses in nats over so many bytes of text, in bits a byte; empty where there are none."""
    return f"{nats / math.log(2) / text:.6f}" if text else ""
