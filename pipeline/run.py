"""The whole run: the stages in order, each from the receipts of the one before.

Every stage is finished before the next begins, its files are the resume points, and what is finished is not done again.
"""

import contextlib
import fcntl
import json
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from manifests.errors import UserError
from manifests.files import canonical_json, write_atomic
from manifests.manifest import Manifest
from manifests.recipe import Recipe
from pipeline import inputs as inputs_module
from pipeline.engine import Engine
from pipeline.exchange import run_exchange
from pipeline.fingerprint import code_version
from pipeline.inputs import Input
from pipeline.job import LOG, MISTAKE, RECEIPTS, Receipt, Task, receipts, remove_temporaries, run_tasks, sweep
from pipeline.sources import reader_for
from pipeline.stages import annotate, extract, manifest, neardup, tokenize, tokenizer

STAGES = (extract, annotate, neardup, tokenizer, tokenize, manifest)
NAMES = tuple(stage.STAGE for stage in STAGES)
RECIPE_FILE = "recipe.yaml"


@dataclass(frozen=True)
class Finished:
    """What a run gives: the manifest (none when `--stage` ended it earlier) and how many tasks it had to do."""

    manifest: Manifest | None
    ran: int


def check(recipe: Recipe, corpus: Path) -> tuple[list[Input], dict[str, str]]:
    """Everything that can be wrong before work starts: readers, models, the output folder, the inputs. Gives the
    inputs and the models' hashes. Raises UserError."""
    given = {name: source for name, source in recipe.sources.items() if source.inputs}
    for name, source in given.items():
        reader_for(name, source)
    if not given:
        names = " or ".join(f"--input {name}=GLOB" for name in recipe.sources)
        raise UserError(f"the recipe has no inputs: give them under sources, or as {names}")
    models = annotate.model_hashes(recipe)
    tokenizer.check(recipe)
    _prepare_folder(corpus)
    found = [item for name, source in given.items() for item in inputs_module.resolve(name, source.inputs, corpus)]
    return found, models


def run(recipe: Recipe, corpus: Path, engine: Engine, keep_dropped: int = 0, only: str | None = None) -> Finished:
    """Build a corpus, or finish one, or see that it is finished. `only`: one stage. Raises UserError, LedgerError."""
    with _locked(corpus):
        found, models = check(recipe, corpus)
        started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        engine = replace(engine, timings=corpus / "runs" / f"{started}.parts")
        remove_temporaries(corpus)
        write_atomic(corpus / RECIPE_FILE, yaml.safe_dump(recipe.model_dump(), sort_keys=False).encode())
        try:
            return _Run(recipe, corpus, engine, found, models, keep_dropped, only).stages()
        finally:
            _fold_timings(corpus, started, engine)


