"""What a run reads, and everything that can be wrong before it begins."""

from dataclasses import dataclass
from pathlib import Path

from filters.errors import UserError
from manifests.recipe import Recipe
from pipeline import folder
from pipeline.sources import check_readable
from pipeline.sources import inputs as inputs_module
from pipeline.sources.inputs import Input
from pipeline.stages import (
    corpora,
    models,
    tokenizer,
)
from pipeline.stages.corpora import Split


@dataclass(frozen=True)
class Given:
    """What a run reads: dumps, by name what the recipe's models and lists hash to, texts to train language models on
    by `SOURCE/LANGUAGE`, dumps whose references are the classifier's positives by source, and the splits of earlier
    corpora to compare with."""

    inputs: list[Input]
    models: dict[str, str]
    texts: dict[str, list[Input]]
    wiki: dict[str, list[Input]]
    earlier: list[Split]


def check(recipe: Recipe, corpus: Path) -> Given:
    """Everything that can be wrong before work starts: readers, models, the output folder, the inputs. Raises
    UserError."""
    used = {name: source for name, source in recipe.sources.items() if source.inputs}
    for name, source in used.items():
        check_readable(name, source)
    if not used:
        names = " or ".join(f"--input {name}=GLOB" for name in recipe.sources)
        raise UserError(f"the recipe has no inputs: give them under sources, or as {names}")
    hashes = models.given(recipe)
    tokenizer.check(recipe)
    folder.prepare(corpus)
    found = [item for name, source in used.items() for item in inputs_module.resolve(name, source.inputs, corpus)]
    texts, wiki = {}, {}
    for name, source in used.items():
        for code, rules in source.perplexity.train.items() if source.perplexity else ():
            texts[f"{name}/{code}"] = inputs_module.resolve(f"{name}.perplexity.{code}", rules.text, corpus)
        if source.references is not None and source.references.wiki:
            wiki[name] = inputs_module.resolve(f"{name}.references", source.references.wiki, corpus)
    return Given(found, hashes, texts, wiki, corpora.earlier_splits(recipe))
