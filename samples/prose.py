"""Convert plain text to clean HTML: separate prose from code, and make a page of them."""

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LIST_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,2}[.)])\s+")
SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+(?=[A-Z])")
ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


@dataclass(frozen=True)
class Block:
    """An element of a page.

    Attributes:
        tag: The HTML tag: h2, p, li or pre.
        text: The text, not yet escaped.
    """

    tag: str
    text: str


def blocks(text: str) -> Iterator[Block]:
    """Split a docstring, a comment or a reference text into paragraphs, list items, headings and code.

    Each paragraph and list item becomes one line.
    """
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
    """Split the lines of a paragraph before each list item. Yield (tag, lines); the tag is "p" or "li"."""
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
    """Return True if lines are sentences: at least 5 words, mostly letters, no prompt, no columns of code or tables."""
    text = " ".join(" ".join(lines).split())
    if len(text.split()) < 5 or any(line.lstrip().startswith((">>>", "...", "|", "+-")) for line in lines):
        return False
    if any(re.search(r"\S {3,}\S", line) for line in lines) or (len(lines) > 1 and lines[0].endswith(":")):
        return False
    letters = sum(c.isalpha() or c == " " for c in text)
    return letters >= 0.84 * len(text) and text[:1].isalnum() | (text[:1] in "\"'`*(")


def prose(tag: str, lines: list[str]) -> Iterator[Block]:
    """Yield the blocks of a paragraph, each as one line.

    If the last sentence does not end with a mark such as a full stop ("For example:"), it becomes a separate block.
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
    """Return the text without reStructuredText's markup of emphasis and literals."""
    text = re.sub(r"``([^`]*)``|:[a-z:]+:`([^`]*)`|`([^`']*)['`]", lambda m: m[1] or m[2] or m[3] or "", text)
    return re.sub(r"(?<![\w*])\*{1,2}([\w.]+)\*{1,2}(?![\w*])", r"\1", text).strip()


def body(parts: Iterable[Block]) -> str:
    """Return the blocks as HTML. Consecutive list items are put into one list."""
    out, in_list = list[str](), False
    for part in parts:
        if in_list != (part.tag == "li"):
            in_list = not in_list
            out.append("<ul>" if in_list else "</ul>")
        out.append(f"<{part.tag}>{html.escape(part.text, quote=False)}</{part.tag}>")
    return "\n".join([*out, "</ul>"] if in_list else out)


def page(title: str, content: str, *, language: str = "en", head: str = "", before: str = "", after: str = "") -> str:
    """Return an HTML page.

    Args:
        title: The title and heading.
        content: The HTML of the article.
        language: The value of the attribute `lang`.
        head: HTML for the element `head`, before the title.
        before: HTML before the element `main`, such as the site's menu.
        after: HTML after the element `main`, such as the site's footer.
    """
    name = html.escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n{head}<title>{name}</title>\n</head>\n<body>\n{before}'
        f"<main><article>\n<h1>{name}</h1>\n{content}\n</article></main>\n{after}</body>\n</html>\n"
    )
