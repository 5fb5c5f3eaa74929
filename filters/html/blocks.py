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

from filters.formats.characters import INVISIBLE
from filters.html.formulas import is_rendering, read_formula, read_picture, read_script
from filters.html.names import ELEMENTS, read_names

RAW = "script style iframe noembed noframes xmp".split()  # not shown; they end at the first end tag of their name
UNSEEN = "template svg select textarea object".split()  # not shown, or no text
ASIDE = "rp rt rtc".split()  # how characters are read, which would stand among them
STRUCK = "del s strike".split()  # no longer part of the document, or no longer true (WHATWG HTML 4.5.5, 4.7.2)
PREFORMATTED = frozenset(["pre", "listing"])
VOID = (  # serialised without an end tag (WHATWG HTML 13.3), beside br and hr
    "area base basefont bgsound col embed frame img input keygen link meta param source track wbr"
).split()
CONTAINERS = (  # block-level elements (WHATWG HTML 15.3.3), tables and forms
    "address article aside blockquote body center details dialog dir div dl fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup legend listing main menu nav noscript ol optgroup p pre "
    "search section summary table tbody tfoot thead ul"
).split()
LINES = "button caption dd dt label li option td th time tr".split()  # containers without empty lines around them
RAISED_PARTS = 32  # of raised or lowered text that are looked at
INLINE = "b big code em font i ins nobr small span strong tt u".split()  # frequent ones that mean nothing here
MAX_TORN = 64  # parts of a tag whose attributes hold "<" that are put together again

_OPEN, _CLOSE, _BREAK, _LINK, _LINK_END, _VOID, _RAISED, _MATH, _RAW, _UNSEEN, _PHRASE, _QUOTE = range(12)
_KINDS: dict[str, int | None] = {
    **dict.fromkeys([*INLINE, *(f"/{name}" for name in INLINE)], None),
    **dict.fromkeys(CONTAINERS + LINES, _OPEN),
    **dict.fromkeys([f"/{name}" for name in CONTAINERS + LINES], _CLOSE),
    **dict.fromkeys(RAW, _RAW),
    **dict.fromkeys(UNSEEN + ASIDE + STRUCK, _UNSEEN),
    **dict.fromkeys(["sup", "/sup", "sub", "/sub"], _RAISED),
    **dict.fromkeys(VOID, _VOID),
    **dict.fromkeys(["math", "m:math", "mml:math"], _MATH),  # with the prefixes of XHTML
    "a": _LINK,
    "/a": _LINK_END,
    **dict.fromkeys(["time", "/time", "noscript", "/noscript"], _PHRASE),
    **dict.fromkeys(["q", "/q"], _QUOTE),
    "br": _BREAK,
    "hr": _BREAK,
    "<": _CLOSE,
}
_BODY_END = "<"  # comes as the end of an element; no piece of a body that is split at "<" is the same
_GAPS = {  # what separates the blocks before and after a tag; an empty line, if it is not named here
    **{name: "\n" for line in LINES for name in (line, f"/{line}")},
    **dict.fromkeys(["td", "/td", "th", "/th"], "\t"),  # the cells of a row are on one line
}
_ATTRIBUTE = re.compile(r'([^ ="]+)="([^"]*)"')
_NUMBER = re.compile(r"\d|[-−–+]\w")  # how a number, or an exponent with a sign, begins
_VARIABLES = frozenset("ijkmnpqtxyz")  # exponents, if they are alone; other letters alone are ordinals
_OPERAND = r"(?:\d{1,9}(?:\.\d{1,9})?[A-Za-zΑ-ω]?|[A-Za-zΑ-ω]\d{0,9}|∞)(?:[\^_]\w)?"
_OPERATOR = r"(?:\s|&nbsp;){0,3}(?:[-−–+±*/·⋅×=,≤≥]|&[lg]t;)(?:\s|&nbsp;){0,3}"
_EXPRESSION = re.compile(rf"[-−–+]?{_OPERAND}(?:{_OPERATOR}{_OPERAND}){{1,9}}")  # of several parts
_NOTES = re.compile(r"[\d\s.,−–-]+")  # the numbers of notes, or a range of numbers
_FRACTION = re.compile(r"\^\d+")  # the upper part of a mixed number's fraction, marked as an exponent
_DIGIT, _WORD_CHARACTER = re.compile(r"\d"), re.compile(r"\w")
_ANCHORS = frozenset(["¶", "#", "§", "🔗"])  # texts of links to the heading that they stand in
_EDIT_LINK = "mw-editsection"
_CLOSING = frozenset(")]}")  # raised and lowered text behind them, or behind a word, can be marked
_ENDINGS = frozenset(".,:!?…%'\"”’»。，、")  # so can raised text behind these
# The alternative text of a picture that stands for one character: a letter beyond ASCII, or an emoji (UTS 51), which is
# a keycap, or up to eight symbols that are shown as pictures (Emoji_Presentation, or with a variation selector).
_EMOJI = (
    "(?:[\u231a\u231b\u23e9-\u23ec\u23f0\u23f3\u25fd\u25fe\u2614\u2615\u2648-\u2653\u267f\u2693\u26a1\u26aa\u26ab\u26bd"
    "\u26be\u26c4\u26c5\u26ce\u26d4\u26ea\u26f2\u26f3\u26f5\u26fa\u26fd\u2705\u270a\u270b\u2728\u274c\u274e\u2753-\u2755"
    "\u2757\u2795-\u2797\u27b0\u27bf\u2b1b\u2b1c\u2b50\u2b55\U0001f000-\U0001faff]\ufe0f?"
    "|[\u203c-\u2bff\u3030\u303d\u3297\u3299]\ufe0f)[\U000e0020-\U000e007f]*\u200d?"
)
_PICTURED = re.compile(
    rf'alt="(?<![^ ]alt=")([0-9#*]\ufe0f?\u20e3|(?:{_EMOJI}|(?<=\u200d)[\u2640\u2642\u2764]){{1,8}}|[^\W\d_\x00-\x7f])"'
)
# Characters that are Fullwidth, Wide or Halfwidth (UAX 11), without Hangul and emoji.
_WIDE = (
    "[\u2e80-\u303e\u3041-\u312f\u3190-\u31ff\u3220-\u325f\u3280-\ua4cf\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f"
    "\uff01-\uff9f\uffe0-\uffee\U00016fe0-\U0001b2ff\U0001f200-\U0001f265\U00020000-\U0003fffd]"
)
_WIDE_PAIR = re.compile(_WIDE * 2)
_BLANKS = " \t\r\f"  # around a line break
_SCRIPT_TAG = re.compile(r"(/?)script[\s/>]", re.IGNORECASE)
_TAG = re.compile(r'([^ >]+) ?((?:[^ >=]*="[^"]*" ?)*)>(.*)', re.DOTALL)


