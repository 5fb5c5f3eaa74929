"""Replace the templates, links and tables of wikitext by the text that they show.

Each row of a table becomes a line. A cell of prose (`PROSE_CHARACTERS`) becomes a separate line. Rows without a word
are left out, because figures alone are not text.
"""

import re

from filters.wikitext.gaps import GONE, is_hollow, mark_unknown
from filters.wikitext.names import CATEGORIES, FILES, LANGUAGES, OTHER_LANGUAGES
from filters.wikitext.templates import BAR, EQUALS, render_template

# Depth of nested constructs. MediaWiki allows 100 ($wgMaxTemplateDepth). Deeper brackets are ignored.
MAX_DEPTH = 64
# Opening braces in a row that are counted: enough for two parameters, or three templates, that begin at one position.
MAX_BRACES = 6
PROSE_CHARACTERS = 120  # a table cell of at least this length is a paragraph
MAX_INDENT = 40  # characters before a table on its line

# Most links and templates contain no others. The first two alternatives match such a link or template as a whole, in a
# third of the time that the stack takes.
_MARK = re.compile(
    r"\[\[([^][{}<]*+)\]\]|\{\{([^][{}<]*+)\}\}(?!\})|"
    r"\{\{+|\{\|(?!\})|\}\}+|\|\}|\[\[|\]\]?|\[(?=(?:https?:|ftp:)?//|mailto:)|<table(?![\w-])[^<>]*+>|</table\s{0,16}>",
    re.IGNORECASE,
)
_BRACES, _LINK, _EXTERNAL, _TABLE, _ELEMENT = "{{", "[[", "[", "{|", "<t"
_OPENERS = frozenset({_BRACES, _LINK, _EXTERNAL, _ELEMENT})
_CELLS = re.compile(r"^[ \t]*+[|!].*", re.MULTILINE)
_IN_BRACKETS = re.compile(r" ?\([^()]*\)\Z")
_HTML_ROW = re.compile(r"</?tr(?![\w-])[^<>]*+>", re.IGNORECASE)
_HTML_CELL = re.compile(r"<(?:t[dh]|caption)(?![\w-])[^<>]*+>", re.IGNORECASE)
_HTML_END = re.compile(r"</?(?:t[dh]|caption|tbody|thead|tfoot|colgroup|col)(?![\w-])[^<>]*+>", re.IGNORECASE)
_BLOCK = re.compile(r"</?(?:br|p|div|center|ul|ol|li)(?![\w-])[^<>]*+>", re.IGNORECASE)
_HEADER_CELL = re.compile(r"\|\||!!")
_WORD = re.compile(r"[^\W\d_]{3}|[^\W\d_\x00-\x7f]{2}")
_CODES = frozenset(LANGUAGES) | OTHER_LANGUAGES


class _Construct:
    """An open construct: its kind, the text read inside it, and the number of its opening braces."""

    __slots__ = ("braces", "kind", "parts")

    def __init__(self, kind: str, braces: int = 0) -> None:
        self.kind, self.braces = kind, braces
        self.parts: list[str] = []


def resolve_markup(text: str, language: str = "", title: str = "", tables: bool = False) -> str:
    """Return the text with every template, table and link replaced by the text that it shows.

    A bracket without a matching bracket is removed, and the text behind it is kept. Takes linear time.

    Args:
        text: Wikitext without elements whose content is not parsed, such as `<nowiki>`.
        language: The language code of the wiki, which selects the names of its templates.
        title: The page's title, for {{PAGENAME}}.
        tables: True renders the rows of tables; False removes tables.
    """
    stack = [_Construct("")]
    position = 0
    while mark := _MARK.search(text, position):
        parts = stack[-1].parts
        parts.append(text[position : mark.start()])
        brackets, position = mark.group(), mark.end()
        first = brackets[:2]
        if mark.lastindex and len(stack) <= MAX_DEPTH:
            parts.append(_render_link(mark[1]) if first == _LINK else render_template(mark[2], language, title))
        elif mark.lastindex:  # nested too deeply: its brackets are ignored
            position = mark.start() + 2
        elif first in _OPENERS:
            _open(stack, first, min(len(brackets), MAX_BRACES))
        elif first == "]]" and stack[-1].kind != _EXTERNAL:
            _close(stack, _LINK)
        elif first == "}}":
            _close_braces(stack, len(brackets), language, title)
        elif brackets[0] == "]" and stack[-1].kind == _EXTERNAL:
            _close(stack, _EXTERNAL)
            position = mark.start() + 1
        elif first == "</":
            _close(stack, _ELEMENT, tables)
        elif first == "|}" and text[position : position + 1] == "}" and any(item.kind == _BRACES for item in stack):
            parts.append("|")  # in {{a|b|}}, the bar begins an empty argument, and "|}" does not end a table
            position -= 1
        elif first in ("{|", "|}") and _begins_line(text, mark.start()):
            if first == "{|":
                _open(stack, _TABLE)
            else:
                _close(stack, _TABLE, tables)
        else:
            parts.append(brackets[0])
            position = mark.start() + 1
    stack[-1].parts.append(text[position:])
    while len(stack) > 1:
        _pop_unclosed(stack)
    return "".join(stack[0].parts).replace(BAR, "|").replace(EQUALS, "=")


