"""The rules for files of code (LLaMA, section 2.1), as settings of a recipe; `filters.code.rules` measures."""

from filters.code.rules import CodeLimits, find_drop_reason
from filters.reasons import Reason
from filters.rule import ExtractRule, Found, Page, Verdict, drop, keep


class Code(CodeLimits, ExtractRule):
    """Drop generated and minified files, and files with odd lines or few letters."""

    REASONS = (
        Reason.NO_TEXT,
        Reason.GENERATED_FILE,
        Reason.MINIFIED_FILE,
        Reason.CODE_LONG_LINE,
        Reason.CODE_LONG_LINES,
        Reason.CODE_FEW_ALPHANUMERICS,
        Reason.CODE_FEW_LETTERS,
    )

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the file stays. Its language is that of its programs."""
        reason = find_drop_reason(page.text, page.language, self)
        return keep() if reason is None else drop(reason)
