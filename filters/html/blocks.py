"""Split the body of a page into blocks (paragraphs, headings, list items, cells), and record each block's containers.

A block is a line of text. It ends where a block-level element begins or ends, or at a `<br>`. A container is a
block-level element.

Blocks and containers are read in one pass over the serialised body of the parsed page. In it all elements are nested
properly and all attribute values are quoted. The parser's own tree is not walked, because visiting its nodes from
Python takes several times as long as the parse.
"""

import html
import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import NamedTuple

from filters.formats.characters import INVISIBLE
from filters.html.formulas import is_rendering, read_formula, read_picture, read_script
from filters.html.names import ELEMENTS, read_names

# Elements that are not shown. Their content is raw text, which ends at the first end tag with their name.
RAW = "script style iframe noembed noframes xmp".split()
UNSEEN = "template svg select textarea object".split()  # Elements that are not shown, or are not text.
ASIDE = "rp rt rtc".split()  # Pronunciations (ruby). Without the layout they would be mixed with the characters.
STRUCK = "del s strike".split()  # Text that was removed or is no longer true (WHATWG HTML 4.5.5, 4.7.2).
PREFORMATTED = frozenset(["pre", "listing"])
VOID = (  # Elements that are serialised without an end tag (WHATWG HTML 13.3), except br and hr.
    "area base basefont bgsound col embed frame img input keygen link meta param source track wbr"
).split()
CONTAINERS = (  # Block-level elements (WHATWG HTML 15.3.3), tables and forms.
    "address article aside blockquote body center details dialog dir div dl fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup legend listing main menu nav noscript ol optgroup p pre "
    "search section summary table tbody tfoot thead ul"
).split()
LINES = "button caption dd dt label li option td th time tr".split()  # Containers without empty lines around them.
MAX_RAISED_PARTS = 32  # Strings of one superscript or subscript that are examined.
INLINE = "b big code em font i ins nobr small span strong tt u".split()  # Frequent elements that are ignored.
# Pieces of the body that are joined to one tag. A tag is in several pieces if its attributes contain "<".
MAX_TAG_PIECES = 64

# Kinds of tags. Tags of a kind below _BREAK end a line.

