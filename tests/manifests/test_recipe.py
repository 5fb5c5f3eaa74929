"""Recipes: what is refused, and that the refusal says what to do."""

import copy
from pathlib import Path

import pytest

from filters.errors import UserError
from manifests.recipe import load_recipe, parse_recipe

ROOT = Path(__file__).parents[2]
GOOD = {"name": "x", "seed": 1, "goal_tokens": 10, "sources": {"books": {"weight": 1.0}}}

MISTAKES = {
    "unknown key": (("sede",), 1, ["sede", "did you mean 'seed'", "goal_tokens"]),
    "unknown nested key": (
        ("sources", "books", "weigth"),
        1.0,
        ["sources.books.weigth", "1.0", "did you mean 'weight'"],
    ),
    "key of another level": (("deduplication", "minhash", "bandz"), 3, ["deduplication.minhash.bandz", "bands"]),
    "wrong type": (("sources", "books", "weight"), "much", ["sources.books.weight", "'much'"]),
    "number as text": (("seed",), "1", ["seed", "'1'"]),
    "out of range": (("sources", "books", "weight"), -1.0, ["sources.books.weight", "-1.0"]),
    "share over one": (("shards", "validation"), 1.5, ["shards.validation", "1.5"]),
    "not a preset": (("trainer", "model"), "8b", ["trainer.model", "'8b'", "'7b', '13b'"]),
    "not a survivor rule": (("deduplication", "survivor"), ["longst"], ["deduplication.survivor.0", "'longest'"]),
    "source without a kind": (("sources", "mine"), {"weight": 1.0}, ["'mine'", "needs a kind", "common_crawl"]),
    "source with an odd name": (("sources", "My Books"), {"weight": 1.0}, ["sources", "My Books"]),
    "missing weight": (("sources", "arxiv"), {}, ["sources.arxiv.weight", "missing"]),
    "unknown source in priority": (("deduplication", "source_priority"), ["zz"], ["source_priority", "'zz'"]),
    "unknown key of a source's deduplication": (
        ("sources", "github"),
        {"weight": 1.0, "deduplication": {"minhash": {"band": 20}}},
        ["key sources.github.deduplication.minhash.band ", "did you mean 'bands'"],
    ),
    "a key of the recipe's deduplication alone": (
        ("sources", "github"),
        {"weight": 1.0, "deduplication": {"survivor": ["longest"]}},
        ["sources.github.deduplication.survivor", "allowed here: exact, minhash, scope"],
    ),
    "minhash that is neither on nor off": (
        ("deduplication", "minhash"),
        True,
        ["key deduplication.minhash = True: give settings such as {threshold: 0.8}, or off"],
    ),
    "deduplication that is neither on nor off": (
        ("sources", "books", "deduplication"),
        "no",
        ["key sources.books.deduplication = 'no': give settings such as {minhash: off}, or off"],
    ),
    "unknown scope": (("sources", "books", "deduplication"), {"scope": "dumps"}, ["'dump', 'source' or 'all'"]),
    "no sources": (("sources",), {}, ["key sources", "{}"]),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_named_with_its_key_value_and_what_is_allowed(mistake: str) -> None:
    path, value, expected = MISTAKES[mistake]
    plain = copy.deepcopy(GOOD)
    place = plain
    for part in path[:-1]:
        place = place.setdefault(part, {})
    place[path[-1]] = value
    with pytest.raises(UserError) as caught:
        parse_recipe(plain, "r.yaml")
    message = str(caught.value)
    assert "\n" not in message and message.startswith("recipe r.yaml: ")
    for words in expected:
        assert words in message


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UserError, match="key seed is missing"):
        parse_recipe({key: value for key, value in GOOD.items() if key != "seed"}, "r.yaml")


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2\n", "a: [1", "- 1\n", "", "\x00"])
def test_what_is_no_recipe_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml cannot be read"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.name)
def test_every_recipe_of_the_project_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert sum(source.weight for source in recipe.sources.values()) == pytest.approx(1.0)


def test_llama_is_table_1_of_the_paper() -> None:
    recipe = load_recipe(ROOT / "recipes/llama.yaml")
    weights = {name: source.weight for name, source in recipe.sources.items()}
    assert weights == {
        "common_crawl": 0.67,
        "c4": 0.15,
        "github": 0.045,
        "wikipedia": 0.045,
        "books": 0.045,
        "arxiv": 0.025,
        "stackexchange": 0.02,
    }
    assert recipe.goal_tokens == 1_400_000_000_000


def test_the_canonical_recipe_knows_names_and_no_paths() -> None:
    plain = copy.deepcopy(GOOD)
    plain["sources"]["books"] |= {"inputs": ["/dumps/a/*.txt"], "language": {"model": "/models/lid.bin"}}
    there = parse_recipe(plain, "r")
    plain["sources"]["books"] |= {"inputs": ["/elsewhere/*.txt"], "language": {"model": "/other/lid.bin"}}
    here = parse_recipe(plain, "r")
    assert there.canonical({"books": ["b.txt", "a.txt"]}) == here.canonical({"books": ["a.txt", "b.txt"]})
    assert there.sha({"books": ["a.txt"]}) == here.sha({"books": ["a.txt"]}) != here.sha({"books": ["c.txt"]})
    assert "/" not in str(here.canonical({"books": ["a.txt"]})["sources"]["books"]["inputs"])


def test_inputs_on_the_command_line_replace_those_of_the_recipe() -> None:
    recipe = parse_recipe(GOOD, "r").with_inputs({"books": ["a", "b"]})
    assert recipe.sources["books"].inputs == ["a", "b"]
    with pytest.raises(UserError, match="no source 'bokks', only books"):
        recipe.with_inputs({"bokks": ["a"]})
