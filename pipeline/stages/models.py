"""Models and lists of the sources' rules: places in a corpus, copies of those at URLs, hashes, and inheritance."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import UserError
from filters.rule import Rule
from filters.rule_list import kept_languages, rule_labels
from manifests.files import sha256_file, write_atomic
from manifests.manifest import Manifest, generation_folder
from manifests.mirror import fetch_url, is_url
from manifests.recipe import Recipe
from manifests.source import Source
from manifests.storage import connect
from manifests.tokenizer import FILE as TOKENIZER

if TYPE_CHECKING:
    from filters.quality.perplexity import Cuts

CUTOFFS = "inherited"  # a folder of a generation: the cut-offs of its corpus as tables, one file per source


def models_of(name: str, source: Source, corpus: Path, cuts: "Mapping[str, Cuts] | None") -> dict[str, Any]:
    """Return what the run makes for a source's rules, by the stage that makes it.

    Args:
        name: of the source.
        source: its part of the recipe.
        corpus: the corpus, below which the models lie.
        cuts: of perplexity, by language, where they are found already.
    """
    found: dict[str, Any] = {"references": str(corpus / trained_references(name))}
    _, rule = source.rule_for("perplexity")
    if rule is not None:
        from filters.quality.perplexity import LanguageModels

        codes = sorted(rule.training_inputs())
        files = {code: trained_language_model(corpus, name, code) for code in codes} if codes else None
        found["perplexity"] = LanguageModels(files, cuts)
    return found


def trained_language_model(corpus: Path, source: str, code: str) -> tuple[str, str]:
    """Return the paths of pieces and n-grams of a language model that the run trains."""
    folder = corpus / "models/perplexity" / source
    return str(folder / f"{code}.sp.model"), str(folder / f"{code}.arpa")


def cuts_path(source: str) -> str:
    """Return the path of a source's cut-offs, below the corpus."""
    return f"models/cuts/{source}.json"


def trained_references(source: str) -> str:
    """Return the path of the reference classifier that the run trains, below the corpus."""
    return f"models/references/{source}.bin"


def given_files(name: str, source: Source) -> dict[str, str]:
    """Return every file that a source's rules give by path, by `SOURCE.RULE.USE`. Raises UserError."""
    found: dict[str, str] = {}
    for number, (rule, label) in enumerate(zip(source.filters, rule_labels(source.filters), strict=True)):
        languages = kept_languages(source.filters[:number])
        found |= {f"{name}.{label}.{use}": path for use, path in rule.find_files(languages).items()}
    return found


def hash_models(recipe: Recipe) -> dict[str, str]:
    """Return the SHA-256 of every model and list that the recipe gives by path, by source and use.

    Each is loaded, so that a damaged one ends the run before any work begins.

    Raises:
        UserError: one of them cannot be read.
    """
    found: dict[str, str] = {}
    for name, source in recipe.sources.items():
        for rule in source.filters:
            rule.check()
        found |= hash_given_files(name, source)
    return found


def hash_given_files(name: str, source: Source) -> dict[str, str]:
    """Return the SHA-256 of every file that a source's rules give by path, by `SOURCE.RULE.USE`. Raises UserError."""
    found: dict[str, str] = {}
    for use, path in given_files(name, source).items():
        try:
            found[use] = sha256_file(Path(path))
        except OSError as error:
            raise UserError(f"{use}: {path} cannot be read ({error.strerror}): check the path") from error
    return found


def with_local_models(recipe: Recipe, corpus: Path) -> tuple[Recipe, tuple[tuple[str, str], ...]]:
    """Return the recipe with paths of local copies in place of URLs of models and lists, and what was copied.

    What the run trains on stays where it is: its tasks copy it, as they copy dumps.

    Args:
        recipe: Recipe of the run.
        corpus: the output folder. The copies lie at the same path on every machine.

    Returns:
        The recipe, and for each copy its URL and its version, as `fetch_url` takes them.

    Raises:
        UserError: there is no such file.
    """
    given: dict[str, str] = {}

    def copy(path: str) -> str:
        if not is_url(path):
            return path
        parent, _, name = path.rpartition("/")
        entry = connect(parent).find(name)
        if entry is None:
            raise UserError(f"{path} does not exist: check the URL")
        given[path] = str(entry.changed)
        return str(fetch_url(path, given[path], corpus))

    return map_model_paths(recipe, copy, training=False), tuple(sorted(given.items()))


def map_model_paths(recipe: Recipe, change: Callable[[str], str], training: bool = True) -> Recipe:
    """Return the recipe with each path of a model or list changed, and with `training` of what the run trains on."""
    sources = {
        name: source.model_copy(update={"filters": [rule.map_paths(change, training) for rule in source.filters]})
        for name, source in recipe.sources.items()
    }
    path = recipe.tokenizer.path
    tokenizer = recipe.tokenizer.model_copy(update={"path": change(path) if path else None})
    return recipe.model_copy(update={"sources": sources, "tokenizer": tokenizer})


def inherited(corpus: Path, parent: Manifest, folder: Path, recipe: Recipe) -> Recipe:
    """Return the recipe of a generation, which trains nothing: all that its corpus has trained is given by path.

    These are tokenizer, language models, classifiers and cut-offs, which are written into `folder`. The corpus and its
    generations become earlier corpora to compare with.
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
        "tokenizer": recipe.tokenizer.model_copy(update={"path": str(corpus / TOKENIZER)}),
        "deduplication": recipe.deduplication.model_copy(update={"against": [*known, *earlier], "canaries": 0}),
    }
    return recipe.model_copy(update=changed)


def _trained_files(corpus: Path, folder: Path, name: str, rule: Rule, trained: set[str]) -> dict[str, str]:
    """Return what the corpus has trained for a rule, by the setting that gives it by path."""
    from filters.quality.perplexity import Perplexity

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