_OPEN, _CLOSE, _BREAK, _LINK, _LINK_END, _VOID, _RAISED, _MATH, _RAW, _UNSEEN, _PHRASE, _QUOTE = range(12)
_KINDS: dict[str, int | None] = {
    **dict.fromkeys([*INLINE, *(f"/{name}" for name in INLINE)], None),
    **dict.fromkeys(CONTAINERS + LINES, _OPEN),
    **dict.fromkeys([f"/{name}" for name in CONTAINERS + LINES], _CLOSE),
    **dict.fromkeys(RAW, _RAW),
    **dict.fromkeys(UNSEEN + ASIDE + STRUCK, _UNSEEN),
    **dict.fromkeys(["sup", "/sup", "sub", "/sub"], _RAISED),
    **dict.fromkeys(VOID, _VOID),
    **dict.fromkeys(["math", "m:math", "mml:math"], _MATH),  # Pages in XHTML use the prefixes.
    "a": _LINK,
    "/a": _LINK_END,
    **dict.fromkeys(["time", "/time", "noscript", "/noscript"], _PHRASE),
    **dict.fromkeys(["q", "/q"], _QUOTE),
    "br": _BREAK,
    "hr": _BREAK,
    "<": _CLOSE,
}
# An artificial end tag after the last piece, to complete the last line. The body is split at "<", so no piece of it is
# equal to "<".
_BODY_END = "<"
# The separator between the blocks before and after a tag. For tags that are not listed it is an empty line.
_GAPS = {
    **{name: "\n" for line in LINES for name in (line, f"/{line}")},
    **dict.fromkeys(["td", "/td", "th", "/th"], "\t"),  # The cells of a row are on one line.
}
_ATTRIBUTE = re.compile(r'([^ ="]+)="([^"]*)"')
_NUMBER = re.compile(r"\d|[-−–+]\w")  # The beginning of a number, or of an exponent with a sign.
# Single raised letters that are taken for exponents. Other single letters are ordinal indicators.
_VARIABLES = frozenset("ijkmnpqtxyz")
_OPERAND = r"(?:\d{1,9}(?:\.\d{1,9})?[A-Za-zΑ-ω]?|[A-Za-zΑ-ω]\d{0,9}|∞)(?:[\^_]\w)?"
_OPERATOR = r"(?:\s|&nbsp;){0,3}(?:[-−–+±*/·⋅×=,≤≥]|&[lg]t;)(?:\s|&nbsp;){0,3}"
_EXPRESSION = re.compile(rf"[-−–+]?{_OPERAND}(?:{_OPERATOR}{_OPERAND}){{1,9}}")  # An expression of several operands.
_NOTES = re.compile(r"[\d\s.,−–-]+")  # The numbers of footnotes, or a range of numbers.
_FRACTION = re.compile(r"\^\d+")  # The numerator in a mixed number such as 2 1/2, which was marked as an exponent.
_DIGIT, _WORD_CHARACTER = re.compile(r"\d"), re.compile(r"\w")
_ANCHORS = frozenset(["¶", "#", "§", "🔗"])  # Texts of links in a heading that point to the heading itself.
_EDIT_LINK = "mw-editsection"
_CLOSING = frozenset(")]}")  # Superscripts and subscripts are marked after these characters, as after a word.
_ENDINGS = frozenset(".,:!?…%'\"”’»。，、")  # Superscripts are also marked after these characters.
# The `alt` attribute of a picture that shows one character. The character is a non-ASCII letter or an emoji (UTS 51).
# An emoji is a keycap, or up to eight symbols that are shown as pictures (Emoji_Presentation, or with a variation
# selector).
_EMOJI = (
    "(?:[\u231a\u231b\u23e9-\u23ec\u23f0\u23f3\u25fd\u25fe\u2614\u2615\u2648-\u2653\u267f\u2693\u26a1\u26aa\u26ab\u26bd"
    "\u26be\u26c4\u26c5\u26ce\u26d4\u26ea\u26f2\u26f3\u26f5\u26fa\u26fd\u2705\u270a\u270b\u2728\u274c\u274e\u2753-\u2755"
    "\u2757\u2795-\u2797\u27b0\u27bf\u2b1b\u2b1c\u2b50\u2b55\U0001f000-\U0001faff]\ufe0f?"
    "|[\u203c-\u2bff\u3030\u303d\u3297\u3299]\ufe0f)[\U000e0020-\U000e007f]*\u200d?"
)
_PICTURED = re.compile(
    rf'alt="(?<![^ ]alt=")([0-9#*]\ufe0f?\u20e3|(?:{_EMOJI}|(?<=\u200d)[\u2640\u2642\u2764]){{1,8}}|[^\W\d_\x00-\x7f])"'
)
# Characters that are Fullwidth, Wide or Halfwidth (UAX 11), except Hangul and emoji.
_WIDE = (
    "[\u2e80-\u303e\u3041-\u312f\u3190-\u31ff\u3220-\u325f\u3280-\ua4cf\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6f"
    "\uff01-\uff9f\uffe0-\uffee\U00016fe0-\U0001b2ff\U0001f200-\U0001f265\U00020000-\U0003fffd]"
)
_WIDE_PAIR = re.compile(_WIDE * 2)
_BLANKS = " \t\r\f"  # Characters that are removed around a line break.
_SCRIPT_TAG = re.compile(r"(/?)script[\s/>]", re.IGNORECASE)
_TAG = re.compile(r'([^ >]+) ?((?:[^ >=]*="[^"]*" ?)*)>(.*)', re.DOTALL)


class Page(NamedTuple):
    """The blocks of a page and the containers that hold at least one block.

    Blocks are in the order of the text. Containers are in the order of their start tags; container 0 is the root.

    Attributes:
        texts: The text of each block: one line, or the lines of a `pre` element with their indentation.
        linked: The number of characters inside links, for each block.
        places: The index of the innermost container, for each block.
        gaps: The separator before each block: a tab, or one or two line breaks.
        parents: The index of the parent, for each container. It is smaller than the container's index; -1 for the root.
        tags: The element name of each container.
        names: The groups (bits of filters.html.names) of each container's element name and attributes.
        starts: The index of the first block of each container.
        ends: The index after the last block of each container.
    """

    texts: list[str]
    linked: list[int]
    places: list[int]
    gaps: list[str]
    parents: list[int]
    tags: list[str]
    names: list[int]
    starts: list[int]
    ends: list[int]

    def iter_ancestors(self, place: int, levels: int) -> Iterator[int]:
        """Yield a container and its ancestors, innermost first, at most `levels` containers, without the root."""
        while place > 0 and levels:
            yield place
            place, levels = self.parents[place], levels - 1


