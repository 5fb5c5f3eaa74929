"""Templates, links and tables of wikitext, replaced by what they show."""

import re

from filters.wikitext.names import CATEGORIES, FILES, LANGUAGES, OTHER_LANGUAGES
from filters.wikitext.templates import BAR, EQUALS, GONE, shown

MAX_DEPTH = 64
"""constructs within one another; MediaWiki's own limit for templates is 100 ($wgMaxTemplateDepth). Deeper marks are
passed over."""
MAX_BRACES = 6
"""of one run that open something: two parameters, or three templates, that begin at the same place"""
MAX_INDENT = 40
"""characters before a table on its line"""

_MARK = re.compile(
    r"\{\{+|\{\|(?!\})|\}\}+|\|\}|\[\[|\]\]?|\[(?=(?:https?:|ftp:)?//|mailto:)|<table(?![\w-])[^<>]*+>|</table\s{0,16}>",
    re.IGNORECASE,
)
_BRACES, _LINK, _EXTERNAL, _TABLE, _ELEMENT = "{{", "[[", "[", "{|", "<table"
_CELLS = re.compile(r"^[ \t]*+[|!].*", re.MULTILINE)
_IN_BRACKETS = re.compile(r" ?\([^()]*\)\Z")
_CODES = frozenset(LANGUAGES) | OTHER_LANGUAGES


class _Open:
    """A construct that has begun: what kind, what stands in it so far, and how many braces opened it."""

    __slots__ = ("braces", "kind", "parts")

    def __init__(self, kind: str, braces: int = 0) -> None:
        self.kind, self.braces = kind, braces
        self.parts: list[str] = []


def resolved(text: str, language: str = "", title: str = "") -> str:
    """Text with every template, table and link replaced by what it shows. A mark without its partner vanishes, and what
    stands behind it stays. Takes linear time."""
    stack = [_Open("")]
    position = 0
    while mark := _MARK.search(text, position):
        stack[-1].parts.append(text[position : mark.start()])
        found, position = mark.group(), mark.end()
        first = found[:2]
        if first == "[[":
            _open(stack, _LINK)
        elif first == "]]" and stack[-1].kind != _EXTERNAL:
            _close(stack, _LINK)
        elif first == "{{":
            _open(stack, _BRACES, min(len(found), MAX_BRACES))
        elif first == "}}":
            _close_braces(stack, len(found), language, title)
        elif found[0] == "]" and stack[-1].kind == _EXTERNAL:
            _close(stack, _EXTERNAL)
            position = mark.start() + 1
        elif first == "[":
            _open(stack, _EXTERNAL)
        elif first == "<t":
            _open(stack, _ELEMENT)
        elif first == "</":
            _close(stack, _ELEMENT)
        elif first == "|}" and text[position : position + 1] == "}" and any(item.kind == _BRACES for item in stack):
            stack[-1].parts.append("|")  # {{a|b|}}: an empty argument
            position -= 1
        elif first in ("{|", "|}") and _begins_line(text, mark.start()):
            if first == "{|":
                _open(stack, _TABLE)
            else:
                _close(stack, _TABLE)
        else:
            stack[-1].parts.append(found[0])
            position = mark.start() + 1
    stack[-1].parts.append(text[position:])
    while len(stack) > 1:
        _dissolve(stack)
    return "".join(stack[0].parts).replace(BAR, "|").replace(EQUALS, "=")


def _begins_line(text: str, place: int) -> bool:
    """Whether nothing but blanks and marks of indentation stand before a place on its line."""
    before = text[max(place - MAX_INDENT, 0) : place].rpartition("\n")
    return not before[2].strip(" \t:") and (bool(before[1]) or place < MAX_INDENT)


def _open(stack: list[_Open], kind: str, braces: int = 0) -> None:
    if len(stack) <= MAX_DEPTH:
        stack.append(_Open(kind, braces))


def _dissolve(stack: list[_Open]) -> None:
    """What began and did not end is text, but for rows of tables and arguments of templates on lines of their own."""
    item = stack.pop()
    if item.kind in (_BRACES, _TABLE):
        stack[-1].parts.append(_CELLS.sub(GONE, "".join(item.parts)))
    else:
        stack[-1].parts.extend(item.parts)


def _reach(stack: list[_Open], kind: str) -> bool:
    """Make the innermost construct of a kind the last, if there is one; those begun in it that did not end dissolve."""
    if stack[-1].kind == kind:
        return True
    if all(item.kind != kind for item in stack):
        return False
    while stack[-1].kind != kind:
        _dissolve(stack)
    return True


def _close(stack: list[_Open], kind: str) -> None:
    """End the innermost construct of that kind, if there is one."""
    if not _reach(stack, kind):
        return
    content = "".join(stack.pop().parts)
    if kind == _LINK:
        text = _link(content)
    elif kind == _EXTERNAL:
        text = "".join(content.split(None, 1)[1:]) or GONE
    else:
        text = GONE
    stack[-1].parts.append(text)


def _close_braces(stack: list[_Open], count: int, language: str, title: str) -> None:
    """End templates (two braces) and parameters (three) with `count` closing braces (MediaWiki, Preprocessor)."""
    while count > 1 and _reach(stack, _BRACES):
        item = stack[-1]
        used = 3 if min(item.braces, count) > 2 else 2
        content = "".join(item.parts)
        text = shown(content, language, title) if used == 2 else content.partition("|")[2]
        item.braces, count = item.braces - used, count - used
        if item.braces > 1:
            item.parts = [text]
        else:
            stack.pop()
            stack[-1].parts.append("{" * item.braces + text)
    if count == 1:
        stack[-1].parts.append("}")


def _link(content: str) -> str:
    target, bar, label = content.partition("|")
    target = target.strip()
    if "\n" in target:
        return content  # no link: its bracket did not end where it should
    if ":" in target:
        prefix = target.partition(":")[0].strip().lower()
        if prefix in FILES or prefix in CATEGORIES or prefix in _CODES:
            return GONE
        target = target.removeprefix(":")
    if not label.strip():
        label = _IN_BRACKETS.sub("", target) if bar else target
    return label.replace("|", BAR).replace("=", EQUALS) if "|" in label or "=" in label else label
