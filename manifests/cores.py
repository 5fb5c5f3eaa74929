"""Count the cores of the machine that are ours."""

import os


def usable_cores() -> int:
    """Return the number of cores that this process may use, which a container or `taskset` may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
