"""Wikitext to plain text, good enough to train a language model of n-grams on.

Templates are not expanded: all but a few vanish, as do tables, files, categories, footnotes and formulas. Brackets are
matched by a stack of limited depth, each construct's text is joined once a level, so the time is linear.
"""

import html
import re

from filters.wiki_names import ASIDE, CATEGORIES, CODE, FILES, LINES, LITERAL, SHOWN, SYMBOLS

MAX_DEPTH = 64
"""constructs within one another; MediaWiki's own limit for templates is 100 ($wgMaxTemplateDepth). Deeper marks are
passed over."""

_OPENING = re.compile(
    rf"<!--|<({'|'.join(sorted(LITERAL | CODE | ASIDE))})(?![\w-])([^<>]*+)>", re.IGNORECASE | re.ASCII
)
_CLOSING = {tag: re.compile(rf"</{tag}\s{{0,16}}>", re.IGNORECASE) for tag in LITERAL | CODE | ASIDE}
_MARK = re.compile(
    r"\{\{|\}\}|\[\[|\]\]?|\[(?=(?:https?:|ftp:)?//|mailto:)|^[ :]*+\{\||^[ \t]*+\|\}", re.MULTILINE | re.IGNORECASE
)
_TEMPLATE, _LINK, _EXTERNAL, _TABLE = "{{", "[[", "[", "{|"
_INTERLANGUAGE = re.compile(r"(?:[a-z]{2,3}|simple|be-x-old|zh-[a-z-]{3,12}):\S")
_CONVERTED = re.compile(r"-\{(?:[^{}|:]{0,40}\|)?([^{}|;:]*+)\}-")
_TAG = re.compile(r"</?([a-zA-Z][a-zA-Z0-9]*+)[^<>]*+>")
_QUOTES = re.compile(r"''++")
_LETTER = re.compile(r"(?<!\w)\w$|^\w$")
_SWITCH = re.compile(r"__[^\W\d_]{3,30}__")
_HOLLOW = re.compile(r" ?[(（][ ,;:/–-]*+[)）]")
_LEFT_OVER = re.compile(r"\{\{|\}\}|\[\[|\]\]")
_ENDLESS_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{9,}+;?")
"""a reference to no character; html.unescape raises at one of more than 4,300 digits"""
_INNER_MARKUP = str.maketrans({"[": "(", "]": ")", "{": "(", "}": ")", "|": " ", "<": " ", ">": " ", "'": "’"})


