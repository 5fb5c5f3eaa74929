"""Run under torchrun: `python -m trainer train ...`, with the hash of the initial weights written to a file.

python trainer_ranks.py FILE ARGUMENTS-OF-TRAIN...
"""

import os
import sys
from pathlib import Path
from typing import Any

import trainer.train
from trainer import parallel
from trainer.__main__ import leave, main
from trainer.model import Llama


def run(file: Path, arguments: list[str]) -> int:
    """The trainer's exit code."""
    build = trainer.train.build

    def watched(*given: Any) -> Llama:
        model = build(*given)
        sha = parallel.weights_sha(model)
        if os.environ.get("RANK", "0") == "0":
            file.write_text(sha)
        return model

    trainer.train.build = watched
    return main(["train", *arguments])


if __name__ == "__main__":
    leave(run(Path(sys.argv[1]), sys.argv[2:]))
