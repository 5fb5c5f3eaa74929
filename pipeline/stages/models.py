"""Models and lists that rules use: their paths in a corpus, local copies of URLs, hashes, and reuse in generations."""

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

CUTOFFS = "inherited"  # Folder of a generation with the cut-offs of its corpus: one table per source.


def trained_models(name: str, source: Source, corpus: Path, cuts: "Mapping[str, Cuts] | None") -> dict[str, Any]:
    """Return the models that the run trains for a source's rules, by the stage that trains them.

    Args:
        name: Name of the source.
        source: Settings of the source.
        corpus: Folder of the corpus, which contains the models.
        cuts: Cut-offs of perplexity by language; None if they are not computed yet.
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
    """Return the paths of a language model that the run trains: the SentencePiece model and the n-grams (ARPA)."""
    folder = corpus / "models/perplexity" / source
    return str(folder / f"{code}.sp.model"), str(folder / f"{code}.arpa")


def cuts_path(source: str) -> str:
    """Return the path of the perplexity cut-offs of a source, relative to the corpus."""
    return f"models/cuts/{source}.json"


def trained_references(source: str) -> str:
    """Return the path of the reference classifier that the run trains for a source, relative to the corpus."""
    return f"models/references/{source}.bin"


def given_files(name: str, source: Source) -> dict[str, str]:
    """Return a dict from `SOURCE.RULE.USE` to path for the files that the recipe gives to a source's rules.

    Raises:
        UserError: A file is missing.
    """
    found: dict[str, str] = {}
    for number, (rule, label) in enumerate(zip(source.filters, rule_labels(source.filters), strict=True)):
        languages = kept_languages(source.filters[:number])
        found |= {f"{name}.{label}.{use}": path for use, path in rule.find_files(languages).items()}
    return found


def hash_models(recipe: Recipe) -> dict[str, str]:
    """Return a dict from `SOURCE.RULE.USE` to SHA-256 for every model and list that the recipe gives by path.

    Every file is also loaded, so that a damaged file is reported before the work begins.

    Raises:
        UserError: A file cannot be read or used.
    """
    found: dict[str, str] = {}
    for name, source in recipe.sources.items():
        for rule in source.filters:
            rule.check()
        found |= hash_given_files(name, source)
    return found


def hash_given_files(name: str, source: Source) -> dict[str, str]:
    """Return a dict from `SOURCE.RULE.USE` to SHA-256 for the files of `given_files`.

    Raises:
        UserError: A file cannot be read.
    """
    found: dict[str, str] = {}
    for use, path in given_files(name, source).items():
        try:
            found[use] = sha256_file(Path(path))
        except OSError as error:
            raise UserError(f"{use}: {path} cannot be read ({error.strerror}): check the path") from error
    return found


def with_local_models(recipe: Recipe, corpus: Path) -> tuple[Recipe, tuple[tuple[str, str], ...]]:
    """Copy the models and lists that the recipe gives by URL, and return the recipe with the paths of the copies.

    URLs of texts that the run trains on are not changed. The training tasks copy these texts, like dumps.

    Args:
        recipe: Recipe of the run.
        corpus: Output folder. The copies have the same path on every machine.

    Returns:
        The changed recipe, and the URL and version of each copy, which are arguments of `fetch_url`.

    Raises:
        UserError: A file does not exist.
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
    """Return a copy of the recipe in which `change` was applied to each path of a model or list.

    With `training`, it is also applied to the paths of texts that the run trains models on.
    """
    sources = {
        name: source.model_copy(update={"filters": [rule.map_paths(change, training) for rule in source.filters]})
        for name, source in recipe.sources.items()
    }
    path = recipe.tokenizer.path
    tokenizer = recipe.tokenizer.model_copy(update={"path": change(path) if path else None})
    return recipe.model_copy(update={"sources": sources, "tokenizer": tokenizer})


def recipe_of_generation(corpus: Path, parent: Manifest, folder: Path, recipe: Recipe) -> Recipe:
    """Return the recipe of a new generation of a corpus. It reuses the models of the corpus and trains no model.

    The tokenizer, language models, classifiers and cut-offs of the corpus are given by path. The cut-offs are written
    as tables into `folder`. Documents are compared with the corpus and all its generations.

    Args:
        corpus: Folder of the corpus.
        parent: Manifest of the corpus.
        folder: Folder of the new generation.
        recipe: Recipe of the corpus, with the inputs of the generation.
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
    """Return the paths of the models that the corpus trained for a rule, by the rule's setting for the path.

    Args:
        corpus: Folder of the corpus.
        folder: Folder of the generation, into which the table of cut-offs is written.
        name: Name of the source.
        rule: Rule of the source.
        trained: Paths of all models that the corpus trained.
    """
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
    """Write cut-offs as a CSV file in the format of CCNet: a row per percentile, a column per language."""
    found = json.loads(cuts.read_bytes())
    codes = sorted(found)
    rows = {head: [found[code]["head"] for code in codes], tail: [found[code]["tail"] for code in codes]}
    lines = [["percentile", *codes], *([percentile, *values] for percentile, values in sorted(rows.items()))]
    data = "".join(",".join(map(str, line)) + "\n" for line in lines).encode()
    if not table.is_file() or table.read_bytes() != data:  # `trace` must work on a corpus that is read-only.
        write_atomic(table, data)