def plain_text(wikitext: str) -> str:
    """The running text: one line a paragraph, heading or list item, without empty lines, markup or surrounding space.
    Never raises; takes linear time; holds none of "{{", "}}", "[[", "]]"."""
    text = without(wikitext, CODE | ASIDE)
    text = _TAG.sub(_break, _brackets(_CONVERTED.sub(r"\1", text)))
    lines = (_line(line) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def without(wikitext: str, tags: frozenset[str]) -> str:
    """Wikitext without comments and without these elements, whose content is not parsed: it ends at the first end tag.
    What `nowiki` protects stays, with marks that mean nothing, unless it is among the tags."""
    kept: list[str] = []
    endless: set[str] = set()
    position = 0
    while opening := _OPENING.search(wikitext, position):
        kept.append(wikitext[position : opening.start()])
        position = opening.end()
        tag = (opening.group(1) or "").lower()
        if not tag:
            stop = wikitext.find("-->", position)
            position = len(wikitext) if stop < 0 else stop + 3
        elif opening.group(2).endswith("/") or tag in endless:
            continue
        elif tag not in tags and tag not in LITERAL:
            kept.append(opening.group())
        elif closing := _CLOSING[tag].search(wikitext, position):
            if tag not in tags:
                kept.append(wikitext[position : closing.start()].translate(_INNER_MARKUP))
            position = closing.end()
        else:
            endless.add(tag)
    kept.append(wikitext[position:])
    return "".join(kept)


def _brackets(text: str) -> str:
    """Text with every template, table and link replaced by what it shows. A mark without its partner vanishes."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    position = 0
    while mark := _MARK.search(text, position):
        stack[-1][1].append(text[position : mark.start()])
        found, position = mark.group().strip(" \t:"), mark.end()
        if found in (_TEMPLATE, _LINK, _EXTERNAL, _TABLE):
            if len(stack) <= MAX_DEPTH:
                stack.append((found, []))
        elif found == "}}":
            _close(stack, _TEMPLATE)
        elif found == "|}":
            if stack[-1][0] == _TEMPLATE:
                stack[-1][1].append("|")
                position -= 1
            else:
                _close(stack, _TABLE)
        elif stack[-1][0] == _EXTERNAL:
            _close(stack, _EXTERNAL)
            position = mark.start() + 1
        elif found == "]]":
            _close(stack, _LINK)
        else:
            stack[-1][1].append(found)
    stack[-1][1].append(text[position:])
    while len(stack) > 1:
        _dissolve(stack)
    return "".join(stack[0][1])


def _close(stack: list[tuple[str, list[str]]], kind: str) -> None:
    """End the innermost construct of that kind, if there is one; those begun within it that did not end dissolve."""
    if all(open_kind != kind for open_kind, _ in stack):
        return
    while stack[-1][0] != kind:
        _dissolve(stack)
    content = "".join(stack.pop()[1])
    if kind == _TEMPLATE:
        shown = _template(content)
    elif kind == _LINK:
        shown = _link(content)
    elif kind == _EXTERNAL:
        shown = "".join(content.split(None, 1)[1:])
    else:
        shown = ""
    stack[-1][1].append(shown)


def _dissolve(stack: list[tuple[str, list[str]]]) -> None:
    _, parts = stack.pop()
    stack[-1][1].extend(parts)


def _template(content: str) -> str:
    name, *arguments = content.split("|", 3)
    name = name.strip().lower()
    place = SHOWN.get(name, 0)
    return arguments[place - 1] if 0 < place <= len(arguments) else SYMBOLS.get(name, "")


def _link(content: str) -> str:
    target, _, label = content.partition("|")
    target = target.strip()
    prefix = target.partition(":")[0].strip().lower() if ":" in target else ""
    if prefix in FILES or prefix in CATEGORIES or _INTERLANGUAGE.match(target):
        return ""
    return label or target.removeprefix(":")


def _break(tag: re.Match[str]) -> str:
    return "\n" if tag.group(1).lower() in LINES else ""


def _line(line: str) -> str:
    line = line.strip()
    if line.startswith(("|", "{|")):  # what is left of a table that does not end
        return ""
    if line.startswith("=") and line.endswith("="):
        line = line.strip("=")
    line = _SWITCH.sub("", _unquoted(line.lstrip("*#:; ")))
    line = html.unescape(_ENDLESS_NUMBER.sub("\ufffd", line))
    line = _HOLLOW.sub("", " ".join(_LEFT_OVER.sub(" ", line).split()))
    return "" if not line.strip("-") else line.strip()


def _unquoted(line: str) -> str:
    """A line without the apostrophes that mean bold and italics, but with those among them that are apostrophes: one of
    four; those beyond five; and one of three behind a single letter, as in l'''Italia'', if both are left open
    otherwise (MediaWiki, Parser::doQuotes)."""
    runs = [len(run) for run in _QUOTES.findall(line)]
    open_both = sum(run != 2 for run in runs) % 2 and sum(run in (2, 5) or run > 5 for run in runs) % 2

    def kept(run: re.Match[str]) -> str:
        size = len(run.group())
        if size == 3:
            return "'" if open_both and _LETTER.search(line, max(0, run.start() - 2), run.start()) else ""
        return "'" if size == 4 else "'" * (size - 5)

    return _QUOTES.sub(kept, line)
