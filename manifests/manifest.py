"""The manifest: what a corpus is, in one JSON file whose hash names it.

`manifest_sha` covers everything in the manifest but itself and stands again in `manifest.json.sha256`. It holds names
and hashes, never paths, clocks or hosts, so that the same inputs, recipe and seed give the same manifest anywhere.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from filters.errors import UserError
from manifests.files import canonical_json, sha256_json, write_atomic

FILE = "manifest.json"
SHA_FILE = "manifest.json.sha256"
FORMAT: Literal["teratoken-manifest-3"] = "teratoken-manifest-3"
HISTORY, GENERATIONS = "history", "generations"
_GENERATION = re.compile(r"-g([1-9][0-9]{0,8})-[0-9]+-of-[0-9]+\.arrow$")


class ShardEntry(BaseModel):
    """One shard: `path` below `shards/`, with what `verify` checks it against."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str
    bytes: int
    tokens: int
    documents: int


class SourceEntry(BaseModel):
    """One source: its place in the mixture and its shards. `unique_tokens` = all tokens of its train shards, BOS and
    EOS included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float
    max_epochs: float
    documents: int
    unique_tokens: int
    train: list[ShardEntry]
    validation: list[ShardEntry]


class IndexEntry(BaseModel):
    """One file of `index/`: `path` below it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str
    bytes: int
    rows: int


class Removal(BaseModel):
    """What `remove` took out of the parent: the list by its hash, and how much it was."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    list_sha256: str
    documents: int
    tokens: int


class ModelEntry(BaseModel):
    """A model or list that the corpus depends on. `path`: below the corpus, for what the run itself trained; empty for
    what the recipe gave."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    path: str = ""


class TokenizerEntry(BaseModel):
    """The tokenizer at `models/tokenizer.model`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str
    vocabulary: int
    bos: int
    eos: int
    dtype: Literal["uint16", "uint32"]


class Generation(BaseModel):
    """A dump that was appended. `number` counts from 1 and stands in the names of its shards and index files; `parent`:
    the manifest_sha of the corpus it was appended to; `recipe`: that one's, over the new inputs and with its models
    given; `code`, `findings`: of the run that made it, whose folder is `generations/<number>`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    parent: str
    recipe: dict[str, Any]
    recipe_sha: str
    findings: dict[str, Any]
    code: dict[str, str]


class Manifest(BaseModel):
    """Everything that defines a corpus. `ledger` holds the totals per stage and source (see `manifests.ledger`),
    `findings` what stages found out (models' cards, duplicate lines), `code` the version of each stage's code, `recipe`
    the canonical recipe, `signatures` the MinHash scheme. `parent`: the manifest_sha of the corpus that this one was
    made from by appending a dump or by removing documents; `removal`: set by the latter. `generations`: the dumps that
    were appended; sources, index and ledger hold them too, all else is of the first run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["teratoken-manifest-3"] = FORMAT
    parent: str = ""
    removal: Removal | None = None
    seed: int
    goal_tokens: int
    recipe: dict[str, Any]
    recipe_sha: str
    tokenizer: TokenizerEntry
    models: dict[str, ModelEntry]
    signatures: str
    sources: dict[str, SourceEntry]
    index: list[IndexEntry] = []
    generations: list[Generation] = []
    ledger: dict[str, Any]
    findings: dict[str, Any] = {}
    code: dict[str, str]
    manifest_sha: str = ""

    def sha(self) -> str:
        """SHA-256 over the canonical JSON of everything but `manifest_sha`."""
        return sha256_json(self.model_dump(exclude={"manifest_sha"}))

    def shards(self) -> list[ShardEntry]:
        """Every shard, in the order of sources, train before validation."""
        entries = [self.sources[name] for name in sorted(self.sources)]
        return [shard for entry in entries for shard in (*entry.train, *entry.validation)]

    def recipe_shas(self) -> set[str]:
        """What the shards may say of the recipe they were made by: the first run's, or a generation's."""
        return {self.recipe_sha, *(generation.recipe_sha for generation in self.generations)}


def generation_folder(corpus: Path, number: int) -> Path:
    """Where the run that made a generation left its files; the corpus itself for the first run, generation 0."""
    return corpus / GENERATIONS / str(number) if number else corpus


def generation_of(path: str) -> int:
    """Which generation a file of `shards/` or `index/` is of, by its name; 0 for the first run's."""
    found = _GENERATION.search(path.rpartition("/")[2])
    return int(found.group(1)) if found else 0


def is_unfinished(manifest: Manifest, path: str) -> bool:
    """Whether a file of `shards/` or `index/` is of the generation that comes next: the same append again finishes it,
    and until then it is no part of the corpus."""
    return generation_of(path) == len(manifest.generations) + 1


def write_manifest(corpus: Path, manifest: Manifest) -> Manifest:
    """Write `manifest.json` and `manifest.json.sha256`; gives the manifest with its hash filled in."""
    sealed = manifest.model_copy(update={"manifest_sha": manifest.sha()})
    write_atomic(corpus / FILE, canonical_json(sealed.model_dump()))
    write_atomic(corpus / SHA_FILE, f"{sealed.manifest_sha}\n".encode())
    return sealed


def keep_manifest(corpus: Path, manifest: Manifest) -> None:
    """Put a corpus's manifest, which another is about to replace, into `history/`, under its hash."""
    write_atomic(corpus / HISTORY / f"{manifest.manifest_sha}.json", canonical_json(manifest.model_dump()))
    write_atomic(corpus / HISTORY / f"{manifest.manifest_sha}.json.sha256", f"{manifest.manifest_sha}\n".encode())


def load_manifest(corpus: Path) -> Manifest:
    """Read a corpus's manifest. Raises UserError where there is none, or what is there is none of ours.

    The hash is not checked here: `verify` names what differs, and the trainer checks what it reads.
    """
    path = corpus / FILE
    if not corpus.is_dir():
        raise UserError(f"{corpus} is not a folder: give the output folder of `python -m pipeline run`")
    if not path.is_file():
        raise UserError(f"{corpus} has no {FILE}: finish the run by giving the same `python -m pipeline run` again")
    try:
        plain = json.loads(path.read_bytes())
        written = plain.get("format") if isinstance(plain, dict) else None
        if isinstance(written, str) and written.startswith("teratoken-manifest-") and written != FORMAT:
            raise UserError(
                f"{corpus} was written by another version ({written}; this one reads {FORMAT}): rebuild it into a new "
                "folder, or use the version that wrote it"
            )
        return Manifest.model_validate(plain)
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path} is not a manifest this version reads ({first}): rebuild the corpus") from error
