"""Check that a function takes linear time: compare the CPU time of an input with that of one eight times as large.

Both times are measured in the same process, so the check does not depend on the speed of the machine.
"""

import gc
import time
from collections.abc import Callable
from typing import TypeVar

GROWTH = 8
MOST = 28  # times the smaller input's time: linear work takes 8 times, n log n about 10, quadratic work 64
TURNS = 6  # measurements of each input, the fastest counts: a busy machine only adds time
UNSEEN = 0.1  # seconds; a faster larger input passes, as the smaller one is too short to measure

Input = TypeVar("Input")


def repeated(unit: str, before: str = "") -> Callable[[int], str]:
    """Return a function that repeats a piece of text up to a number of characters."""
    return lambda size: before + unit * (size // len(unit))


def assert_linear(work: Callable[[Input], object], make: Callable[[int], Input], size: int) -> None:
    """Fail if `work` on `make(size)` takes over 28 times as long as on `make(size // 8)`."""
    inputs = make(size // GROWTH), make(size)
    best = [float("inf"), float("inf")]
    for _ in range(TURNS):
        best = [min(spent, _seconds(work, given)) for spent, given in zip(best, inputs, strict=True)]
        if best[1] < MOST * best[0] + UNSEEN:
            return
    raise AssertionError(f"{str(inputs[0])[:40]!r}…: {best[0]:.3f} s, and {best[1]:.3f} s for {GROWTH} times as much")


def _seconds(work: Callable[[Input], object], given: Input) -> float:
    """Return the CPU seconds of this thread, without the collector, which looks at what other tests have left."""
    gc.disable()
    try:
        begun = time.thread_time()
        work(given)
        return time.thread_time() - begun
    finally:
        gc.enable()