def parse_blocks(body: str) -> Page:
    """Return the blocks and containers of a body element, given as the parser serialises it."""
    page = Page([], [], [], [], [-1], [""], [0], [0], [0])
    texts, parents, ends = page.texts, page.parents, page.ends
    current = 0  # The innermost open container that holds a block.
    # The names and attributes of the open containers inside `current`. None of them holds a block yet.
    opened: list[tuple[str, str]] = []
    parts: list[str] = []  # The strings of the current line.
    in_link, link_start, preformatted = False, 0, 0
    letters = 0  # The number of characters of the current line that are inside links.
    gap = ""
    raised: list[int] = []  # For each open sup or sub element, the index in `parts` at which its text begins.
    # A blank is inserted after a superscript or subscript if the next text matches this pattern.
    needs_blank: re.Pattern[str] | None = None
    after_formula = False
    has_scripts = 'type="math/tex' in body
    kind_of, gaps_of = _KINDS.get, _GAPS.get
    pieces = iter(body.split("<"))
    for piece in chain(pieces, [_BODY_END]):
        name, _, text = piece.partition(">")
        attributes = ""
        kind = kind_of(name, False)
        if kind is False:  # The piece has attributes, or is an ignored tag or a comment.
            name, _, attributes = name.partition(" ")
            kind = kind_of(name)
            if name[:3] == "!--":
                text = _end_comment(piece, pieces)
            elif attributes:
                if attributes.count('"') & 1:
                    name, attributes, text = _rejoin_tag(piece, pieces)
                    kind = kind_of(name)
                if (
                    (kind is None or kind == _LINK)
                    and ("hidden" in attributes or "display" in attributes or _EDIT_LINK in attributes or has_scripts)
                    and (_is_hidden(attributes, after_formula) or (has_scripts and is_rendering(attributes)))
                ):
                    kind = _UNSEEN
        if kind == _PHRASE:  # In a paragraph the element is part of a sentence. Elsewhere it is a block.
            innermost = opened[-1][0] if opened else page.tags[current]
            if name[0] == "/":
                kind = _CLOSE if innermost == name[1:] else None
            else:
                kind = None if innermost == "p" else _OPEN
        if kind is None:
            pass
        elif kind < _BREAK or (kind == _BREAK and not preformatted):
            if parts:
                if line := _clean_line(parts, preformatted > 0):
                    if opened:
                        current = _add_containers(page, current, opened)
                    texts.append(line)
                    page.linked.append(letters if letters < len(line) else len(line))
                    page.places.append(current)
                    page.gaps.append(gap)
                    gap = ""
                parts, letters, needs_blank = [], 0, None
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
                needs_blank = _mark_raised(name, parts, raised.pop())
        elif kind == _VOID:
            if "tex" in attributes and not after_formula and (formula := read_picture(attributes)):
                text = formula + text
            elif name == "img" and not attributes.isascii() and (picture := _PICTURED.search(attributes)):
                text = picture[1] + text
        elif kind == _RAW:
            content, after = _read_up_to_end(name, pieces)
            if has_scripts and not after_formula and (formula := read_script(attributes, text + content)):
                after = formula + after
            text = after
        elif kind == _MATH:
            content, after = _read_up_to_end(name, pieces)
            text = read_formula(attributes, content) + after
            after_formula = True
        elif kind == _UNSEEN:
            formulas, text = _skip_element(name, pieces)
            in_link = in_link and name != "a"
            if formulas:
                kind, text = None if text else _MATH, formulas + text
        if text:
            after_formula = kind == _MATH
            if parts or preformatted or not text.isspace():
                if needs_blank:
                    if needs_blank.match(text):
                        parts.append(" ")
                    needs_blank = None
                parts.append(text)
                if in_link:
                    letters += len(text)
    current = _add_containers(page, current, opened)  # A truncated body leaves containers open.
    while current >= 0:
        ends[current] = len(texts)
        current = parents[current]
    return page


def _add_containers(page: Page, parent: int, opened: list[tuple[str, str]]) -> int:
    """Add nested containers to a page and empty the list `opened`. Return the index of the innermost one.

    Args:
        page: The page to extend.
        parent: The index of the container around the first new one.
        opened: The names and attributes of the new containers, outermost first.
    """
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
    """Skip an element that is not shown. Return the formulas inside it, and the text after its end tag.

    MediaWiki shows a picture and adds the formula in an inline element that is hidden. Formulas are therefore read from
    hidden inline elements, but not from elements that are skipped for their name, such as `template`.
    """
    formulas = ""
    depth = 1  # The number of open elements with this name.
    for piece in pieces:
        head, _, text = piece.partition(">")
        tag, _, attributes = head.partition(" ")
        if tag[:3] == "!--":
            text = _end_comment(piece, pieces)
        elif attributes.count('"') & 1:
            tag, attributes, text = _rejoin_tag(piece, pieces)
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
    """Skip a comment that begins in `piece`, and return the text after it."""
    while "-->" not in piece:
        piece = next(pieces, "-->")
    return piece.partition("-->")[2]


