"""Paragraph de-duplication as in CCNet (Wenzek et al. 2020, section 3.1; cc_net: dedup.py, text_normalizer.py).

A paragraph is a line of a document. Lines are compared by hashes of their normal form. A line counts once per document:
a line that only its own document repeats stays there once, and a line of two documents is a duplicate in both. A line
whose normal form is empty (a blank line, say) is no paragraph: it is neither counted nor removed.

The normal form of a whole text takes a few passes over it, since no step looks across a line feed: it is not a cased
letter (so that the Greek final sigma is safe), composes with nothing in NFD, and is kept until the last step.
"""

import hashlib
import re

import numpy as np
import numpy.typing as npt

from filters.hashing import Keys, Mask, run_starts

REMOVED_MARKS = (
    "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►"  # cc_net's 34; １ never occurs: digits are 0 by then
)
OTHER_DIGIT = re.compile(r"[^\D0-9]")  # digits of other scripts; ASCII's are replaced in bytes, at a tenth of the cost
NO_PARAGRAPH = np.uint64(0)

_REMOVED = re.compile(f"[{REMOVED_MARKS}\x80-\x9f]")
_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_CONTROLS = bytes([*range(10), *range(11, 32), 127])  # ASCII's control characters except the line feed


def normalize_for_dedup(line: str) -> str:
    """Return the normal form of a line: stripped, in lower case, digits as 0, without marks and control characters."""
    return _normalize(line.strip()).replace(b"\n", b"").decode()


def line_hash(line: str) -> int:
    """Return the first 8 bytes of the SHA-1 of a line's normal form in UTF-8 as a little-endian unsigned integer."""
    return int.from_bytes(hashlib.sha1(normalize_for_dedup(line).encode()).digest()[:8], "little")


def line_hashes(text: str) -> Keys:
    """Return `line_hash` of each line of a text, in order, as uint64: one more than the text has line feeds."""
    sha1 = hashlib.sha1
    digests = b"".join([sha1(line).digest()[:8] for line in _normalize(strip_lines(text)).split(b"\n")])
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


def _normalize(stripped: str) -> bytes:
    text = stripped.lower()
    return encode_plain(text if text.isascii() else _REMOVED.sub("", OTHER_DIGIT.sub("0", text)))


_EMPTY = np.uint64(line_hash(""))
