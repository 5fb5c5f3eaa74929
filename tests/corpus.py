"""A small corpus built from the bundled sample, for tests of whole runs."""

import hashlib
import sys
import unittest.mock
from pathlib import Path
from typing import Any

from filters.rule import Rule, name_of
from manifests.files import relative_files
from manifests.manifest import Manifest
from manifests.recipe import Recipe, load_recipe
from pipeline.beam.engines import Engine
from pipeline.run import run

ROOT = Path(__file__).parents[1]
SHARED = ROOT / "../shared/data"


def make_sample(out: Path) -> Path:
    """Write the small form of the bundled sample."""
    sys.path.insert(0, str(ROOT / "samples"))
    try:
        from make import make
    finally:
        sys.path.pop(0)
    make(out, small=True)
    return out


def demo_recipe(sample: Path, reverse: bool = False) -> Recipe:
    """Return the demo's recipe over a sample, with a vocabulary that a small sample can train."""
    recipe = load_recipe(ROOT / "recipes/demo.yaml")
    web = [str(path) for path in sorted((sample / "web").iterdir(), reverse=reverse)]
    inputs = {
        "common_crawl": web,
        "books": [str(sample / "books/**")],
        "c4": [str(sample / "c4/**")],
        "github": [str(sample / "github/**")],
        "stackexchange": [str(sample / "stackexchange/**")],
        "arxiv": [str(sample / "arxiv/**")],
        "wikipedia": [str(sample / "wikipedia/**")],
    }
    recipe = recipe.with_inputs(inputs)
    recipe = with_rule(recipe, "common_crawl", "bad_words", words=str(ROOT / "samples/bad-words.txt"))
    tokenizer = recipe.tokenizer.model_copy(update={"vocabulary": 512})
    shards = recipe.shards.model_copy(update={"tokens": 30_000})
    deduplication = recipe.deduplication.model_copy(update={"canaries": 20})
    changed = {"tokenizer": tokenizer, "shards": shards, "deduplication": deduplication}
    return recipe.model_copy(update=changed)


def rule_named(recipe: Recipe, source: str, name: str) -> Rule:
    """Return a source's first rule of this name."""
    return next(rule for rule in recipe.sources[source].filters if name_of(rule) == name)


def with_rule(recipe: Recipe, source: str, name: str, **settings: Any) -> Recipe:
    """Return the recipe with other settings of a source's rules of this name."""
    filters = [
        rule.model_copy(update=settings) if name_of(rule) == name else rule for rule in recipe.sources[source].filters
    ]
    changed = recipe.sources[source].model_copy(update={"filters": filters})
    return recipe.model_copy(update={"sources": {**recipe.sources, source: changed}})


def build(recipe: Recipe, corpus: Path, *arguments: str, workers: int = 1, keep_dropped: int = 0) -> Manifest:
    """Build a corpus and return its manifest."""
    done = run(recipe, corpus, Engine(workers, arguments, corpus / "runs", quiet=True), keep_dropped)
    assert done.manifest is not None
    return done.manifest


def build_in_two(recipe: Recipe, corpus: Path, keep_dropped: int = 0) -> Manifest:
    """Build a corpus with two worker processes for every job over more than a few kilobytes."""
    with unittest.mock.patch("pipeline.beam.engines.SMALL_JOB_BYTES", 20_000):
        return build(recipe, corpus, workers=2, keep_dropped=keep_dropped)


def digests(corpus: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a corpus except those that record times and machines."""
    places = ("runs/", "recipe.yaml", "report.html")
    names = [name for name in relative_files(corpus) if not name.startswith(places)]
    return {name: hashlib.sha256((corpus / name).read_bytes()).hexdigest() for name in names}
