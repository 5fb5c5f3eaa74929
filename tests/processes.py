"""Start processes of Python from the tests.

torch refuses to run autograd in a process that was forked after autograd had run in its parent, and on Python 3.14
processes are no longer forked by default. So they are forked off a server that has imported what they need, and run
nothing: that is as quick as a plain fork.
"""

import multiprocessing
from multiprocessing.context import ForkServerContext
from pathlib import Path


def fork_server() -> ForkServerContext:
    """Return the way to start a process: its function must be importable, its arguments are pickled."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "trainer.checkpoint", "trainer.data"])
    return context


def children(pid: int) -> list[int]:
    """Return the running children of a process, oldest first, as /proc has them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_bytes().rpartition(b")")[2].split()  # a program's name may hold blanks and brackets
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == pid and fields[0] != b"Z":
            found.append((int(fields[19]), int(path.parent.name)))
    return [number for _, number in sorted(found)]
