"""The rules of length, in characters."""

from typing import Literal

from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep
from filters.settings import Count, Positive


class MinCharacters(Rule):
    """Drop short documents: as extracted, or with `at: filter` as the rules before leave them."""

    REASONS = (Reason.TOO_SHORT,)
    SHORT = "least"
    AT = ("extract", "filter")

    least: Count = 300  # CCNet drops documents with fewer characters (cc_net, process_wet_file.py)
    at: Literal["extract", "filter"] = "extract"

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the document stays."""
        return drop(Reason.TOO_SHORT) if len(page.text) < self.least else keep()


class MaxCharacters(Rule):
    """Drop overlong pages. C4's builder does so before it looks for the newest page under a URL."""

    REASONS = (Reason.C4_PAGE_TOO_LONG,)
    SHORT = "most"

    most: Positive = 190_000  # C4's builder (c4_utils.py)

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the page stays."""
        return drop(Reason.C4_PAGE_TOO_LONG) if len(page.text) > self.most else keep()