def _begins_line(text: str, place: int) -> bool:
    """Return True if only blanks and indentation marks (colons) precede a position on its line."""
    before = text[max(place - MAX_INDENT, 0) : place].rpartition("\n")
    return not before[2].strip(" \t:") and (bool(before[1]) or place < MAX_INDENT)


def _open(stack: list[_Construct], kind: str, braces: int = 0) -> None:
    """Push a construct on the stack, or ignore it if the stack has reached `MAX_DEPTH`."""
    if len(stack) <= MAX_DEPTH:
        stack.append(_Construct(kind, braces))


def _pop_unclosed(stack: list[_Construct]) -> None:
    """Remove the innermost construct, which has no end, from the stack and keep its text.

    Lines that begin with a bar, which are table cells or template arguments, are not kept.
    """
    item = stack.pop()
    if item.kind != _TABLE:
        stack[-1].parts.append(GONE)
    if item.kind in (_BRACES, _TABLE):
        stack[-1].parts.append(_CELLS.sub(GONE, "".join(item.parts)))
    else:
        stack[-1].parts.extend(item.parts)


def _pop_unclosed_inside(stack: list[_Construct], kind: str) -> bool:
    """Remove all unclosed constructs inside the innermost construct of a kind. Return False if there is none."""
    if all(item.kind != kind for item in reversed(stack)):
        return False
    while stack[-1].kind != kind:
        _pop_unclosed(stack)
    return True


def _close(stack: list[_Construct], kind: str, tables: bool = False) -> None:
    """Close the innermost link or table of a kind, and append its text to the construct around it."""
    if not _pop_unclosed_inside(stack, kind):
        stack[-1].parts.append(GONE)
        return
    content = "".join(stack.pop().parts)
    if kind == _LINK:
        text = _render_link(content)
    elif kind == _EXTERNAL:
        text = "".join(content.split(None, 1)[1:]) or GONE
    elif tables and all(item.kind != _BRACES for item in stack):
        text = render_table(content) if kind == _TABLE else render_html_table(content)
    else:
        text = GONE
    stack[-1].parts.append(text)


def _close_braces(stack: list[_Construct], count: int, language: str, title: str) -> None:
    """Close templates (two braces) and parameters (three braces) for a run of `count` closing braces.

    See the class Preprocessor of MediaWiki.
    """
    while count > 1 and _pop_unclosed_inside(stack, _BRACES):
        item = stack[-1]
        used = 3 if min(item.braces, count) > 2 else 2
        content = "".join(item.parts)
        if used == 2:
            text = render_template(content, language, title)
        else:  # In a page, a parameter shows its default value, or its own name, which is not text.
            text = (content.partition("|")[2] or GONE) if "|" in content else mark_unknown()
        item.braces, count = item.braces - used, count - used
        if item.braces > 1:
            item.parts = [text]
        else:
            stack.pop()
            stack[-1].parts.append("{" * item.braces + text)
    if count:
        stack[-1].parts.append("}" if count == 1 else GONE)


def _render_link(content: str) -> str:
    """Return the text of a link. `content` is the text between its double brackets."""
    target, bar, label = content.partition("|")
    target = target.strip()
    if "\n" in target:
        return content  # not a link: a target is on one line
    if ":" in target:
        prefix = target.partition(":")[0].strip().lower()
        if prefix in FILES or prefix in CATEGORIES or prefix in _CODES:
            return GONE
        target = target.removeprefix(":")
    if not label.strip():
        label = _IN_BRACKETS.sub("", target) if bar else target
    return label.replace("|", BAR).replace("=", EQUALS)


# --- tables ---


def render_table(content: str) -> str:
    """Return the rows of a wikitext table as list items.

    Args:
        content: The table without its braces. Templates, links and tables inside it are already rendered.
    """
    rows: list[list[str]] = [[]]
    lines = iter(content.split("\n"))
    next(lines)  # skip the attributes of the table
    for line in lines:
        bare = line.lstrip(" \t:")
        if bare.startswith("|-"):
            rows.append([])
        elif bare.startswith("|+"):
            rows[-1:] = [rows[-1], [_strip_attributes(bare[2:])], []]
        elif bare.startswith(("|", "!")):
            cells = _HEADER_CELL.split(bare[1:]) if bare[0] == "!" else bare[1:].split("||")
            rows[-1].extend(map(_strip_attributes, cells))
        elif rows[-1]:
            rows[-1][-1] += "\n" + line
    return _join_rows(rows)


def render_html_table(content: str) -> str:
    """Return the rows of an HTML table as list items. `content` is the inner HTML of the table."""
    rows = [_HTML_CELL.split(row)[1:] for row in _HTML_ROW.split(content)]
    return _join_rows([[_HTML_END.sub("", cell) for cell in row] for row in rows])


def _strip_attributes(cell: str) -> str:
    return cell.split("|", 1)[-1]


def _join_rows(rows: list[list[str]]) -> str:
    """Return the rows of a table as list items. Cells are separated by bars; a cell of prose is a separate item."""
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
    """Return a cell as one line. The items of lists in it are separated by commas."""
    text = ""
    for line in _BLOCK.sub("\n", cell).split("\n"):
        bare = line.strip(" \t\r\x04")
        item = bare.lstrip("*#:; ")
        if item and not is_hollow(item):
            text += (", " if text and item != bare else " ") + item
    return text.strip()
