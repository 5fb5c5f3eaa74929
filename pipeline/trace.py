"""The command `trace`: read the document of a token from its dump again, repeat all steps, and compare the tokens."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.errors import UserError
from filters.formats.stored import Stored
from filters.models.sentencepiece import encode_texts
from filters.rule import Found, page_of
from filters.rule_list import Filtered, apply_rules
from manifests.display import safe_line
from manifests.document import Document, Locator, Part
from manifests.manifest import Manifest, generation_folder, generation_of, load_manifest
from manifests.mirror import StoredDump, fetch, fetch_files, fetch_url, list_folder, open_range
from manifests.recipe import RECIPE_FILE, Recipe, load_run_recipe
from manifests.source import LANGUAGE_KNOWN, Source
from manifests.tools.corpus import CorpusReader
from manifests.tools.trace import Lineage
from manifests.tools.trace import trace as lineage_of
from pipeline.sources import inputs
from pipeline.sources.base import joined_for, reader_for
from pipeline.stages.models import cuts_path, hash_given_files, recipe_of_generation, trained_models, with_local_models

if TYPE_CHECKING:
    from filters.quality.perplexity import Cuts

LINES = "line_dedup"  # The verdicts of this stage are needed to filter the document again.


@dataclass(frozen=True)
class Rederivation:
    """The result of deriving the document of a token again.

    Attributes:
        lineage: Origin of the token: dump, locator, document, shard.
        same: True if the derived tokens equal the tokens in the shard.
        finding: The result as a sentence.
    """

    lineage: Lineage
    same: bool
    finding: str

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {**self.lineage.as_dict(), "same": self.same, "finding": self.finding}

    def text(self) -> str:
        """Return the result as lines of text. Control characters are escaped."""
        return "\n".join([*self.lineage.lines(), safe_line(f"again     {self.finding}")])


def trace(corpus: Path, shard: str, token: int, moved: dict[str, list[str]]) -> Rederivation:
    """Derive the document that contains a token from its dump again, and compare the tokens.

    Args:
        corpus: Folder of the corpus.
        shard: Path of the shard, relative to `shards/`.
        token: Index of the token among all tokens of the shard.
        moved: For each source, the folders to which its dumps were moved.

    Raises:
        UserError: The corpus, the shard or a dump cannot be read.
    """
    lineage = lineage_of(corpus, shard, token)
    same, finding = Rederiver(corpus, moved, generation_of(shard)).check(shard, lineage)
    return Rederivation(lineage, same, finding)


class Rederiver:
    """A tool that derives documents of one generation of a corpus again.

    The recipe, models and inputs are loaded once and reused for all documents.
    """

    def __init__(self, corpus: Path, moved: dict[str, list[str]], generation: int = 0) -> None:
        self.corpus, self.moved, self.reader = corpus, moved, CorpusReader(corpus)
        self.folder = generation_folder(corpus, generation)
        fetch_files(self.folder, "models")
        self.manifest: Manifest = load_manifest(self.folder)
        self.recipe: Recipe = load_run_recipe(self.folder)
        if generation:  # The recipe has paths of the corpus, which may have been moved since.
            self.recipe = recipe_of_generation(corpus, load_manifest(corpus), self.folder, self.recipe)
        self.recipe, _ = with_local_models(self.recipe, corpus)
        for name in moved.keys() - self.recipe.sources.keys():
            raise UserError(
                f"--input {name}=…: the corpus has no source {name!r}, only {', '.join(self.recipe.sources)}"
            )
        self.models: dict[str, dict[str, Any]] = {}  # source -> models of its rules; filled when they are needed
        self.inputs: dict[str, dict[str, Path | StoredDump]] = {}  # source -> name of the dump -> dump

    def check(self, shard: str, lineage: Lineage) -> tuple[bool, str]:
        """Derive one document again. Return True if its tokens equal the tokens in the shard, and a sentence."""
        expected = self.reader.shard(shard).tokens[lineage.start : lineage.stop]
        if not lineage.has_derived_id:
            return False, "the document's id does not follow from its source and locator"
        source: Source = self.recipe.sources[lineage.source]
        joined, place = joined_for(source), lineage.locator
        ranges: list[Locator | Part] = [place, *place.parts]
        dumps = {file: self._find_dump(lineage.source, file) for file in sorted({part.file for part in ranges})}
        with contextlib.ExitStack() as files:
            stored: dict[str, Stored] = {}
            for file, dump in dumps.items():
                start = min(part.offset for part in ranges if part.file == file)
                end = max(part.offset + part.length for part in ranges if part.file == file)
                stored[file] = files.enter_context(open_range(dump, self.corpus, start, end))
            for part in ranges:
                if part.offset + part.length > len(stored[part.file]):
                    return False, f"{dumps[part.file]} ends before the record: the file has changed"
            try:
                if joined is not None:
                    outcome = joined.reread(stored, place, lineage.source, source)
                else:
                    reader = reader_for(lineage.source, source)
                    outcome = reader.reread(stored[place.file], place, lineage.source, source)
            except LookupError as error:
                return False, str(error)
        if outcome.document is None:
            return False, f"extract drops the record now: {outcome.reason}"
        try:
            filtered = self._filter(outcome.document, lineage, joined is not None)
        except LookupError as error:
            return False, str(error)
        if filtered.reason is not None:
            return False, f"filter drops the document now: {filtered.reason}"
        (tokens,) = encode_texts([filtered.text], self.reader.tokenizer, self.manifest.tokenizer.vocabulary)
        if not np.array_equal(tokens, expected):
            return False, f"{len(tokens)} tokens now, {len(expected)} in the shard, and they differ"
        return True, f"the same {len(tokens)} tokens, from {dumps[place.file]}"

    def _filter(self, document: Document, lineage: Lineage, joined: bool) -> Filtered:
        """Apply the rules of its source to a document again. Raises LookupError if a verdict is missing."""
        source, models = self.recipe.sources[lineage.source], self._models(lineage.source)
        rules = source.rules_at("filter")
        found = [
            Found(self._line_verdict(lineage, joined) if rule.needs == LINES else None, models.get(rule.needs))
            for rule in rules
        ]
        return apply_rules(page_of(document.as_row(), source.kind in LANGUAGE_KNOWN), rules, found)

    def _models(self, name: str) -> dict[str, Any]:
        """Return the models of a source's rules. Raises UserError if a file that the recipe names has changed."""
        if name not in self.models:
            source, entries = self.recipe.sources[name], self.manifest.models.items()
            expected = {use: one.sha256 for use, one in entries if not one.path and use.startswith(f"{name}.")}
            if hash_given_files(name, source) != expected:
                path = self.folder / RECIPE_FILE
                raise UserError(f"a model of {name} that {path} names has changed since the corpus was built")
            self.models[name] = trained_models(name, source, self.folder, _read_cutoffs(self.folder, name))
        return self.models[name]

    def _line_verdict(self, lineage: Lineage, joined: bool) -> Any:
        """Return the mask of the document's duplicate lines.

        All splits of the dump are searched. For a joined document, all joined splits of the source are searched.

        Raises:
            LookupError: No verdict file contains the document.
        """
        from pipeline.stages.filter import find_mask, verdict_path

        root = verdict_path(LINES, lineage.source).removesuffix(".arrow")
        begins = "joined-" if joined else lineage.locator.file
        names = [name for name in list_folder(self.folder, root) if name.startswith(begins) and name.endswith(".arrow")]
        splits = (f"{lineage.source}/{name.removesuffix('.arrow')}" for name in names)
        verdict = find_mask(self.folder, splits, bytes.fromhex(lineage.document))
        if verdict is None:
            raise LookupError("the kept line verdicts belong to another text")
        return verdict

    def _find_dump(self, name: str, file: str) -> Path | StoredDump:
        """Return the current path of a dump, or a description of the dump in an object store."""
        for folder in self.moved.get(name, []):
            if (Path(folder) / file).is_file():
                return Path(folder) / file
        if name not in self.inputs:
            patterns = [] if self.moved.get(name) else self.recipe.sources[name].inputs
            self.inputs[name] = {**inputs.match(name, patterns, self.folder)}
            for one, item in inputs.match_stored(name, patterns).items():
                self.inputs[name][one] = StoredDump(item.path, item.version, item.size)
        if file not in self.inputs[name]:
            raise UserError(f"source {name}: {file} cannot be found: give --input {name}=DIR, the folder above it")
        dump = self.inputs[name][file]
        if isinstance(dump, StoredDump) and ":" in (self.recipe.sources[name].kind or ""):
            return fetch_url(dump.url, dump.version, self.corpus)  # A reader that a user wrote may need a buffer.
        return dump


def _read_cutoffs(corpus: Path, source: str) -> "dict[str, Cuts] | None":
    """Read the perplexity cut-offs that the run computed for a source; None if it computed none."""
    path = fetch(corpus, cuts_path(source))
    if not path.exists():
        return None
    return {code: (cuts["head"], cuts["tail"]) for code, cuts in json.loads(path.read_bytes()).items()}
