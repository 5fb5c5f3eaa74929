"""The inputs of a run, and everything that can be wrong before it begins."""

from dataclasses import dataclass
from pathlib import Path

from filters.errors import UserError
from filters.quality import blocklist, language, perplexity, references
from filters.quality.c4 import read_bad_words
from manifests.files import sha256_file
from manifests.recipe import Recipe
from manifests.source import PATHS, Source
from pipeline import folder
from pipeline.sources import inputs as inputs_module
from pipeline.sources.base import check_readable
from pipeline.sources.inputs import Input
from pipeline.stages.filter import given_cuts, given_language_models, language_path
from pipeline.stages.neardup import Split, earlier_splits
from pipeline.stages.perplexity import lmplz
from pipeline.stages.tokenizer import check as check_tokenizer


@dataclass(frozen=True)
class RunInputs:
    """The inputs of a run.

    Attributes:
        dumps: of all sources.
        models: hashes of the models and lists that the recipe gives by path, by source and use.
        texts: files to train language models on, by `SOURCE/LANGUAGE`.
        wiki: dumps whose references are the classifier's positives, by source.
        positives: archives of cited pages, which are positives as well, by source.
        earlier: the splits of earlier corpora to compare with.
        unreadable: inputs that could not be opened and were skipped, as `SOURCE/NAME`.
    """

    dumps: list[Input]
    models: dict[str, str]
    texts: dict[str, list[Input]]
    wiki: dict[str, list[Input]]
    positives: dict[str, list[Input]]
    earlier: list[Split]
    unreadable: list[str]


def preflight(recipe: Recipe, corpus: Path, skip_unreadable: bool = False) -> RunInputs:
    """Check readers, models, the output folder and the inputs.

    Args:
        recipe: with absolute paths.
        corpus: the output folder.
        skip_unreadable: skip inputs that cannot be opened, instead of refusing them.

    Raises:
        UserError: something is wrong, in one sentence.
    """
    used = {name: source for name, source in recipe.sources.items() if source.inputs}
    for name, source in used.items():
        check_readable(name, source)
    if not used:
        names = " or ".join(f"--input {name}=GLOB" for name in recipe.sources)
        raise UserError(f"the recipe has no inputs: give them under sources, or as {names}")
    hashes = hash_models(recipe)
    check_tokenizer(recipe)
    folder.prepare(corpus)
    unreadable: list[str] = []

    def resolve(name: str, patterns: list[str]) -> list[Input]:
        found = inputs_module.resolve(name, patterns, corpus)
        broken = [item for item in found if item.problem]
        if broken and not skip_unreadable:
            others = f", nor can {len(broken) - 1} others" if len(broken) > 1 else ""
            raise UserError(
                f"source {name}: {broken[0].path} cannot be read ({broken[0].problem}){others}: check the disk, mount "
                "or permissions and run again, or give --skip-unreadable to go without"
            )
        unreadable.extend(f"{item.source}/{item.name}" for item in broken)
        return [item for item in found if not item.problem]

    dumps = [item for name, source in used.items() for item in resolve(name, source.inputs)]
    texts, wiki, positives = {}, {}, {}
    for name, source in used.items():
        for code, rules in source.perplexity.train.items() if source.perplexity else ():
            texts[f"{name}/{code}"] = resolve(f"{name}.perplexity.{code}", rules.text)
        if source.references is not None and source.references.wiki:
            wiki[name] = resolve(f"{name}.references", source.references.wiki)
        if source.references is not None and source.references.positives:
            positives[name] = resolve(f"{name}.references.positives", source.references.positives)
    return RunInputs(dumps, hashes, texts, wiki, positives, earlier_splits(recipe), unreadable)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with all paths absolute, so that workers may run in any folder."""
    sources = {}
    for name, source in recipe.sources.items():
        changed = {key: [_absolute(path) for path in getattr(source, key)] for key in ("inputs", "blocklists")}
        for part, keys in PATHS.items():
            rules = getattr(source, part)
            if rules is not None:
                paths = {key: getattr(rules, key) for key in keys}
                found = {
                    key: [_absolute(path) for path in value] if isinstance(value, list) else _absolute(value)
                    for key, value in paths.items()
                    if value
                }
                changed[part] = rules.model_copy(update=found)
        if source.perplexity is not None:
            trained = {
                code: rules.model_copy(update={"text": [_absolute(path) for path in rules.text]})
                for code, rules in source.perplexity.train.items()
            }
            changed["perplexity"] = changed["perplexity"].model_copy(update={"train": trained})  # type: ignore[attr-defined]
        sources[name] = source.model_copy(update=changed)
    against = [_absolute(path) for path in recipe.deduplication.against]
    path = recipe.tokenizer.path
    return recipe.model_copy(
        update={
            "sources": sources,
            "deduplication": recipe.deduplication.model_copy(update={"against": against}),
            "tokenizer": recipe.tokenizer.model_copy(update={"path": _absolute(path) if path else None}),
        }
    )


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).expanduser().absolute())


def hash_models(recipe: Recipe) -> dict[str, str]:
    """Return the SHA-256 of every model and list that the recipe gives by path, by source and use.

    Each is loaded, so that a run ends before it begins.

    Raises:
        UserError: one of them cannot be read.
    """
    found: dict[str, str] = {}
    for name, source in recipe.sources.items():
        if source.language is not None:
            language.load(language_path(source))
        if source.c4 is not None:
            read_bad_words(source.c4.bad_words)
        if source.blocklists:
            blocklist.load(tuple(source.blocklists))
        if source.perplexity is not None:
            for pieces, ngrams in given_language_models(name, source).values():
                perplexity.load_scorer(pieces, ngrams, source.perplexity.unit)
            if source.perplexity.cutoffs is not None:
                given_cuts(source.perplexity)
            if any(text.estimator == "lmplz" for text in source.perplexity.train.values()):
                lmplz()
        if source.references is not None and source.references.model is not None:
            references.load(source.references.model)
        for use, path in _model_paths(name, source).items():
            try:
                found[f"{name}.{use}"] = sha256_file(Path(path))
            except OSError as error:
                raise UserError(f"{use}: {path} cannot be read ({error.strerror}): check the path") from error
    return found


def _model_paths(name: str, source: Source) -> dict[str, str]:
    """Return every file that a source gives by path, by use."""
    found: dict[str, str | None] = {f"blocklists.{number}": path for number, path in enumerate(source.blocklists)}
    if source.language is not None:
        found["language"] = language_path(source)
    if source.c4 is not None:
        found["c4.bad_words"] = source.c4.bad_words
    for code, (pieces, ngrams) in given_language_models(name, source).items():
        found |= {f"perplexity.{code}.pieces": pieces, f"perplexity.{code}.ngrams": ngrams}
    if source.perplexity is not None:
        found["perplexity.cutoffs"] = source.perplexity.cutoffs
    if source.references is not None:
        found["references"] = source.references.model
    return {use: path for use, path in found.items() if path is not None}


def count_blocklists(recipe: Recipe) -> dict[str, dict[str, int]]:
    """Return the sizes of the sources' blocklists, for the manifest: patterns, and malformed lines."""
    listed = {name: source.blocklists for name, source in recipe.sources.items() if source.blocklists}
    loaded = {name: blocklist.load(tuple(paths)) for name, paths in listed.items()}
    return {name: {"patterns": len(held), "malformed": held.malformed} for name, held in loaded.items()}
