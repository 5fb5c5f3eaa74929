"""The rule `duplicate_lines`: remove duplicate lines as CCNet or as C4's builder does.

CCNet (Wenzek et al. 2020, section 3.1; cc_net: dedup.py, text_normalizer.py) calls a line of a document a paragraph.
Lines are compared by hashes of their normal form. A line counts once per document: if a line is repeated only within
one document, one copy of it stays there. A line that occurs in two documents is a duplicate in both. A line with an
empty normal form (for example a blank line) is no paragraph. It is neither counted nor removed.

The functions that compute normal forms process a whole text at once, which takes a few passes over it. The result is
the same as line by line, because no step looks across a line feed. A line feed is not a cased letter (so the lower case
of a Greek final sigma is correct), does not compose with any character in NFD, and is kept until the last step.
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
# Digits that are not ASCII. ASCII digits are replaced in the encoded bytes, which takes a tenth of the time.
OTHER_DIGIT = re.compile(r"[^\D0-9]")
NO_PARAGRAPH = np.uint64(0)  # the key of a line that is not compared

_REMOVED = re.compile(f"[{REMOVED_MARKS}\x80-\x9f]")
_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_CONTROLS = bytes([*range(10), *range(11, 32), 127])  # ASCII's control characters except the line feed


class DuplicateLines(Rule):
    """Remove lines that also occur in other documents, among the documents that the earlier rules keep.

    This is CCNet's paragraph de-duplication (section 3.1), or the removal of duplicate lines in C4's builder.

    Attributes:
        scope: which documents are compared with each other. `files`: the documents of a group of files of one crawl,
            where files are grouped by a keyed hash of their names; `dump`: one crawl; `all`: the whole source.
        files: number of files in a group of `scope: files`. CCNet cuts a crawl into 1,600 parts and compares 50 of
            them, which is 2,000 of the 64,000 files of a crawl of 2019.
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
        """The name of the stage that compares the lines of all documents."""
        return "line_dedup"

    def apply(self, page: Page, found: Found) -> Verdict:
        """Remove the duplicate lines of a document, or drop it if no line is left.

        Args:
            page: the document.
            found: the verdict is a mask of its lines, True for a duplicate.

        Raises:
            LookupError: the number of lines in the verdict is not that of the text.
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
        """Return (lines,) the keys by which lines are compared; 0 for a line that is not compared."""
        return line_keys(text.split("\n")) if self.normalise == "c4" else paragraph_hashes(text)

    def identity(self, document: bytes, url: str) -> int:
        """Return the sort key of a document. With `keep: first`, the document with the smallest key keeps its copy."""
        return int.from_bytes((url_digest(url) if self.normalise == "c4" else document)[:8], "big")


def line_hashes(text: str) -> Keys:
    """Hash the normal form of each line of a text.

    A hash is the first 8 bytes of the SHA-1 of the normal form in UTF-8, as a little-endian unsigned integer.

    Returns:
        (lines,) uint64. There is one line more than there are line feeds.
    """
    sha1 = hashlib.sha1
    digests = b"".join([sha1(line).digest()[:8] for line in normal_form(text).split(b"\n")])
    return np.frombuffer(digests, "<u8").astype(np.uint64, copy=False)


def paragraph_hashes(text: str) -> Keys:
    """Return the `line_hashes` of a text, but `NO_PARAGRAPH` for each line with an empty normal form."""
    hashes = line_hashes(text)
    return np.where(hashes == _EMPTY, NO_PARAGRAPH, hashes)


def repeat_mask(hashes: Keys, documents: npt.NDArray[np.int64]) -> Mask:
    """Return a mask that is True for each line that equals an earlier line of the same document.

    Args:
        hashes: (lines,) uint64, from `paragraph_hashes`.
        documents: (lines,) the number of the document that contains the line, ascending.
    """
    order = np.lexsort([hashes, documents])  # stable: the earliest of equal lines comes first
    found = np.zeros(len(hashes), np.bool_)
    found[order] = ~run_starts(documents[order], hashes[order])
    return np.asarray(found & (hashes != NO_PARAGRAPH))


def later_copy_mask(keys: Keys, identities: Keys, places: npt.NDArray[np.int64]) -> Mask:
    """Return a mask that is True for each entry whose key also occurs with a smaller (identity, place).

    Args:
        keys: (n,) keys of lines.
        identities: (n,) `DuplicateLines.identity` of the document of each line.
        places: (n,) place of each line in its document.
    """
    order = np.lexsort([places, identities, keys])
    found = np.zeros(len(keys), np.bool_)
    found[order] = ~run_starts(keys[order])
    return found


def remove_lines(text: str, removed: Mask) -> str:
    """Remove lines from a text. Also remove blank lines at its beginning and end, and after another blank line.

    Args:
        text: the text. It is returned unchanged if `removed` is False for all lines.
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
    """Encode a text in UTF-8, replace ASCII digits by 0, and remove ASCII control characters except line feeds."""
    return text.encode().translate(_TO_ZERO, _CONTROLS)


def normal_form(text: str) -> bytes:
    """Return CCNet's normal form of the lines of a text, in UTF-8.

    Each line is stripped and converted to lower case, digits become 0, and punctuation marks and control characters are
    removed.
    """
    text = strip_lines(text).lower()
    return encode_plain(text if text.isascii() else _REMOVED.sub("", OTHER_DIGIT.sub("0", text)))


def line_keys(lines: Iterable[str]) -> Keys:
    """Return the keys by which C4's builder compares lines.

    A key is the first 64 bits of the MD5 of the line, stripped and in lower case. A key of 0 is replaced by 1, because
    0 marks a line that is not compared.

    Returns:
        (lines,) uint64.
    """
    digests = (hashlib.md5(line.strip().lower().encode(), usedforsecurity=False).digest() for line in lines)
    return np.fromiter((int.from_bytes(digest[:8], "big") or 1 for digest in digests), np.uint64)


_EMPTY = line_hashes("")[0]
