"""url_dedup: of all documents of a source under one URL, the newest stays, as in C4's builder.

First, `collect` writes a file of keys per split, with a row for each document in order; a document that the rules
before this one drop takes no part. Then there are two exchanges, and neither carries a text or a URL. Hashes of URLs go
by hash range to where they are compared, and the places of older copies go back by split. Of documents of the same
time, the one of the smaller id stays.
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

RANGE_BYTES = 128 << 20  # packed keys that one reducer holds; it needs some four times as much while it sorts
DOCUMENT_BITS = 32  # a place is split number << 32 | document of the split
ROW = np.dtype([("url", "<u8"), ("rest", "<u8"), ("time", "<i8"), ("high", "<u8"), ("low", "<u8")])
KEY = np.dtype([*ROW.descr, ("place", "<i8")])
APART = -1  # time of a document that is compared with no other: it has no URL, or a rule before has dropped it


def collect_keys(corpus: Path, split: str, *, applied: SourceRules) -> Result:
    """Write the keys of a split's documents: URL's hash in two halves, time, and id in two halves."""
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
    """Return the steps of the stage as turns of one job, over the splits of the sources whose rules need it."""
    collect = Step(COLLECT, collect_keys, units_for(recipe, STAGE, extracted, verdicts), {}, by_source)
    found = find_duplicates(extracted, [unit.name for unit in collect.units])
    return compare_turns(STAGE, collect, found, DOCUMENT_BITS, reduce_verdicts)


def find_duplicates(extracted: Receipts, splits: Sequence[str]) -> tuple[Step, Step]:
    """Return the steps that find older copies: a mapper for each of the splits, in whose order they are numbered."""
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
    found = np.empty(len(rows), bool)
    found[order] = ~run_starts(rows["url"][order], rows["rest"][order])
    return found


def reduce_verdicts(corpus: Path, split: str, blocks: list[bytes]) -> Result:
    """Write one split's verdicts: one byte per document, 1 for an older copy."""
    older = np.zeros(len(read_url_keys(corpus, split)), bool)
    older[join_blocks(blocks, np.dtype(np.int64))] = True
    path = verdict_path(STAGE, split)
    write_atomic(corpus / path, older.tobytes())
    return Result([path], {}, {"older": int(older.sum())})


def url_key_path(split: str) -> str:
    """Return the path of a split's URL keys, below the corpus."""
    return f"blocks/{COLLECT}/{split}.bin"


def read_url_keys(corpus: Path, split: str) -> npt.NDArray[np.void]:
    """Return the keys of a split's documents, (documents,) of `ROW`."""
    return np.fromfile(corpus / url_key_path(split), ROW)


def findings(duplicates: Receipts) -> dict[str, int]:
    """Return the counts for the manifest: documents compared, and older copies among them."""
    return {name: sum(receipt.facts[name] for receipt in duplicates.values()) for name in ("documents", "older")}
