"""A whole run: the folder held, what is given checked, the stages walked, the report written."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from manifests.files import write_atomic
from manifests.manifest import Manifest
from manifests.recipe import Recipe
from manifests.report import write_report
from pipeline import folder
from pipeline.beam.engines import Engine
from pipeline.beam.task import remove_temporaries
from pipeline.graph import Enough, Walk
from pipeline.preflight import check

RECIPE_FILE = "recipe.yaml"
KEPT = 3
"""dropped documents that are kept a reason and split, for the report to show"""


@dataclass(frozen=True)
class Finished:
    """What a run gives: the manifest (none when `--stage` ended it earlier), how many tasks it had to do, and what the
    planted copies say of near-duplicate detection."""

    manifest: Manifest | None
    ran: int
    canaries: str = ""


def run(
    recipe: Recipe,
    corpus: Path,
    engine: Engine,
    keep_dropped: int = KEPT,
    only: str | None = None,
    generation: int = 0,
) -> Finished:
    """Build a corpus, or finish one, or see that it is finished. `only`: one stage; `generation`: its number, where the
    files are to be appended to another corpus. Raises UserError, LedgerError."""
    with folder.locked(corpus):
        folder.refuse_changed(corpus)
        given = check(recipe, corpus)
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        engine = replace(engine, timings=corpus / "runs" / f"{started}.parts")
        remove_temporaries(corpus)
        write_atomic(corpus / RECIPE_FILE, recipe.as_yaml())
        walk = Walk(recipe, corpus, engine, given, keep_dropped, only, generation)
        try:
            made = walk.stages()
        except Enough:
            return Finished(None, walk.ran)
        finally:
            folder.fold_timings(corpus, started, engine)
        write_report(corpus)
        return Finished(made, walk.ran, walk.canaries)
