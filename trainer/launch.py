"""Run a program under torchrun, and return the exit code of the program.

Torchrun passes SIGTERM and SIGINT on to its workers. If a worker fails, torchrun itself always exits with 1 and prints
its own traceback, which hides the output of the ranks. Therefore it is called through `run_torchrun`. When a run is
stopped by a signal and all ranks have saved the same step, the trainer writes the file `stopped` into the run's folder.
The exit code is then 0.
"""

import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import FrameType

STOPPED = "stopped"
SIGNALS = (signal.SIGTERM, signal.SIGINT)
USER_ERROR = 2  # Exit code of a rank that has printed an error message for the user.
# Seconds between SIGTERM and SIGKILL from torchrun to its workers. The default of 30 s is too short to save a large
# model.
SAVING_SECONDS = 3600


def launch(options: list[str], workers: int, program: list[str], run: Path) -> int:
    """Run a program in several processes on this machine, and return the exit code.

    Args:
        options: Options of torchrun. If no option names a rendezvous, `--standalone` is added.
        workers: Number of processes on this machine.
        program: `-m` and a module, or the path of a script, followed by the arguments of the program.
        run: The run's folder.
    """
    rendezvous = ("--nnodes", "--rdzv", "--master", "--standalone")
    alone = [] if any(option.startswith(rendezvous) for option in options) else ["--standalone"]
    torchrun = [sys.executable, "-m", "trainer.launch", *alone, "--nproc-per-node", str(workers), *options]
    environment = {"OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVING_SECONDS), **os.environ}
    (run / STOPPED).unlink(missing_ok=True)
    # The child has its own session, so that Ctrl-C does not reach it directly, but only once, through `forward`.
    child = subprocess.Popen([*torchrun, *program], env=environment, start_new_session=True)
    received: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        child.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received and (run / STOPPED).is_file():
        print(f"{run}: stopped and saved; the same command resumes it", file=sys.stderr)
        return 0
    return code if code >= 0 else 128 - code


def run_torchrun(arguments: list[str]) -> int:
    """Run torchrun in this process.

    If a rank fails, one line with its number is printed. If the rank exited with USER_ERROR, nothing is printed,
    because the rank itself has printed a message.

    Returns:
        0, the exit code of the rank that failed first, or 128 + the number of the signal that ended the rank.
    """
    from torch.distributed import DistNetworkError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    # These modules would log a line for each process that they end.
    for quiet in ("multiprocessing.api", "agent.server.api"):
        logging.getLogger(f"torch.distributed.elastic.{quiet}").setLevel(logging.CRITICAL)
    try:
        run.main(arguments)
    except (DistNetworkError, RendezvousError) as error:  # A port is in use, or another node does not answer.
        why = textwrap.shorten(str(error), 200, placeholder=" …")
        print(f"error: the ranks cannot meet ({why}): give another address or --master-port", file=sys.stderr)
        return USER_ERROR
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        code = int(failure.exitcode)
        if code != USER_ERROR:
            how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            print(f"error: rank {rank} failed first, with {how}: see its output for the reason", file=sys.stderr)
        return code if code >= 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(run_torchrun(sys.argv[1:]))
