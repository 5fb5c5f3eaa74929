"""The command `append`: add new dumps to a corpus as a new generation. Existing files keep their names and bytes.

The generation is a separate run in `generations/<number>`. It uses the tokenizer, models and cut-offs of the corpus,
and compares its documents with the documents of the corpus. When the run is finished, its shards and index files are
hard-linked into the corpus. The manifest that lists them is written last, so the corpus is unchanged until then.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

from filters.errors import UserError
from manifests.files import atomic_path, canonical_json, link_or_copy, relative_files, sha256_file, write_atomic
from manifests.index import FOLDER
from manifests.ledger import Tally, tally_from, total
from manifests.manifest import (
    FILE,
    SHA_FILE,
    Generation,
    Manifest,
    SourceEntry,
    archive_manifest,
    generation_folder,
    is_unfinished,
    load_manifest,
    write_manifest,
)
from manifests.recipe import Recipe, load_run_recipe
from manifests.storage import storage_error
from pipeline import folder as folders
from pipeline.beam.engines import Engine
from pipeline.run import Finished, run
from pipeline.sources import inputs as inputs_module
from pipeline.stages.manifest import LEDGER
from pipeline.stages.models import recipe_of_generation
from pipeline.stages.tokenizer import MODEL

# File in the folder of a generation. It contains the hash of the new manifest, and exists from before the manifest is
# written until the append is complete.
PUBLISHING = "publishing"


def append(corpus: Path, inputs: Mapping[str, list[str]], engine: Engine, skip_unreadable: bool = False) -> Finished:
    """Build a new generation from dumps and add it to the corpus, or complete an interrupted append.

    Args:
        corpus: Folder of a finished corpus.
        inputs: Paths and globs of the new dumps, by source.
        engine: Engine that runs the jobs.
        skip_unreadable: True to skip inputs that cannot be opened.

    Returns:
        The result of the run that built the generation, with the new manifest of the corpus.

    Raises:
        UserError: The corpus is not finished or has an input with the same name, or `run` raises the error.
        StorageError, WorkerDiedError, RecallError, LedgerError: Raised by `run`.
    """
    corpus = corpus.absolute()
    load_manifest(corpus)
    with folders.locked(corpus):
        parent = load_manifest(corpus)
        if _complete_append(corpus, parent) and _has_inputs(parent, inputs, corpus):
            return Finished(parent, 0)
        _check(corpus, parent)
        number = len(parent.generations) + 1
        folder = generation_folder(corpus, number)
        recipe = load_run_recipe(corpus)
        recipe = recipe.with_inputs({name: [] for name in recipe.sources}).with_inputs(inputs)
        folders.prepare(folder)
        _refuse_known(corpus, parent, recipe, inputs, folder)
        recipe = recipe_of_generation(corpus, parent, folder, recipe)
        done = run(recipe, folder, engine, generation=number, skip_unreadable=skip_unreadable)
        assert done.manifest is not None, "no stage was named to end at"
        try:
            return replace(done, manifest=_publish(corpus, parent, done.manifest, number))
        except OSError as error:
            raise storage_error(error, "append") from error


def merge_generation(parent: Manifest, made: Manifest, number: int) -> Manifest:
    """Return the manifest of a corpus after an append. Its shards, signatures, index and ledger cover both manifests.

    Args:
        parent: Manifest of the corpus before the append.
        made: Manifest of the new generation.
        number: Number of the new generation.
    """
    sources = dict(parent.sources)
    for name, new in made.sources.items():
        old = sources.get(name)
        if old is not None:
            new = SourceEntry(
                weight=old.weight,
                max_epochs=old.max_epochs,
                documents=old.documents + new.documents,
                unique_tokens=old.unique_tokens + new.unique_tokens,
                train=[*old.train, *new.train],
                validation=[*old.validation, *new.validation],
            )
        sources[name] = new
    ledger = {}
    for stage in sorted({*parent.ledger, *made.ledger}):
        sides = [parent.ledger.get(stage, {}), made.ledger.get(stage, {})]
        ledger[stage] = {
            name: total(tally_from(side.get(name, Tally().as_dict())) for side in sides).as_dict()
            for name in sorted({*sides[0], *sides[1]})
        }
    generation = Generation(
        number=number,
        parent=parent.manifest_sha,
        recipe=made.recipe,
        recipe_sha=made.recipe_sha,
        findings=made.findings,
        code=made.code,
    )
    changed = {
        "parent": parent.manifest_sha,
        "removal": None,
        "signatures": {**parent.signatures, **made.signatures},
        "sources": dict(sorted(sources.items())),
        "index": [*parent.index, *made.index],
        "generations": [*parent.generations, generation],
        "ledger": ledger,
        "manifest_sha": "",
    }
    manifest = parent.model_copy(update=changed)
    return manifest.model_copy(update={"manifest_sha": manifest.sha()})


def _publish(corpus: Path, parent: Manifest, made: Manifest, number: int) -> Manifest:
    """Add a finished generation to the corpus. The new manifest takes effect when its file is written.

    Each step can be repeated after an interruption.
    """
    folder, manifest = generation_folder(corpus, number), merge_generation(parent, made, number)
    write_atomic(folder / PUBLISHING, f"{manifest.manifest_sha}\n".encode())
    archive_manifest(corpus, parent)
    for root in ("shards", FOLDER):
        for stale in relative_files(corpus / root):
            if is_unfinished(parent, stale):
                (corpus / root / stale).unlink()
    names = [*(f"shards/{entry.path}" for entry in made.shards()), *(f"{FOLDER}/{entry.path}" for entry in made.index)]
    for name in names:
        with atomic_path(corpus / name) as temporary:
            link_or_copy(folder / name, temporary)
    write_manifest(corpus, manifest)
    _complete_append(corpus, manifest)
    return manifest


def _complete_append(corpus: Path, manifest: Manifest) -> bool:
    """Complete an append whose manifest is written. Return True if there was an incomplete append.

    The files that repeat the contents of the manifest are written, and the links to the shards and index files in the
    folder of the generation are removed.
    """
    folder = generation_folder(corpus, len(manifest.generations))
    try:
        promised = (folder / PUBLISHING).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return False
    if not manifest.generations or promised != manifest.manifest_sha or manifest.sha() != manifest.manifest_sha:
        return False
    write_atomic(corpus / SHA_FILE, f"{manifest.manifest_sha}\n".encode())
    write_atomic(corpus / LEDGER, canonical_json(manifest.ledger))
    for name in ("shards", FOLDER):
        with suppress(FileNotFoundError):
            rmtree(folder / name)
    (folder / PUBLISHING).unlink()
    return True


def _check(corpus: Path, parent: Manifest) -> None:
    """Check that the files of a corpus match its manifest, because the new manifest will contain its hash.

    They do not match if a later run on the finished corpus was interrupted: it may have replaced files or the recipe,
    but not the manifest.

    Raises:
        UserError: The manifest, its hash, the last run or the tokenizer do not match.
    """
    beside = corpus / SHA_FILE
    said = beside.read_text(encoding="utf-8", errors="replace").strip() if beside.is_file() else ""
    if not parent.manifest_sha == parent.sha() == said:
        raise UserError(f"{corpus / FILE} does not match its hash: run `python -m manifests verify {corpus}`")
    first = parent.generations[0].parent if parent.generations else parent.manifest_sha
    with suppress(OSError, ValueError, AttributeError):  # A corpus that `remove` has written has no status file.
        if json.loads((corpus / folders.STATUS).read_bytes()).get("manifest", first) != first:
            raise UserError(
                f"the last run on {corpus} was not finished, so the files may not be those of its manifest: give the "
                "same `python -m pipeline run` again"
            )
    model = corpus / MODEL
    if not model.is_file() or sha256_file(model) != parent.tokenizer.sha256:
        raise UserError(f"{model} is not the manifest's: run `python -m manifests verify {corpus}`")


def _refuse_known(
    corpus: Path, parent: Manifest, recipe: Recipe, inputs: Mapping[str, list[str]], folder: Path
) -> None:
    """Raise UserError if the corpus has an input of the same name. Ids of documents are derived from the name."""
    for name in inputs:
        known = parent.input_names(name)
        for file in sorted(inputs_module.match_names(name, recipe.sources[name].inputs, folder)):
            if file in known:
                raise UserError(
                    f"source {name}: {file} is already in {corpus}: leave it out, or if it is another dump of the same "
                    "name, give a glob that begins further up, so that their names differ"
                )


def _has_inputs(manifest: Manifest, inputs: Mapping[str, list[str]], corpus: Path) -> bool:
    """Return True if the last generation was built from exactly these inputs."""
    folder, recipe = generation_folder(corpus, len(manifest.generations)), manifest.generations[-1].recipe
    asked = {name: sorted(inputs_module.match_names(name, patterns, folder)) for name, patterns in inputs.items()}
    return asked == {name: source["inputs"] for name, source in recipe["sources"].items() if source["inputs"]}
