"""Start Python processes from tests.

torch refuses to run autograd in a forked process if autograd ran in its parent before the fork. Python 3.14 no longer
forks processes by default. Therefore processes are forked from a fork server, which has imported the modules that they
need and has run nothing else. This is as fast as a plain fork.
"""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

PRELOADED = ["pandas", "pytest", "torch", "trainer.__main__", "trainer.data", "trainer.train", "trainer_ranks"]
PRELOADED += ["torch._dynamo"]  # imported by the first training step


def fork_server() -> ForkServerContext:
    """Return a context that starts processes.

    The function of a process must be importable, and its arguments are pickled.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def start_ranks(world: int, errors: Path, main: Callable[..., int], *arguments: Any) -> list[ForkServerProcess]:
    """Start `main(*arguments)` on several ranks with torchrun's environment, without torchrun and its imports.

    Args:
        world: Number of ranks.
        errors: File to which the standard error of the ranks is written.
        main: Importable function. Its result is the exit code of its process.
        arguments: Arguments of `main`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    errors.touch()
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    ranks = [
        fork_server().Process(
            target=_run_rank, args=({**common, "RANK": rank, "LOCAL_RANK": rank}, errors, main, arguments)
        )
        for rank in range(world)
    ]
    for rank in ranks:
        rank.start()
    return ranks


def join_ranks(ranks: list[ForkServerProcess], seconds: float = 600) -> int:
    """Wait for all ranks. If a rank fails, kill the other ranks, as torchrun does.

    Args:
        ranks: The processes.
        seconds: The longest time without the end of a rank. After it, all ranks are killed.

    Returns:
        0, or the exit code of the rank that failed first.
    """
    running = {rank.sentinel: rank for rank in ranks}
    while running:
        ended = connection.wait(running, seconds)
        codes = [running.pop(sentinel).exitcode for sentinel in ended]  # type: ignore[call-overload]
        if not ended or any(codes):
            for rank in running.values():
                rank.kill()
            return next(filter(None, codes), 1)
    return 0


def _run_rank(environment: dict[str, object], errors: Path, main: Callable[..., int], arguments: tuple[Any]) -> None:
    os.environ |= {name: str(value) for name, value in environment.items()}
    with errors.open("a", encoding="utf-8", buffering=1) as sys.stderr:
        sys.exit(main(*arguments))


def children(pid: int) -> list[int]:
    """Return the ids of the running child processes of a process, oldest first, from /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_bytes().rpartition(b")")[2].split()  # The name may contain blanks and parentheses.
        except OSError:  # The process has ended in the meantime.
            continue
        if int(fields[1]) == pid and fields[0] != b"Z":
            found.append((int(fields[19]), int(path.parent.name)))
    return [number for _, number in sorted(found)]
