"""Test recipes: invalid recipes are rejected, and the messages say what to do."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from filters.errors import UserError
from filters.rule import Page, Record
from filters.rule_list import first_reason, first_record_reason, name_of
from manifests.recipe import load_recipe, parse_recipe
from manifests.sizes import PRESETS
from manifests.source import Source

ROOT = Path(__file__).parents[2]
GOOD: dict[str, Any] = {"name": "x", "seed": 1, "goal_tokens": 10, "sources": {"books": {"weight": 1.0}}}

MISTAKES = {
    "unknown key": (("sede",), 1, ["sede", "did you mean 'seed'", "goal_tokens"]),
    "unknown nested key": (
        ("sources", "books", "weigth"),
        1.0,
        ["sources.books.weigth", "1.0", "did you mean 'weight'"],
    ),
    "key of another level": (("deduplication", "minhash", "bandz"), 3, ["deduplication.minhash.bandz", "bands"]),
    "wrong type": (("sources", "books", "weight"), "much", ["sources.books.weight", "'much'"]),
    "number as text": (("seed",), "1", ["seed", "'1'", "should be a whole number: write 1"]),
    "number that YAML reads as text": (("goal_tokens",), "1e6", ["key goal_tokens = '1e6': ", "write 1_000_000"]),
    "number that YAML reads as a fraction": (("goal_tokens",), 1e6, ["write 1_000_000"]),
    "fraction": (("seed",), 0.5, ["seed = 0.5: should be a whole number"]),
    "infinite seed": (("seed",), float("inf"), ["seed = inf: should be a whole number"]),
    "no value": (("name",), None, ["key name = None: should be a text"]),
    "text for a block": (("shards",), "tokens", ["key shards = 'tokens': should be a block of keys"]),
    "list for a block": (("sources",), [], ["key sources = []: should be a block of keys"]),
    "out of range": (("sources", "books", "weight"), -1.0, ["sources.books.weight", "-1.0"]),
    "an infinite weight": (("sources", "books", "weight"), float("inf"), ["sources.books.weight", "finite number"]),
    "no number": (("sources", "books", "max_epochs"), float("nan"), ["sources.books.max_epochs", "nan"]),
    "no list": (("sources", "books", "inputs"), "a.txt", ["sources.books.inputs", "such as ['a.txt']"]),
    "share over one": (("shards", "validation"), 1.5, ["shards.validation", "1.5"]),
    "not a preset": (("trainer", "model"), "8b", ["trainer.model", "'8b'", "7b, 13b"]),
    "not a survivor rule": (("deduplication", "survivor"), ["longst"], ["deduplication.survivor.0", "'longest'"]),
    "source without a kind": (("sources", "mine"), {"weight": 1.0}, ["'mine'", "needs a kind", "common_crawl"]),
    "kind that is not known": (("sources", "mine"), {"weight": 1.0, "kind": "book"}, ["'mine'", "not known, 'book'"]),
    "source with an odd name": (("sources", "My Books"), {"weight": 1.0}, ["sources.My Books", "lower-case letters"]),
    "rule with settings that exclude each other": (
        ("sources", "books", "filters"),
        ["perplexity"],
        ["entry 1, perplexity: give either models"],
    ),
    "missing weight": (("sources", "arxiv"), {}, ["sources.arxiv.weight is missing: give a number"]),
    "unknown source in priority": (
        ("deduplication", "source_priority"),
        ["zz"],
        ["r.yaml: deduplication.source_priority names 'zz'"],
    ),
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


@pytest.mark.parametrize(
    "text", ["a: [", "[" * 3000, 'a: !!int ""', "a: !!timestamp x", "\x00", "{a: 1, a: 2}", "a: 2024-13-45"]
)
def test_what_is_not_yaml_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.yaml").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"^recipe \S+r\.yaml is not YAML, .+: correct it there$"):
        load_recipe(tmp_path / "r.yaml")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(UserError, match="key seed is missing"):
        parse_recipe({key: value for key, value in GOOD.items() if key != "seed"}, "r.yaml")
    with pytest.raises(UserError, match="keys seed, goal_tokens, sources are missing"):
        parse_recipe({"name": "x"}, "r.yaml")


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_is_meant_for_any_size_that_a_plan_knows(name: str) -> None:
    assert parse_recipe({**GOOD, "trainer": {"model": name}}, "r").trainer.model == name


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2\n", "a: [1", "- 1\n", "", "\x00"])
def test_what_is_no_recipe_is_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_mistake_of_yaml_is_named_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    for text, place in {
        "name: x\nname: y\n": "line 1, column 1 (key 'name' is given twice)",
        "name: x\n\tseed: 1\n": "line 2, column 1 (found character '\\t' that cannot start any token)",
        "name: x\nseed:1\ngoal_tokens: 1\n": "line 3, column 1 (could not find expected ':')",
    }.items():
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            load_recipe(path)
        assert str(caught.value) == f"recipe {path} is not YAML, {place}: correct it there"


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
    books = plain["sources"]["books"]
    books |= {"inputs": ["/dumps/a/*.txt"], "filters": [{"language": {"model": "/models/lid.bin"}}]}
    there = parse_recipe(plain, "r")
    books |= {"inputs": ["/elsewhere/*.txt"], "filters": [{"language": {"model": "/other/lid.bin"}}]}
    here = parse_recipe(plain, "r")
    assert there.canonical({"books": ["b.txt", "a.txt"]}) == here.canonical({"books": ["a.txt", "b.txt"]})
    assert there.sha({"books": ["a.txt"]}) == here.sha({"books": ["a.txt"]}) != here.sha({"books": ["c.txt"]})
    assert "/" not in str(here.canonical({"books": ["a.txt"]})["sources"]["books"])


def test_inputs_on_the_command_line_replace_those_of_the_recipe() -> None:
    recipe = parse_recipe(GOOD, "r").with_inputs({"books": ["a", "b"]})
    assert recipe.sources["books"].inputs == ["a", "b"]
    with pytest.raises(UserError, match="no source 'bokks', only books"):
        recipe.with_inputs({"bokks": ["a"]})


def test_the_order_of_filters_counts_in_the_hash() -> None:
    def sha(*filters: object) -> str:
        plain = copy.deepcopy(GOOD)
        plain["sources"]["books"]["filters"] = list(filters)
        return parse_recipe(plain, "r").sha({})

    assert sha("c4", "language") != sha("language", "c4")
    assert sha("c4", "language") == sha({"c4": {}}, {"language": {"keep": ["en"]}})
    assert sha({"min_characters": 9}) == sha({"min_characters": {"least": 9}}) != sha({"min_characters": 8})


def parse_source(**source: Any) -> Source:
    """Return the source of a recipe with the given settings."""
    plain = {"name": "x", "seed": 1, "goal_tokens": 10, "sources": {"web": {"weight": 1.0, **source}}}
    return parse_recipe(plain, "r.yaml").sources["web"]


@pytest.mark.parametrize(
    ("kind", "filters", "expected"),
    [
        ("common_crawl", [], ["http_status"]),
        ("common_crawl", ["c4"], ["http_status", "c4"]),
        ("common_crawl", [{"min_characters": 9}, {"http_status": [200, 203]}], ["min_characters", "http_status"]),
        ("github", [{"min_characters": 9}], ["code", "min_characters"]),
        ("github", [{"code": {"longest_line": 9}}], ["code"]),
        ("books", [], []),
    ],
)
def test_a_kind_implies_a_rule_that_its_list_does_not_name(kind: str, filters: list[Any], expected: list[str]) -> None:
    assert [name_of(rule) for rule in parse_source(kind=kind, filters=filters).filters] == expected


@pytest.mark.parametrize(("kind", "name"), [("common_crawl", "http_status"), ("github", "code")])
def test_an_implied_rule_can_be_switched_off_for_good(kind: str, name: str) -> None:
    """The rule must also be off in the recipe that a run writes and later commands read."""
    source = parse_source(kind=kind, filters=[{name: False}])
    again = parse_source(**source.model_dump(exclude={"weight"}))
    for one in (source, again):
        found = [*map(name_of, one.rules_at("extract"))]
        assert first_record_reason(one.filters, Record("http://a.example/", 404)) is None, found
        assert first_reason(one.filters, Page("x" * 9_999)) is None, found


@pytest.mark.parametrize(
    "keys",
    [
        {"min_characters": 300},
        {"language": {"keep": ["de"]}},
        {"references": {"model": "m"}, "c4": {"min_sentences": 2}, "http_status": [200]},
    ],
)
def test_rules_given_as_keys_are_refused_with_the_list_to_write(keys: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        parse_source(kind="common_crawl", **keys)
    said = str(caught.value)
    assert "\n" not in said and said.startswith("recipe r.yaml: ") and "rules are a list: write " in said
    (told,) = json.loads("{" + said.partition("write ")[2] + "}").values()
    assert told == [{name: value} for name, value in keys.items()]
    with pytest.raises(UserError, match="rules are a list"):
        parse_source(kind="common_crawl", language=None)


def test_mistakes_in_a_list_name_recipe_source_and_entry() -> None:
    with pytest.raises(UserError, match=r"recipe r.yaml: key sources.web.filters .*: entry 1, c4: .*'min_sentences'"):
        parse_source(kind="c4", filters=[{"c4": {"min_sentence": 3}}])
    with pytest.raises(UserError, match=r"recipe r.yaml: .*http_status acts at extract, before c4"):
        parse_source(kind="c4", filters=["c4", "http_status"])
    with pytest.raises(UserError, match=r"recipe r.yaml: .*c4 has settings by_language before the language is known"):
        parse_source(kind="c4", filters=[{"c4": {"by_language": {"de": {"min_sentences": 1}}}}])
    parse_source(kind="wikipedia", filters=[{"c4": {"by_language": {"de": {"min_sentences": 1}}}}])
