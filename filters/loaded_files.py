"""Cache the results of functions that load files, until one of the files changes.

`functools.lru_cache` alone is not enough: a worker process may serve several runs (as Beam's `worker_pool_main` does),
and a list or a model can change under the same path between two runs.
"""

import os
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Loaded = TypeVar("Loaded")
Stamp = tuple[int, int, int]  # inode number, size in bytes, time of the last change in nanoseconds


def keep_loaded(
    maxsize: int, paths: Callable[..., Iterable[str | Path]]
) -> Callable[[Callable[P, Loaded]], Callable[P, Loaded]]:
    """Return a decorator that caches the results of a function that loads files.

    The arguments of the function must be hashable. A result is loaded again if a file has another inode, size or time
    of change than before.

    Args:
        maxsize: largest number of results in the cache.
        paths: takes the arguments of the function and returns the paths of the files that it loads.
    """

    def decorate(load: Callable[P, Loaded]) -> Callable[P, Loaded]:
        @lru_cache(maxsize)
        def load_stamped(stamps: tuple[Stamp | None, ...], *args: P.args, **kwargs: P.kwargs) -> Loaded:
            return load(*args, **kwargs)

        @wraps(load)
        def load_once(*args: P.args, **kwargs: P.kwargs) -> Loaded:
            return load_stamped(tuple(map(_stamp, paths(*args, **kwargs))), *args, **kwargs)  # type: ignore[arg-type]

        return load_once

    return decorate


def _stamp(path: str | Path) -> Stamp | None:
    """Return values that change if the file at a path is changed or replaced; None if there is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116  # called once per document; Path.stat takes three times as long
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
