"""CCNet's two normal forms of a line (Wenzek et al. 2020, sections 3.1 and 3.3; cc_net/text_normalizer.py): one to find
repeated lines, one for the language model.

Both have a form for a whole text that goes over it in a few passes: none of the steps looks across a line break, which
is no cased letter (so that Greek final sigma is safe), a starter of its own in NFD, and kept until the last step.
"""

import hashlib
import re
import unicodedata
from functools import lru_cache

import numpy as np
import numpy.typing as npt

LineHashes = npt.NDArray[np.uint64]

DEDUP_REMOVED = "，。、„”“«»１」「《》´∶：？！（）；–—．～’…━〈〉【】％►"
"""the 34 marks that do not tell lines apart; １ is never met, as digits become 0 before"""
LM_REPLACED = {
    **dict.fromkeys("，、", ","),
    **dict.fromkeys("„”“«»１」「《》", '"'),
    **dict.fromkeys("´’", "'"),
    **dict.fromkeys("–━►", "-"),
    **dict(zip("。．∶：；？！％（）【】〈〉～", "..::;?!%()[]<>~", strict=True)),
    "—": " - ",
    "…": "...",
}
"""what the language model reads for the same 34 marks"""

_DIGIT = re.compile(r"[^\D0-9]")
"""decimal digits of other scripts; those of ASCII are replaced in the bytes, at a tenth of the cost"""
_REMOVED = re.compile(f"[{DEDUP_REMOVED}\x80-\x9f]")
_REPLACED = re.compile(f"[{''.join(LM_REPLACED)}]")
_C1 = re.compile("[\x80-\x9f]")
_ASTRAL = re.compile("[\U00010000-\U0010ffff]+")
_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_CONTROLS = bytes([*range(10), *range(11, 32), 127])
"""ASCII's control characters but the line feed"""


def normalize_for_dedup(line: str) -> str:
    """A line as it is compared: stripped, lowered, digits as 0, without the 34 marks and control characters."""
    return _for_dedup(line.strip()).replace(b"\n", b"").decode()


def line_hash(line: str) -> int:
    """The first 8 bytes of the SHA-1 of a normalised line in UTF-8, little-endian (unsigned 64 bits).

    A blank line has the hash of the empty string.
    """
    return int.from_bytes(hashlib.sha1(normalize_for_dedup(line).encode()).digest()[:8], "little")


def line_hashes(text: str) -> LineHashes:
    """`line_hash` of each line of a text, in order: uint64, one more than it has line feeds."""
    sha1 = hashlib.sha1
    lines = _for_dedup(_stripped(text)).split(b"\n")
    digests = b"".join([sha1(line).digest()[:8] for line in lines])
    return np.frombuffer(digests, "<u8").astype(np.uint64, copy=False)


def normalize_for_lm(line: str) -> str:
    """A line as the language model reads it: stripped, lowered, without accents, digits as 0, punctuation as ASCII.

    Line breaks are control characters and vanish, so a whole text becomes one line, its words joined at the breaks.
    """
    return _for_lm(line.strip()).replace("\n", "")


def lm_lines(text: str) -> list[str]:
    """`normalize_for_lm` of each line of a text, in order; blank lines stay, empty."""
    return _for_lm(_stripped(text)).split("\n")


def _stripped(text: str) -> str:
    return "\n".join([line.strip() for line in text.split("\n")])


def _for_dedup(text: str) -> bytes:
    """Stripped text, normalised but for its line feeds."""
    text = text.lower()
    if not text.isascii():
        text = _REMOVED.sub("", _DIGIT.sub("0", text))
    return text.encode().translate(_TO_ZERO, _CONTROLS)


def _for_lm(text: str) -> str:
    """Stripped text, normalised but for its line feeds."""
    text = text.lower()
    if not text.isascii():
        text = _DIGIT.sub("0", _without_accents(text))
        text = _C1.sub("", _REPLACED.sub(lambda mark: LM_REPLACED[mark[0]], text))
    return text.encode().translate(_TO_ZERO, _CONTROLS).decode()


def _without_accents(text: str) -> str:
    """NFD without category Mn, as this Python's Unicode tables have it."""
    text = _marks().sub("", unicodedata.normalize("NFD", text))
    if len(text.encode("utf-16-le")) == 2 * len(text):
        return text
    return _ASTRAL.sub(lambda run: "".join(c for c in run[0] if unicodedata.category(c) != "Mn"), text)


@lru_cache(maxsize=1)
def _marks() -> re.Pattern[str]:
    """Category Mn of the basic plane; beyond it a set of that many ranges would be tried one by one."""
    basic = map(chr, range(0x10000))
    return re.compile(f"[{''.join(c for c in basic if unicodedata.category(c) == 'Mn')}]")
