"""Tables beside the code: how they are read, and that packages and code versions include them."""

import ast
import tomllib
from pathlib import Path

import pytest

from filters import data_files
from filters.data_files import read_lists, read_rows

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT / "filters").rglob("*.tsv"))
SIZES = {  # items by list
    ("code", "languages"): {
        "language": 103,
        "whitelist": 66,
        "further": 6,
        "vendored folder": 28,
        "own or vendored file": 14,
        "generated folder": 17,
        "generated ending": 22,
        "generated name": 10,
        "vendored library": 40,
    },
    ("code", "licences"): {"known": 29, "other": 72, "harmless": 10, "choice": 68, "reference": 5},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(data_files.resources, "files", lambda package: tmp_path)
    return tmp_path


def test_rows_and_lists_of_a_table(folder: Path) -> None:
    (folder / "a.tsv").write_text("list\tkey\titems\nx\t*\ta, b\\_\nx\tde\tc\nx\t*\td\ny\t*\te\n", encoding="utf-8")
    assert read_rows("p", "a.tsv")[0] == ["x", "*", "a, b "]
    assert read_lists("p", "a.tsv") == {"x": {"*": ["a", "b ", "d"], "de": ["c"]}, "y": {"*": ["e"]}}


def test_a_row_that_lost_its_tabs_is_refused(folder: Path) -> None:
    (folder / "a.tsv").write_text("list\tkey\titems\nx\t*\ta\nx  *  b\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3: expected 3 fields separated by tabs"):
        read_rows("p", "a.tsv")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_is_data_of_its_package_and_of_the_code_version(table: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "*.tsv" in project["tool"]["setuptools"]["package-data"]["*"]
    listed = [
        name
        for module in table.parent.glob("*.py")
        for node in ast.parse(module.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DATA_FILES"
        for name in ast.literal_eval(node.value)
    ]
    assert listed.count(table.name) == 1


@pytest.mark.parametrize(("folder_name", "table"), SIZES)
def test_the_lists_are_whole(folder_name: str, table: str) -> None:
    lists = read_lists(f"filters.{folder_name}", f"{table}.tsv")
    items = {name: [item for of_key in keys.values() for item in of_key] for name, keys in lists.items()}
    assert {name: len(found) for name, found in items.items()} == SIZES[folder_name, table]
    assert all(len(set(found)) == len(found) and all(map(str.strip, found)) for found in items.values())
