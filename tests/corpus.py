"""Small corpora built from the bundled sample, for tests of whole runs."""

import fcntl
import hashlib
import shutil
import sys
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filters.quality.perplexity import Perplexity
from filters.rule import Rule
from filters.rule_list import name_of
from manifests.files import relative_files
from manifests.manifest import Manifest
from manifests.recipe import Recipe, load_recipe
from pipeline.beam.engines import Engine
from pipeline.run import run

ROOT = Path(__file__).parents[1]
SHARED = ROOT / "../shared/data"
FIRST = {"common_crawl": ["web/pages.warc.gz", "web/broken.warc.gz"], "books": ["books/*[tr].txt"]}


def make_sample(out: Path) -> Path:
    """Write the small form of the bundled sample."""
    sys.path.insert(0, str(ROOT / "samples"))
    try:
        from make import make
    finally:
        sys.path.pop(0)
    make(out, small=True)
    return out


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Make a folder unless another process of the test run has made it; return it when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder.with_name(f"{folder.name}.done")
    with folder.with_name(f"{folder.name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def file_times(folder: Path) -> dict[str, int]:
    """Return the time at which each file of a folder was last written."""
    return {name: (folder / name).stat().st_mtime_ns for name in relative_files(folder)}


def demo_recipe(sample: Path, reverse: bool = False) -> Recipe:
    """Return the demo's recipe over a sample, with limits that suit a small sample."""
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
    return with_few_macros(recipe.model_copy(update=changed))


def with_few_macros(recipe: Recipe) -> Recipe:
    """Return the recipe with a limit that the sample's paper of exploding macros reaches soon."""
    arxiv = recipe.sources["arxiv"]
    arxiv = arxiv.model_copy(update={"arxiv": arxiv.arxiv.model_copy(update={"macro_characters": 100_000})})
    return recipe.model_copy(update={"sources": {**recipe.sources, "arxiv": arxiv}})


def under(folder: Path, inputs: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return patterns of inputs below a folder."""
    return {name: [str(folder / pattern) for pattern in patterns] for name, patterns in inputs.items()}


def of_sources(recipe: Recipe, inputs: dict[str, list[str]]) -> Recipe:
    """Return the recipe with these inputs and without its other sources."""
    return recipe.with_sources(only=list(inputs)).with_inputs(inputs)


def first_recipe(sample: Path) -> Recipe:
    """Return the demo's recipe over two sources and a part of their files, for runs of which a test needs many."""
    return of_sources(demo_recipe(sample), under(sample, FIRST))


def ccnet_recipe(sample: Path, inputs: str = "wet/**") -> Recipe:
    """Return recipes/ccnet.yaml over a small sample, with models that so little text can train."""
    recipe = load_recipe(ROOT / "recipes/ccnet.yaml").with_inputs({"common_crawl": [str(sample / inputs)]})
    rule = rule_named(recipe, "common_crawl", "perplexity")
    assert isinstance(rule, Perplexity)
    dumps = [str(sample / "wiki/*.bz2")]
    text = rule.train["en"].model_copy(update={"text": dumps, "vocabulary": 600, "order": 4})
    recipe = with_rule(recipe, "common_crawl", "perplexity", train={"en": text})
    recipe = with_rule(recipe, "common_crawl", "references", wiki=dumps, min_positives=20)
    recipe = with_rule(recipe, "common_crawl", "blocklist", paths=[str(sample / "blocklist.txt.gz")])
    tokenizer = recipe.tokenizer.model_copy(update={"vocabulary": 400})
    deduplication = recipe.deduplication.model_copy(update={"canaries": 20})
    return recipe.model_copy(update={"tokenizer": tokenizer, "deduplication": deduplication})


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
