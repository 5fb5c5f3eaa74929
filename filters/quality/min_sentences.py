"""The rule that counts sentences again: C4's builder does so after duplicate lines are gone."""

from filters.quality.c4 import has_enough_sentences
from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep
from filters.settings import Count


class MinSentences(Rule):
    """Drop pages with few sentences. Meant for text that `c4` has left."""

    REASONS = (Reason.C4_TOO_FEW_SENTENCES,)
    SHORT = "least"

    least: Count = 3  # C4, section 2.2: pages with fewer than three sentences go; as many in the builder

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the page stays."""
        enough = has_enough_sentences(page.text.split("\n"), self.least)
        return keep() if enough else drop(Reason.C4_TOO_FEW_SENTENCES)
