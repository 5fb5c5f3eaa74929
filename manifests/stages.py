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
    "split_offsets": StepKind("stored bytes", "Large dumps are cut at record boundaries.", per_source=True),
    "split_offsets/checksums": StepKind("stored bytes", "Dumps that are not cut are hashed."),
    "extract": StepKind("stored bytes", "Records of the dumps are read, and documents are extracted.", per_source=True),
    "join": StepKind("stored bytes", "Rows that belong together become documents."),
    "url_dedup": StepKind("extracted characters", "The newest document of each URL is found."),
    "line_dedup": StepKind("extracted characters", "Lines that also occur in other documents are found."),
    "perplexity": StepKind("extracted characters", "Language models compute the perplexity of each document."),
    "perplexity/train": StepKind("run", "Language models are trained."),
    "perplexity/score": StepKind("extracted characters", "Perplexities are computed.", per_source=True),
    "perplexity/cuts": StepKind("run", "Percentiles of the perplexities are computed."),
    "references": StepKind("extracted characters", "A classifier is trained on pages that Wikipedia cites."),
    "references/urls": StepKind("run", "URLs that Wikipedia cites are collected."),
    "references/positives": StepKind("run", "Files of cited pages are read."),
    "references/sample": StepKind("extracted characters", "Cited and other pages are selected.", per_source=True),
    "references/train": StepKind("run", "The classifier is trained."),
    "filter": StepKind(
        "extracted characters",
        "The filter rules are applied, and duplicate lines are removed.",
        per_source=True,
    ),
    "neardup": StepKind("kept characters", "Duplicate documents are removed."),
    "containment": StepKind("kept characters", "Documents that are contained in others are found."),
    "containment/sketches": StepKind("kept characters", "A sketch of each document is computed.", per_source=True),
    "containment/compare": StepKind("kept characters", "Sketches are compared.", per_source=True, serial=True),
    "clusters": StepKind("kept characters", "Duplicates are joined to clusters, and one document of each is kept."),
    "clusters/cut": StepKind("kept characters", "Duplicates are joined to clusters.", serial=True),
    "clusters/survivors": StepKind("kept characters", "The document of each cluster to keep is chosen.", serial=True),
    "clusters/tables": StepKind("kept characters", "Clusters are written beside the clean documents."),
    "recall": StepKind("kept characters", "Canaries measure the recall of near-duplicate detection."),
    "recall/copies": StepKind("run", "Canaries are made from selected documents and searched."),
    "recall/measure": StepKind("run", "The canaries that were found are counted.", serial=True),
    "tokenizer": StepKind("kept characters", "A sample of the text is drawn."),
    "tokenizer/train": StepKind("sample bytes", "The tokenizer is trained.", serial=True),
    "tokenize": StepKind("tokens", "Texts are encoded and written to shards."),
    "corpus_index": StepKind("tokens", "Documents and URLs are indexed by hash."),
    "statistics": StepKind("kept characters", "Statistics for the report are computed."),
    "statistics/merge": StepKind("run", "The statistics of splits and shards are merged."),
}
SAMPLER = "tokenizer/sample"  # writes the sample whose bytes `tokenizer/train` grows with
STAGES = tuple(name for name in STEPS if "/" not in name)  # names of the stages in the order of a run


def stage_of(step: str) -> str:
    """Return the stage that a step belongs to."""
    return step.partition("/")[0]


def kind_of(step: str) -> StepKind:
    """Return the row of a step, or of its stage. Raises KeyError for a name that is not known."""
    return STEPS[step] if step in STEPS else STEPS[stage_of(step)]
