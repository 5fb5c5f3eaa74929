"""docs/llama.md is right: keys of llama.yaml and constants have the stated values, and modules and tests exist."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from filters.rule_list import name_of
from manifests.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"`([^`]+)`")
TEST = re.compile(r"(test_\w+\.py)(?:::(test_\w+))?")
KEY = re.compile(r"(\w+(?:\.\w+)*)(?:: (.+))?")


class Row(NamedTuple):
    """A row of a table: a statement of the paper, its implementation, and its test or difference."""

    statement: str
    here: str
    proof: str


def read_rows() -> list[Row]:
    """Return the rows of all tables of docs/llama.md."""
    lines = (ROOT / "docs/llama.md").read_text("utf-8").split("\n")
    tables = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return [Row(*cells) for cells in tables if cells[0] != "statement"]


ROWS = read_rows()
every_row = pytest.mark.parametrize("row", ROWS, ids=[row.statement[:40] for row in ROWS])


def settings_of_llama() -> dict[str, Any]:
    """Return the recipe as plain values with defaults. Each list of filters becomes a dict by name of the rule."""
    recipe = load_recipe(ROOT / "recipes/llama.yaml")
    plain = recipe.filled_in()
    for name, source in recipe.sources.items():
        plain["sources"][name]["filters"] = {name_of(rule): rule.model_dump() for rule in source.filters}
    return plain


def find(path: str) -> Any:
    """Return the value of a key of the recipe, or of a dotted name in a module.

    Raises:
        KeyError, AttributeError, ImportError: If there is no such key or name.
    """
    parts = path.split(".")
    try:
        found: Any = settings_of_llama()
        for part in parts:
            found = found[part]
    except (KeyError, TypeError):
        found = importlib.import_module(".".join(parts[:2]))
        for part in parts[2:]:
            found = found[part] if isinstance(found, dict) else getattr(found, part)
    return list(found) if isinstance(found, tuple) else found


@every_row
def test_what_a_row_names_is_there_with_its_value(row: Row) -> None:
    named = [code for code in CODE.findall(row.here) if not code.startswith("--")]
    for code in named:
        if "/" in code.split(":")[0]:
            assert (ROOT / code).is_file(), code
        elif key := KEY.fullmatch(code):
            value = find(key[1])
            assert key[2] is None or value == yaml.safe_load(key[2]), code
    assert named or "`--" in row.here or row.proof.startswith("Differs: "), "a row names a key, a module or an option"


@every_row
def test_a_row_has_a_test_that_exists_or_says_what_differs(row: Row) -> None:
    tests = [match for code in CODE.findall(row.proof) for match in [TEST.fullmatch(code)] if match]
    assert tests or row.proof.startswith("Differs: ")
    for match in tests:
        (path,) = (ROOT / "tests").rglob(match[1])
        names = {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}
        assert match[2] is None or match[2] in names, match[0]


def test_every_rule_of_llama_is_in_a_table() -> None:
    said = " ".join(row.here for row in ROWS)
    for name, source in settings_of_llama()["sources"].items():
        assert f"sources.{name}." in said
        for rule in {*source["filters"]} - {"http_status"}:  # implied: WET files contain only pages
            assert f"sources.{name}.filters.{rule}." in said


def test_every_source_and_rule_of_the_recipe_is_explained() -> None:
    lines = (ROOT / "recipes/llama.yaml").read_text("utf-8").split("\n")
    for number, line in enumerate(lines):
        if re.match(r"  \w+:|      - \w+", line):
            assert "#" in line or lines[number - 1].strip().startswith("#"), line
