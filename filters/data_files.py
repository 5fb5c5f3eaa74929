"""Read the tab-separated tables that are stored beside the code as package data.

A module that reads such files lists them in a constant `DATA_FILES`, as paths relative to the module. The code version
of a step (`pipeline.beam.fingerprint`) hashes these files too, so that an edit of a table redoes what depends on it.
"""

from collections.abc import Mapping
from importlib import resources


def read_rows(package: str, name: str) -> list[list[str]]:
    r"""Return the rows of a table without its header line, with `\_` replaced by a blank, which editors may strip.

    Raises:
        ValueError: A row has another number of fields than the header.
    """
    return parse_rows(resources.files(package).joinpath(name).read_text(encoding="utf-8"), name)


def parse_rows(table: str, name: str = "table") -> list[list[str]]:
    """Return the rows of the text of a table, as `read_rows` does."""
    header, *lines = table.rstrip("\n").split("\n")
    rows = [line.replace(r"\_", " ").split("\t") for line in lines]
    for number, row in enumerate(rows, 2):
        if len(row) != header.count("\t") + 1:
            raise ValueError(f"{name}, line {number}: expected {header.count(chr(9)) + 1} fields separated by tabs")
    return rows


def read_lists(package: str, name: str) -> dict[str, dict[str, list[str]]]:
    """Return the items of a table with the columns (list, key, items separated by ", "), by list and key.

    Rows with the same list and key continue one another. A key `*` stands for all keys, such as languages.
    """
    lists: dict[str, dict[str, list[str]]] = {}
    for of_list, key, items in read_rows(package, name):
        lists.setdefault(of_list, {}).setdefault(key, []).extend(items.split(", "))
    return lists


def merge_items(items: Mapping[str, list[str]]) -> frozenset[str]:
    """Return the items of all keys of a list that `read_lists` read."""
    return frozenset(item for of_key in items.values() for item in of_key)
