"""Learning rates as a pure function of the step, by stage of the run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FINAL_SHARE = 0.1  # share of the peak at which the cosine ends (section 2.3 of the paper)
DECAY_SHARE = 0.2  # share of the steps in which a WSD schedule falls (Hägele et al. 2024, arXiv 2405.18392, section 3)


def _cosine(done: int, total: int) -> float:
    return FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done / max(1, total - 1)))


def _wsd(done: int, total: int) -> float:
    falls = done / total - (1 - DECAY_SHARE)
    return 1 - math.sqrt(max(0.0, falls) / DECAY_SHARE)


# Shares of the peak after `done` of `total` steps behind the warm-up. `wsd` (warm-up, stable, decay) is constant and
# then falls as 1 - sqrt; `linear` anneals to zero.
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "cosine": _cosine,
    "wsd": _wsd,
    "constant": lambda done, total: 1.0,
    "linear": lambda done, total: 1 - done / total,
}


@dataclass(frozen=True, slots=True)
class StageRate:
    """The learning rate of a stage: linear warm-up to the peak, then a schedule of SCHEDULES."""

    steps: int
    schedule: str
    learning_rate: float
    warmup: int


def rate_at(step: int, stages: Sequence[StageRate]) -> float:
    """Return the learning rate of a step, counted from 0, of a run of one or more stages."""
    number = 0
    while step >= stages[number].steps:
        step, number = step - stages[number].steps, number + 1
    stage = stages[number]
    if step < stage.warmup:
        return stage.learning_rate * (step + 1) / stage.warmup
    return stage.learning_rate * SCHEDULES[stage.schedule](step - stage.warmup, stage.steps - stage.warmup)
