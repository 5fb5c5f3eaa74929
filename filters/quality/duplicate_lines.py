"""The rule of duplicate lines: CCNet's paragraph de-duplication, or the lines of C4's builder.

CCNet (Wenzek et al. 2020, section 3.1; cc_net: dedup.py, text_normalizer.py) calls a line of a document a paragraph.
Lines are compared by hashes of their normal form. A line counts once per document: a line that only its own document
repeats stays there once, and a line of two documents is a duplicate in both. A line whose normal form is empty (a blank
line, say) is no paragraph: it is neither counted nor removed.

The normal form of a whole text takes a few passes over it, since no step looks across a line feed: it is not a cased
letter (so that the Greek final sigma is safe), composes with nothing in NFD, and is kept until the last step.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Literal

import numpy as np
import numpy.typing as npt

from filters.hashing import Keys, Mask, run_starts
from filters.quality.c4 import url_digest
from filters.reasons import Reason
from filters.rule import Found, Page, Removed, Rule, Verdict, drop, edit, keep
from filters.settings import Positive

REMOVED_MARKS = (
    "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►"  # cc_net's 34; １ never occurs: digits are 0 by then
)
OTHER_DIGIT = re.compile(r"[^\D0-9]")  # digits of other scripts; ASCII's are replaced in bytes, at a tenth of the cost
NO_PARAGRAPH = np.uint64(0)

_REMOVED = re.compile(f"[{REMOVED_MARKS}\x80-\x9f]")
_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_CONTROLS = bytes([*range(10), *range(11, 32), 127])  # ASCII's control characters except the line feed


class DuplicateLines(Rule):
    """Remove lines that also occur in other documents, among those that the earlier rules keep.

    The rule of duplicate lines: CCNet's paragraph de-duplication (section 3.1), or the lines of C4's builder.

    Attributes:
        scope: which documents are compared with each other. `files`: groups of that many `files` of one crawl, selected
            by keyed hash of their names; `dump`: one crawl; `all`: the whole source.
        files: size of a group of `scope: files`. CCNet cuts a crawl into 1,600 parts and compares 50 of them, which is
            2,000 of the 64,000 files of a crawl of 2019.
        keep: `none` removes every copy, as CCNet does. `first` keeps the copy in the document with the smallest id.
        normalise: `ccnet` compares lines in CCNet's normal form. `c4` compares them stripped and in lower case, as C4's
            builder does. With `c4` and `first`, the copy stays in the page whose normalised URL has the smallest MD5.
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

    def hashes(self, text: str) -> Keys:
        """Return (lines,) the keys by which lines are compared; 0 for a line that is compared with none."""
        return line_keys(text.split("\n")) if self.normalise == "c4" else paragraph_hashes(text)

    def identity(self, document: bytes, url: str) -> int:
        """Return the number of a document that decides which copy stays: the smallest."""
        return int.from_bytes((url_digest(url) if self.normalise == "c4" else document)[:8], "big")


def line_hashes(text: str) -> Keys:
    """Return a hash of the normal form of each line of a text, in order: one more than the text has line feeds.

    It is the first 8 bytes of the SHA-1 of the form in UTF-8, as a little-endian unsigned integer.
    """
    sha1 = hashlib.sha1
    digests = b"".join([sha1(line).digest()[:8] for line in normal_form(text).split(b"\n")])
    return np.frombuffer(digests, "<u8").astype(np.uint64, copy=False)


def paragraph_hashes(text: str) -> Keys:
    """Return `line_hashes` of a text, with `NO_PARAGRAPH` for lines with an empty normal form."""
    hashes = line_hashes(text)
    return np.where(hashes == _EMPTY, NO_PARAGRAPH, hashes)


def repeat_mask(hashes: Keys, documents: npt.NDArray[np.int64]) -> Mask:
    """Return a mask of the lines that equal an earlier line of the same document.

    Args:
        hashes: (lines,) uint64, of `paragraph_hashes`.
        documents: (lines,) the document that each line belongs to, ascending.
    """
    order = np.lexsort([hashes, documents])  # stable: the earliest of equal lines comes first
    found = np.zeros(len(hashes), np.bool_)
    found[order] = ~run_starts(documents[order], hashes[order])
    return np.asarray(found & (hashes != NO_PARAGRAPH))


def later_copy_mask(keys: Keys, identities: Keys, places: npt.NDArray[np.int64]) -> Mask:
    """Return a mask of the keys that another entry with a smaller (identity, place) has as well."""
    order = np.lexsort([places, identities, keys])
    found = np.zeros(len(keys), np.bool_)
    found[order] = ~run_starts(keys[order])
    return found


def remove_lines(text: str, removed: Mask) -> str:
    """Return a text without some of its lines, and without blank lines at its ends or beside another blank line.

    Args:
        text: returned as it is if no line is removed.
        removed: (lines,) bool, True for a line to remove.
    """
    if not removed.any():
        return text
    kept: list[str] = []
    for line, is_removed in zip(text.split("\n"), removed.tolist(), strict=True):
        if not is_removed and (line.strip() or (kept and kept[-1].strip())):
            kept.append(line)
    if kept and not kept[-1].strip():
        kept.pop()
    return "\n".join(kept)


def strip_lines(text: str) -> str:
    """Return a text with each of its lines stripped."""
    return "\n".join([line.strip() for line in text.split("\n")])


def encode_plain(text: str) -> bytes:
    """Return a text in UTF-8 with ASCII's digits as 0 and without its control characters except line feeds."""
    return text.encode().translate(_TO_ZERO, _CONTROLS)


def normal_form(text: str) -> bytes:
    """Return a text in UTF-8 with its lines stripped, in lower case, digits as 0, without marks and controls."""
    text = strip_lines(text).lower()
    return encode_plain(text if text.isascii() else _REMOVED.sub("", OTHER_DIGIT.sub("0", text)))


def line_keys(lines: Iterable[str]) -> Keys:
    """Return (lines,) uint64: the first 64 bits of the MD5 of each line, stripped and in lower case, as in the builder.

    0, which stands for no line, becomes 1.
    """
    digests = (hashlib.md5(line.strip().lower().encode(), usedforsecurity=False).digest() for line in lines)
    return np.fromiter((int.from_bytes(digest[:8], "big") or 1 for digest in digests), np.uint64)


_EMPTY = line_hashes("")[0]
