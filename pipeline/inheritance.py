"""Derive the recipe of a generation from the corpus that it is appended to: all that was trained is given by path."""

import json
from pathlib import Path

from filters.quality.perplexity import Perplexity
from filters.rule import Rule
from manifests.files import write_atomic
from manifests.manifest import Manifest, generation_folder
from manifests.recipe import Recipe
from manifests.tokenizer import FILE as MODEL
from pipeline.stages.models import cuts_path, trained_references

CUTOFFS = "inherited"  # a folder of the generation's: the parent's cut-offs as tables, one file per source


def inherited(corpus: Path, parent: Manifest, folder: Path, recipe: Recipe) -> Recipe:
    """Return a recipe that trains nothing: all that the corpus has trained is given by path.

    These are tokenizer, language models, classifiers and cut-offs (which are written into `folder`); the corpus with
    its generations are earlier corpora.
    """
    trained = {model.path for model in parent.models.values() if model.path}
    sources = {}
    for name, source in recipe.sources.items():
        rules = [rule.with_trained(_trained_files(corpus, folder, name, rule, trained)) for rule in source.filters]
        sources[name] = source.model_copy(update={"filters": rules})
    earlier = [str(generation_folder(corpus, number)) for number in range(len(parent.generations) + 1)]
    known = [path for path in recipe.deduplication.against if path not in earlier]
    changed = {
        "sources": sources,
        "tokenizer": recipe.tokenizer.model_copy(update={"path": str(corpus / MODEL)}),
        "deduplication": recipe.deduplication.model_copy(update={"against": [*known, *earlier], "canaries": 0}),
    }
    return recipe.model_copy(update=changed)


def _trained_files(corpus: Path, folder: Path, name: str, rule: Rule, trained: set[str]) -> dict[str, str]:
    """Return what the corpus has trained for a rule, by the setting that gives it by path."""
    files, models = {}, f"models/perplexity/{name}"
    if rule.needs == "references" and trained_references(name) in trained:
        files["model"] = str(corpus / trained_references(name))
    if isinstance(rule, Perplexity) and rule.needs:
        if any(path.startswith(f"{models}/") for path in trained):
            files["models"] = str(corpus / models)
        if cuts_path(name) in trained:
            table = folder / CUTOFFS / f"{name}.csv"
            _write_cutoffs(corpus / cuts_path(name), table, rule.head, rule.tail)
            files["cutoffs"] = str(table)
    return files


def _write_cutoffs(cuts: Path, table: Path, head: int, tail: int) -> None:
    """Write a source's cut-offs as CCNet's table: a row per percentile, a column per language."""
    found = json.loads(cuts.read_bytes())
    codes = sorted(found)
    rows = {head: [found[code]["head"] for code in codes], tail: [found[code]["tail"] for code in codes]}
    lines = [["percentile", *codes], *([percentile, *values] for percentile, values in sorted(rows.items()))]
    data = "".join(",".join(map(str, line)) + "\n" for line in lines).encode()
    if not table.is_file() or table.read_bytes() != data:  # a corpus that is only traced may be read-only
        write_atomic(table, data)
