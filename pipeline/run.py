"""A whole run: hold the folder, check the inputs, run the stages, write the report."""

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
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
from pipeline.choices import check_engine, running
from pipeline.graph import StageGraph
from pipeline.preflight import RunInputs, keep_user_code, preflight, with_absolute_paths
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
        inputs = preflight(here, corpus, skip_unreadable, None if engine.quiet else sys.stderr)
        inputs = replace(inputs, quarantine=_quarantine(corpus, quarantined))
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        engine = replace(engine, timings=corpus / "runs" / f"{started}.parts", check=check_lock, model_urls=models)
        graph_of = partial(
            StageGraph, here, corpus, engine, keep_dropped=keep_dropped, last=only, generation=generation
        )
        try:
            with _recorded(corpus, engine, started):
                _begin(recipe, corpus, engine)
                finished = _build(corpus, graph_of, inputs)
                if finished.manifest is not None:
                    engine.status.end_corpus(finished.manifest.manifest_sha)
            if finished.manifest is not None:
                write_report(corpus)  # after the times, which it shows
            check_lock()
            folder.publish(corpus, started)
        except OSError as error:
            raise storage_error(error, "the run") from error
        return replace(finished, unreadable=tuple(inputs.unreadable))


def _begin(recipe: Recipe, corpus: Path, engine: Engine) -> None:
    """Clear away what a killed run has left, write what workers need, and try the engine on a new corpus."""
    folder.clear_killed_run(corpus, engine)
    write_atomic(corpus / RECIPE_FILE, recipe.as_yaml())
    keep_user_code(recipe, corpus)
    folder.publish_code(corpus)
    if not (corpus / MANIFEST).exists():
        check_engine(engine)


def _build(corpus: Path, graph_of: Callable[[RunInputs], StageGraph], inputs: RunInputs) -> Finished:
    """Build the corpus, and once more after each record that kills the interpreter, without it.

    Args:
        corpus: its folder.
        graph_of: returns the stages of a run over inputs.
        inputs: of the run.
    """
    held, ran = inputs.quarantine, 0
    for crashes in itertools.count():
        graph = graph_of(inputs)
        try:
            manifest = graph.build()
        except (WorkerCrashedError, quarantine.RecordCrashedError) as error:
            left_out = quarantine.record_crash(corpus / quarantine.FILE, inputs.quarantine, error, crashes)
            inputs, ran = replace(inputs, quarantine=left_out), ran + graph.ran
        else:
            return Finished(manifest, ran + graph.ran, graph.recall_report, quarantined=len(inputs.quarantine - held))
    raise AssertionError("`record_crash` raises what cannot be left out")


@contextlib.contextmanager
def _recorded(corpus: Path, engine: Engine, started: str) -> Iterator[None]:
    """Keep the run's status while the block runs, and its times when it ends, however it does."""
    try:
        engine.status.open(corpus / "runs" / STATUS)
        yield
    finally:
        engine.pool.stop()
        engine.status.close(sys.exception())
        with contextlib.suppress(OSError):  # times are no reason to fail, or to hide one
            folder.fold_timings(corpus, started, engine)
        if sys.exception() is not None:
            with contextlib.suppress(StorageError):  # nor is it to tell a store how the run ended
                engine.check()
                folder.publish(corpus, started)


def _quarantine(corpus: Path, path: Path | None) -> frozenset[quarantine.Place]:
    """Return the records that are dropped unread, and keep those of a given file in the corpus. Raises UserError."""
    if path is not None and not path.is_file():
        raise UserError(f"--quarantine {path} is not a file: give {quarantine.FILE} of another corpus")
    held = quarantine.read_quarantine(corpus / quarantine.FILE)
    added = quarantine.read_quarantine(path) - held if path is not None else frozenset()
    if added:
        quarantine.write_quarantine(corpus / quarantine.FILE, held | added)
    return held | added
