"""The rule of C4's builder that keeps one document under a URL: the newest; of equal times, that of the smaller id."""

import hashlib
import re

from filters.reasons import Reason
from filters.rule import Found, Page, Rule, Verdict, drop, keep

_SCHEME = re.compile(r"https?://(?:www\.)?")
_TRACKING = re.compile(r"\?(?:utm_|ref|feed).*")
_DIGITS = 18  # of a time


class NewestUrl(Rule):
    """Drop older copies of a page, among the documents that the rules before leave."""

    REASONS = (Reason.OLDER_COPY,)

    @property
    def needs(self) -> str:
        """The stage that compares the URLs of all documents."""
        return "url_dedup"

    def apply(self, page: Page, found: Found) -> Verdict:
        """Return whether the document stays. The verdict is True for an older copy."""
        return drop(Reason.OLDER_COPY) if found.verdict else keep()


def normalise_url(url: str) -> str:
    """Return the form of a URL by which pages are grouped (the builder's `normalize_url`).

    It has no scheme and no `www.`, wherever they occur, no tracking parameters if they come first, and no final slash.
    """
    return _TRACKING.sub("", _SCHEME.sub("", url)).rstrip("/")


def url_digest(url: str) -> bytes:
    """Return the MD5 of a URL's normal form, 16 bytes."""
    return hashlib.md5(normalise_url(url).encode(), usedforsecurity=False).digest()


def time_key(timestamp: str) -> int:
    """Return a number that orders times in ISO 8601 and UTC as they follow each other; 0 for none."""
    digits = "".join(character for character in timestamp if character.isascii() and character.isdigit())
    return int(digits[:_DIGITS].ljust(_DIGITS, "0") or 0)
