"""`launch`: torchrun, so that a run stopped on purpose has ended well.

Torchrun passes SIGTERM and SIGINT on to its workers and then exits with 1 however they ended. The trainer leaves the
file `stopped` in the run's folder when all its ranks have saved after the same step; then the exit code here is 0.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from filters.errors import UserError

STOPPED = "stopped"
SIGNALS = (signal.SIGTERM, signal.SIGINT)
SAVING_SECONDS = 3600
"""how long torchrun waits for workers that save before it kills them: its own 30 s are less than a large model takes"""


def run_folder(command: list[str]) -> Path:
    """The folder that a `train` command writes to. Raises UserError."""
    for number, word in enumerate(command):
        if word == "--output" and number + 1 < len(command):
            return Path(command[number + 1])
        if word.startswith("--output="):
            return Path(word.partition("=")[2])
    raise UserError("give the run's folder with --output, as `python -m trainer train` wants it")


def launch(options: list[str], workers: int, program: list[str], run: Path) -> int:
    """Run `program` (what torchrun takes: -m module or a script, with its arguments) in that many processes on this
    machine, and give the exit code. `options`: torchrun's own; one machine alone where they name no rendezvous."""
    several = ("--nnodes", "--rdzv", "--master", "--standalone")
    alone = [] if any(option.startswith(several) for option in options) else ["--standalone"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *alone, "--nproc-per-node", str(workers), *options]
    environment = {"OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVING_SECONDS), **os.environ}
    (run / STOPPED).unlink(missing_ok=True)
    # in a session of its own, so that Ctrl-C reaches it through us alone, and once
    child = subprocess.Popen([*torchrun, *program], env=environment, start_new_session=True)
    asked: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        asked.append(number)
        child.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked and (run / STOPPED).is_file():
        print(f"{run}: stopped and saved; the same command goes on", file=sys.stderr)
        return 0
    return code if code >= 0 else 128 - code
