"""`trace`: which documents a step was trained on, from the run's plan and the shards alone."""

import json
from pathlib import Path
from typing import Any

from manifests.errors import UserError
from manifests.manifest import load_manifest
from trainer.data import Corpus
from trainer.order import Plan, SourcePlan


def trace(run: Path, step: int, corpus: Path | None) -> list[dict[str, Any]]:
    """The samples of step `step` (counted from 1, as in the metrics) with their documents. `corpus`: where it lies now.
    Raises UserError."""
    try:
        facts = json.loads((run / "run.json").read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{run} holds no run: give the --output folder of `python -m trainer train`") from error
    plan = plan_from(facts["plan"])
    folder = corpus or Path(facts["corpus"])
    if load_manifest(folder).manifest_sha != plan.manifest_sha:
        raise UserError(f"{folder} is not the corpus that {run} was trained on: give --corpus")
    if step > plan.steps:
        raise UserError(f"{run} has {plan.steps} steps: give --step 1 to {plan.steps}")
    return Corpus(folder, plan).documents(step - 1)


def plan_from(plain: dict[str, Any]) -> Plan:
    """The plan written in a run's `run.json`."""
    sources = tuple(
        SourcePlan(**{**source, "shards": tuple((path, count) for path, count in source["shards"])})
        for source in plain["sources"]
    )
    return Plan(**{**plain, "sources": sources})
