"""Extract the text of a decoded web page.

The page is split into blocks (filters.html.blocks). Two small networks (filters.html.model) score each block; blocks
with high scores are the main text. The inputs of the first network describe the block's text and its position in the
tree (filters.html.features). The inputs of the second network are the scores of related blocks (filters.html.context).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from filters.formats.characters import INVISIBLE, compose
from filters.html.blocks import Page, parse_blocks
from filters.html.features import describe_blocks
from filters.html.model import CELLS, MODEL, Model, average_tables, score_blocks, select_blocks
from filters.reasons import Reason

# Attributes per tag. The parser compares each attribute with all earlier ones, which takes seconds from about 30,000
# attributes.
MAX_ATTRIBUTES = 1_000
# Attributes per tag. A quick first check (_MANY) finds that most pages have no tag with this many attributes. The time
# of that check is quadratic in this number.
MANY_ATTRIBUTES = 64
LISTING_DEPTH = 8  # Levels of containers that are searched between a table cell and the text in it.
MIN_CHECKED_LENGTH = 1 << 16  # Characters. Shorter pages cannot contain enough attributes to slow down the parser.

_END_TAG = re.compile("</")  # Counting with this pattern takes two thirds of the time of str.count.
_TAG = re.compile(r"<(/?[a-zA-Z][a-zA-Z0-9]{0,20})")
# Void elements, and elements with an optional end tag. They are not counted, because many of them side by side without
# end tags are not nested.
_NOT_NESTING = frozenset(
    (
        "area base br col embed hr img input link meta param source track wbr "
        "p li dt dd option optgroup tr td th thead tbody tfoot colgroup rb rt rp"
    ).split()
)
_ATTRIBUTE = (
    r" [a-zA-Z-]++=\"[^\"]*+\"|"  # The usual form. The next lines match any form that the HTML tokenizer allows.
    r"(?:[ \t\n\f\r/]++=?[^ \t\n\f\r/>=]*+|=?[^ \t\n\f\r/>=]++)"
    r"(?:[ \t\n\f\r]*+=[ \t\n\f\r]*+(?:\"[^\"]*+\"|'[^']*+'|[^ \t\n\f\r>\"'][^ \t\n\f\r>]*+)?)?"
)
_OPENING, _NEXT_ATTRIBUTE = re.compile(r"<[a-zA-Z][^ \t\n\f\r/>]*+"), re.compile(_ATTRIBUTE)
# A tag with at least MANY_ATTRIBUTES attributes. If a tag name contains "<" and a letter, the match begins at the last
# such place, because a match from each of them would take quadratic time. The lookahead with a backreference works as
# an atomic group: it does not backtrack. Atomic groups themselves are reliable only from Python 3.11.5.
_MANY = re.compile(
    r"<[a-zA-Z][^ \t\n\f\r/><]*+(?:<(?![a-zA-Z])[^ \t\n\f\r/><]*+)*(?=[ \t\n\f\r/])"
    rf"(?:(?=({_ATTRIBUTE}))\1){{{MANY_ATTRIBUTES}}}"
)
_BLANK_LINES = re.compile(r"\n{3,}")


class ExtractionError(Exception):
    """The error for a page whose text cannot be extracted.

    Attributes:
        reason: The reason for the ledger.
        detail: The exact cause.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def extract_text(html: str, max_depth: int = 2_000, extractor: str = "main", model: Model = MODEL) -> str:
    """Return the text of a page, one paragraph per line, without image descriptions and list bullets.

    The text is in Unicode normalisation form C (UAX 15), the form of most pages.

    Args:
        html: The decoded page.
        max_depth: The largest allowed depth of nested elements. The parser takes quadratic time on deep nesting.
        extractor: "main" for the main text by our model, "resiliparse" for resiliparse's main content, or "all" for
            all visible text.
        model: The weights of the extractor "main".

    Raises:
        ExtractionError: The parser fails, or elements nest deeper than `max_depth`, or a tag has more than
            MAX_ATTRIBUTES attributes.
    """
    if _nests_deeper(html, max_depth):
        raise ExtractionError(Reason.TOO_LARGE, f"over {max_depth} nested elements")
    if len(html) > MIN_CHECKED_LENGTH and _has_too_many_attributes(html):
        raise ExtractionError(Reason.TOO_LARGE, f"a tag of over {MAX_ATTRIBUTES} attributes")
    try:
        if extractor == "resiliparse":
            return compose(_extract_with_resiliparse(html))
        return compose(_extract_blocks(html, model if extractor == "main" else None))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ExtractionError(Reason.EXTRACTION_FAILED, type(error).__name__) from error


def _extract_with_resiliparse(html: str) -> str:
    """Return the main content that resiliparse extracts from a page."""
    text = extract_plain_text(html, main_content=True, alt_texts=False, list_bullets=False)
    lines = "\n".join(line.strip() for line in INVISIBLE.sub("", text).split("\n"))
    return _BLANK_LINES.sub("\n\n", lines).strip("\n")


def _extract_blocks(html: str, model: Model | None) -> str:
    """Return the text of the blocks that the model selects, or of all blocks if `model` is None."""
    tree = HTMLTree.parse(html)
    page = parse_blocks(tree.body.html) if tree.body is not None else None
    if page is None or not page.texts:
        return ""
    chosen: Iterable[int] = range(len(page.texts))
    if model:
        scores = score_blocks(describe_blocks(page, tree.title or ""), page, model)
        chosen = select_blocks(average_tables(scores, page), page, model)
    line_numbers = _find_line_numbers(page) if "pre" in page.tags else set()
    parts: list[str] = []
    last = -1
    for index in chosen:
        if index not in line_numbers:
            parts += [page.gaps[index] if index == last + 1 else "\n\n", page.texts[index]]
        last = index
    return "".join(parts[1:])


def _find_line_numbers(page: Page) -> set[int]:
    """Return the indexes of the blocks that are line numbers of code listings in tables.

    The numbers are in the cell before the cell of the listing. There is one cell with all numbers, or one cell per row.
    Each number is one more than the number before it.
    """
    columns = defaultdict[int, list[int]](list)  # From the parent of the rows to the blocks of the cells with numbers.
    seen = 0  # Blocks before this index are already in `columns`.
    for listing in [place for place, tag in enumerate(page.tags) if tag == "pre"]:
        cell = next((place for place in page.iter_ancestors(listing, LISTING_DEPTH) if page.tags[place] in CELLS), 0)
        row = page.parents[cell]
        before = next(
            (place for place in page.iter_ancestors(cell - 1, LISTING_DEPTH) if page.parents[place] == row), 0
        )
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


def _has_too_many_attributes(html: str) -> bool:
    """Return True if a tag has more than MAX_ATTRIBUTES attributes."""
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
    """Return True if elements nest deeper than `limit`. Counts tags without parsing the page."""
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
            if opened[name[1:]] > 0:  # An end tag without a start tag is ignored.
                opened[name[1:]] -= 1
                depth -= 1
        elif name not in _NOT_NESTING:
            opened[name] += 1
            depth += 1
            if depth > limit:
                return True
    return False