def _rejoin_tag(piece: str, pieces: Iterator[str]) -> tuple[str, str, str]:
    """Read a tag whose attributes contain "<" or ">". Return its name, its attributes, and the text after it.

    The body was split at each "<", so the tag may be in several pieces: `piece` and the next ones of `pieces`.
    """
    joined = ""
    last = piece
    for last in chain([piece], islice(pieces, MAX_TAG_PIECES - 1)):
        joined += last
        if '"' in last and (whole := _TAG.match(joined)):
            return whole[1], whole[2], whole[3]
        joined += "<"
    head, _, text = last.partition(">")
    name, _, attributes = head.partition(" ")
    return name, attributes, text


def _read_up_to_end(name: str, pieces: Iterator[str]) -> tuple[str, str]:
    """Return the content of an element up to its end tag, and the text after the end tag.

    A script may be enclosed in a comment, for browsers without scripts, and may write another script element. Then the
    end tag of the inner script does not end the outer one (the double escaped state of WHATWG HTML, section 13.2.5.27).
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


def _is_hidden(attributes: str, after_formula: bool) -> bool:
    """Return True if an inline element is not shown to readers, judged by its attributes.

    After a formula, elements with `aria-hidden` are also hidden, because KaTeX writes a formula and then its picture.
    MediaWiki's links to edit a section, which are part of the heading, count as hidden. The function is called for
    inline elements only. Hidden block-level elements are kept, because scripts show some of them later.
    """
    given = dict(_ATTRIBUTE.findall(attributes.lower()))
    return (
        given.get("hidden", "until-found") != "until-found"
        or any(style in given.get("style", "").replace(" ", "") for style in ("display:none", "visibility:hidden"))
        or _EDIT_LINK in given.get("class", "")
        or (after_formula and given.get("aria-hidden") == "true")
    )


def _mark_raised(name: str, parts: list[str], start: int) -> re.Pattern[str] | None:
    """Insert "^" or "_" before a superscript or subscript if it would otherwise read as another number or word.

    A raised number or variable is an exponent or the mark of a footnote. A lowered number is marked only after a digit,
    where it is the base of a number, and not in H2O. Exponents and indexes of several operands get brackets. A blank
    separates the integer and the fraction of a mixed number (2 and 1/2).

    Args:
        name: The end tag, "/sup" or "/sub".
        parts: The strings of the line, which end with the superscript or subscript. They are changed in place.
        start: The index in `parts` at which the superscript or subscript begins.

    Returns:
        A pattern for text that needs a blank before it if it follows directly, or None.
    """
    examined = parts[start : start + MAX_RAISED_PARTS]
    content = "".join(examined).lstrip()
    text = content.rstrip()
    if not text:
        return None
    last = parts[start - 1][-1] if start else ""
    sign = "^" if name == "/sup" else "_"
    is_whole = len(parts) == start + len(examined)
    mark = ""
    if last.isalnum() or last in _CLOSING or (sign == "^" and last in _ENDINGS):
        if is_whole and _EXPRESSION.fullmatch(text) and not _NOTES.fullmatch(text):
            parts[start:] = [f"{sign}({text}){content[len(text) :]}"]
            return None
        if ((sign == "^" or last.isdigit()) and _NUMBER.match(text)) or (sign == "^" and text in _VARIABLES):
            mark = sign
            parts[start : start + len(examined)] = [mark + content]
    elif sign == "_" and last in ("/", "⁄") and start > 1 and _FRACTION.fullmatch(parts[start - 2]):
        parts[start - 2] = " " + parts[start - 2][1:]
    end = parts[-1][-1]
    if mark and end.isalpha():
        return _WORD_CHARACTER
    return _DIGIT if end.isdigit() else None


def _join_lines(parts: list[str]) -> str:
    """Join the strings of a line, and replace each line break by a blank, or by nothing between two wide characters.

    See CSS Text 3, section 4.1.3. A break between two elements always becomes a blank, because such breaks also
    separate the entries of menus.
    """
    joined, last = [], " "
    for line in "".join([" " if part.isspace() else part for part in parts]).split("\n"):
        if line := line.strip(_BLANKS):
            joined += ["" if _WIDE_PAIR.match(last + line[0]) else " ", line]
            last = line[-1]
    return "".join(joined)


def _clean_line(parts: list[str], preformatted: bool) -> str:
    """Return the text of a line: character references resolved, invisible characters removed, blanks collapsed.

    Preformatted text keeps its line breaks and blanks, except blanks at the ends of lines and empty lines around it.
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