class Page(NamedTuple):
    """The blocks of a page in order, and the containers that hold some, by their start tags; the first is the root."""

    texts: list[str]  # of the blocks: a line each, or the lines of a `pre` element with their blanks
    linked: list[int]  # characters inside links
    places: list[int]  # the indexes of the innermost containers
    gaps: list[str]  # what separates a block from the one before: a tab, or one or two line breaks
    parents: list[int]  # of each container, the index of its parent, which is smaller; of the root, -1
    tags: list[str]
    names: list[int]  # bits, as filters.html.names, of the element and its attributes
    starts: list[int]  # the blocks of a container are those from starts to ends
    ends: list[int]

    def climb(self, place: int, levels: int) -> Iterator[int]:
        """Yield a container and those around it, from the innermost, without the root."""
        while place > 0 and levels:
            yield place
            place, levels = self.parents[place], levels - 1


def parse_blocks(body: str) -> Page:
    """Return the blocks and containers of a body as the parser serialises it."""
    page = Page([], [], [], [], [-1], [""], [0], [0], [0])
    texts, parents, ends = page.texts, page.parents, page.ends
    current = 0  # the innermost open container that holds a block
    opened: list[tuple[str, str]] = []  # the names and attributes of the open containers in it, which hold none yet
    parts: list[str] = []  # of the line
    in_link, link_start, preformatted = False, 0, 0
    letters = 0  # of the line, in links
    gap = ""
    raised: list[int] = []  # of the raised and lowered elements that are open, the parts at which their texts begin
    apart: re.Pattern[str] | None = None  # how text begins that a blank sets apart from raised text before it
    behind_formula = False
    has_scripts = 'type="math/tex' in body
    kind_of, gaps_of = _KINDS.get, _GAPS.get
    pieces = iter(body.split("<"))
    for piece in chain(pieces, [_BODY_END]):
        name, _, text = piece.partition(">")
        attributes = ""
        kind = kind_of(name, False)
        if kind is False:  # it has attributes, or is a tag without meaning here, or a comment
            name, _, attributes = name.partition(" ")
            kind = kind_of(name)
            if name[:3] == "!--":
                text = _end_comment(piece, pieces)
            elif attributes:
                if attributes.count('"') & 1:
                    name, attributes, text = _join_torn(piece, pieces)
                    kind = kind_of(name)
                if (
                    (kind is None or kind == _LINK)
                    and ("hidden" in attributes or "display" in attributes or _EDIT_LINK in attributes or has_scripts)
                    and (_is_hidden(attributes, behind_formula) or (has_scripts and is_rendering(attributes)))
                ):
                    kind = _UNSEEN
        if kind == _PHRASE:  # in a paragraph, it is part of a sentence; elsewhere, it is a block
            innermost = opened[-1][0] if opened else page.tags[current]
            if name[0] == "/":
                kind = _CLOSE if innermost == name[1:] else None
            else:
                kind = None if innermost == "p" else _OPEN
        if kind is None:
            pass
        elif kind < _BREAK or (kind == _BREAK and not preformatted):
            if parts:
                if line := _tidy(parts, preformatted > 0):
                    if opened:
                        current = _add_containers(page, current, opened)
                    texts.append(line)
                    page.linked.append(letters if letters < len(line) else len(line))
                    page.places.append(current)
                    page.gaps.append(gap)
                    gap = ""
                parts, letters, apart = [], 0, None
                raised.clear()
            if kind == _OPEN:
                preformatted += name in PREFORMATTED
                opened.append((name, attributes))
            elif kind == _CLOSE:
                if preformatted and name[1:] in PREFORMATTED:
                    preformatted -= 1
                if opened:
                    opened.pop()
                elif current:
                    ends[current] = len(texts)
                    current = parents[current]
            if gap != "\n\n":
                wider = gaps_of(name, "\n\n") if kind != _BREAK or gap == "\n" else "\n"
                if gap != "\n" or wider != "\t":
                    gap = wider
        elif kind == _LINK:
            in_link, link_start = True, len(parts)
        elif kind == _LINK_END:
            if in_link and len(parts) == link_start + 1 and parts[-1].strip() in _ANCHORS:
                letters -= len(parts.pop())
            in_link = False
        elif kind == _QUOTE:
            text = ("”" if name == "/q" else "“") + text
        elif kind == _BREAK:
            text = "\n" + text
        elif kind == _RAISED:
            if name[0] != "/":
                raised.append(len(parts))
            elif raised:
                apart = _mark_raised(name, parts, raised.pop())
        elif kind == _VOID:
            if "tex" in attributes and not behind_formula and (formula := read_picture(attributes)):
                text = formula + text
            elif name == "img" and not attributes.isascii() and (picture := _PICTURED.search(attributes)):
                text = picture[1] + text
        elif kind == _RAW:
            content, behind = _read_up_to_end(name, pieces)
            if has_scripts and not behind_formula and (formula := read_script(attributes, text + content)):
                behind = formula + behind
            text = behind
        elif kind == _MATH:
            content, behind = _read_up_to_end(name, pieces)
            text = read_formula(attributes, content) + behind
            behind_formula = True
        elif kind == _UNSEEN:
            formulas, text = _skip_element(name, pieces)
            in_link = in_link and name != "a"
            if formulas:
                kind, text = None if text else _MATH, formulas + text
        if text:
            behind_formula = kind == _MATH
            if parts or preformatted or not text.isspace():
                if apart:
                    if apart.match(text):
                        parts.append(" ")
                    apart = None
                parts.append(text)
                if in_link:
                    letters += len(text)
    current = _add_containers(page, current, opened)  # what a body that is cut leaves open
    while current >= 0:
        ends[current] = len(texts)
        current = parents[current]
    return page


