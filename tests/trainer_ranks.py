"""Run `python -m trainer train ...` as one rank, and write the hash of the initial weights to a file."""

import hashlib
import os
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor

import trainer.train
from trainer.__main__ import main
from trainer.model import Llama


def weights_sha(model: nn.Module) -> str:
    """Return the SHA-256 of all parameters in order of name. It does not depend on the number of ranks."""
    total = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        total.update(name.encode() + whole.detach().float().cpu().numpy().tobytes())
    return total.hexdigest()


def run(file: Path, arguments: list[str]) -> int:
    """Run the trainer and return its exit code. Rank 0 writes the hash of the initial weights to a file."""
    build = trainer.train.build

    def watched(*given: Any) -> Llama:
        model = build(*given)
        sha = weights_sha(model)
        if os.environ.get("RANK", "0") == "0":
            file.write_text(sha, encoding="utf-8")
        return model

    trainer.train.build = watched
    return main(["train", *arguments])
