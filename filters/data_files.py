"""Read the tab-separated tables that are stored beside the code as package data.

A module that reads tables lists them in a constant `DATA_FILES`, as paths relative to the module. The code version of a
step (`pipeline.beam.fingerprint`) also hashes these files. So after an edit of a table, all tasks that depend on the
table run again.
"""

from collections.abc import Mapping
from importlib import resources


def read_rows(package: str, name: str) -> list[list[str]]:
    r"""Return the rows of a table without its header line.

    `\_` in a field is replaced by a space. The tables write spaces in this way because editors may strip real ones.

    Raises:
        ValueError: A row and the header have different numbers of fields.
    """
    return parse_rows(resources.files(package).joinpath(name).read_text(encoding="utf-8"), name)


def parse_rows(table: str, name: str = "table") -> list[list[str]]:
    """Return the rows of a table that is given as text. See `read_rows`."""
    header, *lines = table.rstrip("\n").split("\n")
    rows = [line.replace(r"\_", " ").split("\t") for line in lines]
    for number, row in enumerate(rows, 2):
        if len(row) != header.count("\t") + 1:
            raise ValueError(f"{name}, line {number}: expected {header.count(chr(9)) + 1} fields separated by tabs")
    return rows


def read_lists(package: str, name: str) -> dict[str, dict[str, list[str]]]:
    """Return the items of a table, as a dict from the name of a list to a dict from key to items.

    The table has the columns list, key and items. The items are separated by ", ". Items of rows with the same list and
    key are concatenated. A key (such as a language code) of `*` means that the items apply to all keys.
    """
    lists: dict[str, dict[str, list[str]]] = {}
    for of_list, key, items in read_rows(package, name):
        lists.setdefault(of_list, {}).setdefault(key, []).extend(items.split(", "))
    return lists


def merge_items(items: Mapping[str, list[str]]) -> frozenset[str]:
    """Return the items of all keys of one list. `items` is a value of the dict that `read_lists` returns."""
    return frozenset(item for of_key in items.values() for item in of_key)
