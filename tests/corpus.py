"""Build small corpora from the bundled sample, for tests of complete runs."""

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
    """Write the small bundled sample to a folder and return the folder."""
    sys.path.insert(0, str(ROOT / "samples"))
    try:
        from make import make
    finally:
        sys.path.pop(0)
    make(out, small=True)
    return out


def make_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Make a folder unless another process of the test run has made it. Return it when it is complete."""
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
    """Return the modification time of each file of a folder, in nanoseconds."""
    return {name: (folder / name).stat().st_mtime_ns for name in relative_files(folder)}


def demo_recipe(sample: Path, reverse: bool = False) -> Recipe:
    """Return the demo's recipe with a sample as input, and with settings that suit a small sample.

    Args:
        sample: The folder of the sample.
        reverse: True lists the web files in reverse order.
    """
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
    """Return the recipe with a low limit of macro expansion, so that the sample's macro bomb reaches it quickly."""
    arxiv = recipe.sources["arxiv"]
    arxiv = arxiv.model_copy(update={"arxiv": arxiv.arxiv.model_copy(update={"macro_characters": 100_000})})
    return recipe.model_copy(update={"sources": {**recipe.sources, "arxiv": arxiv}})


def under(folder: Path, inputs: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the input patterns of each source with a folder prepended."""
    return {name: [str(folder / pattern) for pattern in patterns] for name, patterns in inputs.items()}


def keep_sources(recipe: Recipe, inputs: dict[str, list[str]]) -> Recipe:
    """Return the recipe with the given inputs and without all other sources."""
    return recipe.with_sources(only=list(inputs)).with_inputs(inputs)


def first_recipe(sample: Path) -> Recipe:
    """Return the demo's recipe for two sources and some of their files, for tests that need many runs."""
    return keep_sources(demo_recipe(sample), under(sample, FIRST))


def ccnet_recipe(sample: Path, inputs: str = "wet/**") -> Recipe:
    """Return recipes/ccnet.yaml with a small sample as input, and with models that can be trained on so little text."""
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
    """Return the first rule of a source that has the given name."""
    return next(rule for rule in recipe.sources[source].filters if name_of(rule) == name)


def with_rule(recipe: Recipe, source: str, name: str, **settings: Any) -> Recipe:
    """Return the recipe with changed settings of the rules of a source that have the given name."""
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
    """Build a corpus with two worker processes for each job of more than 20,000 bytes."""
    with unittest.mock.patch("pipeline.beam.engines.SMALL_JOB_BYTES", 20_000):
        return build(recipe, corpus, workers=2, keep_dropped=keep_dropped)


def digests(corpus: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a corpus except files that contain times or machine names."""
    places = ("runs/", "recipe.yaml", "report.html")
    names = [name for name in relative_files(corpus) if not name.startswith(places)]
    return {name: hashlib.sha256((corpus / name).read_bytes()).hexdigest() for name in names}
