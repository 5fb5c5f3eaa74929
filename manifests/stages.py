"""The table of all steps of a run: their names, labels, and units of work. The rows are in stages.tsv.

The name of a step is `STAGE` or `STAGE/PART`. The row of a stage applies to all its parts that have no row. The rows
are in the order of a run. The command line, the progress display, the planner and the report use this table.
"""

from dataclasses import dataclass
from typing import Literal, cast

from filters.data_files import read_rows

WorkUnit = Literal["stored bytes", "extracted characters", "kept characters", "tokens", "sample bytes", "run"]


@dataclass(frozen=True, slots=True)
class StepKind:
    """A row of the table of steps.

    Attributes:
        unit: the quantity to which the work is proportional. `kept characters` are the characters that are tokenized.
            `run` means constant work per run.
        label: a sentence that describes the step.
        per_source: True if the work per unit differs between sources.
        serial: True if a single worker does the whole step.
    """

    unit: WorkUnit
    label: str
    per_source: bool = False
    serial: bool = False


STEPS = {
    step: StepKind(cast(WorkUnit, unit), label, per_source == "yes", serial == "yes")
    for step, unit, per_source, serial, label in read_rows("manifests", "stages.tsv")
}
SAMPLER = "tokenizer/sample"  # This step writes the sample; the work of `tokenizer/train` is proportional to its size.
STAGES = tuple(name for name in STEPS if "/" not in name)  # The names of the stages, in the order of a run.


def stage_of(step: str) -> str:
    """Return the stage that a step belongs to."""
    return step.partition("/")[0]


def kind_of(step: str) -> StepKind:
    """Return the row of a step or, if there is none, of its stage. Raises KeyError for an unknown name."""
    return STEPS[step] if step in STEPS else STEPS[stage_of(step)]
