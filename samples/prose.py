"""Plain text to clean HTML: separate prose from code, and put a page around them."""

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LIST_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,2}[.)])\s+")
SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+(?=[A-Z])")
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


@dataclass(frozen=True)
class Block:
    """One element of a page: `tag` is h2, p, li or pre; `text` is not yet escaped."""

    tag: str
    text: str


def blocks(text: str) -> Iterator[Block]:
    """Split a docstring, a comment or a reference text into re-flowed paragraphs, list items, headings and code."""
    for part in re.split(r"\n[ \t]*\n", ADDRESS.sub("an address", text.expandtabs())):
        lines = [line.rstrip() for line in part.strip("\n").split("\n")]
        if not any(lines):
            continue
        if len(lines) >= 2 and re.fullmatch(r"\s*([=*~^-])\1{2,}", lines[1]):
            yield Block("h2", strip_marks(lines[0]))
            lines = lines[2:]
        for tag, item in items(lines):
            yield from prose(tag, item) if is_prose(item) else [Block("pre", "\n".join(item))]


def items(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Split a paragraph's lines before each list item; yield ("p" or "li", lines)."""
    tag, item = "p", list[str]()
    for line in lines:
        mark = LIST_ITEM.match(line)
        if mark and item:
            yield tag, item
            item = []
        if mark:
            tag, line = "li", line[mark.end() :]
        item.append(line)
    if item:
        yield tag, item


def is_prose(lines: list[str]) -> bool:
    """Return True if the lines are sentences: enough words, mostly letters, no prompt, no column of code or table."""
    text = " ".join(" ".join(lines).split())
    if len(text.split()) < 5 or any(line.lstrip().startswith((">>>", "...", "|", "+-")) for line in lines):
        return False
    if any(re.search(r"\S {3,}\S", line) for line in lines) or (len(lines) > 1 and lines[0].endswith(":")):
        return False
    letters = sum(c.isalpha() or c == " " for c in text)
    return letters >= 0.84 * len(text) and text[:1].isalnum() | (text[:1] in "\"'`*(")


def prose(tag: str, lines: list[str]) -> Iterator[Block]:
    """Yield the blocks of a paragraph, each in one line.

    A last part without an end mark ("For example:") becomes a block of its own.
    """
    text = strip_marks(" ".join(" ".join(lines).split()))
    if text[-1] in '.!?"':
        yield Block(tag, text)
        return
    ends = list(SENTENCE_END.finditer(text))
    if ends:
        yield Block(tag, text[: ends[-1].end()].strip())
        text = text[ends[-1].end() :]
    complete = text[-1].isalnum() and len(text.split()) >= 6 and text[0].isupper()
    yield Block("p", text + "." if complete else text)


def strip_marks(text: str) -> str:
    """Return the text without reStructuredText's marks of emphasis and literals."""
    text = re.sub(r"``([^`]*)``|:[a-z:]+:`([^`]*)`|`([^`']*)['`]", lambda m: m[1] or m[2] or m[3] or "", text)
    return re.sub(r"(?<![\w*])\*{1,2}([\w.]+)\*{1,2}(?![\w*])", r"\1", text).strip()


def body(parts: Iterable[Block]) -> str:
    """Return the blocks as HTML, with neighbouring list items in one list."""
    out, in_list = list[str](), False
    for part in parts:
        if in_list != (part.tag == "li"):
            in_list = not in_list
            out.append("<ul>" if in_list else "</ul>")
        out.append(f"<{part.tag}>{html.escape(part.text, quote=False)}</{part.tag}>")
    return "\n".join([*out, "</ul>"] if in_list else out)


def page(title: str, content: str, *, language: str = "en", head: str = "", before: str = "", after: str = "") -> str:
    """Return a whole HTML page: `content` in an article between a site's `before` and `after`, `head` in its head."""
    name = html.escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n{head}<title>{name}</title>\n</head>\n<body>\n{before}'
        f"<main><article>\n<h1>{name}</h1>\n{content}\n</article></main>\n{after}</body>\n</html>\n"
    )
