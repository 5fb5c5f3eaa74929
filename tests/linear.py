"""Whether work takes linear time, by CPU time: four times the input may take ten times as long, and no more."""

import gc
import time
from collections.abc import Callable

TURNS = 3
"""the best of which counts: a busy machine only ever adds"""


def assert_linear(work: Callable[[str], object], unit: str, size: int) -> None:
    """Fails if `work` on `unit` repeated to 4 x `size` characters takes over ten times as long as on `size`."""
    spent = [_best(work, unit * (characters // len(unit))) for characters in (size, 4 * size)]
    assert spent[1] < 10 * spent[0] + 0.1, f"{unit!r}: {spent[0]:.3f} s, then {spent[1]:.3f} s"


def _best(work: Callable[[str], object], text: str) -> float:
    """CPU seconds of this thread, without the collector, which looks at what other tests have left."""
    found = []
    gc.disable()
    try:
        for _ in range(TURNS):
            begun = time.thread_time()
            work(text)
            found.append(time.thread_time() - begun)
            if found[-1] < 0.1:
                break
    finally:
        gc.enable()
    return min(found)
