"""Start Python processes from the tests.

torch refuses to run autograd in a process that was forked after autograd had run in its parent, and Python 3.14 no
longer forks processes by default. So processes are forked from a server that has imported the modules they need and has
run nothing else; that is as fast as a plain fork.
"""

import multiprocessing
from multiprocessing.context import ForkServerContext
from pathlib import Path


def fork_server() -> ForkServerContext:
    """Return a context that starts processes; a process's function must be importable and its arguments are pickled."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "trainer.checkpoint", "trainer.data"])
    return context


def children(pid: int) -> list[int]:
    """Return the running children of a process from /proc, oldest first."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_bytes().rpartition(b")")[2].split()  # a program's name may hold blanks and brackets
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == pid and fields[0] != b"Z":
            found.append((int(fields[19]), int(path.parent.name)))
    return [number for _, number in sorted(found)]
