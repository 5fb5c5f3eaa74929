"""Files of URL keys: what `urls` needs of each extracted document, and nothing of its text.

`extract` writes one a split, one row a document in their order: MD5 of the URL as C4's builder normalises it, its first
64 bits apart, the time, and the document's id.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from filters.quality.c4 import normalise_url
from manifests.files import atomic_path
from manifests.source import Source

ROW = np.dtype([("url", "<u8"), ("rest", "<u8"), ("time", "<i8"), ("high", "<u8"), ("low", "<u8")])
APART = -1
"""the time of a document that is compared with none: it has no URL, or is too long a page"""
_DIGITS = 18


def url_key_path(split: str) -> str:
    """Where a split's URL keys lie, below the corpus."""
    return f"blocks/url-keys/{split}.bin"


class UrlKeys:
    """Collects the keys of a split's documents."""

    def __init__(self, source: Source) -> None:
        self.rows: list[tuple[int, int, int, int, int]] = []
        self.longest = source.c4.max_page_characters if source.c4 is not None else None

    def append(self, identity: bytes, url: str, timestamp: str, characters: int) -> None:
        """Add one document."""
        digest = hashlib.md5(normalise_url(url).encode(), usedforsecurity=False).digest()
        apart = not url or (self.longest is not None and characters > self.longest)
        halves = [int.from_bytes(part, "big") for part in (digest[:8], digest[8:], identity[:8], identity[8:])]
        self.rows.append((halves[0], halves[1], APART if apart else time_key(timestamp), halves[2], halves[3]))

    def write(self, path: Path) -> int:
        """Write the file; gives how many documents it holds."""
        with atomic_path(path) as temporary:
            temporary.write_bytes(np.array(self.rows, ROW).tobytes())
        return len(self.rows)


def read_url_keys(path: Path) -> npt.NDArray[np.void]:
    """(documents,) of `ROW`."""
    return np.fromfile(path, ROW)


def time_key(timestamp: str) -> int:
    """A number that orders times in ISO 8601 and UTC as they follow each other; 0 for none."""
    digits = "".join(character for character in timestamp if character.isascii() and character.isdigit())
    return int(digits[:_DIGITS].ljust(_DIGITS, "0") or 0)
