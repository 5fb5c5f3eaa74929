"""url_dedup: of all documents of a source under one URL, the newest stays, as in C4's builder, before its page rules.

Two exchanges, and never a text or a URL in either: hashes of URLs go by hash range to where they are compared, and the
places of older copies go back by split. Equal times: the document of the smaller id stays.

`extract` writes a file of keys per split, one row per document in their order.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from filters.hashing import group_keys
from filters.quality.c4 import normalise_url
from manifests.files import write_atomic
from manifests.recipe import Recipe
from manifests.source import Source
from pipeline.beam.exchange import Mapped, by_range, by_split, join_blocks, ranges_for
from pipeline.beam.task import Receipts, Result, Step, Unit, source_of

STAGE = "url_dedup"
KEYS, DUPLICATES, PLACES, VERDICTS = (f"{STAGE}/{step}" for step in ("keys", "duplicates", "places", "verdicts"))

RANGE_BYTES = 128 << 20  # packed keys that one reducer holds; it needs some four times as much while it sorts
DOCUMENT_BITS = 32  # a place is split number << 32 | document of the split
ROW = np.dtype([("url", "<u8"), ("rest", "<u8"), ("time", "<i8"), ("high", "<u8"), ("low", "<u8")])
KEY = np.dtype([*ROW.descr, ("place", "<i8")])
APART = -1  # time of a document that is compared with no other: it has no URL, or is too long a page
_DIGITS = 18  # of a time


class UrlKeys:
    """The keys of a split's documents.

    They are the MD5 of the URL as C4's builder normalises it, in two halves, the time, and the document's id in two
    halves.
    """

    def __init__(self, source: Source) -> None:
        """Take the longest page that is compared from the source's rules."""
        self.rows: list[tuple[int, int, int, int, int]] = []
        self.longest = source.c4.max_page_characters if source.c4 is not None else None

    def append(self, identity: bytes, url: str, timestamp: str, characters: int) -> None:
        """Add one document."""
        digest = hashlib.md5(normalise_url(url).encode(), usedforsecurity=False).digest()
        apart = not url or (self.longest is not None and characters > self.longest)
        halves = [int.from_bytes(part, "big") for part in (digest[:8], digest[8:], identity[:8], identity[8:])]
        self.rows.append((halves[0], halves[1], APART if apart else time_key(timestamp), halves[2], halves[3]))

    def write(self, path: Path) -> int:
        """Write the file and return the number of documents that it holds."""
        write_atomic(path, np.array(self.rows, ROW).tobytes())
        return len(self.rows)


def find_duplicates(recipe: Recipe, extracted: Receipts) -> tuple[Step, Step]:
    """Return the steps that find older copies: a mapper per split of the sources that keep one document a URL."""
    sources = sorted(name for name, source in recipe.sources.items() if source.newest_per_url)
    splits = {split: extracted[split] for split in sorted(extracted) if source_of(split) in sources}
    documents = {split: receipt.facts["urls"] for split, receipt in splits.items()}
    ranges = ranges_for(sum(documents.values()) * KEY.itemsize, RANGE_BYTES)
    units = [
        Unit(
            split,
            {"number": number, "group": sources.index(source_of(split))},
            [receipt],
            documents[split] * ROW.itemsize,
        )
        for number, (split, receipt) in enumerate(splits.items())
    ]
    reducing = Step(DUPLICATES, reduce_duplicates, [Unit(f"{r:05d}") for r in range(ranges)])
    return Step(KEYS, map_keys, units, {"ranges": ranges}), reducing


def send_verdicts(keys: Receipts, duplicates: Receipts) -> tuple[Step, Step]:
    """Return the steps that send the places of older copies back: a mapper per range, a reducer per split."""
    maps = [Unit(name, {}, [receipt], receipt.bytes) for name, receipt in sorted(duplicates.items())]
    reduces = [Unit(split, {}, [receipt]) for split, receipt in keys.items()]
    owned = (f"verdicts/{STAGE}",)
    return Step(PLACES, map_verdicts, maps), Step(VERDICTS, reduce_verdicts, reduces, owns=owned)


def map_keys(corpus: Path, split: str, *, number: int, group: int, ranges: int) -> Mapped:
    """Send the keys of one split, by range."""
    rows = read_url_keys(corpus, split)
    sent = np.flatnonzero(rows["time"] != APART)
    packed = np.empty(len(sent), KEY)
    for name in ROW.names or ():
        packed[name] = rows[name][sent]
    packed["url"] = group_keys(packed["url"], group)
    packed["place"] = (np.int64(number) << DOCUMENT_BITS) + sent
    return Mapped(by_range(packed["url"], packed, ranges))


def reduce_duplicates(corpus: Path, part: str, blocks: list[bytes]) -> Result:
    """Write the places of one range's older copies, sorted."""
    rows = join_blocks(blocks, KEY)
    older, path = rows["place"][not_newest(rows)], f"blocks/{DUPLICATES}/{part}"
    write_atomic(corpus / path, np.sort(older).tobytes())
    return Result([path], {}, {"documents": len(rows), "older": len(older)})


def not_newest(rows: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Return (n,) bool: rows of `KEY` under whose URL another is newer, or as new with a smaller id (or place)."""
    order = np.lexsort([rows["place"], rows["low"], rows["high"], -rows["time"], rows["rest"], rows["url"]])
    urls, rest = rows["url"][order], rows["rest"][order]
    found = np.zeros(len(rows), bool)
    found[order[1:][(urls[1:] == urls[:-1]) & (rest[1:] == rest[:-1])]] = True
    return found


def map_verdicts(corpus: Path, part: str) -> Mapped:
    """Send a range's places, by split."""
    return Mapped(by_split(np.fromfile(corpus / f"blocks/{DUPLICATES}/{part}", np.int64), DOCUMENT_BITS))


def reduce_verdicts(corpus: Path, split: str, blocks: list[bytes]) -> Result:
    """Write one split's verdicts: one byte per document, 1 for an older copy."""
    older = np.zeros(len(read_url_keys(corpus, split)), bool)
    older[join_blocks(blocks, np.dtype(np.int64))] = True
    write_atomic(corpus / verdict_path(split), older.tobytes())
    return Result([verdict_path(split)], {}, {"older": int(older.sum())})


def url_key_path(split: str) -> str:
    """Return the path of a split's URL keys, below the corpus."""
    return f"blocks/url-keys/{split}.bin"


def read_url_keys(corpus: Path, split: str) -> npt.NDArray[np.void]:
    """Return the keys of a split's documents, (documents,) of `ROW`."""
    return np.fromfile(corpus / url_key_path(split), ROW)


def verdict_path(split: str) -> str:
    """Return the path of a split's verdicts, below the corpus."""
    return f"verdicts/{STAGE}/{split}.bin"


def read_older(corpus: Path, split: str) -> npt.NDArray[np.bool_]:
    """Return (documents,) bool: which documents of a split are older copies."""
    return np.fromfile(corpus / verdict_path(split), np.bool_)


def findings(duplicates: Receipts) -> dict[str, int]:
    """Return the counts for the manifest: documents compared, and older copies among them."""
    return {name: sum(receipt.facts[name] for receipt in duplicates.values()) for name in ("documents", "older")}


def time_key(timestamp: str) -> int:
    """Return a number that orders times in ISO 8601 and UTC as they follow each other; 0 for none."""
    digits = "".join(character for character in timestamp if character.isascii() and character.isdigit())
    return int(digits[:_DIGITS].ljust(_DIGITS, "0") or 0)
