"""Extract the text of a decoded web page.

The main text is the blocks of a page (filters.html.blocks) that two small networks (filters.html.model) take for main
text, by evidence from the text and its place in the tree (filters.html.features), and by what they make of the blocks
around (filters.html.context).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from filters.formats.characters import INVISIBLE, compose
from filters.html.blocks import Page, parse_blocks
from filters.html.features import describe_blocks
from filters.html.model import CELLS, MODEL, Model, level_tables, score_blocks, select_blocks
from filters.reasons import Reason

MAX_ATTRIBUTES = 1_000  # of one tag: the parser compares each with all before it, seconds from some 30,000 on
MANY_ATTRIBUTES = 64  # most pages have no tag with as many, which is quick to check, in time quadratic in this number
LISTING_DEPTH = 8  # levels of containers in a cell of a table around its text
ATTRIBUTES_FROM = 1 << 16  # characters: shorter pages have no room for enough attributes to matter

_END_TAG = re.compile("</")  # counted so in two thirds of the time that str.count takes
_TAG = re.compile(r"<(/?[a-zA-Z][a-zA-Z0-9]{0,20})")
_NOT_NESTING = frozenset(  # void elements, and those with an optional end tag: many of them side by side are no depth
    (
        "area base br col embed hr img input link meta param source track wbr "
        "p li dt dd option optgroup tr td th thead tbody tfoot colgroup rb rt rp"
    ).split()
)
_ATTRIBUTE = (
    r" [a-zA-Z-]++=\"[^\"]*+\"|"  # the usual form; the rest is any form that the tokenizer's rules allow
    r"(?:[ \t\n\f\r/]++=?[^ \t\n\f\r/>=]*+|=?[^ \t\n\f\r/>=]++)"
    r"(?:[ \t\n\f\r]*+=[ \t\n\f\r]*+(?:\"[^\"]*+\"|'[^']*+'|[^ \t\n\f\r>\"'][^ \t\n\f\r>]*+)?)?"
)
_OPENING, _NEXT_ATTRIBUTE = re.compile(r"<[a-zA-Z][^ \t\n\f\r/>]*+"), re.compile(_ATTRIBUTE)
# A name that holds tag openings is matched from the last of them, since matching it from each takes quadratic time. A
# lookahead is matched in one way only, as atomic groups are from Python 3.11.5 on.
_MANY = re.compile(
    r"<[a-zA-Z][^ \t\n\f\r/><]*+(?:<(?![a-zA-Z])[^ \t\n\f\r/><]*+)*(?=[ \t\n\f\r/])"
    rf"(?:(?=({_ATTRIBUTE}))\1){{{MANY_ATTRIBUTES}}}"
)
_BLANK_LINES = re.compile(r"\n{3,}")


class ExtractionError(Exception):
    """A page that yields no text: `reason` is the drop reason, `detail` the exact cause."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def extract_text(html: str, max_depth: int = 2_000, extractor: str = "main", model: Model = MODEL) -> str:
    """Return the text of a page, one paragraph per line, without image descriptions and list bullets.

    Letters with marks are composed (Unicode's normalisation form C, UAX 15), as most pages write them.

    Args:
        html: The decoded page.
        max_depth: Nested elements, since the parser takes quadratic time on deep nesting.
        extractor: "main" for the main text by our model, "resiliparse" for resiliparse's main content, or "all" for
            all visible text.
        model: The weights of the extractor "main".

    Raises:
        ExtractionError: The parser refuses the page, or it nests deeper than `max_depth`, or a tag has more than
            MAX_ATTRIBUTES attributes.
    """
    if _nests_deeper(html, max_depth):
        raise ExtractionError(Reason.TOO_LARGE, f"over {max_depth} nested elements")
    if len(html) > ATTRIBUTES_FROM and _has_crowded_tag(html):
        raise ExtractionError(Reason.TOO_LARGE, f"a tag of over {MAX_ATTRIBUTES} attributes")
    try:
        if extractor == "resiliparse":
            return compose(_extract_peer_text(html))
        return compose(_extract_own_text(html, model if extractor == "main" else None))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExtractionError(Reason.EXTRACTION_FAILED, type(error).__name__) from error


