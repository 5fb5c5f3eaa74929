"""Tell whether work takes linear time, by the CPU time of one input and of one of the same kind eight times as large.

The two are compared with each other and not with a number of seconds, so it holds on machines of any speed.
"""

import gc
import time
from collections.abc import Callable
from typing import TypeVar

GROWTH = 8
MOST = 28
"""times as long as for the smaller input: linear work takes 8 times, n log n some 10, quadratic work 64"""

TURNS = 6
"""the best of which counts, of each: a busy machine only ever adds"""

UNSEEN = 0.1
"""seconds that the larger input may take whatever the smaller one took, which is then too short to measure"""

Input = TypeVar("Input")


def repeated(unit: str, before: str = "") -> Callable[[int], str]:
    """Return what makes texts of so many characters out of a piece."""
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
