"""The HTML of Stack Exchange's posts as text, and a question with its answers as one.

Bodies are what the sites' Markdown makes: a few dozen tags, without scripts. They are read in one pass over their tags,
which takes linear time on anything (the tree builders of HTML parsers do not). Code keeps every blank and line end.
"""

import html
import re
from collections.abc import Sequence
from typing import Literal

QUOTE_DEPTH = 8
"""quotations within quotations that are marked; deeper ones look like this one"""
LIST_DEPTH = 8
"""lists within lists that are set in"""

_TAG = re.compile(
    r"<(?:!--|(/?)([a-zA-Z][a-zA-Z0-9]*+)((?:[^<>\"']++|\"[^\"<]*+\"|'[^'<]*+'|[\"'])*+)>)",
)
_BLANKS = re.compile(r"[ \t\n\r\f]+")
_FEW_BLANKS = re.compile(r"[\t\n\r\f]|  ")
"""what `_BLANKS` would change, which takes a quarter of the time to look for"""
_START = re.compile(r"\bstart\s*=\s*[\"']?([0-9]{1,9})")
_HUGE = re.compile(r"&#(?:[0-9]{8,}+|[xX][0-9a-fA-F]{8,}+);?")
_BLOCKS = frozenset(
    re.findall(
        r"\w+", "p h1 h2 h3 h4 h5 h6 div hr table thead tbody tfoot tr caption dl dt dd section article details summary"
    )
)
"""elements that begin and end a block of text"""
_CLOSE = frozenset(["dt", "dd", "thead", "tbody", "tfoot", "tr", "caption", "summary"])
"""of these, those that no empty line is put between"""
_SILENT = frozenset(["script", "style", "template", "noscript", "iframe", "object", "svg", "math", "head", "title"])
"""elements whose content is no text; none of them passes the sites' own filter"""
_BREAK = "\0"
"""a line break in text that is still to be cleared of blanks; NUL is no character of XML or HTML"""


