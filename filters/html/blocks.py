"""Split the body of a page into blocks (paragraphs, headings, list items, cells), each with its place in the tree.

A block is a line of text: it ends where a block-level element begins or ends, or at a `<br>`. A container is a
block-level element. Both are read in one pass over the serialised body of the parsed page, in which all elements nest
and all attribute values are quoted: a walk over the nodes of the parser takes several times as long as the parse.
"""

import html
import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

from filters.html.names import ELEMENTS, read_names

UNSEEN = "script style template svg math iframe noembed noframes xmp select textarea object".split()
CONTAINERS = (  # block-level elements (WHATWG HTML 15.3.3), tables and forms
    "address article aside blockquote body center details dialog dir div dl fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup legend listing main menu nav noscript ol optgroup p pre "
    "search section summary table tbody tfoot thead ul"
).split()
LINES = "button caption dd dt label li option td th time tr".split()  # containers without empty lines around them
MAX_TORN = 64  # parts of a tag whose attributes hold "<" that are put together again

_OPEN, _CLOSE, _LINK, _LINK_END, _BREAK, _UNSEEN = range(6)
_KINDS = {
    **dict.fromkeys(CONTAINERS + LINES, _OPEN),
    **dict.fromkeys([f"/{name}" for name in CONTAINERS + LINES], _CLOSE),
    **dict.fromkeys(UNSEEN, _UNSEEN),
    "a": _LINK,
    "/a": _LINK_END,
    "br": _BREAK,
    "hr": _BREAK,
}
_GAPS = {  # what separates the blocks before and after a tag; an empty line, if it is not named here
    **{name: "\n" for line in LINES for name in (line, f"/{line}")},
    **dict.fromkeys(["td", "/td", "th", "/th"], "\t"),  # the cells of a row are on one line
}
_TAG = re.compile(r'([^ >]+) ?((?:[^ >=]*="[^"]*" ?)*)>(.*)', re.DOTALL)


class Page(NamedTuple):
    """The blocks of a page in order, and the containers that hold some, by their start tags; the first is the root."""

    texts: list[str]  # of the blocks: a line each, or the lines of a `pre` element
    linked: list[int]  # characters inside links
    places: list[int]  # the indexes of the innermost containers
    gaps: list[str]  # what separates a block from the one before: a tab, or one or two line breaks
    parents: list[int]  # of each container, the index of its parent, which is smaller; of the root, -1
    tags: list[str]
    names: list[int]  # bits, as filters.html.names, of the element and its attributes
    starts: list[int]  # the blocks of a container are those from starts to ends
    ends: list[int]


def parse_blocks(body: str) -> Page:
    """Return the blocks and containers of a body as the parser serialises it."""
    page = texts, linked, places, gaps, parents, tags, names, starts, ends = Page(
        [], [], [], [], [-1], [""], [0], [0], [0]
    )
    containers = page[4:]
    current = 0  # the open container
    parts: list[str] = []  # of the line
    in_link, preformatted = False, 0
    letters = 0  # of the line, in links
    gap = ""
    kind_of, gaps_of = _KINDS.get, _GAPS.get
    pieces = iter(body.split("<"))
    for piece in pieces:
        head, _, text = piece.partition(">")
        name, _, attributes = head.partition(" ")
        kind = kind_of(name)
        if kind is None and name[:3] == "!--":
            while "-->" not in piece:
                piece = next(pieces, "-->")
            text = piece.partition("-->")[2]
        elif attributes and attributes.count('"') & 1:
            name, attributes, text = _join_torn(piece, pieces)
            kind = kind_of(name)
        if kind is None:
            pass
        elif kind == _LINK:
            in_link = True
        elif kind == _LINK_END:
            in_link = False
        elif kind == _UNSEEN:
            end, text = "/" + name, ""
            for piece in pieces:
                if piece.startswith(end):
                    text = piece.partition(">")[2]
                    break
        else:
            if parts:
                line = _tidy("".join(parts), preformatted > 0)
                if line:
                    texts.append(line)
                    linked.append(letters if letters < len(line) else len(line))
                    places.append(current)
                    gaps.append(gap)
                    gap = ""
                parts, letters = [], 0
            if kind == _OPEN:
                preformatted += name == "pre"
                parents.append(current)
                current = len(tags)
                tags.append(name)
                element = ELEMENTS.get(name, 0)
                names.append(element | read_names(attributes) if attributes else element)
                starts.append(len(texts))
                ends.append(0)
            elif kind == _CLOSE:
                preformatted -= name == "/pre"
                if current:
                    opened, current = current, parents[current]
                    if starts[opened] < len(texts):
                        ends[opened] = len(texts)
                    else:  # it holds no block, and is the last container, since those in it are gone
                        for column in containers:
                            column.pop()
            if gap != "\n\n":
                wider = gaps_of(name, "\n\n") if kind != _BREAK or gap == "\n" else "\n"
                if gap != "\n" or wider != "\t":
                    gap = wider
        if text and (parts or not text.isspace()):
            parts.append(text)
            if in_link:
                letters += len(text)
    if parts and (line := _tidy("".join(parts), preformatted > 0)):
        texts.append(line)
        linked.append(min(letters, len(line)))
        places.append(current)
        gaps.append(gap)
    while current >= 0:
        ends[current] = len(texts)
        current = parents[current]
    return page


def _join_torn(piece: str, pieces: Iterator[str]) -> tuple[str, str, str]:
    """Return the name and attributes of the tag that a piece begins, whose attributes hold "<" or ">", and its text."""
    torn = ""
    last = piece
    for last in chain([piece], islice(pieces, MAX_TORN - 1)):
        torn += last
        if '"' in last and (whole := _TAG.match(torn)):
            return whole[1], whole[2], whole[3]
        torn += "<"
    head, _, text = last.partition(">")
    name, _, attributes = head.partition(" ")
    return name, attributes, text


def _tidy(text: str, preformatted: bool) -> str:
    """Return a line without escapes, and with single blanks; preformatted text keeps its line breaks."""
    if "&" in text:
        text = html.unescape(text)
    if preformatted:
        return "\n".join(filter(None, (" ".join(line.split()) for line in text.split("\n"))))
    return " ".join(text.split())
