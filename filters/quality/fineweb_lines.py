"""The four rules of FineWeb about lines (Penedo et al. 2024, arXiv 2406.17557, section 3.6)."""

from filters.quality.gopher import count_duplicates
from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict
from filters.settings import Count, Share

TERMINAL_MARKS = tuple(".?!…\"'”’»。？！؟।")  # FineWeb's list has the marks of more scripts


class FineWebLines(Rule):
    """Drop pages of lists and menus: few lines that end a sentence, short lines, repeated lines, few words a line.

    The four rules of FineWeb about lines (Penedo et al. 2024, arXiv 2406.17557, section 3.6).
    """

    REASONS = (
        Reason.FINEWEB_LINE_ENDS,
        Reason.FINEWEB_SHORT_LINES,
        Reason.FINEWEB_DUPLICATE_LINES,
        Reason.FINEWEB_FEW_WORDS,
    )

    # the numbers of the paper
    line_ends: Share = 0.12  # least share of lines that end in a mark of punctuation
    short_lines: Share = 0.67  # most of the lines that have up to `short_line` characters
    short_line: Count = 30
    duplicate_characters: Share = 0.01  # in lines that are copies of an earlier one, of all characters
    lines_a_word: Share = 0.3  # line feeds for each word

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the page stays."""
        return Verdict(reason=check_lines(page.text, self))


def check_lines(text: str, rules: FineWebLines) -> Reason | None:
    """Return the first reason to drop a page; None to keep it."""
    lines = [line for line in text.split("\n") if line.strip()]
    if sum(line.endswith(TERMINAL_MARKS) for line in lines) < rules.line_ends * len(lines):
        return Reason.FINEWEB_LINE_ENDS
    if sum(len(line) <= rules.short_line for line in lines) > rules.short_lines * len(lines):
        return Reason.FINEWEB_SHORT_LINES
    if count_duplicates(lines)[1] > rules.duplicate_characters * (len(text) - text.count("\n")):
        return Reason.FINEWEB_DUPLICATE_LINES
    if text.count("\n") > rules.lines_a_word * len(text.split()):
        return Reason.FINEWEB_FEW_WORDS
    return None
