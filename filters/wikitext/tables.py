"""Render tables of wikitext as lines: a row is a line, and a cell of prose is a line of its own.

Rows without a word are left out: figures alone are no text.
"""

import re

from filters.wikitext.gaps import is_hollow

BAR = "\x05"  # represents a bar of the text
PROSE_CHARACTERS = 120  # a cell from this length on is a paragraph, not an entry of a row

_HTML_ROW = re.compile(r"</?tr(?![\w-])[^<>]*+>", re.IGNORECASE)
_HTML_CELL = re.compile(r"<(?:t[dh]|caption)(?![\w-])[^<>]*+>", re.IGNORECASE)
_HTML_END = re.compile(r"</?(?:t[dh]|caption|tbody|thead|tfoot|colgroup|col)(?![\w-])[^<>]*+>", re.IGNORECASE)
_BLOCK = re.compile(r"</?(?:br|p|div|center|ul|ol|li)(?![\w-])[^<>]*+>", re.IGNORECASE)
_CELL = re.compile(r"\|\|")
_HEADER_CELL = re.compile(r"\|\||!!")
_WORD = re.compile(r"[^\W\d_]{3}|[^\W\d_\x00-\x7f]{2}")


def render_table(content: str) -> str:
    """Return the lines of a table in wikitext's own markup, without its braces, as items of a list.

    The templates, links and tables in it are rendered already.
    """
    rows: list[list[str]] = [[]]
    lines = iter(content.split("\n"))
    next(lines)  # the attributes of the table
    for line in lines:
        bare = line.lstrip(" \t:")
        if bare.startswith("|-"):
            rows.append([])
        elif bare.startswith("|+"):
            rows[-1:] = [rows[-1], [_without_attributes(bare[2:])], []]
        elif bare[:1] in ("|", "!") and bare:
            separator = _HEADER_CELL if bare[0] == "!" else _CELL
            rows[-1].extend(map(_without_attributes, separator.split(bare[1:])))
        elif rows[-1]:
            rows[-1][-1] += "\n" + line
    return _join_rows(rows)


def render_html_table(content: str) -> str:
    """Return the lines of a table in HTML, without its own tags, as items of a list."""
    rows = [_HTML_CELL.split(row)[1:] for row in _HTML_ROW.split(content)]
    return _join_rows([[_HTML_END.sub("", cell) for cell in row] for row in rows])


def _without_attributes(cell: str) -> str:
    attributes, bar, text = cell.partition("|")
    return text if bar else attributes


def _join_rows(rows: list[list[str]]) -> str:
    lines = []
    for row in rows:
        entries: list[str] = []
        for cell in map(_join_lines, row):
            if len(cell) >= PROSE_CHARACTERS:
                lines.extend([entries, [cell]])
                entries = []
            elif cell:
                entries.append(cell)
        lines.append(entries)
    texts = [f" {BAR} ".join(entries).replace("|", BAR) for entries in lines]
    return "\n\n" + "".join(f"* {text}\n" for text in texts if _WORD.search(text)) + "\n"


def _join_lines(cell: str) -> str:
    """Return a cell as one line, the items of a list in it separated by commas."""
    text = ""
    for line in _BLOCK.sub("\n", cell).split("\n"):
        bare = line.strip(" \t\r\x04")
        item = bare.lstrip("*#:; ")
        if item and not is_hollow(item):
            text += (", " if text and item != bare else " ") + item
    return text.strip()
