"""Run under torchrun: `python -m trainer train ...`, with the hash of the initial weights written to a file.

python trainer_ranks.py FILE ARGUMENTS-OF-TRAIN...
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor

import trainer.train
from trainer.__main__ import leave, main
from trainer.model import Llama


def weights_sha(model: nn.Module) -> str:
    """SHA-256 over all parameters, whole, in order of name: equal for equal weights, whatever the number of ranks."""
    total = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        total.update(name.encode() + whole.detach().float().cpu().numpy().tobytes())
    return total.hexdigest()


def run(file: Path, arguments: list[str]) -> int:
    """The trainer's exit code."""
    build = trainer.train.build

    def watched(*given: Any) -> Llama:
        model = build(*given)
        sha = weights_sha(model)
        if os.environ.get("RANK", "0") == "0":
            file.write_text(sha, encoding="utf-8")
        return model

    trainer.train.build = watched
    return main(["train", *arguments])


if __name__ == "__main__":
    leave(run(Path(sys.argv[1]), sys.argv[2:]))
