"""FineWeb's rules about lines (Penedo et al. 2024, arXiv 2406.17557), as in the code that built the data set.

The paper (section 3.6) has three rules, with a threshold of 0.1 for the share of characters in repeated lines. The code
(`fineweb_quality_filter.py` of datatrove) has four rules and a threshold of 0.01. A page whose value equals a threshold
is kept.
"""

from filters.quality.gopher import count_duplicates
from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep
from filters.settings import Count, Share

TERMINAL_MARKS = tuple(".?!…\"'”’»。？！؟।")  # FineWeb's list has the marks of more scripts


class FineWebLines(Rule):
    """Drop pages of lists and menus: few lines that end a sentence, short or repeated lines, few words per line.

    These are FineWeb's rules about lines (Penedo et al. 2024, arXiv 2406.17557, section 3.6), as in FineWeb's code.
    """

    REASONS = (
        Reason.FINEWEB_LINE_ENDS,
        Reason.FINEWEB_SHORT_LINES,
        Reason.FINEWEB_DUPLICATE_LINES,
        Reason.FINEWEB_FEW_WORDS,
    )

    # Defaults: datatrove's FineWebQualityFilter.

    line_ends: Share = 0.12  # smallest share of lines that end in a punctuation mark
    short_lines: Share = 0.67  # largest share of short lines
    short_line: Count = 30  # largest number of characters of a short line
    duplicate_characters: Share = (
        0.01  # largest share of characters in lines that repeat an earlier line; the paper: 0.1
    )
    lines_a_word: Share = 0.3  # largest number of line feeds per word

    def apply(self, page: Page, found: Found) -> Verdict:
        """Drop the page for the first reason that applies, or keep it."""
        lines, feeds = [line for line in page.text.split("\n") if line.strip()], page.text.count("\n")
        if not lines:
            return keep()
        if sum(line.endswith(TERMINAL_MARKS) for line in lines) / len(lines) < self.line_ends:
            return drop(Reason.FINEWEB_LINE_ENDS)
        if sum(len(line) <= self.short_line for line in lines) / len(lines) > self.short_lines:
            return drop(Reason.FINEWEB_SHORT_LINES)
        if count_duplicates(lines)[1] / (len(page.text) - feeds) > self.duplicate_characters:
            return drop(Reason.FINEWEB_DUPLICATE_LINES)
        if feeds / len(page.text.split()) > self.lines_a_word:
            return drop(Reason.FINEWEB_FEW_WORDS)
        return keep()
