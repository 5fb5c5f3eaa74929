"""Keep what a function loads from files, until one of the files changes.

A worker process may serve several runs (`worker_pool_main` of Beam does), between which a list or a model can change
under the same path.
"""

import os
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
Loaded = TypeVar("Loaded")
Stamp = tuple[int, int, int]  # number of the file, size in bytes, time of change in nanoseconds


def keep_loaded(
    maxsize: int, paths: Callable[..., Iterable[str | Path]]
) -> Callable[[Callable[P, Loaded]], Callable[P, Loaded]]:
    """Return a decorator for a function that loads files, whose arguments are hashable.

    Args:
        maxsize: largest number of results that are kept.
        paths: returns the paths of the files from the function's arguments.
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
    """Return what tells a file from the one that lay there before; None for a path without a file."""
    try:
        found = os.stat(path)  # noqa: PTH116  # once a document: a third of the time
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
