"""A whole run: hold the folder, check the inputs, run the stages, write the report."""

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

from manifests.files import write_atomic
from manifests.manifest import FILE as MANIFEST
from manifests.manifest import Manifest
from manifests.recipe import Recipe
from manifests.report import write_report
from manifests.storage import storage_error
from pipeline import folder
from pipeline.beam.choices import check_engine, running
from pipeline.beam.engines import Engine
from pipeline.beam.task import remove_temporaries
from pipeline.graph import StageGraph, StopAfterStage
from pipeline.preflight import keep_user_code, preflight, with_absolute_paths

RECIPE_FILE = "recipe.yaml"
KEPT = 3  # dropped documents that are kept per reason and split, for the report to show


@dataclass(frozen=True)
class Finished:
    """A run's result.

    Attributes:
        manifest: None when `--stage` ended it earlier.
        ran: tasks that had to be done.
        recall: the measured recall of near-duplicate detection, as text.
        unreadable: inputs that could not be opened and were skipped, as `SOURCE/NAME`.
    """

    manifest: Manifest | None
    ran: int
    recall: str = ""
    unreadable: tuple[str, ...] = ()


def run(
    recipe: Recipe,
    corpus: Path,
    engine: Engine,
    keep_dropped: int = KEPT,
    only: str | None = None,
    generation: int = 0,
    skip_unreadable: bool = False,
) -> Finished:
    """Build a corpus, or finish one, or find that it is finished.

    Args:
        recipe: what to build.
        corpus: the output folder.
        engine: where jobs run.
        keep_dropped: dropped documents that are kept per reason and split.
        only: the stage to stop after.
        generation: its number, where the files are to be appended to another corpus.
        skip_unreadable: skip inputs that cannot be opened before work begins; the next run tries them again.

    Raises:
        UserError, StorageError, WorkerDiedError, RecallError, LedgerError: with a sentence for the user.
    """
    corpus, recipe = corpus.absolute(), with_absolute_paths(recipe)
    with folder.locked(corpus), running(engine) as engine:
        folder.refuse_changed(corpus)
        inputs = preflight(recipe, corpus, skip_unreadable)
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        engine = replace(engine, timings=corpus / "runs" / f"{started}.parts")
        graph, manifest = StageGraph(recipe, corpus, engine, inputs, keep_dropped, only, generation), None
        try:
            try:
                remove_temporaries(corpus)
                write_atomic(corpus / RECIPE_FILE, recipe.as_yaml())
                keep_user_code(recipe, corpus)
                if not (corpus / MANIFEST).exists():
                    check_engine(engine)
                with contextlib.suppress(StopAfterStage):
                    manifest = graph.build()
            finally:
                engine.pool.stop()
                with contextlib.suppress(OSError):  # times are no reason to fail, or to hide one
                    folder.fold_timings(corpus, started, engine)
            if manifest is not None:
                write_report(corpus)  # after the times, which it shows
        except OSError as error:
            raise storage_error(error, "the run") from error
        return Finished(manifest, graph.ran, graph.recall_report, tuple(inputs.unreadable))
