"""The manifest: the JSON file that defines a corpus. Its hash is the name of the corpus.

`manifest_sha` is the hash of all other fields of the manifest, and is repeated in `manifest.json.sha256`. The manifest
contains names and hashes, but no absolute paths, times or host names. Therefore the same inputs, recipe and seed give
the same manifest on every machine.
"""

import json
import re
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from filters.errors import UserError
from manifests.files import canonical_json, is_inner_path, sha256_json, unreadable, write_atomic
from manifests.mirror import mirror_of, place_of

FILE = "manifest.json"
SHA_FILE = "manifest.json.sha256"
FORMAT: Literal["teratoken-manifest-4"] = "teratoken-manifest-4"
READABLE = "give this user the right to read it"  # Advice in the message for a file that cannot be read.
HISTORY, GENERATIONS = "history", "generations"  # Folders: of earlier manifests, and of the runs of appended dumps.
RECEIPTS = "receipts/tokenize"  # The run that writes the shards creates this folder. `remove` does not.
_GENERATION = re.compile(r"-g([1-9][0-9]{0,8})-[0-9]+-of-[0-9]+\.arrow$")


def _refuse_outer_path(path: str) -> str:
    if not is_inner_path(path):
        raise ValueError("is not a path below a folder of the corpus")
    return path


