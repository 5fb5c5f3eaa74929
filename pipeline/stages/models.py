"""Models and lists of the sources' rules: where they lie in a corpus, copies of those at URLs, and their hashes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.errors import UserError
from filters.rule import kept_languages, rule_labels
from manifests.files import sha256_file
from manifests.mirror import fetch_url, is_url
from manifests.recipe import Recipe
from manifests.source import Source
from manifests.storage import connect

if TYPE_CHECKING:
    from filters.quality.perplexity import Cuts


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

    Args:
        recipe: the run's.
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

    sources = {
        name: source.model_copy(update={"filters": [rule.map_paths(copy) for rule in source.filters]})
        for name, source in recipe.sources.items()
    }
    path = recipe.tokenizer.path
    tokenizer = recipe.tokenizer.model_copy(update={"path": copy(path) if path else None})
    return recipe.model_copy(update={"sources": sources, "tokenizer": tokenizer}), tuple(sorted(given.items()))
