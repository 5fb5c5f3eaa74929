"""Define lines that are equal or similar in several pages of the WET files, and the expected result of CCNet's rule.

A line is a duplicate if its normalised form occurred before. Normalisation removes white space at both ends, converts
to lower case, replaces every digit by 0, and removes some Unicode punctuation and control characters
(cc_net/text_normalizer.py, normalize_for_dedup). ASCII punctuation and accents stay. A line that is repeated only
within one page is kept once (cc_net/dedup.py, finalize_doc).
"""

from dataclasses import dataclass

from gazetteer import Entry

SITE = "https://lines.example"


@dataclass(frozen=True)
class Group:
    """A group of copies of one line.

    Attributes:
        what: A description.
        copies: (page, line) of each copy. Names of pages begin with a in the first crawl and with b in the second.
        left: The number of copies that stay with four settings of the rule (scope, keep): (dump, none), (dump, first),
            (all, none) and (all, first).
    """

    what: str
    copies: tuple[tuple[str, str], ...]
    left: tuple[int, int, int, int]

    def row(self, files: dict[str, str]) -> dict[str, object]:
        """Return the group as an entry of planted-lines.json.

        Args:
            files: The WET file of each URL.
        """
        copies = [{"file": files[url(page)], "url": url(page), "line": line} for page, line in self.copies]
        return {"what": self.what, "copies": copies, "left": left(self.left)}


def left(numbers: tuple[int, int, int, int]) -> dict[str, dict[str, int]]:
    """Return the numbers of `Group.left` as nested dicts: {scope: {keep: number}}."""
    dump_none, dump_first, all_none, all_first = numbers
    return {"dump": {"none": dump_none, "first": dump_first}, "all": {"none": all_none, "first": all_first}}


def url(page: str) -> str:
    """Return the URL of a planted page."""
    return f"{SITE}/{page}.html"


def on(pages: str, line: str) -> tuple[tuple[str, str], ...]:
    """Return (page, line) of one line on several pages, whose names are separated by spaces."""
    return tuple((page, line) for page in pages.split())


GONE, STAY = (0, 1, 0, 1), (2, 2, 2, 2)
GROUPS = (
    Group(
        "a notice on every page of one crawl",
        on("a0 a1 a2 a3 a4 a5", "Sign in to leave a remark below this entry of the gazetteer."), GONE,
    ),
    Group(
        "a menu on pages of both crawls",
        on("a0 a1 a4 b0 b1 b4", "Home | Places | Rivers | People | Write to the editors"), (0, 2, 0, 1),
    ),
    Group(
        "once in each crawl",
        on("a0 b0", "The editors thank the county record office for leave to use its shelves."), (2, 2, 0, 1),
    ),
    Group("once in each crawl, a short line", on("a1 b2", "Printed on both sides"), (2, 2, 0, 1)),
    Group("three times on one page, nowhere else", on("a2 a2 a2", "Back to the top of this page"), (1, 1, 1, 1)),
    Group("twice on one page, once on another", on("a2 a2 a3", "Next entry of the gazetteer"), GONE),
    Group("twice on one page, once in the other crawl", on("a3 a3 b3", "Entry before this one"), (2, 2, 0, 1)),
    Group(
        "only digits differ",
        (("a4", "Seen 1204 times since 1998, last on 03/11."), ("a5", "Seen 3377 times since 2001, last on 28/02.")),
        GONE,
    ),
    Group(
        "only digits differ, in two crawls",
        (("a4", "Readers today: 417"), ("b5", "Readers today: 902")), (2, 2, 0, 1),
    ),
    Group("the number of digits differs", (("a4", "Letters so far: 99"), ("a5", "Letters so far: 100")), STAY),
    Group("only the case differs", (("b1", "WRITE TO US BY POST"), ("b2", "Write to us by post")), GONE),
    Group(
        "only quotation marks, dashes and dots of Unicode differ",
        (
            ("b1", "Our motto – “look it up” – hangs above the door…"),
            ("b2", "Our motto  look it up  hangs above the door"),
            ("b3", "Our motto — «look it up» — hangs above the door"),
        ),
        GONE,
    ),
    Group("a control character more", (("b3", "Errata \x96 last volume"), ("b4", "Errata  last volume")), GONE),
    Group("outer white space differs", (("b3", "  \tSubscribers only"), ("b4", "Subscribers only ")), GONE),
    Group("only ASCII punctuation differs", (("b4", "Corrections, please."), ("b5", "Corrections please!")), STAY),
    Group("only an accent differs", (("b4", "The café is open"), ("b5", "The cafe is open")), STAY),
)  # fmt: skip
# Pairs of pages with the same lines: (description, page, page, number of the two pages that stay, as in `Group.left`).
# The other pages are dropped with the reason only-duplicate-lines.
TWINS = (
    ("the same lines in another order, in one crawl", "a6", "a7", GONE),
    ("the same page in both crawls, under two addresses", "b6", "a8", (2, 2, 0, 1)),
)


def pages(entries: list[Entry]) -> list[tuple[str, str]]:
    """Return (page, text) of all planted pages. A page is an entry of the gazetteer with planted lines inserted."""
    names = [f"{crawl}{number}" for crawl in "ab" for number in range(6)] + [first for _, first, _, _ in TWINS]
    text = dict[str, list[str]]()
    for name, entry in zip(names, entries, strict=False):
        text[name] = [entry.title, *(paragraph for _, section in entry.sections for paragraph in section)]
    for group in GROUPS:
        for number, (name, line) in enumerate(group.copies):
            text[name].insert(2 + number, line)
    for _, first, second, _ in TWINS:
        text[second] = [text[first][0], *reversed(text[first][1:])]
    return [(name, "\n".join(lines)) for name, lines in text.items()]


def rows(files: dict[str, str], recrawled: list[str]) -> dict[str, object]:
    """Return the contents of planted-lines.json.

    Args:
        files: The WET file of each URL.
        recrawled: The URLs of pages that are unchanged in both crawls.
    """
    twins = [(what, [url(first), url(second)], numbers) for what, first, second, numbers in TWINS]
    twins += [("the same address in both crawls", [address, address], (2, 2, 0, 1)) for address in recrawled]
    return {
        "lines": [group.row(files) for group in GROUPS],
        "documents": [{"what": what, "urls": urls, "left": left(numbers)} for what, urls, numbers in twins],
    }
