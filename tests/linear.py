"""Check that a function takes linear time: compare the CPU times of an input and of an input eight times as large.

Both times are measured in the same process, so the check does not depend on the speed of the machine.
"""

import gc
import time
from collections.abc import Callable
from typing import TypeVar

GROWTH = 8
# Largest allowed ratio of the two times. Linear work has a ratio of 8, n log n about 10, quadratic work 64.
MOST = 28
TURNS = 6  # measurements of each input; the fastest counts, because other load can only add time
# If the larger input takes fewer seconds, the check passes, because the time of the smaller input is too short to
# measure.
UNSEEN = 0.1

Input = TypeVar("Input")


def repeated(unit: str, before: str = "") -> Callable[[int], str]:
    """Return a function from a size to a text: `unit`, repeated to about this number of characters, after `before`."""
    return lambda size: before + unit * (size // len(unit))


def assert_linear(work: Callable[[Input], object], make: Callable[[int], Input], size: int) -> None:
    """Fail if `work` takes more than 28 times as long for `make(size)` as for `make(size // 8)`."""
    inputs = make(size // GROWTH), make(size)
    best = [float("inf"), float("inf")]
    for _ in range(TURNS):
        best = [min(spent, _seconds(work, given)) for spent, given in zip(best, inputs, strict=True)]
        if best[1] < MOST * best[0] + UNSEEN:
            return
    raise AssertionError(f"{str(inputs[0])[:40]!r}…: {best[0]:.3f} s, and {best[1]:.3f} s for {GROWTH} times as much")


def _seconds(work: Callable[[Input], object], given: Input) -> float:
    """Return the CPU seconds of this thread for a call of `work`.

    The garbage collector is off during the call, because its time depends on the objects of other tests.
    """
    gc.disable()
    try:
        begun = time.thread_time()
        work(given)
        return time.thread_time() - begun
    finally:
        gc.enable()
