"""The steps of a run by name, in order: what each does and what its work grows with.

A step's name is `STAGE` or `STAGE/PART`; a row of a stage holds for all its parts that have none of their own. The
command line, progress, the planner and the report take names, units and labels from here.
"""

from dataclasses import dataclass
from typing import Literal

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
    "split_offsets": StepKind("stored bytes", "Large dumps are cut where records begin.", per_source=True),
    "split_offsets/checksums": StepKind("stored bytes", "Dumps that are not cut are hashed."),
    "extract": StepKind(
        "stored bytes", "Dumps are read record by record, and documents taken out of them.", per_source=True
    ),
    "join": StepKind("stored bytes", "Rows that belong together become documents."),
    "url_dedup": StepKind("extracted characters", "Of the documents under one URL the newest is looked for."),
    "line_dedup": StepKind("extracted characters", "Lines that occur elsewhere are looked for."),
    "perplexity": StepKind("extracted characters", "Language models give each document a perplexity."),
    "perplexity/train": StepKind("run", "Language models are trained."),
    "perplexity/score": StepKind("extracted characters", "Documents get a perplexity.", per_source=True),
    "perplexity/cuts": StepKind("run", "Percentiles of the perplexities are taken."),
    "references": StepKind("extracted characters", "A classifier learns what pages Wikipedia cites."),
    "references/urls": StepKind("run", "URLs that Wikipedia cites are collected."),
    "references/positives": StepKind("run", "Given pages that Wikipedia cites are read."),
    "references/sample": StepKind("extracted characters", "Cited and other pages are drawn.", per_source=True),
    "references/train": StepKind("run", "The classifier is trained."),
    "filter": StepKind(
        "extracted characters",
        "Filters by language, page rules and models; lines that occur elsewhere are removed.",
        per_source=True,
    ),
    "neardup": StepKind("kept characters", "Duplicate documents are removed."),
    "containment": StepKind("kept characters", "Documents that lie within others are looked for."),
    "containment/sketches": StepKind("kept characters", "Documents are sketched.", per_source=True),
    "containment/compare": StepKind("kept characters", "Sketches are compared.", per_source=True, serial=True),
    "clusters": StepKind("kept characters", "Duplicates are joined to clusters, of which one document is kept."),
    "clusters/cut": StepKind("kept characters", "Duplicates are joined to clusters.", serial=True),
    "clusters/survivors": StepKind("kept characters", "The survivors of clusters are chosen.", serial=True),
    "clusters/tables": StepKind("kept characters", "Clusters are written beside the clean documents."),
    "recall": StepKind("kept characters", "Planted copies measure the recall of near-duplicate detection."),
    "recall/copies": StepKind("run", "Drawn documents are copied, and the copies looked for."),
    "recall/measure": StepKind("run", "The planted copies that were found are counted.", serial=True),
    "tokenizer": StepKind("kept characters", "A sample of the text is drawn."),
    "tokenizer/train": StepKind("sample bytes", "The tokenizer is trained.", serial=True),
    "tokenize": StepKind("tokens", "Text becomes tokens in shards."),
    "corpus_index": StepKind("tokens", "Documents and URLs are indexed by hash."),
    "statistics": StepKind("kept characters", "The corpus is described for its report."),
    "statistics/merge": StepKind("run", "Descriptions of splits and shards are added up."),
}
SAMPLER = "tokenizer/sample"  # writes the sample whose bytes `tokenizer/train` grows with
STAGES = tuple(name for name in STEPS if "/" not in name)  # names of the stages in the order of a run


def stage_of(step: str) -> str:
    """Return the stage that a step belongs to."""
    return step.partition("/")[0]


def kind_of(step: str) -> StepKind:
    """Return the row of a step, or of its stage. Raises KeyError for a name that is not known."""
    return STEPS[step] if step in STEPS else STEPS[stage_of(step)]
