"""The steps of a run by name, in order: what each does and what its work grows with.

A step's name is `STAGE` or `STAGE/PART`; a row of a stage holds for all its parts that have none of their own. The
command line, progress, the planner and the report take names, units and labels from here. The rows are in stages.tsv,
in the order of a run.
"""

from dataclasses import dataclass
from typing import Literal, cast

from filters.data_files import read_rows

WorkUnit = Literal["stored bytes", "extracted characters", "kept characters", "tokens", "sample bytes", "run"]


@dataclass(frozen=True, slots=True)
class StepKind:
    """The facts about a step that its code does not tell.

    Attributes:
        unit: what its work grows with; `kept characters` are those that are tokenized, `run` does not grow.
        label: a sentence for people.
        per_source: True if its work on a byte differs between sources.
        serial: True if one worker does it, however many there are.
    """

    unit: WorkUnit
    label: str
    per_source: bool = False
    serial: bool = False


STEPS = {
    step: StepKind(cast(WorkUnit, unit), label, per_source == "yes", serial == "yes")
    for step, unit, per_source, serial, label in read_rows("manifests", "stages.tsv")
}
SAMPLER = "tokenizer/sample"  # writes the sample whose bytes `tokenizer/train` grows with
STAGES = tuple(name for name in STEPS if "/" not in name)  # names of the stages in the order of a run


def stage_of(step: str) -> str:
    """Return the stage that a step belongs to."""
    return step.partition("/")[0]


def kind_of(step: str) -> StepKind:
    """Return the row of a step, or of its stage. Raises KeyError for a name that is not known."""
    return STEPS[step] if step in STEPS else STEPS[stage_of(step)]