def _add_containers(page: Page, parent: int, opened: list[tuple[str, str]]) -> int:
    """Add containers to a page, each in the one before it, and return the index of the last; empty the list."""
    texts, _, _, _, parents, tags, names, starts, ends = page
    for name, attributes in opened:
        parents.append(parent)
        parent = len(tags)
        tags.append(name)
        element = ELEMENTS.get(name, 0)
        names.append(element | read_names(attributes) if attributes else element)
        starts.append(len(texts))
        ends.append(0)
    opened.clear()
    return parent


def _skip_element(name: str, pieces: Iterator[str]) -> tuple[str, str]:
    """Read up to the end of an element that is not shown, and return the formulas in it, and the text behind it.

    MediaWiki hides formulas behind their pictures: only formulas of hidden elements are read.
    """
    formulas = ""
    depth = 1  # elements of this name that are open
    for piece in pieces:
        head, _, text = piece.partition(">")
        tag, _, attributes = head.partition(" ")
        if tag[:3] == "!--":
            text = _end_comment(piece, pieces)
        elif attributes.count('"') & 1:
            tag, attributes, text = _join_torn(piece, pieces)
        kind = _KINDS.get(tag)
        if kind == _RAW:
            _read_up_to_end(tag, pieces)
        elif tag == name:
            depth += 1
        elif tag == "/" + name:
            depth -= 1
            if not depth:
                return formulas, text
        elif kind == _MATH and _KINDS.get(name) is None:
            formulas += read_formula(attributes, _read_up_to_end(tag, pieces)[0])
    return formulas, ""


