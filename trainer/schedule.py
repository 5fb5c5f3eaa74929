"""Learning-rate schedules: the learning rate as a pure function of the step and the stages of the run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

FINAL_SHARE = 0.1  # share of the peak at which the cosine ends (section 2.3 of LLaMA's paper)
# Share of the steps in which a WSD schedule decays (Hägele et al. 2024, arXiv 2405.18392, section 3).
DECAY_SHARE = 0.2


def _cosine(done: int, total: int) -> float:
    return FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done / max(1, total - 1)))


def _wsd(done: int, total: int) -> float:
    falls = done / total - (1 - DECAY_SHARE)
    return 1 - math.sqrt(max(0.0, falls) / DECAY_SHARE)


# Name -> function from (steps done, total steps), both counted after the warm-up, to the share of the peak learning
# rate. `wsd` (warm-up, stable, decay) is constant and then decays as 1 - sqrt. `linear` decays to zero.
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "cosine": _cosine,
    "wsd": _wsd,
    "constant": lambda done, total: 1.0,
    "linear": lambda done, total: 1 - done / total,
}


@dataclass(frozen=True, slots=True)
class StageRate:
    """The learning rate of a stage: a linear warm-up to the peak, then a schedule.

    Attributes:
        steps: Number of steps of the stage.
        schedule: A key of SCHEDULES.
        learning_rate: The peak learning rate.
        warmup: Number of warm-up steps.
    """

    steps: int
    schedule: str
    learning_rate: float
    warmup: int


def rate_at(step: int, stages: Sequence[StageRate]) -> float:
    """Return the learning rate of a step, counted from 0, in a run with one or more stages."""
    number = 0
    while step >= stages[number].steps:
        step, number = step - stages[number].steps, number + 1
    stage = stages[number]
    if step < stage.warmup:
        return stage.learning_rate * (step + 1) / stage.warmup
    return stage.learning_rate * SCHEDULES[stage.schedule](step - stage.warmup, stage.steps - stage.warmup)
