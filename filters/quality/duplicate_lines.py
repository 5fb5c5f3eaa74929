"""The rule of duplicate lines: CCNet's paragraph de-duplication (section 3.1), or the lines of C4's builder."""

import hashlib
from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

from filters.dedup.paragraphs import paragraph_hashes, remove_lines
from filters.quality.newest_url import url_digest
from filters.reasons import Reason
from filters.rule import Found, Page, Removed, Rule, Verdict, drop, edit, keep
from filters.settings import Positive


class DuplicateLines(Rule):
    """Remove lines that occur elsewhere, among the documents that the rules before leave.

    Attributes:
        scope: documents that are compared with one another: `files`, groups of that many `files` of one crawl, drawn by
            keyed hash of their names; `dump`, one crawl; `all`, the whole source.
        files: see `scope`. CCNet cuts a crawl into 1,600 parts and compares 50 of them: one in 32, which is 2,000 of
            the 64,000 files of a crawl of 2019.
        keep: `none` removes every copy, as CCNet does; `first` leaves the copy in the document of the smallest id.
        normalise: `ccnet` compares lines in CCNet's normal form; `c4` stripped and in lower case, as C4's builder does
            after its page rules. With `c4` and `first` the copy stays that is in the page whose URL, as C4 normalises
            it, has the smallest MD5.
    """

    REASONS = (Reason.ONLY_DUPLICATE_LINES, Reason.DUPLICATE_LINE)
    FIXED = ("scope", "files", "keep", "normalise")

    scope: Literal["files", "dump", "all"] = "dump"
    files: Positive = 2_000
    keep: Literal["none", "first"] = "none"
    normalise: Literal["ccnet", "c4"] = "ccnet"

    @property
    def needs(self) -> str:
        """The stage that compares the lines of all documents."""
        return "line_dedup"

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return the text without duplicate lines. The verdict is a mask of its lines, True for a duplicate.

        Raises:
            LookupError: the verdict belongs to another text.
        """
        mask = found.verdict
        if len(mask) != page.text.count("\n") + 1:
            raise LookupError("the kept line verdicts belong to another text")
        if not mask.any():
            return keep()
        left = remove_lines(page.text, mask)
        if not left:
            return drop(Reason.ONLY_DUPLICATE_LINES)
        return edit(left, {Reason.DUPLICATE_LINE: Removed(int(mask.sum()), len(page.text) - len(left))})

    def hashes(self, text: str) -> npt.NDArray[np.uint64]:
        """Return (lines,) the keys by which lines are compared; 0 for a line that is compared with none."""
        return line_keys(text.split("\n")) if self.normalise == "c4" else paragraph_hashes(text)

    def identity(self, document: bytes, url: str) -> int:
        """Return the number of a document that decides which copy stays: the smallest."""
        return int.from_bytes((url_digest(url) if self.normalise == "c4" else document)[:8], "big")


def line_keys(lines: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return (lines,) uint64: the first 64 bits of the MD5 of each line, stripped and in lower case, as in the builder.

    0, which stands for no line, becomes 1.
    """
    digests = (hashlib.md5(line.strip().lower().encode(), usedforsecurity=False).digest() for line in lines)
    return np.fromiter((int.from_bytes(digest[:8], "big") or 1 for digest in digests), np.uint64)