def _end_comment(piece: str, pieces: Iterator[str]) -> str:
    """Return the text behind the comment that a piece begins."""
    while "-->" not in piece:
        piece = next(pieces, "-->")
    return piece.partition("-->")[2]


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


def _read_up_to_end(name: str, pieces: Iterator[str]) -> tuple[str, str]:
    """Return what comes before the end tag of an element, and the text behind it.

    A script that writes another, and is hidden in a comment from browsers without scripts, goes on behind the end tag
    of the other (the double escaped state of WHATWG HTML, section 13.2.5.27).
    """
    content: list[str] = []
    end = f"/{name}>"
    seen, is_hidden, is_other = 0, False, False
    for piece in pieces:
        if piece.startswith(end):
            text = "<" + "<".join(content[seen:])
            if name == "script" and (is_hidden or "<!--" in text):
                for part in content[seen:]:
                    if is_hidden and (tag := _SCRIPT_TAG.match(part)):
                        is_other = not tag[1]
                    is_hidden = (is_hidden or part.startswith("!--")) and "-->" not in part
                    is_other = is_other and is_hidden
            if not is_other:
                return text if not seen else "<" + "<".join(content), piece[len(end) :]
            seen = len(content)
        content.append(piece)
    return "", ""


def _is_hidden(attributes: str, behind_formula: bool) -> bool:
    """Return True if an inline element is never shown, or is the picture of the formula before it, as KaTeX makes it.

    MediaWiki's links to edit a section, which stand in its heading, count as hidden. Blocks do not count, because
    scripts show some later.
    """
    given = dict(_ATTRIBUTE.findall(attributes.lower()))
    return (
        given.get("hidden", "until-found") != "until-found"
        or any(style in given.get("style", "").replace(" ", "") for style in ("display:none", "visibility:hidden"))
        or _EDIT_LINK in given.get("class", "")
        or (behind_formula and given.get("aria-hidden") == "true")
    )


def _mark_raised(name: str, parts: list[str], start: int) -> re.Pattern[str] | None:
    """Mark the raised or lowered text that begins at a part, if it would be another number or word without a mark.

    A raised number or variable is an exponent or the mark of a footnote. A lowered number is marked only behind a
    digit, as the base of a number is, and not in H2O. Exponents and indexes of several parts take brackets. The parts
    of a mixed number (1/2 behind a 2) are set apart by a blank.

    Returns:
        How text behind it begins that would run into it.
    """
    held = parts[start : start + RAISED_PARTS]
    content = "".join(held).lstrip()
    text = content.rstrip()
    if not text:
        return None
    last = parts[start - 1][-1] if start else ""
    sign = "^" if name == "/sup" else "_"
    is_whole = len(parts) == start + len(held)
    mark = ""
    if last.isalnum() or last in _CLOSING or (sign == "^" and last in _ENDINGS):
        if is_whole and _EXPRESSION.fullmatch(text) and not _NOTES.fullmatch(text):
            parts[start:] = [f"{sign}({text}){content[len(text) :]}"]
            return None
        if ((sign == "^" or last.isdigit()) and _NUMBER.match(text)) or (sign == "^" and text in _VARIABLES):
            mark = sign
            parts[start : start + len(held)] = [mark + content]
    elif sign == "_" and last in ("/", "⁄") and start > 1 and _FRACTION.fullmatch(parts[start - 2]):
        parts[start - 2] = " " + parts[start - 2][1:]
    end = parts[-1][-1]
    if mark and end.isalpha():
        return _WORD_CHARACTER
    return _DIGIT if end.isdigit() else None


def _join_lines(parts: list[str]) -> str:
    """Return parts with a blank for each line break, or nothing between wide characters (CSS Text 3, section 4.1.3).

    A break with an element on both sides is always a blank, since it also stands between the entries of menus.
    """
    joined, last = [], " "
    for line in "".join([" " if part.isspace() else part for part in parts]).split("\n"):
        if line := line.strip(_BLANKS):
            joined += ["" if _WIDE_PAIR.match(last + line[0]) else " ", line]
            last = line[-1]
    return "".join(joined)


def _tidy(parts: list[str], preformatted: bool) -> str:
    """Return a line without escapes and invisible characters, and with single blanks.

    Preformatted text keeps its lines and their blanks, but for those at the ends of lines.
    """
    text = "".join(parts)
    if not preformatted and "\n" in text and not text.isascii():
        text = _join_lines(parts)
    if "&" in text:
        text = html.unescape(text)
    if preformatted:
        text = INVISIBLE.sub("", text).replace("\xa0", " ")
        return "\n".join([line.rstrip() for line in text.split("\n")]).strip("\n")
    line = " ".join(text.split())
    return line if line.isprintable() else " ".join(INVISIBLE.sub("", line).split())
