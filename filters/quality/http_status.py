"""The rule of the HTTP status, before a page's body is decoded."""

from filters.reasons import AnyReason, Reason
from filters.rule import ExtractRule, Record


class HttpStatus(ExtractRule):
    """Drop answers that are no pages, such as errors and redirects. Records without a status stay."""

    REASONS = (Reason.REDIRECT, Reason.HTTP_STATUS)
    SHORT = "keep"

    keep: list[int] = [200]

    def check_record(self, record: Record) -> AnyReason | None:
        """Return the reason to drop a record, or None."""
        if record.status is None or record.status in self.keep:
            return None
        return Reason.REDIRECT if 300 <= record.status < 400 else Reason.HTTP_STATUS
