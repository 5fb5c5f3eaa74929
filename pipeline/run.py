"""A whole run: hold the folder, check the inputs, run the stages, write the report."""

import contextlib
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from filters.errors import UserError
from manifests.files import write_atomic
from manifests.manifest import FILE as MANIFEST
from manifests.manifest import Manifest
from manifests.recipe import RECIPE_FILE, Recipe
from manifests.report.page import write_report
from manifests.storage import StorageError, storage_error
from pipeline import folder
from pipeline.beam import quarantine
from pipeline.beam.engines import Engine
from pipeline.beam.pool import WorkerCrashedError
from pipeline.beam.progress import FILE as STATUS
from pipeline.beam.receipts import remove_temporaries
from pipeline.beam.tasklist import remove_task_lists
from pipeline.choices import check_engine, running
from pipeline.graph import StageGraph, StopAfterStage
from pipeline.preflight import keep_user_code, preflight, with_absolute_paths
from pipeline.stages.models import with_local_models

KEPT = 3  # dropped documents that are kept per reason and split, for the report to show


@dataclass(frozen=True)
class Finished:
    """A run's result.

    Attributes:
        manifest: None when `--stage` ended it earlier.
        ran: tasks that had to be done.
        recall: the measured recall of near-duplicate detection, as text.
        unreadable: inputs that could not be opened and were skipped, as `SOURCE/NAME`.
        quarantined: records that this run has added to the quarantine file.
    """

    manifest: Manifest | None
    ran: int
    recall: str = ""
    unreadable: tuple[str, ...] = ()
    quarantined: int = 0


def run(
    recipe: Recipe,
    corpus: Path,
    engine: Engine,
    keep_dropped: int = KEPT,
    only: str | None = None,
    generation: int = 0,
    skip_unreadable: bool = False,
    quarantined: Path | None = None,
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
        quarantined: a quarantine file whose records are dropped unread, as those in the corpus's own.

    Raises:
        UserError, StorageError, WorkerDiedError, RecallError, LedgerError: with a sentence for the user.
    """
    corpus, recipe = corpus.absolute(), with_absolute_paths(recipe)
    with folder.locked(corpus) as check_lock, running(engine) as engine:
        folder.refuse_changed(corpus)
        here, models = with_local_models(recipe, corpus)
        inputs = preflight(here, corpus, skip_unreadable)
        held = given = _quarantine(corpus, quarantined)
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        engine = replace(engine, timings=corpus / "runs" / f"{started}.parts", check=check_lock, given=models)
        manifest, ran, crashes = None, 0, 0
        try:
            try:
                engine.status.open(corpus / "runs" / STATUS)
                remove_temporaries(corpus)
                remove_task_lists(corpus)
                folder.take_over_marks(corpus, engine)
                write_atomic(corpus / RECIPE_FILE, recipe.as_yaml())
                keep_user_code(recipe, corpus)
                folder.publish_code(corpus)
                if not (corpus / MANIFEST).exists():
                    check_engine(engine)
                while True:
                    known = replace(inputs, quarantine=held)
                    graph = StageGraph(here, corpus, engine, known, keep_dropped, only, generation)
                    try:
                        with contextlib.suppress(StopAfterStage):
                            manifest = graph.build()
                        break
                    except (WorkerCrashedError, quarantine.RecordCrashedError) as error:
                        held = quarantine.learn(corpus / quarantine.FILE, held, error, crashes)
                        ran, crashes = ran + graph.ran, crashes + 1
            finally:
                engine.pool.stop()
                engine.status.close(sys.exception())
                with contextlib.suppress(OSError):  # times are no reason to fail, or to hide one
                    folder.fold_timings(corpus, started, engine)
                if sys.exception() is not None:
                    with contextlib.suppress(StorageError):  # nor is it to tell a store how the run ended
                        check_lock()
                        folder.publish(corpus, started)
            if manifest is not None:
                write_report(corpus)  # after the times, which it shows
            check_lock()
            folder.publish(corpus, started)
        except OSError as error:
            raise storage_error(error, "the run") from error
        skipped = tuple(inputs.unreadable)
        return Finished(manifest, ran + graph.ran, graph.recall_report, skipped, len(held - given))


def _quarantine(corpus: Path, path: Path | None) -> frozenset[quarantine.Place]:
    """Return the records that are dropped unread, and keep those of a given file in the corpus. Raises UserError."""
    if path is not None and not path.is_file():
        raise UserError(f"--quarantine {path} is no file: give {quarantine.FILE} of another corpus")
    held = quarantine.read_quarantine(corpus / quarantine.FILE)
    added = quarantine.read_quarantine(path) - held if path is not None else frozenset()
    if added:
        quarantine.write_quarantine(corpus / quarantine.FILE, held | added)
    return held | added