def _extract_peer_text(html: str) -> str:
    """Return the main content as resiliparse finds it."""
    text = extract_plain_text(html, main_content=True, alt_texts=False, list_bullets=False)
    lines = "\n".join(line.strip() for line in INVISIBLE.sub("", text).split("\n"))
    return _BLANK_LINES.sub("\n\n", lines).strip("\n")


def _extract_own_text(html: str, model: Model | None) -> str:
    """Return the text of the blocks that the model takes for main text, or of all blocks without a model."""
    tree = HTMLTree.parse(html)
    page = parse_blocks(tree.body.html) if tree.body is not None else None
    if page is None or not page.texts:
        return ""
    chosen: Iterable[int] = range(len(page.texts))
    if model:
        scores = score_blocks(describe_blocks(page, tree.title or ""), page, model)
        chosen = select_blocks(level_tables(scores, page), page, model)
    line_numbers = _find_line_numbers(page) if "pre" in page.tags else set()
    parts: list[str] = []
    last = -1
    for index in chosen:
        if index not in line_numbers:
            parts += [page.gaps[index] if index == last + 1 else "\n\n", page.texts[index]]
        last = index
    return "".join(parts[1:])


def _find_line_numbers(page: Page) -> set[int]:
    """Return the blocks that number the lines of listings in tables.

    They are in the cells before those of the listings, one cell for all lines or one a row, and each number is one more
    than the number before it.
    """
    columns = defaultdict[int, list[int]](list)  # by the parent of the rows, the blocks of these cells
    seen = 0  # the blocks before it are of a cell that was looked at
    for listing in [place for place, tag in enumerate(page.tags) if tag == "pre"]:
        cell = next((place for place in page.climb(listing, LISTING_DEPTH) if page.tags[place] in CELLS), 0)
        row = page.parents[cell]
        before = next((place for place in page.climb(cell - 1, LISTING_DEPTH) if page.parents[place] == row), 0)
        if before and page.starts[before] >= seen:
            seen = page.ends[before]
            columns[page.parents[row]] += range(page.starts[before], seen)
    found = set[int]()
    for blocks in columns.values():
        numbers = " ".join([page.texts[block] for block in blocks]).split()
        if len(numbers) > 1 and all(len(number) < 9 and number.isdecimal() for number in numbers):
            first = int(numbers[0])
            if [*map(int, numbers)] == [*range(first, first + len(numbers))]:
                found.update(blocks)
    return found


def _has_crowded_tag(html: str) -> bool:
    if not _MANY.search(html):
        return False
    position = 0
    while tag := _OPENING.search(html, position):
        position, attributes = tag.end(), 0
        while attribute := _NEXT_ATTRIBUTE.match(html, position):
            position, attributes = attribute.end(), attributes + 1
            if attributes > MAX_ATTRIBUTES:
                return True
    return False


def _nests_deeper(html: str, limit: int) -> bool:
    """Return True if elements nest deeper than `limit`, counted in one pass over the tags."""
    brackets = html.count("<")
    if brackets <= limit or brackets - len(_END_TAG.findall(html)) <= limit:
        return False
    tags = _TAG.findall(html)
    if sum(count for tag, count in Counter(tags).items() if tag[0] != "/" and tag.lower() not in _NOT_NESTING) <= limit:
        return False
    depth = 0
    opened = Counter[str]()
    for tag in tags:
        name = tag.lower()
        if name[0] == "/":
            if opened[name[1:]] > 0:  # an end tag without a start tag ends nothing
                opened[name[1:]] -= 1
                depth -= 1
        elif name not in _NOT_NESTING:
            opened[name] += 1
            depth += 1
            if depth > limit:
                return True
    return False
