"""The rules of a record's HTTP status and of a text's length."""

from typing import Literal

from filters.reasons import AnyReason, Reason
from filters.rule import ExtractRule, Found, Page, Record, Rule, Verdict
from filters.settings import Count


class HttpStatus(ExtractRule):
    """Drop HTTP responses that are not pages, such as errors and redirects. Records without a status stay.

    The rule of the HTTP status, before a page's body is decoded.
    """

    REASONS = (Reason.REDIRECT, Reason.HTTP_STATUS)
    SHORT = "keep"

    keep: list[int] = [200]  # HTTP statuses to keep

    def check_record(self, record: Record) -> AnyReason | None:
        """Return the reason to drop a record, or None."""
        if record.status is None or record.status in self.keep:
            return None
        return Reason.REDIRECT if 300 <= record.status < 400 else Reason.HTTP_STATUS


class MinCharacters(Rule):
    """Drop short documents: as extracted, or with `at: filter` after the earlier rules.

    The rule of CCNet about length, in characters.
    """

    REASONS = (Reason.TOO_SHORT,)
    SHORT = "least"
    AT = ("extract", "filter")

    least: Count = 300  # smallest number of characters; default: CCNet (process_wet_file.py)
    at: Literal["extract", "filter"] = "extract"

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the document stays."""
        return Verdict(reason=Reason.TOO_SHORT if len(page.text) < self.least else None)
