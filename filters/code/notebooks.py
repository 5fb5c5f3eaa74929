"""Render Jupyter notebooks (nbformat 3 and 4) as text: cells in order, code fenced as in Markdown.

Outputs and the data of pictures are left out.
"""

import json
import re
from typing import Any, NamedTuple

from filters.formats.stream import Damage
from filters.reasons import Reason

# A picture within Markdown. It is removed, because a line of thousands of characters would cause the notebook to be
# dropped.
_PICTURE = re.compile(r"(data:[\w.+/-]{1,60};base64,)[A-Za-z0-9+/=]{40,}")
LANGUAGE_CHARACTERS = 40  # the longest language name, which is written behind a code fence


class Notebook(NamedTuple):
    """The text of a notebook, and the language of its code by the name that the notebook states."""

    text: str
    language: str


def render_notebook(raw: str) -> Notebook | Damage:
    """Return the text of a notebook, or `Damage` if `raw` is not valid JSON or not a notebook.

    Invalid and empty cells are left out. Memory is proportional to the size of the parsed JSON.
    """
    try:
        plain = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return Damage(Reason.CORRUPT_RECORD, f"no JSON: {type(error).__name__}")
    cells = _find_cells(plain)
    if cells is None:
        return Damage(Reason.CORRUPT_RECORD, "JSON that is no notebook")
    language = _find_language(plain)
    parts = [_render_cell(cell, language) for cell in cells if isinstance(cell, dict)]
    return Notebook("\n\n".join(part for part in parts if part) + "\n", language)


def _get(value: Any, *keys: str) -> Any:
    """Return the value under a path of keys in nested dictionaries, or None if it does not exist."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _find_cells(plain: Any) -> list[Any] | None:
    cells, sheets = _get(plain, "cells"), _get(plain, "worksheets")  # nbformat 4, nbformat 3
    if isinstance(cells, list):
        return cells
    if not isinstance(sheets, list):
        return None
    return [cell for sheet in sheets if isinstance(_get(sheet, "cells"), list) for cell in sheet["cells"]]


def _find_language(plain: Any) -> str:
    for keys in (("language_info", "name"), ("kernelspec", "language")):
        name = _get(plain, "metadata", *keys)
        if isinstance(name, str) and name:
            return _repair("".join(name[:LANGUAGE_CHARACTERS].split()).lower())
    return "python"


def _render_cell(cell: dict[str, Any], language: str) -> str:
    kind = cell.get("cell_type")
    text = _join_source(cell.get("source", cell.get("input"))).strip("\n")
    if not text.strip() or kind not in ("code", "markdown", "heading"):
        return ""
    if kind == "code":
        fence = "```"
        while fence in text:
            fence += "`"
        return f"{fence}{language}\n{text}\n{fence}"
    text = _PICTURE.sub(r"\1", text)
    level = cell.get("level")
    return f"{'#' * level} {text}" if kind == "heading" and isinstance(level, int) and 1 <= level <= 6 else text


def _join_source(source: Any) -> str:
    """Return a cell's source, which is a string or a list of strings."""
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    if not isinstance(source, str):
        return ""
    return _repair(source).replace("\r\n", "\n").replace("\r", "\n")


def _repair(text: str) -> str:
    """Replace lone surrogates, which JSON permits, so that the text can be encoded in UTF-8."""
    return text.encode("utf-8", "replace").decode()
