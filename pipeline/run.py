"""Run a whole build: lock the output folder, check the inputs, run the stages, write the report."""

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

KEPT = 3  # Default number of dropped documents per reason and split whose text is stored for the report.


@dataclass(frozen=True)
class Finished:
    """The result of a run.

    Attributes:
        manifest: The manifest of the corpus; None if the run stopped after the stage of `--stage`.
        ran: Number of tasks that ran. Tasks that were already finished are not counted.
        recall: The measured recall of near-duplicate detection, as text.
        unreadable: Inputs that could not be opened and were skipped, as `SOURCE/NAME`.
        quarantined: Number of records that this run added to the quarantine file.
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
    """Build a corpus, or continue an interrupted build. A finished corpus is not changed.

    Args:
        recipe: Definition of the corpus.
        corpus: Output folder.
        engine: Engine that runs the jobs.
        keep_dropped: Number of dropped documents per reason and split whose text is stored.
        only: Name of the stage to stop after; None to run all stages.
        generation: Number of the generation if the files will be appended to another corpus, otherwise 0.
        skip_unreadable: True to skip inputs that cannot be opened. The next run tries them again.
        quarantined: A quarantine file of another corpus. Its records are added to this corpus's quarantine file and
            dropped without being read.

    Returns:
        The result of the run.

    Raises:
        UserError, StorageError, WorkerDiedError, RecallError, LedgerError: The message is a sentence for the user.
    """
    corpus, recipe = corpus.absolute(), with_absolute_paths(recipe)
    with folder.locked(corpus) as check_lock, running(engine) as engine:
        folder.refuse_changed(corpus)
        here, models = with_local_models(recipe, corpus)
        inputs = preflight(here, corpus, skip_unreadable, None if engine.quiet else sys.stderr)
        inputs = replace(inputs, quarantine=_merge_quarantines(corpus, quarantined))
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        engine = replace(engine, timings=corpus / "runs" / f"{started}.parts", check=check_lock, model_urls=models)
        graph_of = partial(
            StageGraph, here, corpus, engine, keep_dropped=keep_dropped, last=only, generation=generation
        )
        try:
            with _record_status(corpus, engine, started):
                _begin(recipe, corpus, engine)
                finished = _build(corpus, graph_of, inputs)
                if finished.manifest is not None:
                    engine.status.end_corpus(finished.manifest.manifest_sha)
            if finished.manifest is not None:
                write_report(corpus)  # The report shows the times, which `_record_status` has just written.
            check_lock()
            folder.publish(corpus, started)
        except OSError as error:
            raise storage_error(error, "the run") from error
        return replace(finished, unreadable=tuple(inputs.unreadable))


def _begin(recipe: Recipe, corpus: Path, engine: Engine) -> None:
    """Prepare the output folder and the engine.

    Temporary files of a killed run are removed, and the recipe and the user's own code are written. If the corpus is
    new, the engine runs a test job.
    """
    folder.clear_killed_run(corpus, engine)
    write_atomic(corpus / RECIPE_FILE, recipe.as_yaml())
    keep_user_code(recipe, corpus)
    folder.publish_code(corpus)
    if not (corpus / MANIFEST).exists():
        check_engine(engine)


def _build(corpus: Path, graph_of: Callable[[RunInputs], StageGraph], inputs: RunInputs) -> Finished:
    """Build the corpus. After a record crashes the interpreter, build again without this record.

    Args:
        corpus: Output folder.
        graph_of: Function that returns the stages of a run over the given inputs.
        inputs: Inputs of the run.
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
def _record_status(corpus: Path, engine: Engine, started: str) -> Iterator[None]:
    """Update the status of the run while the block runs. At its end, also after an error, write the times."""
    try:
        engine.status.open(corpus / "runs" / STATUS)
        yield
    finally:
        engine.pool.stop()
        engine.status.close(sys.exception())
        with contextlib.suppress(OSError):  # A failure here must not fail the run, or hide the original error.
            folder.write_timings(corpus, started, engine)
        if sys.exception() is not None:
            with contextlib.suppress(StorageError):  # A failed upload must not hide the original error.
                engine.check()
                folder.publish(corpus, started)


def _merge_quarantines(corpus: Path, path: Path | None) -> frozenset[quarantine.Place]:
    """Return the places of quarantined records. Add the records of the file `path` to the corpus's quarantine file.

    Raises:
        UserError: `path` is not a file.
    """
    if path is not None and not path.is_file():
        raise UserError(f"--quarantine {path} is not a file: give {quarantine.FILE} of another corpus")
    held = quarantine.read_quarantine(corpus / quarantine.FILE)
    added = quarantine.read_quarantine(path) - held if path is not None else frozenset()
    if added:
        quarantine.write_quarantine(corpus / quarantine.FILE, held | added)
    return held | added