# The path of a file inside the corpus. It is checked, so that an untrusted manifest cannot cause writes elsewhere.
Inner = Annotated[str, AfterValidator(_refuse_outer_path)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShardEntry(_Entry):
    """One shard: its `path` below `shards/`, and the properties that `verify` checks."""

    path: Inner
    sha256: str
    bytes: int
    tokens: int
    documents: int


class SourceEntry(_Entry):
    """One source: its weight in the mixture, and its shards."""

    weight: float
    max_epochs: float
    documents: int
    unique_tokens: int  # The tokens of all its train shards, including BOS and EOS.
    train: list[ShardEntry]
    validation: list[ShardEntry]

    def shards(self) -> list[ShardEntry]:
        """Return the shards of both sides, train first."""
        return [*self.train, *self.validation]


class IndexEntry(_Entry):
    """One index file: its `path` below `index/`, and the properties that `verify` checks."""

    path: Inner
    sha256: str
    bytes: int
    rows: int


class Removal(_Entry):
    """The number of documents and tokens that `remove` took out of the parent corpus, and the hash of the list."""

    list_sha256: str
    documents: int
    tokens: int


class ModelEntry(_Entry):
    """A model or list that the corpus depends on.

    Attributes:
        path: the path below the corpus, if the run trained the model; empty if the recipe gave it.
    """

    sha256: str
    path: Inner | Literal[""] = ""


class TokenizerEntry(_Entry):
    """The tokenizer at `models/tokenizer.model`."""

    sha256: str
    vocabulary: int
    bos: int
    eos: int
    dtype: Literal["uint16", "uint32"]


class Generation(_Entry):
    """A dump that was appended to the corpus by a run in the folder `generations/<number>`.

    Attributes:
        number: counted from 1; part of the names of the generation's shards and index files.
        parent: manifest_sha of the corpus to which the dump was appended.
        recipe: the recipe of the parent, with the new inputs, and with the models of the parent as given models.
    """

    number: int
    parent: str
    recipe: dict[str, Any]
    recipe_sha: str
    findings: dict[str, Any]
    code: dict[str, str]


class Manifest(_Entry):
    """The definition of a corpus.

    `sources`, `signatures`, `index` and `ledger` include appended dumps. All other fields describe the first run.

    Attributes:
        parent: manifest_sha of the corpus from which `append` or `remove` made this one; empty for other corpora.
        removal: set by `remove`.
        recipe: the canonical recipe, see `Recipe.canonical`.
        models: models and lists by purpose.
        signatures: name of the MinHash scheme of each source; empty for a source without near-duplicate detection.
        generations: the dumps that were appended.
        ledger: tallies by stage and source, see `manifests.ledger`.
        findings: results of stages, such as the cards of models or the number of duplicate lines.
        code: version of the code of each stage.
    """

    format: Literal["teratoken-manifest-4"] = FORMAT
    parent: str = ""
    removal: Removal | None = None
    seed: int
    goal_tokens: int
    recipe: dict[str, Any]
    recipe_sha: str
    tokenizer: TokenizerEntry
    models: dict[str, ModelEntry]
    signatures: dict[str, str]
    sources: dict[str, SourceEntry]
    index: list[IndexEntry] = []
    generations: list[Generation] = []
    ledger: dict[str, Any]
    findings: dict[str, Any] = {}
    code: dict[str, str]
    manifest_sha: str = ""

    def sha(self) -> str:
        """Return the SHA-256 of the canonical JSON of all fields except `manifest_sha`."""
        return sha256_json(self.model_dump(exclude={"manifest_sha"}))

    def shards(self) -> list[ShardEntry]:
        """Return all shards, sorted by source, train before validation."""
        return [shard for _, source in sorted(self.sources.items()) for shard in source.shards()]

    def input_names(self, source: str) -> set[str]:
        """Return the names of all inputs of a source, in the first run and in every generation."""
        recipes = [self.recipe, *(generation.recipe for generation in self.generations)]
        return {file for recipe in recipes for file in recipe["sources"].get(source, {"inputs": []})["inputs"]}

    def recipe_shas(self) -> set[str]:
        """Return the hashes of the recipes of the first run and of every generation, which shards name."""
        return {self.recipe_sha, *(generation.recipe_sha for generation in self.generations)}


def generation_folder(corpus: Path, number: int) -> Path:
    """Return the folder of the run that made a generation: for generation 0, the first run, the corpus folder."""
    return corpus / GENERATIONS / str(number) if number else corpus


def generation_of(path: str) -> int:
    """Return the generation in the name of a file of `shards/` or `index/`; 0 for the first run."""
    found = _GENERATION.search(path.rpartition("/")[2])
    return int(found.group(1)) if found else 0


def is_unfinished(manifest: Manifest, path: str) -> bool:
    """Return True if a file of `shards/` or `index/` belongs to an append that has not finished.

    Its name contains the next generation. The file does not belong to the corpus until the same append command is
    repeated and finishes.
    """
    return generation_of(path) == len(manifest.generations) + 1


def advise_repair(corpus: Path) -> str:
    """Return advice on how to restore damaged or missing files of a corpus, as the end of a sentence."""
    if mirror_of(corpus) is None and not (corpus / RECEIPTS).is_dir():
        return (
            "this folder has no receipts of the run that wrote it, so copy the file from another copy of the corpus "
            "or make the corpus again into a new folder"
        )
    return (
        "delete each damaged file and give the same `python -m pipeline run` command again, which makes the missing "
        "files and keeps all others"
    )


def write_manifest(corpus: Path, manifest: Manifest) -> Manifest:
    """Compute the hash of a manifest and write `manifest.json` and `manifest.json.sha256`.

    Returns:
        The manifest with its hash.
    """
    sealed = manifest.model_copy(update={"manifest_sha": manifest.sha()})
    write_atomic(corpus / FILE, canonical_json(sealed.model_dump()), durable=True)
    write_atomic(corpus / SHA_FILE, f"{sealed.manifest_sha}\n".encode(), durable=True)
    return sealed


def archive_manifest(corpus: Path, manifest: Manifest) -> None:
    """Write a manifest to `history/<manifest_sha>.json`, before a new manifest replaces it."""
    write_atomic(corpus / HISTORY / f"{manifest.manifest_sha}.json", canonical_json(manifest.model_dump()))
    write_atomic(corpus / HISTORY / f"{manifest.manifest_sha}.json.sha256", f"{manifest.manifest_sha}\n".encode())


def load_manifest(corpus: Path, checked: bool = True) -> Manifest:
    """Read the manifest of a corpus.

    Args:
        corpus: the folder of the corpus.
        checked: reject a manifest whose content does not match its hash. `verify` passes False, because it reports the
            differences in detail.

    Raises:
        UserError: there is no manifest, it is damaged, or it has another format version.
    """
    path = corpus / FILE
    try:
        is_folder, is_finished = corpus.is_dir(), path.is_file()
    except OSError as error:
        raise unreadable(path, error.strerror, READABLE) from error
    if not is_folder:
        raise UserError(f"{corpus} is not a folder: give the output folder of `python -m pipeline run`")
    if not is_finished:
        raise UserError(
            f"{corpus} has no {FILE}: give the output folder of a run, and if the run is not finished, give the same "
            "`python -m pipeline run` again"
        )
    manifest = read_manifest(path)
    if checked and manifest.manifest_sha != manifest.sha():
        raise UserError(f"{path} does not match its hash: run `python -m manifests verify {place_of(corpus)}`")
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Read a manifest file: `manifest.json`, or a file of `history/`.

    Raises:
        UserError: the file cannot be read, or has another format version.
    """
    try:
        plain = json.loads(path.read_bytes())
        canonical_json(plain)  # Rejects NaN and infinities (also 1e999), which Python reads although JSON has none.
        written = plain.get("format") if isinstance(plain, dict) else None
        if isinstance(written, str) and written.startswith("teratoken-manifest-") and written != FORMAT:
            raise UserError(
                f"{path} was written by another version ({written}; this one reads {FORMAT}): rebuild the corpus into "
                "a new folder, or use the version that wrote it"
            )
        return Manifest.model_validate(plain)
    except OSError as error:
        raise unreadable(path, error.strerror, READABLE) from error
    except (ValueError, RecursionError) as error:
        lines = str(error).splitlines()
        # The first line of a pydantic error is only the number of errors. The next two name the first error.
        first = (": ".join(lines[1:3]) or lines[0]).partition(" [type=")[0]
        why = textwrap.shorten(first, 200, placeholder=" …")
        raise UserError(
            f"{path} is not a manifest this version reads ({why}): give the same `python -m pipeline run` again, "
            "which writes it again and keeps what is finished"
        ) from error
