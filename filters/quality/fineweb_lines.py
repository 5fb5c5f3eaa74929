"""The four rules of FineWeb about lines (Penedo et al. 2024, arXiv 2406.17557, section 3.6)."""

from filters.quality.gopher import count_duplicates
from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep
from filters.settings import Count, Share

TERMINAL_MARKS = tuple(".?!…\"'”’»。？！؟।")  # FineWeb's list has the marks of more scripts


class FineWebLines(Rule):
    """Drop pages of lists and menus: few lines that end a sentence, short or repeated lines, few words per line.

    The four rules of FineWeb about lines (Penedo et al. 2024, arXiv 2406.17557, section 3.6).
    """

    REASONS = (
        Reason.FINEWEB_LINE_ENDS,
        Reason.FINEWEB_SHORT_LINES,
        Reason.FINEWEB_DUPLICATE_LINES,
        Reason.FINEWEB_FEW_WORDS,
    )

    # Defaults: the paper.

    line_ends: Share = 0.12  # smallest share of lines that end in a punctuation mark
    short_lines: Share = 0.67  # largest share of short lines
    short_line: Count = 30  # largest number of characters of a short line
    duplicate_characters: Share = 0.01  # largest share of characters in lines that repeat an earlier line
    lines_a_word: Share = 0.3  # largest number of line feeds per word

    def apply(self, page: Page, found: Found) -> Verdict:
        """Drop the page for the first reason, or keep it."""
        lines = [line for line in page.text.split("\n") if line.strip()]
        if sum(line.endswith(TERMINAL_MARKS) for line in lines) < self.line_ends * len(lines):
            return drop(Reason.FINEWEB_LINE_ENDS)
        if sum(len(line) <= self.short_line for line in lines) > self.short_lines * len(lines):
            return drop(Reason.FINEWEB_SHORT_LINES)
        if count_duplicates(lines)[1] > self.duplicate_characters * (len(page.text) - page.text.count("\n")):
            return drop(Reason.FINEWEB_DUPLICATE_LINES)
        if page.text.count("\n") > self.lines_a_word * len(page.text.split()):
            return drop(Reason.FINEWEB_FEW_WORDS)
        return keep()
