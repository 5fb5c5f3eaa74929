"""Render the HTML of Stack Exchange posts as text, and join a question with its answers.

The HTML is produced from Markdown. It has a few dozen tags and no scripts, so it is read in one pass without building a
tree. This takes linear time on any input, unlike the tree builders of HTML parsers. Code keeps all blanks and line
ends.
"""

import re
from collections.abc import Sequence
from typing import Literal

from filters.formats.characters import normalise_text
from filters.formats.charset import unescape

QUOTE_DEPTH = 8  # levels of quotations that are marked; deeper quotations have as many marks
LIST_DEPTH = 8  # levels of lists that are indented

# A quotation mark is matched alone only if no second one follows before "<". Thus each text has only one match, which
# avoids backtracking.
_TAG = re.compile(
    r"<(?:!--|(/?)([a-zA-Z][a-zA-Z0-9]*+)"
    r"((?:[^<>\"']++|\"[^\"<]*+\"|'[^'<]*+'|\"(?![^\"<]*+\")|'(?![^'<]*+'))*)>)"
)
_BLANKS = re.compile(r"[ \t\n\r\f\xa0\u202f]+")
_FEW_BLANKS = re.compile(r"[\t\n\r\f\xa0\u202f]|  ")  # tests if `_BLANKS` would change a text, in a quarter of its time
_START = re.compile(r"\bstart\s*=\s*[\"']?([0-9]{1,9})")
_BLOCKS = frozenset(  # elements that begin and end a block of text
    "p h1 h2 h3 h4 h5 h6 div hr table thead tbody tfoot tr caption dl dt dd section article details summary".split()
)
_CLOSE = frozenset("dt dd thead tbody tfoot tr caption summary".split())  # no empty line between these blocks
_SILENT = frozenset(  # elements whose content is not text; not expected, because the sites remove them
    "script style template noscript iframe object svg math head title".split()
)
_STRUCK = ("del", "s", "strike")  # text that is deleted or no longer true (WHATWG HTML 4.5.5, 4.7.2)
# Superscripts and subscripts that need no brackets.
_SIMPLE = re.compile(r"[-−–+]?[\w.,&#;]+|[-−–+*†]|\([^()]*\)|\[[^\[\]]*\]|\$[^$]*\$")
_ORDINALS = frozenset(["st", "nd", "rd", "th"])
_BREAK = "\0"  # represents a line break while blanks are collapsed; NUL is not a character of XML or HTML


