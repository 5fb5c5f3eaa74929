"""The command `trace`: read the bytes behind a token again, repeat the steps, and compare the tokens."""

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
from pipeline.stages.models import cuts_path, hash_given_files, inherited, models_of, with_local_models

if TYPE_CHECKING:
    from filters.quality.perplexity import Cuts

LINES = "line_dedup"  # the stage whose verdicts are kept for tracing


@dataclass(frozen=True)
class Rederivation:
    """A token's lineage, and the result of deriving its document again.

    Attributes:
        lineage: The token's way from the dump to the shard.
        same: True if the tokens are the same.
        finding: The result in words.
    """

    lineage: Lineage
    same: bool
    finding: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**self.lineage.as_dict(), "same": self.same, "finding": self.finding}

    def text(self) -> str:
        """Return lines for people, safe for a terminal."""
        return "\n".join([*self.lineage.lines(), safe_line(f"again     {self.finding}")])


def trace(corpus: Path, shard: str, token: int, moved: dict[str, list[str]]) -> Rederivation:
    """Derive the document that holds a token again.

    Args:
        corpus: The corpus.
        shard: A path below `shards/`.
        token: Index in the flat token column.
        moved: Folders that sources' dumps have been moved to, by source.

    Raises:
        UserError: The corpus, the shard or a dump cannot be read.
    """
    lineage = lineage_of(corpus, shard, token)
    same, finding = Rederiver(corpus, moved, generation_of(shard)).check(shard, lineage)
    return Rederivation(lineage, same, finding)


class Rederiver:
    """Derives documents of one generation of a corpus again; recipe, models and inputs are found once."""

    def __init__(self, corpus: Path, moved: dict[str, list[str]], generation: int = 0) -> None:
        self.corpus, self.moved, self.reader = corpus, moved, CorpusReader(corpus)
        self.folder = generation_folder(corpus, generation)
        fetch_files(self.folder, "models")
        self.manifest: Manifest = load_manifest(self.folder)
        self.recipe: Recipe = load_run_recipe(self.folder)
        if generation:  # the corpus may have been moved since
            self.recipe = inherited(corpus, load_manifest(corpus), self.folder, self.recipe)
        self.recipe, _ = with_local_models(self.recipe, corpus)
        for name in moved.keys() - self.recipe.sources.keys():
            raise UserError(
                f"--input {name}=…: the corpus has no source {name!r}, only {', '.join(self.recipe.sources)}"
            )
        self.models: dict[str, dict[str, Any]] = {}  # by source, of those that were asked for
        self.inputs: dict[str, dict[str, Path | StoredDump]] = {}  # paths and dumps in stores by source and name

    def check(self, shard: str, lineage: Lineage) -> tuple[bool, str]:
        """Return True if the steps give the tokens that the shard holds, and the result in words."""
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
        """Pass a document through its source's rules again. Raises LookupError if a verdict is not kept."""
        source, models = self.recipe.sources[lineage.source], self._models(lineage.source)
        rules = source.rules_at("filter")
        found = [
            Found(self._line_verdict(lineage, joined) if rule.needs == LINES else None, models.get(rule.needs))
            for rule in rules
        ]
        return apply_rules(page_of(document.as_row(), source.kind in LANGUAGE_KNOWN), rules, found)

    def _models(self, name: str) -> dict[str, Any]:
        """Return what the run made for a source's rules. Raises UserError if a file that they name has changed."""
        if name not in self.models:
            source, entries = self.recipe.sources[name], self.manifest.models.items()
            expected = {use: one.sha256 for use, one in entries if not one.path and use.startswith(f"{name}.")}
            if hash_given_files(name, source) != expected:
                path = self.folder / RECIPE_FILE
                raise UserError(f"a model of {name} that {path} names has changed since the corpus was built")
            self.models[name] = models_of(name, source, self.folder, _read_cutoffs(self.folder, name))
        return self.models[name]

    def _line_verdict(self, lineage: Lineage, joined: bool) -> Any:
        """Return the kept verdict on a document's lines. Of a joined document, or a piece's, all splits are searched.

        Raises:
            LookupError: no file of verdicts holds it.
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
        """Return the present path of a source's file, or the file in an object store."""
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
            return fetch_url(dump.url, dump.version, self.corpus)  # a user's reader may need a buffer
        return dump


def _read_cutoffs(corpus: Path, source: str) -> "dict[str, Cuts] | None":
    """Return the perplexity cut-offs that the run computed for a source; None if it computed none."""
    path = fetch(corpus, cuts_path(source))
    if not path.exists():
        return None
    return {code: (cuts["head"], cuts["tail"]) for code, cuts in json.loads(path.read_bytes()).items()}
