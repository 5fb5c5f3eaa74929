"""The models and lists that a recipe names or has trained: where they lie, their hashes, whether they can be read."""

import shutil
from pathlib import Path
from typing import Any

from filters.errors import UserError
from filters.quality import blocklist, language, perplexity, references
from filters.quality.c4 import read_bad_words
from filters.quality.perplexity import Perplexity
from manifests.files import sha256_file
from manifests.recipe import Recipe
from manifests.source import PATHS, Source
from pipeline.stages.judge import Cuts, Models

LMPLZ = Path(__file__).parents[2] / "build/lmplz/bin/lmplz"
PIECES, NGRAMS = ("sp.model",), ("arpa.bin", "arpa")
"""endings of a language model's two files, as CCNet names them"""


def given(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of every model and list that the recipe gives by path, by source and use. Each is loaded, so that a run
    ends before it begins: raises UserError for one that cannot be read."""
    found: dict[str, str] = {}
    for name, source in recipe.sources.items():
        if source.language is not None:
            language.load(language_path(source))
        if source.c4 is not None:
            read_bad_words(source.c4.bad_words)
        if source.blocklists:
            blocklist.load(tuple(source.blocklists))
        if source.perplexity is not None:
            for pieces, ngrams in given_language_models(name, source, source.perplexity).values():
                perplexity.load_scorer(pieces, ngrams, source.perplexity.unit)
            if source.perplexity.cutoffs is not None:
                given_cuts(source.perplexity)
            if any(text.estimator == "lmplz" for text in source.perplexity.train.values()):
                lmplz()
        if source.references is not None and source.references.model is not None:
            references.load(source.references.model)
        found |= {f"{name}.{use}": _sha256(use, path) for use, path in _paths(name, source).items()}
    return found


def models_of(name: str, source: Source, corpus: Path, cuts: dict[str, Cuts] | None) -> Models:
    """Where the models of a source lie once they are there. `cuts`: of this crawl, where the recipe gives none."""
    if source.perplexity is None:
        trained: dict[str, tuple[str, str]] = {}
    elif source.perplexity.models is not None:
        trained = given_language_models(name, source, source.perplexity)
    else:
        trained = {code: trained_language_model(corpus, name, code) for code in sorted(source.perplexity.train)}
    if source.perplexity is not None and source.perplexity.cutoffs is not None:
        cuts = given_cuts(source.perplexity)
    classifier = ""
    if source.references is not None:
        classifier = source.references.model or str(corpus / trained_references(name))
    return Models(language_path(source) if source.language else "", trained, cuts, classifier)


def blocklists(recipe: Recipe) -> dict[str, Any]:
    """What the sources' blocklists hold, for the manifest: patterns, and lines that are none."""
    loaded = {
        name: blocklist.load(tuple(source.blocklists)) for name, source in recipe.sources.items() if source.blocklists
    }
    counts = {name: {"patterns": len(held), "malformed": held.malformed} for name, held in loaded.items()}
    return {"blocklists": counts} if counts else {}


def lmplz() -> Path:
    """kenlm's estimator: as `make lmplz` builds it, else from the PATH. Raises UserError where there is none."""
    found = LMPLZ if LMPLZ.is_file() else shutil.which("lmplz")
    if found is None:
        raise UserError("estimator: lmplz is not there: build it with `make lmplz`, or choose `estimator: own`")
    return Path(found)


def language_path(source: Source) -> str:
    """The path of the language identification model that a source names, or of the packaged one."""
    return (source.language and source.language.model) or str(language.bundled_model_path())


def trained_language_model(corpus: Path, source: str, code: str) -> tuple[str, str]:
    """Where the run puts the language model it trains: pieces and n-grams."""
    folder = corpus / "models/perplexity" / source
    return str(folder / f"{code}.sp.model"), str(folder / f"{code}.arpa")


def trained_references(source: str) -> str:
    """Where the run puts the reference classifier it trains, below the corpus."""
    return f"models/references/{source}.bin"


def given_language_models(name: str, source: Source, rules: Perplexity) -> dict[str, tuple[str, str]]:
    """By language, the two files of each model in the folder that the recipe names. Raises UserError where the folder
    has none for any language that the source keeps."""
    if rules.models is None:
        return {}
    folder = Path(rules.models)
    wanted = source.language.keep if source.language else []
    found = {}
    for code in wanted:
        pieces = [folder / f"{code}.{ending}" for ending in PIECES if (folder / f"{code}.{ending}").is_file()]
        ngrams = [folder / f"{code}.{ending}" for ending in NGRAMS if (folder / f"{code}.{ending}").is_file()]
        if pieces and ngrams:
            found[code] = (str(pieces[0]), str(ngrams[0]))
    if not found:
        raise UserError(
            f"source {name}: {folder} holds no language model for {' or '.join(wanted) or 'any kept language'}: "
            "it must hold LANGUAGE.sp.model and LANGUAGE.arpa.bin (or .arpa)"
        )
    return found


def given_cuts(rules: Perplexity) -> dict[str, Cuts]:
    """By language, the recipe's two percentiles in the file of cut-offs that it names."""
    assert rules.cutoffs is not None
    return perplexity.load_cutoffs(Path(rules.cutoffs), rules.head, rules.tail)


def _paths(name: str, source: Source) -> dict[str, str]:
    """Every file that a source gives by path, by use."""
    found: dict[str, str] = {}
    if source.language is not None:
        found["language"] = language_path(source)
    if source.c4 is not None and source.c4.bad_words is not None:
        found["c4.bad_words"] = source.c4.bad_words
    for number, path in enumerate(source.blocklists):
        found[f"blocklists.{number}"] = path
    if source.perplexity is not None:
        for code, (pieces, ngrams) in given_language_models(name, source, source.perplexity).items():
            found |= {f"perplexity.{code}.pieces": pieces, f"perplexity.{code}.ngrams": ngrams}
        if source.perplexity.cutoffs is not None:
            found["perplexity.cutoffs"] = source.perplexity.cutoffs
    if source.references is not None and source.references.model is not None:
        found["references"] = source.references.model
    return found


def _sha256(use: str, path: str) -> str:
    try:
        return sha256_file(Path(path))
    except OSError as error:
        raise UserError(f"{use}: {path} cannot be read ({error.strerror}): check the path") from error


def rules(source: Source) -> dict[str, Any]:
    """The part of a source's recipe that its verdicts depend on, without the paths: what lies there counts by hash."""
    plain = source.model_dump(include={"lines", "language", "c4", "perplexity", "references"})
    for part, keys in PATHS.items():
        for key in keys if plain[part] is not None else ():
            del plain[part][key]
    if plain["perplexity"] is not None:
        del plain["perplexity"]["train"]  # what was trained counts by its hash
    return plain