class _TextBuilder:
    """A builder that receives text and tags in order, and produces the lines of the rendered text.

    Attributes:
        lines: The lines of the closed blocks.
        parts: The pieces of text in the open block.
        raised: The index in `parts` of the mark of the open superscript or subscript; 0 if there is none.
        lists: For each open list, the number of the next item, or 0 for a bullet.
        mark: The bullet or number before the next block of a list item.
        gap: True if an empty line precedes the next block.
        quotes: The depth of quotations.
        quoted: The depth of quotations at the last block.
        cells: The number of cells so far in the current table row.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.parts: list[str] = []
        self.raised = 0
        self.lists: list[int] = []
        self.mark = ""
        self.gap = False
        self.quotes = 0
        self.quoted = 0
        self.cells = 0

    def flush(self) -> None:
        """Close the open block."""
        text = "".join(self.parts)
        self.parts.clear()
        self.raised = 0
        if not text or text.isspace():
            return
        text = unescape(text)
        if _FEW_BLANKS.search(text):
            text = _BLANKS.sub(" ", text)
        text = "\n".join(line.strip(" ") for line in text.split(_BREAK)).strip("\n")
        if text:
            self.put(text.split("\n"))

    def put(self, lines: list[str], code: bool = False) -> None:
        """Add a block with the quotation marks, list mark and indentation of its position."""
        quote = "> " * min(self.quotes, QUOTE_DEPTH)
        if self.gap and self.lines:
            self.lines.append(("> " * min(self.quotes, self.quoted, QUOTE_DEPTH)).rstrip())
        if code:
            if self.mark:
                self.lines.append(f"{quote}{self.mark}".rstrip())
            self.lines += [f"{quote}{line}" if line else quote.rstrip() for line in lines]
        else:
            self.lines.append(f"{quote}{self.mark or self._indent()}{lines[0]}")
            self.lines += [f"{quote}{self._indent()}{line}".rstrip() for line in lines[1:]]
        self.mark, self.gap, self.quoted = "", False, self.quotes

    def put_code(self, verbatim: list[str]) -> None:
        """Add a block of code, without line ends at its start and end."""
        text = unescape("".join(verbatim)).replace("\r\n", "\n").replace("\r", "\n").strip("\n")
        if text and not text.isspace():
            self.put(text.split("\n"), code=True)
        self.gap = True

    def _indent(self) -> str:
        return "  " * min(max(len(self.lists) - 1, 0), LIST_DEPTH)

    def close_raised(self) -> None:
        """Close a superscript or subscript: add brackets if needed (2^(n+1)), or unmark an ordinal (5th)."""
        if 0 < self.raised < len(self.parts):
            content, before = "".join(self.parts[self.raised + 1 :]), self.parts[self.raised - 1]
            if content.lower() in _ORDINALS and before[-1:].isdigit():
                self.parts[self.raised] = ""
            elif content and not _SIMPLE.fullmatch(content):
                self.parts[self.raised] += "("
                self.parts.append(")")
        self.raised = 0

    def add_tag(self, name: str, closing: bool, attributes: str) -> None:
        """Process a tag outside code."""
        if name == "br":
            self.parts.append(_BREAK)
        elif name in ("sup", "sub"):
            if closing:
                self.close_raised()
            elif self.parts and not self.parts[-1][-1:].isspace():
                self.raised = len(self.parts)
                self.parts.append("^" if name == "sup" else "_")
        elif name in ("td", "th"):
            if not closing:
                if self.cells:
                    self.parts.append(" | ")
                self.cells += 1
        elif name == "li":
            self.flush()
            if closing:
                self.mark, self.gap = "", False
            else:
                self.mark = self._next_mark()
        elif name in ("ul", "ol"):
            self.flush()
            self.gap = self.gap or (len(self.lists) < 2 and (not self.lists or closing))
            if not closing:
                number = _START.search(attributes) if name == "ol" else None
                self.lists.append(0 if name == "ul" else int(number[1]) if number else 1)
            elif self.lists:
                self.lists.pop()
        elif name == "blockquote":
            self.flush()
            self.gap = True
            self.quotes = max(self.quotes + (-1 if closing else 1), 0)
        elif name in _BLOCKS:
            self.flush()
            self.cells = 0
            self.gap = self.gap or (name not in _CLOSE and not self.mark)

    def _next_mark(self) -> str:
        number = self.lists[-1] if self.lists else 0
        if number:
            self.lists[-1] += 1
        return f"{self._indent()}{number}. " if number else f"{self._indent()}- "


def render_post(body: str) -> str:
    """Return a post's body as text. Never raises; takes linear time.

    - An empty line separates paragraphs, code and lists.
    - List items begin with "- " or their number, and quoted lines with "> ". Table cells are separated by " | ".
    - Links are replaced by their text. Images and struck text are left out.
    - Superscripts and subscripts directly behind a word are marked by "^" and "_", as in 10^6 and 2^(n+1).
    - Code blocks keep all blanks.
    """
    out = _TextBuilder()
    end = 0  # end of the processed text
    comments = True  # False after a comment without an end, so that no other end is searched
    code = silent = ""  # name of the open element whose content is verbatim, or is left out
    verbatim: list[str] = []
    struck_until = {name: body.rfind(f"</{name}>") for name in _STRUCK}  # elements without an end tag strike no text
    for tag in _TAG.finditer(body):
        start, stop = tag.span()
        if start < end:
            continue  # inside a comment
        closing, name, attributes = tag.groups()
        name = (name or "").lower()
        if not name:
            close = body.find("-->", stop) if comments else -1
            comments = close >= 0
            if not comments:
                continue
            stop = close + 3
        text, end = body[end:start], stop
        if silent:
            silent = "" if closing and name == silent else silent
        elif code:
            verbatim.append(text)
            if closing and name == "pre":
                out.put_code(verbatim)
                verbatim, code = [], ""
            elif name == "br":
                verbatim.append("\n")
        else:
            if text:
                out.parts.append(text)
            if name == "pre" and not closing:
                out.flush()
                out.gap = True
                code = name
            elif not closing and (name in _SILENT or start < struck_until.get(name, -1)):
                silent = name
            elif name:
                out.add_tag(name, bool(closing), attributes)
    if code:
        out.put_code([*verbatim, body[end:]])
    elif not silent:
        out.parts.append(body[end:])
        out.flush()
    return normalise_text("\n".join(out.lines))


def join_thread(title: str, question: str, answers: Sequence[str], layout: Literal["qa", "plain"]) -> str:
    """Join a question (title and body as text) and its answers into one document, with empty lines between them.

    The layout "qa" puts "Q: " before the title and "A: " before each answer. The layout "plain" adds nothing.
    """
    asked, answered = ("Q: ", "A: ") if layout == "qa" else ("", "")
    head = "\n\n".join(part for part in (title, question) if part)
    return "\n\n".join([asked + head, *(answered + answer for answer in answers)])
