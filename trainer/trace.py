"""What a run was trained on: its corpus, and the documents of a step, from the plan and the shards alone."""

import json
from pathlib import Path
from typing import Any

from filters.errors import UserError
from manifests.manifest import Manifest, load_manifest
from manifests.order import plan_from
from trainer.data import Corpus


def facts_of(run: Path) -> dict[str, Any]:
    """A run's `run.json`. Raises UserError."""
    try:
        return dict(json.loads((run / "run.json").read_bytes()))
    except (OSError, ValueError) as error:
        raise UserError(f"{run} holds no run: give the --output folder of `python -m trainer train`") from error


def corpus_of(run: Path, manifest_sha: str, elsewhere: Path | None) -> tuple[Path, Manifest]:
    """The corpus of a run, where it lay or lies now. Raises UserError where there is none, or another."""
    folder = elsewhere or Path(facts_of(run)["corpus"])
    manifest = load_manifest(folder)
    if manifest.manifest_sha != manifest_sha:
        raise UserError(f"{folder} is not the corpus that {run} was trained on: give --corpus")
    return folder, manifest


def trace(run: Path, step: int, corpus: Path | None) -> list[dict[str, Any]]:
    """The samples of step `step` (counted from 1, as in the metrics) with their documents. `corpus`: where it lies now.
    Raises UserError."""
    plan = plan_from(facts_of(run)["plan"])
    folder, _ = corpus_of(run, plan.manifest_sha, corpus)
    if step > plan.steps:
        raise UserError(f"{run} has {plan.steps} steps: give --step 1 to {plan.steps}")
    return Corpus(folder, plan).documents(step - 1)
