"""Jupyter notebooks (nbformat 3 and 4) as text: cells in their order, code fenced as in Markdown, outputs left out."""

import json
from typing import Any, NamedTuple

from filters.formats.stream import Damage
from filters.reasons import Reason

LANGUAGE_CHARACTERS = 40
"""of a language's name, which becomes part of a fence"""


class Notebook(NamedTuple):
    """A notebook's text, and the language of its code as the notebook names it."""

    text: str
    language: str


def notebook(raw: str) -> Notebook | Damage:
    """The text of a notebook, or why it is none: broken JSON, or JSON that is no notebook. Cells that are no cells, and
    empty ones, are passed over. Memory is of the order of the JSON's own values."""
    try:
        plain = json.loads(raw)
    except (ValueError, RecursionError) as error:
        return Damage(Reason.CORRUPT_RECORD, f"no JSON: {type(error).__name__}")
    cells = _cells(plain)
    if cells is None:
        return Damage(Reason.CORRUPT_RECORD, "JSON that is no notebook")
    language = _language(plain)
    parts = [_part(cell, language) for cell in cells if isinstance(cell, dict)]
    return Notebook("\n\n".join(part for part in parts if part) + "\n", language)


def _cells(plain: Any) -> list[Any] | None:
    if not isinstance(plain, dict):
        return None
    if isinstance(plain.get("cells"), list):
        return list(plain["cells"])
    sheets = plain.get("worksheets")  # nbformat 3
    if not isinstance(sheets, list):
        return None
    found = list[Any]()
    for sheet in sheets:
        if isinstance(sheet, dict) and isinstance(sheet.get("cells"), list):
            found += sheet["cells"]
    return found


def _language(plain: dict[str, Any]) -> str:
    about = plain.get("metadata")
    about = about if isinstance(about, dict) else {}
    for part, key in (("language_info", "name"), ("kernelspec", "language")):
        named = about.get(part)
        name = named.get(key) if isinstance(named, dict) else None
        if isinstance(name, str) and name:
            return "".join(name[:LANGUAGE_CHARACTERS].split()).lower()
    return "python"


def _part(cell: dict[str, Any], language: str) -> str:
    """One cell's text; empty for what has none."""
    kind = cell.get("cell_type")
    text = _text(cell.get("source", cell.get("input"))).strip("\n")
    if not text.strip() or kind not in ("code", "markdown", "heading"):
        return ""
    if kind == "code":
        fence = "```"
        while fence in text:
            fence += "`"
        return f"{fence}{language}\n{text}\n{fence}"
    level = cell.get("level")
    return f"{'#' * level} {text}" if kind == "heading" and isinstance(level, int) and 1 <= level <= 6 else text


def _text(source: Any) -> str:
    """A cell's source: a string, or a list of them."""
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    if not isinstance(source, str):
        return ""
    return source.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
