"""url_dedup: keep only the newest document of each URL of a source, as C4's builder does.

First, `collect` writes a file of keys per split, with one row per document in order. A document that an earlier rule
drops is marked and not compared. Then there are two exchanges, which transfer no text and no URL. The first sends
hashes of URLs by hash range to the reducers that compare them. The second sends the positions of older copies back to
their splits. If two documents have the same time, the document with the smaller id is kept.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.hashing import group_keys, run_starts
from filters.quality.c4 import time_key, url_digest
from manifests.files import write_atomic
from manifests.recipe import Recipe
from pipeline.beam.exchange import Mapped, by_range, join_blocks, ranges_for
from pipeline.beam.step import Awaited, Receipts, Result, Step, Unit, source_of
from pipeline.beam.work import Turns
from pipeline.stages.filter import SourceRules, Verdicts, compare_turns, filter_pages, units_for, verdict_path

STAGE = "url_dedup"
COLLECT, KEYS, DUPLICATES = (f"{STAGE}/{step}" for step in ("collect", "keys", "duplicates"))

RANGE_BYTES = 128 << 20  # Bytes of packed keys per reducer. Sorting needs about four times as much memory.
DOCUMENT_BITS = 32  # A place is (split number << 32) | row of the document in the split.
ROW = np.dtype([("url", "<u8"), ("rest", "<u8"), ("time", "<i8"), ("high", "<u8"), ("low", "<u8")])
KEY = np.dtype([*ROW.descr, ("place", "<i8")])
APART = -1  # Time of a document that is not compared, because it has no URL or an earlier rule dropped it.


def collect_keys(corpus: Path, split: str, *, applied: SourceRules) -> Result:
    """Write the keys of the documents of a split as rows of `ROW`.

    A row has the URL's hash in two halves, the time, and the document's id in two halves.
    """
    rows = []
    for row, found in filter_pages(corpus, split, applied):
        digest = url_digest(row["url"])
        halves = [int.from_bytes(part, "big") for part in (digest[:8], digest[8:], row["id"][:8], row["id"][8:])]
        apart = not row["url"] or found.reason is not None
        rows.append((halves[0], halves[1], APART if apart else time_key(row["timestamp"]), halves[2], halves[3]))
    write_atomic(corpus / url_key_path(split), np.array(rows, ROW).tobytes())
    return Result([url_key_path(split)], {}, {"documents": len(rows)})


def dedup_turns(
    recipe: Recipe, extracted: Receipts, by_source: Mapping[str, Mapping[str, Any]], verdicts: Verdicts
) -> Turns:
    """Return the steps of this stage as turns of one job, over the splits of the sources whose rules need it."""
    collect = Step(COLLECT, collect_keys, units_for(recipe, STAGE, extracted, verdicts), {}, by_source)
    found = find_duplicates(extracted, [unit.name for unit in collect.units])
    return compare_turns(STAGE, collect, found, DOCUMENT_BITS, reduce_verdicts)


def find_duplicates(extracted: Receipts, splits: Sequence[str]) -> tuple[Step, Step]:
    """Return the two steps that find older copies, with a mapper per split and a reducer per range.

    The number of a split is its index in `splits`.
    """
    sources = sorted({source_of(split) for split in splits})
    documents = {split: extracted[split].output_counts(source_of(split))["records"] for split in splits}
    ranges = ranges_for(sum(documents.values()) * KEY.itemsize, RANGE_BYTES)
    units = [
        Unit(
            split,
            {"number": number, "group": sources.index(source_of(split))},
            (),
            documents[split] * ROW.itemsize,
            awaits=(Awaited(COLLECT, split),),
        )
        for number, split in enumerate(documents)
    ]
    reducing = Step(DUPLICATES, reduce_duplicates, [Unit(f"{r:05d}") for r in range(ranges)])
    return Step(KEYS, map_keys, units, {"ranges": ranges}), reducing


def map_keys(corpus: Path, split: str, *, number: int, group: int, ranges: int) -> Mapped:
    """Send the keys of one split, by hash range.

    Args:
        corpus: Folder of the corpus.
        split: Name of the split.
        number: Number of the split.
        group: Number of its source. Documents of different sources are not compared.
        ranges: Number of hash ranges.
    """
    rows = read_url_keys(corpus, split)
    sent = np.flatnonzero(rows["time"] != APART)
    packed = np.empty(len(sent), KEY)
    for name in ROW.names or ():
        packed[name] = rows[name][sent]
    packed["url"] = group_keys(packed["url"], group)
    packed["place"] = (np.int64(number) << DOCUMENT_BITS) + sent
    return Mapped(by_range(packed["url"], packed, ranges))


def reduce_duplicates(corpus: Path, part: str, blocks: list[bytes]) -> Result:
    """Write the sorted places (int64) of the older copies in one hash range."""
    rows = join_blocks(blocks, KEY)
    older, path = rows["place"][older_mask(rows)], f"blocks/{DUPLICATES}/{part}"
    write_atomic(corpus / path, np.sort(older).tobytes())
    return Result([path], {}, {"documents": len(rows), "older": len(older)})


def older_mask(rows: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Return a mask (n,) of the rows of `KEY` that are older copies of another row with the same URL.

    Of rows with the same time, the row with the smallest id is not masked; if the ids are equal, the smallest place.
    """
    order = np.lexsort([rows["place"], rows["low"], rows["high"], -rows["time"], rows["rest"], rows["url"]])
    found = np.empty(len(rows), bool)
    found[order] = ~run_starts(rows["url"][order], rows["rest"][order])
    return found


def reduce_verdicts(corpus: Path, split: str, blocks: list[bytes]) -> Result:
    """Write the verdicts of one split, with one byte per document: 1 for an older copy, otherwise 0."""
    older = np.zeros(len(read_url_keys(corpus, split)), bool)
    older[join_blocks(blocks, np.dtype(np.int64))] = True
    path = verdict_path(STAGE, split)
    write_atomic(corpus / path, older.tobytes())
    return Result([path], {}, {"older": int(older.sum())})


def url_key_path(split: str) -> str:
    """Return the path of the URL keys of a split, relative to the corpus."""
    return f"blocks/{COLLECT}/{split}.bin"


def read_url_keys(corpus: Path, split: str) -> npt.NDArray[np.void]:
    """Read the keys of the documents of a split, as an array (documents,) of dtype `ROW`."""
    return np.fromfile(corpus / url_key_path(split), ROW)


def findings(duplicates: Receipts) -> dict[str, int]:
    """Return the counts for the manifest: the documents that were compared, and the older copies among them."""
    return {name: sum(receipt.facts[name] for receipt in duplicates.values()) for name in ("documents", "older")}
