"""What a generation takes over from its corpus: what was trained comes by path, and nothing is trained again."""

import json
from pathlib import Path

import pytest
from corpus import ROOT, ccnet_recipe, rule_named
from hypothesis import given
from hypothesis import strategies as st

from filters.errors import UserError
from filters.quality.perplexity import Perplexity, load_cutoffs
from filters.quality.references import References
from manifests.manifest import Generation, Manifest, ModelEntry, TokenizerEntry, generation_folder
from manifests.recipe import Recipe, load_recipe, load_run_recipe
from pipeline.stages.models import _write_cutoffs as write_cutoffs
from pipeline.stages.models import recipe_of_generation

CUTS = {"en": {"head": 310.5, "tail": 820.25}, "de": {"head": 1e-3, "tail": 7e20}}
TRAINED = [
    "models/perplexity/common_crawl/en.arpa",
    "models/references/common_crawl.bin",
    "models/cuts/common_crawl.json",
]


def manifest(models: list[str], generations: int = 0) -> Manifest:
    empty = {"recipe": {}, "recipe_sha": "", "findings": {}, "code": {}}
    return Manifest(
        seed=1,
        goal_tokens=1000,
        recipe={},
        recipe_sha="",
        tokenizer=TokenizerEntry(sha256="", vocabulary=64, bos=1, eos=2, dtype="uint16"),
        models={path: ModelEntry(sha256="", path=path) for path in models},
        signatures={},
        sources={},
        ledger={},
        code={},
        generations=[Generation(number=number + 1, parent="", **empty) for number in range(generations)],
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    cuts = tmp_path / "corpus" / TRAINED[2]
    cuts.parent.mkdir(parents=True)
    cuts.write_text(json.dumps(CUTS), "utf-8")
    return tmp_path / "corpus"


def test_all_that_was_trained_is_given_by_path(corpus: Path, tmp_path: Path) -> None:
    recipe, folder = ccnet_recipe(tmp_path), generation_folder(corpus, 1)
    made = recipe_of_generation(corpus, manifest(TRAINED), folder, recipe)
    scores = rule_named(made, "common_crawl", "perplexity")
    assert isinstance(scores, Perplexity) and scores.models == str(corpus / "models/perplexity/common_crawl")
    assert load_cutoffs(Path(str(scores.cutoffs)), scores.head, scores.tail) == {
        code: (cuts["head"], cuts["tail"]) for code, cuts in CUTS.items()
    }
    cited = rule_named(made, "common_crawl", "references")
    assert isinstance(cited, References) and cited.model == str(corpus / TRAINED[1]) and not cited.needs
    assert made.tokenizer.path == str(corpus / "models/tokenizer.model")


def test_what_was_not_trained_stays_as_the_recipe_has_it(corpus: Path, tmp_path: Path) -> None:
    recipe = ccnet_recipe(tmp_path)
    made = recipe_of_generation(corpus, manifest([]), generation_folder(corpus, 1), recipe)
    assert made.sources == recipe.sources and not (corpus / "generations").exists()


@pytest.mark.parametrize("generations", range(3))
def test_every_generation_is_an_earlier_corpus_once(corpus: Path, generations: int) -> None:
    recipe = load_recipe(ROOT / "recipes/demo.yaml")
    given = ["/elsewhere", str(corpus)]
    asked = recipe.deduplication.model_copy(update={"against": given, "canaries": 9})
    recipe = recipe.model_copy(update={"deduplication": asked})
    made = recipe_of_generation(corpus, manifest([], generations), generation_folder(corpus, generations + 1), recipe)
    folders = [str(generation_folder(corpus, number)) for number in range(generations + 1)]
    assert made.deduplication.against == ["/elsewhere", *folders] and made.deduplication.canaries == 0


@given(st.floats(1e-6, 1e30), st.floats(1e-6, 1e30))
def test_cut_offs_come_back_to_the_last_bit(tmp_path_factory: pytest.TempPathFactory, head: float, tail: float) -> None:
    folder = tmp_path_factory.getbasetemp() / "cuts"
    folder.mkdir(exist_ok=True)
    (folder / "cuts.json").write_text(json.dumps({"en": {"head": head, "tail": tail}}), "utf-8")
    table = folder / f"{head} {tail}.csv"  # a table is read once per process
    write_cutoffs(folder / "cuts.json", table, 30, 60)
    assert load_cutoffs(table) == {"en": (head, tail)}


def test_a_table_that_is_right_is_not_written_again(corpus: Path) -> None:
    table = corpus / "table.csv"
    write_cutoffs(corpus / TRAINED[2], table, 30, 60)
    before = table.stat()
    write_cutoffs(corpus / TRAINED[2], table, 30, 60)
    assert table.stat().st_ino == before.st_ino


@pytest.mark.parametrize("text", [None, "", "sources: [", "name: 3\n"])
def test_a_corpus_without_its_recipe_is_refused(corpus: Path, text: str | None) -> None:
    if text is not None:
        (corpus / "recipe.yaml").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"recipe\.yaml"):
        load_run_recipe(corpus)


def test_a_recipe_is_read_as_the_run_wrote_it(corpus: Path) -> None:
    recipe: Recipe = load_recipe(ROOT / "recipes/demo.yaml")
    (corpus / "recipe.yaml").write_bytes(recipe.as_yaml())
    assert load_run_recipe(corpus) == recipe
