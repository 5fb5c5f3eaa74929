"""Run a program under torchrun, with the program's own exit code, and 0 for a run that was stopped on purpose.

Torchrun passes SIGTERM and SIGINT on to its workers. It exits with 1 however they ended, after a traceback of its own
code, which hides what a rank said; so it is called here through `run_torchrun`. The trainer writes the file `stopped`
into the run's folder when all its ranks have saved after the same step; then the exit code here is 0.
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
USER_ERROR = 2  # exit code of a rank that has said what the user should do
SAVING_SECONDS = 3600  # that torchrun waits before it kills workers; its default of 30 s is too short for a large model


def launch(options: list[str], workers: int, program: list[str], run: Path) -> int:
    """Run a program in several processes on this machine, and return the exit code.

    Args:
        options: Options of torchrun; the processes are on their own if none of them names a rendezvous.
        workers: Number of processes on this machine.
        program: Arguments of torchrun: -m and a module, or a script, with its own arguments.
        run: The run's folder.
    """
    rendezvous = ("--nnodes", "--rdzv", "--master", "--standalone")
    alone = [] if any(option.startswith(rendezvous) for option in options) else ["--standalone"]
    torchrun = [sys.executable, "-m", "trainer.launch", *alone, "--nproc-per-node", str(workers), *options]
    environment = {"OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVING_SECONDS), **os.environ}
    (run / STOPPED).unlink(missing_ok=True)
    # in its own session, so that Ctrl-C reaches it through this process alone, and once
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
    """Run torchrun in this process; return 0, the exit code of the rank that failed first, or 128 + a signal's number.

    A rank's mistake of the user is not repeated; another failure is one line that names the rank.
    """
    from torch.distributed import DistNetworkError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    for quiet in ("multiprocessing.api", "agent.server.api"):  # which log each process that they end
        logging.getLogger(f"torch.distributed.elastic.{quiet}").setLevel(logging.CRITICAL)
    try:
        run.main(arguments)
    except (DistNetworkError, RendezvousError) as error:  # a port in use, or no answer from another node
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
            print(f"error: rank {rank} failed first, with {how}: its own output says why", file=sys.stderr)
        return code if code >= 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(run_torchrun(sys.argv[1:]))
