"""`trace`: re-read the bytes behind a token, walk the stages again, and arrive at the same tokens, or say where not."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.errors import UserError
from filters.formats.stream import Stored, open_stored
from filters.models.sentencepiece import encode_texts
from manifests.corpus import CorpusReader
from manifests.document import Locator, Part
from manifests.manifest import Manifest, generation_folder, generation_of, load_manifest
from manifests.recipe import Recipe
from manifests.source import Source
from manifests.tools.trace import Lineage
from manifests.tools.trace import trace as lineage_of
from pipeline.append import inherited, recipe_of
from pipeline.preflight import hash_models
from pipeline.run import RECIPE_FILE
from pipeline.sources import Outcome, inputs, joined_for, reader_for
from pipeline.stages import line_dedup
from pipeline.stages.filter import Cuts, Models, apply_filters, lines_text, models_of
from pipeline.stages.perplexity import cuts_path
from pipeline.stages.tokenize import tokenizer
from pipeline.stages.tokenizer import MODEL


@dataclass(frozen=True)
class Rederived:
    """A token's lineage, and what walking the way again gave. `same`: the same tokens; `finding`: how it ended."""

    lineage: Lineage
    same: bool
    finding: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.lineage.as_dict(), "same": self.same, "finding": self.finding}

    def text(self) -> str:
        """For people."""
        return "\n".join([*self.lineage.lines(), f"again     {self.finding}"])


def trace(corpus: Path, shard: str, token: int, moved: dict[str, list[str]]) -> Rederived:
    """Re-derive the document that holds a token. `moved`: folders where sources' dumps lie now, by source. Raises
    UserError for what is not there to be read."""
    lineage = lineage_of(corpus, shard, token)
    same, finding = Rederiver(corpus, moved, generation_of(shard)).check(shard, lineage)
    return Rederived(lineage, same, finding)


class Rederiver:
    """Re-derives documents of one generation of a corpus, with its recipe, models and inputs found once."""

    def __init__(self, corpus: Path, moved: dict[str, list[str]], generation: int = 0) -> None:
        self.corpus, self.moved = corpus, moved
        self.folder = generation_folder(corpus, generation)
        self.manifest: Manifest = load_manifest(self.folder)
        self.recipe: Recipe = recipe_of(self.folder)
        if generation:  # the corpus may have been moved since
            self.recipe = inherited(corpus, load_manifest(corpus), self.folder, self.recipe)
        given = {name: model.sha256 for name, model in self.manifest.models.items() if not model.path}
        if hash_models(self.recipe) != given:
            raise UserError(f"a model that {self.folder / RECIPE_FILE} names is not the one the corpus was built with")
        self.models: dict[str, Models] = {
            name: models_of(name, source, self.folder, _cuts(self.folder, name))
            for name, source in self.recipe.sources.items()
        }
        self.found: dict[str, dict[str, Path]] = {}

    def check(self, shard: str, lineage: Lineage) -> tuple[bool, str]:
        """Whether the stages give the tokens that the shard holds, and how it ended."""
        held = CorpusReader(self.corpus).shard(shard).tokens[lineage.start : lineage.stop]
        if not lineage.has_derived_id:
            return False, "the document's id is not the one that its source and locator give"
        source: Source = self.recipe.sources[lineage.source]
        place = lineage.locator
        paths = {
            file: self._path(lineage.source, file) for file in sorted({place.file, *(p.file for p in place.parts)})
        }
        with contextlib.ExitStack() as files:
            stored = {file: files.enter_context(open_stored(path)) for file, path in paths.items()}
            ranges: list[Locator | Part] = [place, *place.parts]
            for part in ranges:
                if part.offset + part.length > len(stored[part.file]):
                    return False, f"{paths[part.file]} ends before the record: it is not the file that was read"
            try:
                outcome = self._reread(stored, lineage, source)
            except LookupError as error:
                return False, str(error)
        if outcome.document is None:
            return False, f"extract drops the record now: {outcome.reason}"
        lines = None
        if source.lines is not None:
            lines = self._line_verdict(lineage, joined_for(source) is not None)
            if lines is None or len(lines) != lines_text(outcome.document.text, source).count("\n") + 1:
                return False, "the kept line verdicts are not of this text"
        judged = apply_filters(outcome.document.text, source, self.models[lineage.source], lines)
        if judged.reason is not None:
            return False, f"filter drops the document now: {judged.reason}"
        model = tokenizer(str(self.corpus / MODEL), self.manifest.tokenizer.sha256)
        (again,) = encode_texts([judged.text], model, self.manifest.tokenizer.vocabulary)
        if not np.array_equal(again, held):
            return False, f"{len(again)} tokens now, {len(held)} in the shard, and they differ"
        return True, f"the same {len(again)} tokens, from {paths[place.file]}"

    def _reread(self, stored: dict[str, Stored], lineage: Lineage, source: Source) -> Outcome:
        """What the stored bytes give today. Raises LookupError."""
        joined, place = joined_for(source), lineage.locator
        if joined is not None:
            return joined.reread(stored, place, lineage.source, source)
        return reader_for(lineage.source, source).reread(stored[place.file], place, lineage.source, source)

    def _line_verdict(self, lineage: Lineage, joined: bool) -> npt.NDArray[np.bool_] | None:
        """The kept verdict on a document's lines. A joined document's split has no input's name: all are tried."""
        files = [lineage.locator.file]
        if joined:
            found = (self.folder / "verdicts" / line_dedup.STAGE / lineage.source).glob("joined-*.arrow")
            files = sorted(path.name.removesuffix(".arrow") for path in found)
        identity = bytes.fromhex(lineage.document)
        verdicts = (line_dedup.find_verdict(self.folder, lineage.source, file, identity) for file in files)
        return next((verdict for verdict in verdicts if verdict is not None), None)

    def _path(self, name: str, file: str) -> Path:
        """Where a file of a source lies now."""
        for folder in self.moved.get(name, []):
            if (Path(folder) / file).is_file():
                return Path(folder) / file
        if name not in self.found:
            self.found[name] = {}
            if not self.moved.get(name):
                self.found[name] = inputs.match(name, self.recipe.sources[name].inputs, self.folder)
        if file not in self.found[name]:
            raise UserError(f"source {name}: {file} is not where it was: give --input {name}=DIR, the folder above it")
        return self.found[name][file]


def _cuts(corpus: Path, source: str) -> dict[str, Cuts] | None:
    """The cut-offs that the run found for a source; None where it looked for none."""
    path = corpus / cuts_path(source)
    if not path.exists():
        return None
    return {code: (cuts["head"], cuts["tail"]) for code, cuts in json.loads(path.read_bytes()).items()}
