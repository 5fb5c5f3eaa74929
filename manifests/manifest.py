"""The manifest: the definition of a corpus, in one JSON file whose hash names it.

`manifest_sha` covers everything in the manifest but itself and is repeated in `manifest.json.sha256`. It holds names
and hashes, never paths, clocks or hosts, so that the same inputs, recipe and seed give the same manifest anywhere.
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
READABLE = "give this user the right to read it"
HISTORY, GENERATIONS = "history", "generations"
RECEIPTS = "receipts/tokenize"  # folder left by the run that wrote the shards; a corpus made by `remove` has none
_GENERATION = re.compile(r"-g([1-9][0-9]{0,8})-[0-9]+-of-[0-9]+\.arrow$")


def _refuse_outer_path(path: str) -> str:
    if not is_inner_path(path):
        raise ValueError("is not a path below a folder of the corpus")
    return path


Inner = Annotated[str, AfterValidator(_refuse_outer_path)]  # so that no foreign manifest has files written elsewhere


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShardEntry(_Entry):
    """One shard: `path` below `shards/`, and the properties that `verify` checks."""

    path: Inner
    sha256: str
    bytes: int
    tokens: int
    documents: int


class SourceEntry(_Entry):
    """One source: its place in the mixture and its shards."""

    weight: float
    max_epochs: float
    documents: int
    unique_tokens: int  # of all its train shards, BOS and EOS included
    train: list[ShardEntry]
    validation: list[ShardEntry]

    def shards(self) -> list[ShardEntry]:
        """Return the shards of both sides, train first."""
        return [*self.train, *self.validation]


class IndexEntry(_Entry):
    """One file of `index/`: `path` below it."""

    path: Inner
    sha256: str
    bytes: int
    rows: int


class Removal(_Entry):
    """The documents that `remove` took out of the parent, and the hash of their list."""

    list_sha256: str
    documents: int
    tokens: int


class ModelEntry(_Entry):
    """A model or list that the corpus depends on."""

    sha256: str
    path: Inner | Literal[""] = (
        ""  # below the corpus, of one that the run itself trained; empty for one that the recipe gave
    )


class TokenizerEntry(_Entry):
    """The tokenizer at `models/tokenizer.model`."""

    sha256: str
    vocabulary: int
    bos: int
    eos: int
    dtype: Literal["uint16", "uint32"]


class Generation(_Entry):
    """A dump that was appended, by a run whose folder is `generations/<number>`."""

    number: int  # from 1; part of the names of its shards and index files
    parent: str  # manifest_sha of the corpus it was appended to
    recipe: dict[str, Any]  # the parent's, over the new inputs and with its models given
    recipe_sha: str
    findings: dict[str, Any]
    code: dict[str, str]


class Manifest(_Entry):
    """The definition of a corpus.

    Sources, signatures, index and ledger include appended dumps; all else is of the first run.
    """

    format: Literal["teratoken-manifest-4"] = FORMAT
    parent: str = ""  # manifest_sha of the corpus that this one was made from, by append or remove
    removal: Removal | None = None  # set by remove
    seed: int
    goal_tokens: int
    recipe: dict[str, Any]  # canonical
    recipe_sha: str
    tokenizer: TokenizerEntry
    models: dict[str, ModelEntry]
    signatures: dict[str, str]  # name of the MinHash scheme of each source, empty for one without
    sources: dict[str, SourceEntry]
    index: list[IndexEntry] = []
    generations: list[Generation] = []  # dumps that were appended
    ledger: dict[str, Any]  # totals by stage and source, see `manifests.ledger`
    findings: dict[str, Any] = {}  # results of stages: models' cards, duplicate lines
    code: dict[str, str]  # version of each stage's code
    manifest_sha: str = ""

    def sha(self) -> str:
        """Return the SHA-256 over the canonical JSON of everything but `manifest_sha`."""
        return sha256_json(self.model_dump(exclude={"manifest_sha"}))

    def shards(self) -> list[ShardEntry]:
        """Return every shard, in the order of sources, train before validation."""
        return [shard for _, source in sorted(self.sources.items()) for shard in source.shards()]

    def input_names(self, source: str) -> set[str]:
        """Return the names of a source's inputs, of the first run and every generation."""
        recipes = [self.recipe, *(generation.recipe for generation in self.generations)]
        return {file for recipe in recipes for file in recipe["sources"].get(source, {"inputs": []})["inputs"]}

    def recipe_shas(self) -> set[str]:
        """Return the hashes of the recipes that shards may name: the first run's and every generation's."""
        return {self.recipe_sha, *(generation.recipe_sha for generation in self.generations)}


def generation_folder(corpus: Path, number: int) -> Path:
    """Return the folder of the run that made a generation; the corpus itself for the first run, generation 0."""
    return corpus / GENERATIONS / str(number) if number else corpus


def generation_of(path: str) -> int:
    """Return the generation of a file of `shards/` or `index/`, by its name; 0 for the first run."""
    found = _GENERATION.search(path.rpartition("/")[2])
    return int(found.group(1)) if found else 0


def is_unfinished(manifest: Manifest, path: str) -> bool:
    """Return True if a file of `shards/` or `index/` is of the next generation, which an unfinished append is writing.

    The same append again finishes it; until then it is no part of the corpus.
    """
    return generation_of(path) == len(manifest.generations) + 1


def advise_repair(corpus: Path) -> str:
    """Return how to get files of a corpus again that are damaged or missing, as the end of a sentence."""
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
    """Write `manifest.json` and `manifest.json.sha256`; return the manifest with its hash filled in."""
    sealed = manifest.model_copy(update={"manifest_sha": manifest.sha()})
    write_atomic(corpus / FILE, canonical_json(sealed.model_dump()), durable=True)
    write_atomic(corpus / SHA_FILE, f"{sealed.manifest_sha}\n".encode(), durable=True)
    return sealed


def keep_manifest(corpus: Path, manifest: Manifest) -> None:
    """Write a manifest, which another is about to replace, to `history/`, under its hash."""
    write_atomic(corpus / HISTORY / f"{manifest.manifest_sha}.json", canonical_json(manifest.model_dump()))
    write_atomic(corpus / HISTORY / f"{manifest.manifest_sha}.json.sha256", f"{manifest.manifest_sha}\n".encode())


def load_manifest(corpus: Path, checked: bool = True) -> Manifest:
    """Read a corpus's manifest.

    Args:
        corpus: its folder.
        checked: refuse a manifest whose content does not have its hash, whose weights, counts and paths say nothing;
            False for `verify`, which says more about it.

    Raises:
        UserError: there is no manifest, it is damaged, or this version cannot read it.
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
    """Read a manifest, a corpus's own or an earlier one of `history/`.

    Raises:
        UserError: it cannot be read, or is not of this version.
    """
    try:
        plain = json.loads(path.read_bytes())
        canonical_json(plain)  # which refuses numbers that no JSON has, and Python reads: NaN, Infinity, 1e999
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
        first = (": ".join(lines[1:3]) or lines[0]).partition(" [type=")[0]  # pydantic's first line counts mistakes
        why = textwrap.shorten(first, 200, placeholder=" …")
        raise UserError(
            f"{path} is not a manifest this version reads ({why}): give the same `python -m pipeline run` again, "
            "which writes it again and keeps what is finished"
        ) from error