class _Text:
    """The lines of a text as its tags come by: `parts` of the block that is open, `lines` of those that are closed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.parts: list[str] = []
        self.lists: list[int] = []  # for each open list: the next item's number, or 0 for a bullet
        self.mark = ""  # what the next block of a list item begins with
        self.apart = False  # whether an empty line comes before the next block
        self.quotes = 0  # how deep in quotations
        self.quoted = 0  # how deep the last block was
        self.cells = 0

    def flush(self) -> None:
        """Close the open block."""
        if not self.parts:
            return
        text = "".join(self.parts)
        self.parts.clear()
        if text.isspace():
            return  # between two blocks, most often
        text = _unescaped(text)
        if _FEW_BLANKS.search(text):
            text = _BLANKS.sub(" ", text)
        lines = [line.strip(" ") for line in text.split(_BREAK)]
        while lines and not lines[-1]:
            lines.pop()
        while lines and not lines[0]:
            lines.pop(0)
        if lines:
            self.put(lines)

    def put(self, lines: list[str], code: bool = False) -> None:
        """Add a block, set in and marked as where it stands asks for."""
        quote = "> " * min(self.quotes, QUOTE_DEPTH)
        if self.apart and self.lines:
            self.lines.append(("> " * min(self.quotes, self.quoted, QUOTE_DEPTH)).rstrip())
        if code:
            if self.mark:
                self.lines.append(f"{quote}{self.mark}".rstrip())
            self.lines += [f"{quote}{line}" if line else quote.rstrip() for line in lines]
        else:
            inset = "  " * min(max(len(self.lists) - 1, 0), LIST_DEPTH)
            self.lines.append(f"{quote}{self.mark or inset}{lines[0]}")
            self.lines += [f"{quote}{inset}{line}".rstrip() for line in lines[1:]]
        self.mark, self.apart, self.quoted = "", False, self.quotes

    def item(self) -> None:
        """Begin a list item."""
        inset = "  " * min(max(len(self.lists) - 1, 0), LIST_DEPTH)
        number = self.lists[-1] if self.lists else 0
        if number:
            self.lists[-1] += 1
        self.mark = f"{inset}{number}. " if number else f"{inset}- "


def text_of(body: str) -> str:
    """A post's body as text. Paragraphs, code and lists are set apart by an empty line; list items begin with "- " or
    their number, quoted lines with "> "; table cells stand between " | "; of links their text is kept, of images
    nothing; raised and lowered text that follows a word directly is marked "^" and "_", as 10^6. Code blocks stand as
    they are, to the blank. Never raises; takes linear time."""
    out = _Text()
    end = 0  # of what was taken
    comments = True  # whether a comment may still be closed
    code = silent = ""  # the element that is open, whose content is taken as it is, or not at all
    verbatim: list[str] = []
    for found in _TAG.finditer(body):
        start, stop = found.span()
        if start < end:
            continue  # inside a comment
        closing, name, rest = found.groups()
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
                _end_code(out, verbatim)
                code = ""
            elif name == "br":
                verbatim.append("\n")
        else:
            if text:
                out.parts.append(text)
            if name == "pre" and not closing:
                out.flush()
                out.apart = True
                code = name
            elif name in _SILENT and not closing:
                silent = name
            elif name:
                _tag(out, name, bool(closing), rest)
    if code:
        verbatim.append(body[end:])
        _end_code(out, verbatim)
    elif not silent:
        out.parts.append(body[end:])
        out.flush()
    return "\n".join(out.lines)


def _end_code(out: _Text, verbatim: list[str]) -> None:
    """Close a block of code, without the line ends before and after it."""
    text = _unescaped("".join(verbatim)).replace("\r\n", "\n").replace("\r", "\n").strip("\n")
    verbatim.clear()
    if text and not text.isspace():
        out.put(text.split("\n"), code=True)
    out.apart = True


def _tag(out: _Text, name: str, closing: bool, rest: str) -> None:
    """Take in one tag outside code."""
    if name == "br":
        out.parts.append(_BREAK)
    elif name in ("sup", "sub"):
        if not closing and out.parts and not out.parts[-1][-1:].isspace():
            out.parts.append("^" if name == "sup" else "_")
    elif name in ("td", "th"):
        if not closing:
            if out.cells:
                out.parts.append(" | ")
            out.cells += 1
    elif name == "li":
        out.flush()
        if not closing:
            out.item()
        else:
            out.mark, out.apart = "", False
    elif name in ("ul", "ol"):
        out.flush()
        out.apart = out.apart or (len(out.lists) < 2 and (not out.lists or closing))
        if not closing:
            number = _START.search(rest) if name == "ol" else None
            out.lists.append(0 if name == "ul" else int(number[1]) if number else 1)
        elif out.lists:
            out.lists.pop()
    elif name == "blockquote":
        out.flush()
        out.apart = True
        out.quotes = max(out.quotes + (-1 if closing else 1), 0)
    elif name in _BLOCKS:
        out.flush()
        out.cells = 0
        out.apart = out.apart or (name not in _CLOSE and not out.mark)


def _unescaped(text: str) -> str:
    """Character references resolved; those to numbers that no character has (of any length) become U+FFFD."""
    if "&" not in text:
        return text
    return html.unescape(_HUGE.sub("\ufffd", text) if "&#" in text else text)


def joined_text(title: str, question: str, answers: Sequence[str], layout: Literal["qa", "plain"]) -> str:
    """A question (title and body as text) and its answers as one document, with empty lines between them. `qa` puts
    "Q: " before the title and "A: " before each answer, `plain` puts nothing."""
    asked, answered = ("Q: ", "A: ") if layout == "qa" else ("", "")
    head = "\n\n".join(part for part in (title, question) if part)
    return "\n\n".join([asked + head, *(answered + answer for answer in answers)])
