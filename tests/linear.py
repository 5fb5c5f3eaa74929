"""Whether work takes linear time, by CPU time: four times the input may take ten times as long, and no more."""

import time
from collections.abc import Callable


def assert_linear(work: Callable[[str], object], unit: str, size: int) -> None:
    """Fails if `work` on `unit` repeated to 4 x `size` characters takes over ten times as long as on `size`."""
    spent = []
    for characters in (size, 4 * size):
        text = unit * (characters // len(unit))
        begun = time.process_time()
        work(text)
        spent.append(time.process_time() - begun)
    assert spent[1] < 10 * spent[0] + 0.1, f"{unit!r}: {spent[0]:.3f} s, then {spent[1]:.3f} s"