class _Run:
    """One run's facts, and the stages as methods that read top to bottom."""

    def __init__(
        self,
        recipe: Recipe,
        corpus: Path,
        engine: Engine,
        found: list[Input],
        models: dict[str, str],
        keep_dropped: int,
        only: str | None,
    ) -> None:
        self.recipe, self.corpus, self.engine = recipe, corpus, engine
        self.inputs, self.models, self.keep_dropped, self.only = found, models, keep_dropped, only
        self.names = {name: [item.name for item in found if item.source == name] for name in recipe.sources}
        self.ran = 0

    def stages(self) -> Finished:
        """Walk the stages."""
        recipe, plain = self.recipe, self.recipe.model_dump()
        extracted = self.map(extract, extract.tasks(recipe, self.inputs), {"sources": plain["sources"]})
        if self.only == extract.STAGE:
            return Finished(None, self.ran)

        annotation = {key: plain[key] for key in ("sources", "deduplication")} | {"keep_dropped": self.keep_dropped}
        annotated = self.map(annotate, annotate.tasks(recipe, extracted, self.models, self.keep_dropped), annotation)
        if self.only == annotate.STAGE:
            return Finished(None, self.ran)

        settings = neardup.settings(recipe, annotated)
        maps, reduces = neardup.map_tasks(recipe, annotated), neardup.reduce_tasks(recipe, annotated)
        edges = self.exchange(neardup, settings, maps, neardup.cut, reduces, neardup.find_edges)
        joins = neardup.cluster_tasks(recipe, annotated, edges)
        clusters = self.tasks(neardup.OWNED, joins, settings, neardup.join)["all"]
        if self.only == neardup.STAGE:
            return Finished(None, self.ran)

        samples = self.tasks(
            tokenizer.OWNED, tokenizer.sample_tasks(recipe, annotated, clusters), {"seed": recipe.seed}, tokenizer.draw
        )
        trained = self.tasks(
            tokenizer.OWNED, tokenizer.train_tasks(recipe, samples), {"tokenizer": plain["tokenizer"]}, tokenizer.train
        )["all"]
        if self.only == tokenizer.STAGE:
            return Finished(None, self.ran)

        recipe_sha, plan = recipe.sha(self.names), tokenize.buckets(recipe, clusters, trained)
        maps = tokenize.map_tasks(recipe, annotated, clusters, trained)
        shards = self.exchange(
            tokenize,
            tokenize.settings(recipe, recipe_sha, plan, trained),
            maps,
            tokenize.encode,
            tokenize.reduce_tasks(recipe_sha, plan, maps),
            tokenize.write,
        )
        if self.only == tokenize.STAGE:
            return Finished(None, self.ran)

        stages = {
            "extract": list(extracted.values()),
            "annotate": list(annotated.values()),
            "neardup": [clusters],
            "tokenize": list(receipts(self.corpus, maps).values()),
        }
        code = {stage.STAGE: code_version(stage.__name__) for stage in STAGES}
        written = manifest.write(self.corpus, recipe, self.names, self.models, code, stages, trained, shards)
        return Finished(written, self.ran)

    def map(self, stage: Any, tasks: list[Task], settings: dict[str, Any]) -> dict[str, Receipt]:
        """A stage of one step."""
        return self.tasks({stage.STAGE: stage.OWNED}, tasks, settings, stage.work)

    def tasks(
        self, owned: Mapping[str, tuple[str, ...]], tasks: list[Task], settings: dict[str, Any], work: Any
    ) -> dict[str, Receipt]:
        """A step whose tasks do not talk to each other."""
        with self.mistakes():
            self.ran += run_tasks(self.corpus, settings, tasks, work, self.engine)
        if tasks:
            sweep(self.corpus, tasks[0].stage, tasks, owned[tasks[0].stage])
        return receipts(self.corpus, tasks)

    def exchange(
        self, stage: Any, settings: dict[str, Any], maps: list[Task], mapper: Any, reduces: list[Task], reducer: Any
    ) -> dict[str, Receipt]:
        """A step whose mappers send blocks to reducers."""
        with self.mistakes():
            self.ran += run_exchange(self.corpus, settings, maps, mapper, reduces, reducer, self.engine)
        for tasks in (maps, reduces):
            sweep(self.corpus, tasks[0].stage, tasks, stage.OWNED[tasks[0].stage])
        return receipts(self.corpus, reduces)

    @contextlib.contextmanager
    def mistakes(self) -> Iterator[None]:
        """A user's mistake found by a worker reaches the user as its one sentence, whatever the engine wraps it in."""
        notice = self.engine.timings / MISTAKE
        try:
            yield
        except Exception:
            if notice.exists():
                raise UserError(notice.read_text(encoding="utf-8")) from None
            raise


def _prepare_folder(corpus: Path) -> None:
    """Make the output folder, or refuse one that holds something else: the run removes what it does not know there."""
    if corpus.exists() and not corpus.is_dir():
        raise UserError(f"--output {corpus} is a file: give a folder")
    if corpus.is_dir() and any(corpus.iterdir()) and not (corpus / "runs").is_dir():
        raise UserError(f"--output {corpus} holds files that are no corpus: give a new or empty folder")
    try:
        (corpus / "runs").mkdir(parents=True, exist_ok=True)
        (corpus / RECEIPTS).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {corpus} cannot be written ({error.strerror}): give another folder") from error


@contextlib.contextmanager
def _locked(corpus: Path) -> Iterator[None]:
    """Hold the corpus against a second run; the lock goes with the process, however it ends."""
    _prepare_folder(corpus)
    with (corpus / "runs" / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another run is writing {corpus}: wait for it, or give another --output") from error
        yield


def _fold_timings(corpus: Path, started: str, engine: Engine) -> None:
    """Gather the times of Beam jobs and their tasks in `runs/<start>.json`, which nothing hashes."""
    parts = sorted(engine.timings.glob("*.json")) if engine.timings.is_dir() else []
    records = [json.loads(part.read_bytes()) for part in parts]
    record = {
        "started": started,
        "ended": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "workers": engine.workers,
        "runner": engine.runner,
        "jobs": [record for record in records if "job" in record],
        "tasks": [record for record in records if "task" in record],
    }
    if parts:
        write_atomic(corpus / "runs" / f"{started}.json", canonical_json(record))
    log = engine.timings / LOG
    if log.exists() and log.stat().st_size:
        log.replace(corpus / "runs" / f"{started}.log")
    for part in engine.timings.glob("*") if engine.timings.is_dir() else []:
        part.unlink()
    with contextlib.suppress(OSError):
        engine.timings.rmdir()
